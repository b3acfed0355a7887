//! The error that a quantization will make, from the histogram alone: fast enough for every frame of a drag.

use super::params::QuantParams;
use super::weight::decibels;
use crate::simd::vectorised;
use crate::stats::TensorStats;

/// 1.5·2⁵²: rounds f64 to the nearest integer, ties to even, for magnitudes below 2⁵¹.
const ROUNDER: f64 = 6_755_399_441_055_744.0;
/// Bins narrower than this many steps are taken as points: the integral's two ends would cancel.
const POINT: f64 = 1e-4;

/// The bins of a tensor, cut to the range really seen, ready for many candidates.
pub(super) struct Density {
    /// Edges of the bins: bin `i` spans `edges[i]..edges[i + 1]`.
    edges: Vec<f64>,
    counts: Vec<f64>,
    width: f64,
}

impl Density {
    pub(super) fn new(stats: &TensorStats) -> Self {
        let (min, max) = (f64::from(stats.min), f64::from(stats.max));
        let (mut edges, mut counts) = (Vec::new(), Vec::new());
        for (lo, hi, count) in stats.histogram.bins() {
            if edges.is_empty() {
                edges.push(lo.max(min));
            }
            edges.push(hi.min(max).max(lo));
            counts.push(count as f64);
        }
        Self { edges, counts, width: stats.histogram.width() }
    }

    /// Σ(x − x̂)² expected, the values of a bin being spread evenly over it.
    pub(super) fn noise(&self, params: &QuantParams) -> f64 {
        let scale = f64::from(params.scale);
        let grid = Grid::new(params);
        let count = self.counts.len();
        let each = |i: usize| {
            let (a, b) = (self.edges[i], self.edges[i + 1]);
            let steps = (b - a) * grid.inverse;
            let noise =
                if steps < POINT { grid.point(0.5 * (a + b)) } else { (grid.integral(b) - grid.integral(a)) / steps };
            self.counts[i] * noise
        };
        // All bins but the cut ones at the two ends are equally wide.
        let steps = self.width * grid.inverse;
        let noise: f64 = if steps < POINT || count <= 2 {
            (0..count).map(each).sum()
        } else {
            each(0) + each(count - 1) + equal_bins(&self.edges[1..count], &self.counts[1..count - 1], grid) / steps
        };
        noise * scale * scale
    }
}

/// The integers of a quantization, for lengths measured in steps.
///
/// With u = x / scale and n the integer nearest to it (clamped), ∫(u − n)² du has the antiderivative
/// n/12 + (u − n)³/3, clipped ends included, so a bin costs one evaluation an edge and no loop over steps.
#[derive(Clone, Copy)]
pub(crate) struct Grid {
    inverse: f64,
    lo: f64,
    hi: f64,
}

impl Grid {
    /// The integers of `params`.
    pub(crate) fn new(params: &QuantParams) -> Self {
        let (lo, hi) = params.step_ends();
        Self { inverse: 1.0 / f64::from(params.scale), lo: f64::from(lo), hi: f64::from(hi) }
    }

    #[inline(always)]
    #[allow(clippy::inline_always)] // has to land inside the vectorised loop
    pub(crate) fn integral(self, x: f64) -> f64 {
        let u = x * self.inverse;
        let low = if u > self.lo { u } else { self.lo };
        let n = (if low < self.hi { low } else { self.hi } + ROUNDER) - ROUNDER;
        let rest = u - n;
        n * (1.0 / 12.0) + rest * rest * rest * (1.0 / 3.0)
    }

    /// Squared error at `x`, in steps.
    pub(crate) fn point(self, x: f64) -> f64 {
        let u = x * self.inverse;
        let rest = u - u.max(self.lo).min(self.hi).round_ties_even();
        rest * rest
    }
}

vectorised! {
    /// Σ count · integral over the bin, for bins between consecutive edges.
    fn equal_bins(edges: &[f64], counts: &[f64], grid: Grid) -> f64 {
        const LANES: usize = 8;
        let mut sums = [0.0; LANES];
        let mut put = |lane: usize, count: f64, a: f64, b: f64| sums[lane] += count * (grid.integral(b) - grid.integral(a));
        let (blocks, rest) = counts.as_chunks::<LANES>();
        let (from, _) = edges.as_chunks::<LANES>();
        let (to, _) = edges.get(1..).unwrap_or_default().as_chunks::<LANES>();
        for ((counts, from), to) in blocks.iter().zip(from).zip(to) {
            for lane in 0..LANES {
                put(lane, counts[lane], from[lane], to[lane]);
            }
        }
        let start = blocks.len() * LANES;
        let ends = edges[start..].windows(2);
        for (lane, (&count, ends)) in rest.iter().zip(ends).enumerate() {
            put(lane, count, ends[0], ends[1]);
        }
        sums.iter().sum()
    }
}

/// Σ(x − x̂)² expected for all values of a tensor: rounding inside the range, clipping outside it.
pub fn histogram_noise(stats: &TensorStats, params: &QuantParams) -> f64 {
    Density::new(stats).noise(params)
}

/// Signal to noise in dB expected from rounding and clipping an activation; infinite when nothing changes.
pub fn histogram_sqnr(stats: &TensorStats, params: &QuantParams) -> f64 {
    decibels(stats.sum_sq, histogram_noise(stats, params))
}
