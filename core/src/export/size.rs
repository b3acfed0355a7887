//! Size of the quantized file, known before anything is written.

use std::collections::HashSet;

use prost::Message;

use crate::export::context::home;
use crate::export::forms::Form;
use crate::export::pick::{Pick, pick};
use crate::model::graph::Links;
use crate::model::{Layer, Model, Weight};
use crate::onnx::proto::NodeProto;
use crate::operators;
use crate::plan::Plan;

/// Bytes of a weight in the quantized file, with its scales and zero points.
pub fn weight_bytes(weight: &Weight, pick: &Pick) -> u64 {
    pick.form.writer().weight_bytes(weight, &pick.choice)
}

/// Bytes that a layer takes in the quantized file: its weights and the nodes around them and around its input. Conversions
/// that it shares with its neighbours count once, at the one that reads.
pub fn layer_bytes(model: &Model, layer: &Layer, pick: &Pick) -> u64 {
    let writer = pick.form.writer();
    let weights = layer
        .weights
        .iter()
        .map(|weight| writer.weight_bytes(weight, &pick.choice) + writer.node_bytes(weight, &pick.choice, model.opset));
    let input = if writer.runs_on_integers() { conversion_bytes(&layer.input) } else { 0 };
    weights.sum::<u64>() + writer.layer_bytes(layer) + input
}

/// Bytes of an activation's QuantizeLinear and DequantizeLinear with their parameters.
fn conversion_bytes(name: &str) -> u64 {
    11 * written(name) + 240
}

/// Predicted bytes of the file that `plan` makes: what is there now, less the weights, plus what they become and the nodes
/// around them. In a small model the nodes weigh as much as the weights.
pub fn predicted_size(model: &Model, plan: &Plan) -> u64 {
    let picks: Vec<Pick> =
        model.layers.iter().map(|layer| pick(model, layer, plan.choice(&layer.name), None)).collect();
    let links = model.graph.graph.as_ref().map(Links::of);
    size_with(model, bytes_around(model), &picks, links.as_ref())
}

/// Bytes of the prepared model as it is. What the prepared graph lacks (constants merged, weights folded) is not in the
/// export either.
pub(crate) fn bytes_around(model: &Model) -> u64 {
    let prepared = model.graph.encoded_len() as u64;
    (model.file.size_bytes + prepared).saturating_sub(model.file.proto.encoded_len() as u64)
}

/// [`predicted_size`] from [`bytes_around`], what becomes of the layers where nothing is calibrated, and the graph's links.
pub(crate) fn size_with(model: &Model, around: u64, picks: &[Pick], links: Option<&Links>) -> u64 {
    let mut size = around;
    let mut seen = HashSet::new();
    let mut statics = Vec::new();
    for (layer, pick) in model.layers.iter().zip(picks).filter(|(_, pick)| pick.form != Form::Float) {
        for weight in &layer.weights {
            if seen.insert((home(layer, weight), &weight.tensor)) {
                size = size.saturating_sub(weight.size_bytes) + weight_bytes(weight, pick);
                size += pick.form.writer().node_bytes(weight, &pick.choice, model.opset);
            }
        }
        if pick.form.writer().runs_on_integers() {
            statics.push(layer);
        }
        size += pick.form.writer().layer_bytes(layer);
    }
    size + links.map_or(0, |links| activation_bytes(model, links, &statics))
}

/// Bytes of a name derived from this one (see `Patch::fresh`).
pub(super) fn written(name: &str) -> u64 {
    name.len().min(48) as u64
}

/// Bytes of the QuantizeLinear and DequantizeLinear of every activation that static layers read or make, and of those
/// that operators hand on to them.
fn activation_bytes(model: &Model, links: &Links, layers: &[&Layer]) -> u64 {
    let Some(graph) = model.graph.graph.as_ref().filter(|_| !layers.is_empty()) else { return 0 };
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
    tensors.into_iter().map(conversion_bytes).sum()
}
