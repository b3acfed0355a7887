//! The model as the plan's scalings make it. Statistics, errors and what was learnt belong to one such model; those of the
//! others are set aside, so that undo finds them again.

use std::sync::Arc;

use nibble_core::model::Model;
use nibble_core::plan::spare::Spared;
use nibble_core::problem::Severity;
use nibble_core::stats::Stats;
use nibble_core::{Error, Problem};

use super::Document;
use crate::jobs::{Learnt, ScaledModel};
use crate::results::Results;
use crate::views::calibrate::DataRequest;

/// Most models set aside beside the original; the oldest go first.
const MOST: usize = 4;

/// What belongs to one model.
pub(super) struct Variant {
    model: Arc<Model>,
    stats: Option<Arc<Stats>>,
    calibrated_with: Option<DataRequest>,
    spared: Vec<Spared>,
    learnt: Option<Arc<Learnt>>,
    results: Results,
}

impl Variant {
    fn of(model: Arc<Model>) -> Self {
        Self {
            model,
            stats: None,
            calibrated_with: None,
            spared: Vec::new(),
            learnt: None,
            results: Results::default(),
        }
    }
}

impl Document {
    /// Keeps a scaled model at hand for the plan that is put in force next.
    pub fn bring(&mut self, model: Arc<Model>) {
        let known = |variant: &Variant| variant.model.scalings == model.scalings;
        if self.model.scalings != model.scalings && !self.set_aside.iter().any(known) {
            self.set_aside.push(Variant::of(model));
        }
    }

    /// The same with its statistics.
    pub fn bring_calibrated(&mut self, scaled: &ScaledModel) {
        self.set_aside.retain(|variant| variant.model.scalings != scaled.model.scalings);
        self.set_aside.push(Variant {
            stats: scaled.stats.clone(),
            calibrated_with: scaled.stats.as_ref().map(|_| scaled.data.clone()),
            spared: scaled.spared.clone(),
            ..Variant::of(Arc::clone(&scaled.model))
        });
    }

    /// Puts the model with the scalings of the plan in force, with all that belongs to it. One that was never calibrated
    /// will be, as the one before it was.
    pub(super) fn follow_scalings(&mut self) {
        let plan = Arc::clone(self.plan());
        if plan.scalings == self.model.scalings {
            return;
        }
        let known = self.set_aside.iter().position(|variant| variant.model.scalings == plan.scalings);
        let next = match known {
            Some(at) => self.set_aside.remove(at),
            None => match self.scaled_anew() {
                Ok(model) => Variant::of(Arc::new(model)),
                Err(error) => {
                    let (what, fix) = (error.to_string(), error.hint());
                    let problem = Problem::new(Severity::Serious, what, error.place(), "", fix);
                    self.problems.entry("plan").or_default().push(problem);
                    return;
                }
            },
        };
        let data = self.calibrated_with.clone().or(self.calibrate_with.take());
        let before = Variant {
            model: std::mem::replace(&mut self.model, next.model),
            stats: std::mem::replace(&mut self.stats, next.stats),
            calibrated_with: std::mem::replace(&mut self.calibrated_with, next.calibrated_with),
            spared: std::mem::replace(&mut self.spared, next.spared),
            learnt: std::mem::replace(&mut self.learnt, next.learnt),
            results: std::mem::replace(&mut self.results, next.results),
        };
        self.set_aside.push(before);
        self.calibrate_with = data.filter(|_| self.calibrated_with.is_none());
        self.follow_left_out();
        self.cannot_learn = false;
        self.forecast = None;
        self.predicted_size = None;
        self.of_preset.clear();
        self.picks.clear();
        let scaled = self.set_aside.iter().filter(|variant| !variant.model.scalings.is_empty()).count();
        if scaled > MOST
            && let Some(oldest) = self.set_aside.iter().position(|variant| !variant.model.scalings.is_empty())
        {
            self.set_aside.remove(oldest);
        }
    }

    /// The model without scalings.
    pub fn original(&self) -> Arc<Model> {
        let plain = self.set_aside.iter().map(|variant| &variant.model).find(|model| model.scalings.is_empty());
        Arc::clone(plain.unwrap_or(&self.model))
    }

    /// The model with the scalings of the plan in force, made from any other. The original is always at hand.
    fn scaled_anew(&self) -> Result<Model, Error> {
        Ok(self.model.scaled(self.plan())?.into_owned())
    }

    /// Takes statistics of whichever model they were gathered on; returns whether it is the one in force.
    pub fn take_stats(&mut self, stats: Arc<Stats>) -> bool {
        if stats.model_sha256 == self.model.identity {
            self.set_stats(stats);
            return true;
        }
        if let Some(variant) = self.set_aside.iter_mut().find(|variant| variant.model.identity == stats.model_sha256) {
            variant.stats = Some(stats);
            variant.learnt = None;
            variant.results.renew_isolated();
        }
        false
    }

    /// Takes the end of a calibration; returns whether it is that of the model in force.
    pub fn take_calibrated(&mut self, stats: Arc<Stats>, data: DataRequest, spared: Vec<Spared>) -> bool {
        let about = stats.model_sha256.clone();
        if self.take_stats(stats) {
            self.calibrated_with = Some(data);
            self.calibrate_with = None;
            self.follow_left_out();
            if self.model.scalings.is_empty() {
                self.spare(spared);
            } else {
                // The plan of a scaled model is its own; what it spares was chosen when it was scaled.
                self.spared = spared;
                self.of_preset.clear();
            }
            return true;
        }
        if let Some(variant) = self.set_aside.iter_mut().find(|variant| variant.model.identity == about) {
            variant.calibrated_with = Some(data);
            variant.spared = spared;
        }
        false
    }

    /// The background results of the model with this identity.
    pub fn results_of(&mut self, identity: &str) -> Option<&mut Results> {
        if self.model.identity == identity {
            return Some(&mut self.results);
        }
        let variant = self.set_aside.iter_mut().find(|variant| variant.model.identity == identity);
        variant.map(|variant| &mut variant.results)
    }
}
