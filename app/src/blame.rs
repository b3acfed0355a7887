//! An export that came out badly, said as problems: how bad, which layers are to blame, and a way out of each. Nothing
//! here is guessed: a layer is blamed, and a way out told, only after the model was run with it on some samples.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use nibble_core::data::DataSet;
use nibble_core::error::{CompareOptions, InMemory, Quality, accumulated, compare, isolated};
use nibble_core::export::{export, layer_pairs, pick};
use nibble_core::model::{Layer, Model};
use nibble_core::plan::{Choice, Plan, Set, preset};
use nibble_core::problem::Severity;
use nibble_core::runtime::{Runtime, Source};
use nibble_core::stats::Stats;
use nibble_core::{Control, Error, Problem};

use crate::format::{self, decibels};

/// SQNR below which a result is said to be poor, in dB.
const POOR_DB: f64 = 20.0;
/// SQNR below which it should not be used.
const UNUSABLE_DB: f64 = 10.0;
/// Loss of accuracy above which a result is said to be poor, in points.
const POOR_POINTS: f64 = 1.0;
/// Loss of accuracy above which it should not be used.
const UNUSABLE_POINTS: f64 = 5.0;
/// Most samples of a trial.
const SAMPLES: usize = 16;
/// Most layers tried.
const SUSPECTS: usize = 4;
/// Most layers named.
const NAMED: usize = 2;
/// Least gain that makes a layer guilty and a way out one, in dB.
const LEAST_GAIN_DB: f64 = 1.5;
/// Least share of the gain of float32 that a cheaper way out has to bring.
const LEAST_SHARE: f64 = 0.7;
/// When no further trial is begun.
const BUDGET: Duration = Duration::from_secs(45);

/// Ways out, the cheapest first: what `--set` takes, and what it is for people.
const WAYS_OUT: &[(&str, &str)] = &[
    ("granularity=per_channel", "one scale a channel"),
    ("activation_clip=percentile:99.99", "an activation range that leaves outliers out"),
    ("mode=dynamic", "dynamic mode"),
    ("precision=int8,granularity=per_channel", "int8 weights, one scale a channel"),
    ("mode=weight_only", "integer weights only"),
    ("precision=float16", "float16 weights"),
];

/// Presets to go to when no layer stands out.
const OTHER_PRESETS: &[&str] = &["int8", "int8-dynamic", "int8-weights"];

/// A problem, and the change that is the way out of it.
#[derive(Clone, Debug)]
pub struct Finding {
    /// What to tell.
    pub problem: Problem,
    /// What to set for the layer in the problem's place, and what that is for people.
    pub remedy: Option<(Set, &'static str)>,
}

/// An export to judge.
pub struct Case<'a> {
    /// The original.
    pub model: &'a Model,
    /// What calibration gathered.
    pub stats: Option<&'a Stats>,
    /// The plan that the export was made with.
    pub plan: &'a Plan,
    /// How it came out.
    pub quality: &'a Quality,
    /// Measured errors at layers' outputs in dB by layer name, where they are known already.
    pub accumulated: Option<&'a BTreeMap<String, f64>>,
    /// What runs it.
    pub runtime: &'a Runtime,
    /// The data to try on.
    pub data: &'a DataSet,
    /// Which of its samples; the first few are used.
    pub indices: &'a [usize],
    /// Threads of the runtime.
    pub threads: usize,
}

/// Says how poor a result is; empty when it is good enough.
fn complaint(quality: &Quality) -> (Severity, String) {
    let mut said = Vec::new();
    let mut severity = Severity::Note;
    if let Some(db) = quality.sqnr_db.db().filter(|db| *db < POOR_DB) {
        severity = severity.max(if db < UNUSABLE_DB { Severity::Serious } else { Severity::Warning });
        let at = if quality.output.is_empty() { String::new() } else { format!(" at {}", quality.output) };
        said.push(format!("SQNR of {}{at}", format::db(db)));
    }
    let lost = quality.accuracy.map_or(0.0, |accuracy| (accuracy.original - accuracy.quantized) * 100.0);
    if lost > POOR_POINTS {
        severity = severity.max(if lost > UNUSABLE_POINTS { Severity::Serious } else { Severity::Warning });
        said.push(format!("{lost:.1} points of accuracy are lost"));
    }
    (severity, said.join(", "))
}

