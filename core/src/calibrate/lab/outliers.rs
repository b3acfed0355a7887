//! Which samples set ranges, and which of them are outliers.
//!
//! An end of a range is far out where it lies beyond the outer fence of all samples' ends, the upper quartile plus three times
//! the distance of the quartiles (Tukey, Exploratory Data Analysis, 1977), and the range would be a fifth narrower without it.

use std::collections::BTreeMap;

use super::{End, Tensor};
use crate::stats::SampleId;

/// Fewest samples from which quartiles mean something.
const FEWEST: usize = 8;
/// A range that is wider by this factor than without the sample: 1.9 dB more rounding noise.
const FACTOR: f64 = 1.25;
/// Factors above this count as this, where almost nothing else is in the range.
const MOST: f64 = 1e3;

/// What a sample does to one end of a tensor's range.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Effect {
    /// Index of the tensor in [`super::Lab::tensors`].
    pub tensor: usize,
    /// Whether it is the upper end.
    pub is_upper: bool,
    /// The value, and what the end would be without the sample.
    pub end: End,
    /// How many times as wide the tensor's range is as it would be without this end (at most 1,000).
    pub factor: f64,
    /// Whether the value lies far outside of what other samples have.
    pub is_far_out: bool,
}

/// A sample that sets ends of ranges alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Setter {
    /// The sample.
    pub sample: SampleId,
    /// What it does, the widest first.
    pub effects: Vec<Effect>,
    /// What it costs in rounding noise on the average of all tensors in dB: 20·log₁₀ of the factors.
    pub cost_db: f64,
}

impl Setter {
    /// Whether some of its values lie far outside of what other samples have.
    pub fn is_outlier(&self) -> bool {
        self.effects.iter().any(|effect| effect.is_far_out)
    }

    /// What makes it an outlier, the widest first.
    pub fn far_out(&self) -> impl Iterator<Item = &Effect> {
        self.effects.iter().filter(|effect| effect.is_far_out)
    }
}

/// Samples that set at least one end alone, those that cost most first. `widened` has one range a tensor and sample.
pub(super) fn setters(tensors: &[Tensor], widened: &[Vec<(f32, f32)>], samples: &[SampleId]) -> Vec<Setter> {
    let mut found: BTreeMap<SampleId, Vec<Effect>> = BTreeMap::new();
    for (at, (tensor, ranges)) in tensors.iter().zip(widened).enumerate() {
        let ends = [(tensor.low, false), (tensor.high, true)];
        for (end, is_upper) in ends.into_iter().filter_map(|(end, is_upper)| Some((end?, is_upper))) {
            if !end.is_set_alone() {
                continue;
            }
            let width = tensor.width();
            let without = width - (f64::from(end.value) - f64::from(end.others)).abs();
            let factor = if without > 0.0 { (width / without).min(MOST) } else { MOST };
            let magnitudes = ranges.iter().map(|&(lo, hi)| if is_upper { hi } else { -lo }).collect();
            let is_far_out =
                samples.len() >= FEWEST && factor >= FACTOR && f64::from(end.value.abs()) > outer_fence(magnitudes);
            found.entry(end.sample).or_default().push(Effect { tensor: at, is_upper, end, factor, is_far_out });
        }
    }
    let of = |(sample, mut effects): (SampleId, Vec<Effect>)| {
        effects.sort_by(|a, b| b.factor.total_cmp(&a.factor).then(a.tensor.cmp(&b.tensor)));
        let cost: f64 = effects.iter().map(|effect| 20.0 * effect.factor.log10()).sum();
        Setter { sample, effects, cost_db: cost / tensors.len().max(1) as f64 }
    };
    let mut setters: Vec<Setter> = found.into_iter().map(of).collect();
    setters.sort_by(|a, b| b.cost_db.total_cmp(&a.cost_db).then(a.sample.cmp(&b.sample)));
    setters
}

/// Upper quartile plus three times the distance of the quartiles.
fn outer_fence(mut magnitudes: Vec<f32>) -> f64 {
    magnitudes.sort_by(f32::total_cmp);
    let quantile = |share: f64| {
        let at = (share * magnitudes.len().saturating_sub(1) as f64).round() as usize;
        magnitudes.get(at).copied().map_or(0.0, f64::from)
    };
    let (lower, upper) = (quantile(0.25), quantile(0.75));
    upper + 3.0 * (upper - lower)
}
