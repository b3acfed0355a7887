//! What a plan will do to the model's output: what matters is learnt once, then every plan is judged without a run.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nibble_core::error::{Metric, Sqnr};
use nibble_core::export::{Pick, pick};
use nibble_core::model::{Layer, Model};
use nibble_core::plan::auto::{Market, front_watched};
use nibble_core::plan::spare::Spared;
use nibble_core::plan::{Choice, PRESETS, Plan};
use nibble_core::predict::{GatherOptions, LearnOptions, Noise, Outlook, Prediction, Predictor, Pricing, Reference};
use nibble_core::repair::{Split, judges};
use nibble_core::runtime::Runtime;
use nibble_core::stats::Stats;
use nibble_core::{Control, Error};

use super::data::Samples;
use super::{Failure, Message};
use crate::format;
use crate::heat::Heat;
use crate::views::calibrate::DataRequest;

/// Multiplications that learning may cost: some seconds.
const BUDGET: f64 = 1.5e10;
/// Parameters up to which the loudest choices are run as well; with more of them that takes tens of seconds, in which
/// nothing would be predicted yet.
const SMALL: u64 = 200_000;
/// Points of the front that the chart shows.
const POINTS: usize = 40;
/// Ranges of activations searched for in one frame; each takes some milliseconds.
const SEARCHES: usize = 2;
/// Presets that the chart shows beside the front.
const SHOWN_PRESETS: [&str; 6] =
    ["int8", "int8-dynamic", "int8-weights", "int4-weights", "int4-static", "float16-weights"];

/// What was learnt about a model.
pub struct Learnt {
    /// The statistics it was learnt with.
    pub stats: Arc<Stats>,
    /// What judges plans. Nobody holds it for longer than one prediction takes.
    predictor: Mutex<Predictor>,
    /// The output that everything is about.
    pub output: String,
    /// Samples gone through.
    pub samples: usize,
    /// Σ y² of the output, a sample.
    pub signal: f64,
    /// Every layer's candidates with what each does by itself.
    pub heat: Heat,
    /// Plans to choose from: presets, and the best combinations of candidates.
    pub points: Vec<Point>,
}

/// One plan of the chart.
pub struct Point {
    /// Name of the preset; `None` for a plan that was found.
    pub preset: Option<&'static str>,
    /// The plan.
    pub plan: Arc<Plan>,
    /// What it is expected to do.
    pub prediction: Prediction,
}

/// What one plan is expected to do, source by source.
pub struct Forecast {
    /// The plan.
    pub plan: Arc<Plan>,
    /// What it is expected to do, and from what.
    pub outlook: Outlook,
}

/// What learning starts from.
pub struct LearnRequest {
    /// The model.
    pub model: Arc<Model>,
    /// What calibration gathered.
    pub stats: Arc<Stats>,
    /// Layers that the preset int8 spares.
    pub spared: Vec<Spared>,
    /// The samples.
    pub data: DataRequest,
}

/// Goes through a few of the calibration samples, prices every candidate of every layer, and finds the best plans.
pub fn learn(request: &LearnRequest, runtime: &Runtime, control: &Control) -> Message {
    let LearnRequest { model, stats, spared, data } = request;
    let run = || -> Result<Box<Learnt>, Error> {
        let samples = Samples::open(model, data)?;
        // Of classifiers it is shown by how much the distributions of classes part, too.
        let divergence = Metric::suited(model, model.judged_output(), false).0 == Metric::Kl;
        let gather = GatherOptions { budget: BUDGET, divergence, ..GatherOptions::default() };
        let loudest = model.parameters() <= SMALL;
        let options = LearnOptions { gather, one_by_one: true, loudest };
        let (set, indices) = (&samples.data, samples.calibration.as_slice());
        let sensitivity = nibble_core::predict::learn(model, runtime, set, indices, Some(stats), &options, control)?;
        let (output, samples, signal) = (sensitivity.output.clone(), sensitivity.samples, sensitivity.signal);
        let mut predictor = Predictor::new(model, sensitivity);
        let market = Market::price(model, stats, &mut predictor, control)?;
        let heat = Heat::of(&market, &divergences(model, stats, &market, &predictor, control)?);
        predictor.forget_divergence();
        let mut judge = |plan: &Plan| {
            for layer in &model.layers {
                let honoured = pick(model, layer, plan.choice(&layer.name), Some(stats)).choice;
                predictor.cover(model, layer, &[honoured]);
            }
            predictor.predict(model, Some(stats), plan, usize::MAX).prediction
        };
        let mut points = Vec::new();
        for name in SHOWN_PRESETS {
            control.check()?;
            let Some(preset) = PRESETS.iter().find(|preset| preset.name == name) else { continue };
            let mut plan = model.preset_plan(preset)?;
            if preset.spares {
                plan.spare(spared);
            }
            // The chart is about the model as it stands.
            plan.scalings.clone_from(&model.scalings);
            let prediction = judge(&plan);
            points.push(Point { preset: Some(preset.name), plan: Arc::new(plan), prediction });
        }
        let combinations = front_watched(&market.offers, control)?;
        let step = combinations.len().div_ceil(POINTS).max(1);
        let mut found = Vec::new();
        for combination in combinations.iter().step_by(step) {
            control.check()?;
            let mut plan = market.plan(model, combination);
            plan.scalings.clone_from(&model.scalings);
            let prediction = judge(&plan);
            found.push(Point { preset: None, plan: Arc::new(plan), prediction });
        }
        points.extend(best(found));
        Ok(Box::new(Learnt {
            stats: Arc::clone(stats),
            output,
            samples,
            signal,
            heat,
            predictor: Mutex::new(predictor),
            points,
        }))
    };
    Message::Learnt(run().map_err(Failure::from))
}

