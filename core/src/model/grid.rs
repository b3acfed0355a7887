//! Scales that a file brings with it: of weights trained quantization-aware elsewhere.
//!
//! Such a file holds a float weight behind QuantizeLinear and DequantizeLinear. What was trained is the rounded weight, so
//! the prepared graph holds that, beside the grid it lies on: quantizing it to the grid gives the integers that
//! QuantizeLinear gives, bit for bit, since `round(q · s / s) = q` in float32.

use crate::onnx::proto::TensorProto;
use crate::onnx::{OnnxError, OnnxFile};
use crate::plan::{Choice, Granularity, Precision, Symmetry};
use crate::quant::{QuantParams, QuantizedWeight, WeightLayout};

/// Scales and zero points of a weight as the file has them, on signed integers.
#[derive(Clone, Debug, PartialEq)]
pub struct Grid {
    /// The precision its integers have.
    pub precision: Precision,
    /// Symmetric when every zero point is 0.
    pub symmetry: Symmetry,
    /// Which weights share a scale.
    pub granularity: Granularity,
    /// One scale a group, as in [`QuantizedWeight::scales`].
    pub scales: Vec<f32>,
    /// One zero point a group.
    pub zero_points: Vec<i8>,
}

impl Grid {
    /// Whether a choice asks for what the file has: precision, symmetry and granularity.
    pub fn fits(&self, choice: &Choice) -> bool {
        self.precision == choice.precision
            && self.symmetry == choice.symmetry
            && self.granularity == choice.granularity
            && choice.weight_bits() == self.precision.bits()
    }

    /// The integers of weights that lie on this grid.
    pub fn quantize(&self, values: &[f32], layout: WeightLayout) -> QuantizedWeight {
        let bits = self.precision.bits();
        let half = 1_i32 << (bits - 1);
        let turned = layout.to_channel_major(values);
        let mut integers = vec![0_i8; turned.len()];
        let (channel, size) = spans(layout, self.granularity);
        let mut group = 0;
        for (values, out) in turned.chunks(channel).zip(integers.chunks_mut(channel)) {
            for (values, out) in values.chunks(size).zip(out.chunks_mut(size)) {
                let scale = self.scales.get(group).copied().unwrap_or(1.0);
                let zero_point = self.zero_points.get(group).copied().unwrap_or(0);
                let params = QuantParams { scale, zero_point: i32::from(zero_point), qmin: -half, qmax: half - 1 };
                params.quantize_i8(values, out);
                group += 1;
            }
        }
        QuantizedWeight {
            bits,
            layout,
            granularity: self.granularity,
            values: layout.from_channel_major(integers),
            scales: self.scales.clone(),
            zero_points: self.zero_points.clone(),
            non_finite: 0,
        }
    }
}

/// Lengths, in channel-major order, of a channel (or the whole) and of the groups in it; both at least 1.
fn spans(layout: WeightLayout, granularity: Granularity) -> (usize, usize) {
    let depth = layout.depth().max(1);
    match granularity {
        Granularity::PerTensor => (layout.len().max(1), layout.len().max(1)),
        Granularity::PerChannel => (depth, depth),
        Granularity::Block(size) => (depth, (size as usize).clamp(1, depth)),
    }
}

/// The scale and the zero point of every single weight, in tensors of the weight's shape: what moves the weight (a
/// Transpose, a Reshape, a Slice) moves them alike.
#[derive(Clone, Debug)]
pub(super) struct Spread {
    pub scale: TensorProto,
    pub zero_point: TensorProto,
    pub precision: Precision,
}

impl Spread {
    /// The grid by the layer's own channels; `None` when weights of one channel have different scales that do not come in
    /// blocks either.
    pub(super) fn grid(&self, layout: WeightLayout, file: &OnnxFile) -> Result<Option<Grid>, OnnxError> {
        let (scale, zero_point) = (file.read_f32(&self.scale)?, file.read_f32(&self.zero_point)?);
        if scale.len() != layout.len() || zero_point.len() != layout.len() || layout.is_empty() {
            return Ok(None);
        }
        let (scale, zero_point) = (layout.to_channel_major(&scale), layout.to_channel_major(&zero_point));
        let granularities = [Granularity::PerTensor, Granularity::PerChannel]
            .into_iter()
            .chain([256, 128, 64, 32, 16].map(Granularity::Block));
        for granularity in granularities {
            let (channel, size) = spans(layout, granularity);
            let Some(scales) = groups(&scale, channel, size) else { continue };
            let Some(zero_points) = groups(&zero_point, channel, size) else { continue };
            let symmetric = zero_points.iter().all(|&zero_point| zero_point == 0.0);
            return Ok(Some(Grid {
                precision: self.precision,
                symmetry: if symmetric { Symmetry::Symmetric } else { Symmetry::Asymmetric },
                granularity,
                scales,
                zero_points: zero_points.iter().map(|&zero_point| zero_point as i8).collect(),
            }));
        }
        Ok(None)
    }
}

/// One value a group; `None` when a group holds different ones.
fn groups(values: &[f32], channel: usize, size: usize) -> Option<Vec<f32>> {
    values
        .chunks(channel)
        .flat_map(|channel| channel.chunks(size))
        .map(|group| {
            let first = *group.first()?;
            group.iter().all(|&value| value == first).then_some(first)
        })
        .collect()
}
