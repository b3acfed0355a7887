//! `demo`: the whole job, on the bundled sample or on a model of the person's own.

use std::path::{Path, PathBuf};

use nibble_core::bench::{Bench, measured_layers, settle};
use nibble_core::model::Model;
use nibble_core::report::{self, Saved};
use serde_json::{Value, json};

use super::args::{DemoArgs, EvalArgs, MetricArgs, QuantizeRepairArgs};
use super::bench::{self, Measurement};
use super::console::{Console, wrapped};
use super::failure::Failure;
use super::quantize::{self, Job};
use super::sample;

/// Where the report and the quantized model go, under the current folder.
const FOLDER: &str = "nibble-report";
/// Random inputs for a model without data: enough to calibrate, and a third to judge with.
const RANDOM: &str = "random:24";
/// How long the two models are timed.
const SECONDS: f64 = 3.0;

/// Runs the verb.
pub fn run(args: &DemoArgs, console: &Console) -> Result<(), Failure> {
    let bundled;
    let (model, data, eval): (&Path, String, EvalArgs) = match &args.model {
        Some(model) => (model, args.data.clone().unwrap_or_else(|| RANDOM.to_owned()), args.eval.clone()),
        None => {
            bundled = sample::bundled()?;
            let text = |path: &Path| path.display().to_string();
            let eval = EvalArgs { eval: Some(text(&bundled.eval)), labels: Some(text(&bundled.labels)) };
            (&bundled.model, text(&bundled.data), eval)
        }
    };
    let folder = PathBuf::from(FOLDER);
    std::fs::create_dir_all(&folder).map_err(|source| nibble_core::Error::Io {
        action: "make the report's folder",
        path: folder.clone(),
        source,
    })?;
    let preset = args.plan.preset.as_deref().unwrap_or(if args.plan.plan.is_some() { "plan" } else { "int8" });
    let stem = model.file_stem().unwrap_or_default().to_string_lossy();
    let output = folder.join(format!("{stem}.{preset}.onnx"));
    let job = Job {
        model,
        data: Some(&data),
        stats: None,
        output: &output,
        plan: &args.plan,
        eval: &eval,
        metric: &MetricArgs::default(),
        input: &args.input,
        threads: args.threads.threads,
        repair: &QuantizeRepairArgs::default(),
    };
    let done = job.run(console).inspect_err(|_| {
        // Only an empty folder goes.
        let _ = std::fs::remove_dir(&folder);
    })?;
    let measurement = Measurement {
        original: model,
        quantized: &output,
        samples: &done.judged.samples,
        labels: done.judged.labels.as_deref(),
        seconds: SECONDS,
        input: &args.input,
        threads: args.threads.threads,
    };
    let bench = measurement.run(console)?;
    let mut json = done.json;
    merge(&mut json, bench::to_json(&bench)?);
    let settled = add_measured(&mut json, &done.model, &bench);
    let mut notes = console.notes();
    notes.extend(settled.clone());
    json["notes"] = json!(notes);
    let files = report::write(&[Saved::new(stem.as_ref(), json.clone())], &folder)?;
    let page = files.iter().find(|file| file.extension().is_some_and(|e| e == "html")).cloned();
    json["report"] = json!(page);
    json["files"] = json!(files);
    let problems = console.problems_with(&done.problems);
    json["problems"] = json!(problems);
    let page = page.map(|page| format!("\nReport: {}\n", page.display())).unwrap_or_default();
    let settled = settled.map(|text| format!("\n{}", wrapped(&text))).unwrap_or_default();
    console.result(&json, &(quantize::to_text(&json, &problems) + &settled + &bench::operators(&bench) + &page))
}

/// Puts the measured times beside the expectations, and says where these were wrong.
fn add_measured(json: &mut Value, model: &Model, bench: &Bench) -> Option<String> {
    let measured = measured_layers(model, &bench.nodes);
    let mut expected = Vec::new();
    for layer in json["layers"].as_array_mut().into_iter().flatten() {
        let name = layer["name"].as_str().unwrap_or_default().to_owned();
        layer["measured"] = json!(measured.get(&name));
        if layer["verdict"] == "faster" {
            expected.push(name);
        }
    }
    settle(expected.iter().map(String::as_str), &measured)
}

/// Adds the fields of `bench` that `quantize` does not have already.
fn merge(json: &mut Value, bench: Value) {
    if let (Some(into), Value::Object(from)) = (json.as_object_mut(), bench) {
        for (key, value) in from {
            into.entry(if key == "layers" { "layer_times".to_owned() } else { key }).or_insert(value);
        }
    }
}
