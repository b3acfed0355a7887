//! The calibration lab: which samples set the ranges, which are outliers, how ranges move with the number of samples, and
//! how many are enough. Everything comes from the ranges that single samples had, without running anything.
//!
//! A range is what `minmax` makes of a tensor: from its smallest to its largest value, widened to contain 0, so that its
//! width is 255 steps of an asymmetric 8-bit scale. The other clip methods choose within it.

mod curve;
mod outliers;

use std::collections::BTreeMap;

use crate::data::DataSet;
use crate::stats::{Ends, SampleId, SampleRanges, Stats};

pub use self::curve::Point;
pub use self::outliers::{Effect, Setter};

/// What counts as enough, and how it is found out.
#[derive(Clone, Debug, PartialEq)]
pub struct LabOptions {
    /// A range lies near that of all samples when its width differs by at most this share.
    pub tolerance: f64,
    /// A tensor is settled when at least this share of the resampled sets gives it a range near that of all samples.
    pub confidence: f64,
    /// Samples are enough when at least this share of all tensors is settled.
    pub share: f64,
    /// Sets of samples drawn for each number of samples; fewer where they would take longer than a second or so.
    pub resamples: usize,
    /// Seed of the draws.
    pub seed: u64,
}

impl Default for LabOptions {
    fn default() -> Self {
        Self { tolerance: 0.1, confidence: 0.9, share: 0.95, resamples: 200, seed: 0 }
    }
}

/// One end of a tensor's range.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct End {
    /// The smallest or largest value.
    pub value: f32,
    /// The sample that has it; of several the first.
    pub sample: SampleId,
    /// What the end would be without that sample; never beyond 0.
    pub others: f32,
}

impl End {
    /// Whether no other sample reaches as far.
    pub fn is_set_alone(&self) -> bool {
        self.value != self.others
    }
}

/// A tensor and its range.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// The lower end; `None` where the range ends at 0 because nothing is negative.
    pub low: Option<End>,
    /// The upper end; `None` where nothing is positive.
    pub high: Option<End>,
    /// How the width moves with the number of samples.
    pub curve: Vec<Point>,
    /// Number of samples from which on the tensor is settled; `None` when it still moves with all of them.
    pub settled: Option<usize>,
}

impl Tensor {
    /// Width of the range.
    pub fn width(&self) -> f64 {
        f64::from(self.high.map_or(0.0, |end| end.value)) - f64::from(self.low.map_or(0.0, |end| end.value))
    }
}

/// What the samples of a calibration did to its ranges.
#[derive(Clone, Debug, PartialEq)]
pub struct Lab {
    /// What was asked.
    pub options: LabOptions,
    /// Samples whose ends are known.
    pub seen: u64,
    /// Samples whose ranges are known one by one: all, or [`crate::limits::SAMPLE_RANGES`] of more.
    pub samples: Vec<SampleId>,
    /// Every tensor that is not 0 throughout, by name.
    pub tensors: Vec<Tensor>,
    /// Samples that set at least one end alone, those that widen ranges most first.
    pub setters: Vec<Setter>,
    /// How widths move with the number of samples, over all tensors.
    pub curve: Vec<Point>,
    /// The least number of samples tried that is enough; `None` when all of them are not.
    pub enough: Option<usize>,
}

/// Fewest samples from which anything is said about how many are enough.
const FEWEST: usize = 4;

impl Lab {
    /// Looks at what `stats` knows of single samples.
    pub fn of(stats: &Stats, options: LabOptions) -> Self {
        let by_sample = &stats.by_sample;
        let samples: Vec<SampleId> = by_sample.samples().collect();
        let (mut tensors, widened) = tensors(by_sample, &samples);
        let curves = curve::curves(&widened, &options);
        for (tensor, points) in tensors.iter_mut().zip(curves.each) {
            tensor.settled = first_from(&points, options.confidence);
            tensor.curve = points;
        }
        let enough = first_from(&curves.all, options.share).filter(|_| samples.len() >= FEWEST);
        let setters = outliers::setters(&tensors, &widened, &samples);
        Self { options, seen: by_sample.seen(), samples, tensors, setters, curve: curves.all, enough }
    }

    /// Samples that are outliers, the worst first.
    pub fn outliers(&self) -> impl Iterator<Item = &Setter> {
        self.setters.iter().filter(|setter| setter.is_outlier())
    }

    /// Tensors that still move, the most restless first.
    pub fn moving(&self) -> Vec<&Tensor> {
        let mut moving: Vec<&Tensor> = self.tensors.iter().filter(|tensor| tensor.settled.is_none()).collect();
        let within = |tensor: &Tensor| tensor.curve.last().map_or(1.0, |point| point.within);
        moving.sort_by(|a, b| within(a).total_cmp(&within(b)).then_with(|| a.name.cmp(&b.name)));
        moving
    }

