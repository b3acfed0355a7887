//! A data source opened and checked against a model's inputs; samples come one at a time.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::random::Random;
use super::{DataError, ImageOptions, Sample};
use crate::limits;
use crate::port::Port;
use crate::problem::{Problem, Severity};

/// How a source is read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DataOptions {
    /// How pictures become tensors.
    pub image: ImageOptions,
    /// Sizes of symbolic dimensions: an input's name and all its dimensions, or a symbol and one size.
    pub shapes: BTreeMap<String, Vec<usize>>,
    /// Seed of random inputs and of [`DataSet::split`].
    pub seed: u64,
}

/// What kind of source it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DataKind {
    /// One `.npz`, or one `.npy`.
    Arrays,
    /// A folder of `.npz` files, one sample each.
    Folder,
    /// A folder of pictures.
    Images,
    /// Random numbers.
    Random,
}

/// An opened source: a number of samples, read one at a time.
#[derive(Debug)]
pub struct DataSet {
    spec: String,
    len: usize,
    batch: usize,
    seed: u64,
    source: Source,
    problems: Vec<Problem>,
}

#[derive(Debug)]
enum Source {
    Random(Random),
}

impl DataSet {
    /// Opens `spec` (`.npz`, `.npy`, a folder of `.npz` or of images, `random:N`) for a model with these inputs. Names,
    /// ranks, fixed dimensions and element types are checked here, values when a sample is read.
    pub fn open(spec: &str, inputs: &[Port], options: &DataOptions) -> Result<Self, DataError> {
        let Some(count) = spec.strip_prefix("random:") else {
            return Err(DataError::Source { spec: spec.to_owned(), why: "no such file".to_owned() });
        };
        let len = count.trim().parse().ok().filter(|n| (1..=limits::MAX_SAMPLES).contains(n)).ok_or_else(|| {
            DataError::Option {
                key: "random".to_owned(),
                value: count.to_owned(),
                allowed: format!("a number of samples from 1 to {}", limits::MAX_SAMPLES),
            }
        })?;
        let source = Source::Random(Random::new(inputs, &options.shapes, options.seed)?);
        let problems = vec![Problem::new(
            Severity::Warning,
            "The inputs are random numbers",
            spec,
            "Ranges, errors and accuracy on random inputs say little about real ones",
            "Give real samples with --data",
        )];
        Ok(Self { spec: spec.to_owned(), len, batch: 1, seed: options.seed, source, problems })
    }

    /// Number of samples, each one run of the model.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no sample; [`DataSet::open`] refuses such sources.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Rows that one sample feeds: 1, or the model's own batch size where it is fixed above 1.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// What kind of source it is.
    pub fn kind(&self) -> DataKind {
        match &self.source {
            Source::Random(_) => DataKind::Random,
        }
    }

    /// What the person gave.
    pub fn spec(&self) -> &str {
        &self.spec
    }

    /// What was noticed on opening: renamed arrays, converted types, dropped remainders, random inputs.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// One line for people, e.g. `128 samples from eval.npz`.
    pub fn describe(&self) -> String {
        self.to_string()
    }

    /// Reads sample `index` (from 0) and checks its values.
    pub fn sample(&self, index: usize) -> Result<Sample, DataError> {
        if index >= self.len {
            return Err(DataError::Index { index, len: self.len });
        }
        match &self.source {
            Source::Random(random) => Ok(random.sample(index)),
        }
    }

    /// Numbers of the samples to calibrate with and to evaluate with: `held_back` of them, by default a third, are kept for
    /// evaluation, chosen by the seed; both lists are sorted. A single sample serves as both.
    pub fn split(&self, held_back: Option<usize>) -> (Vec<usize>, Vec<usize>) {
        if self.len < 2 {
            return ((0..self.len).collect(), (0..self.len).collect());
        }
        let held = held_back.unwrap_or(self.len / 3).clamp(1, self.len - 1);
        let mut order: Vec<usize> = (0..self.len).collect();
        fastrand::Rng::with_seed(self.seed).shuffle(&mut order);
        let mut calibration = order.split_off(held);
        calibration.sort_unstable();
        order.sort_unstable();
        (calibration, order)
    }

    /// Numbers of the samples that a limit of `n` leaves: the first `n`; of pictures, which lie sorted by name and often
    /// by class, `n` spread evenly.
    pub fn limit(&self, n: usize) -> Vec<usize> {
        let n = n.min(self.len);
        match self.kind() {
            DataKind::Images => (0..n).map(|i| i * self.len / n).collect(),
            _ => (0..n).collect(),
        }
    }
}

impl fmt::Display for DataSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.len == 1 { "" } else { "s" };
        match &self.source {
            Source::Random(_) => write!(f, "{} random sample{plural}", self.len),
        }
    }
}
