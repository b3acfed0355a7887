//! Weights as integers, for any layout and granularity.

use std::borrow::Cow;

use rayon::prelude::*;

use super::float16::float16_round_trip;
use super::group::Request;
use super::layout::WeightLayout;
use super::params::QuantParams;
use crate::plan::{Choice, Granularity, Precision};
use crate::simd::vectorised;

/// A quantized weight: `ŵ = (value − zero point) · scale`.
#[derive(Clone, Debug, PartialEq)]
pub struct QuantizedWeight {
    /// Bits of one weight: 8 or 4 (2 where the plan asks for it).
    pub bits: u32,
    /// Where the channels lie.
    pub layout: WeightLayout,
    /// Which weights share a scale.
    pub granularity: Granularity,
    /// The integers, one a weight, in the tensor's own order: −128..=127 or −8..=7.
    pub values: Vec<i8>,
    /// One scale a group: a tensor, a channel, or a block (channel by channel: `channel · blocks + block`).
    pub scales: Vec<f32>,
    /// One zero point a group, on the same integers; all 0 when symmetric.
    pub zero_points: Vec<i8>,
    /// NaN and infinities met in the weights. NaN is taken as 0, infinities as the largest finite weight.
    pub non_finite: usize,
}

impl QuantizedWeight {
    /// Weights that share a scale (the last block of a channel may be shorter); at least 1.
    pub fn group_size(&self) -> usize {
        spans(self.layout, self.granularity).1
    }

    /// Blocks in one channel; 1 unless quantized in blocks.
    pub fn blocks(&self) -> usize {
        let (channel, size) = spans(self.layout, self.granularity);
        channel.div_ceil(size)
    }

    /// The real values of the integers, in the tensor's own order.
    pub fn dequantize(&self) -> Vec<f32> {
        let (channel, size) = spans(self.layout, self.granularity);
        let blocks = channel.div_ceil(size);
        let turned = self.layout.to_channel_major(&self.values);
        let mut out = vec![0.0; turned.len()];
        out.par_chunks_mut(channel).zip(turned.par_chunks(channel)).enumerate().for_each(|(c, (out, values))| {
            for (b, (out, values)) in out.chunks_mut(size).zip(values.chunks(size)).enumerate() {
                let scale = self.scales.get(c * blocks + b).copied().unwrap_or_default();
                let zero_point = i32::from(self.zero_points.get(c * blocks + b).copied().unwrap_or_default());
                dequantize(values, out, scale, zero_point);
            }
        });
        self.layout.from_channel_major(out)
    }
}

/// Quantizes a weight as `choice` says (precision, symmetry, granularity, clip); a floating precision counts as int8.
///
/// With `reduce_range` int8 keeps to 7 bits, −63..63 or, asymmetric, −64..63. Else symmetric int8 uses ±127 with `scale = max|w| / 127`; symmetric int4 uses −8..7 with `max|w| / 7` or `max|w| / 8`,
/// whichever has less error; asymmetric uses the whole range, with int8 zero points. `mse` searches every group for the
/// clip with the least squared error and is never worse than `minmax`. `values` in excess of the layout are ignored,
/// missing ones are 0.
pub fn quantize_weight(values: &[f32], layout: WeightLayout, choice: &Choice) -> QuantizedWeight {
    let bits = if choice.is_integer() { choice.precision.bits() } else { 8 };
    let used = if choice.is_integer() { choice.weight_bits() } else { 8 };
    let request = Request { bits: used, symmetry: choice.symmetry, clip: choice.clip };
    let (values, non_finite) = usable(values, layout.len());
    let turned = layout.to_channel_major(&values);
    let mut integers = vec![0_i8; turned.len()];

    let (channel, size) = spans(layout, choice.granularity);
    let fitted: Vec<QuantParams> = turned
        .par_chunks(channel)
        .zip(integers.par_chunks_mut(channel))
        .flat_map_iter(|(values, out)| {
            values.chunks(size).zip(out.chunks_mut(size)).map(|(group, out)| {
                let params = request.fit(group);
                params.quantize_i8(group, out);
                params
            })
        })
        .collect();
    QuantizedWeight {
        bits,
        layout,
        granularity: choice.granularity,
        values: layout.from_channel_major(integers),
        scales: fitted.iter().map(|p| p.scale).collect(),
        zero_points: fitted.iter().map(|p| p.zero_point as i8).collect(),
        non_finite,
    }
}