    /// What an outlier called `name` does, in a sentence.
    pub fn outlier_text(&self, setter: &Setter, name: &str) -> String {
        let (count, worst) = (setter.far_out().count(), setter.far_out().next());
        let worst = worst.and_then(|effect| Some((effect, self.tensors.get(effect.tensor)?)));
        let worst = worst.map(|(effect, tensor)| {
            let Effect { end: End { value, others, .. }, factor, .. } = effect;
            format!(
                "; {} is {factor:.1} times as wide for it ({value:.4}, all others at most {others:.4})",
                tensor.name
            )
        });
        let plural = if count == 1 { "" } else { "s" };
        format!("{name} lies far out in {count} tensor{plural}{}", worst.unwrap_or_default())
    }

    /// Whether enough samples were used, in a sentence.
    pub fn verdict(&self) -> String {
        let LabOptions { tolerance, confidence, share, .. } = self.options;
        let percent = |part: f64| format!("{:.0} %", part * 100.0);
        let all = self.samples.len();
        let meaning = format!(
            "{} of the ranges within {} of those of all {all} samples, each in {} of the resampled sets",
            percent(share),
            percent(tolerance),
            percent(confidence)
        );
        match self.enough {
            _ if self.tensors.is_empty() => "Nothing is known of single samples".to_owned(),
            Some(n) if n == all => format!("All {all} samples are needed, and just enough: {meaning}"),
            Some(1) => format!("1 sample is enough: {meaning}"),
            Some(n) => format!("{n} samples are enough: {meaning}"),
            None if all < FEWEST => format!("{all} samples are too few to say how many are enough"),
            None => format!(
                "Not enough: with all {all} samples {} of {} ranges still move ({meaning} are asked for)",
                self.moving().len(),
                self.tensors.len()
            ),
        }
    }
}

/// What a sample is called: its number in its source, with the file's name where it has one, and the source where there are
/// several. `set` is the source that is at hand.
pub fn sample_name(sample: SampleId, stats: &Stats, set: Option<&DataSet>) -> String {
    let number = sample.sample;
    let is_of = |spec: &str| SampleId::new(spec, number) == sample;
    let file = set.filter(|set| is_of(set.spec())).and_then(|set| set.file_name(usize::try_from(number).ok()?));
    let source = stats.sources.keys().find(|spec| is_of(spec)).filter(|_| stats.sources.len() > 1);
    match (file, source) {
        (Some(file), _) => format!("{file} (sample {number})"),
        (None, Some(source)) => format!("sample {number} of {source}"),
        (None, None) => format!("sample {number}"),
    }
}

/// The first number of samples from which on all points have at least `least` within.
fn first_from(points: &[Point], least: f64) -> Option<usize> {
    let settled = points.iter().rev().take_while(|point| point.within >= least);
    settled.last().map(|point| point.samples)
}

/// Every tensor with its ends, and beside it the ranges of the samples, each widened to contain 0.
fn tensors(by_sample: &SampleRanges, samples: &[SampleId]) -> (Vec<Tensor>, Vec<Vec<(f32, f32)>>) {
    let place: BTreeMap<SampleId, usize> = samples.iter().enumerate().map(|(at, sample)| (*sample, at)).collect();
    let mut all = (Vec::new(), Vec::new());
    for (name, ends, ranges) in by_sample.tensors() {
        let ranges: Vec<(f32, f32)> = ranges.iter().map(|&(lo, hi)| (lo.min(0.0), hi.max(0.0))).collect();
        let without = |sample: SampleId| {
            let of_it = place.get(&sample).copied();
            let others = ranges.iter().enumerate().filter(|(at, _)| Some(*at) != of_it);
            others.fold((0.0_f32, 0.0_f32), |(lo, hi), (_, range)| (lo.min(range.0), hi.max(range.1)))
        };
        let Ends { min, max } = *ends;
        let low = End { value: min.0, sample: min.1, others: without(min.1).0 };
        let high = End { value: max.0, sample: max.1, others: without(max.1).1 };
        let (low, high) = (Some(low).filter(|end| end.value < 0.0), Some(high).filter(|end| end.value > 0.0));
        if (low.is_some() || high.is_some()) && ranges.iter().any(|range| range.0 < range.1) {
            all.0.push(Tensor { name: name.to_owned(), low, high, curve: Vec::new(), settled: None });
            all.1.push(ranges);
        }
    }
    all
}

#[cfg(test)]
mod tests;
