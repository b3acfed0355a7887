//! Where nothing much better than uniform int8 was found: every single change of it, tried, with what it does.

use std::time::Instant;

use nibble_core::error::Sqnr;
use nibble_core::export::{Form, layer_bytes, pick};
use nibble_core::plan::auto::Offer;
use nibble_core::plan::{Choice, Plan};
use nibble_core::predict::Reference;
use nibble_core::report::text;
use serde_json::{Value, json};

use super::search::{Point, Search};
use crate::cli::failure::Failure;
use crate::cli::inputs::Samples;

/// The plan that is changed.
const UNIFORM: &str = "int8";
/// A plan of at most this share of its size should lose at most so many dB, and one of its size gain at least so many.
const SMALLER: f64 = 0.65;
const MAY_LOSE_DB: f64 = 1.0;
const SHOULD_GAIN_DB: f64 = 2.0;
/// Most calibration samples that changes are tried on; fewer where all runs would take longer than so many seconds.
const MOST_SAMPLES: usize = 16;
const SECONDS: f64 = 90.0;
/// Changes shown on stderr, of each kind.
const SHOWN: usize = 5;

/// One layer of the uniform plan written otherwise.
struct Change<'a> {
    layer: &'a str,
    choice: Choice,
    bytes: i64,
    sqnr_db: Sqnr,
    /// Decibels gained.
    gain: f64,
}

/// Tries every single change where the search found no plan at 65 % of the size of uniform int8 within 1 dB of it, or none of its
/// size at least 2 dB better; null where it found both.
pub fn list(search: &Search<'_>, calibration: &Samples) -> Result<Value, Failure> {
    let measured = |point: &Point| Some((point.size_bytes as f64, point.measured.and_then(Sqnr::db)?));
    let Some(uniform) = search.points.iter().find(|point| point.name == UNIFORM) else { return Ok(Value::Null) };
    let Some((size, db)) = measured(uniform) else { return Ok(Value::Null) };
    let any = |most: f64, least: f64| search.points.iter().filter_map(measured).any(|(s, d)| s <= most && d >= least);
    let mut why = Vec::new();
    if !any(SMALLER * size, db - MAY_LOSE_DB) {
        why.push("no plan of at most 65 % of the size of uniform int8 within 1 dB of it was found");
    }
    if !any(size, db + SHOULD_GAIN_DB) {
        why.push("no plan of the size of uniform int8 at least 2 dB better was found");
    }
    if why.is_empty() {
        return Ok(Value::Null);
    }
    let console = search.console;
    let changes = wanted(search, &uniform.plan);
    let reference = |count: usize| {
        let count = count.min(calibration.indices.len());
        let chosen: Vec<usize> = (0..count)
            .filter_map(|i| calibration.indices.get(i * calibration.indices.len() / count))
            .copied()
            .collect();
        let Search { model, runtime, threads, .. } = *search;
        Reference::new(model, runtime, &calibration.set, &chosen, &search.known.output, threads, console.control())
            .map(|reference| (reference, chosen.len()))
    };
    let (mut on, mut samples) = reference(MOST_SAMPLES)?;
    let start = Instant::now();
    let mut base = on.measure(&uniform.plan, Some(search.stats), console.control())?;
    let seconds = start.elapsed().as_secs_f64() * changes.len() as f64;
    if seconds > SECONDS {
        (on, samples) = reference(((samples as f64 * SECONDS / seconds) as usize).max(1))?;
        base = on.measure(&uniform.plan, Some(search.stats), console.control())?;
    }
    let mut tried = Vec::new();
    for (at, (layer, choice, bytes)) in changes.iter().enumerate() {
        console.control().check()?;
        console.control().progress("Trying single changes of int8", at as u64, changes.len() as u64);
        let mut plan = uniform.plan.clone();
        plan.set_layer(layer, *choice);
        let sqnr_db = on.measure(&plan, Some(search.stats), console.control())?;
        let gain = sqnr_db.db().zip(base.db()).map_or(f64::NAN, |(own, base)| own - base);
        tried.push(Change { layer, choice: *choice, bytes: *bytes, sqnr_db, gain });
    }
    tried.sort_by(|a, b| b.gain.total_cmp(&a.gain));
    for why in &why {
        console.note(&format!(
            "{why}: all {} single changes of it were tried on {samples} calibration samples ({base}); see single_changes",
            tried.len()
        ));
    }
    let shown = |change: &Change<'_>| {
        console.message(&format!(
            "  {} {}: {:+.2} dB, {:+} bytes",
            change.layer,
            text::choice(&json!(change.choice)),
            change.gain,
            change.bytes
        ));
    };
    tried.iter().filter(|change| change.bytes <= 0).take(SHOWN).for_each(shown);
    tried.iter().filter(|change| change.bytes > 0).take(SHOWN).for_each(shown);
    let json = |change: &Change<'_>| {
        json!({
            "layer": change.layer,
            "choice": change.choice,
            "size_bytes_change": change.bytes,
            "measured_sqnr_db": change.sqnr_db,
            "gain_db": change.gain,
        })
    };
    Ok(json!({
        "why": why,
        "of": UNIFORM,
        "sqnr_db": base,
        "size_bytes": uniform.size_bytes,
        "samples": samples,
        "changes": tried.iter().map(json).collect::<Vec<_>>(),
    }))
}

/// What the layers that `plan` quantizes can be instead: layer, choice, and bytes more. Of a layer's candidates those are left
/// out that another beats in size and predicted error.
fn wanted<'a>(search: &Search<'a>, plan: &Plan) -> Vec<(&'a str, Choice, i64)> {
    let mut out = Vec::new();
    let market = search.market.picks.iter().zip(&search.market.offers);
    for (layer, (picks, offers)) in search.model.layers.iter().zip(market) {
        let now = pick(search.model, layer, plan.choice(&layer.name), Some(search.stats));
        if now.form == Form::Float {
            continue;
        }
        let bytes = layer_bytes(search.model, layer, &now) as i64;
        for (pick, own) in picks.iter().zip(offers) {
            let beats = |other: &Offer| {
                other.bytes <= own.bytes
                    && other.noise <= own.noise
                    && (other.bytes, other.noise) != (own.bytes, own.noise)
            };
            if (pick.form, pick.choice) != (now.form, now.choice) && !offers.iter().any(beats) {
                out.push((layer.name.as_str(), pick.choice, own.bytes as i64 - bytes));
            }
        }
    }
    out
}
