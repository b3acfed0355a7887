//! Clip ranges of activations, from their histograms.

mod mse;

use crate::plan::{Clip, Symmetry};
use crate::stats::TensorStats;

/// The range that an activation is quantized in: contains 0 and lies within what was seen (or was set by hand).
///
/// - `minmax`: all that was seen.
/// - `percentile:P`: cuts `(100 − P) / 2` percent of the values (zeros counted) from each end, as ONNX Runtime's
///   percentile calibration does; by magnitude when symmetric.
/// - `mse`: the range with the least squared error that the histogram promises for `bits` bits; never worse than
///   `minmax` by that measure.
/// - `manual`: the range given, widened to contain 0.
///
/// When symmetric, quantization uses the larger of the two magnitudes.
pub fn clip_range(stats: &TensorStats, clip: Clip, symmetry: Symmetry, bits: u32) -> (f32, f32) {
    if let Clip::Manual { lo, hi } = clip {
        return (lo.min(0.0), hi.max(0.0));
    }
    if stats.count == 0 {
        return (0.0, 0.0);
    }
    match clip {
        Clip::Percentile(share) => percentile(stats, f64::from(share) / 100.0, symmetry),
        Clip::Mse => mse::search(stats, symmetry, bits),
        Clip::MinMax | Clip::Manual { .. } => stats.range(),
    }
}

fn percentile(stats: &TensorStats, share: f64, symmetry: Symmetry) -> (f32, f32) {
    let (lo, hi) = stats.range();
    let cut = (1.0 - share).clamp(0.0, 1.0) * stats.count as f64;
    match symmetry {
        Symmetry::Asymmetric => {
            let above = tail(stats.histogram.bins().rev().map(|(lo, hi, n)| (hi, lo, n)), cut / 2.0);
            let below = tail(stats.histogram.bins(), cut / 2.0);
            ((below as f32).clamp(lo, 0.0), (above as f32).clamp(0.0, hi))
        }
        Symmetry::Symmetric => {
            let radius = radius(stats, cut);
            (lo.max(-radius), hi.min(radius))
        }
    }
}

/// Where `cut` values lie on the outer side; bins come from the outermost inwards as (outer edge, inner edge, count).
/// 0 when the bins on this side hold fewer.
fn tail(bins: impl Iterator<Item = (f64, f64, u64)>, mut cut: f64) -> f64 {
    for (outer, inner, count) in bins {
        let count = count as f64;
        if count > cut {
            return outer + (inner - outer) * (cut / count);
        }
        cut -= count;
    }
    0.0
}

/// The magnitude that `cut` values exceed.
fn radius(stats: &TensorStats, cut: f64) -> f32 {
    let mut bins: Vec<_> =
        stats.histogram.bins().map(|(lo, hi, n)| (lo.abs().max(hi.abs()), lo.abs().min(hi.abs()), n)).collect();
    bins.sort_by(|a, b| b.0.total_cmp(&a.0));
    tail(bins.into_iter(), cut) as f32
}
