//! Why two models could not be compared or a task not scored.

/// Why a measurement was refused.
#[derive(Debug, thiserror::Error)]
pub enum MeasureError {
    /// The two models do not have the same outputs.
    #[error("the outputs differ: original {original}, quantized {quantized}")]
    Outputs {
        /// Names of the original's outputs.
        original: String,
        /// Names of the quantized model's outputs.
        quantized: String,
    },
    /// The output chosen for the scalar figure does not exist.
    #[error("the model has no output {name:?}")]
    NoOutput {
        /// What was asked for.
        name: String,
        /// The outputs there are.
        known: String,
    },
    /// There is nothing to measure on.
    #[error("there is no sample to measure on")]
    NoSamples,
    /// There are not as many labels as samples.
    #[error("{labels} labels for {samples} samples")]
    Labels {
        /// Number of labels.
        labels: usize,
        /// Number of samples.
        samples: usize,
    },
    /// A label is no class of the model.
    #[error("label {label} of sample {sample} is no class: output {output:?} has {classes}")]
    Label {
        /// The label.
        label: i64,
        /// The sample's number, from 0.
        sample: usize,
        /// The output that is scored.
        output: String,
        /// Number of classes.
        classes: usize,
    },
    /// No output gives one class a sample.
    #[error("accuracy needs an output with one score a class; {found}")]
    NotClasses {
        /// The outputs' shapes.
        found: String,
    },
    /// The person's own metric gave no number.
    #[error("the metric command {why}: {command}")]
    Command {
        /// The command.
        command: String,
        /// What went wrong, as a clause.
        why: String,
        /// The end of what it wrote to stderr; empty when it wrote nothing.
        said: String,
    },
}

impl MeasureError {
    /// The output concerned; empty when it concerns none.
    pub fn place(&self) -> String {
        match self {
            Self::NoOutput { name, .. } => name.clone(),
            Self::Label { output, .. } => output.clone(),
            _ => String::new(),
        }
    }

    /// What to do next.
    pub fn hint(&self) -> String {
        match self {
            Self::Outputs { .. } => "Compare a model with its own quantized version".to_owned(),
            Self::NoOutput { known, .. } => format!("Outputs are {known}"),
            Self::NoSamples => "Give data with at least one sample".to_owned(),
            Self::Labels { .. } => "Give one label a sample, in the order of the samples".to_owned(),
            Self::Label { .. } => {
                "Number the classes from 0 in the order of the output; labels from 1 need 1 subtracted".to_owned()
            }
            Self::NotClasses { .. } => {
                "Leave the labels out and judge by SQNR and agreement, or use a metric of your own".to_owned()
            }
            Self::Command { said, .. } if said.is_empty() => {
                "It is called with the path of an .npz as its last argument and prints a number on its last line"
                    .to_owned()
            }
            Self::Command { said, .. } => format!("It said: {said}"),
        }
    }
}
