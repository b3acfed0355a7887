//! Reading and writing models, plans and settings; finding ONNX Runtime.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nibble_core::model::Model;
use nibble_core::plan::Plan;
use nibble_core::problem::Severity;
use nibble_core::runtime::Runtime;
use nibble_core::{Control, Error, Problem};

use super::{Failure, Message, OpenedPlan};
use crate::cli::{self, sample};
use crate::settings::Settings;

/// Opens a model.
pub fn open_model(path: PathBuf, control: &Control) -> Message {
    let result = Model::load(&path, control).map(Box::new).map_err(Failure::from);
    Message::Opened { path, result, sample: None }
}

/// Unpacks the sample model that comes with Nibble, with its data, and opens it.
pub fn open_sample(control: &Control) -> Message {
    let Ok(sample) = sample::bundled() else {
        let what = "The sample model cannot be unpacked";
        let why = "Neither the cache folder nor the folder for temporary files can be written";
        let problem =
            Problem::new(Severity::Serious, what, "", why, "Free some disk space, or open a model of your own");
        return Message::Opened { path: PathBuf::new(), result: Err(Failure::Problem(problem)), sample: None };
    };
    let result = Model::load(&sample.model, control).map(Box::new).map_err(Failure::from);
    Message::Opened { path: sample.model.clone(), result, sample: Some(sample) }
}

/// Reads a plan for `model`, and scales that as the plan says.
pub fn open_plan(path: PathBuf, model: &Model) -> Message {
    let open = || -> Result<OpenedPlan, Error> {
        let plan = Box::new(cli::plan::load(&path)?);
        let scaled = match model.scaled(&plan)? {
            Cow::Owned(scaled) => Some(Arc::new(scaled)),
            Cow::Borrowed(_) => None,
        };
        Ok(OpenedPlan { plan, scaled })
    };
    let result = open().map_err(Failure::from);
    Message::PlanOpened { path, result }
}

/// Writes a plan, with its repairs beside it.
pub fn save_plan(path: PathBuf, plan: Arc<Plan>) -> Message {
    let result = plan.save(&path).map_err(Failure::from);
    Message::PlanSaved { path, plan, result }
}

/// Writes a histogram.
pub fn keep(path: PathBuf, bytes: &[u8]) -> Message {
    let result = write(&path, bytes)
        .map_err(|source| Failure::from(Error::Io { action: "write the histogram", path: path.clone(), source }));
    Message::Kept { path, result }
}

/// Writes the settings.
pub fn save_settings(settings: &Settings) -> Message {
    Message::SettingsSaved(settings.save().map_err(|error| format!("{error:#}")))
}

/// Finds ONNX Runtime and starts it; fetches its library where that is possible.
pub fn find_runtime(library: Option<&Path>, control: &Control) -> Message {
    Message::RuntimeFound(Runtime::start(library, control).map_err(|error| Failure::from(Error::from(error))))
}

fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write as _;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let attempt = || -> std::io::Result<()> {
        let mut file = std::fs::File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    attempt().inspect_err(|_| drop(std::fs::remove_file(&temporary)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nibble_core::plan::preset;

    #[test]
    fn a_plan_is_saved_and_read_back() {
        let folder = std::env::temp_dir().join(format!("nibble-plan-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("folder");
        let path = folder.join("plan.json");
        let plan = Arc::new(preset("int4-weights").expect("preset").plan());
        let Message::PlanSaved { result, .. } = save_plan(path.clone(), Arc::clone(&plan)) else { panic!("answer") };
        assert!(result.is_ok());
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sample-models/digits_cnn.onnx");
        let model = Model::load(&model, &Control::new()).expect("model");
        let Message::PlanOpened { result, .. } = open_plan(path, &model) else { panic!("answer") };
        let opened = result.unwrap_or_else(|_| panic!("plan"));
        assert!(*opened.plan == *plan && opened.scaled.is_none());
        let Message::PlanSaved { result, .. } = save_plan(folder.join("no/such/plan.json"), plan) else {
            panic!("answer")
        };
        assert!(matches!(result, Err(Failure::Problem(_))));
        std::fs::remove_dir_all(folder).expect("removed");
    }
}
