//! What views ask for: named commands, and changes that carry a payload. Views only push them; `App::apply` alone acts.

use std::path::PathBuf;
use std::sync::Arc;

use nibble_core::plan::targets::Target;
use nibble_core::plan::{Plan, Preset, Set};
use nibble_core::stats::SampleId;

use crate::command::Command;
use crate::selection::Click;

/// What a view asks for.
#[derive(Clone, Debug)]
pub enum Action {
    /// A named command.
    Run(Command),
    /// A change with its payload.
    Do(Edit),
}

/// A change with its payload.
#[derive(Clone, Debug)]
pub enum Edit {
    /// Open the model at this path.
    Open(PathBuf),
    /// Open the sample model that comes with Nibble, with its data.
    OpenSample,
    /// Forget a recent file.
    ForgetRecent(PathBuf),
    /// Ask for a file with a dialog.
    Browse(Purpose),
    /// Set keys for layers.
    SetLayers {
        /// Indices of the layers.
        layers: Vec<usize>,
        /// What is set.
        set: Set,
        /// What undo calls it.
        label: String,
    },
    /// Give one layer this choice.
    Choose {
        /// Index of the layer.
        layer: usize,
        /// The choice.
        choice: nibble_core::plan::Choice,
    },
    /// Put this plan in force.
    UsePlan {
        /// The plan.
        plan: Arc<Plan>,
        /// What undo calls it.
        label: String,
    },
    /// A drag of a clip handle began: what follows is one step.
    BeginGesture,
    /// Set the clip range of one layer.
    SetClip {
        /// Index of the layer.
        layer: usize,
        /// What is set.
        set: Set,
        /// What undo calls it.
        label: String,
        /// Whether it belongs to the drag that began last.
        in_gesture: bool,
    },
    /// Bring this layer into view in the table.
    Reveal(usize),
    /// Ask where to write a file, and write it.
    Keep {
        /// Name suggested.
        name: String,
        /// Content.
        bytes: Vec<u8>,
    },
    /// Write the file that waits to this path.
    KeepWritten(PathBuf),
    /// Take a picture of a part of the window, ask where to write it, and write it.
    Picture {
        /// Name suggested.
        name: String,
        /// Which part, in points.
        rect: eframe::egui::Rect,
    },
    /// Show the calibration form.
    ShowCalibration,
    /// Replace the plan by a preset, or set the selected layers to it.
    Preset {
        /// The preset.
        preset: &'static Preset,
        /// Only for the selection.
        selection_only: bool,
    },
    /// Take the scalings out of the plan.
    DropScalings,
    /// Choose where the model is to run.
    Target(&'static Target),
    /// Take every way out of conflicts with the target.
    FixTarget,
    /// Replace the plan by a saved one.
    OpenPlan(PathBuf),
    /// Put the plan in force that the export at `from` carries.
    RestorePlan {
        /// The plan.
        plan: Arc<Plan>,
        /// The export.
        from: PathBuf,
    },
    /// Open the original of an export, and put the export's plan in force there.
    OpenOriginal {
        /// The original; asked for when it is not known.
        original: Option<PathBuf>,
        /// The plan.
        plan: Arc<Plan>,
        /// The export.
        from: PathBuf,
    },
    /// Start to train the weights.
    StartFinetune,
    /// Put the trained weights into the plan.
    AcceptFinetuned,
    /// Forget the trained weights.
    DiscardFinetuned,
    /// Start the repair that the form describes.
    StartRepair,
    /// Make the repairs that the plan asks for and does not have.
    RepairMissing,
    /// Show the form of repairs, for the selection.
    ShowRepair,
    /// Let the running repair end with what it has.
    EnoughRepair,
    /// Put the repair that was found into the plan.
    AcceptRepair,
    /// Show the preview of an earlier repair, by its place among those kept.
    ShowPreview(usize),
    /// Forget the repair that was found.
    DiscardRepair,
    /// Round these layers to nearest again.
    DropRepair(Vec<usize>),
    /// Take no plan from exports.
    DeclineOffer,
    /// Save the plan in this file.
    SavePlan(PathBuf),
    /// A click on a layer in a list that shows `order`.
    Click {
        /// The layer.
        layer: usize,
        /// With which keys.
        click: Click,
    },
    /// Select the layer of this name, wherever it is mentioned.
    SelectNamed(String),
    /// Take this file or folder as calibration data and look at it.
    UseData(PathBuf),
    /// Leave a sample out of calibration, or take it in again.
    LeaveOut {
        /// The sample.
        sample: SampleId,
        /// What it is called.
        name: String,
        /// Whether it is left out from now on.
        out: bool,
    },
    /// Look at the data as the model gets it.
    Preview,
    /// Measure the float model's own accuracy on the labelled data.
    Score,
    /// Write the export to this path.
    Export {
        /// Where to.
        path: PathBuf,
        /// Whether an existing file may be replaced.
        overwrite: bool,
    },
    /// Compare the model with this file, layer by layer.
    CompareWith(PathBuf),
    /// Show the export again in place of the file compared with.
    ForgetCompared,
    /// Close without saving.
    QuitAnyway,
    /// Open the model at this path without saving the plan.
    OpenAnyway(PathBuf),
    /// Close the open question.
    Dismiss,
    /// Try again to find ONNX Runtime, with this library if given.
    FindRuntime(Option<PathBuf>),
    /// Copy to the clipboard.
    Copy(String),
}

/// What a file dialog is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A model to open.
    Model,
    /// A plan to open.
    Plan,
    /// Where to save the plan.
    SavePlan,
    /// A file of calibration data.
    Data,
    /// A folder of calibration data.
    DataFolder,
    /// A file of evaluation data.
    Eval,
    /// Labels of the evaluation data.
    Labels,
    /// Where to write the export.
    Export,
    /// The ONNX Runtime library.
    Library,
    /// Where to write a histogram.
    Keep,
    /// A quantized file to compare the model with.
    Other,
}

impl From<Command> for Action {
    fn from(command: Command) -> Self {
        Self::Run(command)
    }
}

impl From<Edit> for Action {
    fn from(edit: Edit) -> Self {
        Self::Do(edit)
    }
}
