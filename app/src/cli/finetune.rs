//! `finetune`: quantization-aware training of a plan's weights, judged on what is exported.

use std::path::{Path, PathBuf};

use nibble_core::data::DataSet;
use nibble_core::error::{CompareOptions, Quality};
use nibble_core::export::needs_calibration;
use nibble_core::finetune::{Ended, FinetuneOptions, Finetuned, Loss, Point, TrainingData, finetune, measure, split};
use nibble_core::model::Model;
use nibble_core::plan::{Plan, Rounding};
use nibble_core::problem::Severity;
use nibble_core::repair::{repairable, repaired};
use nibble_core::runtime::Runtime;
use nibble_core::stats::Stats;
use nibble_core::{Control, Error, Problem};
use serde_json::{Value, json};

use super::args::FinetuneArgs;
use super::console::{Console, problems_text};
use super::failure::Failure;
use super::inputs::{self, Judged, Samples};
use super::repair::Task;
use super::scaling::Words;
use super::table::Table;
use super::{calibrate, output, plan};

/// Runs the verb.
pub fn run(args: &FinetuneArgs, console: &Console) -> Result<(), Failure> {
    let control = console.control();
    let model = Model::load(&args.model, control)?;
    let sources = [
        ("--data", Some(output::file_of(&args.data))),
        ("--eval", args.eval.as_deref().map(output::file_of)),
        ("--stats", args.made.stats.as_deref()),
    ];
    output::check_apart(&args.made.output, &model.file, &sources)?;
    let repair = match args.repair.as_deref().map(Words::of).transpose()? {
        Some(Words { scaling: Some(_), .. }) => {
            let hint = "Scale with `nibble repair --method smoothquant` first, and give its plan with --plan";
            return Err(Failure::usage("training scales nothing", "--repair", hint));
        }
        words => words.and_then(|words| words.method),
    };
    let mut plan = plan::of(&args.made.plan, &model)?;
    let model = model.scaled(&plan)?.into_owned();
    let saved = args.made.stats.as_deref().map(|path| calibrate::load(path, &model)).transpose()?;
    let (training, judged, labels) = samples(args, &model, console)?;
    let runtime = console.start_runtime()?;
    let threads = args.made.threads.threads;
    let stats = match saved {
        None if needs_calibration(&plan, &model) => {
            let mut stats = Stats::new(model.identity.as_str(), args.made.input.seed);
            calibrate::gather(&model, runtime, &training, threads, &mut stats, console)?;
            Some(stats)
        }
        saved => saved,
    };
    if let Some(stats) = &stats {
        plan::spare(&mut plan, &args.made.plan, &model, stats, control)?;
    }
    let state = args.made.output.with_extension("finetune-state");
    if args.fresh && state.exists() {
        std::fs::remove_file(&state).map_err(|source| Error::Io { action: "remove", path: state.clone(), source })?;
    }
    let options = options(args, threads, &state);
    let data = TrainingData { set: &training.set, indices: &training.indices, labels: labels.as_deref() };
    let given = plan.clone();
    if let Some(method) = repair {
        let split = split(&data, &options);
        let task = Task { model: &model, runtime, samples: &training, split: &split, stats: stats.as_ref(), threads };
        let options = task.options(None, None, None);
        let job = task.job(&given, &options);
        let indices = repairable(&job, |_| true);
        plan = repaired(&job, &indices, method, control)?;
    } else if plan.repairs.values().any(|repair| !repair.data_free && repair.method != Rounding::Finetuned) {
        console.note(
            "The plan's repairs may have learnt from samples that are held back here, which flatters the start: \
             --repair refit makes them anew from the others",
        );
    }
    let mut watch = |point: &Point| {
        if let Some(line) = progress_line(point) {
            console.message(&line);
        }
    };
    let tuned = finetune(&model, runtime, stats.as_ref(), &plan, &data, &options, control, &mut watch)?;
    tuned.plan.save(&args.made.output)?;
    if tuned.ended == Ended::Cancelled {
        console.message(&format!(
            "The best state so far is in {}; the same command goes on from step {}",
            args.made.output.display(),
            tuned.steps
        ));
        return Err(Error::Cancelled.into());
    }
    say(&tuned, console);
    let judge = Judge { model: &model, runtime, stats: stats.as_ref(), threads, control };
    let held = Some((&*training.set, tuned.held_back.as_slice(), labels.as_deref()));
    let evaluated = Some((&*judged.samples.set, judged.samples.indices.as_slice(), judged.labels.as_deref()));
    let before = judge.json(&plan, evaluated, held, tuned.before.loss)?;
    let after = judge.json(&tuned.plan, evaluated, held, tuned.after.loss)?;
    let problems = console.problems_with(&model.problems);
    let json = json!({
        "model": args.model,
        "output": args.made.output,
        "loss": tuned.loss,
        "model_output": tuned.output,
        "steps": {
            "taken": tuned.steps,
            "planned": args.steps,
            "best": tuned.best_step,
            "ended": tuned.ended,
            "resumed": tuned.resumed,
            "curve": tuned.curve.iter().map(curve_point).collect::<Vec<_>>(),
        },
        "before": before,
        "after": after,
        "layers": tuned.trained,
        "untrained": tuned.untrained,
        "held_back": {"samples": tuned.held_back.len(), "trained_on": training.indices.len() - tuned.held_back.len().min(training.indices.len())},
        "evaluation": judged.to_json(),
        "seconds": tuned.seconds,
        "notes": console.notes(),
        "problems": problems,
    });
    let text = to_text(&json) + &problems_text(&problems);
    console.result(&json, &text)
}

