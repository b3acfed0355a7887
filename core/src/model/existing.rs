//! Layers that a file brings quantized already: recognised, described, and left as they are.
//!
//! Read are the integer operators of the standard and of ONNX Runtime, float operators whose weight is computed from integer
//! constants (DequantizeLinear, or the Cast, Sub and Mul that storage-only weights are written with), and embeddings that
//! look rows up as integers.

use std::fmt;

use serde::Serialize;

use crate::model::graph::{Links, attribute, initializer, int_attribute};
use crate::model::rounded::{integer_values, is};
use crate::onnx::proto::{GraphProto, ModelProto, NodeProto, TensorProto, tensor_proto::DataType};
use crate::onnx::{OnnxFile, element_type_name};
use crate::operators::{WeightedOperator, is_default_domain};
use crate::plan::{Granularity, Symmetry};
use crate::tensor::Values;

/// What a layer is quantized to in the file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Existing {
    /// Element type of its weights, such as `int8` or `uint4`.
    pub weights: String,
    /// Which weights share a scale.
    pub granularity: Granularity,
    /// Whether zero lies in the middle of the integers.
    pub symmetry: Symmetry,
    /// Element type of the activation it reads: `uint8`, `int8`, `dynamic uint8`, or `float32` where that is left alone.
    pub activations: String,
    /// Whether its weights are floats that were trained on these scales, so that other choices are possible.
    pub trained: bool,
}

impl fmt::Display for Existing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} weights, {} activations", self.weights, self.symmetry, self.granularity, self.activations)
    }
}

/// A layer found quantized.
pub(super) struct Found {
    pub existing: Existing,
    /// Position of the weight among the node's inputs, and of the activation.
    pub weight_input: usize,
    pub activation_input: usize,
    /// The tensor that holds the integers.
    pub tensor: String,
    /// Number of weights, packed ones counted one by one.
    pub parameters: u64,
}

/// The graph in which a layer is looked for.
pub(super) struct Place<'a> {
    pub model: &'a ModelProto,
    pub graph: &'a GraphProto,
    pub bodies: &'a [(usize, String)],
    pub links: &'a Links,
    pub file: &'a OnnxFile,
}

/// Where an integer operator has what; positions of inputs.
struct Integer {
    op: &'static str,
    weight: usize,
    scale: Option<usize>,
    zero_point: Option<usize>,
    activation: usize,
    activation_zero_point: Option<usize>,
    /// What its activations are when no zero point tells.
    activations: &'static str,
}

const fn entry(
    op: &'static str,
    [weight, activation]: [usize; 2],
    [scale, zero_point, activation_zero_point]: [Option<usize>; 3],
    activations: &'static str,
) -> Integer {
    Integer { op, weight, scale, zero_point, activation, activation_zero_point, activations }
}

const INTEGERS: &[Integer] = &[
    entry("QLinearConv", [3, 0], [Some(4), Some(5), Some(2)], "uint8"),
    entry("QLinearMatMul", [3, 0], [Some(4), Some(5), Some(2)], "uint8"),
    entry("QGemm", [3, 0], [Some(4), Some(5), Some(2)], "uint8"),
    entry("MatMulIntegerToFloat", [1, 0], [Some(3), Some(5), Some(4)], "uint8"),
    entry("QAttention", [1, 0], [Some(4), Some(7), Some(6)], "uint8"),
    entry("MatMulInteger", [1, 0], [None, Some(3), None], "dynamic uint8"),
    entry("ConvInteger", [1, 0], [None, Some(3), None], "dynamic uint8"),
    entry("DynamicQuantizeMatMul", [1, 0], [Some(2), Some(3), None], "dynamic uint8"),
    entry("DynamicQuantizeLSTM", [1, 0], [Some(8), Some(9), None], "dynamic uint8"),
    entry("MatMulNBits", [1, 0], [Some(2), Some(3), None], "float32"),
    entry("GatherBlockQuantized", [0, 1], [Some(2), Some(3), None], "float32"),
];

