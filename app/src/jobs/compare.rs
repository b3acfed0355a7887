//! The open model beside a file that any tool made of it, layer by layer.

use std::path::PathBuf;
use std::sync::Arc;

use nibble_core::error::{CompareOptions, Comparison, Quality, compare as measure, compare_layers};
use nibble_core::export::Stored;
use nibble_core::model::Model;
use nibble_core::problem::Severity;
use nibble_core::runtime::{Runtime, Source};
use nibble_core::{Control, Error, Problem};

use super::data::Samples;
use super::{Failure, Message};
use crate::format;
use crate::views::calibrate::DataRequest;

/// Most samples: what all layers of both models make of one is held at a time.
const SAMPLES: usize = 32;

/// What was found.
pub struct Compared {
    /// The other file.
    pub path: PathBuf,
    /// Layer by layer.
    pub layers: Comparison,
    /// At the outputs.
    pub quality: Quality,
    /// The samples it was measured with, for people.
    pub measured_on: String,
}

/// The model to compare with: as the plan scales it, and as it is in its file.
pub struct Reference {
    /// With the plan's scalings.
    pub scaled: Arc<Model>,
    /// Without them.
    pub original: Arc<Model>,
}

/// Compares the model with the file at `path`. What was exported from a plan with scalings is compared with the scaled model,
/// whose layers give the same, anything else with the original.
pub fn compare(models: &Reference, path: PathBuf, data: &DataRequest, runtime: &Runtime, control: &Control) -> Message {
    let is_scaled = Stored::in_file(&path).is_some_and(|stored| stored.plan.lacks_scalings());
    let model = if is_scaled { &models.scaled } else { &models.original };
    Message::Compared(run(model, path, data, runtime, control).map(Box::new))
}

fn run(
    model: &Model,
    path: PathBuf,
    data: &DataRequest,
    runtime: &Runtime,
    control: &Control,
) -> Result<Compared, Failure> {
    let other = Model::load(&path, control)?;
    let inputs = |model: &Model| model.inputs.iter().map(|port| port.name.clone()).collect::<Vec<_>>();
    if inputs(model) != inputs(&other) {
        let why = format!("They take {} and {}", inputs(model).join(", "), inputs(&other).join(", "));
        let fix = "Choose a file that was made of this model";
        let what = "The two models do not take the same inputs";
        let place = path.display().to_string();
        return Err(Failure::Problem(Problem::new(Severity::Serious, what, place, why, fix)));
    }
    let measured = || -> Result<(Comparison, Quality, String), Error> {
        let samples = Samples::open(model, data)?;
        let few = samples.evaluation.get(..SAMPLES).unwrap_or(&samples.evaluation);
        let options = CompareOptions::default();
        let layers = compare_layers(runtime, model, &other, samples.judged(), few, options.threads, control)?;
        let (a, b) = (Source::File(&model.file.path), Source::File(&path));
        let quality = measure(runtime, a, b, samples.judged(), few, None, &options, control)?;
        let on = format!("on {} of {}", format::samples(few.len()), samples.judged().describe());
        Ok((layers, quality, on))
    };
    let (layers, quality, measured_on) = measured()?;
    Ok(Compared { path, layers, quality, measured_on })
}
