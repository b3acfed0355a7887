//! Clip ranges of activations, from their histograms.

mod entropy;
mod mse;

use crate::plan::{Clip, Symmetry};
use crate::stats::TensorStats;

/// The range that an activation is quantized in: contains 0 and lies within what was seen (or was set by hand).
///
/// - `minmax`: all that was seen (`trained` too: an activation that the file quantizes does not come here).
/// - `percentile:P`: cuts `(100 − P) / 2` percent of the values (zeros counted) from each end, as ONNX Runtime's
///   percentile calibration does; by magnitude when symmetric.
/// - `mse`: the range with the least squared error that the histogram promises for `bits` bits; never worse than
///   `minmax` by that measure.
/// - `entropy`: the range whose quantization diverges least from what was seen (Kullback–Leibler, as TensorRT does).
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
        Clip::Entropy => entropy::search(stats, symmetry, bits),
        Clip::MinMax | Clip::Trained | Clip::Manual { .. } => stats.range(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::{activation_params, histogram_noise, histogram_sqnr};
    use crate::stats::RowKey;

    fn stats(values: &[f32]) -> TensorStats {
        let mut stats = TensorStats::default();
        stats.observe(values);
        stats
    }

    /// Bell-shaped, deterministic.
    fn bell(count: u32) -> Vec<f32> {
        let uniform = |i: u32| (RowKey::new(0, 0, 0, u64::from(i)).0 >> 40) as f32 / 8_388_608.0 - 1.0;
        (0..count).map(|i| (0..6).map(|j| uniform(i * 6 + j)).sum()).collect()
    }

    fn measured(values: &[f32], params: &crate::quant::QuantParams) -> f64 {
        values.iter().map(|&x| (f64::from(x) - f64::from(params.fake(x))).powi(2)).sum()
    }

    #[test]
    fn percentiles_cut_both_tails_alike_and_magnitudes_when_symmetric() {
        let values: Vec<f32> = (-1000..=1000).map(|i| i as f32 / 10.0).collect();
        let (lo, hi) = clip_range(&stats(&values), Clip::Percentile(90.0), Symmetry::Asymmetric, 8);
        assert!((lo + 90.0).abs() < 0.2 && (hi - 90.0).abs() < 0.2, "{lo} {hi}");
        let (lo, hi) = clip_range(&stats(&values), Clip::Percentile(90.0), Symmetry::Symmetric, 8);
        assert!((lo + 90.0).abs() < 0.2 && (hi - 90.0).abs() < 0.2, "{lo} {hi}");
        let positive: Vec<f32> = (0..1000).map(|i| i as f32).collect();
        let (lo, hi) = clip_range(&stats(&positive), Clip::Percentile(100.0), Symmetry::Asymmetric, 8);
        assert_eq!((lo, hi), (0.0, 999.0));
    }

    #[test]
    fn the_expected_error_is_close_to_the_measured_one() {
        let values = bell(100_000);
        let stats = stats(&values);
        for (lo, hi) in [(-6.0, 6.0), (-2.0, 3.0), (-0.5, 0.1), (0.0, 4.0), (-60.0, 60.0)] {
            for symmetry in [Symmetry::Symmetric, Symmetry::Asymmetric] {
                let params = activation_params(lo, hi, symmetry);
                let (expected, measured) = (histogram_noise(&stats, &params), measured(&values, &params));
                assert!((expected / measured - 1.0).abs() < 0.02, "{lo} {hi} {symmetry}: {expected} {measured}");
            }
        }
        assert_eq!(
            histogram_sqnr(&TensorStats::default(), &activation_params(0.0, 1.0, Symmetry::Symmetric)),
            f64::INFINITY
        );
    }

    #[test]
    fn a_single_outlier_among_many_is_clipped_but_not_at_any_price() {
        let mut values = bell(1_000_000);
        values[0] = 60.0;
        let (lo, hi) = clip_range(&stats(&values), Clip::Mse, Symmetry::Asymmetric, 8);
        assert!(hi < 40.0 && hi > 3.0 && lo <= -3.0, "{lo} {hi}");
        // Few other values: what clipping the large one costs is more than all their rounding.
        let mut few = bell(200);
        few[0] = 600.0;
        let (_, hi) = clip_range(&stats(&few), Clip::Mse, Symmetry::Asymmetric, 8);
        assert!(hi > 590.0, "{hi}");
    }

    #[test]
    fn zeros_cost_nothing_and_change_nothing() {
        let relu: Vec<f32> = bell(50_000).iter().map(|x| x.max(0.0)).collect();
        let positive: Vec<f32> = relu.iter().copied().filter(|&x| x > 0.0).collect();
        let with = clip_range(&stats(&relu), Clip::Mse, Symmetry::Asymmetric, 8);
        assert_eq!(with, clip_range(&stats(&positive), Clip::Mse, Symmetry::Asymmetric, 8));
        assert_eq!(with.0, 0.0);
        let zeros = stats(&[0.0; 100]);
        for clip in [Clip::Mse, Clip::MinMax, Clip::Percentile(99.0)] {
            assert_eq!(clip_range(&zeros, clip, Symmetry::Asymmetric, 8), (0.0, 0.0));
        }
    }

    #[test]
    fn values_held_at_an_upper_limit_are_kept() {
        // Clip(0, 6): many values exactly at the end, which a bin spread beyond it would blur.
        let values: Vec<f32> = bell(50_000).iter().map(|x| (x * 4.0).clamp(0.0, 6.0)).collect();
        let (_, hi) = clip_range(&stats(&values), Clip::Mse, Symmetry::Asymmetric, 8);
        assert!(hi > 5.97 && hi <= 6.0, "{hi}");
    }
}
