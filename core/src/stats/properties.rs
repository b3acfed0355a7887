//! What must hold for statistics, whatever the values, their order and their batches.

use proptest::prelude::*;

use super::TensorStats;

/// Ordinary values, edges of bins, zeros of both signs, subnormals, the largest, and what is no number.
fn any_value() -> impl Strategy<Value = f32> {
    prop_oneof![
        8 => -4.0_f32..4.0,
        2 => (-20_i32..20, -3_i32..3).prop_map(|(n, k)| n as f32 * 2.0_f32.powi(k)),
        1 => Just(0.0_f32),
        1 => Just(-0.0_f32),
        1 => any::<f32>(),
        1 => (0_u32..0x0080_0000).prop_map(f32::from_bits),
        1 => (0_u32..0x0080_0000).prop_map(|bits| -f32::from_bits(bits)),
        1 => prop_oneof![Just(f32::MAX), Just(f32::MIN), Just(f32::INFINITY), Just(f32::NAN)],
    ]
}

fn observed<'a>(batches: impl Iterator<Item = &'a [f32]>) -> TensorStats {
    let mut stats = TensorStats::default();
    for batch in batches {
        stats.observe(batch);
    }
    stats
}

proptest! {
    #[test]
    fn histograms_depend_only_on_the_values(
        values in prop::collection::vec(any_value(), 0..300),
        shuffled in any::<prop::sample::Index>(),
        size in 1_usize..40,
        seed in any::<u64>(),
    ) {
        let whole = observed(std::iter::once(&values[..]));
        let mut other = values.clone();
        // A shuffle of our own, so that a failing case shrinks.
        for i in (1..other.len()).rev() {
            other.swap(i, (seed.rotate_left(i as u32) % (i as u64 + 1)) as usize);
        }
        let batches = observed(other.chunks(size));
        prop_assert_eq!(&whole.histogram, &batches.histogram);
        prop_assert_eq!((whole.count, whole.non_finite), (batches.count, batches.non_finite));
        prop_assert_eq!((whole.min, whole.max), (batches.min, batches.max));

        let split = if other.is_empty() { 0 } else { shuffled.index(other.len()) };
        let mut merged = observed(std::iter::once(&other[..split]));
        merged.merge(&observed(std::iter::once(&other[split..])));
        prop_assert_eq!(&whole.histogram, &merged.histogram);
        prop_assert_eq!((whole.count, whole.non_finite), (merged.count, merged.non_finite));
    }

    #[test]
    fn every_value_lies_in_its_bin(values in prop::collection::vec(any_value(), 1..100)) {
        let stats = observed(std::iter::once(&values[..]));
        let finite: Vec<f64> = values.iter().filter(|x| x.is_finite()).map(|&x| f64::from(x)).collect();
        prop_assert_eq!(stats.count, finite.len() as u64);
        prop_assert_eq!(stats.non_finite, (values.len() - finite.len()) as u64);
        prop_assert_eq!(stats.histogram.zeros, finite.iter().filter(|x| **x == 0.0).count() as u64);
        prop_assert_eq!(stats.histogram.total(), stats.count);
        for (lo, hi, count) in stats.histogram.bins() {
            // Half-open away from zero.
            let inside = |x: f64| if lo < 0.0 { lo < x && x <= hi } else { lo <= x && x < hi };
            prop_assert_eq!(count, finite.iter().filter(|x| **x != 0.0 && inside(**x)).count() as u64, "{} {}", lo, hi);
        }
        let sum: f64 = finite.iter().sum();
        prop_assert!((stats.sum - sum).abs() <= 1e-6 * finite.iter().map(|x| x.abs()).sum::<f64>());
    }
}

/// The tables of large tensors count as the direct way does, also where the range grows in the middle.
#[test]
fn large_tensors_count_as_small_ones() {
    let mut values: Vec<f32> = (0..200_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) as i32) as f32 / 1e9).collect();
    values[77_777] = 1e6;
    values[100_000] = f32::NAN;
    values[150_000] = -0.0;
    let (whole, batches) = (observed(std::iter::once(&values[..])), observed(values.chunks(1000)));
    assert_eq!(whole.histogram, batches.histogram);
    assert_eq!((whole.count, whole.non_finite), (199_999, 1));
    assert_eq!(whole.max, 1e6);
}

#[test]
fn threads_change_nothing() {
    let values: Vec<f32> =
        (0..900_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) as i32) as f32 / 1e9 + 1e-3).collect();
    let (mut alone, mut together) = (TensorStats::default(), TensorStats::default());
    for _ in 0..2 {
        assert_eq!(alone.observe(&values), together.observe_parallel(&values));
    }
    assert_eq!(alone, together);
}

#[test]
fn a_tensor_of_zeros_and_an_empty_one() {
    let mut stats = TensorStats::default();
    assert_eq!(stats.observe(&[]), (0.0, 0.0));
    assert_eq!(stats.observe(&[f32::NAN]), (0.0, 0.0));
    assert_eq!(stats.range(), (0.0, 0.0));
    stats.observe(&[0.0, -0.0, 0.0]);
    assert_eq!((stats.count, stats.histogram.zeros, stats.histogram.bins().count()), (3, 3, 0));
}
