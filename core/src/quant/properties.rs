//! What must hold for any weights, ranges and activations.

use proptest::prelude::*;

use super::{QuantizedWeight, WeightLayout, activation_params, clip_range, histogram_noise, quantize_weight};
use crate::plan::{Choice, Clip, Granularity, Precision, Symmetry};
use crate::stats::TensorStats;

fn any_symmetry() -> impl Strategy<Value = Symmetry> {
    prop_oneof![Just(Symmetry::Symmetric), Just(Symmetry::Asymmetric)]
}

/// Weights with outliers, runs of zeros and every size, in any layout.
fn any_weight() -> impl Strategy<Value = (Vec<f32>, WeightLayout)> {
    (1_usize..20, 1_usize..6, 1_usize..8).prop_flat_map(|(outer, channels, inner)| {
        let value = prop_oneof![4 => -1.0_f32..1.0, 1 => Just(0.0_f32), 1 => -50.0_f32..50.0, 1 => -1e-3_f32..1e-3];
        let layout = WeightLayout { outer, channels, inner };
        (prop::collection::vec(value, layout.len()), Just(layout))
    })
}

fn any_choice() -> impl Strategy<Value = Choice> {
    let precision = prop_oneof![Just(Precision::Int8), Just(Precision::Int4)];
    let granularity =
        prop_oneof![Just(Granularity::PerTensor), Just(Granularity::PerChannel), Just(Granularity::Block(16))];
    (precision, any_symmetry(), granularity).prop_map(|(precision, symmetry, granularity)| Choice {
        precision,
        symmetry,
        granularity,
        ..Choice::FLOAT
    })
}

fn error(values: &[f32], weight: &QuantizedWeight) -> f64 {
    values.iter().zip(weight.dequantize()).map(|(&a, b)| (f64::from(a) - f64::from(b)).powi(2)).sum()
}

proptest! {
    #[test]
    fn weights_stay_within_half_a_step((values, layout) in any_weight(), choice in any_choice()) {
        let weight = quantize_weight(&values, layout, &choice);
        let groups = match choice.granularity {
            Granularity::PerTensor => 1,
            Granularity::PerChannel => layout.channels,
            Granularity::Block(size) => layout.channels * layout.depth().div_ceil(size as usize),
        };
        prop_assert_eq!(weight.scales.len(), groups);
        prop_assert_eq!(weight.zero_points.len(), groups);
        prop_assert!(weight.scales.iter().all(|&scale| scale.is_finite() && scale > 0.0));
        if choice.symmetry == Symmetry::Symmetric {
            prop_assert!(weight.zero_points.iter().all(|&z| z == 0));
        }
        let symmetric_int8 = choice.precision == Precision::Int8 && choice.symmetry == Symmetry::Symmetric;
        let smallest = if choice.precision == Precision::Int4 { -8 } else if symmetric_int8 { -127 } else { -128 };
        prop_assert!(weight.values.iter().all(|&q| q >= smallest && (choice.precision == Precision::Int8 || q <= 7)));
        let restored = weight.dequantize();
        let blocks = weight.blocks();
        for c in 0..layout.channels {
            for k in 0..layout.depth() {
                let i = layout.index(c, k);
                let group = match choice.granularity {
                    Granularity::PerTensor => 0,
                    Granularity::PerChannel => c,
                    Granularity::Block(size) => c * blocks + k / size as usize,
                };
                let scale = weight.scales[group];
                prop_assert_eq!(restored[i], (f32::from(weight.values[i]) - f32::from(weight.zero_points[group])) * scale);
                // The zero point's own rounding can cost the ends another half step; the odd level of int4 a whole one.
                let reach = if choice.precision == Precision::Int4 { 1.01 } else { 1.001 };
                prop_assert!((restored[i] - values[i]).abs() <= scale * reach, "{} {} {scale}", restored[i], values[i]);
            }
        }
    }

    #[test]
    fn searched_clips_are_never_worse((values, layout) in any_weight(), choice in any_choice()) {
        let plain = error(&values, &quantize_weight(&values, layout, &choice));
        let searched = error(&values, &quantize_weight(&values, layout, &Choice { clip: Clip::Mse, ..choice }));
        prop_assert!(searched <= plain * (1.0 + 1e-9), "{searched} {plain}");
    }

    #[test]
    fn non_finite_weights_are_counted_and_harmless((mut values, layout) in any_weight(), choice in any_choice()) {
        values[0] = f32::NAN;
        let last = values.len() - 1;
        if last > 0 {
            values[last] = f32::NEG_INFINITY;
        }
        let weight = quantize_weight(&values, layout, &Choice { clip: Clip::Mse, ..choice });
        prop_assert_eq!(weight.non_finite, 1 + usize::from(last > 0));
        prop_assert!(weight.dequantize().iter().all(|x| x.is_finite()));
    }

    #[test]
    fn clip_ranges_hold_zero_and_lie_within_what_was_seen(
        values in prop::collection::vec(prop_oneof![4 => -1.0_f32..3.0, 1 => Just(0.0_f32), 1 => -1e4_f32..1e3], 1..400),
        symmetry in any_symmetry(),
        clip in prop_oneof![Just(Clip::MinMax), Just(Clip::Mse), Just(Clip::Entropy), (50.1_f32..100.0).prop_map(Clip::Percentile)],
    ) {
        let mut stats = TensorStats::default();
        stats.observe(&values);
        let (lo, hi) = clip_range(&stats, clip, symmetry, 8);
        let (min, max) = stats.range();
        prop_assert!(min <= lo && lo <= 0.0 && 0.0 <= hi && hi <= max, "{lo} {hi} of {min} {max}");
        if clip == Clip::Mse {
            let noise = |lo, hi| histogram_noise(&stats, &activation_params(lo, hi, symmetry));
            prop_assert!(noise(lo, hi) <= noise(min, max));
        }
    }

    #[test]
    fn params_are_usable_for_any_range(lo in any::<f32>(), hi in any::<f32>(), symmetry in any_symmetry()) {
        let params = activation_params(lo, hi, symmetry);
        prop_assert!(params.scale.is_finite() && params.scale > 0.0);
        prop_assert!((0..=255).contains(&params.zero_point));
        prop_assert_eq!(params.fake(0.0), 0.0);
        prop_assert!((0..=255).contains(&params.quantize(lo)) && (0..=255).contains(&params.quantize(hi)));
    }
}
