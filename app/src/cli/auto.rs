//! `auto`: the best plan under budgets, checked by running it.

mod budget;
mod changes;
mod held;
mod judge;
mod search;

use std::path::Path;

use nibble_core::model::Model;
use nibble_core::plan::auto::Market;
use nibble_core::predict::{GatherOptions, LatencyTable, LearnOptions, Reference, learn};
use nibble_core::report::text;
use nibble_core::runtime::Runtime;
use nibble_core::stats::Stats;
use nibble_core::{Error, Problem};
use serde_json::{Value, json};

use self::budget::Budgets;
use self::judge::Judge;
use self::search::{Point, Search};
use super::args::AutoArgs;
use super::console::{Console, problems_text};
use super::failure::Failure;
use super::inputs::{self, Samples};
use super::table::Table;
use super::{calibrate, metric, output};

/// Samples that are timed.
const TIMED_SAMPLES: usize = 4;

/// Runs the verb.
pub fn run(args: &AutoArgs, console: &Console) -> Result<(), Failure> {
    let control = console.control();
    output::check(&args.output)?;
    let model = Model::load(&args.model, control)?;
    let budgets = Budgets::of(args, &model)?;
    let (calibration, judged) =
        inputs::calibration_and_evaluation(Some(&args.data), &args.eval, &args.input, &model.inputs, console)?;
    let Some(calibration) = calibration else {
        return Err(Failure::usage("there is no calibration data", "--data", "Give samples with --data"));
    };
    let runtime = Runtime::start(console.runtime(), control).map_err(Error::from)?;
    let threads = args.threads.threads;
    let mut stats = Stats::new(model.identity.as_str(), args.input.seed);
    calibrate::gather(&model, runtime, &calibration, threads, &mut stats, console)?;
    let gather = GatherOptions { threads, seed: args.input.seed, ..GatherOptions::default() };
    let options = LearnOptions { gather, one_by_one: true, loudest: true };
    let (set, indices) = (&calibration.set, &calibration.indices);
    let mut known = learn(&model, runtime, set, indices, Some(&stats), &options, control)?;
    control.progress("Pricing candidates", 0, 0);
    let market = Market::open(&model, &stats, &mut known);
    let (judged, unseen) = held::part(judged, budgets.max_drop.is_some(), console);
    let judge = Judge::new(args, &model, &known.output, runtime, &judged, console)?;
    let Samples { set, indices } = &judged.samples;
    let reference = Reference::new(&model, runtime, set, indices, &known.output, threads, control)?;
    let timed = indices.iter().take(TIMED_SAMPLES).map(|&index| set.sample(index));
    let samples = timed.collect::<Result<Vec<_>, _>>().map_err(Error::from)?;
    let mut search = Search {
        model: &model,
        stats: &stats,
        runtime,
        known: &mut known,
        reference: &reference,
        market: &market,
        judge,
        budgets,
        samples,
        threads,
        console,
        table: LatencyTable::default(),
        candidates: Vec::new(),
        evaluations: 0,
        points: Vec::new(),
    };
    search.uniform()?;
    let ranked = search.run()?;
    let (found, confirmed) = match &unseen {
        Some(unseen) => held::confirm(&search, &ranked, unseen, args)?,
        None => (ranked[0], Value::Null),
    };
    search.rest_of_front();
    let changes = changes::list(&search, &calibration)?;
    let chosen = &search.points[found];
    chosen.plan.save(&args.output)?;
    let problems = console.problems_with(&model.problems);
    let mut json = to_json(args, chosen, &search, &judged.to_json(), &problems);
    json["measured"]["unseen"] = confirmed;
    json["single_changes"] = changes;
    let text = to_text(&json, &args.output) + &problems_text(&problems);
    console.result(&json, &text)
}

fn to_json(args: &AutoArgs, chosen: &Point, search: &Search<'_>, evaluation: &Value, problems: &[Problem]) -> Value {
    let mut sorted: Vec<&Point> = search.points.iter().collect();
    sorted.sort_by_key(|point| point.size_bytes);
    let point = |point: &Point| {
        let measured = point.measured_ratio.map(|ratio| ratio.p50);
        json!({
            "name": point.name,
            "size_bytes": point.size_bytes,
            "latency_ratio": measured.or(point.predicted_ratio),
            "predicted_latency_ratio": point.predicted_ratio,
            "measured_latency_ratio": point.measured_ratio,
            "predicted_sqnr_db": point.predicted,
            "predicted_interval_db": point.bounds,
            "measured_sqnr_db": point.measured,
            "measured_metric": metric::number(point.figure),
        })
    };
    json!({
        "model": args.model,
        "output": args.output,
        "plan": chosen.plan,
        "budgets": search.budgets.to_json(),
        "predicted": {
            "sqnr_db": chosen.predicted,
            "interval_db": chosen.bounds,
            "size_bytes": chosen.size_bytes,
            "latency_ratio": chosen.predicted_ratio,
        },
        "measured": {
            "sqnr_db": chosen.measured,
            "latency_ratio": chosen.measured_ratio,
            "metric": search.judge.to_json(chosen.figure),
        },
        "learnt": {"offset_db": search.known.learnt.mean_offset(), "plans": search.known.learnt.len()},
        "evaluations": search.evaluations,
        "pareto": sorted.into_iter().map(point).collect::<Vec<_>>(),
        "evaluation": evaluation,
        "notes": search.known.notes.iter().cloned().chain(search.console.notes()).collect::<Vec<_>>(),
        "problems": problems,
    })
}

fn to_text(json: &Value, output: &Path) -> String {
    let db = |value: &Value| match value {
        Value::Number(number) => format!("{:.2} dB", number.as_f64().unwrap_or_default()),
        Value::String(word) => word.clone(),
        _ => "–".to_owned(),
    };
    let ratio = |value: &Value| value.as_f64().map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2}"));
    let titles = ["Plan", "Size", "Latency predicted", "measured", "SQNR predicted", "measured"];
    let mut table = Table::new(&titles, &[1, 2, 3, 4, 5]);
    for point in json["pareto"].as_array().into_iter().flatten() {
        table.row([
            point["name"].as_str().unwrap_or_default().to_owned(),
            text::bytes(point["size_bytes"].as_u64().unwrap_or_default()),
            ratio(&point["predicted_latency_ratio"]),
            ratio(&point["measured_latency_ratio"]["p50"]),
            db(&point["predicted_sqnr_db"]),
            db(&point["measured_sqnr_db"]),
        ]);
    }
    let size = text::bytes(json["predicted"]["size_bytes"].as_u64().unwrap_or_default());
    let measured = &json["measured"];
    let judged = metric::line(&measured["metric"]);
    let drop = measured["metric"]["drop"].as_f64().filter(|_| !json["budgets"]["max_drop"].is_null());
    let drop = drop.map_or_else(String::new, |drop| format!("Drop measured: {drop:.3}\n"));
    format!(
        "{table}\n{judged}{drop}Chosen: about {size}, {} and a latency ratio of {} measured → {}\n",
        db(&measured["sqnr_db"]),
        ratio(&measured["latency_ratio"]["p50"]),
        output.display()
    )
}
