//! Why data could not be used: always the array or file, the sample where it matters, and what to do.

use std::path::PathBuf;

/// Why a data source or a label file was refused.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// `--data` is none of the known kinds.
    #[error("{spec:?} is no data source: {why}")]
    Source {
        /// What was given.
        spec: String,
        /// Why it is none.
        why: String,
    },
    /// A file could not be opened or read.
    #[error("cannot read the data: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file is damaged or of a kind that is not read.
    #[error("cannot read the data: {why}")]
    Format {
        /// The file, and the array in it.
        place: String,
        /// What is wrong with it.
        why: String,
        /// What to do.
        hint: String,
    },
    /// The arrays' names are not the inputs' names.
    #[error("the arrays ({arrays}) are not the model's inputs ({inputs})")]
    Names {
        /// The file.
        path: PathBuf,
        /// Names in the data.
        arrays: String,
        /// Names of the model's inputs.
        inputs: String,
        /// What to do, with "did you mean" where a name is near.
        hint: String,
    },
    /// An array does not have the shape that the model's input asks for.
    #[error("{array:?} does not fit: {why}")]
    Shape {
        /// The array.
        array: String,
        /// Its shape, the input's, and the rule that is broken.
        why: String,
        /// What to do.
        hint: String,
    },
    /// An array's element type cannot become the input's without loss.
    #[error("{array:?} is {found}, but the input takes {wanted}")]
    Type {
        /// The array.
        array: String,
        /// Its element type, and what stands in the way.
        found: String,
        /// The input's element type.
        wanted: String,
    },
    /// Arrays of one file hold different numbers of samples.
    #[error("the arrays hold different numbers of samples: {counts}")]
    Counts {
        /// The file.
        path: PathBuf,
        /// Each array and its leading axis.
        counts: String,
    },
    /// There is no sample in the data.
    #[error("there is no sample in the data")]
    Empty {
        /// The file or folder.
        place: String,
    },
    /// A sample number beyond the end.
    #[error("there is no sample {index}; the data hold {len}")]
    Index {
        /// What was asked for.
        index: usize,
        /// How many there are.
        len: usize,
    },
    /// NaN or infinity in the data.
    #[error("{array:?} holds {value} in sample {sample}, at element {element}")]
    NonFinite {
        /// The array.
        array: String,
        /// `NaN`, `inf` or `-inf`.
        value: String,
        /// The sample's number, from 0.
        sample: usize,
        /// The element's flat index in the sample.
        element: usize,
    },
    /// A dimension of an input is symbolic and nothing says how large it should be.
    #[error("the size of input {input:?} {shape} is open")]
    OpenShape {
        /// The input.
        input: String,
        /// Its declared shape.
        shape: String,
    },
    /// An option of images or shapes could not be read.
    #[error("{key} cannot be {value:?}; allowed: {allowed}")]
    Option {
        /// The option.
        key: String,
        /// What was given.
        value: String,
        /// What it takes.
        allowed: String,
    },
    /// The labels do not fit the samples.
    #[error("{why}")]
    Labels {
        /// The file or key.
        place: String,
        /// What is wrong.
        why: String,
        /// What to do.
        hint: String,
    },
}

impl DataError {
    /// The file, array or input concerned.
    pub fn place(&self) -> String {
        match self {
            Self::Source { spec, .. } => spec.clone(),
            Self::Io { path, .. } | Self::Names { path, .. } | Self::Counts { path, .. } => path.display().to_string(),
            Self::Format { place, .. } | Self::Empty { place } | Self::Labels { place, .. } => place.clone(),
            Self::Shape { array, .. } | Self::Type { array, .. } | Self::NonFinite { array, .. } => array.clone(),
            Self::OpenShape { input, .. } => input.clone(),
            Self::Index { .. } => String::new(),
            Self::Option { key, .. } => key.clone(),
        }
    }

    /// What to do next.
    pub fn hint(&self) -> String {
        match self {
            Self::Source { .. } => {
                "Give an .npz, an .npy, a folder of .npz files, a folder of PNG or JPEG images, or random:N".to_owned()
            }
            Self::Io { .. } => "Check the path and that the file may be read".to_owned(),
            Self::Format { hint, .. }
            | Self::Names { hint, .. }
            | Self::Shape { hint, .. }
            | Self::Labels { hint, .. } => hint.clone(),
            Self::Type { wanted, .. } => format!("Convert it before saving, e.g. x.astype(\"{wanted}\")"),
            Self::Counts { .. } => "Give every array the same leading axis: one entry a sample".to_owned(),
            Self::Empty { .. } => "Give data with at least one sample".to_owned(),
            Self::Index { .. } => "Ask for a smaller sample number".to_owned(),
            Self::NonFinite { .. } => {
                "Look for a division by zero or a missing value where the data are made, or leave the sample out"
                    .to_owned()
            }
            Self::OpenShape { input, .. } => format!("Say it, e.g. --shape {input}=1,16"),
            Self::Option { allowed, .. } => format!("Use {allowed}"),
        }
    }
}
