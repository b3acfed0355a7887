//! What the search judges quantized models by, beside SQNR.

use nibble_core::Error;
use nibble_core::error::{Metric, OutputQuality, OwnMetric, evaluate};
use nibble_core::model::Model;
use nibble_core::onnx::proto::ModelProto;
use nibble_core::runtime::{Runtime, Source};
use serde_json::{Value, json};

use crate::cli::args::AutoArgs;
use crate::cli::console::Console;
use crate::cli::failure::Failure;
use crate::cli::inputs::Judged;
use crate::cli::metric;

/// The metric with what it needs.
pub struct Judge<'a> {
    kind: Kind<'a>,
    reason: String,
    /// The original's own figure.
    original: f64,
    runtime: &'a Runtime,
    judged: &'a Judged,
    threads: usize,
}

enum Kind<'a> {
    /// From the two models' outputs.
    Output(Metric),
    /// From the labels.
    Accuracy(&'a [i64]),
    /// From a program.
    Own(Box<OwnMetric<'a>>, String),
}

impl<'a> Judge<'a> {
    /// The metric that was asked for; else accuracy for a drop where there are labels, and SQNR otherwise.
    pub fn new(
        args: &AutoArgs,
        model: &Model,
        output: &str,
        runtime: &'a Runtime,
        judged: &'a Judged,
        console: &Console,
    ) -> Result<Self, Failure> {
        let (threads, control) = (args.threads.threads, console.control());
        let (set, indices) = (&judged.samples.set, &judged.samples.indices);
        let source = Source::File(&model.file.path);
        if let Some(command) = &args.metric.metric_command {
            let labels = judged.labels.as_deref();
            let mut own = OwnMetric::new(command, set, indices, labels, threads).map_err(Error::from)?;
            let original = own.keep_original(runtime, source, control)?;
            let kind = Kind::Own(Box::new(own), command.clone());
            return Ok(Self { kind, reason: "asked for".to_owned(), original, runtime, judged, threads });
        }
        let (metric, reason) = match (args.metric.metric, args.max_drop) {
            (Some(metric), _) => (metric, "asked for".to_owned()),
            (None, Some(_)) => Metric::suited(model, output, judged.labels.is_some()),
            (None, None) => (Metric::Sqnr, "the default where no drop is bounded".to_owned()),
        };
        if metric == Metric::Sqnr && args.max_drop.is_some() {
            let hint = "Give labels with --labels, another --metric, or bound decibels with --min-sqnr";
            return Err(Failure::usage(format!("a drop is not counted in decibels ({reason})"), "--max-drop", hint));
        }
        let (kind, original) = match (metric, &judged.labels) {
            (Metric::Accuracy, Some(labels)) => {
                let original = evaluate(runtime, source, set, indices, labels, threads, control)?;
                (Kind::Accuracy(labels), original.accuracy)
            }
            (Metric::Accuracy, None) => {
                return Err(Failure::usage("accuracy needs labels", "--labels", "Give the true classes with --labels"));
            }
            (Metric::Kl, _) => (Kind::Output(metric), 0.0),
            (metric, _) => (Kind::Output(metric), 1.0),
        };
        Ok(Self { kind, reason, original, runtime, judged, threads })
    }

    /// The figure of a quantized model; `None` where it has none, with new values that are not finite for example.
    pub fn measure(
        &mut self,
        model: &Model,
        proto: &ModelProto,
        quality: &OutputQuality,
        console: &Console,
    ) -> Result<Option<f64>, Failure> {
        let source = Source::Proto { proto, folder: Some(model.file.folder()) };
        let control = console.control();
        match &mut self.kind {
            Kind::Output(metric) => match metric.of(quality, None) {
                Ok(figure) => Ok(Some(figure)),
                // What does not fit the output fits no plan.
                Err(why) if quality.sqnr_db.db().is_some() => {
                    Err(Failure::usage(why, "--metric", "Judge by sqnr or cosine, which fit every output"))
                }
                Err(_) => Ok(None),
            },
            Kind::Accuracy(labels) => {
                let (set, indices) = (&self.judged.samples.set, &self.judged.samples.indices);
                let found = evaluate(self.runtime, source, set, indices, labels, self.threads, control)?;
                Ok(Some(found.accuracy))
            }
            Kind::Own(own, _) => Ok(Some(own.score(self.runtime, source, control)?)),
        }
    }

    /// How much better one figure is than another.
    pub fn gain(&self, value: f64, other: f64) -> f64 {
        match &self.kind {
            Kind::Output(metric) => metric.gain(value, other),
            Kind::Accuracy(_) | Kind::Own(..) => value - other,
        }
    }

    /// How far a figure has fallen, in the unit of `--max-drop`.
    pub fn drop(&self, value: f64) -> Option<f64> {
        match &self.kind {
            Kind::Output(metric) => metric.drop(value, self.original),
            Kind::Accuracy(_) => Metric::Accuracy.drop(value, self.original),
            Kind::Own(..) => Some(self.original - value),
        }
    }

    /// The metric with the chosen plan's figure.
    pub fn to_json(&self, value: Option<f64>) -> Value {
        let drop = value.and_then(|value| self.drop(value));
        let mut json =
            json!({"name": self.name(), "value": metric::number(value), "drop": drop, "reason": self.reason});
        match &self.kind {
            Kind::Output(_) => {}
            Kind::Accuracy(_) => json["original"] = json!(self.original),
            Kind::Own(_, command) => {
                json["original"] = json!(self.original);
                json["command"] = json!(command);
            }
        }
        json
    }

    fn name(&self) -> &'static str {
        match &self.kind {
            Kind::Output(metric) => metric.name(),
            Kind::Accuracy(_) => Metric::Accuracy.name(),
            Kind::Own(..) => "command",
        }
    }
}
