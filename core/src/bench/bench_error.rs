//! Why timing or memory could not be measured.

use std::path::PathBuf;

/// Why a benchmark failed.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The child process that measures memory could not be started or failed.
    #[error("cannot measure peak memory: {why}")]
    Child {
        /// The program.
        program: PathBuf,
        /// What happened, with the child's own words.
        why: String,
    },
    /// ONNX Runtime's profile could not be read.
    #[error("cannot read the runtime's profile: {why}")]
    Profile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// There is no sample to time.
    #[error("there is no sample to time")]
    NoSamples,
}

impl BenchError {
    /// The file or program concerned.
    pub fn place(&self) -> String {
        match self {
            Self::Child { program: path, .. } | Self::Profile { path, .. } => path.display().to_string(),
            Self::NoSamples => String::new(),
        }
    }

    /// What to do next.
    pub fn hint(&self) -> String {
        match self {
            Self::Child { .. } => "Check that the model runs by itself and that memory suffices".to_owned(),
            Self::Profile { .. } => "Check that the folder for temporary files has room and try again".to_owned(),
            Self::NoSamples => "Give data with at least one sample, or random:1".to_owned(),
        }
    }
}