/// What there is to say about the export; nothing when it is good.
pub fn judge(case: &Case<'_>, control: &Control) -> Result<Vec<Finding>, Error> {
    let (severity, said) = complaint(case.quality);
    if said.is_empty() {
        return Ok(Vec::new());
    }
    let repaired = case.model.repaired(case.plan)?;
    let case = &Case { model: &repaired, ..*case };
    let trials = Trials::new(case, control);
    let what = format!("The quantized model is poor: {said}");
    let whole =
        |why: String, fix: String| Finding { problem: Problem::new(severity, &what, "", why, fix), remedy: None };
    let Some(now) = trials.measure(case.plan) else {
        return Ok(vec![whole(String::new(), "Use more bits: int8 in place of int4, or float16".to_owned())]);
    };
    let measured = match case.accumulated {
        Some(known) => known.clone(),
        None => trials.accumulated(),
    };
    let mut tried: Vec<(&Layer, f64)> = Vec::new();
    for layer in suspects(case, &measured) {
        control.check()?;
        tried.extend(trials.with(layer, "precision=float32").map(|db| (layer, db)));
    }
    tried.sort_by(|a, b| b.1.total_cmp(&a.1));
    tried.truncate(NAMED);
    let guilty: Vec<_> = tried.iter().copied().filter(|(_, db)| *db >= now + LEAST_GAIN_DB).collect();
    let Some((worst, alone)) = guilty.first() else {
        let better = OTHER_PRESETS.iter().filter(|name| **name != case.plan.preset).find_map(|name| {
            let plan = preset(name).ok().and_then(|preset| case.model.preset_plan(preset).ok())?;
            let db = trials.measure(&plan).filter(|db| *db >= now + LEAST_GAIN_DB)?;
            Some(format!("The preset {name} gives {} on the same samples", format::db(db)))
        });
        let fix = better.unwrap_or_else(|| "Leave more layers in float16 or float32".to_owned());
        return Ok(vec![whole(spread(now, &tried), fix)]);
    };
    let why = format!(
        "Most of it comes from {}: left in float32 by itself it brings the SQNR from {} to {} ({})",
        worst.name,
        format::db(now),
        format::db(*alone),
        format::samples(trials.indices.len())
    );
    let mut findings = vec![whole(why, format!("Change {} as said below", worst.name))];
    for (layer, float) in guilty {
        control.check()?;
        findings.push(trials.finding(layer, now, float, &measured));
    }
    Ok(findings)
}

/// Why no layer is to blame by itself, with those that make most of the error and the SQNR in dB without each.
fn spread(now: f64, tried: &[(&Layer, f64)]) -> String {
    let mut why = "The error is spread: no single layer left in float32 mends it".to_owned();
    let most: Vec<_> =
        tried.iter().map(|(layer, db)| format!("{} ({} → {})", layer.name, format::db(now), format::db(*db))).collect();
    if !most.is_empty() {
        why += &format!(". Those that bring most: {}", most.join(" and "));
    }
    why
}

/// Layers that may be to blame, the likeliest first: at their output the measured error grows most, or their own
/// predicted error is large.
fn suspects<'a>(case: &Case<'a>, measured: &BTreeMap<String, f64>) -> Vec<&'a Layer> {
    let noise = |db: f64| 10.0_f64.powf(-db / 10.0);
    let mut before = 0.0_f64;
    let mut found: Vec<(f64, &Layer)> = Vec::new();
    for layer in &case.model.layers {
        let choice = pick(case.model, layer, case.plan.choice(&layer.name), case.stats).choice;
        let now = measured.get(&layer.name).filter(|db| !db.is_nan()).map(|db| noise(*db));
        let grown = now.map_or(0.0, |now| now - before);
        before = now.unwrap_or(before);
        if !layer.quantizable() || choice == Choice::FLOAT {
            continue;
        }
        let own = own_error(case, layer, &choice).map_or(0.0, |(both, ..)| noise(both));
        found.push((grown.max(own), layer));
    }
    found.sort_by(|a, b| b.0.total_cmp(&a.0));
    found.into_iter().take(SUSPECTS).map(|(_, layer)| layer).collect()
}

/// Predicted error at the layer's own output in dB: of both, of the weights, of the activations.
fn own_error(case: &Case<'_>, layer: &Layer, choice: &Choice) -> Option<(f64, f64, f64)> {
    let values = case.model.weight(layer, layer.weight()?).ok()?;
    let (rows, input) = case.stats.map(|s| (s.rows.get(&layer.name), s.tensors.get(&layer.input))).unwrap_or_default();
    let isolated = isolated(layer, &values, rows, input, choice);
    let weights = isolated.weights_db.db().or(isolated.weight_sqnr_db.db())?;
    Some((isolated.both_db.db().unwrap_or(weights), weights, decibels(isolated.activations_db)))
}

/// Runs changed plans on some samples.
struct Trials<'a> {
    case: &'a Case<'a>,
    control: &'a Control,
    indices: &'a [usize],
    began: Instant,
}

impl<'a> Trials<'a> {
    fn new(case: &'a Case<'a>, control: &'a Control) -> Self {
        let indices = &case.indices[..case.indices.len().min(SAMPLES)];
        Self { case, control, indices, began: Instant::now() }
    }

    /// Does `work` with a control of its own, cancelled with ours: what degrades in a trial concerns nobody.
    fn aside<T>(&self, work: impl FnOnce(&Control) -> Result<T, Error>) -> Option<T> {
        if self.began.elapsed() > BUDGET || self.control.is_cancelled() {
            return None;
        }
        self.control.progress("Looking for the layers to blame", 0, 0);
        let own = Control::new();
        let cancel = own.clone();
        let _guard = self.control.on_cancel(move || cancel.cancel());
        work(&own).ok()
    }

