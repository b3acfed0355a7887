//! Samples cut from the arrays of one `.npz` or `.npy`.

use std::fs::File;
use std::path::Path;

use super::fit::{self, Cut};
use super::npy::NpyArray;
use super::npz::Npz;
use super::{DataError, Sample, convert};
use crate::port::Port;
use crate::problem::{Problem, Severity};
use crate::tensor::{Tensor, Values};

/// The arrays that feed a model, checked against its inputs.
#[derive(Debug)]
pub struct Arrays {
    feeds: Vec<Feed>,
    /// Samples there are.
    pub len: usize,
    /// Rows that one sample takes from each array.
    pub batch: usize,
    /// Rows there are, a remainder that fills no batch included.
    pub rows: usize,
}

#[derive(Debug)]
struct Feed {
    port: Port,
    name: String,
    array: NpyArray,
    cut: Cut,
}

impl Arrays {
    /// Opens an `.npz`.
    pub fn open_npz(path: &Path, inputs: &[Port], problems: &mut Vec<Problem>) -> Result<Self, DataError> {
        let mut npz = Npz::open(path)?;
        let names = fit::match_names(path, &npz.names(), inputs, problems)?;
        let arrays = names.into_iter().map(|name| npz.array(&name).map(|array| (name, array)));
        Self::fit(path, arrays.collect::<Result<_, _>>()?, inputs, problems)
    }

    /// Opens an `.npy`, which feeds a single input.
    pub fn open_npy(path: &Path, inputs: &[Port], problems: &mut Vec<Problem>) -> Result<Self, DataError> {
        if inputs.len() != 1 {
            let names: Vec<_> = inputs.iter().map(|port| port.name.as_str()).collect();
            return Err(DataError::Names {
                path: path.to_owned(),
                arrays: "one, without a name".to_owned(),
                inputs: names.join(", "),
                hint: "Save an .npz with one array an input: numpy.savez(file, NAME=x, …)".to_owned(),
            });
        }
        let array = open_npy(path)?;
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Self::fit(path, vec![(name, array)], inputs, problems)
    }

    fn fit(
        path: &Path,
        arrays: Vec<(String, NpyArray)>,
        inputs: &[Port],
        problems: &mut Vec<Problem>,
    ) -> Result<Self, DataError> {
        let mut feeds = Vec::with_capacity(arrays.len());
        for ((name, array), port) in arrays.into_iter().zip(inputs) {
            let cut = Cut::decide(&name, &array.shape, port)?;
            fit::check_type(&array, &name, port, problems)?;
            if array.is_fortran() {
                problems.push(Problem::new(
                    Severity::Note,
                    format!("Array {name:?} is read slowly"),
                    array.place.clone(),
                    "It is stored in Fortran order, so every sample lies scattered over the file",
                    "Save it again with numpy.ascontiguousarray(x)",
                ));
            }
            feeds.push(Feed { port: port.clone(), name, array, cut });
        }
        let batch = feeds.iter().map(|feed| if let Cut::Rows(batch) = feed.cut { batch } else { 1 }).max().unwrap_or(1);
        for feed in &mut feeds {
            if let Cut::Rows(rows) = &mut feed.cut {
                *rows = batch;
            }
        }
        let rows = |feed: &Feed| feed.array.shape.first().copied().unwrap_or(1);
        let samples: Vec<usize> = feeds.iter().map(|feed| feed.cut.samples(rows(feed))).collect();
        let len = samples.first().copied().unwrap_or(0);
        let leading = |feed: &Feed| format!("{} {:?}", feed.name, feed.array.shape);
        if samples.iter().any(|count| *count != len) {
            let counts: Vec<_> = feeds.iter().map(leading).collect();
            return Err(DataError::Counts { path: path.to_owned(), counts: counts.join(", ") });
        }
        if len == 0 {
            return Err(DataError::Empty { place: path.display().to_string() });
        }
        if let Some(feed) = feeds.iter().find(|feed| matches!(feed.cut, Cut::Rows(_))).filter(|_| batch > 1) {
            let left = rows(feed) % batch;
            problems.push(Problem::new(
                Severity::Note,
                format!("Every run is fed {batch} rows of the data at once; {left} at the end are left out"),
                path.display().to_string(),
                format!("Input {:?} is {}: its batch size is fixed", feed.port.name, feed.port.shape_text()),
                "Export the model with a batch axis of 1 or an open one to run every row by itself",
            ));
        }
        let rows = feeds.iter().find(|feed| matches!(feed.cut, Cut::Rows(_))).map_or(len, rows);
        Ok(Self { feeds, len, batch, rows })
    }

    /// Reads sample `index`.
    pub fn sample(&self, index: usize) -> Result<Sample, DataError> {
        let feeds = self.feeds.iter().map(|feed| Ok((feed.port.name.clone(), feed.tensor(index)?)));
        Ok(Sample { feeds: feeds.collect::<Result<_, DataError>>()? })
    }

    /// Name of the array that feeds input number `input`.
    pub fn array_name(&self, input: usize) -> Option<&str> {
        self.feeds.get(input).map(|feed| feed.name.as_str())
    }
}

impl Feed {
    fn tensor(&self, index: usize) -> Result<Tensor, DataError> {
        let rest = self.array.shape.get(1..).unwrap_or_default();
        let (values, shape) = match self.cut {
            Cut::Rows(batch) => (self.array.rows(index * batch, batch)?, [&[batch], rest].concat()),
            Cut::Entry => (self.array.rows(index, 1)?, rest.to_vec()),
            Cut::Single => (self.array.all()?, [&[1], self.array.shape.as_slice()].concat()),
        };
        Ok(Tensor { shape, values: checked(&self.name, index, values, &self.port)? })
    }
}

/// Refuses NaN and infinity, then converts to the input's type.
pub fn checked(array: &str, sample: usize, values: Values, port: &Port) -> Result<Values, DataError> {
    if let Some((element, value)) = convert::non_finite(&values) {
        return Err(DataError::NonFinite { array: array.to_owned(), value, sample, element });
    }
    let found = values.type_name();
    convert::convert(values, &port.element_type).map_err(|(element, why)| DataError::Type {
        array: array.to_owned(),
        found: format!("{found}, and in sample {sample}, at element {element}, {why}"),
        wanted: port.element_type.clone(),
    })
}

/// A whole file as one array.
pub fn open_npy(path: &Path) -> Result<NpyArray, DataError> {
    let io = |source| DataError::Io { path: path.to_owned(), source };
    let file = File::open(path).map_err(io)?;
    let end = file.metadata().map_err(io)?.len();
    NpyArray::open(Box::new(file), 0, end, path.display().to_string())
}
