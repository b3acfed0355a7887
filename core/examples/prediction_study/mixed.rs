//! Random mixtures of int4 and int8 weights, all of the same size.

use std::error::Error;

use nibble_core::export::{Pick, layer_bytes, predicted_size};
use nibble_core::plan::{Activation, Precision};
use nibble_core::predict::predict;

use super::Case;
use super::ranks::{Pair, Row};

/// Plans that teach first, and plans that are judged after.
const TAUGHT: usize = 8;
const JUDGED: usize = 40;
/// Draws for each plan: a layer that holds most of the weights makes most mixtures too large or too small.
const DRAWS: usize = 200;
/// All sizes lie within this share of each other.
const SAME_SIZE: f64 = 0.05;

/// With float activations, then with 8-bit ones in half of the layers that allow them.
pub fn study(case: &mut Case<'_>) -> Result<Vec<Row>, Box<dyn Error>> {
    let untaught = case.known.learnt.clone();
    let mut rows = Vec::new();
    for (what, share) in [("mixed int4 and int8 weights", 0.0), ("the same, half of the activations 8-bit", 0.5)] {
        case.known.learnt = untaught.clone();
        let (mut fresh, mut taught) = (Vec::new(), Vec::new());
        let (mut halves, mut calibration) = (Vec::new(), Vec::new());
        for (at, picks) in plans(case, share).iter().enumerate() {
            let plan = case.plan(picks);
            // Written down before the plan is run.
            let predicted = predict(&case.known, case.model, Some(case.stats), &plan);
            let trial = case.reference.trial(&plan, Some(case.stats), case.control)?;
            let measured = trial.quality.sqnr_db.db().filter(|db| db.is_finite());
            let (Some(expected), Some(db), Some(measured)) = (predicted.expected, predicted.sqnr_db.db(), measured)
            else {
                continue;
            };
            let half_width = predicted.high_db.map(|high| high - db);
            if at < TAUGHT {
                fresh.push(Pair { predicted: db, measured, half_width });
                case.known.learnt.add(expected, measured, trial.spread_db);
            } else {
                taught.push(Pair { predicted: db, measured, half_width });
                let half = |odd: usize| decibels(trial.sums.iter().skip(odd).step_by(2));
                halves.push(Pair { predicted: half(0), measured: half(1), half_width: None });
                let run = case.calibration.measure(&plan, Some(case.stats), case.control)?;
                calibration.extend(run.db().map(|predicted| Pair { predicted, measured, half_width: None }));
            }
        }
        rows.push(Row::of(case.name, &format!("{what}: the first plans"), &fresh));
        rows.push(Row::of(case.name, &format!("{what}: after these"), &taught));
        rows.push(Row::of(case.name, "these, run on calibration samples", &calibration));
        rows.push(Row::of(case.name, "these, one half of the evaluation samples against the other", &halves));
        rows.iter().rev().take(4).rev().for_each(|row| println!("{}", row.line()));
    }
    case.known.learnt = untaught;
    Ok(rows)
}

/// SQNR of the samples whose Σy² and Σ(y − ŷ)² these are.
fn decibels<'s>(sums: impl Iterator<Item = &'s (f64, f64)>) -> f64 {
    let (signal, noise) = sums.fold((0.0, 0.0), |sum, own| (sum.0 + own.0, sum.1 + own.1));
    10.0 * (signal / noise).log10()
}

/// Plans of the same size, or as many as were found.
fn plans(case: &Case<'_>, static_share: f64) -> Vec<Vec<Pick>> {
    let mut rng = fastrand::Rng::with_seed(7);
    let (mut plans, mut size) = (Vec::new(), None);
    for _ in 0..(TAUGHT + JUDGED) * DRAWS {
        let picks = random(case, &mut rng, static_share);
        let bytes = predicted_size(case.model, &case.plan(&picks)) as f64;
        if (bytes / *size.get_or_insert(bytes) - 1.0).abs() <= SAME_SIZE / 2.0 {
            plans.push(picks);
        }
        if plans.len() == TAUGHT + JUDGED {
            break;
        }
    }
    plans
}

/// Every layer at random among its candidates of one width; widths drawn until half of the bytes that they decide are gone.
fn random(case: &Case<'_>, rng: &mut fastrand::Rng, static_share: f64) -> Vec<Pick> {
    let of = |at: usize, precision: Precision, wants_static: bool| -> Vec<&Pick> {
        let fits = |pick: &&Pick| {
            pick.choice.precision == precision
                && pick.choice.is_static() == wants_static
                && (wants_static || pick.choice.activation == Activation::Float32)
        };
        case.candidates.get(at).into_iter().flatten().filter(fits).collect()
    };
    let bytes = |at: usize, pick: &Pick| layer_bytes(case.model, &case.model.layers[at], pick) as f64;
    let mut order: Vec<usize> = (0..case.model.layers.len()).collect();
    rng.shuffle(&mut order);
    let saving = |at: usize| -> f64 {
        let (four, eight) = (of(at, Precision::Int4, false), of(at, Precision::Int8, false));
        four.first().zip(eight.first()).map_or(0.0, |(four, eight)| bytes(at, eight) - bytes(at, four)).max(0.0)
    };
    let whole: f64 = order.iter().map(|&at| saving(at)).sum();
    let mut picks = case.float.clone();
    let mut saved = 0.0;
    for at in order {
        let own = saving(at);
        let four = own > 0.0 && saved + own / 2.0 <= whole / 2.0;
        saved += if four { own } else { 0.0 };
        let precision = if four { Precision::Int4 } else { Precision::Int8 };
        let mut choices = of(at, precision, rng.f64() < static_share);
        if choices.is_empty() {
            choices = of(at, precision, false);
        }
        if let Some(pick) = choices.get(rng.usize(..choices.len().max(1))) {
            picks[at] = (*pick).clone();
        }
    }
    picks
}
