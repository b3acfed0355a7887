//! Repairs judged by what they do to the model's output, with the real export run on data held back.

use std::collections::BTreeMap;

use super::collect::Split;
use super::job::{Job, RepairOptions, RepairedLayer};
use super::refit::sequence;
use crate::error::Sqnr;
use crate::model::Model;
use crate::plan::{Choice, Clip, Plan, Rounding, Set};
use crate::predict::Reference;
use crate::problem::Severity;
use crate::{Control, Error, Problem};

/// Most samples that a whole model is judged on.
const JUDGES: usize = 64;
/// Gain in dB that a change must bring to be kept.
const LEAST_GAIN_DB: f64 = 0.05;

/// What is tried for every layer by itself.
pub(super) const ONE_PASS: [Rounding; 3] = [Rounding::Gptq, Rounding::Descent, Rounding::Clip];

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// One repair for all layers.
    One(Rounding),
    /// What helps most.
    Best,
}

impl Method {
    /// The word for it on the screen and on the command line.
    pub const fn word(self) -> &'static str {
        match self {
            Self::One(rounding) => rounding.word(),
            Self::Best => "best",
        }
    }
}

/// A plan with its repairs.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The plan.
    pub plan: Plan,
    /// The layers that were repaired, with the repair that the plan has.
    pub layers: Vec<RepairedLayer>,
    /// The whole model with these layers rounded to nearest, on data held back.
    pub before: Sqnr,
    /// The whole model with the repairs, on the same data.
    pub after: Sqnr,
    /// Samples judged on.
    pub judged_on: usize,
    /// What was tried on the whole model, and what it gave.
    pub tried: Vec<(String, Sqnr)>,
}

/// Repairs the layers called `indices` and measures what that does to the model's output ([`Model::judged_output`]). The
/// plan asked for with [`Method::One`] is given whatever it does; [`Method::Best`] gives the best found until the
/// deadline, which may be the plan as it was.
pub fn repair(job: &Job<'_>, indices: &[usize], method: Method, control: &Control) -> Result<Outcome, Error> {
    repair_watched(job, indices, method, control, &mut |_, _| {})
}

/// As [`repair`], and shows `watch` the layers of [`Method::One`], and the plan with them, before the whole model is run.
pub fn repair_watched(
    job: &Job<'_>,
    indices: &[usize],
    method: Method,
    control: &Control,
    watch: &mut dyn FnMut(&Plan, &[RepairedLayer]),
) -> Result<Outcome, Error> {
    let base = rounded_to_nearest(job.plan, job.model, indices);
    let job = Job { plan: &base, ..*job };
    let one = match method {
        Method::One(method) => {
            let layers = with_method(&job, method, indices, control)?;
            let plan = with(&base, &layers);
            watch(&plan, &layers);
            Some((plan, layers))
        }
        Method::Best => None,
    };
    let judges = judges(job.split);
    let output = job.model.judged_output();
    let reference = Reference::new(job.model, job.runtime, job.data, &judges, output, job.options.threads, control)?;
    control.progress("Running the whole model", 0, 0);
    let before = reference.measure(&base, job.stats, control)?;
    let mut search = Search { job, reference: &reference, control, tried: vec![("nearest".to_owned(), before)] };
    let found = match one {
        Some((plan, layers)) => {
            let after = reference.measure(&plan, job.stats, control)?;
            Found { plan, layers, after }
        }
        None => search.best(indices, Found { plan: base.clone(), layers: Vec::new(), after: before })?,
    };
    let Found { plan, layers, after } = found;
    Ok(Outcome { plan, layers, before, after, judged_on: judges.len(), tried: search.tried })
}

/// The plan with the layers called `indices` rounded to nearest.
pub(super) fn rounded_to_nearest(plan: &Plan, model: &Model, indices: &[usize]) -> Plan {
    let mut plan = plan.clone();
    for layer in indices.iter().filter_map(|&at| model.layers.get(at)) {
        let choice = Choice { rounding: Rounding::Nearest, ..plan.choice(&layer.name) };
        plan.set_layer(&layer.name, choice);
    }
    plan
}

/// The samples held back that a whole model is judged on.
pub fn judges(split: &Split) -> Vec<usize> {
    spread(&split.held_back, JUDGES)
}

fn with_method(
    job: &Job<'_>,
    method: Rounding,
    indices: &[usize],
    control: &Control,
) -> Result<Vec<RepairedLayer>, Error> {
    if method == Rounding::Refit {
        return refitted(job, indices, control);
    }
    let wishes: Vec<_> = indices.iter().map(|&at| (at, method)).collect();
    job.one_pass(&wishes, control)
}

