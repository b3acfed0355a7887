//! Calibration and evaluation data, as `--data`, `--eval`, `--labels` and their companions describe them.

use std::collections::BTreeMap;
use std::rc::Rc;

use nibble_core::data::{DataKind, DataOptions, DataSet, ImageOptions};
use nibble_core::error::MeasureError;
use nibble_core::port::{Dim, Port};
use nibble_core::problem::Severity;
use nibble_core::stats::Stats;
use nibble_core::{Error, Problem};
use serde_json::{Value, json};

use super::args::{EvalArgs, InputArgs};
use super::console::Console;
use super::failure::Failure;

/// What quality is measured on when the person gives no data.
pub const RANDOM: &str = "random:8";

/// Some samples of a source.
#[derive(Clone)]
pub struct Samples {
    /// The source.
    pub set: Rc<DataSet>,
    /// Numbers of the samples meant.
    pub indices: Vec<usize>,
}

impl Samples {
    /// The source, or the share of it that `--samples` and `--leave-out` leave.
    pub fn limited(set: DataSet, args: &InputArgs) -> Result<Self, Failure> {
        let indices = set.limit(args.samples.map_or(usize::MAX, |n| n as usize));
        Self { set: Rc::new(set), indices }.without(&args.leave_out)
    }

    /// The same without some samples.
    fn without(mut self, left_out: &[usize]) -> Result<Self, Failure> {
        let (spec, len) = (self.set.spec(), self.set.len());
        let wrong = |message: String| {
            Failure::usage(message, "--leave-out", format!("Samples of {spec} have the numbers 0 to {}", len - 1))
        };
        if let Some(number) = left_out.iter().find(|&&number| number >= len) {
            return Err(wrong(format!("there is no sample {number}")));
        }
        self.indices.retain(|index| !left_out.contains(index));
        if self.indices.is_empty() {
            return Err(wrong("all samples are left out".to_owned()));
        }
        Ok(self)
    }

    /// What the result says about it.
    pub fn to_json(&self) -> Value {
        json!({"data": self.set.spec(), "samples": self.indices.len()})
    }
}

/// Data to judge with.
pub struct Judged {
    /// The samples.
    pub samples: Samples,
    /// Labels of all rows of the source, not only of the samples.
    pub labels: Option<Vec<i64>>,
    /// Whether they were held back from `--data`.
    pub held_back: bool,
}

impl Judged {
    /// Leaves out the samples that saved statistics have seen, as far as there are others.
    pub fn leave_out(&mut self, stats: &Stats, console: &Console) {
        let set = &self.samples.set;
        let Some(seen) = stats.sources.get(set.spec()) else { return };
        let unseen = |index: &usize| !seen.contains(&(*index as u64));
        let spec = set.spec();
        // Without --eval nothing else wants the rest of the data, so all of it that is new serves to judge.
        let candidates = if self.held_back { (0..set.len()).collect() } else { self.samples.indices.clone() };
        let fresh: Vec<usize> = candidates.into_iter().filter(unseen).collect();
        if fresh.is_empty() {
            console.note(&format!(
                "The statistics were gathered on all of {spec}: quality looks better than it is; give other samples with --eval"
            ));
        } else {
            console.note(&format!(
                "Quality is measured on the {} samples of {spec} that the statistics have not seen",
                fresh.len()
            ));
            self.samples.indices = fresh;
        }
    }

    /// What the result says about it.
    pub fn to_json(&self) -> Value {
        let mut json = self.samples.to_json();
        json["held_back"] = json!(self.held_back);
        json["labels"] = json!(self.labels.is_some());
        json
    }
}

/// The options that concern inputs.
pub fn options(args: &InputArgs) -> Result<DataOptions, Failure> {
    let mut shapes = BTreeMap::new();
    for text in &args.shape {
        let wrong = || {
            let hint = "Name an input and all its dimensions, --shape image=1,3,224,224, or a symbol and its size, --shape seq=64";
            Failure::usage(format!("cannot read the shape {text:?}"), "--shape", hint)
        };
        let (name, dims) = text.rsplit_once('=').ok_or_else(wrong)?;
        let dims = dims.split([',', 'x']).map(|dim| dim.trim().parse::<usize>());
        shapes.insert(name.to_owned(), dims.collect::<Result<Vec<_>, _>>().map_err(|_| wrong())?);
    }
    let image = match &args.image {
        Some(text) => text.parse().map_err(|error| Failure::from(Error::Data(error)).into_usage())?,
        None => ImageOptions::default(),
    };
    Ok(DataOptions { image, shapes, seed: args.seed })
}