/// What trains, what judges, and the labels of what trains.
fn samples(
    args: &FinetuneArgs,
    model: &Model,
    console: &Console,
) -> Result<(Samples, Judged, Option<Vec<i64>>), Failure> {
    let eval = super::args::EvalArgs {
        eval: args.eval.clone(),
        labels: if args.eval.is_some() { args.eval_labels.clone() } else { args.labels.clone() },
    };
    if args.eval_labels.is_some() && args.eval.is_none() {
        let hint = "Without --eval, --labels are those of --data and judge as well";
        return Err(Failure::usage("--eval-labels without --eval", "--eval-labels", hint));
    }
    let (training, judged) =
        inputs::calibration_and_evaluation(Some(&args.data), &eval, &args.made.input, &model.inputs, console)?;
    let Some(training) = training else {
        return Err(Failure::usage("there is no data to train on", "--data", "Give samples with --data"));
    };
    let labels = args.labels.as_deref().map(|given| training.set.labels(given).map_err(Error::from)).transpose()?;
    Ok((training, judged, labels))
}

fn options(args: &FinetuneArgs, threads: usize, state: &Path) -> FinetuneOptions {
    FinetuneOptions {
        steps: args.steps as usize,
        batch: args.batch as usize,
        learning_rate: args.learning_rate,
        loss: args.loss.map(|loss| match loss {
            super::args::LossArg::Distance => Loss::Distance,
            super::args::LossArg::Kl => Loss::Kl,
            super::args::LossArg::CrossEntropy => Loss::CrossEntropy,
        }),
        learns_scales: args.learn_scales,
        threads,
        seed: args.made.input.seed,
        state: Some(PathBuf::from(state)),
        ..FinetuneOptions::default()
    }
}

/// What is said where held-back samples were run.
fn progress_line(point: &Point) -> Option<String> {
    let held = point.held_back?;
    let loss = point.loss.map_or(String::new(), |loss| format!(" loss {loss:.4},"));
    let db = held.sqnr_db.map_or(String::new(), |db| format!(", {db:.2} dB"));
    let accuracy = held.accuracy.map_or(String::new(), |share| format!(", {:.2} %", share * 100.0));
    Some(format!("Step {}:{loss} held back {:.4}{db}{accuracy}", point.step, held.loss))
}