/// Refits; what the deadline keeps from it is done in one pass.
fn refitted(job: &Job<'_>, indices: &[usize], control: &Control) -> Result<Vec<RepairedLayer>, Error> {
    let mut done = sequence(job, indices, control)?;
    let is_done = |at: usize| {
        let name = job.model.layers.get(at).map(|layer| layer.name.as_str());
        done.iter().any(|layer| Some(layer.name.as_str()) == name)
    };
    let rest: Vec<_> = indices.iter().filter(|&&at| !is_done(at)).map(|&at| (at, Rounding::Gptq)).collect();
    if !rest.is_empty() {
        control.problem(Problem::new(
            Severity::Note,
            "Time was up before all layers were refitted",
            "",
            format!("{} of {} layers are repaired by gptq instead", rest.len(), indices.len()),
            "Allow more seconds",
        ));
        let options = RepairOptions { deadline: None, ..job.options.clone() };
        done.extend(Job { options: &options, ..*job }.one_pass(&rest, control)?);
    }
    Ok(done)
}

/// A plan, and what it does.
#[derive(Clone)]
struct Found {
    plan: Plan,
    layers: Vec<RepairedLayer>,
    after: Sqnr,
}

struct Search<'a> {
    job: Job<'a>,
    reference: &'a Reference<'a>,
    control: &'a Control,
    tried: Vec<(String, Sqnr)>,
}

impl Search<'_> {
    /// Every layer's best rounding by itself; then all layers refitted; then other ranges of activations: each is kept
    /// where the whole model gains.
    fn best(&mut self, indices: &[usize], mut best: Found) -> Result<Found, Error> {
        let wishes: Vec<_> = indices.iter().flat_map(|&at| ONE_PASS.map(|method| (at, method))).collect();
        let one_pass = best_of_each(self.job.one_pass(&wishes, self.control)?);
        self.offer("one pass", &mut best, self.job.plan, one_pass.clone())?;
        self.clips(&mut best)?;
        if !self.job.options.is_over() {
            // In the ranges that are best so far; what the deadline keeps from being refitted stays as one pass left it.
            let ranges = unrepaired(&best.plan);
            let job = Job { plan: &ranges, ..self.job };
            let refitted = sequence(&job, indices, self.control)?;
            let done: Vec<&str> = refitted.iter().map(|layer| layer.name.as_str()).collect();
            let rest = one_pass.iter().filter(|layer| !done.contains(&layer.name.as_str())).cloned();
            let all = refitted.iter().cloned().chain(rest).collect();
            self.offer("refit", &mut best, &ranges, all)?;
        }
        Ok(best)
    }

    /// Other ranges of activations for the static layers.
    fn clips(&mut self, best: &mut Found) -> Result<(), Error> {
        let is_static = |name: &str| best.plan.choice(name).is_static();
        let names: Vec<String> =
            self.job.model.layers.iter().map(|layer| layer.name.clone()).filter(|name| is_static(name)).collect();
        for clip in [Clip::Mse, Clip::Percentile(99.99), Clip::MinMax, Clip::Percentile(99.9)] {
            let changes = |name: &String| best.plan.choice(name).activation_clip != clip;
            if self.job.options.is_over() || !names.iter().any(changes) {
                continue;
            }
            let mut plan = best.plan.clone();
            let set = Set { activation_clip: Some(clip), ..Set::default() };
            plan.set_layers(names.iter().map(String::as_str), &set);
            let after = self.measure(&format!("activations {clip}"), &plan)?;
            if gains(after, best.after) {
                *best = Found { plan, after, layers: std::mem::take(&mut best.layers) };
            }
        }
        Ok(())
    }

    fn offer(&mut self, what: &str, best: &mut Found, base: &Plan, layers: Vec<RepairedLayer>) -> Result<(), Error> {
        let plan = with(base, &layers);
        let after = self.measure(what, &plan)?;
        if gains(after, best.after) {
            *best = Found { plan, layers, after };
        }
        Ok(())
    }

    fn measure(&mut self, what: &str, plan: &Plan) -> Result<Sqnr, Error> {
        let measured = self.reference.measure(plan, self.job.stats, self.control)?;
        self.tried.push((what.to_owned(), measured));
        Ok(measured)
    }
}

/// Every layer's best repair, by data held back; layers that none helps are left out.
pub(super) fn best_of_each(repaired: Vec<RepairedLayer>) -> Vec<RepairedLayer> {
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

/// The plan with every layer rounded to nearest.
fn unrepaired(plan: &Plan) -> Plan {
    let mut plan = plan.clone();
    for choice in plan.layers.values_mut() {
        choice.rounding = Rounding::Nearest;
    }
    plan
}

/// `count` of `indices`, evenly spread.
fn spread(indices: &[usize], count: usize) -> Vec<usize> {
    let count = count.min(indices.len());
    (0..count).filter_map(|i| indices.get(i * indices.len() / count).copied()).collect()
}

/// The layers that a repair can do something for, by index: those with integers in the plan that `wanted` names.
pub fn repairable(job: &Job<'_>, wanted: impl Fn(&str) -> bool) -> Vec<usize> {
    let layers = job.model.layers.iter().enumerate();
    let integer = layers.filter(|(_, layer)| wanted(&layer.name) && job.choice(layer).is_some());
    integer.map(|(at, _)| at).collect()
}
