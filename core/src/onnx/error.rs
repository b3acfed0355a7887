//! Why a model file could not be read or written.

use std::io::ErrorKind;
use std::path::PathBuf;

/// Why a model file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum OnnxError {
    /// The person cancelled while the file was being read.
    #[error("cancelled")]
    Cancelled,
    /// Reading or writing failed.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was attempted, e.g. "read the model".
        action: &'static str,
        /// The file concerned.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The path names a folder.
    #[error("this is a folder, not a model file")]
    Folder {
        /// The folder.
        path: PathBuf,
    },
    /// The file has no bytes.
    #[error("the file is empty")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The file is something else than an ONNX protobuf.
    #[error("not an ONNX model: {reason}")]
    NotOnnx {
        /// The file.
        path: PathBuf,
        /// What was found instead.
        reason: String,
        /// What to do about this kind of file.
        advice: String,
    },
    /// The file ends in the middle of a field.
    #[error("the file is cut off: {missing} bytes are missing")]
    Truncated {
        /// The file.
        path: PathBuf,
        /// How many bytes the last field promises beyond the end.
        missing: u64,
    },
    /// The outer structure is right, something inside is not.
    #[error("the model is damaged: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The decoder's reason.
        reason: String,
    },
    /// A limit of [`crate::limits`] is exceeded.
    #[error("{what} is over the limit of {limit}")]
    OverLimit {
        /// What is too large, with its size.
        what: String,
        /// The limit.
        limit: u64,
        /// The file or tensor concerned.
        place: String,
    },
    /// A tensor's external data cannot be used.
    #[error("external data of tensor '{tensor}': {reason}")]
    External {
        /// The tensor.
        tensor: String,
        /// Why not.
        reason: String,
        /// The data file, as far as known.
        path: PathBuf,
    },
    /// A tensor's own data do not fit its shape or type.
    #[error("tensor '{tensor}': {reason}")]
    Tensor {
        /// The tensor.
        tensor: String,
        /// What is wrong.
        reason: String,
    },
    /// An element type that this program does not read.
    #[error("tensor '{tensor}' holds {element_type} values, which are not supported")]
    ElementType {
        /// The tensor.
        tensor: String,
        /// ONNX's name of the element type.
        element_type: &'static str,
    },
}

impl OnnxError {
    /// The file or tensor concerned.
    pub fn place(&self) -> String {
        match self {
            Self::Cancelled => String::new(),
            Self::Io { path, .. }
            | Self::Folder { path }
            | Self::Empty { path }
            | Self::NotOnnx { path, .. }
            | Self::Truncated { path, .. }
            | Self::Damaged { path, .. }
            | Self::External { path, .. } => path.display().to_string(),
            Self::OverLimit { place, .. } => place.clone(),
            Self::Tensor { tensor, .. } | Self::ElementType { tensor, .. } => tensor.clone(),
        }
    }

    /// What the person can do next.
    pub fn hint(&self) -> String {
        match self {
            Self::Cancelled => "Start it again".to_owned(),
            Self::Io { source, .. } => match source.kind() {
                ErrorKind::NotFound => "Check the path; the file or its folder does not exist".to_owned(),
                ErrorKind::PermissionDenied => "Check the permissions of the file and its folder".to_owned(),
                ErrorKind::StorageFull => "Free some disk space and try again".to_owned(),
                _ => "Check the path and that the disk has room".to_owned(),
            },
            Self::Folder { .. } => "Choose the .onnx file inside the folder".to_owned(),
            Self::Empty { .. } => "Copy or export the model again; the transfer left an empty file".to_owned(),
            Self::NotOnnx { advice, .. } => advice.clone(),
            Self::Truncated { .. } => "Copy or download the model again; the transfer stopped early".to_owned(),
            Self::Damaged { .. } => {
                "Copy or export the model again; onnx.checker in Python can say more about what is wrong".to_owned()
            }
            Self::OverLimit { .. } => {
                "Keep large weights as external data, and check that the file is what you expect".to_owned()
            }
            Self::External { .. } => {
                "Keep the data file beside the model, in the same folder, complete and under its original name"
                    .to_owned()
            }
            Self::Tensor { .. } => "Export the model again; this tensor is inconsistent in the file".to_owned(),
            Self::ElementType { .. } => "Layers with such weights cannot be changed; export them as float32".to_owned(),
        }
    }
}
