//! `repair`: better integers for the layers of a plan, and `quantize --repair`, which does the same on the way.

mod at_once;

use std::time::{Duration, Instant};

use nibble_core::Problem;
use nibble_core::error::Sqnr;
use nibble_core::export::needs_calibration;
use nibble_core::model::Model;
use nibble_core::plan::{Pattern, Plan, PlanError};
use nibble_core::repair::{
    AtOnce, GainSpread, Job, Method, Outcome, RepairOptions, RepairedLayer, Split, Workbench, repair, repairable,
};
use nibble_core::runtime::Runtime;
use nibble_core::stats::Stats;
use serde_json::{Value, json};

use super::args::RepairArgs;
use super::console::{Console, problems_text};
use super::failure::Failure;
use super::inputs::{self, Samples};
use super::scaling::{Step, Words};
use super::table::Table;
use super::{calibrate, output, plan};
use crate::format::samples;

/// Runs the verb.
pub fn run(args: &RepairArgs, console: &Console) -> Result<(), Failure> {
    let started = Instant::now();
    let control = console.control();
    let model = Model::load(&args.model, control)?;
    let words = Words::of(&args.method)?;
    let wrong = |error: PlanError| Failure::from(nibble_core::Error::from(error)).into_usage();
    let patterns: Vec<Pattern> = args.layer.iter().map(|text| text.parse().map_err(wrong)).collect::<Result<_, _>>()?;
    let mut plan = plan::of(&args.made.plan, &model)?;
    let mut model = model.scaled(&plan)?.into_owned();
    let sources = [
        ("--data", Some(output::file_of(&args.data))),
        ("--stats", args.made.stats.as_deref()),
        ("--plan", args.made.plan.plan.as_deref()),
    ];
    output::check_apart(&args.made.output, &model.file, &sources)?;
    let set = inputs::open(&args.data, &model.inputs, &inputs::options(&args.made.input)?, console)?;
    let samples = Samples::limited(set, &args.made.input)?;
    let split = Split::of(&samples.indices);
    let runtime = console.start_runtime()?;
    let threads = args.made.threads.threads;
    let mut stats = match &args.made.stats {
        Some(path) => Some(calibrate::load(path, &model)?),
        None if words.learns() || needs_calibration(&plan, &model) => {
            let mut stats = Stats::new(model.identity.as_str(), args.made.input.seed);
            calibrate::gather(&model, runtime, &samples, threads, &mut stats, console)?;
            Some(stats)
        }
        None => None,
    };
    let wanted = |name: &str| patterns.is_empty() || patterns.iter().any(|pattern| pattern.matches(name));
    let mut scaled = Value::Null;
    if let Some(method) = words.scaling {
        let step =
            Step { args: &args.made.plan, runtime, samples: Some(&samples), threads, seed: args.made.input.seed };
        (model, stats, scaled) = step.run(model, &mut plan, stats, method, &wanted, console)?;
    }
    if let Some(stats) = &stats {
        plan::spare(&mut plan, &args.made.plan, &model, stats, control)?;
    }
    let Some(method) = words.method else {
        plan.save(&args.made.output)?;
        let problems = console.problems_with(&model.problems);
        let json = json!({
            "model": args.model, "output": args.made.output, "method": args.method, "layers": [], "scaling": scaled,
            "calibration": {"samples": samples.indices.len()}, "seconds": started.elapsed().as_secs_f64(),
            "notes": console.notes(), "problems": problems,
        });
        return console.result(&json, &problems_text(&problems));
    };
    let task = Task { model: &model, runtime, samples: &samples, split: &split, stats: stats.as_ref(), threads };
    let options = task.options(args.levels, args.seconds, args.cross_fit);
    if args.at_once {
        let (plan, layers) = task.at_once(&plan, method, &options, wanted, console)?;
        plan.save(&args.made.output)?;
        let problems = console.problems_with(&model.problems);
        let json = json!({
            "model": args.model, "output": args.made.output, "method": args.method, "scaling": scaled,
            "layers": layers.iter().map(at_once::to_json).collect::<Value>(),
            "calibration": {"samples": layers.iter().map(|layer| layer.learnt_from).max()},
            "seconds": started.elapsed().as_secs_f64(), "notes": console.notes(), "problems": problems,
        });
        return console.result(&json, &at_once::to_text(&layers, &problems));
    }
    let outcome = task.run(&plan, method, &options, wanted, console)?;
    outcome.plan.save(&args.made.output)?;
    let problems = console.problems_with(&model.problems);
    let mut json = to_json(&outcome, &split);
    json["model"] = json!(args.model);
    json["output"] = json!(args.made.output);
    json["scaling"] = scaled;
    json["method"] = json!(args.method);
    json["seconds"] = json!(started.elapsed().as_secs_f64());
    json["notes"] = json!(console.notes());
    json["problems"] = json!(problems);
    console.result(&json, &to_text(&outcome, &split, &problems))
}

/// What a repair works on.
pub struct Task<'a> {
    pub model: &'a Model,
    pub runtime: &'a Runtime,
    pub samples: &'a Samples,
    pub split: &'a Split,
    pub stats: Option<&'a Stats>,
    pub threads: usize,
}