    /// SQNR in dB of an export of `plan`; `None` when it cannot be made or the time is up.
    fn measure(&self, plan: &Plan) -> Option<f64> {
        let Case { model, stats, runtime, data, threads, .. } = *self.case;
        let options = CompareOptions { threads, ..CompareOptions::default() };
        let quality = self.aside(|control| {
            let export = export(model, stats, plan, control)?;
            let quantized = Source::Proto { proto: &export.proto, folder: Some(model.file.folder()) };
            compare(runtime, Source::File(&model.file.path), quantized, data, self.indices, None, &options, control)
        })?;
        quality.sqnr_db.db()
    }

    /// SQNR with `keys` set for one layer.
    fn with(&self, layer: &Layer, keys: &str) -> Option<f64> {
        let mut plan = self.case.plan.clone();
        plan.set_layers([layer.name.as_str()], &keys.parse().ok()?);
        self.measure(&plan)
    }

    /// Measured errors at layers' outputs in dB.
    fn accumulated(&self) -> BTreeMap<String, f64> {
        let Case { model, stats, plan, runtime, data, threads, .. } = *self.case;
        let layers = self.aside(|control| {
            let export = export(model, stats, plan, control)?;
            let (pairs, folder) = (layer_pairs(model, &export.proto), Some(model.file.folder()));
            let (original, quantized) =
                (InMemory { proto: &model.graph, folder }, InMemory { proto: &export.proto, folder });
            accumulated(runtime, original, quantized, &pairs, data, self.indices, threads, control)
        });
        layers.into_iter().flatten().map(|layer| (layer.name, decibels(layer.sqnr_db))).collect()
    }

    /// What to tell of a guilty layer; left in float32 by itself, the model has `float` dB in place of `now`.
    fn finding(&self, layer: &Layer, now: f64, float: f64, measured: &BTreeMap<String, f64>) -> Finding {
        let case = self.case;
        let asked = case.plan.choice(&layer.name);
        let chosen = pick(case.model, layer, asked, case.stats).choice;
        let way_out = WAYS_OUT.iter().find_map(|&(keys, text)| {
            let set: Set = keys.parse().ok()?;
            let mut choice = asked;
            set.apply(&mut choice);
            let honoured = pick(case.model, layer, choice, case.stats).choice;
            // What the exporter turns into something else is no way out.
            if honoured == chosen || set.mode.is_some_and(|mode| mode != honoured.mode) {
                return None;
            }
            let db = self.with(layer, keys).filter(|db| db - now >= LEAST_SHARE * (float.min(99.0) - now))?;
            Some((set, keys, text, db))
        });
        let (set, keys, text, db) = way_out.unwrap_or((
            Set { precision: Some(nibble_core::plan::Precision::Float32), ..Set::default() },
            "precision=float32",
            "float32",
            float,
        ));
        let what = format!("This layer costs the model {:.1} dB", float.min(99.0) - now);
        let mut parts = Vec::new();
        if let Some((both, weights, activations)) = own_error(case, layer, &chosen) {
            let figures = [("both", both), ("weights only", weights), ("activations only", activations)];
            let figures = figures.iter().filter(|(_, db)| db.is_finite());
            let figures: Vec<_> = figures.map(|(part, db)| format!("{part} {}", format::db(*db))).collect();
            parts.push(format!("Isolated error (predicted): {}", figures.join(", ")));
        }
        if let Some(db) = measured.get(&layer.name).filter(|db| db.is_finite()) {
            parts.push(format!("accumulated error (measured): {}", format::db(*db)));
        }
        let fix = format!(
            "Choose {text}: SQNR {} → {} (measured on {}); --set '{}' {keys}",
            format::db(now),
            format::db(db),
            format::samples(self.indices.len()),
            layer.name
        );
        let problem = Problem::new(Severity::Warning, what, &layer.name, parts.join("; "), fix);
        Finding { problem, remedy: Some((set, text)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nibble_core::error::Sqnr;

    fn quality(db: f64) -> Quality {
        Quality { sqnr_db: Sqnr::Db(db), ..Quality::default() }
    }

    #[test]
    fn only_what_is_poor_is_complained_about() {
        assert!(complaint(&quality(20.5)).1.is_empty());
        assert_eq!(complaint(&quality(15.0)).0, Severity::Warning);
        assert_eq!(complaint(&quality(5.0)).0, Severity::Serious);
    }

    #[test]
    fn every_way_out_is_what_set_takes() {
        for (keys, _) in WAYS_OUT {
            assert!(keys.parse::<Set>().is_ok(), "{keys}");
        }
        for name in OTHER_PRESETS {
            assert!(preset(name).is_ok(), "{name}");
        }
    }
}