/// A name that `--shape` sizes must be there: a misspelt one would leave the usual size in force, in silence.
fn check_shapes(inputs: &[Port], options: &DataOptions) -> Result<(), Failure> {
    for name in options.shapes.keys() {
        let symbol = Dim::Symbol(name.clone());
        if !inputs.iter().any(|port| port.name == *name || port.shape.contains(&symbol)) {
            let known: Vec<_> = inputs.iter().map(|port| format!("{} {}", port.name, port.shape_text())).collect();
            let message = format!("no input and no dimension is called {name:?}");
            return Err(Failure::usage(message, "--shape", format!("Inputs are {}", known.join(", "))));
        }
    }
    Ok(())
}

/// Opens a source and says what is odd about it.
pub fn open(spec: &str, inputs: &[Port], options: &DataOptions, console: &Console) -> Result<DataSet, Failure> {
    check_shapes(inputs, options)?;
    let set = DataSet::open(spec, inputs, options).map_err(Error::from)?;
    for problem in set.problems() {
        console.control().problem(problem.clone());
    }
    Ok(set)
}

/// Labels that `--labels` gives, or that the sub-folders of a folder of pictures are; one for every row of `set`.
pub fn labels(given: Option<&str>, set: &DataSet) -> Result<Option<Vec<i64>>, Failure> {
    match given {
        Some(given) => Ok(Some(set.labels(given).map_err(Error::from)?)),
        None => Ok(set.folder_labels().map(<[i64]>::to_vec)),
    }
}

/// What is said when there are labels but the model has no output that names a class.
pub fn no_accuracy(error: &MeasureError) -> Problem {
    Problem::new(Severity::Warning, "Accuracy was not measured", error.place(), error.to_string(), error.hint())
}

/// Splits what the person gave into samples to calibrate with and samples to judge with. The two never overlap, unless
/// there is one sample only. Without any data, quality is measured on random inputs, and loudly so.
pub fn calibration_and_evaluation(
    data: Option<&str>,
    eval: &EvalArgs,
    input: &InputArgs,
    ports: &[Port],
    console: &Console,
) -> Result<(Option<Samples>, Judged), Failure> {
    let options = options(input)?;
    if data.is_none() && eval.eval.is_none() && eval.labels.is_some() {
        return Err(Failure::usage(
            "there are labels, but no data",
            "--labels",
            "Give the data that they label with --eval",
        ));
    }
    let data = data.map(|spec| open(spec, ports, &options, console)).transpose()?;
    let (calibration, evaluation, held_back) = match (data, &eval.eval) {
        (data, Some(spec)) => {
            let set = open(spec, ports, &options, console)?;
            let all = (0..set.len()).collect();
            (
                data.map(|set| Samples::limited(set, input)).transpose()?,
                Samples { set: Rc::new(set), indices: all },
                false,
            )
        }
        (Some(set), None) => {
            let (calibration, evaluation) = split(set, input, console)?;
            (Some(calibration), evaluation, true)
        }
        (None, None) => {
            console.note("No data was given: quality is measured on random inputs and says little about real ones");
            let set = open(RANDOM, ports, &options, console)?;
            let all = (0..set.len()).collect();
            (None, Samples { set: Rc::new(set), indices: all }, false)
        }
    };
    let labels = labels(eval.labels.as_deref(), &evaluation.set)?;
    if evaluation.set.kind() == DataKind::Random && (held_back || eval.eval.is_some()) {
        let what = match &calibration {
            Some(samples) if held_back => format!(
                "The inputs are random: {} samples calibrate, {} others measure quality; neither",
                samples.indices.len(),
                evaluation.indices.len()
            ),
            _ => "Quality is measured on random inputs and hardly".to_owned(),
        };
        console.note(&format!("{what} says much about real inputs; give real samples"));
    }
    Ok((calibration, Judged { samples: evaluation, labels, held_back }))
}

/// Holds a third back for evaluation, and says so.
fn split(set: DataSet, input: &InputArgs, console: &Console) -> Result<(Samples, Samples), Failure> {
    let (mut calibration, evaluation) = set.split(None);
    let (spec, count) = (set.spec(), set.len());
    let random = set.kind() == DataKind::Random;
    if count == 1 {
        console.note(&format!(
            "{spec} holds one sample: it serves for calibration and for evaluation, so quality looks better than it is"
        ));
    } else if !random {
        // For random inputs the caller says it, once, with what follows from it.
        console.note(&format!(
            "No --eval: {} of the {count} samples of {spec} are held back to measure quality; calibration does not see them",
            evaluation.len()
        ));
    }
    if let Some(n) = input.samples {
        let (n, all) = ((n as usize).min(calibration.len()), calibration.len());
        calibration = (0..n).filter_map(|i| calibration.get(i * all / n).copied()).collect();
    }
    let set = Rc::new(set);
    let calibration = Samples { set: Rc::clone(&set), indices: calibration }.without(&input.leave_out)?;
    Ok((calibration, Samples { set, indices: evaluation }))
}
