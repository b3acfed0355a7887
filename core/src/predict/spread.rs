//! How the importance of an activation's values is spread over their size.

use serde::{Deserialize, Serialize};

use super::Noise;
use crate::plan::Symmetry;
use crate::quant::{Grid, QuantParams, activation_params};

/// Bins over the range: several to a step of 8 bits, and rounding inside a bin is averaged.
const BINS: usize = 2048;
/// Values of one draw that are sorted into bins; of more, as many evenly apart: each is a random projection's square, whose
/// own chance is far greater.
const LOOKED_AT: usize = 1 << 15;
/// Bins narrower than this many steps are taken as points: the integral's two ends would cancel.
const POINT: f64 = 1e-4;

/// A histogram of values in which each counts as much as it matters (`E[g²]`) instead of once. Zeros, which every
/// quantization keeps, are left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    lo: f32,
    hi: f32,
    weights: Vec<f32>,
}

/// A [`Spread`] that grows, in double precision.
#[derive(Clone, Debug)]
pub(super) struct Growing {
    lo: f32,
    hi: f32,
    sums: Vec<f64>,
}

impl Growing {
    /// Over `lo..=hi`, which is widened to contain 0; what lies beyond counts at the ends.
    pub(super) fn new(lo: f32, hi: f32) -> Self {
        Self { lo: lo.min(0.0), hi: hi.max(0.0), sums: vec![0.0; BINS] }
    }

    /// Parameters of 8 bits over the whole range.
    pub(super) fn rounded(&self) -> QuantParams {
        activation_params(self.lo, self.hi, Symmetry::Asymmetric)
    }

    /// Another over the same range, with nothing in it.
    pub(super) fn empty(&self) -> Self {
        Self { sums: vec![0.0; BINS], ..*self }
    }

    /// Adds values with the slope of each, whose square says how much it matters; of many, some that stand for all.
    pub(super) fn add_some(&mut self, values: &[f32], slopes: &[f32], factor: f64) {
        // Odd, since rows of images and of features have even widths.
        let step = values.len().div_ceil(LOOKED_AT) | 1;
        let some = |values: &[f32]| values.iter().step_by(step).copied().collect::<Vec<f32>>();
        if values.len() <= LOOKED_AT {
            return self.add(values, slopes.iter().map(|g| g * g), factor);
        }
        self.add(&some(values), some(slopes).iter().map(|g| g * g), factor * step as f64);
    }

    /// Adds values with how much each matters.
    pub(super) fn add(&mut self, values: &[f32], importance: impl Iterator<Item = f32>, factor: f64) {
        let per_unit = BINS as f32 / (self.hi - self.lo).max(f32::MIN_POSITIVE);
        for (&x, importance) in values.iter().zip(importance) {
            if x != 0.0 && importance != 0.0 {
                let bin = (((x - self.lo) * per_unit) as usize).min(BINS - 1);
                self.sums[bin] += f64::from(importance) * factor;
            }
        }
    }

    /// The spread, every sum times `factor`.
    pub(super) fn finish(&self, factor: f64) -> Spread {
        let weights = self.sums.iter().map(|&sum| (sum * factor) as f32).collect();
        Spread { lo: self.lo, hi: self.hi, weights }
    }
}

impl Spread {
    /// Σ importance · (x − x̂)² expected under `params`: rounding inside the range, clipping outside it.
    pub fn noise(&self, params: &QuantParams) -> f64 {
        self.split(params).total
    }

    /// [`Self::noise`], with the part from bins beyond the ends of the grid.
    pub fn split(&self, params: &QuantParams) -> Noise {
        let (grid, scale) = (Grid::new(params), f64::from(params.scale));
        let width = f64::from(self.hi - self.lo) / BINS as f64;
        let steps = width / scale;
        let edge = |bin: usize| f64::from(self.lo) + width * bin as f64;
        let (first, last) = params.step_ends();
        let (first, last) = ((f64::from(first) - 0.5) * scale, (f64::from(last) + 0.5) * scale);
        let mut before = grid.integral(edge(0));
        let (mut noise, mut clipped) = (0.0, 0.0);
        for (bin, &weight) in self.weights.iter().enumerate() {
            let middle = edge(bin) + 0.5 * width;
            let own = if steps < POINT {
                f64::from(weight) * grid.point(middle)
            } else {
                let after = grid.integral(edge(bin + 1));
                let own = f64::from(weight) * (after - before) / steps;
                before = after;
                own
            };
            noise += own;
            clipped += if middle < first || middle > last { own } else { 0.0 };
        }
        let total = noise.max(0.0) * scale * scale;
        Noise { total, clipped: (clipped.max(0.0) * scale * scale).min(total) }
    }

    /// Lets every value matter `factor` times as much.
    pub(super) fn scale(&mut self, factor: f64) {
        self.weights.iter_mut().for_each(|weight| *weight = (f64::from(*weight) * factor) as f32);
    }

    /// How much all values together matter.
    pub fn total(&self) -> f64 {
        self.weights.iter().map(|&weight| f64::from(weight)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_matters_more_counts_more() {
        let mut rng = fastrand::Rng::with_seed(2);
        let values: Vec<f32> = (0..50_000).map(|_| (0..6).map(|_| rng.f32() - 0.5).sum()).collect();
        // Large values matter ten times as much: clipping them costs accordingly.
        let importance = |x: f32| if x.abs() > 1.0 { 10.0 } else { 1.0 };
        let mut growing = Growing::new(-3.0, 3.0);
        growing.add(&values, values.iter().map(|&x| importance(x)), 0.5);
        let spread = growing.finish(2.0);
        for (lo, hi) in [(-3.0, 3.0), (-0.8, 1.2), (-30.0, 30.0)] {
            let params = activation_params(lo, hi, Symmetry::Asymmetric);
            let expected: f64 =
                values.iter().map(|&x| f64::from(importance(x)) * f64::from(x - params.fake(x)).powi(2)).sum();
            let noise = spread.noise(&params);
            assert!((noise / expected - 1.0).abs() < 0.03, "{lo} {hi}: {noise} {expected}");
        }
    }

    #[test]
    fn a_spread_without_width_is_silent() {
        let params = activation_params(0.0, 1.0, Symmetry::Asymmetric);
        assert_eq!(Growing::new(0.0, 0.0).finish(1.0).noise(&params), 0.0);
    }
}
