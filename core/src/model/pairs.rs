//! Activations that the file itself quantizes: QuantizeLinear and DequantizeLinear with constant scales.

use std::collections::HashMap;

use crate::model::graph::Links;
use crate::model::rounded::{integer_values, is};
use crate::onnx::proto::{GraphProto, NodeProto, TensorProto, tensor_proto::DataType};
use crate::onnx::{OnnxError, OnnxFile};
use crate::plan::Symmetry;
use crate::quant::QuantParams;

/// An activation of the main graph between QuantizeLinear and DequantizeLinear, 8 bits wide and with one scale.
#[derive(Clone, Debug, PartialEq)]
pub struct ActivationPair {
    /// The floating-point tensor before the pair.
    pub source: String,
    /// The tensor behind it.
    pub result: String,
    /// Index of the QuantizeLinear.
    pub quantize: usize,
    /// Its parameters; −128..127 where the file uses int8.
    pub params: QuantParams,
}

impl ActivationPair {
    /// ONNX's name of its integers.
    pub fn element_type(&self) -> &'static str {
        if self.params.qmin < 0 { "int8" } else { "uint8" }
    }

    /// Whether zero lies in the middle of its integers.
    pub fn symmetry(&self) -> Symmetry {
        let middle = if self.params.qmin < 0 { 0 } else { 128 };
        if self.params.zero_point == middle { Symmetry::Symmetric } else { Symmetry::Asymmetric }
    }
}

/// All pairs of a prepared main graph, in the order of their DequantizeLinear. A Clip of the integers may stand between.
pub fn find(graph: &GraphProto, file: &OnnxFile) -> Result<Vec<ActivationPair>, OnnxError> {
    if !graph.node.iter().any(|node| is(node, "DequantizeLinear")) {
        return Ok(Vec::new());
    }
    let links = Links::of(graph);
    let constants: HashMap<&str, &TensorProto> =
        graph.initializer.iter().map(|tensor| (tensor.name(), tensor)).collect();
    let producer = |name: &str| -> Option<(usize, &NodeProto)> {
        let at = *links.producer.get(name)?;
        Some((at, graph.node.get(at)?))
    };
    let mut pairs = Vec::new();
    for node in graph.node.iter().filter(|node| is(node, "DequantizeLinear")) {
        let (Some(integers), Some(result)) = (node.input.first(), node.output.first()) else { continue };
        let Some((mut at, mut before)) = producer(integers) else { continue };
        if is(before, "Clip") {
            let Some(found) = before.input.first().and_then(|name| producer(name)) else { continue };
            (at, before) = found;
        }
        if !is(before, "QuantizeLinear") {
            continue;
        }
        let Some(source) = before.input.first().filter(|name| !constants.contains_key(name.as_str())) else { continue };
        let Some(params) = params(before, &constants, file)? else { continue };
        if undoes(node, &params, &constants, file)? {
            pairs.push(ActivationPair { source: source.clone(), result: result.clone(), quantize: at, params });
        }
    }
    Ok(pairs)
}

/// Whether a DequantizeLinear has these parameters; its integers have the type that they were quantized to.
fn undoes(
    node: &NodeProto,
    params: &QuantParams,
    constants: &HashMap<&str, &TensorProto>,
    file: &OnnxFile,
) -> Result<bool, OnnxError> {
    let constant = |position: usize| node.input.get(position).and_then(|name| constants.get(name.as_str()));
    let Some(scale) = constant(1).filter(|tensor| tensor.data_type() == DataType::Float as i32) else {
        return Ok(false);
    };
    let zero_point = match constant(2) {
        Some(tensor) => integer_values(file.read(tensor)?.values),
        None if node.input.get(2).is_some_and(|name| !name.is_empty()) => None,
        None => Some(vec![0]),
    };
    Ok(*file.read_f32(scale)? == [params.scale] && zero_point.is_some_and(|values| values == [params.zero_point]))
}

/// The parameters of a QuantizeLinear; `None` when they are not constant, not 8 bits wide or differ from channel to channel.
fn params(
    node: &NodeProto,
    constants: &HashMap<&str, &TensorProto>,
    file: &OnnxFile,
) -> Result<Option<QuantParams>, OnnxError> {
    let constant = |position: usize| node.input.get(position).and_then(|name| constants.get(name.as_str()));
    let Some(scale) = constant(1).filter(|tensor| tensor.data_type() == DataType::Float as i32) else {
        return Ok(None);
    };
    let [scale] = file.read_f32(scale)?[..] else { return Ok(None) };
    let (kind, zero_point) = match constant(2) {
        Some(tensor) => match integer_values(file.read(tensor)?.values).as_deref() {
            Some([zero_point]) => (tensor.data_type(), *zero_point),
            _ => return Ok(None),
        },
        None if node.input.get(2).is_some_and(|name| !name.is_empty()) => return Ok(None),
        None if crate::model::graph::int_attribute(node, "output_dtype", 0) != 0 => return Ok(None),
        None => (DataType::Uint8 as i32, 0),
    };
    let (qmin, qmax) = match DataType::try_from(kind) {
        Ok(DataType::Uint8) => (0, 255),
        Ok(DataType::Int8) => (-128, 127),
        _ => return Ok(None),
    };
    Ok((scale.is_finite() && scale > 0.0).then_some(QuantParams { scale, zero_point, qmin, qmax }))
}
