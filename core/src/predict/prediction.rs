//! The prediction: noise powers added up over what a plan rounds.

use serde::{Deserialize, Serialize};

use super::together::{Sum, Together, power};
use super::{Expected, Noise, Sensitivity};
use crate::error::Sqnr;
use crate::export::{Form, Pick, Rounding, pick, predicted_size, roundings};
use crate::model::{Layer, Model};
use crate::plan::{Choice, Granularity, Plan, Symmetry};
use crate::quant::activation_params;
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

/// One source of noise.
#[derive(Clone, Debug, PartialEq)]
pub struct NoiseSource {
    /// What is rounded.
    pub part: Part,
    /// The layer; for an activation the tensor.
    pub name: String,
    /// Power at the output, a sample.
    pub noise: Noise,
}

/// The noise of one plan, source by source.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parts {
    /// Every source.
    pub sources: Vec<NoiseSource>,
    /// Layers and activations that are rounded, and of which it is not known what that does.
    pub unknown: Vec<String>,
    /// Those of the errors that were measured as they are.
    pub(super) sum: Sum,
}

impl Parts {
    /// Power of the noise of all sources at once: their powers added up, and where errors were measured as they are, these
    /// added before they are squared.
    pub fn together(&self) -> f64 {
        self.sum.noise(self.total(None))
    }

    /// Power of all sources of a kind, or of all.
    pub fn total(&self, part: Option<Part>) -> f64 {
        let chosen = self.sources.iter().filter(|source| part.is_none_or(|part| part == source.part));
        chosen.map(|source| source.noise.total).sum()
    }

    fn push(&mut self, part: Part, name: &str, noise: Noise) {
        self.sources.push(NoiseSource { part, name: name.to_owned(), noise });
    }
}

/// What a plan is expected to do to the whole model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// Of the output that the sensitivity is about, corrected by what was measured of other plans.
    pub sqnr_db: Sqnr,
    /// What the sum of noise powers alone says; `None` where something is not known or nothing is rounded.
    pub expected: Option<Expected>,
    /// The measured figure is expected between this …
    pub low_db: Option<f64>,
    /// … and this.
    pub high_db: Option<f64>,
    /// Bytes of the file.
    pub size_bytes: u64,
    /// Layers and activations that the figure does not include, because nothing is known of them.
    pub unknown: Vec<String>,
}

impl Parts {
    /// Adds what rounding an activation does, or that it is not known.
    pub(super) fn add_rounding(&mut self, rounding: &Rounding, noise: Option<Noise>, together: &Together) {
        let mut noise = noise;
        if let Some(error) = together.of_activation(rounding) {
            self.sum.add(error);
            // As measured, in place of what slopes say of the same.
            noise = noise.map(|noise| if noise.total > 0.0 { noise * (power(error) / noise.total) } else { noise });
        }
        match noise {
            Some(noise) => self.push(Part::Activation, &rounding.tensor, noise),
            None => self.unknown.push(rounding.tensor.clone()),
        }
    }
}

impl Sensitivity {
    /// What each source of noise in `picks` (one a layer of the model) adds.
    pub fn parts(&self, model: &Model, picks: &[Pick], stats: Option<&Stats>) -> Parts {
        let mut parts = self.layer_parts(model, picks, &mut |layer, choice| self.weight_noise(&layer.name, choice));
        if let Some(stats) = stats {
            for rounding in roundings(model, picks, stats) {
                let tensor = self.tensors.get(&rounding.tensor);
                parts.add_rounding(
                    &rounding,
                    tensor.map(|tensor| tensor.noise(&rounding.params, rounding.readers.as_deref())),
                    &self.together,
                );
            }
        }
        parts
    }

    /// The parts that layers make by themselves: their weights, whose noise `weights` says, and what their kernels round.
    pub(super) fn layer_parts(
        &self,
        model: &Model,
        picks: &[Pick],
        weights: &mut dyn FnMut(&Layer, &Choice) -> Option<Noise>,
    ) -> Parts {
        let mut parts = Parts::default();
        for (layer, pick) in model.layers.iter().zip(picks).filter(|(_, pick)| pick.form != Form::Float) {
            // Slopes by single weights say nothing of errors that a repair made to cancel, and the gain at the layer's own
            // output does not carry over to the model's (measured: 4 to 10 dB off): such plans are run ([`super::Forecast`]).
            let noise = if layer.repair(&pick.choice).is_some() { None } else { weights(layer, &pick.choice) };
            match noise {
                Some(noise) if noise.total.is_finite() => {
                    parts.push(Part::Weights, &layer.name, noise);
                    if let Some(error) = self.together.of_weights(&layer.name, &pick.choice) {
                        parts.sum.add(error);
                    }
                }
                _ => parts.unknown.push(layer.name.clone()),
            }
            match self.kernel_noise(layer, pick) {
                Some(noise) => parts.push(Part::Kernel, &layer.name, Noise { total: noise, clipped: 0.0 }),
                None if rounds_its_input(pick.form) => parts.unknown.push(layer.input.clone()),
                None => {}
            }
        }
        parts
    }