/// An operator that itself computes with integer weights; `None` when the node is none, or its weight is no constant.
pub(super) fn integer(place: &Place<'_>, node: &NodeProto) -> Option<Found> {
    let entry = INTEGERS.iter().find(|entry| is(node, entry.op))?;
    let constant = |position: usize| initializer(place.model, place.bodies, node.input.get(position)?).map(|(t, _)| t);
    let weight = constant(entry.weight)?;
    let scale = entry.scale.and_then(constant);
    let zero_point = entry.zero_point.and_then(constant);
    let block = int_attribute(node, "block_size", 0);
    let mut bits = u64::from(bits(weight)?);
    let mut weights = element_type_name(weight.data_type()).to_owned();
    if matches!(entry.op, "MatMulNBits" | "GatherBlockQuantized") {
        bits = u64::try_from(int_attribute(node, "bits", 4)).ok().filter(|bits| (1..=8).contains(bits))?;
        weights = format!("{}int{bits}", if zero_point.is_some() { "u" } else { "" });
    }
    let granularity = match u32::try_from(block) {
        Ok(block) if block > 0 => Granularity::Block(block),
        _ if scale.or(zero_point).is_some_and(|groups| elements(groups) > 1) => Granularity::PerChannel,
        _ => Granularity::PerTensor,
    };
    let symmetry = if is_middle(place.file, zero_point, weight.data_type()) || zero_point.is_none() && block > 0 {
        Symmetry::Symmetric
    } else {
        Symmetry::Asymmetric
    };
    let parameters = match (int_attribute(node, "K", 0), int_attribute(node, "N", 0)) {
        (k, n) if k > 0 && n > 0 => k.unsigned_abs().saturating_mul(n.unsigned_abs()),
        _ => stored_bytes(weight)?.saturating_mul(8) / bits,
    };
    let activations = entry
        .activation_zero_point
        .and_then(constant)
        .map_or_else(|| entry.activations.to_owned(), |tensor| element_type_name(tensor.data_type()).to_owned());
    Some(Found {
        existing: Existing { weights, granularity, symmetry, activations, trained: false },
        weight_input: entry.weight,
        activation_input: entry.activation,
        tensor: weight.name().to_owned(),
        parameters,
    })
}

/// A float operator whose weight is computed from integer constants; `None` when it is not.
pub(super) fn behind(place: &Place<'_>, node: &NodeProto, operator: &WeightedOperator) -> Option<Found> {
    let weight_input = operator.weights.first()?.input;
    let name = node.input.get(weight_input).filter(|name| !name.is_empty())?;
    let found = if operator.op == "Gather" && initializer(place.model, place.bodies, name).is_some() {
        looked_up(place, node, name)?
    } else {
        trace(place, name)?
    };
    let (tensor, _) = initializer(place.model, place.bodies, &found.tensor)?;
    let input = node.input.get(operator.activation).map_or("", String::as_str);
    let activations = if operator.op == "Gather" { "float32".to_owned() } else { activation(place, input) };
    Some(Found {
        existing: Existing {
            weights: found.weights,
            granularity: found.granularity,
            symmetry: found.symmetry,
            activations,
            trained: false,
        },
        weight_input,
        activation_input: operator.activation,
        parameters: stored_bytes(tensor)?.saturating_mul(8) / u64::from(found.bits),
        tensor: found.tensor,
    })
}

/// ONNX's name of the integers that an activation comes from; `float32` when it comes from none.
pub(super) fn activation(place: &Place<'_>, name: &str) -> String {
    let before = place.links.producer.get(name).and_then(|&at| place.graph.node.get(at));
    let Some(node) = before.filter(|node| is(node, "DequantizeLinear")) else {
        return "float32".to_owned();
    };
    let zero_point = node.input.get(2).and_then(|name| initializer(place.model, place.bodies, name));
    zero_point.map_or("uint8", |(tensor, _)| element_type_name(tensor.data_type())).to_owned()
}

/// What was learned on the way from a weight back to its integers.
struct Traced {
    tensor: String,
    weights: String,
    bits: u32,
    granularity: Granularity,
    symmetry: Symmetry,
}

/// Nodes on the way from a weight to its integers at most: a 4-bit weight unpacked by arithmetic takes about a dozen.
const LONGEST: usize = 40;
/// Operators that turn stored integers into weights.
const UNPACKING: &[&str] = &[
    "Cast",
    "Sub",
    "Add",
    "Mul",
    "Div",
    "Reshape",
    "Transpose",
    "Slice",
    "Concat",
    "Identity",
    "Squeeze",
    "Unsqueeze",
    "Mod",
    "BitShift",
    "BitwiseAnd",
    "DequantizeLinear",
    "QuantizeLinear",
    "Clip",
];

