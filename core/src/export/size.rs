//! Size of the quantized file, known before anything is written.

use std::collections::HashSet;

use prost::Message;

use crate::export::context::home;
use crate::export::forms::{Form, Pick, pick};
use crate::export::nbits;
use crate::export::stored::INT4_OPSET;
use crate::model::graph::Links;
use crate::model::{Layer, Model, Weight};
use crate::onnx::proto::NodeProto;
use crate::operators;
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

/// Predicted bytes of the file that `plan` makes: what is there now, less the weights, plus what they become and the nodes
/// around them. In a small model the nodes weigh as much as the weights.
pub fn predicted_size(model: &Model, plan: &Plan) -> u64 {
    // What the prepared graph lacks (constants merged, weights folded) is not in the export either.
    let prepared = model.graph.encoded_len() as u64;
    let mut size = (model.file.size_bytes + prepared).saturating_sub(model.file.proto.encoded_len() as u64);
    let mut seen = HashSet::new();
    let mut statics = Vec::new();
    for layer in &model.layers {
        let pick = pick(model, layer, plan.choice(&layer.name), None);
        if pick.form == Form::Float {
            continue;
        }
        for weight in &layer.weights {
            if seen.insert((home(layer, weight), &weight.tensor)) {
                size = size.saturating_sub(weight.size_bytes) + weight_bytes(weight, &pick);
                size += node_bytes(model.opset, weight, &pick);
            }
        }
        if matches!(pick.form, Form::Qdq | Form::Int4CastQdq) {
            statics.push(layer);
            if let (Some(bias), Some(weight)) = (&layer.bias, layer.weight()) {
                let channels =
                    (weight.layout.channels * if layer.op == "ConvTranspose" { layer.groups } else { 1 }) as u64;
                // int32 for float32, and a scale and a zero point each.
                size += 8 * channels + 8 * written(bias) + 170;
            }
        } else {
            size += 100;
        }
    }
    size + activation_bytes(model, &statics)
}

/// Bytes of a name derived from this one (see `Patch::fresh`).
fn written(name: &str) -> u64 {
    name.len().min(48) as u64
}

/// Bytes of the nodes that turn a stored weight into one that its layer reads: about how often its name is repeated,
/// and what surrounds the names.
fn node_bytes(opset: i64, weight: &Weight, pick: &Pick) -> u64 {
    let name = written(&weight.tensor);
    let is_blocks =
        matches!(pick.choice.granularity, Granularity::Block(size) if weight.layout.depth() > size as usize);
    // Below the operator set with 4-bit tensors, eight nodes unpack them.
    let unpacked = if pick.choice.precision == Precision::Int4 && opset < INT4_OPSET { 13 * name + 330 } else { 0 };
    match pick.form {
        Form::Qdq => 8 * name + 170,
        Form::Int4CastQdq => 10 * name + 250 + unpacked,
        Form::FoldedWeights => {
            let zero_point = if pick.choice.symmetry == Symmetry::Asymmetric { 4 * name + 120 } else { 0 };
            let blocks = if is_blocks { 6 * name + 250 } else { 0 };
            5 * name + 90 + zero_point + blocks + unpacked
        }
        _ => 3 * name + 60 + if pick.form == Form::DynamicMatmul { unpacked } else { 0 },
    }
}

/// Bytes of the QuantizeLinear and DequantizeLinear of every activation that static layers read or make, and of those
/// that operators hand on to them.
fn activation_bytes(model: &Model, layers: &[&Layer]) -> u64 {
    let Some(graph) = model.graph.graph.as_ref().filter(|_| !layers.is_empty()) else { return 0 };
    let links = Links::of(graph);
    let mut open: Vec<&str> = Vec::new();
    for layer in layers {
        open.push(&layer.input);
        if layer.op == "Conv" {
            open.push(&layer.observed);
        }
    }
    // As the exporter decides it (see `activations`): forward from what layers make and read, back from what they read.
    let data = |node: &'_ NodeProto| operators::data_inputs(node.op_type(), node.input.len());
    let mut available: HashSet<&str> = open.iter().copied().collect();
    let mut passing = HashSet::new();
    for (at, node) in graph.node.iter().enumerate() {
        let mut inputs = node.input.iter().take(data(node)).peekable();
        if operators::pass_through(node.op_type(), node.domain()).is_some()
            && inputs.peek().is_some()
            && inputs.all(|name| available.contains(name.as_str()))
        {
            available.extend(node.output.iter().map(String::as_str));
            passing.insert(at);
        }
    }
    let mut tensors = HashSet::new();
    while let Some(name) = open.pop() {
        if !tensors.insert(name) {
            continue;
        }
        let producer = links.producer.get(name).filter(|at| passing.contains(at)).and_then(|&at| graph.node.get(at));
        if let Some(node) = producer {
            open.extend(node.input.iter().take(data(node)).map(String::as_str));
        }
    }
    tensors.into_iter().map(|name| 11 * written(name) + 240).sum()
}