/// Signal to noise of the weight itself in dB, `10·log10(Σw² / Σ(w − ŵ)²)`; infinite when nothing changes.
pub fn weight_sqnr(values: &[f32], layout: WeightLayout, choice: &Choice) -> f64 {
    let (values, _) = usable(values, layout.len());
    let rounded = match choice.precision {
        Precision::Float32 => return f64::INFINITY,
        Precision::Float16 => float16_round_trip(&values),
        _ => quantize_weight(&values, layout, choice).dequantize(),
    };
    let (signal, noise) = values.iter().zip(&rounded).fold((0.0, 0.0), |(signal, noise), (&w, &r)| {
        let (w, error) = (f64::from(w), f64::from(w) - f64::from(r));
        (signal + w * w, noise + error * error)
    });
    decibels(signal, noise)
}

/// Lengths, in channel-major order, of what is fitted in one go and of the groups in it; both at least 1.
pub(crate) fn spans(layout: WeightLayout, granularity: Granularity) -> (usize, usize) {
    let depth = layout.depth().max(1);
    match granularity {
        Granularity::PerTensor => (layout.len().max(1), layout.len().max(1)),
        Granularity::PerChannel => (depth, depth),
        Granularity::Block(size) => (depth, (size as usize).clamp(1, depth)),
    }
}

vectorised! {
    fn dequantize(values: &[i8], out: &mut [f32], scale: f32, zero_point: i32) {
        for (x, &q) in out.iter_mut().zip(values) {
            *x = i32::from(q).wrapping_sub(zero_point) as f32 * scale;
        }
    }
}

vectorised! {
    fn count_non_finite(values: &[f32]) -> usize {
        values.chunks(1 << 16).map(|run| run.iter().map(|x| u32::from(!x.is_finite())).sum::<u32>() as usize).sum()
    }
}

/// Exactly `len` finite values, and how many were not finite.
fn usable(values: &[f32], len: usize) -> (Cow<'_, [f32]>, usize) {
    let mut all = Cow::Borrowed(values.get(..len).unwrap_or(values));
    if all.len() < len {
        all.to_mut().resize(len, 0.0);
    }
    let non_finite = count_non_finite(&all);
    if non_finite > 0 {
        let largest = all.iter().filter(|x| x.is_finite()).fold(0.0, |a: f32, x| a.max(x.abs()));
        for x in all.to_mut().iter_mut().filter(|x| !x.is_finite()) {
            *x = if x.is_nan() { 0.0 } else { largest.copysign(*x) };
        }
    }
    (all, non_finite)
}