/// Follows a weight back to integer constants. `None` when it depends on anything but constants, or on no integers.
fn trace(place: &Place<'_>, name: &str) -> Option<Traced> {
    let mut open = vec![name.to_owned()];
    let mut nodes = Vec::new();
    let mut leaves: Vec<&TensorProto> = Vec::new();
    while let Some(name) = open.pop() {
        if let Some((tensor, _)) = initializer(place.model, place.bodies, &name) {
            leaves.push(tensor);
            continue;
        }
        let node = place.graph.node.get(*place.links.producer.get(&name)?)?;
        let known = UNPACKING.iter().any(|op| is(node, op));
        if !known || nodes.len() >= LONGEST {
            return None;
        }
        nodes.push(node);
        open.extend(node.input.iter().filter(|name| !name.is_empty()).cloned());
    }
    let quantized = nodes.iter().find(|node| node.op_type() == "QuantizeLinear");
    let stored = match quantized {
        // A float constant rounded in a way that `rounded` does not read, such as to 16 bits.
        Some(_) => leaves.iter().max_by_key(|tensor| elements(tensor))?,
        None => leaves.iter().filter(|tensor| bits(tensor).is_some()).max_by_key(|tensor| elements(tensor))?,
    };
    let constant = |node: &NodeProto, position: usize| {
        let name = node.input.get(position).filter(|name| !name.is_empty())?;
        initializer(place.model, place.bodies, name).map(|(tensor, _)| tensor)
    };
    let packed = nodes.iter().any(|node| node.op_type() == "BitShift");
    let kind = quantized.and_then(|node| constant(node, 2)).map_or(stored.data_type(), TensorProto::data_type);
    let (granularity, zero_point) = match nodes.iter().find(|node| node.op_type() == "DequantizeLinear") {
        Some(node) => (by_scale(constant(node, 1)?, int_attribute(node, "block_size", 0), stored), constant(node, 2)),
        None => {
            let scale = nodes.iter().filter(|node| node.op_type() == "Mul").find_map(|node| {
                let inputs = [constant(node, 0), constant(node, 1)];
                inputs.into_iter().flatten().find(|tensor| tensor.data_type() == DataType::Float as i32)
            })?;
            let small = leaves.iter().filter(|tensor| bits(tensor).is_some() && tensor.name() != stored.name());
            // Of packed bytes, 16 and 4 are operands of the unpacking.
            let zero_point = small.copied().find(|tensor| tensor.data_type() == DataType::Int8 as i32);
            (by_scale(scale, 0, stored), zero_point)
        }
    };
    let symmetric = packed && zero_point.is_none() || is_middle(place.file, zero_point, kind);
    let mut bits = bits_of(kind).or_else(|| bits(stored))?;
    let mut weights = element_type_name(kind).to_owned();
    if packed {
        (bits, weights) = (4, "int4".to_owned());
    }
    let symmetry = if symmetric { Symmetry::Symmetric } else { Symmetry::Asymmetric };
    let bits = if quantized.is_some() { 32 } else { bits };
    Some(Traced { tensor: stored.name().to_owned(), weights, bits, granularity, symmetry })
}

/// An embedding of integers whose rows are turned into floating point after they were looked up.
fn looked_up(place: &Place<'_>, node: &NodeProto, name: &str) -> Option<Traced> {
    /// Smaller tables of integers are lookups of positions and the like.
    const SMALLEST: u64 = 1024;
    let (table, _) = initializer(place.model, place.bodies, name)?;
    let bits = bits(table).filter(|_| elements(table) >= SMALLEST && table.dims.len() >= 2)?;
    let [reader] = place.links.readers(node.output.first()?) else { return None };
    let reader = place.graph.node.get(*reader)?;
    let is_dequantize = is(reader, "DequantizeLinear");
    if !is_dequantize && !["Cast", "MatMulInteger", "QLinearMatMul"].iter().any(|op| is(reader, op)) {
        return None;
    }
    let scale = reader.input.get(1).and_then(|name| initializer(place.model, place.bodies, name));
    // The scale of rows that stay integers is one for all: the matrix behind takes no other.
    let per_tensor = !is(reader, "Cast") && scale.is_none_or(|(tensor, _)| elements(tensor) == 1 || !is_dequantize);
    let zero_point = reader.input.get(2).and_then(|name| initializer(place.model, place.bodies, name));
    let symmetric = !is_dequantize || is_middle(place.file, zero_point.map(|(tensor, _)| tensor), table.data_type());
    Some(Traced {
        tensor: name.to_owned(),
        weights: element_type_name(table.data_type()).to_owned(),
        bits,
        granularity: if per_tensor { Granularity::PerTensor } else { Granularity::PerChannel },
        symmetry: if symmetric { Symmetry::Symmetric } else { Symmetry::Asymmetric },
    })
}

