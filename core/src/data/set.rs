//! A data source opened and checked against a model's inputs; samples come one at a time.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::arrays::Arrays;
use super::folder::{Folder, files_with};
use super::images::{self, Images};
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
    rows: usize,
    seed: u64,
    source: Source,
    problems: Vec<Problem>,
}

#[derive(Debug)]
enum Source {
    Arrays(Arrays),
    Folder(Folder),
    Images(Images),
    Random(Random),
}

impl DataSet {
    /// Opens `spec` (`.npz`, `.npy`, a folder of `.npz` or of images, `random:N`) for a model with these inputs. Names,
    /// ranks, fixed dimensions and element types are checked here, values when a sample is read.
    pub fn open(spec: &str, inputs: &[Port], options: &DataOptions) -> Result<Self, DataError> {
        let mut problems = Vec::new();
        let source = Source::open(spec, inputs, options, &mut problems)?;
        let (len, batch, rows) = match &source {
            Source::Arrays(arrays) => (arrays.len, arrays.batch, arrays.rows),
            Source::Folder(folder) => (folder.len(), 1, folder.len()),
            Source::Images(images) => (images.len(), images.batch, images.pictures()),
            Source::Random(_) => (random_count(spec)?, 1, random_count(spec)?),
        };
        if len > limits::MAX_SAMPLES {
            return Err(DataError::Source {
                spec: spec.to_owned(),
                why: format!("it holds {len} samples, more than {}", limits::MAX_SAMPLES),
            });
        }
        Ok(Self { spec: spec.to_owned(), len, batch, rows, seed: options.seed, source, problems })
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

    /// Rows of the source, and so the number of labels: the samples times [`DataSet::batch`], and what fills no batch.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// What kind of source it is.
    pub fn kind(&self) -> DataKind {
        match &self.source {
            Source::Arrays(_) => DataKind::Arrays,
            Source::Folder(_) => DataKind::Folder,
            Source::Images(_) => DataKind::Images,
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
            Source::Arrays(arrays) => arrays.sample(index),
            Source::Folder(folder) => folder.sample(index),
            Source::Images(images) => images.sample(index),
            Source::Random(random) => Ok(random.sample(index)),
        }
    }

    /// Name of the file that sample `index` comes from, where each has its own.
    pub fn file_name(&self, index: usize) -> Option<String> {
        match &self.source {
            _ if index >= self.len => None,
            Source::Folder(folder) => Some(folder.file_name(index)),
            Source::Images(images) => Some(images.file_name(index)),
            Source::Arrays(_) | Source::Random(_) => None,
        }
    }

    /// Where input number `input` of sample `index` comes from, for people.
    pub(super) fn origin(&self, input: usize, index: usize) -> String {
        match &self.source {
            Source::Arrays(arrays) => arrays.array_name(input).unwrap_or_default().to_owned(),
            Source::Folder(folder) => folder.file_name(index),
            Source::Images(images) => images.file_name(index),
            Source::Random(_) => "random".to_owned(),
        }
    }

    /// Labels from `spec` as [`super::labels`] takes it, or from a key of this source's own `.npz`; one a row.
    pub fn labels(&self, spec: &str) -> Result<Vec<i64>, DataError> {
        let is_npz = Path::new(&self.spec).extension().is_some_and(|e| e.eq_ignore_ascii_case("npz"));
        if is_npz && !Path::new(spec).exists() && !spec.contains(':') {
            return super::labels(&format!("{}:{spec}", self.spec), self.rows);
        }
        super::labels(spec, self.rows)
    }

    /// Classes that the sub-folders of a folder of pictures name, one a picture.
    pub fn folder_labels(&self) -> Option<&[i64]> {
        match &self.source {
            Source::Images(images) => images.labels.as_deref(),
            _ => None,
        }
    }

    /// Numbers of the samples to calibrate with and to evaluate with: `held_back` of them, by default a third, are kept
    /// for evaluation, chosen by the seed; both lists are sorted. A single sample serves as both.
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

    /// Numbers of the samples that a limit of `n` leaves: the first `n`; of pictures, which lie sorted by name and
    /// often by class, `n` spread evenly.
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
        let kind = match &self.source {
            Source::Random(_) => return write!(f, "{} random sample{plural}", self.len),
            Source::Arrays(_) => "",
            Source::Folder(_) => "the .npz files of ",
            Source::Images(_) => "the pictures of ",
        };
        let path = Path::new(&self.spec);
        let name = path.file_name().map_or_else(|| self.spec.clone(), |name| name.to_string_lossy().into_owned());
        write!(f, "{} sample{plural} from {kind}{name}", self.len)?;
        if self.batch > 1 { write!(f, ", {} rows each", self.batch) } else { Ok(()) }
    }
}