fn say(tuned: &Finetuned, console: &Console) {
    if tuned.resumed {
        console.note("Training went on from the state that an earlier run left");
    }
    if tuned.best_step == 0 && tuned.after == tuned.before {
        console.note("Training gained next to nothing on held-back samples: the plan is the one it began with");
    }
    if !tuned.untrained.is_empty() {
        let mut reasons: Vec<&str> = tuned.untrained.iter().map(|layer| layer.why.as_str()).collect();
        reasons.sort_unstable();
        reasons.dedup();
        for why in reasons {
            let names: Vec<&str> =
                tuned.untrained.iter().filter(|layer| layer.why == why).map(|layer| layer.layer.as_str()).collect();
            for name in names {
                console.control().problem(Problem::new(
                    Severity::Note,
                    "Not trained",
                    name,
                    why,
                    "Nothing: it is quantized as the plan says",
                ));
            }
        }
    }
}

fn curve_point(point: &Point) -> Value {
    json!({
        "step": point.step,
        "loss": point.loss,
        "held_back_loss": point.held_back.map(|held| held.loss),
        "held_back_sqnr_db": point.held_back.and_then(|held| held.sqnr_db),
        "held_back_accuracy": point.held_back.and_then(|held| held.accuracy),
        "learning_rate": point.learning_rate,
        "seconds": point.seconds,
    })
}

/// Samples to judge on, with labels of all rows.
type Data<'a> = Option<(&'a DataSet, &'a [usize], Option<&'a [i64]>)>;

struct Judge<'a> {
    model: &'a Model,
    runtime: &'a Runtime,
    stats: Option<&'a Stats>,
    threads: usize,
    control: &'a Control,
}

impl Judge<'_> {
    /// What the export of `plan` does on both kinds of samples.
    fn json(&self, plan: &Plan, evaluation: Data<'_>, held_back: Data<'_>, loss: f64) -> Result<Value, Failure> {
        let (evaluated, held) = (self.quality(plan, evaluation)?, self.quality(plan, held_back)?);
        Ok(json!({
            "sqnr_db": evaluated.sqnr_db,
            "top1_agreement": evaluated.top1_agreement,
            "accuracy": evaluated.accuracy,
            "held_back": {
                "loss": loss,
                "sqnr_db": held.sqnr_db,
                "top1_agreement": held.top1_agreement,
                "accuracy": held.accuracy,
            },
        }))
    }

    fn quality(&self, plan: &Plan, data: Data<'_>) -> Result<Quality, Failure> {
        let Some((set, indices, labels)) = data else { return Ok(Quality::default()) };
        let options = CompareOptions { threads: self.threads, ..CompareOptions::default() };
        let run =
            |labels| measure(self.model, self.runtime, self.stats, plan, set, indices, labels, &options, self.control);
        match run(labels) {
            // Labels that fit no output cost the accuracy, not the job.
            Err(Error::Measure(_)) if labels.is_some() => Ok(run(None)?),
            result => Ok(result?),
        }
    }
}

fn to_text(json: &Value) -> String {
    let db = |value: &Value| match value {
        Value::Number(number) => format!("{:.2} dB", number.as_f64().unwrap_or_default()),
        Value::String(word) => word.clone(),
        _ => "–".to_owned(),
    };
    let percent = |value: &Value| value.as_f64().map_or("–".to_owned(), |share| format!("{:.2} %", share * 100.0));
    let mut table = Table::new(&["", "Before", "After"], &[1, 2]);
    let mut row = |title: &str, cell: &dyn Fn(&Value) -> String| {
        table.row([title.to_owned(), cell(&json["before"]), cell(&json["after"])]);
    };
    row("SQNR, evaluation", &|side| db(&side["sqnr_db"]));
    row("SQNR, held back", &|side| db(&side["held_back"]["sqnr_db"]));
    row("Top-1 agreement", &|side| percent(&side["top1_agreement"]));
    if json["before"]["accuracy"].is_object() {
        row("Accuracy, evaluation", &|side| percent(&side["accuracy"]["quantized"]));
        row("Accuracy of the original", &|side| percent(&side["accuracy"]["original"]));
    }
    let steps = &json["steps"];
    let layers = json["layers"].as_array().map_or(0, Vec::len);
    format!(
        "{table}\n{layers} layers trained, {} steps in {:.1} s, the state of step {} was kept\n",
        steps["taken"],
        json["seconds"].as_f64().unwrap_or_default(),
        steps["best"]
    )
}
