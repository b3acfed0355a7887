//! Why a model could not be run.

use std::path::PathBuf;

/// Why ONNX Runtime could not be started, or a model not be opened or run.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The person cancelled.
    #[error("cancelled")]
    Cancelled,
    /// No library was found, and none could be fetched.
    #[error("ONNX Runtime was not found and could not be fetched: {}", .tried.join("; "))]
    LibraryMissing {
        /// Every place and way tried, each with its outcome.
        tried: Vec<String>,
    },
    /// A library was named or found, but does not load.
    #[error("the ONNX Runtime library does not load: {reason}")]
    LibraryRefused {
        /// The library.
        path: PathBuf,
        /// The loader's reason.
        reason: String,
        /// Who named it, e.g. "the environment variable ORT_DYLIB_PATH".
        named_by: String,
    },
    /// ONNX Runtime loaded but did not start.
    #[error("ONNX Runtime does not start: {reason}")]
    Start {
        /// ONNX Runtime's message.
        reason: String,
    },
    /// ONNX Runtime refuses the model.
    #[error("ONNX Runtime refuses the model: {reason}")]
    Open {
        /// The file; empty for a model in memory.
        place: String,
        /// ONNX Runtime's message.
        reason: String,
    },
    /// The sample has no value for an input of the model.
    #[error("no value for the input '{input}'; the sample has {given}")]
    InputMissing {
        /// The input.
        input: String,
        /// The names the sample has.
        given: String,
    },
    /// The sample names an input that the model does not have.
    #[error("the model has no input '{input}'; it has {expected}")]
    InputUnknown {
        /// The name in the sample.
        input: String,
        /// The names the model has.
        expected: String,
    },
    /// The sample gives an input twice.
    #[error("the input '{input}' is given twice")]
    InputRepeated {
        /// The input.
        input: String,
    },
    /// The sample's element type is not the input's.
    #[error("the input '{input}' takes {expected}, the sample has {given}")]
    InputType {
        /// The input.
        input: String,
        /// What the model takes.
        expected: String,
        /// What the sample has.
        given: String,
    },
    /// The sample's shape does not fit the input's.
    #[error("the input '{input}' takes the shape {expected}, the sample has {given}")]
    InputShape {
        /// The input.
        input: String,
        /// What the model takes.
        expected: String,
        /// What the sample has.
        given: String,
    },
    /// The run itself failed.
    #[error("running the model failed: {reason}")]
    Run {
        /// ONNX Runtime's message.
        reason: String,
    },
    /// An output could not be read.
    #[error("the output '{output}' cannot be read: {reason}")]
    Output {
        /// The output.
        output: String,
        /// Why not.
        reason: String,
    },
    /// The profile could not be written.
    #[error("the profile cannot be written: {reason}")]
    Profile {
        /// ONNX Runtime's message.
        reason: String,
    },
}

impl RuntimeError {
    /// The library, file, input or output concerned; empty when it concerns none.
    pub fn place(&self) -> String {
        match self {
            Self::LibraryRefused { path, .. } => path.display().to_string(),
            Self::Open { place, .. } => place.clone(),
            Self::InputMissing { input, .. }
            | Self::InputUnknown { input, .. }
            | Self::InputRepeated { input }
            | Self::InputType { input, .. }
            | Self::InputShape { input, .. } => input.clone(),
            Self::Output { output, .. } => output.clone(),
            Self::Cancelled
            | Self::LibraryMissing { .. }
            | Self::Start { .. }
            | Self::Run { .. }
            | Self::Profile { .. } => String::new(),
        }
    }

    /// What the person can do next.
    pub fn hint(&self) -> String {
        match self {
            Self::Cancelled => "Start it again".to_owned(),
            Self::LibraryMissing { .. } => {
                "Install Python 3 with pip and try again, or set ORT_DYLIB_PATH (or the path \
                 in the settings) to an ONNX Runtime library of version 1.23 or later"
                    .to_owned()
            }
            Self::LibraryRefused { named_by, .. } => {
                let windows = if cfg!(windows) { "; it also needs the Visual C++ redistributable" } else { "" };
                format!(
                    "Correct {named_by}, or clear it to let Nibble fetch the library itself; wanted is ONNX Runtime 1.23 \
                     or later, built for this system{windows}"
                )
            }
            Self::Start { .. } => "Restart the program; if it stays so, try another ONNX Runtime library".to_owned(),
            Self::Open { reason, .. } => open_hint(reason).to_owned(),
            Self::InputMissing { .. } | Self::InputUnknown { .. } => {
                "Name the arrays of the data as the model names its inputs".to_owned()
            }
            Self::InputRepeated { .. } => "Give every input once".to_owned(),
            Self::InputType { expected, .. } => format!("Convert the data to {expected}"),
            Self::InputShape { .. } => {
                "Change the shape of the data; every sample is fed with its full shape, the batch axis included"
                    .to_owned()
            }
            Self::Run { reason } => run_hint(reason).to_owned(),
            Self::Output { .. } => "Choose another output".to_owned(),
            Self::Profile { .. } => "Check that the folder of the profile exists and can be written".to_owned(),
        }
    }
}

fn open_hint(reason: &str) -> &'static str {
    let has = |part: &str| reason.contains(part);
    if has("IR version")
        || has("opset") && has("under development")
        || has("is not a registered function/op")
        || has("No Op registered")
    {
        "The model is newer than the ONNX Runtime in use: export it with an older opset, or set the path of a newer library"
    } else if has("NOT_IMPLEMENTED") || has("Could not find an implementation") {
        "ONNX Runtime has no CPU implementation of this operator for these types; such a model cannot be measured here"
    } else if has("external") || has("External") {
        "Keep the data file beside the model, as a real file and not as a link"
    } else {
        "Check the model with onnx.checker in Python; the message names the node or tensor"
    }
}

fn run_hint(reason: &str) -> &'static str {
    let has = |part: &str| reason.contains(part);
    if has("alloc") || has("memory") {
        "Use smaller samples or a smaller batch, and close other programs"
    } else {
        "The message names the node; often the sample has a size the model cannot take, though its declared shape allows it"
    }
}
