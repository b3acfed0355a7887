//! Repairs judged by what they do to the model's output, with the real export run on samples that they have not seen.
//!
//! The gain that is shown is a forecast for other data, so two things must not flatter it. Samples that a repair learnt from
//! say too much: hence samples are held back, from choosing among repairs too. And few samples say too little: noise at an output
//! is often that of a handful of them (on a text direction classifier, 10 of 64 samples make 96 % of it; quarters of these 64 give
//! SQNRs that differ by 3.8 dB). So small models are cross-fitted: every sample is held back once, from repairs made of the
//! other three quarters, and the sums run over all; how the plan that is given, made of all samples, stands against the plans that were
//! judged is seen on samples that both learnt from ([`GainSpread`]). Of large models (over [`CROSS_FIT_WEIGHTS`] weights) one quarter
//! is held back once. The plan is made of all samples unless there is a time limit.

mod search;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use self::search::{Made, Search};
pub(super) use self::search::{ONE_PASS, best_of_each};
use super::collect::Split;
use super::job::{Job, RepairedLayer};
use super::tally::{GainSpread, Tally};
use super::{Gain, LayerRepair};
use crate::error::Sqnr;
use crate::model::{Layer, Model};
use crate::plan::{Choice, Plan, Rounding};
use crate::predict::Reference;
use crate::problem::Severity;
use crate::{Control, Error, Problem};

/// Most samples that a whole model is judged on at a time.
const JUDGES: usize = 64;
/// Times that samples are divided for a cross-fit.
const FOLDS: usize = 4;
/// Most weights of a model whose repairs are cross-fitted unless asked otherwise: four times the work.
pub const CROSS_FIT_WEIGHTS: usize = 1_000_000;

/// How far an end of a gain's interval may lie from it in dB without that being said.
const WIDE_DB: f64 = 1.0;

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
    /// The gain, and how far samples like these leave it open; `None` where it is no number.
    pub gain: Option<GainSpread>,
    /// Samples that the plan's repairs were made from.
    pub learnt_from: usize,
    /// Samples judged on.
    pub judged_on: usize,
    /// Parts that were held back in turn; 1 where the same samples were held back throughout.
    pub folds: usize,
    /// What was tried on the whole model, and what it gave on the samples that chose.
    pub tried: Vec<(String, Sqnr)>,
}

/// Repairs the layers called `indices` and forecasts what that does to the model's output ([`Model::judged_output`]). The
/// plan asked for with [`Method::One`] is given whatever it does; [`Method::Best`] gives the best found, which may be the plan as
/// it was.
pub fn repair(job: &Job<'_>, indices: &[usize], method: Method, control: &Control) -> Result<Outcome, Error> {
    repair_watched(job, indices, method, control, &mut |_, _| {})
}

/// As [`repair`], and shows `watch` the layers of [`Method::One`], and the plan with them, before the whole model is run: as three
/// quarters of the samples make them, judged on the fourth.
pub fn repair_watched(
    job: &Job<'_>,
    indices: &[usize],
    method: Method,
    control: &Control,
    watch: &mut dyn FnMut(&Plan, &[RepairedLayer]),
) -> Result<Outcome, Error> {
    let base = rounded_to_nearest(job.plan, job.model, indices);
    let job = Job { plan: &base, ..*job };
    let search = |split| Search { job: Job { split, ..job }, control, tried: Vec::new() };
    let judge = |split: &Split, made: &Made, tally: &mut Tally| {
        control.progress("Running the whole model", 0, 0);
        let reference = reference(&Job { split, ..job }, control)?;
        let before = reference.sums(&base, job.stats, control)?;
        tally.extend(before, reference.sums(&made.plan, job.stats, control)?);
        Ok::<(), Error>(())
    };
    let mut tally = Tally::default();
    let (made, learnt_from, tried, folds) = if job.options.deadline.is_some() || !job.split.is_held_back() {
        let mut search = search(job.split);
        let made = search.make_in_time(method, indices)?;
        if method != Method::Best {
            watch(&made.plan, &made.layers);
        }
        judge(job.split, &made, &mut tally)?;
        (made, job.split.calibration.len(), search.tried, 1)
    } else {
        let everything = Split { calibration: job.split.all(), held_back: Vec::new() };
        let folds =
            if cross_fits(&job) { Split::folds(&everything.calibration, FOLDS) } else { vec![job.split.clone()] };
        let mut gains: BTreeMap<String, Vec<Gain>> = BTreeMap::new();
        let mut known = None;
        // Every sample that judges, whichever plan it is held back from.
        let judging: Vec<(usize, usize)> = folds
            .iter()
            .enumerate()
            .flat_map(|(fold, split)| judges(split).into_iter().map(move |at| (fold, at)))
            .collect();
        let crossed = match folds.len() {
            1 => None,
            _ => Some(reference_on(&job, &judging.iter().map(|(_, at)| *at).collect::<Vec<_>>(), control)?),
        };
        let mut of_folds = Vec::new();
        for fold in &folds {
            let mut search = search(fold);
            let chosen = search.choose(method, indices)?;
            let made = search.make(&chosen, indices)?;
            if method != Method::Best && known.is_none() {
                watch(&made.plan, &made.layers);
            }
            match &crossed {
                Some(crossed) => {
                    control.progress("Running the whole model", 0, 0);
                    of_folds.push(crossed.sums(&made.plan, job.stats, control)?);
                }
                None => judge(fold, &made, &mut tally)?,
            }
            for layer in made.layers {
                gains.entry(layer.name).or_default().extend(layer.repair.held_back);
            }
            known = Some((chosen, search.tried));
        }
        let mut search = search(&everything);
        let (chosen, tried) = match known.filter(|_| folds.len() == 1) {
            Some(known) => known,
            None => (search.choose(method, indices)?, std::mem::take(&mut search.tried)),
        };
        let mut made = search.make(&chosen, indices)?;
        for layer in &mut made.layers {
            let held_back = mean(gains.get(&layer.name).map_or(&[], Vec::as_slice));
            layer.repair = Arc::new(LayerRepair { held_back, ..(*layer.repair).clone() });
            layer.put(&mut made.plan);
        }
        if let Some(crossed) = &crossed {
            control.progress("Running the whole model", 0, 0);
            let before = crossed.sums(&base, job.stats, control)?;
            let all = crossed.sums(&made.plan, job.stats, control)?;
            let fold_of: Vec<usize> = judging.iter().map(|(fold, _)| *fold).collect();
            tally = Tally::crossed(&before, &of_folds, &all, &fold_of);
        }
        (made, everything.calibration.len(), tried, folds.len())
    };
    let (gain, judged_on) = (tally.gain(), tally.samples());
    if let Some(gain) = gain.filter(|gain| (gain.high_db - gain.db).max(gain.db - gain.low_db) > WIDE_DB) {
        control.problem(known_roughly(gain, judged_on));
    }
    let (before, after) = (tally.before(), tally.after());
    let Made { plan, layers } = made;
    Ok(Outcome { plan, layers, before, after, gain, learnt_from, judged_on, folds, tried })
}