/// By layer and candidate what each does to the distribution of classes by itself, in nats, where the output gives classes.
fn divergences(
    model: &Model,
    stats: &Stats,
    market: &Market,
    predictor: &Predictor,
    control: &Control,
) -> Result<Vec<Vec<Option<f64>>>, Error> {
    let float = |layer| pick(model, layer, Choice::FLOAT, Some(stats));
    let mut all: Vec<Pick> = model.layers.iter().map(float).collect();
    let mut found = Vec::new();
    for (at, picks) in market.picks.iter().enumerate() {
        control.check()?;
        let mut own = Vec::new();
        let kept = all.get(at).cloned();
        for pick in picks {
            if let Some(slot) = all.get_mut(at) {
                *slot = pick.clone();
            }
            own.push(predictor.divergence(model, Some(stats), &all));
        }
        if let (Some(slot), Some(kept)) = (all.get_mut(at), kept) {
            *slot = kept;
        }
        found.push(own);
    }
    Ok(found)
}

/// Runs a plan with repaired weights, of which slopes say nothing, on calibration samples; the quarter of them that a repair
/// here is judged on.
pub fn run_plan(request: &LearnRequest, plan: &Arc<Plan>, runtime: &Runtime, control: &Control) -> Message {
    let LearnRequest { model, stats, data, .. } = request;
    let run = || -> Result<(Arc<Plan>, Sqnr), Error> {
        let samples = Samples::open(model, data)?;
        let (judges, output) = (judges(&Split::of(&samples.calibration)), model.judged_output());
        let reference = Reference::new(model, runtime, &samples.data, &judges, output, 1, control)?;
        Ok((Arc::clone(plan), reference.measure(plan, Some(stats), control)?))
    };
    Message::PlanRun(run().map_err(Failure::from))
}

/// The points that no other beats in both size and error, the smallest first. The front is one of weight bytes; nodes and
/// scales add to them in the file, which shows on small models.
fn best(mut points: Vec<Point>) -> Vec<Point> {
    let error = |point: &Point| -format::decibels(point.prediction.sqnr_db);
    points.retain(|point| !error(point).is_nan());
    points.sort_by(|a, b| {
        let sizes = a.prediction.size_bytes.cmp(&b.prediction.size_bytes);
        sizes.then_with(|| error(a).total_cmp(&error(b)))
    });
    let mut least = f64::INFINITY;
    points.retain(|point| {
        let better = error(point) < least;
        least = least.min(error(point));
        better
    });
    points
}

impl Learnt {
    /// What `plan` is expected to do. Fast enough for a frame: choices that nobody has priced yet are estimated, and ranges of
    /// activations not searched for yet wait for the next call.
    pub fn forecast(&self, model: &Model, plan: Arc<Plan>) -> Forecast {
        let outlook = self.predictor().predict(model, Some(&self.stats), &plan, SEARCHES);
        Forecast { plan, outlook }
    }

    /// What it takes to price a choice for the weights of `layer` on another thread.
    pub fn pricing(&self, layer: &Layer) -> Option<Pricing> {
        self.predictor().pricing(layer)
    }

    /// Puts an exact figure in place of an estimate.
    pub fn price(&self, layer: &str, choice: &Choice, noise: Noise) {
        self.predictor().learn(layer, choice, noise);
    }

    /// Takes the SQNR in dB that a run gave of a plan with repaired weights.
    pub fn anchor(&self, model: &Model, plan: &Plan, measured_db: f64) {
        self.predictor().anchor(model, Some(&self.stats), plan, measured_db);
    }

    /// Forgets what runs said of repaired weights.
    pub fn forget_anchors(&self) {
        self.predictor().forget_anchors();
    }

    fn predictor(&self) -> MutexGuard<'_, Predictor> {
        self.predictor.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