/// `10·log10(signal / noise)`; infinite without noise.
pub(crate) fn decibels(signal: f64, noise: f64) -> f64 {
    if noise == 0.0 { f64::INFINITY } else { 10.0 * (signal / noise).log10() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Clip, Symmetry};

    const INT8: Choice = Choice { precision: Precision::Int8, ..Choice::FLOAT };
    const INT4: Choice = Choice { precision: Precision::Int4, ..Choice::FLOAT };
    const COLUMNS: WeightLayout = WeightLayout { outer: 3, channels: 2, inner: 1 };

    #[test]
    fn channels_have_their_own_scale() {
        let weight = quantize_weight(&[1.27, 0.0, -0.5, 0.0, 0.01, 0.0], COLUMNS, &INT8);
        assert_eq!(weight.scales, [0.01, 1.0]);
        assert_eq!(weight.values, [127, 0, -50, 0, 1, 0]);
        assert_eq!(weight.dequantize()[1], 0.0);
    }

    #[test]
    fn asymmetric_ranges_use_all_integers() {
        let layout = WeightLayout { outer: 1, channels: 1, inner: 3 };
        let asymmetric = Choice { symmetry: Symmetry::Asymmetric, ..INT8 };
        let weight = quantize_weight(&[0.0, 1.0, 2.55], layout, &asymmetric);
        assert_eq!((weight.values, weight.zero_points), (vec![-128, -28, 127], vec![-128]));
    }

    #[test]
    fn the_odd_level_of_int4_is_used_where_it_pays() {
        let layout = WeightLayout { outer: 1, channels: 1, inner: 4 };
        let weight = quantize_weight(&[-8.0, 1.0, 3.0, 7.0], layout, &INT4);
        assert_eq!((weight.values, weight.scales), (vec![-8, 1, 3, 7], vec![1.0]));
        let weight = quantize_weight(&[7.0, 1.0, 3.0, -7.0], layout, &INT4);
        assert_eq!((weight.values, weight.scales), (vec![7, 1, 3, -7], vec![1.0]));
    }

    #[test]
    fn the_last_block_may_be_short_and_clips_by_hand_hold() {
        let layout = WeightLayout { outer: 20, channels: 2, inner: 1 };
        let values: Vec<f32> = (0..40).map(|i| (i - 20) as f32).collect();
        let blocks = Choice { granularity: Granularity::Block(16), ..INT4 };
        let weight = quantize_weight(&values, layout, &blocks);
        assert_eq!((weight.scales.len(), weight.blocks(), weight.group_size()), (4, 2, 16));
        let clip = Clip::Manual { lo: -5.0, hi: 2.0 };
        let clipped = quantize_weight(&values, layout, &Choice { clip, ..INT8 }).dequantize();
        assert!(clipped.iter().all(|x| x.abs() <= 5.0001));
        let asymmetric = Choice { clip, symmetry: Symmetry::Asymmetric, ..INT8 };
        assert!(quantize_weight(&values, layout, &asymmetric).dequantize().iter().all(|&x| x > -5.1 && x < 2.1));
    }

    #[test]
    fn percentiles_ignore_the_few_largest() {
        let layout = WeightLayout { outer: 1, channels: 1, inner: 1000 };
        let mut values: Vec<f32> = (0..1000).map(|i| i as f32 / 1000.0).collect();
        values[3] = 100.0;
        let clip = Clip::Percentile(99.8);
        let weight = quantize_weight(&values, layout, &Choice { clip, ..INT8 });
        assert!(weight.scales[0] < 1.0 / 126.0);
    }

    #[test]
    fn wrong_lengths_and_empty_tensors_do_no_harm() {
        assert_eq!(quantize_weight(&[1.0], COLUMNS, &INT8).values, [127, 0, 0, 0, 0, 0]);
        assert_eq!(quantize_weight(&[1.0; 9], COLUMNS, &INT8).values.len(), 6);
        let empty = WeightLayout { outer: 0, channels: 2, inner: 1 };
        for granularity in [Granularity::PerTensor, Granularity::PerChannel, Granularity::Block(16)] {
            assert!(quantize_weight(&[], empty, &Choice { granularity, ..INT8 }).dequantize().is_empty());
        }
    }

    #[test]
    fn tiny_and_huge_weights_keep_usable_scales() {
        let layout = WeightLayout { outer: 1, channels: 3, inner: 2 };
        for clip in [Clip::MinMax, Clip::Mse, Clip::Entropy, Clip::Percentile(99.0)] {
            for symmetry in [Symmetry::Symmetric, Symmetry::Asymmetric] {
                let choice = Choice { symmetry, clip, ..INT4 };
                let weight = quantize_weight(&[1e-45, -1e-45, f32::MAX, f32::MIN, 1e-30, 0.0], layout, &choice);
                assert!(weight.scales.iter().all(|&s| s.is_finite() && s >= f32::MIN_POSITIVE), "{weight:?}");
            }
        }
    }

    #[test]
    fn a_reduced_range_keeps_to_seven_bits() {
        let layout = WeightLayout { outer: 64, channels: 4, inner: 1 };
        let values: Vec<f32> = (0..256_u32).map(|i| (i.wrapping_mul(2_654_435_761) as i32) as f32 / 1e9).collect();
        for clip in [Clip::MinMax, Clip::Mse, Clip::Entropy, Clip::Percentile(99.0)] {
            for symmetry in [Symmetry::Symmetric, Symmetry::Asymmetric] {
                let reduced = Choice { symmetry, clip, reduce_range: true, ..INT8 };
                let weight = quantize_weight(&values, layout, &reduced);
                let least = if symmetry == Symmetry::Symmetric { -63 } else { -64 };
                assert!(weight.values.iter().all(|q| (least..=63).contains(q)), "{symmetry} {clip}");
                assert_eq!(weight.bits, 8);
                let loss = weight_sqnr(&values, layout, &Choice { reduce_range: false, ..reduced });
                let loss = loss - weight_sqnr(&values, layout, &reduced);
                // One bit is 6 dB of rounding; what clipping costs does not change with the bits.
                let most = if matches!(clip, Clip::MinMax | Clip::Mse) { 4.5..7.5 } else { -0.5..7.5 };
                assert!(most.contains(&loss), "{symmetry} {clip}: {loss} dB");
            }
        }
        let int4 = Choice { reduce_range: true, ..INT4 };
        assert_eq!(quantize_weight(&values, layout, &int4), quantize_weight(&values, layout, &INT4));
    }

    #[test]
    fn sqnr_falls_with_the_bits() {
        let layout = WeightLayout { outer: 64, channels: 32, inner: 1 };
        let values: Vec<f32> = (0..2048_u32).map(|i| (i.wrapping_mul(2_654_435_761) as i32) as f32 / 1e9).collect();
        let at = |choice: &Choice| weight_sqnr(&values, layout, choice);
        let half = at(&Choice { precision: Precision::Float16, ..INT8 });
        assert!(half > at(&INT8) && at(&INT8) > at(&INT4) + 20.0 && at(&Choice::FLOAT).is_infinite());
    }
}
