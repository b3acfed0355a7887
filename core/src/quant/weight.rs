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
/// Symmetric int8 uses ±127 with `scale = max|w| / 127`; symmetric int4 uses −8..7 with `max|w| / 7` or `max|w| / 8`,
/// whichever has less error; asymmetric uses the whole range, with int8 zero points. `mse` searches every group for the
/// clip with the least squared error and is never worse than `minmax`. `values` in excess of the layout are ignored,
/// missing ones are 0.
pub fn quantize_weight(values: &[f32], layout: WeightLayout, choice: &Choice) -> QuantizedWeight {
    let bits = if choice.is_integer() { choice.precision.bits() } else { 8 };
    let request = Request { bits, symmetry: choice.symmetry, clip: choice.clip };
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
fn spans(layout: WeightLayout, granularity: Granularity) -> (usize, usize) {
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
            *x = (i32::from(q) - zero_point) as f32 * scale;
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
