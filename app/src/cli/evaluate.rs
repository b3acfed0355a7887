//! `evaluate`: a model's task accuracy on labelled data.

use nibble_core::error::evaluate;
use nibble_core::model::Model;
use nibble_core::report::text;
use nibble_core::runtime::Source;
use serde_json::json;

use super::args::EvaluateArgs;
use super::console::{Console, problems_text};
use super::failure::Failure;
use super::inputs::{self, Samples};

/// Runs the verb.
pub fn run(args: &EvaluateArgs, console: &Console) -> Result<(), Failure> {
    let control = console.control();
    let model = Model::load(&args.model, control)?;
    let set = inputs::open(&args.eval, &model.inputs, &inputs::options(&args.input)?, console)?;
    let labels = inputs::labels(args.labels.as_deref(), &set)?.ok_or_else(|| {
        let hint = "Give the true classes with --labels, or a folder of pictures with one sub-folder a class";
        Failure::usage("accuracy needs labels", "--labels", hint)
    })?;
    let samples = Samples::limited(set, &args.input);
    let runtime = console.start_runtime()?;
    let source = Source::File(&args.model);
    let threads = args.threads.threads;
    let accuracy = evaluate(runtime, source, &samples.set, &samples.indices, &labels, threads, control)?;
    let problems = console.problems_with(&model.problems);
    let json = json!({
        "model": args.model,
        "accuracy": accuracy.accuracy,
        "samples": accuracy.samples,
        "correct": accuracy.correct,
        "problems": problems,
    });
    let share = text::percent(accuracy.accuracy);
    let text =
        format!("Accuracy  {share} ({} of {})\n{}", accuracy.correct, accuracy.samples, problems_text(&problems));
    console.result(&json, &text)
}
