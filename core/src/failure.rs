//! The one error type that verbs return: every module's own enum, with what to do next.

use std::path::PathBuf;

/// Why a verb failed. `Display` gives the message; [`Error::place`] where; [`Error::hint`] what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The person cancelled; nothing is wrong.
    #[error("cancelled")]
    Cancelled,
    /// The data or the labels cannot be used.
    #[error(transparent)]
    Data(#[from] crate::data::DataError),
    /// Two models cannot be compared, or the task cannot be scored.
    #[error(transparent)]
    Measure(#[from] crate::error::MeasureError),
    /// Timing or memory could not be measured.
    #[error(transparent)]
    Bench(#[from] crate::bench::BenchError),
    /// A plan, pattern or `KEY=VALUE` could not be read or does not fit the model.
    #[error(transparent)]
    Plan(#[from] crate::plan::PlanError),
    /// Statistics could not be read or belong to another model.
    #[error(transparent)]
    Stats(#[from] crate::stats::StatsError),
    /// A report could not be made from what was given.
    #[error(transparent)]
    Report(#[from] crate::report::ReportError),
    /// A model file could not be read or written.
    #[error(transparent)]
    Onnx(crate::onnx::OnnxError),
    /// The export was refused.
    #[error(transparent)]
    Export(#[from] crate::export::ExportError),
    /// Nothing can be fine-tuned, or its state cannot be used.
    #[error(transparent)]
    Finetune(#[from] crate::finetune::FinetuneError),
    /// ONNX Runtime could not be started, or a model not be opened or run.
    #[error(transparent)]
    Runtime(crate::runtime::RuntimeError),
    /// Reading or writing a file failed.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was attempted, e.g. "write the model".
        action: &'static str,
        /// The file concerned.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
}

impl Error {
    /// The file, layer or tensor the error concerns; empty when it concerns none.
    pub fn place(&self) -> String {
        match self {
            Self::Cancelled => String::new(),
            Self::Onnx(error) => error.place(),
            Self::Data(error) => error.place(),
            Self::Measure(error) => error.place(),
            Self::Bench(error) => error.place(),
            Self::Plan(error) => error.place(),
            Self::Stats(error) => error.place(),
            Self::Export(error) => error.place(),
            Self::Report(error) => error.place(),
            Self::Finetune(error) => error.place(),
            Self::Runtime(error) => error.place(),
            Self::Io { path, .. } => path.display().to_string(),
        }
    }

    /// What the person can do next.
    pub fn hint(&self) -> String {
        match self {
            Self::Cancelled => "Start it again; statistics gathered so far are kept where the job says so".to_owned(),
            Self::Onnx(error) => error.hint(),
            Self::Data(error) => error.hint(),
            Self::Measure(error) => error.hint(),
            Self::Bench(error) => error.hint(),
            Self::Plan(error) => error.hint(),
            Self::Stats(error) => error.hint(),
            Self::Export(error) => error.hint(),
            Self::Report(error) => error.hint(),
            Self::Finetune(error) => error.hint(),
            Self::Runtime(error) => error.hint(),
            Self::Io { source, .. } => match source.kind() {
                std::io::ErrorKind::NotFound => "Check the path; the file or its folder does not exist".to_owned(),
                std::io::ErrorKind::PermissionDenied => {
                    "Choose a place you may write to, or change the permissions".to_owned()
                }
                std::io::ErrorKind::StorageFull => "Free some disk space and try again".to_owned(),
                _ => "Check the path and that the disk has room".to_owned(),
            },
        }
    }
}

impl From<crate::onnx::OnnxError> for Error {
    /// A cancelled load is a cancelled verb, whoever noticed first.
    fn from(error: crate::onnx::OnnxError) -> Self {
        if matches!(error, crate::onnx::OnnxError::Cancelled) { Self::Cancelled } else { Self::Onnx(error) }
    }
}

impl From<crate::runtime::RuntimeError> for Error {
    /// A cancelled run is a cancelled verb, whoever noticed first.
    fn from(error: crate::runtime::RuntimeError) -> Self {
        if matches!(error, crate::runtime::RuntimeError::Cancelled) { Self::Cancelled } else { Self::Runtime(error) }
    }
}
