//! A quantized model beside its original, sample by sample.

use serde::{Deserialize, Serialize};

use super::accuracy::{Score, Side};
use super::output_error::six_digits;
use super::{MeasureError, Metric, OutputError, OutputQuality, Sqnr};
use crate::data::{DataSet, Sample};
use crate::port::Port;
use crate::problem::{Problem, Severity};
use crate::runtime::{Output, Runtime, Session, SessionOptions, Source};
use crate::tensor::{Tensor, Values};
use crate::{Control, Error};

/// How two models are compared.
#[derive(Clone, Debug)]
pub struct CompareOptions {
    /// Threads of each session; 0 for all.
    pub threads: usize,
    /// The output of the scalar figures; `None`: the first floating one.
    pub output: Option<String>,
}

impl Quality {
    /// The figure of `metric`, or why there is none (see [`Metric::of`]).
    pub fn figure(&self, metric: Metric) -> Result<f64, String> {
        let output = self.outputs.iter().find(|output| output.name == self.output).or(self.outputs.first());
        let output = output.ok_or_else(|| "nothing was compared".to_owned())?;
        metric.of(output, self.accuracy.map(|pair| pair.quantized))
    }
}

impl Default for CompareOptions {
    fn default() -> Self {
        Self { threads: 1, output: None }
    }
}

/// Task accuracy of both models on the same samples, in 0..=1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AccuracyPair {
    /// Of the original.
    pub original: f64,
    /// Of the quantized model.
    pub quantized: f64,
}

/// How well the quantized model keeps to the original. The scalar figures are those of [`Quality::output`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    /// SQNR over all samples, every sample run by itself.
    pub sqnr_db: Sqnr,
    /// The output that the scalar figures are of.
    pub output: String,
    /// Cosine similarity over all samples.
    #[serde(serialize_with = "six_digits")]
    pub cosine: Option<f64>,
    /// Share of samples with the same largest class; `None` where the output is not `[1, C]`.
    pub top1_agreement: Option<f64>,
    /// Mean Kullback–Leibler divergence of class distributions in nats; `None` where the output gives no classes.
    #[serde(default)]
    pub kl: Option<f64>,
    /// Values of the quantized model's output that are NaN or infinite.
    pub non_finite: u64,
    /// Task accuracy; `None` without labels.
    pub accuracy: Option<AccuracyPair>,
    /// Largest absolute difference.
    pub max_abs_error: f64,
    /// Number of samples.
    pub samples: usize,
    /// Every output's figures.
    pub outputs: Vec<OutputQuality>,
}

/// Runs the samples called `indices` through both models, as people run them (every optimisation on), and compares all
/// outputs. `labels` has one entry a row of the whole data, not of `indices`. New values that are not finite, and
/// outputs that cannot be compared, become problems of `control`.
#[allow(clippy::too_many_arguments)] // each is a thing of its own, and the call reads in this order
pub fn compare(
    runtime: &Runtime,
    original: Source<'_>,
    quantized: Source<'_>,
    data: &DataSet,
    indices: &[usize],
    labels: Option<&[i64]>,
    options: &CompareOptions,
    control: &Control,
) -> Result<Quality, Error> {
    if indices.is_empty() {
        return Err(MeasureError::NoSamples.into());
    }
    let session = SessionOptions { threads: options.threads, ..SessionOptions::default() };
    let mut original = Session::open(runtime, original, &session)?;
    let mut quantized = Session::open(runtime, quantized, &session)?;
    let output = scalar_output(original.outputs(), quantized.outputs(), options.output.as_deref())?;
    let mut score = labels.map(|labels| Score::new(data, labels)).transpose()?;
    let mut errors: Vec<(String, OutputError)> = Vec::new();
    for (done, &index) in indices.iter().enumerate() {
        control.check()?;
        control.progress("Comparing", done as u64, indices.len() as u64);
        let sample = data.sample(index)?;
        let expected = original.run(&sample, control)?;
        if done == 0
            && let Some(problem) = restless(&expected, &original.run(&sample, control)?)
        {
            control.problem(problem);
        }
        let scored = score.as_mut().map(|score| score.choose(&expected)).transpose()?;
        let mut answer: Option<Tensor> = None;
        let mut seen = 0;
        let converted = converted(&sample, quantized.inputs());
        quantized.visit(converted.as_ref().unwrap_or(&sample), control, &mut |name, view| {
            seen += 1;
            let reference = expected.iter().find(|output| output.name == name).and_then(|output| output.value.as_ref());
            match (reference, view.shape()) {
                (Some(reference), Some(_)) => entry(&mut errors, name).add_view(reference, &view),
                (None, None) => {}
                _ => entry(&mut errors, name).fail("only one of the models gives a tensor"),
            }
            if scored.as_deref() == Some(name) {
                answer = view.to_tensor();
            }
        })?;
        if seen != expected.len() {
            entry(&mut errors, &output).fail("the models give different numbers of tensors");
        }
        if let (Some(score), Some(name)) = (&mut score, scored) {
            let known = expected.iter().find(|output| output.name == name).and_then(|output| output.value.as_ref());
            score.add(Side::Original, index, known)?;
            score.add(Side::Quantized, index, answer.as_ref())?;
        }
    }
    control.progress("Comparing", indices.len() as u64, indices.len() as u64);
    let outputs: Vec<_> = errors.iter().map(|(name, error)| error.report(name)).collect();
    for (name, error) in &errors {
        if let Some(problem) = problem_of(name, error) {
            control.problem(problem);
        }
    }
    let accuracy = score.and_then(|score| {
        let side = |side| score.accuracy(side).map(|accuracy| accuracy.accuracy);
        Some(AccuracyPair { original: side(Side::Original)?, quantized: side(Side::Quantized)? })
    });
    // A sequence's elements are called `name[0]` …; the first stands for it.
    let chosen = outputs
        .iter()
        .find(|o| o.name == output)
        .or_else(|| outputs.iter().find(|o| o.name.strip_prefix(&output).is_some_and(|rest| rest.starts_with('['))));
    let chosen = chosen.cloned().unwrap_or_default();
    Ok(Quality {
        sqnr_db: chosen.sqnr_db,
        output,
        cosine: chosen.cosine,
        top1_agreement: chosen.top1_agreement,
        kl: chosen.kl,
        non_finite: chosen.non_finite,
        accuracy,
        max_abs_error: chosen.max_abs_error,
        samples: indices.len(),
        outputs,
    })
}

