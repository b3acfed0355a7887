//! What a plan will do to the model's output: what matters is learnt once, then every plan is judged without a run.

use std::sync::{Arc, Mutex, PoisonError};

use nibble_core::export::{Pick, pick};
use nibble_core::model::Model;
use nibble_core::plan::auto::{Market, front};
use nibble_core::plan::spare::Spared;
use nibble_core::plan::{PRESETS, Plan};
use nibble_core::predict::{GatherOptions, Part, Prediction, Reference, Sensitivity, gather, predict_parts};
use nibble_core::runtime::Runtime;
use nibble_core::stats::Stats;
use nibble_core::{Control, Error};

use super::data::Samples;
use super::{Failure, Message};
use crate::format;
use crate::views::calibrate::DataRequest;

/// Multiplications that learning may cost: some seconds.
const BUDGET: f64 = 1.5e10;
/// Samples with which a layer that gradients do not reach is tried.
const TRIAL_SAMPLES: usize = 8;
/// Points of the front that the chart shows.
const POINTS: usize = 40;
/// Presets that the chart shows beside the front.
const SHOWN_PRESETS: [&str; 6] =
    ["int8", "int8-dynamic", "int8-weights", "int4-weights", "int4-static", "float16-weights"];

/// What was learnt about a model.
pub struct Learnt {
    /// The statistics it was learnt with.
    pub stats: Arc<Stats>,
    /// How far each weight and each activation moves the output; it grows with every choice that is asked for.
    pub sensitivity: Mutex<Sensitivity>,
    /// The output that everything is about.
    pub output: String,
    /// Samples gone through.
    pub samples: usize,
    /// Σ y² of the output, a sample.
    pub signal: f64,
    /// Every layer's candidates with what each costs by itself.
    pub market: Market,
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
    /// The sum.
    pub prediction: Prediction,
    /// Every source: what it is, its layer's or tensor's name, its power a sample.
    pub sources: Vec<(Part, String, f64)>,
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
        let options = GatherOptions { budget: BUDGET, ..GatherOptions::default() };
        let (set, indices) = (&samples.data, samples.calibration.as_slice());
        let mut sensitivity = gather(model, runtime, set, indices, Some(stats), &options, control)?;
        if !sensitivity.unknown.is_empty() {
            let few = indices.get(..TRIAL_SAMPLES).unwrap_or(indices);
            let reference = Reference::new(model, runtime, set, few, &sensitivity.output, options.threads, control)?;
            sensitivity.measure_unknown(model, &reference, Some(stats), control)?;
        }
        control.progress("Pricing candidates", 0, 0);
        let market = Market::open(model, stats, &mut sensitivity);
        let mut points = Vec::new();
        for name in SHOWN_PRESETS {
            control.check()?;
            let Some(preset) = PRESETS.iter().find(|preset| preset.name == name) else { continue };
            let mut plan = model.preset_plan(preset)?;
            if preset.spares {
                plan.spare(spared);
            }
            let (prediction, _) = judge(&mut sensitivity, model, stats, &plan);
            points.push(Point { preset: Some(preset.name), plan: Arc::new(plan), prediction });
        }
        let combinations = front(&market.offers);
        let step = combinations.len().div_ceil(POINTS).max(1);
        let mut found = Vec::new();
        for combination in combinations.iter().step_by(step) {
            control.check()?;
            let plan = market.plan(model, combination);
            let (prediction, _) = judge(&mut sensitivity, model, stats, &plan);
            found.push(Point { preset: None, plan: Arc::new(plan), prediction });
        }
        points.extend(best(found));
        Ok(Box::new(Learnt {
            stats: Arc::clone(stats),
            output: sensitivity.output.clone(),
            samples: sensitivity.samples,
            signal: sensitivity.signal,
            sensitivity: Mutex::new(sensitivity),
            market,
            points,
        }))
    };
    Message::Learnt(run().map_err(Failure::from))
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

/// Judges one plan.
pub fn forecast(learnt: &Learnt, model: &Model, plan: Arc<Plan>) -> Message {
    let mut sensitivity = learnt.sensitivity.lock().unwrap_or_else(PoisonError::into_inner);
    let (prediction, sources) = judge(&mut sensitivity, model, &learnt.stats, &plan);
    Message::Forecast(Box::new(Forecast { plan, prediction, sources }))
}

fn judge(
    sensitivity: &mut Sensitivity,
    model: &Model,
    stats: &Stats,
    plan: &Plan,
) -> (Prediction, Vec<(Part, String, f64)>) {
    for layer in &model.layers {
        let Pick { choice, .. } = pick(model, layer, plan.choice(&layer.name), Some(stats));
        sensitivity.cover(model, layer, &[choice]);
    }
    let (prediction, parts) = predict_parts(sensitivity, model, Some(stats), plan);
    (prediction, parts.sources)
}