/// The plan with the layers called `indices` repaired from the samples that the job learns from; the whole model is not judged.
pub fn repaired(job: &Job<'_>, indices: &[usize], method: Method, control: &Control) -> Result<Plan, Error> {
    let base = rounded_to_nearest(job.plan, job.model, indices);
    let mut search = Search { job: Job { plan: &base, ..*job }, control, tried: Vec::new() };
    let chosen = search.choose(method, indices)?;
    Ok(search.make(&chosen, indices)?.plan)
}

/// Says that more samples would be needed to know the gain.
fn known_roughly(gain: GainSpread, samples: usize) -> Problem {
    Problem::new(
        Severity::Note,
        format!(
            "The samples do not tell the gain to 1 dB: {:.1} dB, between {:.1} and {:.1} on others like them",
            gain.db, gain.low_db, gain.high_db
        ),
        "",
        format!("The error at the output differs much between the {samples} samples, and a few make most of it"),
        "Give more samples, or judge by another output, such as scores in front of a softmax",
    )
}

/// Whether every sample is held back once, which takes a multiple of the time.
fn cross_fits(job: &Job<'_>) -> bool {
    let weights = job.model.layers.iter().flat_map(|layer| &layer.weights);
    let is_small = || weights.map(|weight| weight.layout.len()).sum::<usize>() <= CROSS_FIT_WEIGHTS;
    job.split.all().len() >= 2 * FOLDS && job.options.cross_fit.unwrap_or_else(is_small)
}

/// The original on the samples that `job` holds back, as far as they are judged on.
fn reference<'a>(job: &Job<'a>, control: &Control) -> Result<Reference<'a>, Error> {
    reference_on(job, &judges(job.split), control)
}

fn reference_on<'a>(job: &Job<'a>, samples: &[usize], control: &Control) -> Result<Reference<'a>, Error> {
    let output = job.model.judged_output();
    Reference::new(job.model, job.runtime, job.data, samples, output, job.options.threads, control)
}

/// The plan with the layers called `indices` rounded to nearest.
fn rounded_to_nearest(plan: &Plan, model: &Model, indices: &[usize]) -> Plan {
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

/// What several folds gave, as one figure.
fn mean(gains: &[Gain]) -> Option<Gain> {
    let of = |db: fn(&Gain) -> f64| gains.iter().map(db).sum::<f64>() / gains.len() as f64;
    (!gains.is_empty()).then(|| Gain { before_db: of(|gain| gain.before_db), after_db: of(|gain| gain.after_db) })
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

/// The layers of at most `bits` bits whose integers data can better, by name: something is seen of what enters them, and
/// they share their weights with no other layer, for which one repair would be another's damage, or a second copy.
pub fn learnable(job: &Job<'_>, bits: u32) -> BTreeSet<String> {
    let mut readers: BTreeMap<&str, usize> = BTreeMap::new();
    for weight in job.model.layers.iter().flat_map(|layer| &layer.weights) {
        *readers.entry(&weight.tensor).or_default() += 1;
    }
    let learns = |layer: &&Layer| {
        let shared = layer.weights.iter().any(|weight| readers.get(weight.tensor.as_str()).is_some_and(|&n| n > 1));
        let choice = job.choice(layer).filter(|choice| choice.precision.bits() <= bits && !shared);
        choice.is_some_and(|choice| job.tap(layer, &choice).is_some())
    };
    job.model.layers.iter().filter(learns).map(|layer| layer.name.clone()).collect()
}
