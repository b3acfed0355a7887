//! A file is written only after ONNX Runtime loaded it, ran it, and its outputs were compared with the original's.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::data::DataSet;
use crate::error::{CompareOptions, Quality, compare};
use crate::export::ort_format::{self, OrtFile, StagedOrt, ort_path};
use crate::export::{Deployment, Export, ExportError, LayerOutcome, check_output};
use crate::model::Model;
use crate::onnx::Staged;
use crate::plan::targets::SecondFile;
use crate::runtime::{Runtime, Session, SessionOptions, Source};
use crate::{Control, Error, Problem};

/// Samples that an export is verified with; calibration must not have seen them.
#[derive(Clone, Copy)]
pub struct VerifyOptions<'a> {
    /// The data.
    pub data: &'a DataSet,
    /// Which of its samples.
    pub indices: &'a [usize],
    /// Labels of the whole data, where there are any.
    pub labels: Option<&'a [i64]>,
    /// How to compare.
    pub compare: &'a CompareOptions,
}

/// Sizes in bytes, external data included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sizes {
    /// Of the original.
    pub original: u64,
    /// Of the quantized model.
    pub quantized: u64,
}

/// A quantized model that was written, with what was measured on it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Verified {
    /// Where it is.
    pub output: PathBuf,
    /// Sizes of both files.
    pub size_bytes: Sizes,
    /// How far its outputs are from the original's.
    pub quality: Quality,
    /// What became of each layer.
    pub layers: Vec<LayerOutcome>,
    /// What it takes to run it.
    pub deployment: Deployment,
    /// What degraded.
    pub problems: Vec<Problem>,
    /// The same in ORT format, where the plan's target asks for it.
    pub ort: Option<OrtFile>,
}

/// Writes `export` beside `path`, runs it, compares it with the original and moves it to `path`. On any error, and on
/// cancel, `path` is as it was before.
pub fn verify_and_write(
    runtime: &Runtime,
    model: &Model,
    export: Export,
    path: &Path,
    options: VerifyOptions<'_>,
    control: &Control,
) -> Result<Verified, Error> {
    check_output(&model.file, path)?;
    let ort = (export.also == Some(SecondFile::Ort)).then(|| ort_path(path)).transpose()?;
    if let Some(ort) = &ort {
        check_output(&model.file, ort)?;
    }
    control.progress("Writing", 0, 1);
    let staged = Staged::write(&export.proto, Some(model.file.folder()), path)?;
    control.check()?;
    let does_not_run = |error: &dyn std::fmt::Display| ExportError::DoesNotRun {
        place: path.display().to_string(),
        why: error.to_string(),
    };
    let session = SessionOptions { threads: options.compare.threads, ..SessionOptions::default() };
    let mut quantized = match Session::open(runtime, Source::File(staged.path()), &session) {
        Ok(quantized) => quantized,
        Err(error) => {
            control.check()?;
            // What the original cannot do either is no fault of the export, and says so itself.
            Session::open(runtime, Source::File(&model.file.path), &session)?;
            return Err(does_not_run(&error).into());
        }
    };
    if let Some(&first) = options.indices.first() {
        let sample = options.data.sample(first)?;
        if let Err(error) = quantized.run(&sample, control) {
            control.check()?;
            // What is wrong with the sample is wrong with the original too, and says so itself.
            Session::open(runtime, Source::File(&model.file.path), &session)?.run(&sample, control)?;
            return Err(does_not_run(&error).into());
        }
    }
    drop(quantized);
    let before = control.problems().len();
    let quality = compare(
        runtime,
        Source::File(&model.file.path),
        Source::File(staged.path()),
        options.data,
        options.indices,
        options.labels,
        options.compare,
        control,
    )?;
    let Export { layers, mut problems, mut deployment, .. } = export;
    problems.extend(control.problems().into_iter().skip(before));
    let ort = match &ort {
        Some(path) => Some(ort_format::stage(runtime, staged.path(), path, options, control)?),
        None => None,
    };
    problems.extend(ort.as_ref().and_then(|ort| ort.file.problem()));
    let sizes = Sizes { original: model.file.size_bytes, quantized: staged.size_bytes() };
    control.check()?;
    staged.commit()?;
    let ort = ort.map(StagedOrt::commit).transpose()?;
    let file_name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    deployment.verified(&runtime.version(), &file_name);
    Ok(Verified { output: path.to_owned(), size_bytes: sizes, quality, layers, deployment, problems, ort })
}
