//! `auto`: the best plan under a budget, checked by running it.

use std::path::Path;

use nibble_core::error::Sqnr;
use nibble_core::export::predicted_size;
use nibble_core::model::Model;
use nibble_core::plan::auto::{Combination, Market, front};
use nibble_core::plan::{PRESETS, Plan};
use nibble_core::predict::{GatherOptions, Reference, Sensitivity, predict};
use nibble_core::report::text;
use nibble_core::runtime::Runtime;
use nibble_core::stats::Stats;
use nibble_core::{Error, Problem};
use serde_json::{Value, json};

use super::args::AutoArgs;
use super::console::{Console, problems_text};
use super::failure::Failure;
use super::inputs::{self, Samples};
use super::table::Table;
use super::{calibrate, output, sensitivity};

/// Runs of a whole quantized model, uniform plans included.
const EVALUATIONS: usize = 12;
/// Points of the front that the result lists.
const SHOWN: usize = 16;
/// A plan this close above the asked SQNR needs no further search, in dB.
const CLOSE: f64 = 0.15;

/// What is asked for.
enum Goal {
    Sqnr(f64),
    Size(u64),
}

/// One point of the chart.
struct Point {
    name: String,
    plan: Plan,
    predicted: Sqnr,
    measured: Option<Sqnr>,
    size_bytes: u64,
}

/// Runs the verb.
pub fn run(args: &AutoArgs, console: &Console) -> Result<(), Failure> {
    let control = console.control();
    output::check(&args.output)?;
    let model = Model::load(&args.model, control)?;
    let goal = goal(args, &model)?;
    let (calibration, judged) =
        inputs::calibration_and_evaluation(Some(&args.data), &args.eval, &args.input, &model.inputs, console)?;
    let Some(calibration) = calibration else {
        return Err(Failure::usage("there is no calibration data", "--data", "Give samples with --data"));
    };
    let runtime = Runtime::start(console.runtime(), control).map_err(Error::from)?;
    let threads = args.threads.threads;
    let mut stats = Stats::new(model.identity.as_str(), args.input.seed);
    calibrate::gather(&model, runtime, &calibration, threads, &mut stats, console)?;
    let options = GatherOptions { threads, seed: args.input.seed, ..GatherOptions::default() };
    let mut known = sensitivity::learn(&model, runtime, &calibration, Some(&stats), &options, console)?;
    control.progress("Pricing candidates", 0, 0);
    let market = Market::open(&model, &stats, &mut known);
    let combinations = front(&market.offers);
    let Samples { set, indices } = &judged.samples;
    let reference = Reference::new(&model, runtime, set, indices, &known.output, threads, control)?;
    let mut search = Search {
        model: &model,
        stats: &stats,
        known: &mut known,
        reference: &reference,
        market: &market,
        combinations: &combinations,
        console,
        evaluations: 0,
        points: Vec::new(),
    };
    search.uniform()?;
    let found = match goal {
        Goal::Sqnr(db) => search.least_size(db)?,
        Goal::Size(bytes) => search.least_noise(bytes)?,
    };
    search.rest_of_front();
    let (points, evaluations) = (search.points, search.evaluations);
    let chosen = &points[found];
    chosen.plan.save(&args.output)?;
    let problems = console.problems_with(&model.problems);
    let json = to_json(args, chosen, &points, evaluations, &judged.to_json(), console, &problems);
    let text = to_text(&json, &args.output) + &problems_text(&problems);
    console.result(&json, &text)
}

fn goal(args: &AutoArgs, model: &Model) -> Result<Goal, Failure> {
    match (args.min_sqnr, args.max_size.as_deref()) {
        (Some(db), None) => Ok(Goal::Sqnr(db)),
        (None, Some(size)) => {
            let bytes = match size.strip_suffix('%') {
                Some(percent) => percent.parse::<f64>().ok().map(|p| p / 100.0 * model.file.size_bytes as f64),
                None => size.parse::<f64>().ok(),
            };
            let bytes = bytes.filter(|bytes| bytes.is_finite() && *bytes > 0.0);
            let hint = "Write bytes, or a share of the original such as 40%";
            bytes
                .map(|bytes| Goal::Size(bytes as u64))
                .ok_or_else(|| Failure::usage(format!("cannot read the size {size:?}"), "--max-size", hint))
        }
        _ => Err(Failure::usage("there is no budget", "", "Give one of --min-sqnr DB and --max-size BYTES or N%")),
    }
}