    /// Noise of a static layer written as a node between its own pairs, as ONNX Runtime's Python quantizer writes a single
    /// one: its weights, its input rounded for all that read it, and what comes out of the node rounded over its whole range
    /// (before a Relu or Clip that would cut it off). A plan of this program rounds less; `None` where something is not known.
    pub fn node_noise(&self, layer: &Layer, choice: &Choice, stats: &Stats) -> Option<f64> {
        let weights = self.weight_noise(&layer.name, choice)?.total;
        let (lo, hi) = stats.tensors.get(&layer.input)?.range();
        let input = self.tensors.get(&layer.input)?.noise(&activation_params(lo, hi, Symmetry::Asymmetric), None);
        let output = self.tensors.get(&layer.output)?;
        let step = f64::from(output.seen.1 - output.seen.0) / 255.0;
        // Not one value in many is 0 before it is cut off, so that all are rounded by up to half a step.
        Some(weights + input.total + step * step / 12.0 * output.energy(|_| true))
    }

    /// What the layer's kernel adds by rounding its input while it runs.
    pub(super) fn kernel_noise(&self, layer: &Layer, pick: &Pick) -> Option<f64> {
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

    /// What the sum of `parts` says of the whole model.
    pub(super) fn prediction(&self, parts: &Parts, size_bytes: u64) -> Prediction {
        let expected = self.expected(parts);
        let (sqnr_db, half) = match expected {
            Some(expected) => {
                let db = expected.sum_db + self.learnt.offset(expected);
                (Sqnr::Db(db), Some(self.learnt.half_width(expected).unwrap_or_else(|| unchecked_half_width(db))))
            }
            None => (self.sqnr(parts.together()), None),
        };
        let bound = |sign: f64| sqnr_db.db().zip(half).map(|(db, half)| db + sign * half);
        Prediction {
            low_db: bound(-1.0),
            high_db: bound(1.0),
            sqnr_db,
            expected,
            size_bytes,
            unknown: parts.unknown.clone(),
        }
    }

    /// SQNR in dB that a sum of noise powers N stands for. Slopes are straight and go on for ever; outputs S that have
    /// nothing left in common are 2 S apart, so that N / (1 + N / 2 S) is what is left of large sums.
    pub fn sqnr(&self, noise: f64) -> Sqnr {
        let most = 2.0 * self.signal;
        let bounded = if most > 0.0 { noise / (1.0 + noise / most) } else { noise };
        Sqnr::from_sums(self.signal, bounded)
    }
}

/// Whether the kernel of this form rounds the layer's input while it runs.
fn rounds_its_input(form: Form) -> bool {
    matches!(form, Form::DynamicMatmul | Form::DynamicLstm | Form::MatmulNbits)
}

/// Predicts what `plan` does. Choices that the sensitivity has not covered are reported as unknown; `stats` are needed for
/// static layers.
pub fn predict(sensitivity: &Sensitivity, model: &Model, stats: Option<&Stats>, plan: &Plan) -> Prediction {
    let repaired = model.repaired(plan);
    let model = repaired.as_deref().unwrap_or(model);
    let picks: Vec<Pick> =
        model.layers.iter().map(|layer| pick(model, layer, plan.choice(&layer.name), stats)).collect();
    sensitivity.prediction(&sensitivity.parts(model, &picks, stats), predicted_size(model, plan))
}

/// Half the width of the interval where no plan was run, in dB: what held for nine in ten of six models under five presets.
/// Slopes do not hold over large errors, so that below about 12 dB predictions part from what is measured.
fn unchecked_half_width(db: f64) -> f64 {
    match db {
        12.0.. => 2.0,
        6.0.. => 3.0,
        _ => 5.0,
    }
}