impl Task<'_> {
    /// How to repair, from the flags.
    pub fn options(&self, levels: Option<u32>, seconds: Option<f64>, cross_fit: Option<bool>) -> RepairOptions {
        let deadline = seconds.and_then(|seconds| Instant::now().checked_add(Duration::from_secs_f64(seconds)));
        RepairOptions { threads: self.threads, levels, deadline, cross_fit, ..RepairOptions::default() }
    }

    /// Repairs the layers that `wanted` names.
    pub fn run(
        &self,
        plan: &Plan,
        method: Method,
        options: &RepairOptions,
        wanted: impl Fn(&str) -> bool,
        console: &Console,
    ) -> Result<Outcome, Failure> {
        let job = self.job(plan, options);
        let indices = named(&job, wanted)?;
        if !self.split.is_held_back() {
            console.note("There is one sample: it serves to learn and to judge, so the gain looks better than it is");
        }
        Ok(repair(&job, &indices, method, console.control())?)
    }

    /// Repairs each of them by itself, from a model held open.
    fn at_once(
        &self,
        plan: &Plan,
        method: Method,
        options: &RepairOptions,
        wanted: impl Fn(&str) -> bool,
        console: &Console,
    ) -> Result<(Plan, Vec<AtOnce>), Failure> {
        let job = self.job(plan, options);
        let (mut plan, mut layers) = (plan.clone(), Vec::new());
        let indices = named(&job, wanted)?;
        let mut bench = Workbench::open(&job, console.control())?;
        for index in indices {
            match bench.repair(&job, index, method, console.control())? {
                Some(repaired) => {
                    repaired.layer.put(&mut plan);
                    layers.push(repaired);
                }
                None => {
                    let name = job.model.layers.get(index).map_or("", |layer| layer.name.as_str());
                    console.note(&format!("{name}: {} does nothing for it by itself", method.word()));
                }
            }
        }
        Ok((plan, layers))
    }

    /// The same for whoever needs the job itself.
    pub fn job<'j>(&'j self, plan: &'j Plan, options: &'j RepairOptions) -> Job<'j> {
        Job {
            model: self.model,
            runtime: self.runtime,
            stats: self.stats,
            plan,
            data: &self.samples.set,
            split: self.split,
            options,
        }
    }
}

/// The layers with integers that `wanted` names, by index.
fn named(job: &Job<'_>, wanted: impl Fn(&str) -> bool) -> Result<Vec<usize>, Failure> {
    let indices = repairable(job, wanted);
    if indices.is_empty() {
        let hint = "Choose layers with integer weights in the plan; `nibble inspect` lists names";
        return Err(Failure::usage("no layer that is named has integer weights in the plan", "--layer", hint));
    }
    Ok(indices)
}

/// The layers of a result.
pub fn layers_json(layers: &[RepairedLayer]) -> Value {
    layers.iter().map(layer_json).collect()
}

fn layer_json(layer: &RepairedLayer) -> Value {
    json!({
        "name": layer.name,
        "method": layer.repair.method,
        "before_sqnr_db": layer.repair.held_back.map(|gain| gain.before_db),
        "after_sqnr_db": layer.repair.held_back.map(|gain| gain.after_db),
        "calibration": layer.calibration,
        "data_free": layer.repair.data_free,
        "bias": layer.repair.bias.is_some(),
        "seconds": layer.seconds,
    })
}

/// The whole outcome.
pub fn to_json(outcome: &Outcome, split: &Split) -> Value {
    let tried = |(what, sqnr): &(String, Sqnr)| json!({"what": what, "sqnr_db": sqnr});
    json!({
        "layers": layers_json(&outcome.layers),
        "calibration": {"samples": outcome.learnt_from},
        "held_back": {
            "samples": if outcome.folds > 1 { outcome.judged_on } else { split.held_back.len() },
            "folds": outcome.folds,
            "judged_on": outcome.judged_on,
            "before_sqnr_db": outcome.before,
            "after_sqnr_db": outcome.after,
            "gain_db": outcome.gain.map(|gain| gain.db),
            "gain_interval_db": outcome.gain.map(|gain| [gain.low_db, gain.high_db]),
        },
        "tried": outcome.tried.iter().map(tried).collect::<Vec<_>>(),
    })
}

fn to_text(outcome: &Outcome, split: &Split, problems: &[Problem]) -> String {
    let mut table = Table::new(&["Layer", "Repair", "Before", "After", "Data"], &[2, 3]);
    let db = |db: Option<f64>| db.map_or_else(|| "–".to_owned(), |db| format!("{db:.1} dB"));
    for layer in &outcome.layers {
        let gain = layer.repair.held_back;
        let data = if layer.repair.data_free { "none" } else { "calibration" };
        let cells = [
            layer.name.clone(),
            layer.repair.method.to_string(),
            db(gain.map(|gain| gain.before_db)),
            db(gain.map(|gain| gain.after_db)),
            data.to_owned(),
        ];
        table.row(cells);
    }
    let whole = |sqnr: Sqnr| sqnr.db().map_or_else(|| "unknown".to_owned(), |db| format!("{db:.1} dB"));
    let spread =
        |gain: GainSpread| format!(", a gain of {:.1} dB ({:.1} to {:.1})", gain.db, gain.low_db, gain.high_db);
    format!(
        "{table}\nOn {}: the model's output {} → {}{}\n{}",
        text_of(outcome, split),
        whole(outcome.before),
        whole(outcome.after),
        outcome.gain.map(spread).unwrap_or_default(),
        problems_text(problems)
    )
}

fn text_of(outcome: &Outcome, split: &Split) -> String {
    let what = match outcome.folds {
        2.. => "each held back once",
        _ if split.is_held_back() => "held back",
        _ => "learnt from",
    };
    format!("{} {what}", samples(outcome.judged_on))
}
