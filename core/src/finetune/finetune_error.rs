//! Why nothing can be trained.

use std::path::PathBuf;

/// Why fine-tuning was refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum FinetuneError {
    /// No layer of the plan can be trained.
    #[error("no layer can be trained: {why}")]
    Nothing {
        /// The model.
        place: String,
        /// Why, of the first layers.
        why: String,
    },
    /// An output or loss that does not go with the model or the data.
    #[error("{why}")]
    Loss {
        /// The output.
        place: String,
        /// What does not fit.
        why: String,
    },
    /// The backward of a node failed on some sample.
    #[error("gradients cannot go back through it: {why}")]
    Backward {
        /// The node.
        place: String,
        /// Why.
        why: String,
    },
    /// The kept state cannot be written.
    #[error("the state of training cannot be kept: {why}")]
    State {
        /// The file.
        path: PathBuf,
        /// The reason.
        why: String,
    },
}

impl FinetuneError {
    /// The model, output, node or file concerned.
    pub fn place(&self) -> String {
        match self {
            Self::Nothing { place, .. } | Self::Loss { place, .. } | Self::Backward { place, .. } => place.clone(),
            Self::State { path, .. } => path.display().to_string(),
        }
    }

    /// What to do next.
    pub fn hint(&self) -> String {
        match self {
            Self::Nothing { .. } => "Give integer precisions to layers that gradients reach; the plan decides",
            Self::Loss { .. } => "Choose another --loss, or another output",
            Self::Backward { .. } => "Report it: this is a defect in Nibble",
            Self::State { .. } => {
                "Choose an output in a folder you may write to, with room for three times the weights"
            }
        }
        .to_owned()
    }
}
