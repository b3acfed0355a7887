//! The error that a quantization will make, from the histogram alone: fast enough for every frame of a drag.

use super::params::QuantParams;
use super::weight::decibels;
use crate::simd::widest;
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
    ///
    /// In steps, u = x / scale and n the integer nearest to it (clamped): ∫(u − n)² du has the antiderivative
    /// n/12 + (u − n)³/3, clipped ends included, so a bin costs one evaluation and no loop over steps.
    pub(super) fn noise(&self, params: &QuantParams) -> f64 {
        let scale = f64::from(params.scale);
        let inverse = 1.0 / scale;
        let (lo, hi) = params.step_ends();
        let (lo, hi) = (f64::from(lo), f64::from(hi));
        let split = |edge: f64| {
            let u = edge * inverse;
            let n = (u.max(lo).min(hi) + ROUNDER) - ROUNDER;
            (n, u - n)
        };
        let integral = |edge: f64| {
            let (n, rest) = split(edge);
            n * (1.0 / 12.0) + rest * rest * rest * (1.0 / 3.0)
        };
        let point = |middle: f64| {
            let rest = split(middle).1;
            rest * rest
        };
        let noise = if self.width * inverse < POINT {
            let pairs = self.edges.iter().zip(self.edges.iter().skip(1));
            pairs.zip(&self.counts).map(|((&a, &b), &count)| count * point(0.5 * (a + b))).sum()
        } else {
            // All bins but the cut ones at the two ends are `width` wide.
            let inner = self.counts.len().saturating_sub(1).max(1);
            let ends = [0, self.counts.len().wrapping_sub(1)];
            let ends = if self.counts.len() > 1 { &ends[..] } else { &ends[..self.counts.len()] };
            let mut noise = 0.0;
            for &i in ends {
                let (a, b) = (self.edges[i], self.edges[i + 1]);
                let steps = (b - a) * inverse;
                let each = if steps < POINT { point(0.5 * (a + b)) } else { (integral(b) - integral(a)) / steps };
                noise += self.counts[i] * each;
            }
            noise + self.inner_noise(inner, integral) / (self.width * inverse)
        };
        noise * scale * scale
    }

    /// Σ count · (integral over the bin) of the whole bins `1..end`.
    #[inline(always)]
    #[allow(clippy::inline_always)] // the integral has to land inside the vectorised loop
    fn inner_noise(&self, end: usize, integral: impl Fn(f64) -> f64) -> f64 {
        const LANES: usize = 8;
        if end <= 1 {
            return 0.0;
        }
        let (counts, edges) = (&self.counts[1..end], &self.edges[1..=end]);
        widest(|| {
            let mut sums = [0.0; LANES];
            let (whole, rest) = counts.as_chunks::<LANES>();
            for (counts, edges) in whole.iter().zip(edges.windows(LANES + 1).step_by(LANES)) {
                for lane in 0..LANES {
                    sums[lane] += counts[lane] * (integral(edges[lane + 1]) - integral(edges[lane]));
                }
            }
            let from = whole.len() * LANES;
            for (i, count) in rest.iter().enumerate() {
                sums[i] += count * (integral(edges[from + i + 1]) - integral(edges[from + i]));
            }
            sums.iter().sum()
        })
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
