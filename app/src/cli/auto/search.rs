//! The search: predict plans, run a few, learn from what was measured, and keep what keeps the budgets.

use std::collections::BTreeSet;

use nibble_core::Error;
use nibble_core::bench::{LatencyRatio, profile, time_pair};
use nibble_core::data::Sample;
use nibble_core::error::Sqnr;
use nibble_core::export::{Pick, export, pick, predicted_size};
use nibble_core::model::Model;
use nibble_core::plan::auto::{Combination, Market};
use nibble_core::plan::{PRESETS, Plan};
use nibble_core::predict::{Expected, LatencyTable, Reference, Sensitivity, predict};
use nibble_core::runtime::{Runtime, Session, SessionOptions, Source};
use nibble_core::stats::Stats;

use super::budget::Budgets;
use super::judge::Judge;
use crate::cli::console::Console;
use crate::cli::failure::Failure;
use crate::cli::sensitivity;

/// Runs of a whole quantized model, uniform plans included.
const EVALUATIONS: usize = 12;
/// Of these the most that the search for the budgets leaves to plans that beat uniform ones.
const KEPT_BACK: usize = 3;
/// Uniform plans that others should beat in size and error without being slower, and by how much these may be slower.
const BEATEN: [&str; 2] = ["int8", "int8-weights"];
const AS_FAST: f64 = 1.05;
/// Predicted latencies are held to a little less: timings scatter.
const MARGIN: f64 = 0.98;
/// Plans tried for each of them.
const TRIES: usize = 2;
/// Combinations weighed, times the number of layers, and the most of a small model.
const WEIGHED: usize = 100_000;
const MOST_WEIGHED: usize = 8000;
/// Points of the front that the result lists.
const SHOWN: usize = 16;
/// A plan this close above the asked SQNR needs no further search, and a gain below this none either, in dB.
const CLOSE_DB: f64 = 0.15;
/// Plans on both sides of a drop this near to each other need no further search, in dB.
const NEAR_DB: f64 = 0.75;
/// Where the search for a drop begins, and how far it goes at once, in dB.
const FIRST_DB: f64 = 20.0;
const STEP_DB: f64 = 6.0;
/// Prices of a millisecond that are tried, as shares of the price at which all bytes cost as much as all time.
const PRICES: [f64; 5] = [0.0, 0.1, 0.5, 2.0, 20.0];
/// Layers that need not run on integers in plans that otherwise do.
const FREE: [usize; 5] = [0, 1, 2, 4, 8];
/// Seconds for which each plan is timed.
const SECONDS: f64 = 0.5;

/// One point of the chart.
pub struct Point {
    pub name: String,
    pub plan: Plan,
    /// The sum of noise powers alone.
    pub expected: Option<Expected>,
    /// What was expected when this was written down, before any run of it: the sum with the offset learnt until then.
    pub predicted: Sqnr,
    /// Between which figures the measured one was expected then.
    pub bounds: Option<[f64; 2]>,
    pub measured: Option<Sqnr>,
    /// The measured figure of the metric.
    pub figure: Option<f64>,
    pub size_bytes: u64,
    pub predicted_ratio: Option<f64>,
    pub measured_ratio: Option<LatencyRatio>,
}

/// A combination with what the sum says of it, cross terms of measured errors included.
pub struct Candidate {
    pub combination: Combination,
    pub expected: Option<Expected>,
}

/// All that a search works with.
pub struct Search<'a> {
    pub model: &'a Model,
    pub stats: &'a Stats,
    pub runtime: &'a Runtime,
    pub known: &'a mut Sensitivity,
    pub reference: &'a Reference<'a>,
    pub market: &'a Market,
    pub judge: Judge<'a>,
    pub budgets: Budgets,
    pub samples: Vec<Sample>,
    pub threads: usize,
    pub console: &'a Console,
    pub table: LatencyTable,
    pub candidates: Vec<Candidate>,
    pub evaluations: usize,
    pub points: Vec<Point>,
}

