//! The figure in front: which metric it is, why, and its value.

use nibble_core::error::{Metric, OwnMetric, Quality};
use nibble_core::model::Model;
use nibble_core::runtime::{Runtime, Source};
use serde_json::{Value, json};

use super::args::MetricArgs;
use super::console::Console;
use super::failure::Failure;
use super::inputs::Judged;

/// The metric asked for, or the one that fits, with the reason.
pub fn chosen(asked: Option<Metric>, model: &Model, output: &str, labelled: bool) -> (Metric, String) {
    match asked {
        Some(metric) => (metric, "asked for".to_owned()),
        None => Metric::suited(model, output, labelled),
    }
}

/// A figure as JSON: a number, `"identical"`, or null.
pub fn number(figure: Option<f64>) -> Value {
    match figure {
        Some(figure) if figure.is_infinite() => json!("identical"),
        figure => json!(figure),
    }
}

/// The figure of a comparison, as the result's `metric`.
pub fn headline(asked: Option<Metric>, model: &Model, quality: &Quality) -> Value {
    let (metric, reason) = chosen(asked, model, &quality.output, quality.accuracy.is_some());
    let figure = quality.figure(metric);
    let problem = figure.as_ref().err().cloned();
    json!({"name": metric.name(), "value": number(figure.ok()), "reason": reason, "problem": problem})
}

/// The figure of a program of the person's own, for a quantized model beside its original.
pub fn own(
    command: &str,
    runtime: &Runtime,
    [original, quantized]: [Source<'_>; 2],
    judged: &Judged,
    threads: usize,
    console: &Console,
) -> Result<Value, Failure> {
    let samples = &judged.samples;
    let labels = judged.labels.as_deref();
    let mut metric =
        OwnMetric::new(command, &samples.set, &samples.indices, labels, threads).map_err(nibble_core::Error::from)?;
    let original = metric.keep_original(runtime, original, console.control())?;
    let value = metric.score(runtime, quantized, console.control())?;
    Ok(json!({"name": "command", "command": command, "value": value, "original": original}))
}

/// Refuses metrics that compare two models, where there is one.
pub fn only_accuracy(args: &MetricArgs) -> Result<(), Failure> {
    match args.metric {
        None | Some(Metric::Accuracy) => Ok(()),
        Some(metric) => Err(Failure::usage(
            format!("{} compares a quantized model with its original, and there is one model only", metric.name()),
            "--metric",
            "Use quantize, bench or compare, or ask for accuracy",
        )),
    }
}

/// One line for people, with its end; nothing without a metric.
pub fn line(metric: &Value) -> String {
    let Some(name) = metric["name"].as_str() else { return String::new() };
    let figure = |value: &Value| match value {
        Value::Number(number) => format!("{:.4}", number.as_f64().unwrap_or_default()),
        Value::String(word) => word.clone(),
        _ => "–".to_owned(),
    };
    let value = figure(&metric["value"]);
    let unit = match name {
        "sqnr" => " dB",
        "kl" => " nats",
        _ => "",
    };
    let mut notes = Vec::new();
    notes.extend(metric["reason"].as_str().map(str::to_owned));
    notes.extend(metric["problem"].as_str().map(str::to_owned));
    if metric["original"].is_number() {
        notes.push(format!("the original has {}", figure(&metric["original"])));
    }
    let unit = if metric["value"].is_number() { unit } else { "" };
    format!("Judged by {name}: {value}{unit} ({})\n", notes.join("; "))
}
