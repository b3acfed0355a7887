//! Finds the layers of a prepared model, in the main graph and in bodies of `If`, `Loop` and `Scan`.

use std::collections::HashMap;

use crate::limits;
use crate::model::graph::{Links, attribute, float_attribute, initializer, int_attribute, ints_attribute, tail};
use crate::model::{Layer, NodePath, RowCut, SamePadding, Weight, Window};
use crate::onnx::proto::{GraphProto, ModelProto, NodeProto, TensorProto, tensor_proto::DataType};
use crate::operators::{self, Traits, WeightedOperator};

/// Embeddings and the like below this many values are lookup tables, not weights: quantizing them saves nothing.
const SMALLEST_TABLE: u64 = 1024;

/// All layers, the main graph's first, each graph's in node order.
pub fn find(model: &ModelProto) -> Vec<Layer> {
    let mut layers = Vec::new();
    if let Some(graph) = &model.graph {
        walk(model, graph, &mut Vec::new(), "", &mut layers);
    }
    layers
}

fn walk(
    model: &ModelProto,
    graph: &GraphProto,
    bodies: &mut Vec<(usize, String)>,
    prefix: &str,
    layers: &mut Vec<Layer>,
) {
    let names = names(graph);
    let links = Links::of(graph);
    for (index, node) in graph.node.iter().enumerate() {
        let name = format!("{prefix}{}", names.get(index).map_or("", String::as_str));
        let path = NodePath { bodies: bodies.clone(), node: index };
        if let Some(layer) = layer(model, graph, node, path, &name, &links) {
            layers.push(layer);
        }
        if bodies.len() >= limits::MAX_SUBGRAPH_DEPTH {
            continue;
        }
        for attribute in &node.attribute {
            if let Some(body) = &attribute.g {
                bodies.push((index, attribute.name().to_owned()));
                walk(model, body, bodies, &format!("{name}/{}/", attribute.name()), layers);
                bodies.pop();
            }
        }
    }
}

/// The name of every node: its own, or `OP#index` where that is empty or repeated.
fn names(graph: &GraphProto) -> Vec<String> {
    let mut seen: HashMap<&str, usize> = HashMap::new();
    for node in &graph.node {
        *seen.entry(node.name()).or_default() += 1;
    }
    let own = |node: &NodeProto| !node.name().is_empty() && seen.get(node.name()) == Some(&1);
    graph
        .node
        .iter()
        .enumerate()
        .map(|(index, node)| if own(node) { node.name().to_owned() } else { format!("{}#{index}", node.op_type()) })
        .collect()
}

fn layer(
    model: &ModelProto,
    graph: &GraphProto,
    node: &NodeProto,
    path: NodePath,
    name: &str,
    links: &Links,
) -> Option<Layer> {
    let operator = operators::weighted(node.op_type(), node.domain())?;
    let traits = Traits {
        trans_b: int_attribute(node, "transB", 0) != 0,
        axis: int_attribute(node, "axis", 0),
        groups: usize::try_from(int_attribute(node, "group", 1)).unwrap_or(1).max(1),
    };
    let tensors: Vec<_> = operator
        .weights
        .iter()
        .filter_map(|slot| {
            let (tensor, depth) = initializer(model, &path.bodies, node.input.get(slot.input)?)?;
            Some((slot, tensor, depth))
        })
        .collect();
    // A MatMul of two activations, a Gather from an activation or a constant shape is no layer at all.
    let main = tensors.first().filter(|(slot, ..)| slot.input == operator.weights[0].input)?.1;
    if !is_float(main) {
        return None;
    }
    let parameters = tensors.iter().map(|(_, tensor, _)| elements(tensor)).sum();
    let mut weights = Vec::new();
    let mut reason = String::new();
    for (slot, tensor, depth) in &tensors {
        let shape: Vec<usize> = tensor.dims.iter().map(|&dim| usize::try_from(dim).unwrap_or(0)).collect();
        match (operator.layout)(&shape, &traits) {
            Some(layout) if !layout.is_empty() => weights.push(Weight {
                role: slot.role,
                tensor: tensor.name().to_owned(),
                input: slot.input,
                depth: *depth,
                shape,
                layout,
                is_f32: tensor.data_type() == DataType::Float as i32,
                size_bytes: elements(tensor) * element_bytes(tensor),
            }),
            _ => {
                reason = format!("{} with a weight of shape {shape:?} has no integer form", node.op_type());
            }
        }
    }
    if reason.is_empty() {
        reason = unsupported(node, operator, tensors.len(), parameters);
    }
    let output = node.output.first().filter(|name| !name.is_empty()).cloned().unwrap_or_default();
    let bias = operator
        .bias
        .and_then(|input| node.input.get(input))
        .filter(|name| initializer(model, &path.bodies, name).is_some())
        .cloned();
    Some(Layer {
        name: name.to_owned(),
        op: node.op_type().to_owned(),
        observed: tail(graph, links, &output).end,
        input: node.input.get(operator.activation).cloned().unwrap_or_default(),
        cut: cut(node, &weights),
        groups: if node.op_type().starts_with("Conv") { traits.groups } else { 1 },
        path,
        weights,
        output,
        bias,
        parameters,
        reason,
    })
}

