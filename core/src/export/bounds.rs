//! The Relu or Clip behind a layer, and quantization parameters that do its work.

use crate::export::activations::FindRange;
use crate::model::Model;
use crate::model::graph::float_attribute;
use crate::onnx::proto::GraphProto;
use crate::plan::{Choice, Symmetry};
use crate::quant::{QuantParams, activation_params};
use crate::stats::Stats;

/// The bounds of the Relu or Clip at this node; `None` when they are not constant.
pub fn bounds(model: &Model, graph: &GraphProto, node: usize) -> Option<(f32, f32)> {
    let node = graph.node.get(node)?;
    if node.op_type() == "Relu" {
        return Some((0.0, f32::INFINITY));
    }
    let input = |position: usize, default: f32| -> Option<f32> {
        let Some(name) = node.input.get(position).filter(|name| !name.is_empty()) else { return Some(default) };
        let tensor = graph.initializer.iter().find(|tensor| tensor.name() == name)?;
        model.file.read_f32(tensor).ok()?.first().copied()
    };
    if node.input.len() > 1 {
        Some((input(1, f32::NEG_INFINITY)?, input(2, f32::INFINITY)?))
    } else {
        let lo = float_attribute(node, "min", f32::NEG_INFINITY);
        Some((lo, float_attribute(node, "max", f32::INFINITY)))
    }
}

/// Whether quantizing to `params` alone does what the merged Relu or Clip (with these bounds) does, so that the
/// runtime can drop the operator. Otherwise the convolution before it would leave its integer kernel.
pub fn makes_redundant(params: &QuantParams, lo: f32, hi: f32) -> bool {
    let lowest = (params.qmin - params.zero_point) as f32 * params.scale;
    let highest = (params.qmax - params.zero_point) as f32 * params.scale;
    lowest >= lo && highest <= hi
}

/// Shrinks the scale by the last bits that make the highest value exceed a Clip's bound.
pub fn below(mut params: QuantParams, hi: f32) -> QuantParams {
    let steps = (params.qmax - params.zero_point) as f32;
    while params.scale * steps > hi && params.scale * steps <= hi * 1.000_01 {
        params.scale = params.scale.next_down();
    }
    params
}

/// Parameters that hold the whole range on both sides of zero, for the second pair before an activation that cannot be dropped.
pub fn before_activation(stats: &Stats, raw: &str, choice: &Choice, find: FindRange<'_>) -> Option<QuantParams> {
    let observed = stats.tensors.get(raw)?;
    let (lo, hi) = find(raw, observed, choice.activation_clip, Symmetry::Asymmetric, 8);
    Some(activation_params(lo, hi, Symmetry::Asymmetric))
}