/// The output of the scalar figures: the one asked for, else the first floating one, else the first.
fn scalar_output(original: &[Port], quantized: &[Port], asked: Option<&str>) -> Result<String, MeasureError> {
    let names = |ports: &[Port]| ports.iter().map(|port| port.name.as_str()).collect::<Vec<_>>().join(", ");
    if !original.iter().map(|port| &port.name).eq(quantized.iter().map(|port| &port.name)) {
        return Err(MeasureError::Outputs { original: names(original), quantized: names(quantized) });
    }
    let chosen = match asked {
        Some(name) => original.iter().find(|port| port.name == name),
        None => original.iter().find(|port| port.element_type.contains("float")).or(original.first()),
    };
    chosen
        .map(|port| port.name.clone())
        .ok_or_else(|| MeasureError::NoOutput { name: asked.unwrap_or_default().to_owned(), known: names(original) })
}

/// The sample with the element types that the other model takes, e.g. float16; `None` where they are the same.
pub(crate) fn converted(sample: &Sample, ports: &[Port]) -> Option<Sample> {
    let wanted = |name: &str| ports.iter().find(|port| port.name == name).map(|port| port.element_type.as_str());
    let differs = |(name, tensor): &(String, Tensor)| wanted(name).is_some_and(|w| w != tensor.values.type_name());
    if !sample.feeds.iter().any(differs) {
        return None;
    }
    let convert = |(name, tensor): &(String, Tensor)| {
        let values = match wanted(name) {
            // What does not fit stays as it is, and the runtime says so.
            Some(wanted) => {
                crate::data::convert(tensor.values.clone(), wanted).unwrap_or_else(|_| tensor.values.clone())
            }
            None => tensor.values.clone(),
        };
        (name.clone(), Tensor { shape: tensor.shape.clone(), values })
    };
    Some(Sample { feeds: sample.feeds.iter().map(convert).collect() })
}

fn entry<'a>(errors: &'a mut Vec<(String, OutputError)>, name: &str) -> &'a mut OutputError {
    let index = errors.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
        errors.push((name.to_owned(), OutputError::at_output()));
        errors.len() - 1
    });
    &mut errors[index].1
}

/// Two runs on the same sample agree better than this, in dB, whatever the order that threads add in.
const RESTLESS_DB: f64 = 60.0;

/// What is said when the original itself gives other values on a second run of the same sample.
fn restless(first: &[Output], second: &[Output]) -> Option<Problem> {
    let moved = first.iter().zip(second).find(|(first, second)| {
        let (Some(first), Some(second)) = (&first.value, &second.value) else { return false };
        let mut error = OutputError::default();
        error.add(first, second);
        !matches!(first.values, Values::Text(_)) && error.sqnr().db().is_none_or(|db| db < RESTLESS_DB) && error.moved()
    })?;
    Some(Problem::new(
        Severity::Warning,
        "The original gives other values each time it runs",
        moved.0.name.as_str(),
        "Two runs on the same sample differ: the model draws random numbers. Errors and SQNR measure that too",
        "Give such operators a seed, or export the model without them, to measure quantization alone",
    ))
}

fn problem_of(name: &str, error: &OutputError) -> Option<Problem> {
    let new = error.new_non_finite();
    if new > 0 {
        return Some(Problem::new(
            Severity::Serious,
            format!("The quantized model gives {new} values that are NaN or infinite where the original does not"),
            name,
            "Somewhere a value overflows, or a scale is zero or not finite",
            "Leave the layers with the lowest SQNR in float32, or widen their clip ranges",
        ));
    }
    error.report(name).problem.map(|why| {
        Problem::new(
            Severity::Serious,
            "An output of the two models cannot be compared",
            name,
            why,
            "Compare a model with its own quantized version on inputs that both take",
        )
    })
}

#[cfg(test)]
mod tests;