impl Search<'_> {
    /// Profiles the original and runs the presets, which stand in the same chart and teach offset and latencies.
    pub fn uniform(&mut self) -> Result<(), Failure> {
        let source = Source::File(&self.model.file.path);
        let control = self.console.control();
        let nodes = profile(self.runtime, source, "original", &self.samples, self.threads, control)?;
        self.table = LatencyTable::new(nodes, self.stats);
        for name in ["int8", "int8-weights", "int4-static", "int4-weights"] {
            if let Some(preset) = PRESETS.iter().find(|preset| preset.name == name) {
                let plan = self.model.preset_plan(preset)?;
                self.point(name, plan, true)?;
            }
        }
        Ok(())
    }

    /// The plans that keep the budgets: the smallest first where quality has a floor, else the most exact. Their places among
    /// the points; every budget has been measured on them.
    pub fn run(&mut self) -> Result<Vec<usize>, Failure> {
        self.fronts()?;
        let mut tried: Vec<Vec<usize>> = Vec::new();
        let mut ratio_target = self.budgets.max_latency;
        let mut nudge = 0.0;
        while self.evaluations < EVALUATIONS - KEPT_BACK {
            let Some(floor) = self.floor(nudge) else { break };
            let Some(combination) = self.choose(floor, ratio_target, &tried) else { break };
            tried.push(combination.chosen.clone());
            let place = self.point("found", self.market.plan(self.model, &combination), true)?;
            let point = &self.points[place];
            let Some(measured) = point.measured.and_then(Sqnr::db) else { continue };
            if let (Some(most), Some(found), Some(target)) =
                (self.budgets.max_latency, point.measured_ratio, ratio_target.as_mut())
                && found.p50 > most
            {
                *target = (*target * most / found.p50).min(*target - 0.005);
                continue;
            }
            match self.budgets.min_sqnr.map(|db| measured - db) {
                Some(over) if self.budgets.max_drop.is_none() && (0.0..CLOSE_DB).contains(&over) => break,
                Some(over) if over < 0.0 => nudge += 0.05,
                _ => {}
            }
        }
        for name in BEATEN {
            self.beat(name)?;
        }
        self.ranked()
    }

    /// Looks for a plan that is no larger and no slower than a uniform one, and more exact.
    fn beat(&mut self, name: &str) -> Result<(), Failure> {
        let Some(point) = self.points.iter().find(|point| point.name == name) else { return Ok(()) };
        let (size, Some(db), Some(ratio)) = (point.size_bytes, point.measured.and_then(Sqnr::db), point.measured_ratio)
        else {
            return Ok(());
        };
        let most = ratio.p50 * AS_FAST;
        let beats = |point: &Point| {
            let fast = point.measured_ratio.is_some_and(|ratio| ratio.p50 <= most);
            point.size_bytes <= size && fast && point.measured.and_then(Sqnr::db).is_some_and(|own| own > db)
        };
        let mut target = most * MARGIN;
        for _ in 0..TRIES {
            if self.evaluations >= EVALUATIONS || self.points.iter().any(beats) {
                break;
            }
            let mut order: Vec<(f64, &Candidate)> =
                self.candidates.iter().map(|known| (self.corrected(known), known)).collect();
            order.sort_by(|a, b| b.0.total_cmp(&a.0));
            let fits = |(expected, candidate): &&(f64, &Candidate)| {
                let plan = || self.market.plan(self.model, &candidate.combination);
                let is_new = |plan: &Plan| {
                    let known = self.points.iter().filter(|point| point.measured.is_some());
                    !known.into_iter().any(|point| self.is_same(&point.plan, plan))
                };
                *expected > db + CLOSE_DB
                    && candidate.combination.bytes <= size
                    && self
                        .table
                        .ratio(self.model, &self.market.picks(&candidate.combination))
                        .is_some_and(|ratio| ratio <= target)
                    && predicted_size(self.model, &plan()) <= size
                    && is_new(&plan())
            };
            let Some((_, candidate)) = order.iter().find(fits) else { break };
            let plan = self.market.plan(self.model, &candidate.combination);
            let place = self.point(&format!("instead of {name}"), plan, true)?;
            if let Some(found) = self.points[place].measured_ratio.filter(|found| found.p50 > most) {
                target *= most / found.p50;
            }
        }
        Ok(())
    }

    fn is_same(&self, a: &Plan, b: &Plan) -> bool {
        self.model.layers.iter().all(|layer| a.choice(&layer.name) == b.choice(&layer.name))
    }

    /// The least SQNR to look for next; `None` when enough is known.
    fn floor(&self, nudge: f64) -> Option<f64> {
        let least = self.budgets.min_sqnr.map_or(f64::NEG_INFINITY, |db| db + nudge);
        let Some(most) = self.budgets.max_drop else { return Some(least) };
        let (mut fails, mut holds) = (f64::NEG_INFINITY, f64::INFINITY);
        for point in &self.points {
            let Some(db) = point.measured.and_then(Sqnr::db) else { continue };
            match point.figure.and_then(|figure| self.judge.drop(figure)) {
                Some(drop) if drop <= most => holds = holds.min(db),
                _ => fails = fails.max(db),
            }
        }
        let next = match (fails.is_finite(), holds.is_finite()) {
            (true, true) if holds - fails > NEAR_DB => f64::midpoint(fails, holds),
            // A task's score does not fall evenly with the noise: what failed at more decibels may hold at fewer.
            (true, true) if self.points.iter().filter(|point| point.name == "found").count() > 0 => return None,
            (true, true) => holds,
            (true, false) => fails + STEP_DB,
            (false, true) => holds - STEP_DB,
            (false, false) => FIRST_DB,
        };
        Some(next.max(least))
    }

    /// The fronts of all prices of time, together, with what is expected of each combination.
    fn fronts(&mut self) -> Result<(), Failure> {
        let latency =
            |layer: &nibble_core::model::Layer, pick: &Pick| self.table.layer_ms(&layer.name, &layer.op, pick);
        let bytes: u64 = self.model.layers.iter().map(|layer| layer.parameters * 4).sum();
        let times = self.model.layers.iter().zip(&self.market.picks);
        let spread = |(layer, picks): (&nibble_core::model::Layer, &Vec<Pick>)| {
            let each = picks.iter().map(|pick| latency(layer, pick));
            let (low, high) = each.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), t| (low.min(t), high.max(t)));
            (high - low).max(0.0)
        };
        let time: f64 = times.map(spread).sum();
        let per_ms = if time > 0.0 { bytes as f64 / time } else { 0.0 };
        let fronts = PRICES.iter().filter(|price| **price == 0.0 || per_ms > 0.0);
        let mut all: Vec<Combination> =
            fronts.flat_map(|price| self.market.front(self.model, price * per_ms, latency)).collect();
        all.extend(FREE.into_iter().flat_map(|free| self.market.integer_front(free)));
        let mut seen = BTreeSet::new();
        all.retain(|combination| seen.insert(combination.chosen.clone()));
        let most = (WEIGHED / self.model.layers.len().max(1)).clamp(1, MOST_WEIGHED);
        let step = all.len().div_ceil(most).max(1);
        let control = self.console.control();
        for (at, combination) in all.into_iter().step_by(step).enumerate() {
            control.check()?;
            control.progress("Predicting combinations", at as u64, most as u64);
            let parts = self.known.parts(self.model, &self.market.picks(&combination), Some(self.stats));
            let expected = self.known.expected(&parts);
            self.candidates.push(Candidate { combination, expected });
        }
        Ok(())
    }

    /// The next combination to run: of those not tried that are expected to keep all budgets, the smallest where quality has
    /// a floor, else the most exact.
    fn choose(&self, floor: f64, ratio: Option<f64>, tried: &[Vec<usize>]) -> Option<Combination> {
        let mut order: Vec<(f64, &Combination)> =
            self.candidates.iter().map(|known| (self.corrected(known), &known.combination)).collect();
        if self.budgets.has_floor() {
            order.sort_by(|a, b| a.1.bytes.cmp(&b.1.bytes).then(b.0.total_cmp(&a.0)));
        } else {
            order.sort_by(|a, b| b.0.total_cmp(&a.0));
        }
        let best = self.ranked().ok().and_then(|ranked| Some(&self.points[*ranked.first()?]));
        let fits = |(expected, combination): &&(f64, &Combination)| {
            let expected = *expected;
            // What promises no more than what is there already is not worth a run.
            let promises = || {
                best.is_none_or(|best| {
                    if self.budgets.has_floor() {
                        predicted_size(self.model, &self.market.plan(self.model, combination)) < best.size_bytes
                    } else {
                        best.measured.and_then(Sqnr::db).is_none_or(|measured| expected > measured + CLOSE_DB)
                    }
                })
            };
            // The layers alone are too large already.
            let too_large = self.budgets.max_size.is_some_and(|most| combination.bytes > most);
            expected >= floor
                && !too_large
                && promises()
                && !tried.contains(&combination.chosen)
                && self
                    .budgets
                    .max_size
                    .is_none_or(|most| predicted_size(self.model, &self.market.plan(self.model, combination)) <= most)
                && ratio.is_none_or(|most| {
                    let picks = self.market.picks(combination);
                    self.table.ratio(self.model, &picks).is_none_or(|ratio| ratio <= most)
                })
        };
        order.iter().find(fits).map(|(_, combination)| (*combination).clone())
    }

    /// Predicts a plan, then measures it while evaluations are left; returns its place among the points.
    fn point(&mut self, name: &str, plan: Plan, measure: bool) -> Result<usize, Failure> {
        let known = self.points.iter().position(|known| self.is_same(&known.plan, &plan));
        let place = known.unwrap_or_else(|| {
            let point = self.expect(name, plan);
            self.points.push(point);
            self.points.len() - 1
        });
        if measure && self.points[place].measured.is_none() && self.evaluations < EVALUATIONS {
            self.measure(place)?;
        }
        Ok(place)
    }

    fn picks(&self, plan: &Plan) -> Vec<Pick> {
        let layers = self.model.layers.iter();
        layers.map(|layer| pick(self.model, layer, plan.choice(&layer.name), Some(self.stats))).collect()
    }

    fn expect(&mut self, name: &str, plan: Plan) -> Point {
        sensitivity::cover(self.known, self.model, &plan, Some(self.stats));
        let prediction = predict(self.known, self.model, Some(self.stats), &plan);
        let predicted = if prediction.unknown.is_empty() { prediction.sqnr_db } else { Sqnr::Undefined };
        Point {
            name: name.to_owned(),
            predicted,
            bounds: prediction.low_db.zip(prediction.high_db).map(|(low, high)| [low, high]),
            expected: prediction.expected,
            measured: None,
            figure: None,
            size_bytes: prediction.size_bytes,
            predicted_ratio: self.table.ratio(self.model, &self.picks(&plan)),
            measured_ratio: None,
            plan,
        }
    }

    /// The SQNR in dB that a combination promises, by all that was measured so far.
    fn corrected(&self, candidate: &Candidate) -> f64 {
        match candidate.expected {
            Some(expected) => expected.sum_db + self.known.learnt.offset(expected),
            // Nothing is rounded, or nothing is known of it, which no combination offers.
            None => f64::INFINITY,
        }
    }

    /// Runs a plan: quality, the metric, latency; learns from them.
    fn measure(&mut self, place: usize) -> Result<(), Failure> {
        let control = self.console.control();
        control.check()?;
        control.progress("Running quantized models", self.evaluations as u64, EVALUATIONS as u64);
        self.evaluations += 1;
        let plan = self.points[place].plan.clone();
        let proto = match export(self.model, Some(self.stats), &plan, control) {
            Ok(export) => export.proto,
            Err(Error::Export(_)) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let trial = self.reference.tried(&proto, control)?;
        let quality = trial.quality;
        let figure = self.judge.measure(self.model, &proto, &quality, self.console)?;
        let original = Source::File(&self.model.file.path);
        let quantized = Source::Proto { proto: &proto, folder: Some(self.model.file.folder()) };
        let options = SessionOptions { threads: self.threads, ..SessionOptions::default() };
        let open = || {
            let open = |source| Session::open(self.runtime, source, &options);
            Ok([open(original)?, open(quantized)?])
        };
        let timing = time_pair(open, &self.samples, self.threads, SECONDS, control)?;
        let nodes = profile(self.runtime, quantized, "quantized", &self.samples, self.threads, control)?;
        let picks = self.picks(&plan);
        self.table.learn(self.model, &picks, &nodes);
        self.table.learn_ratio(self.model, &picks, timing.ratio().p50);
        let point = &mut self.points[place];
        if let (Some(expected), Some(measured)) = (point.expected, quality.sqnr_db.db()) {
            self.known.learnt.add(expected, measured, trial.spread_db);
        }
        point.measured = Some(quality.sqnr_db);
        point.figure = figure;
        point.measured_ratio = Some(timing.ratio());
        Ok(())
    }

    /// Those measured that keep every budget, the best first; else which budget nothing keeps.
    fn ranked(&self) -> Result<Vec<usize>, Failure> {
        let keeps = |at: &usize| self.keeps(&self.points[*at]).iter().all(|(_, keeps)| *keeps);
        let mut fitting: Vec<usize> = (0..self.points.len()).filter(keeps).collect();
        let better = |a: &usize, b: &usize| {
            let (a, b) = (&self.points[*a], &self.points[*b]);
            let sqnr = |point: &Point| point.measured.and_then(Sqnr::db).unwrap_or(f64::NEG_INFINITY);
            if self.budgets.has_floor() {
                return b.size_bytes.cmp(&a.size_bytes).then(sqnr(a).total_cmp(&sqnr(b)));
            }
            let gain = match (a.figure, b.figure) {
                (Some(a), Some(b)) if a.is_finite() || b.is_finite() => self.judge.gain(a, b),
                _ => 0.0,
            };
            gain.total_cmp(&0.0).then(sqnr(a).total_cmp(&sqnr(b))).then(b.size_bytes.cmp(&a.size_bytes))
        };
        fitting.sort_by(|a, b| better(b, a));
        if fitting.is_empty() { Err(self.nothing()) } else { Ok(fitting) }
    }

    /// Whether a point keeps each budget that was given.
    fn keeps(&self, point: &Point) -> Vec<(&'static str, bool)> {
        let Budgets { min_sqnr, max_size, max_latency, max_drop } = self.budgets;
        let mut out = vec![("", point.measured.is_some())];
        let sqnr = point.measured.map_or(f64::NEG_INFINITY, |sqnr| sqnr.db().unwrap_or(f64::NEG_INFINITY));
        out.extend(min_sqnr.map(|least| ("--min-sqnr", point.measured == Some(Sqnr::Identical) || sqnr >= least)));
        out.extend(max_size.map(|most| ("--max-size", point.size_bytes <= most)));
        let ratio = point.measured_ratio.map_or(f64::INFINITY, |ratio| ratio.p50);
        out.extend(max_latency.map(|most| ("--max-latency", ratio <= most)));
        let drop = point.figure.and_then(|figure| self.judge.drop(figure)).unwrap_or(f64::INFINITY);
        out.extend(max_drop.map(|most| ("--max-drop", drop <= most + 1e-9)));
        out
    }

    /// Says which budget no measured plan keeps, and how near the best came.
    fn nothing(&self) -> Failure {
        let measured = || self.points.iter().filter(|point| point.measured.is_some());
        let fold = |figures: &mut dyn Iterator<Item = f64>| figures.fold(f64::INFINITY, f64::min);
        let kept = |flag: &str| measured().any(|point| self.keeps(point).contains(&(flag, true)));
        let (flag, message) = if let Some(db) = self.budgets.min_sqnr.filter(|_| !kept("--min-sqnr")) {
            let reached = -fold(&mut measured().filter_map(|point| point.measured?.db()).map(|db| -db));
            (
                "--min-sqnr",
                format!("no plan with at least {db} dB was found; the best that was measured has {reached:.2} dB"),
            )
        } else if let Some(most) = self.budgets.max_drop.filter(|_| !kept("--max-drop")) {
            let least = fold(&mut measured().filter_map(|point| self.judge.drop(point.figure?)));
            let original = "the guarantee cannot be given";
            (
                "--max-drop",
                format!(
                    "no plan that drops by at most {most} was found; the least drop measured is {least:.3}: {original}"
                ),
            )
        } else if let Some(most) = self.budgets.max_size.filter(|_| !kept("--max-size")) {
            let least = self.points.iter().map(|point| point.size_bytes).min().unwrap_or_default();
            ("--max-size", format!("no plan of at most {most} bytes was found; the smallest takes about {least} bytes"))
        } else if let Some(most) = self.budgets.max_latency.filter(|_| !kept("--max-latency")) {
            let least = fold(&mut measured().filter_map(|point| Some(point.measured_ratio?.p50)));
            (
                "--max-latency",
                format!(
                    "no plan with a latency ratio of at most {most} was found; the fastest measured has {least:.3}"
                ),
            )
        } else {
            ("", "each budget can be kept, but no plan that was found keeps all of them".to_owned())
        };
        Failure::new(message, flag, "Ask for less")
    }

    /// Some points of the front that nobody measured.
    pub fn rest_of_front(&mut self) {
        let front = self.market.front(self.model, 0.0, |_, _| 0.0);
        let count = front.len();
        for at in (0..SHOWN.min(count)).map(|i| i * count.saturating_sub(1) / SHOWN.saturating_sub(1).max(1)) {
            if let Some(combination) = front.get(at) {
                let plan = self.market.plan(self.model, combination);
                // Without measuring nothing can fail.
                let _ = self.point("front", plan, false);
            }
        }
    }
}
