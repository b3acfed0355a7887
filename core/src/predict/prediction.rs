//! The prediction: noise powers added up over what a plan rounds.

use serde::{Deserialize, Serialize};

use super::Sensitivity;
use crate::error::Sqnr;
use crate::export::{Form, Pick, pick, predicted_size, roundings};
use crate::model::{Layer, Model};
use crate::plan::{Choice, Granularity, Plan};
use crate::stats::Stats;

/// Where noise comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// A layer's weights.
    Weights,
    /// An activation rounded with calibrated parameters.
    Activation,
    /// An activation that a kernel rounds while it runs.
    Kernel,
}

/// The noise of one plan, source by source: what it is, its layer's or tensor's name, and its power a sample.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parts {
    /// Every source.
    pub sources: Vec<(Part, String, f64)>,
    /// Layers and activations that are rounded, and of which it is not known what that does.
    pub unknown: Vec<String>,
}

impl Parts {
    /// Power of all sources of a kind, or of all.
    pub fn total(&self, part: Option<Part>) -> f64 {
        self.sources.iter().filter(|(kind, ..)| part.is_none_or(|part| part == *kind)).map(|(.., noise)| noise).sum()
    }
}

/// What a plan is expected to do to the whole model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// Of the output that the sensitivity is about.
    pub sqnr_db: Sqnr,
    /// The measured figure is expected between this …
    pub low_db: Option<f64>,
    /// … and this.
    pub high_db: Option<f64>,
    /// Bytes of the file.
    pub size_bytes: u64,
    /// Layers and activations that the figure does not include, because nothing is known of them.
    pub unknown: Vec<String>,
}

impl Sensitivity {
    /// What each source of noise in `picks` (one a layer of the model) adds.
    pub fn parts(&self, model: &Model, picks: &[Pick], stats: Option<&Stats>) -> Parts {
        let mut parts = Parts::default();
        for (layer, pick) in model.layers.iter().zip(picks).filter(|(_, pick)| pick.form != Form::Float) {
            let noise = self.weight_noise(&layer.name, &pick.choice);
            match noise.map(|noise| noise * repaired_share(layer, &pick.choice)) {
                Some(noise) if noise.is_finite() => parts.sources.push((Part::Weights, layer.name.clone(), noise)),
                _ => parts.unknown.push(layer.name.clone()),
            }
            match self.kernel_noise(layer, pick) {
                Some(noise) => parts.sources.push((Part::Kernel, layer.name.clone(), noise)),
                None if rounds_its_input(pick.form) => parts.unknown.push(layer.input.clone()),
                None => {}
            }
        }
        if let Some(stats) = stats {
            for rounding in roundings(model, picks, stats) {
                match self.tensors.get(&rounding.tensor) {
                    Some(tensor) => {
                        let noise = tensor.noise(&rounding.params, rounding.readers.as_deref());
                        parts.sources.push((Part::Activation, rounding.tensor, noise));
                    }
                    None => parts.unknown.push(rounding.tensor),
                }
            }
        }
        parts
    }

    /// What the layer's kernel adds by rounding its input while it runs.
    fn kernel_noise(&self, layer: &Layer, pick: &Pick) -> Option<f64> {
        let tensor = self.tensors.get(&layer.input);
        // A layer that was tried by running it was written in this form then, with its kernel's rounding.
        if pick.form == Form::MatmulNbits && self.layers.get(&layer.name).is_some_and(|layer| layer.measured) {
            return Some(0.0);
        }
        let share = |tensor: &super::TensorSensitivity| tensor.share(&[layer.path.node]);
        match pick.form {
            Form::DynamicMatmul => tensor.map(|tensor| tensor.coherence * tensor.dynamic * share(tensor)),
            Form::DynamicLstm => self.layers.get(&layer.name)?.kernel,
            Form::MatmulNbits => {
                let block = match pick.choice.granularity {
                    Granularity::Block(size) => size as usize,
                    _ => 128,
                };
                let nearest = tensor?.blocks.iter().min_by_key(|(size, _)| size.abs_diff(block));
                nearest.map(|(_, noise)| noise * tensor.map_or(0.0, share))
            }
            _ => None,
        }
    }

    /// SQNR in dB of a noise power.
    pub fn sqnr(&self, noise: f64) -> Sqnr {
        Sqnr::from_sums(self.signal, noise)
    }
}

/// How much of the noise of rounding to nearest a repair leaves: what it left at the layer's own output on data it had not
/// seen. (Slopes by single weights do not hold for errors that were made to cancel.) NaN where that is not known.
fn repaired_share(layer: &Layer, choice: &Choice) -> f64 {
    match layer.repair(choice).map(|repair| repair.held_back) {
        Some(Some(gain)) => 10_f64.powf((gain.before_db - gain.after_db) / 10.0),
        Some(None) => f64::NAN,
        None => 1.0,
    }
}

/// Whether the kernel of this form rounds the layer's input while it runs.
fn rounds_its_input(form: Form) -> bool {
    matches!(form, Form::DynamicMatmul | Form::DynamicLstm | Form::MatmulNbits)
}

/// Predicts what `plan` does. Choices that the sensitivity has not covered are reported as unknown; `stats` are needed for
/// static layers.
pub fn predict(sensitivity: &Sensitivity, model: &Model, stats: Option<&Stats>, plan: &Plan) -> Prediction {
    predict_parts(sensitivity, model, stats, plan).0
}

/// [`predict`], with what each source of noise adds.
pub fn predict_parts(
    sensitivity: &Sensitivity,
    model: &Model,
    stats: Option<&Stats>,
    plan: &Plan,
) -> (Prediction, Parts) {
    let repaired = model.repaired(plan);
    let model = repaired.as_deref().unwrap_or(model);
    let picks: Vec<Pick> =
        model.layers.iter().map(|layer| pick(model, layer, plan.choice(&layer.name), stats)).collect();
    let parts = sensitivity.parts(model, &picks, stats);
    let sqnr_db = sensitivity.sqnr(parts.total(None));
    let half = half_width(sqnr_db);
    let prediction = Prediction {
        low_db: sqnr_db.db().filter(|db| db.is_finite()).map(|db| db - half),
        high_db: sqnr_db.db().filter(|db| db.is_finite()).map(|db| db + half),
        sqnr_db,
        size_bytes: predicted_size(model, plan),
        unknown: parts.unknown.clone(),
    };
    (prediction, parts)
}

/// Half the width of the interval around a prediction, in dB: what held for nine in ten of six models under five presets.
/// Slopes do not hold over large errors, so that below about 12 dB predictions part from what is measured.
fn half_width(sqnr: Sqnr) -> f64 {
    match sqnr.db() {
        Some(db) if db >= 12.0 => 2.0,
        Some(db) if db >= 6.0 => 3.0,
        _ => 5.0,
    }
}
