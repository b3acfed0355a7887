//! What is done to which layer: one repair for all, or a search for the best, on samples held back from it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::job::{Job, RepairOptions, RepairedLayer};
use super::super::refit::sequence;
use super::{Method, Split, reference};
use crate::error::Sqnr;
use crate::plan::{Clip, Plan, Rounding, Set};
use crate::predict::Reference;
use crate::problem::Severity;
use crate::{Control, Error, Problem};

/// Gain in dB that a change must bring to be kept.
const LEAST_GAIN_DB: f64 = 0.05;

/// What is tried for every layer by itself.
pub(in crate::repair) const ONE_PASS: [Rounding; 3] = [Rounding::Gptq, Rounding::Descent, Rounding::Clip];

/// A plan with repairs, and the layers that have them.
#[derive(Clone)]
pub(super) struct Made {
    pub(super) plan: Plan,
    pub(super) layers: Vec<RepairedLayer>,
}

/// How layers are to be repaired, whatever the samples.
#[derive(Clone, Debug, PartialEq)]
enum Recipe {
    /// Each by itself, with a method; those not named stay as they are.
    Each(Vec<(usize, Rounding)>),
    /// All in the model's order, each to the errors of those before it.
    Refit,
}

/// A recipe, and the plan with its ranges that it is for, nothing repaired in it.
pub(super) struct Chosen {
    ranges: Plan,
    recipe: Recipe,
}

/// The best so far, with what the whole model is with it.
struct Found {
    recipe: Recipe,
    /// The plan with its ranges and nothing repaired.
    ranges: Plan,
    made: Made,
    after: Sqnr,
}

pub(super) struct Search<'a> {
    pub(super) job: Job<'a>,
    pub(super) control: &'a Control,
    pub(super) tried: Vec<(String, Sqnr)>,
}