struct Search<'a> {
    model: &'a Model,
    stats: &'a Stats,
    known: &'a mut Sensitivity,
    reference: &'a Reference<'a>,
    market: &'a Market,
    combinations: &'a [Combination],
    console: &'a Console,
    evaluations: usize,
    points: Vec<Point>,
}

impl Search<'_> {
    /// Predicts a plan, then measures it while evaluations are left; returns its place among the points.
    fn point(&mut self, name: &str, plan: Plan, measure: bool) -> Result<usize, Failure> {
        let same = |known: &Point| self.model.layers.iter().all(|l| known.plan.choice(&l.name) == plan.choice(&l.name));
        let place = match self.points.iter().position(same) {
            Some(place) => place,
            None => {
                sensitivity::cover(self.known, self.model, &plan, Some(self.stats));
                let prediction = predict(self.known, self.model, Some(self.stats), &plan);
                let predicted = if prediction.unknown.is_empty() { prediction.sqnr_db } else { Sqnr::Undefined };
                let size_bytes = prediction.size_bytes;
                self.points.push(Point { name: name.to_owned(), plan, predicted, measured: None, size_bytes });
                self.points.len() - 1
            }
        };
        if measure && self.points[place].measured.is_none() && self.evaluations < EVALUATIONS {
            let control = self.console.control();
            control.check()?;
            control.progress("Running quantized models", self.evaluations as u64, EVALUATIONS as u64);
            self.evaluations += 1;
            let measured = self.reference.measure(&self.points[place].plan, Some(self.stats), control);
            self.points[place].measured = match measured {
                Ok(sqnr) => Some(sqnr),
                Err(Error::Export(_)) => None,
                Err(error) => return Err(error.into()),
            };
        }
        Ok(place)
    }

    /// The presets, to stand in the same chart.
    fn uniform(&mut self) -> Result<(), Failure> {
        for preset in PRESETS
            .iter()
            .filter(|preset| ["int8", "int8-weights", "int4-static", "int4-weights"].contains(&preset.name))
        {
            let plan = self.model.preset_plan(preset)?;
            self.point(preset.name, plan, true)?;
        }
        Ok(())
    }

    /// The smallest plan whose measured SQNR is at least `db`.
    fn least_size(&mut self, db: f64) -> Result<usize, Failure> {
        let fits = |point: &Point| point.measured.and_then(Sqnr::db).is_some_and(|measured| measured >= db);
        let mut target = db;
        let mut tried = Vec::new();
        while self.evaluations < EVALUATIONS {
            let sqnr = |combination: &Combination| self.known.sqnr(combination.noise).db().unwrap_or(f64::NEG_INFINITY);
            let enough = self.combinations.iter().position(|combination| sqnr(combination) >= target);
            let at = enough.unwrap_or(self.combinations.len().saturating_sub(1));
            if tried.contains(&at) {
                break;
            }
            tried.push(at);
            let Some(combination) = self.combinations.get(at) else { break };
            let place = self.point("found", self.market.plan(self.model, combination), true)?;
            let Some(measured) = self.points[place].measured.and_then(Sqnr::db) else { break };
            let over = measured - db;
            if (0.0..CLOSE).contains(&over) {
                break;
            }
            // A plan that keeps the promise may leave room; one that breaks it asks for more than it lacked.
            target -= if over > 0.0 { 0.9 * over.min(20.0) } else { over - 0.05 };
        }
        let best =
            (0..self.points.len()).filter(|&at| fits(&self.points[at])).min_by_key(|&at| self.points[at].size_bytes);
        best.ok_or_else(|| {
            let reached = self
                .points
                .iter()
                .filter_map(|point| point.measured.and_then(Sqnr::db))
                .fold(f64::NEG_INFINITY, f64::max);
            let message =
                format!("no plan with at least {db} dB was found; the best that was measured has {reached:.2} dB");
            Failure::new(message, "--min-sqnr", "Ask for less")
        })
    }

    /// The plan of at most `bytes` with the least noise, by prediction; the best of those measured.
    fn least_noise(&mut self, bytes: u64) -> Result<usize, Failure> {
        let size = |at: usize| predicted_size(self.model, &self.market.plan(self.model, &self.combinations[at]));
        // Sizes grow along the front.
        let (mut low, mut high) = (0, self.combinations.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            if size(middle) <= bytes { low = middle + 1 } else { high = middle }
        }
        // The largest that fits, and a few smaller ones in case that measures better.
        for back in [1, 2, 4, 8] {
            if let Some(combination) = low.checked_sub(back).and_then(|at| self.combinations.get(at)) {
                self.point("found", self.market.plan(self.model, combination), true)?;
            }
        }
        let db = |at: usize| self.points[at].measured.and_then(Sqnr::db).unwrap_or(f64::NEG_INFINITY);
        let fitting = (0..self.points.len())
            .filter(|&at| self.points[at].size_bytes <= bytes && self.points[at].measured.is_some());
        fitting.max_by(|&a, &b| db(a).total_cmp(&db(b))).ok_or_else(|| {
            let least = self.points.iter().map(|point| point.size_bytes).min().unwrap_or_default();
            let message = format!("no plan of at most {bytes} bytes was found; the smallest takes about {least} bytes");
            Failure::new(message, "--max-size", "Allow more")
        })
    }

    /// Some points of the front that nobody measured.
    fn rest_of_front(&mut self) {
        let count = self.combinations.len();
        for at in (0..SHOWN.min(count)).map(|i| i * count.saturating_sub(1) / SHOWN.saturating_sub(1).max(1)) {
            if let Some(combination) = self.combinations.get(at) {
                let plan = self.market.plan(self.model, combination);
                // Without measuring nothing can fail.
                let _ = self.point("front", plan, false);
            }
        }
    }
}

