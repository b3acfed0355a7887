//! Repaired weights: their errors were made to cancel, so that slopes by single weights say nothing of them. They are run.

use super::sensitivity::WeightKey;
use super::{Reference, Sensitivity};
use crate::export::{Form, Pick, pick};
use crate::model::Model;
use crate::plan::{Activation, Choice, Mode, Plan, Rounding};
use crate::stats::Stats;
use crate::{Control, Error};

/// Which layers are repaired, and how; what is known of them is known of all together.
pub(super) type RepairedKey = Vec<(String, WeightKey, Rounding)>;

impl Sensitivity {
    /// Runs `plan` with its repaired weights alone, everything else left in floating point, and keeps the noise of all of
    /// them together: a repair in sequence has later layers make up for earlier ones. A plan without repairs costs nothing.
    pub fn measure_repaired(
        &mut self,
        model: &Model,
        plan: &Plan,
        reference: &Reference<'_>,
        stats: Option<&Stats>,
        control: &Control,
    ) -> Result<(), Error> {
        let in_force = model.repaired(plan)?;
        let each = in_force.layers.iter();
        let picks: Vec<Pick> = each.map(|layer| pick(&in_force, layer, plan.choice(&layer.name), stats)).collect();
        let key = repaired(&in_force, &picks);
        if key.is_empty() {
            return Ok(());
        }
        let mut alone = plan.clone();
        for layer in &in_force.layers {
            let choice = if key.iter().any(|(name, ..)| *name == layer.name) {
                let choice = plan.choice(&layer.name);
                Choice { mode: Mode::WeightOnly, activation: Activation::Float32, ..choice }
            } else {
                Choice::FLOAT
            };
            alone.set_layer(&layer.name, choice);
        }
        let trial = reference.trial(&alone, stats, control)?;
        if let Some(noise) = self.noise_of(trial.quality.sqnr_db) {
            self.repaired.retain(|(known, _)| *known != key);
            self.repaired.push((key, noise));
        }
        Ok(())
    }

    /// Noise of all repaired weights of `picks` together, where they were run; the names of their layers otherwise.
    pub(super) fn repaired_noise(&self, model: &Model, picks: &[Pick]) -> Option<Result<f64, Vec<String>>> {
        let key = repaired(model, picks);
        if key.is_empty() {
            return None;
        }
        let known = self.repaired.iter().find(|(known, _)| *known == key).map(|(_, noise)| *noise);
        Some(known.ok_or_else(|| key.into_iter().map(|(name, ..)| name).collect()))
    }
}

fn repaired(model: &Model, picks: &[Pick]) -> RepairedKey {
    let each = model.layers.iter().zip(picks).filter(|(_, pick)| pick.form != Form::Float);
    let repaired = each.filter(|(layer, pick)| layer.repair(&pick.choice).is_some());
    repaired.map(|(layer, pick)| (layer.name.clone(), WeightKey::of(&pick.choice), pick.choice.rounding)).collect()
}