impl Search<'_> {
    /// What to do to the layers. What [`Method::Best`] chooses by is part of the samples that the job learns from, so that
    /// nothing of those held back goes into it.
    pub(super) fn choose(&mut self, method: Method, indices: &[usize]) -> Result<Chosen, Error> {
        let ranges = self.job.plan.clone();
        let recipe = match method {
            Method::One(Rounding::Refit) => Recipe::Refit,
            Method::One(method) => Recipe::Each(indices.iter().map(|&at| (at, method)).collect()),
            Method::Best => {
                let split = Split::of(&self.job.split.calibration);
                let found = self.best(&Job { split: &split, ..self.job }, indices)?;
                return Ok(Chosen { ranges: found.ranges, recipe: found.recipe });
            }
        };
        Ok(Chosen { ranges, recipe })
    }

    /// Repairs from the samples that the job learns from.
    pub(super) fn make(&self, chosen: &Chosen, indices: &[usize]) -> Result<Made, Error> {
        self.cook(&Job { plan: &chosen.ranges, ..self.job }, &chosen.recipe, indices)
    }

    /// Both at once, within a time limit, in which nothing can be made twice: the samples held back choose too.
    pub(super) fn make_in_time(&mut self, method: Method, indices: &[usize]) -> Result<Made, Error> {
        match method {
            Method::Best => {
                let job = self.job;
                Ok(self.best(&job, indices)?.made)
            }
            Method::One(_) => {
                let chosen = self.choose(method, indices)?;
                self.make(&chosen, indices)
            }
        }
    }

    fn cook(&self, job: &Job<'_>, recipe: &Recipe, indices: &[usize]) -> Result<Made, Error> {
        let layers = match recipe {
            Recipe::Each(wishes) => job.one_pass(wishes, self.control)?,
            Recipe::Refit => self.refitted(job, indices)?,
        };
        Ok(Made { plan: with(job.plan, &layers), layers })
    }

    /// Refits; what a deadline keeps from it is done in one pass.
    fn refitted(&self, job: &Job<'_>, indices: &[usize]) -> Result<Vec<RepairedLayer>, Error> {
        let mut done = sequence(job, indices, self.control)?;
        let is_done = |at: usize| {
            let name = job.model.layers.get(at).map(|layer| layer.name.as_str());
            done.iter().any(|layer| Some(layer.name.as_str()) == name)
        };
        let has_integers = |at: usize| job.model.layers.get(at).is_some_and(|layer| job.choice(layer).is_some());
        let rest: Vec<_> =
            indices.iter().filter(|&&at| !is_done(at) && has_integers(at)).map(|&at| (at, Rounding::Gptq)).collect();
        if !rest.is_empty() {
            self.out_of_time(format!(
                "{} of {} layers are repaired by gptq instead of refit",
                rest.len(),
                indices.len()
            ));
            let options = RepairOptions { deadline: None, enough: Arc::default(), ..job.options.clone() };
            done.extend(Job { options: &options, ..*job }.one_pass(&rest, self.control)?);
        }
        Ok(done)
    }

    fn out_of_time(&self, what: String) {
        self.control.problem(Problem::new(
            Severity::Note,
            "The time that repairs may take was up",
            "",
            what,
            "Allow more",
        ));
    }

    /// Every layer's best rounding by itself; then other ranges of activations; then all layers refitted: each is kept where
    /// the whole model gains on the samples that `job` holds back.
    fn best(&mut self, job: &Job<'_>, indices: &[usize]) -> Result<Found, Error> {
        let reference = reference(job, self.control)?;
        let before = self.measure(&reference, "nearest", job.plan)?;
        let mut best = Found {
            recipe: Recipe::Each(Vec::new()),
            ranges: job.plan.clone(),
            made: Made { plan: job.plan.clone(), layers: Vec::new() },
            after: before,
        };
        let wishes: Vec<_> = indices.iter().flat_map(|&at| ONE_PASS.map(|method| (at, method))).collect();
        let one_pass = best_of_each(job.one_pass(&wishes, self.control)?);
        let wish = |&at: &usize| {
            let name = &job.model.layers.get(at)?.name;
            Some((at, one_pass.iter().find(|layer| layer.name == *name)?.repair.method))
        };
        let recipe = Recipe::Each(indices.iter().filter_map(wish).collect());
        let made = Made { plan: with(job.plan, &one_pass), layers: one_pass };
        self.offer(&reference, "one pass", &mut best, job.plan, recipe, made)?;
        self.clips(job, &reference, &mut best)?;
        if job.options.is_over() {
            self.out_of_time("Refitting was not tried".to_owned());
        } else {
            let ranges = best.ranges.clone();
            let made = self.cook(&Job { plan: &ranges, ..*job }, &Recipe::Refit, indices)?;
            self.offer(&reference, "refit", &mut best, &ranges, Recipe::Refit, made)?;
        }
        Ok(best)
    }

    /// Other ranges of activations for the static layers. What one pass made does not depend on them.
    fn clips(&mut self, job: &Job<'_>, reference: &Reference<'_>, best: &mut Found) -> Result<(), Error> {
        let is_static = |name: &str| best.ranges.choice(name).is_static();
        let names: Vec<String> =
            job.model.layers.iter().map(|layer| layer.name.clone()).filter(|name| is_static(name)).collect();
        for clip in [Clip::Mse, Clip::Percentile(99.99), Clip::MinMax, Clip::Percentile(99.9)] {
            let changes = |name: &String| best.ranges.choice(name).activation_clip != clip;
            if !names.iter().any(changes) {
                continue;
            }
            if job.options.is_over() {
                self.out_of_time(format!("Ranges of activations by {clip} were not tried"));
                continue;
            }
            let set = Set { activation_clip: Some(clip), ..Set::default() };
            let mut plan = best.made.plan.clone();
            plan.set_layers(names.iter().map(String::as_str), &set);
            let after = self.measure(reference, &format!("activations {clip}"), &plan)?;
            if gains(after, best.after) {
                best.ranges.set_layers(names.iter().map(String::as_str), &set);
                (best.made.plan, best.after) = (plan, after);
            }
        }
        Ok(())
    }

    fn offer(
        &mut self,
        reference: &Reference<'_>,
        what: &str,
        best: &mut Found,
        ranges: &Plan,
        recipe: Recipe,
        made: Made,
    ) -> Result<(), Error> {
        let after = self.measure(reference, what, &made.plan)?;
        if gains(after, best.after) {
            *best = Found { recipe, ranges: ranges.clone(), made, after };
        }
        Ok(())
    }

    fn measure(&mut self, reference: &Reference<'_>, what: &str, plan: &Plan) -> Result<Sqnr, Error> {
        let measured = reference.measure(plan, self.job.stats, self.control)?;
        self.tried.push((what.to_owned(), measured));
        Ok(measured)
    }
}

/// Every layer's best repair, by data held back; layers that none helps are left out.
pub(in crate::repair) fn best_of_each(repaired: Vec<RepairedLayer>) -> Vec<RepairedLayer> {
    let mut by_layer: BTreeMap<String, RepairedLayer> = BTreeMap::new();
    for repaired in repaired {
        let db = |layer: &RepairedLayer| layer.repair.held_back.map_or(f64::NEG_INFINITY, |gain| gain.after_db);
        match by_layer.get_mut(&repaired.name) {
            Some(known) if db(&repaired) > db(known) => *known = repaired,
            Some(_) => {}
            None => _ = by_layer.insert(repaired.name.clone(), repaired),
        }
    }
    let helps = |layer: &RepairedLayer| layer.repair.held_back.is_none_or(|gain| gain.after_db > gain.before_db);
    by_layer.into_values().filter(helps).collect()
}

fn gains(after: Sqnr, before: Sqnr) -> bool {
    match (after.db(), before.db()) {
        (Some(after), Some(before)) => after > before + LEAST_GAIN_DB,
        (after, before) => after.is_some() && before.is_none() && before != after,
    }
}

fn with(plan: &Plan, layers: &[RepairedLayer]) -> Plan {
    let mut plan = plan.clone();
    for layer in layers {
        layer.put(&mut plan);
    }
    plan
}
