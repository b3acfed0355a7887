//! A model in which one activation is rounded and nothing else.

use crate::export::Rounding;
use crate::model::Model;
use crate::model::graph::Links;
use crate::onnx::build::{node, tensor_f32, tensor_raw};
use crate::onnx::proto::ModelProto;
use crate::onnx::proto::tensor_proto::DataType;

/// First version of the operators with QuantizeLinear.
const LEAST_OPSET: i64 = 10;
/// What names made here begin with.
const PREFIX: &str = "nibble_trial_";

/// The model's prepared graph with a QuantizeLinear and a DequantizeLinear behind the tensor, seen by the nodes that see it
/// rounded. `None` where the operators or 8 bits do not serve.
pub(super) fn with_rounding(model: &Model, rounding: &Rounding) -> Option<ModelProto> {
    let params = rounding.params;
    let (data_type, zero_point) = match (params.qmin, params.qmax) {
        (0, 255) => (DataType::Uint8, u8::try_from(params.zero_point).ok()?),
        (-128..=-127, 127) => (DataType::Int8, i8::try_from(params.zero_point).ok()?.to_ne_bytes()[0]),
        _ => return None,
    };
    if model.opset < LEAST_OPSET {
        return None;
    }
    let mut proto = model.graph.clone();
    let graph = proto.graph.as_mut()?;
    let links = Links::of(graph);
    let [scale, zero, integers, raw, rounded] =
        ["scale", "zero", "integers", "raw", "rounded"].map(|name| format!("{PREFIX}{name}"));
    let producer = links.producer.get(&rounding.tensor).copied();
    // Behind a node its name moves to the rounded values, which bodies and outputs then see too.
    let moves = rounding.readers.is_none() && producer.is_some();
    let (from, to) = if moves { (&raw, &rounding.tensor) } else { (&rounding.tensor, &rounded) };
    if let (true, Some(producer)) = (moves, producer) {
        let outputs = graph.node.get_mut(producer)?.output.iter_mut();
        outputs.filter(|name| **name == rounding.tensor).for_each(|name| name.clone_from(&raw));
    } else {
        let readers = rounding.readers.clone().unwrap_or_else(|| links.readers(&rounding.tensor).to_vec());
        for reader in readers {
            let inputs = graph.node.get_mut(reader)?.input.iter_mut();
            inputs.filter(|name| **name == rounding.tensor).for_each(|name| name.clone_from(&rounded));
        }
    }
    graph.initializer.push(tensor_f32(&scale, &[], &[params.scale]));
    graph.initializer.push(tensor_raw(&zero, data_type, &[], vec![zero_point]));
    let place = producer.map_or(0, |producer| producer + 1);
    let pair = [
        node("QuantizeLinear", "", &integers, &[from, &scale, &zero], &[&integers], vec![]),
        node("DequantizeLinear", "", to, &[&integers, &scale, &zero], &[to], vec![]),
    ];
    graph.node.splice(place..place, pair);
    Some(proto)
}
