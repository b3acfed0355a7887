//! A folder of `.npz` files: one sample each, with the full shape of every input, scalars too.

use std::path::{Path, PathBuf};

use super::arrays::checked;
use super::npz::Npz;
use super::{DataError, Sample, fit};
use crate::limits;
use crate::port::Port;
use crate::problem::Problem;
use crate::tensor::Tensor;

/// The files, sorted by name, and the inputs that they feed.
#[derive(Debug)]
pub struct Folder {
    files: Vec<PathBuf>,
    inputs: Vec<Port>,
}

impl Folder {
    /// Takes the files over; the first is read and checked at once, the others when their sample is asked for.
    pub fn new(files: Vec<PathBuf>, inputs: &[Port], problems: &mut Vec<Problem>) -> Result<Self, DataError> {
        let folder = Self { files, inputs: inputs.to_vec() };
        if let Some(first) = folder.files.first() {
            folder.read(first, 0, problems)?;
        }
        Ok(folder)
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Reads sample `index`.
    pub fn sample(&self, index: usize) -> Result<Sample, DataError> {
        let path = self.files.get(index).ok_or(DataError::Index { index, len: self.len() })?;
        self.read(path, index, &mut Vec::new())
    }

    /// Name of the file of sample `index`.
    pub fn file_name(&self, index: usize) -> String {
        file_name(self.files.get(index))
    }

    fn read(&self, path: &Path, index: usize, problems: &mut Vec<Problem>) -> Result<Sample, DataError> {
        let mut npz = Npz::open(path)?;
        let names = fit::match_names(path, &npz.names(), &self.inputs, problems)?;
        let mut feeds = Vec::with_capacity(names.len());
        for (name, port) in names.iter().zip(&self.inputs) {
            let array = npz.array(name)?;
            check_shape(&array.place, &array.shape, port)?;
            fit::check_type(&array, name, port, problems)?;
            let values = checked(&array.place, index, array.all()?, port)?;
            feeds.push((port.name.clone(), Tensor { shape: array.shape.clone(), values }));
        }
        Ok(Sample { feeds })
    }
}

/// The last part of a path, for people.
pub fn file_name(path: Option<&PathBuf>) -> String {
    path.and_then(|path| path.file_name()).map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn check_shape(array: &str, found: &[usize], port: &Port) -> Result<(), DataError> {
    if !port.has_shape {
        return Ok(());
    }
    let refuse = |why: String| {
        Err(DataError::Shape {
            array: array.to_owned(),
            why: format!("shape {found:?}, but input {:?} takes {}: {why}", port.name, port.shape_text()),
            hint: "In a folder every file is one sample with the input's full shape, batch axis included".to_owned(),
        })
    };
    if found.len() != port.shape.len() {
        return refuse(format!("{} axes instead of {}", found.len(), port.shape.len()));
    }
    match fit::first_misfit(&port.shape, found) {
        Some((axis, wanted)) => {
            refuse(format!("axis {axis} is {}, not {wanted}", found.get(axis).copied().unwrap_or_default()))
        }
        None => Ok(()),
    }
}

/// The files of a folder (not of its sub-folders) with one of these extensions, sorted by name.
pub fn files_with(folder: &Path, extensions: &[&str]) -> Result<Vec<PathBuf>, DataError> {
    let io = |source| DataError::Io { path: folder.to_owned(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let extension = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if !hidden && extensions.contains(&extension.as_str()) && path.is_file() {
            files.push(path);
        }
    }
    if files.len() > limits::MAX_SAMPLES {
        return Err(DataError::Source {
            spec: folder.display().to_string(),
            why: format!("it holds more than {} samples", limits::MAX_SAMPLES),
        });
    }
    files.sort();
    Ok(files)
}
