//! A mean over all positions of a convolution's output, written as what it is: GlobalAveragePool.
//!
//! Exporters write ReduceMean for it, which the runtime has no integer kernel for.

use std::collections::HashMap;

use crate::model::graph::{Links, int_attribute, ints_attribute};
use crate::onnx::proto::{GraphProto, NodeProto, TensorProto};
use crate::onnx::{OnnxError, OnnxFile, build};
use crate::operators::is_default_domain;
use crate::tensor::Values;

/// Rewrites every such mean of `graph`. The value is the same but for rounding in the last place.
pub fn rewrite(graph: &mut GraphProto, file: &OnnxFile) -> Result<(), OnnxError> {
    let links = Links::of(graph);
    let constants: HashMap<&str, &TensorProto> =
        graph.initializer.iter().map(|tensor| (tensor.name(), tensor)).collect();
    let mut replaced: HashMap<usize, Vec<NodeProto>> = HashMap::new();
    for (at, node) in graph.node.iter().enumerate() {
        if node.op_type() != "ReduceMean" || !is_default_domain(node.domain()) {
            continue;
        }
        let (Some(input), Some(output)) = (node.input.first(), node.output.first()) else { continue };
        let axes = match node.input.get(1).filter(|name| !name.is_empty()) {
            None => ints_attribute(node, "axes").to_vec(),
            Some(name) => match constants.get(name.as_str()) {
                Some(tensor) => match file.read(tensor)?.values {
                    Values::I64(values) => values,
                    _ => continue,
                },
                None => continue,
            },
        };
        let Some(rank) = rank(graph, &links, &constants, input) else { continue };
        let mut axes: Vec<i64> = axes.iter().map(|&axis| if axis < 0 { axis + rank } else { axis }).collect();
        axes.sort_unstable();
        if axes.is_empty() || !axes.into_iter().eq(2..rank) {
            continue;
        }
        let pool = |output: &str| build::node("GlobalAveragePool", "", node.name(), &[input], &[output], Vec::new());
        let nodes = if int_attribute(node, "keepdims", 1) == 0 {
            let pooled = format!("{output}_pooled");
            let axis = vec![build::attr_int("axis", 1)];
            vec![pool(&pooled), build::node("Flatten", "", "", &[pooled.as_str()], &[output.as_str()], axis)]
        } else {
            vec![pool(output)]
        };
        replaced.insert(at, nodes);
    }
    if !replaced.is_empty() {
        let nodes = std::mem::take(&mut graph.node);
        graph.node = nodes
            .into_iter()
            .enumerate()
            .flat_map(|(at, node)| replaced.remove(&at).unwrap_or_else(|| vec![node]))
            .collect();
    }
    Ok(())
}

/// Rank of a tensor that a convolution made, through operators that keep it; `None` when that is not certain.
fn rank(graph: &GraphProto, links: &Links, constants: &HashMap<&str, &TensorProto>, tensor: &str) -> Option<i64> {
    let mut name = tensor;
    for _ in 0..graph.node.len() {
        let node = graph.node.get(*links.producer.get(name)?)?;
        match node.op_type() {
            "Conv" => return constants.get(node.input.get(1)?.as_str()).map(|weight| weight.dims.len() as i64),
            "Relu" | "Clip" | "LeakyRelu" | "Sigmoid" | "HardSigmoid" | "HardSwish" | "BatchNormalization"
            | "MaxPool" | "AveragePool" | "Identity" => name = node.input.first()?,
            // A residual sum of equal ranks: either side tells.
            "Add" | "Mul" => {
                name = node.input.iter().find(|input| links.producer.contains_key(input.as_str()))?;
            }
            _ => return None,
        }
    }
    None
}
