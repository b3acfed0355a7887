//! Size of the quantized file, known before anything is written.

use crate::export::context::home;
use crate::export::forms::{Form, Pick, pick};
use crate::export::nbits;
use crate::export::stored::INT4_OPSET;
use crate::model::{Model, Weight};
use crate::plan::{Granularity, Plan, Precision, Symmetry};

/// Bytes of a weight in the quantized file, with its scales and zero points.
pub fn weight_bytes(weight: &Weight, pick: &Pick) -> u64 {
    let layout = weight.layout;
    let (count, channels, depth) = (layout.len() as u64, layout.channels as u64, layout.depth() as u64);
    let choice = &pick.choice;
    let groups = match choice.granularity {
        Granularity::PerTensor => 1,
        Granularity::PerChannel => channels,
        Granularity::Block(size) => channels * depth.div_ceil(u64::from(size)),
    };
    let values = (count * u64::from(choice.precision.bits())).div_ceil(8);
    match pick.form {
        Form::Float => weight.size_bytes,
        Form::Float16Weights => count * 2,
        Form::MatmulNbits => {
            let block = match choice.granularity {
                Granularity::Block(size) => u64::from(size),
                _ => nbits::BLOCK as u64,
            };
            let blocks = depth.div_ceil(block);
            let bits = u64::from(choice.precision.bits());
            let zero_points =
                if choice.symmetry == Symmetry::Asymmetric { channels * (blocks * bits).div_ceil(8) } else { 0 };
            channels * blocks * block * bits / 8 + channels * blocks * 4 + zero_points
        }
        Form::FoldedWeights => values + groups * 4 + if choice.symmetry == Symmetry::Asymmetric { groups } else { 0 },
        _ => values + groups * 5,
    }
}

/// Predicted bytes of the file that `plan` makes: what is there now, less the weights, plus what they become. What the
/// nodes around them add is estimated.
pub fn predicted_size(model: &Model, plan: &Plan) -> u64 {
    let mut size = model.file.size_bytes;
    let mut seen = std::collections::HashSet::new();
    for layer in &model.layers {
        let pick = pick(model, layer, plan.choice(&layer.name), None);
        if pick.form == Form::Float {
            continue;
        }
        for weight in &layer.weights {
            if seen.insert((home(layer, weight), &weight.tensor)) {
                size = size.saturating_sub(weight.size_bytes) + weight_bytes(weight, &pick);
            }
        }
        // Nodes, names and the parameters of activations; measured on the samples and on models of 50 layers and more.
        size += if matches!(pick.form, Form::Qdq | Form::Int4CastQdq) {
            let channels = layer.weight().map_or(0, |weight| weight.layout.channels as u64);
            // An int32 bias has a scale and a zero point a channel.
            1000 + if layer.bias.is_some() { 8 * channels } else { 0 }
        } else {
            300
        };
        let unpacked = matches!(pick.form, Form::FoldedWeights | Form::Int4CastQdq | Form::DynamicMatmul);
        if unpacked && pick.choice.precision == Precision::Int4 && model.opset < INT4_OPSET {
            size += 700;
        }
    }
    size
}