impl Source {
    fn open(
        spec: &str,
        inputs: &[Port],
        options: &DataOptions,
        problems: &mut Vec<Problem>,
    ) -> Result<Self, DataError> {
        if spec.starts_with(RANDOM) {
            random_count(spec)?;
            problems.push(Problem::new(
                Severity::Warning,
                "The inputs are random numbers",
                spec,
                "Ranges, errors and accuracy on random inputs say little about real ones",
                "Give real samples with --data",
            ));
            return Random::new(inputs, &options.shapes, options.seed).map(Self::Random);
        }
        let path = Path::new(spec);
        let unknown = |why: &str| DataError::Source { spec: spec.to_owned(), why: why.to_owned() };
        let metadata = std::fs::metadata(path).map_err(|source| DataError::Io { path: path.to_owned(), source })?;
        if metadata.is_dir() {
            let files = files_with(path, &["npz"])?;
            if !files.is_empty() {
                return Folder::new(files, inputs, problems).map(Self::Folder);
            }
            let found = images::find(path)?;
            let left_out = images::left_out(path)?;
            if found.0.is_empty() && left_out > 0 {
                return Err(unknown("its pictures are of formats that are not read"));
            }
            if found.0.is_empty() {
                return Err(unknown("the folder holds neither .npz files nor pictures"));
            }
            if left_out > 0 {
                problems.push(Problem::new(
                    Severity::Warning,
                    format!("{left_out} pictures are left out"),
                    spec,
                    "PNG and JPEG are read; these are of other formats",
                    "Save them as PNG",
                ));
            }
            return Self::images(found, inputs, options, problems);
        }
        let is = |extensions: &[&str]| {
            path.extension().is_some_and(|e| extensions.iter().any(|known| e.eq_ignore_ascii_case(known)))
        };
        if is(&["npz"]) {
            Arrays::open_npz(path, inputs, problems).map(Self::Arrays)
        } else if is(&["npy"]) {
            Arrays::open_npy(path, inputs, problems).map(Self::Arrays)
        } else if is(&images::EXTENSIONS) {
            Self::images((vec![path.to_owned()], None), inputs, options, problems)
        } else {
            Err(unknown("its extension is not known"))
        }
    }

    fn images(
        found: (Vec<PathBuf>, Option<Vec<i64>>),
        inputs: &[Port],
        options: &DataOptions,
        problems: &mut Vec<Problem>,
    ) -> Result<Self, DataError> {
        let given = inputs.first().and_then(|port| options.shapes.get(&port.name));
        let images = Images::new(found, inputs, &options.image, given)?;
        if images.is_plain() {
            problems.push(Problem::new(
                Severity::Note,
                "The pictures are fed without mean and standard deviation",
                inputs.first().map_or("", |port| port.name.as_str()),
                "Most networks for pictures were trained on normalised ones; wrong preprocessing is the usual mistake",
                "Say them with --image mean=…,std=… where the model has them, and look at its own score with --labels",
            ));
        }
        Ok(Self::Images(images))
    }
}

/// How random inputs are asked for.
const RANDOM: &str = "random:";

fn random_count(spec: &str) -> Result<usize, DataError> {
    let count = spec.strip_prefix(RANDOM).unwrap_or_default();
    count.trim().parse().ok().filter(|n| (1..=limits::MAX_SAMPLES).contains(n)).ok_or_else(|| DataError::Option {
        key: "random".to_owned(),
        value: count.to_owned(),
        allowed: format!("a number of samples from 1 to {}", limits::MAX_SAMPLES),
    })
}

#[cfg(test)]
mod tests;
