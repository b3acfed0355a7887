//! Whole plans run on a few samples, so that predictions start from what the runtime gives and not from slopes alone.
//!
//! Slopes are of the first order and of a few samples. Where a model squashes large errors, hangs on a few samples near a
//! decision, or has operators whose slopes hold nowhere, sums of noise are off by the same few decibels for all plans of a
//! kind. Uniform plans say by how many.

use serde::{Deserialize, Serialize};

use super::learnt::Expected;
use super::prediction::Part;
use super::sensitivity::WeightKey;
use super::{Learnt, Parts, Reference, Sensitivity};
use crate::export::{Pick, pick};
use crate::model::Model;
use crate::plan::{Plan, preset};
use crate::stats::Stats;
use crate::{Control, Error};

/// The presets that are run: two widths, with the weights alone and with activations; and activations that kernels round.
const CHECKED: [&str; 5] = ["int8-weights", "int4-weights", "int8", "int4-static", "int8-dynamic"];

/// A plan that differs from one that was run in less than one in this many layers is not worth a run.
const NEW_SHARE: usize = 4;

/// What one uniform plan gave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// Name of the preset.
    pub preset: String,
    /// SQNR that the runtime gave on the samples tried.
    pub measured_db: f64,
    /// Its standard error over these samples, in dB.
    pub spread_db: f64,
}

impl Sensitivity {
    /// Runs uniform plans on the samples of `reference` and learns by how much sums are off.
    pub fn check(
        &mut self,
        model: &Model,
        reference: &Reference<'_>,
        stats: Option<&Stats>,
        control: &Control,
    ) -> Result<(), Error> {
        let mut seen: Vec<Vec<Pick>> = Vec::new();
        for (done, name) in CHECKED.into_iter().enumerate() {
            control.check()?;
            control.progress("Checking predictions by running plans", done as u64, CHECKED.len() as u64);
            let plan = model.preset_plan(preset(name)?)?;
            let picks = self.picks(model, &plan, stats);
            let written = |pick: &Pick| (pick.form, WeightKey::of(&pick.choice));
            let differ = |known: &Vec<Pick>| known.iter().zip(&picks).filter(|(a, b)| written(a) != written(b)).count();
            let nearest = seen.iter().map(differ).min().unwrap_or(usize::MAX);
            if nearest < picks.len().div_ceil(NEW_SHARE) || self.expected(&self.parts(model, &picks, stats)).is_none() {
                continue;
            }
            seen.push(picks);
            let trial = match reference.trial(&plan, stats, control) {
                Ok(trial) => trial,
                Err(Error::Cancelled) => return Err(Error::Cancelled),
                Err(error) => {
                    self.notes.push(format!("The preset {name} could not be run to check predictions: {error}"));
                    continue;
                }
            };
            if let Some(measured_db) = trial.quality.sqnr_db.db() {
                let spread_db = trial.spread_db;
                self.checks.push(Check { preset: name.to_owned(), measured_db, spread_db });
            }
        }
        self.compare_checks(model, stats)
    }

    /// Sets what was measured beside what is expected now.
    pub(super) fn compare_checks(&mut self, model: &Model, stats: Option<&Stats>) -> Result<(), Error> {
        self.learnt = Learnt::default();
        for check in self.checks.clone() {
            let plan = model.preset_plan(preset(&check.preset)?)?;
            let picks = self.picks(model, &plan, stats);
            if let Some(expected) = self.expected(&self.parts(model, &picks, stats)) {
                self.learnt.add(expected, check.measured_db, check.spread_db);
            }
        }
        Ok(())
    }

    /// How each layer is written under `plan`, with the noise of its weights computed.
    pub(super) fn picks(&mut self, model: &Model, plan: &Plan, stats: Option<&Stats>) -> Vec<Pick> {
        let each = model.layers.iter().map(|layer| pick(model, layer, plan.choice(&layer.name), stats));
        let picks: Vec<Pick> = each.collect();
        for (layer, pick) in model.layers.iter().zip(&picks) {
            self.cover(model, layer, &[pick.choice]);
        }
        picks
    }

    /// What the sum of `parts` says; `None` where something is not known or nothing is rounded.
    pub fn expected(&self, parts: &Parts) -> Option<Expected> {
        let sum_db = self.sqnr(parts.together()).db().filter(|db| db.is_finite() && parts.unknown.is_empty())?;
        Some(Expected { sum_db, of_activations: 1.0 - parts.total(Some(Part::Weights)) / parts.total(None) })
    }
}
