//! File dialogs. They run on a thread of their own, since they block until they are closed. Where the system has no file
//! portal they return at once without a file, which looks like Cancel: every dialog has a path box beside it.

use std::path::{Path, PathBuf};

use nibble_core::plan::Plan;

use crate::edit::Purpose;
use crate::jobs::Message;

/// Shows the dialog and waits for it.
pub fn ask(purpose: Purpose, suggestion: Option<&Path>) -> Message {
    let mut dialog = rfd::FileDialog::new();
    if let Some(suggestion) = suggestion {
        if let Some(folder) = suggestion.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            dialog = dialog.set_directory(folder);
        }
        if let Some(name) = suggestion.file_name().filter(|_| saves(purpose)) {
            dialog = dialog.set_file_name(name.to_string_lossy());
        }
    }
    dialog = match purpose {
        Purpose::Model => dialog.set_title("Open a model").add_filter("ONNX model", &["onnx"]),
        Purpose::Plan => dialog.set_title("Open a plan").add_filter("Plan", &["json"]),
        Purpose::SavePlan => dialog.set_title("Save the plan").add_filter("Plan", &["json"]),
        Purpose::Data => dialog.set_title("Calibration data").add_filter("Arrays", &["npz", "npy"]),
        Purpose::DataFolder => dialog.set_title("Folder of calibration data"),
        Purpose::Eval => dialog.set_title("Evaluation data").add_filter("Arrays", &["npz", "npy"]),
        Purpose::Labels => dialog.set_title("Labels").add_filter("Labels", &["npy", "npz", "csv"]),
        Purpose::Export => dialog.set_title("Export").add_filter("ONNX model", &["onnx"]),
        Purpose::Keep => dialog.set_title("Save the histogram"),
        Purpose::Library => dialog.set_title("ONNX Runtime library"),
        Purpose::Other => dialog.set_title("Compare with").add_filter("ONNX model", &["onnx"]),
    };
    let path = match purpose {
        Purpose::DataFolder => dialog.pick_folder(),
        _ if saves(purpose) => dialog.save_file(),
        _ => dialog.pick_file(),
    };
    Message::Picked { purpose, path }
}

/// Name and folder to begin with.
pub fn suggestion(purpose: Purpose, model: &Path, plan: &Plan) -> PathBuf {
    match purpose {
        Purpose::SavePlan => model.with_extension("plan.json"),
        Purpose::Export => export_path(model, plan),
        _ => model.to_owned(),
    }
}

/// `model.int8.onnx` beside the model.
pub fn export_path(model: &Path, plan: &Plan) -> PathBuf {
    let name = if plan.preset.is_empty() { "quantized" } else { &plan.preset };
    model.with_extension(format!("{name}.onnx"))
}

fn saves(purpose: Purpose) -> bool {
    matches!(purpose, Purpose::SavePlan | Purpose::Export | Purpose::Keep)
}