/// Why the node as a whole cannot be quantized; empty when it can.
fn unsupported(node: &NodeProto, operator: &WeightedOperator, weights_found: usize, parameters: u64) -> String {
    if weights_found < operator.weights.len() {
        return "its second weight is not constant".to_owned();
    }
    if operator.op == "Gather" && parameters < SMALLEST_TABLE {
        return format!("a table of {parameters} values is too small to gain anything");
    }
    if operator.op == "Gemm" && int_attribute(node, "transA", 0) != 0 && float_attribute(node, "alpha", 1.0) == 0.0 {
        return "alpha is 0, so the weight has no effect".to_owned();
    }
    String::new()
}

fn cut(node: &NodeProto, weights: &[Weight]) -> RowCut {
    match node.op_type() {
        "Gemm" if int_attribute(node, "transA", 0) != 0 => RowCut::FirstAxis,
        "MatMul" | "Gemm" | "LSTM" | "GRU" => RowCut::LastAxis,
        "ConvTranspose" => RowCut::ChannelAxis,
        "Conv" => weights.first().and_then(|weight| window(node, &weight.shape)).map_or(RowCut::None, RowCut::Patches),
        _ => RowCut::None,
    }
}

fn window(node: &NodeProto, shape: &[usize]) -> Option<Window> {
    let kernel = shape.get(2..)?.to_vec();
    let sizes = |name: &str, default: usize| -> Option<Vec<usize>> {
        match ints_attribute(node, name) {
            [] => Some(vec![default; kernel.len()]),
            values if values.len() == kernel.len() => values.iter().map(|&v| usize::try_from(v).ok()).collect(),
            _ => None,
        }
    };
    let pads = match ints_attribute(node, "pads") {
        [] => vec![0; 2 * kernel.len()],
        values if values.len() == 2 * kernel.len() => {
            values.iter().map(|&v| usize::try_from(v).ok()).collect::<Option<_>>()?
        }
        _ => return None,
    };
    let same = match attribute(node, "auto_pad").map(|attribute| attribute.s.clone().unwrap_or_default()) {
        Some(text) if text.as_slice() == b"SAME_UPPER" => Some(SamePadding::Upper),
        Some(text) if text.as_slice() == b"SAME_LOWER" => Some(SamePadding::Lower),
        _ => None,
    };
    Some(Window { strides: sizes("strides", 1)?, dilations: sizes("dilations", 1)?, kernel, pads, same })
}

fn elements(tensor: &TensorProto) -> u64 {
    tensor.dims.iter().map(|&dim| u64::try_from(dim).unwrap_or(0)).product()
}

fn element_bytes(tensor: &TensorProto) -> u64 {
    match DataType::try_from(tensor.data_type()) {
        Ok(DataType::Double) => 8,
        Ok(DataType::Float16 | DataType::Bfloat16) => 2,
        _ => 4,
    }
}

fn is_float(tensor: &TensorProto) -> bool {
    matches!(
        DataType::try_from(tensor.data_type()),
        Ok(DataType::Float | DataType::Float16 | DataType::Bfloat16 | DataType::Double)
    )
}
