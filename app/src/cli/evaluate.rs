//! `evaluate`: a model's task accuracy on labelled data, or the figure of a program of the person's own.

use nibble_core::Error;
use nibble_core::error::{MeasureError, OwnMetric, evaluate};
use nibble_core::model::Model;
use nibble_core::report::text;
use nibble_core::runtime::Source;
use serde_json::json;

use super::args::EvaluateArgs;
use super::console::{Console, problems_text};
use super::failure::Failure;
use super::inputs::{self, Samples};
use super::metric;

/// Runs the verb.
pub fn run(args: &EvaluateArgs, console: &Console) -> Result<(), Failure> {
    let control = console.control();
    let model = Model::load(&args.model, control)?;
    let set = inputs::open(&args.eval, &model.inputs, &inputs::options(&args.input)?, console)?;
    metric::only_accuracy(&args.metric)?;
    let labels = inputs::labels(args.labels.as_deref(), &set)?;
    if labels.is_none() && args.metric.metric_command.is_none() {
        let hint = "Give the true classes with --labels, a folder of pictures with one sub-folder a class, or a metric of \
            your own with --metric-command";
        return Err(Failure::usage("accuracy needs labels", "--labels", hint));
    }
    let samples = Samples::limited(set, &args.input)?;
    let runtime = console.start_runtime()?;
    let source = Source::File(&args.model);
    let threads = args.threads.threads;
    let Samples { set, indices } = &samples;
    let accuracy = match &labels {
        Some(labels) => match evaluate(runtime, source, set, indices, labels, threads, control) {
            // Labels of another kind, which the person's own metric knows how to read.
            Err(Error::Measure(error @ MeasureError::NotClasses { .. })) if args.metric.metric_command.is_some() => {
                control.problem(inputs::no_accuracy(&error));
                None
            }
            result => Some(result?),
        },
        None => None,
    };
    let own = match &args.metric.metric_command {
        Some(command) => {
            let labels = labels.as_deref();
            let mut own = OwnMetric::new(command, set, indices, labels, threads).map_err(Error::from)?;
            let value = own.score(runtime, source, control)?;
            json!({"name": "command", "command": command, "value": value})
        }
        None => {
            json!({"name": "accuracy", "value": accuracy.map(|found| found.accuracy), "reason": "there are labels"})
        }
    };
    let problems = console.problems_with(&model.problems);
    let json = json!({
        "model": args.model,
        "metric": own,
        "accuracy": accuracy.map(|found| found.accuracy),
        "samples": indices.len(),
        "correct": accuracy.map(|found| found.correct),
        "problems": problems,
    });
    let share = accuracy.map_or_else(String::new, |found| {
        format!("Accuracy  {} ({} of {})\n", text::percent(found.accuracy), found.correct, found.samples)
    });
    let own = args.metric.metric_command.as_ref().map_or_else(String::new, |_| format!("Metric    {}\n", own["value"]));
    console.result(&json, &format!("{share}{own}{}", problems_text(&problems)))
}
