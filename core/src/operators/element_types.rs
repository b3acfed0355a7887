//! Element types of results, and which operators exist in half precision.

use crate::model::graph::{attribute, int_attribute};
use crate::onnx::proto::{NodeProto, tensor_proto::DataType};
use crate::operators::is_default_domain;

/// Operators whose floating inputs and outputs all have one type, which may be float16, and that lose nothing but
/// rounding by it. Left out: sums and powers, whose results leave float16's range, and those whose other inputs are
/// float32 whatever the type (Resize).
const HALF: &[&str] = &[
    "Abs",
    "Add",
    "AveragePool",
    "BatchNormalization",
    "Ceil",
    "Clip",
    "Concat",
    "Conv",
    "ConvTranspose",
    "DepthToSpace",
    "Div",
    "Dropout",
    "Elu",
    "Erf",
    "Expand",
    "Flatten",
    "Floor",
    "GRU",
    "Gather",
    "GatherElements",
    "Gelu",
    "Gemm",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "InstanceNormalization",
    "LSTM",
    "LayerNormalization",
    "LeakyRelu",
    "LogSoftmax",
    "MatMul",
    "MaxPool",
    "Mul",
    "Neg",
    "PRelu",
    "Pad",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "Relu",
    "Reshape",
    "Round",
    "Sigmoid",
    "Slice",
    "Softmax",
    "Softplus",
    "Softsign",
    "SpaceToDepth",
    "Split",
    "Sqrt",
    "Squeeze",
    "Sub",
    "Tanh",
    "Tile",
    "Transpose",
    "Unsqueeze",
    "Where",
];

/// Further operators whose first output has the type of their first input.
const SAME_TYPE: &[&str] = &[
    "Celu",
    "Cos",
    "CumSum",
    "Einsum",
    "Exp",
    "GatherND",
    "GridSample",
    "GroupNormalization",
    "Log",
    "LpNormalization",
    "LpPool",
    "Max",
    "Mean",
    "Min",
    "Mish",
    "Mod",
    "Pow",
    "RNN",
    "Range",
    "Reciprocal",
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
    "Resize",
    "RoiAlign",
    "ScatterElements",
    "ScatterND",
    "Selu",
    "Sign",
    "Sin",
    "Sum",
    "ThresholdedRelu",
    "TopK",
    "Trilu",
    "Upsample",
];

/// Operators of which every output has that type.
const SAME_TYPE_THROUGHOUT: &[&str] = &["GRU", "LSTM", "RNN", "Split"];

/// Whether the operator may be computed in half precision.
pub fn has_half_precision(node: &NodeProto) -> bool {
    let outputs = node.output.iter().filter(|name| !name.is_empty()).count();
    is_default_domain(node.domain())
        && HALF.contains(&node.op_type())
        && (outputs <= 1 || SAME_TYPE_THROUGHOUT.contains(&node.op_type()))
}

/// The element type (`TensorProto.DataType`) of an output, from those of the inputs; `None` when it cannot be told.
pub fn result_type(node: &NodeProto, output: usize, input: impl Fn(usize) -> Option<i32>) -> Option<i32> {
    if !is_default_domain(node.domain()) {
        return None;
    }
    match node.op_type() {
        "Cast" => i32::try_from(int_attribute(node, "to", 0)).ok(),
        "Shape" | "Size" | "ArgMax" | "ArgMin" | "NonZero" => Some(DataType::Int64 as i32),
        "Equal" | "Less" | "Greater" | "LessOrEqual" | "GreaterOrEqual" | "Not" | "And" | "Or" | "Xor" | "IsNaN"
        | "IsInf" => Some(DataType::Bool as i32),
        "Where" => input(1),
        "ConstantOfShape" => {
            let value = attribute(node, "value").and_then(|attribute| attribute.t.as_ref());
            Some(value.map_or(DataType::Float as i32, crate::onnx::proto::TensorProto::data_type))
        }
        op if output == 0 && (HALF.contains(&op) || SAME_TYPE.contains(&op)) => input(0),
        op if SAME_TYPE_THROUGHOUT.contains(&op) => input(0),
        _ => None,
    }
}
