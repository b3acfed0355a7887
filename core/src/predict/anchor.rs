//! Repaired weights where a plan that has them was run: what the run gave, less what the plan's other roundings are
//! expected to add, is theirs. The errors of a repair were made to cancel, so that slopes by single weights say nothing of
//! them; but the errors of everything else are independent of them, so that edits elsewhere add up as powers do.
//!
//! What is theirs is shared out among the repaired layers as what rounding each to nearest would do, so that one which is
//! rounded to nearest again takes its share along.

use super::prediction::Part;
use super::sensitivity::WeightKey;
use super::{Expected, Noise, NoiseSource, Parts, Sensitivity};
use crate::export::{Form, Pick};
use crate::model::{Layer, Model};
use crate::plan::Rounding;

/// Steps in which the share of activations and the offset that goes with it settle.
const STEPS: usize = 16;

/// One repaired layer.
#[derive(Clone, Debug, PartialEq)]
struct Repaired {
    layer: String,
    key: WeightKey,
    rounding: Rounding,
}

/// What the repaired weights of one plan that was run add to the noise.
#[derive(Clone, Debug)]
struct Anchor {
    layers: Vec<Repaired>,
    /// One a layer.
    noises: Vec<f64>,
}

/// Plans with repaired weights that were run.
#[derive(Clone, Debug, Default)]
pub(super) struct Anchors(Vec<Anchor>);

/// Most plans remembered; the oldest go first.
const MOST: usize = 32;

impl Anchors {
    /// Takes the SQNR in dB that a run gave of the plan behind `picks`, whose noise is `parts` but for repaired weights.
    pub(super) fn add(
        &mut self,
        sensitivity: &mut Sensitivity,
        model: &Model,
        picks: &[Pick],
        mut parts: Parts,
        measured_db: f64,
    ) {
        let repaired = repaired(model, picks);
        let names: Vec<&str> = repaired.iter().map(|(layer, _)| layer.name.as_str()).collect();
        parts.unknown.retain(|name| !names.contains(&name.as_str()));
        if repaired.is_empty() || !parts.unknown.is_empty() || !measured_db.is_finite() {
            return;
        }
        let all = sensitivity.noise_behind(&parts, measured_db);
        let own = (all - parts.total(None)).max(0.0);
        let nearest = |(layer, pick): &(&Layer, &Pick)| {
            let noise = sensitivity.weight_noise(&layer.name, &pick.choice).map_or(0.0, |noise| noise.total);
            if noise.is_finite() { noise } else { 0.0 }
        };
        let weights: Vec<f64> = repaired.iter().map(nearest).collect();
        let sum: f64 = weights.iter().sum();
        let share = |weight: f64| if sum > 0.0 { weight / sum } else { 1.0 / weights.len() as f64 };
        let noises: Vec<f64> = weights.iter().map(|&weight| own * share(weight)).collect();
        let layers: Vec<Repaired> = repaired.iter().map(|&(layer, pick)| Repaired::of(layer, pick)).collect();
        self.0.retain(|known| known.layers != layers);
        if self.0.len() >= MOST {
            self.0.remove(0);
        }
        self.0.push(Anchor { layers, noises });
        self.put(model, picks, &mut parts);
        // Where the other roundings alone are expected to do more than was measured, predictions near this plan learn it.
        if let Some(expected) = sensitivity.expected(&parts) {
            sensitivity.learnt.add(expected, measured_db, 0.0);
        }
    }

    /// Puts what is known of repaired weights in place of their names among what is not.
    pub(super) fn put(&self, model: &Model, picks: &[Pick], parts: &mut Parts) {
        let repaired: Vec<Repaired> =
            repaired(model, picks).into_iter().map(|(layer, pick)| Repaired::of(layer, pick)).collect();
        let same = self.0.iter().find(|anchor| anchor.layers == repaired);
        for layer in repaired {
            let of = |anchor: &Anchor| {
                let at = anchor.layers.iter().position(|known| *known == layer)?;
                anchor.noises.get(at).copied()
            };
            let known = same.and_then(of).or_else(|| self.0.iter().rev().find_map(of));
            if let Some(total) = known {
                parts.unknown.retain(|name| *name != layer.layer);
                let noise = Noise { total, clipped: 0.0 };
                parts.sources.push(NoiseSource { part: Part::Weights, name: layer.layer, noise });
            }
        }
    }
}

impl Repaired {
    fn of(layer: &Layer, pick: &Pick) -> Self {
        Self { layer: layer.name.clone(), key: WeightKey::of(&pick.choice), rounding: pick.choice.rounding }
    }
}

impl Sensitivity {
    /// The sum of noise powers for which a plan with these parts, and weights on top of them, is predicted at `db`.
    fn noise_behind(&self, parts: &Parts, db: f64) -> f64 {
        let of_activations = parts.total(None) - parts.total(Some(Part::Weights));
        let sum = |sum_db: f64| {
            let bounded = self.signal * 10_f64.powf(-sum_db / 10.0);
            // The inverse of `sqnr`.
            let most = 2.0 * self.signal;
            if bounded < most { bounded / (1.0 - bounded / most) } else { f64::INFINITY }
        };
        let mut sum_db = db;
        for _ in 0..STEPS {
            let share = (of_activations / sum(sum_db)).min(1.0);
            sum_db = db - self.learnt.offset(Expected { sum_db, of_activations: share });
        }
        sum(sum_db)
    }
}

/// Layers whose weights a repair of the plan in force made.
fn repaired<'a>(model: &'a Model, picks: &'a [Pick]) -> Vec<(&'a Layer, &'a Pick)> {
    let each = model.layers.iter().zip(picks).filter(|(_, pick)| pick.form != Form::Float);
    each.filter(|(layer, pick)| layer.repair(&pick.choice).is_some()).collect()
}