#[allow(clippy::too_many_arguments)] // what the result is made of
fn to_json(
    args: &AutoArgs,
    chosen: &Point,
    points: &[Point],
    evaluations: usize,
    evaluation: &Value,
    console: &Console,
    problems: &[Problem],
) -> Value {
    let mut sorted: Vec<&Point> = points.iter().collect();
    sorted.sort_by_key(|point| point.size_bytes);
    // Latency is what `bench` measures; nothing here has been timed.
    let point = |point: &Point| {
        json!({
            "name": point.name,
            "size_bytes": point.size_bytes,
            "latency_ratio": Value::Null,
            "predicted_sqnr_db": point.predicted,
            "measured_sqnr_db": point.measured,
        })
    };
    json!({
        "model": args.model,
        "output": args.output,
        "plan": chosen.plan,
        "predicted": {"sqnr_db": chosen.predicted, "size_bytes": chosen.size_bytes},
        "measured": {"sqnr_db": chosen.measured},
        "evaluations": evaluations,
        "pareto": sorted.into_iter().map(point).collect::<Vec<_>>(),
        "evaluation": evaluation,
        "notes": console.notes(),
        "problems": problems,
    })
}

fn to_text(json: &Value, output: &Path) -> String {
    let db = |value: &Value| match value {
        Value::Number(number) => format!("{:.2} dB", number.as_f64().unwrap_or_default()),
        Value::String(word) => word.clone(),
        _ => "–".to_owned(),
    };
    let mut table = Table::new(&["Plan", "Size", "Predicted", "Measured"], &[1, 2, 3]);
    for point in json["pareto"].as_array().into_iter().flatten() {
        table.row([
            point["name"].as_str().unwrap_or_default().to_owned(),
            text::bytes(point["size_bytes"].as_u64().unwrap_or_default()),
            db(&point["predicted_sqnr_db"]),
            db(&point["measured_sqnr_db"]),
        ]);
    }
    let size = text::bytes(json["predicted"]["size_bytes"].as_u64().unwrap_or_default());
    let measured = db(&json["measured"]["sqnr_db"]);
    format!("{table}\nChosen: about {size}, {measured} measured → {}\n", output.display())
}
