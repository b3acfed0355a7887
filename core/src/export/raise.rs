//! Old models raised to operator set 10, the first with integer convolutions and matrix products.
//!
//! ONNX Runtime fuses QuantizeLinear and DequantizeLinear into QLinearConv whatever the operator set is, and then refuses
//! the model because the set has none. Between 7 and 10 few operators changed; those are rewritten here, and where one
//! cannot be, static layers are stored instead.

use crate::model::graph::{bodies, bodies_mut, ints_attribute};
use crate::onnx::build;
use crate::onnx::proto::{GraphProto, ModelProto, NodeProto, TensorProto};
use crate::operators::is_default_domain;

/// The lowest operator set with QLinearConv and QLinearMatMul.
pub const INTEGER_OPSET: i64 = 10;
/// The lowest operator set of which ONNX Runtime has the operators that exports are written with; below it, broadcasting
/// was an attribute.
pub const LOWEST: i64 = 7;
/// Operators that went before 10 without a successor, or whose meaning changed.
const STUCK: &[&str] =
    &["Affine", "ConstantLike", "Crop", "DynamicSlice", "ImageScaler", "ParametricSoftplus", "Scale", "ScaledTanh"];

/// Whether a model of this operator set has integer kernels, or can be raised to one that has.
pub fn has_integer_kernels(model: &ModelProto, opset: i64) -> bool {
    opset >= INTEGER_OPSET || model.graph.as_ref().is_some_and(|graph| can_raise(graph, opset))
}

fn can_raise(graph: &GraphProto, opset: i64) -> bool {
    graph.node.iter().all(|node| {
        let int = |name: &str, default: i64| crate::model::graph::int_attribute(node, name, default);
        let stays = match node.op_type() {
            _ if !is_default_domain(node.domain()) => true,
            "BatchNormalization" => int("spatial", 1) != 0,
            // The mask was of the data's type.
            "Dropout" => node.output.iter().skip(1).all(String::is_empty),
            // Set 9 took the batch axis from it.
            "Scan" => opset >= 9,
            op => !STUCK.contains(&op),
        };
        stays && bodies(node).all(|body| can_raise(body, opset))
    })
}

/// Raises `model`, of which [`has_integer_kernels`] is true, to operator set 10 where it is below.
pub fn raise(model: &mut ModelProto, opset: i64) {
    if opset >= INTEGER_OPSET {
        return;
    }
    for import in model.opset_import.iter_mut().filter(|import| is_default_domain(import.domain())) {
        import.version = Some(INTEGER_OPSET);
    }
    if let Some(graph) = model.graph.as_mut() {
        raise_graph(graph);
    }
}

fn raise_graph(graph: &mut GraphProto) {
    let mut made = Vec::new();
    for node in &mut graph.node {
        for body in bodies_mut(node) {
            raise_graph(body);
        }
        if is_default_domain(node.domain()) {
            raise_node(node, &mut made);
        }
    }
    graph.initializer.append(&mut made);
}

fn raise_node(node: &mut NodeProto, made: &mut Vec<TensorProto>) {
    let base = node.output.first().cloned().unwrap_or_default();
    let mut input = |node: &mut NodeProto, tensor: TensorProto| {
        node.input.push(tensor.name().to_owned());
        made.push(tensor);
    };
    let name = |part: &str| format!("{base}_nibble_{part}");
    match node.op_type() {
        "BatchNormalization" => node.attribute.retain(|attribute| attribute.name() != "spatial"),
        "Slice" if node.input.len() == 1 => {
            let (starts, ends) = (ints_attribute(node, "starts").to_vec(), ints_attribute(node, "ends").to_vec());
            let mut axes = ints_attribute(node, "axes").to_vec();
            if axes.is_empty() {
                axes = (0..starts.len() as i64).collect();
            }
            node.attribute.clear();
            for (part, values) in [("starts", starts), ("ends", ends), ("axes", axes)] {
                input(node, build::tensor_i64(&name(part), &[values.len() as i64], &values));
            }
        }
        "TopK" if node.input.len() == 1 => {
            let k = crate::model::graph::int_attribute(node, "k", 1);
            node.attribute.retain(|attribute| attribute.name() != "k");
            input(node, build::tensor_i64(&name("k"), &[1], &[k]));
        }
        "Upsample" => {
            node.op_type = Some("Resize".to_owned());
            let scales = node.attribute.iter().find(|attribute| attribute.name() == "scales");
            let scales = scales.map(|attribute| attribute.floats.clone()).unwrap_or_default();
            node.attribute.retain(|attribute| attribute.name() != "scales");
            if node.input.len() == 1 {
                input(node, build::tensor_f32(&name("scales"), &[scales.len() as i64], &scales));
            }
        }
        _ => {}
    }
}