/// Which weights share a scale, from the scale's own shape.
fn by_scale(scale: &TensorProto, block: i64, stored: &TensorProto) -> Granularity {
    if let Ok(block @ 1..) = u32::try_from(block) {
        return Granularity::Block(block);
    }
    match (scale.dims.as_slice(), stored.dims.as_slice()) {
        _ if elements(scale) <= 1 => Granularity::PerTensor,
        // Blocks as Nibble stores them: one scale for every run along the last of three axes.
        ([a, b, 1], [c, d, size]) if (a, b) == (c, d) && *b > 1 => {
            u32::try_from(*size).map_or(Granularity::PerChannel, Granularity::Block)
        }
        _ => Granularity::PerChannel,
    }
}

/// Whether the zero points stand in the middle of their integers; those left out are 0.
fn is_middle(file: &OnnxFile, zero_point: Option<&TensorProto>, kind: i32) -> bool {
    let middle = match DataType::try_from(kind) {
        Ok(DataType::Uint8) => 128,
        Ok(DataType::Uint4) => 8,
        Ok(DataType::Uint2) => 2,
        _ => 0,
    };
    let Some(tensor) = zero_point else { return middle == 0 };
    let values = file.read(tensor).map(|tensor| tensor.values);
    let values = values.map(|values| match values {
        Values::F32(values) => Some(values.iter().map(|&value| value as i32).collect()),
        values => integer_values(values),
    });
    values.ok().flatten().is_some_and(|values| values.iter().all(|&value| value == middle))
}

/// Bits of one weight in an integer (or 8-bit float) tensor; `None` for tensors of other types.
fn bits(tensor: &TensorProto) -> Option<u32> {
    bits_of(tensor.data_type())
}

fn bits_of(kind: i32) -> Option<u32> {
    match DataType::try_from(kind).ok()? {
        DataType::Int8
        | DataType::Uint8
        | DataType::Float8e4m3fn
        | DataType::Float8e5m2
        | DataType::Float8e4m3fnuz
        | DataType::Float8e5m2fnuz => Some(8),
        DataType::Int4 | DataType::Uint4 | DataType::Float4e2m1 => Some(4),
        DataType::Int2 | DataType::Uint2 => Some(2),
        DataType::Int16 | DataType::Uint16 => Some(16),
        _ => None,
    }
}

fn elements(tensor: &TensorProto) -> u64 {
    tensor.dims.iter().fold(1, |count: u64, &dim| count.saturating_mul(u64::try_from(dim).unwrap_or(0)))
}

/// Bytes that the tensor's values take in a file.
pub(super) fn stored_bytes(tensor: &TensorProto) -> Option<u64> {
    let bits = bits(tensor).or(match DataType::try_from(tensor.data_type()).ok()? {
        DataType::Double => Some(64),
        DataType::Float => Some(32),
        DataType::Float16 | DataType::Bfloat16 => Some(16),
        _ => None,
    })?;
    Some(elements(tensor).saturating_mul(u64::from(bits)).div_ceil(8))
}

/// Whether a node is one of the integer operators, or quantizes and dequantizes.
pub(super) fn is_mark(node: &NodeProto) -> bool {
    INTEGERS.iter().any(|entry| is(node, entry.op))
        || ["QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"].iter().any(|op| is(node, op))
        || node.op_type().starts_with("QLinear") && !is_default_domain(node.domain())
        || attribute(node, "quantize_axis").is_some()
}
