//! `bench`: two models side by side in one run.

use std::ffi::OsString;
use std::path::Path;

use nibble_core::Error;
use nibble_core::bench::{Bench, BenchOptions, MemoryProbe, bench};
use nibble_core::data::DataKind;
use nibble_core::error::MeasureError;
use nibble_core::model::Model;
use nibble_core::report::{Row, Saved, text};
use nibble_core::runtime::Runtime;
use serde_json::{Value, json};

use super::args::{BenchArgs, InputArgs};
use super::console::{Console, problems_text, wrapped};
use super::failure::Failure;
use super::inputs::{self, RANDOM, Samples};
use super::metric;
use super::quantize::pair;
use super::table::Table;

/// Rows of the tables by operator and by layer that people see; the JSON has them all.
const SHOWN: usize = 12;

/// Runs the verb.
pub fn run(args: &BenchArgs, console: &Console) -> Result<(), Failure> {
    let model = Model::load(&args.original, console.control())?;
    let other = Model::load(&args.quantized, console.control())?;
    same_inputs(&model, &other)?;
    if args.data.is_none() && args.labels.is_some() {
        return Err(Failure::usage(
            "there are labels, but no data",
            "--labels",
            "Give the data that they label with --data",
        ));
    }
    let options = inputs::options(&args.input)?;
    let set = inputs::open(args.data.as_deref().unwrap_or(RANDOM), &model.inputs, &options, console)?;
    let labels = inputs::labels(args.labels.as_deref(), &set)?;
    if set.kind() == DataKind::Random {
        console.note("The inputs are random: latency is measured well on them, quality says little about real inputs");
    }
    let measurement = Measurement {
        original: &args.original,
        quantized: &args.quantized,
        samples: &Samples::limited(set, &args.input)?,
        labels: labels.as_deref(),
        seconds: args.seconds,
        input: &args.input,
        threads: args.threads.threads,
    };
    let bench = measurement.run(console)?;
    let mut json = to_json(&bench)?;
    json["metric"] = metric::headline(args.metric, &model, &bench.quality);
    let problems = console.problems_with(&model.problems);
    json["notes"] = json!(console.notes());
    json["problems"] = json!(problems);
    let row = Row::of(&Saved::new("", json.clone())).unwrap_or_default();
    let text =
        format!("{}{}{}{}", pair(&row), metric::line(&json["metric"]), operators(&bench), problems_text(&problems));
    console.result(&json, &text)
}

/// Refuses models that cannot run on the same samples.
pub fn same_inputs(model: &Model, other: &Model) -> Result<(), Failure> {
    let names = |model: &Model| model.inputs.iter().map(|port| port.name.clone()).collect::<Vec<_>>();
    if names(model) == names(other) {
        return Ok(());
    }
    let (original, quantized) = (names(model).join(", "), names(other).join(", "));
    let message = format!("the two models do not take the same inputs: {original}, and {quantized}");
    let hint = "Compare a model with its own quantized version";
    Err(Failure::new(message, other.file.path.display().to_string(), hint))
}

/// What is measured, and how.
pub struct Measurement<'a> {
    pub original: &'a Path,
    pub quantized: &'a Path,
    pub samples: &'a Samples,
    pub labels: Option<&'a [i64]>,
    pub seconds: f64,
    pub input: &'a InputArgs,
    pub threads: usize,
}

impl Measurement<'_> {
    /// Measures; peak memory in processes of their own.
    pub fn run(&self, console: &Console) -> Result<Bench, Failure> {
        let runtime = console.start_runtime()?;
        let options = BenchOptions {
            threads: self.threads,
            seconds: self.seconds.clamp(0.1, 3600.0),
            memory: self.probe(runtime),
            ..BenchOptions::default()
        };
        let Samples { set, indices } = self.samples;
        let control = console.control();
        let measure = |labels| bench(runtime, self.original, self.quantized, set, indices, labels, &options, control);
        match measure(self.labels) {
            Err(Error::Measure(error @ MeasureError::NotClasses { .. })) if self.labels.is_some() => {
                control.problem(inputs::no_accuracy(&error));
                Ok(measure(None)?)
            }
            result => Ok(result?),
        }
    }

    /// This program again, as `nibble __measure`.
    fn probe(&self, runtime: &Runtime) -> Option<MemoryProbe> {
        let mut args: Vec<OsString> = vec!["__measure".into(), "--json".into(), "--runtime".into()];
        args.push(runtime.library().into());
        args.extend(["--data".into(), self.samples.set.spec().into()]);
        args.extend(["--threads".into(), self.threads.to_string().into()]);
        args.extend(["--seed".into(), self.input.seed.to_string().into()]);
        args.extend(self.input.shape.iter().flat_map(|shape| ["--shape".into(), shape.into()]));
        args.extend(self.input.image.iter().flat_map(|image| ["--image".into(), image.into()]));
        Some(MemoryProbe { program: std::env::current_exe().ok()?, args })
    }
}

/// The result as JSON.
pub fn to_json(bench: &Bench) -> Result<Value, Failure> {
    serde_json::to_value(bench)
        .map_err(|error| Failure::new(error.to_string(), "", "This is a defect in Nibble: report it"))
}

/// Time by operator, and why the quantized model is slower; each after an empty line.
pub fn operators(bench: &Bench) -> String {
    let mut table = Table::new(&["Operator", "Nodes", "Original", "Nodes", "Quantized"], &[1, 2, 3, 4]);
    for op in bench.ops.iter().take(SHOWN) {
        let side = |nodes: usize, ms: f64| {
            if nodes == 0 { [String::new(), String::new()] } else { [format!("{nodes} ×"), text::milliseconds(ms)] }
        };
        let [a, b] = side(op.original_nodes, op.original_ms);
        let [c, d] = side(op.quantized_nodes, op.quantized_ms);
        table.row([op.op.clone(), a, b, c, d]);
    }
    let table = if bench.ops.is_empty() { String::new() } else { format!("\n{table}") };
    let why: String = bench.slower.iter().map(|line| wrapped(&format!("Slower: {line}"))).collect();
    if why.is_empty() { table } else { format!("{table}\n{why}") }
}
