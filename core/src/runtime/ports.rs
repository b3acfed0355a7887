//! A session's inputs and outputs as [`Port`]s.

use ort::value::{Outlet, TensorElementType, ValueType};

use crate::onnx;
use crate::onnx::proto::{GraphProto, ValueInfoProto};
use crate::port::{Dim, Port};

/// The inputs that a run must be given. Their shapes come from the model where it is at hand, since ONNX Runtime cannot
/// tell a scalar from an undeclared shape.
pub(super) fn inputs(outlets: &[Outlet], graph: Option<&GraphProto>) -> Vec<Port> {
    let declared = graph.map(|graph| graph.input.as_slice()).unwrap_or_default();
    outlets.iter().map(|outlet| find(declared, outlet.name()).map_or_else(|| port(outlet, false), onnx::port)).collect()
}

/// The outputs, with the types and shapes that ONNX Runtime inferred. Some models declare wrong shapes: hints, no facts.
pub(super) fn outputs(outlets: &[Outlet], graph: Option<&GraphProto>) -> Vec<Port> {
    let declared = graph.map(|graph| graph.output.as_slice()).unwrap_or_default();
    let has_shape = |outlet: &Outlet| find(declared, outlet.name()).is_some_and(|info| onnx::port(info).has_shape);
    outlets.iter().map(|outlet| port(outlet, has_shape(outlet))).collect()
}

/// Inputs with a default among the initializers: a run may be given them.
pub(super) fn optional_inputs(graph: Option<&GraphProto>, required: &[Port]) -> Vec<Port> {
    let declared = graph.map(|graph| graph.input.as_slice()).unwrap_or_default();
    declared.iter().map(onnx::port).filter(|port| required.iter().all(|other| other.name != port.name)).collect()
}

fn find<'a>(declared: &'a [ValueInfoProto], name: &str) -> Option<&'a ValueInfoProto> {
    declared.iter().find(|info| info.name.as_deref() == Some(name))
}

fn port(outlet: &Outlet, declared_scalar: bool) -> Port {
    let (element_type, shape) = match outlet.dtype() {
        ValueType::Tensor { ty, shape, dimension_symbols } => {
            let symbol = |index: usize| {
                let name = dimension_symbols.get(index).filter(|name| !name.is_empty());
                Dim::Symbol(name.map_or_else(|| "?".to_owned(), Clone::clone))
            };
            let dims = shape.iter().enumerate();
            let dims = dims.map(|(index, &size)| usize::try_from(size).map_or_else(|_| symbol(index), Dim::Fixed));
            (element_type(*ty), dims.collect())
        }
        ValueType::Sequence(_) => ("sequence", Vec::new()),
        ValueType::Map { .. } => ("map", Vec::new()),
        ValueType::Optional(_) => ("optional", Vec::new()),
    };
    let has_shape = outlet.dtype().is_tensor() && (declared_scalar || !shape.is_empty());
    Port { name: outlet.name().to_owned(), element_type: element_type.to_owned(), shape, has_shape, table_rows: None }
}

fn element_type(ty: TensorElementType) -> &'static str {
    match ty {
        TensorElementType::Float32 => "float32",
        TensorElementType::Uint8 => "uint8",
        TensorElementType::Int8 => "int8",
        TensorElementType::Uint16 => "uint16",
        TensorElementType::Int16 => "int16",
        TensorElementType::Int32 => "int32",
        TensorElementType::Int64 => "int64",
        TensorElementType::String => "string",
        TensorElementType::Bool => "bool",
        TensorElementType::Float16 => "float16",
        TensorElementType::Float64 => "float64",
        TensorElementType::Uint32 => "uint32",
        TensorElementType::Uint64 => "uint64",
        TensorElementType::Bfloat16 => "bfloat16",
        TensorElementType::Complex64 => "complex64",
        TensorElementType::Complex128 => "complex128",
        TensorElementType::Float8E4M3FN => "float8e4m3fn",
        TensorElementType::Float8E4M3FNUZ => "float8e4m3fnuz",
        TensorElementType::Float8E5M2 => "float8e5m2",
        TensorElementType::Float8E5M2FNUZ => "float8e5m2fnuz",
        TensorElementType::Uint4 => "uint4",
        TensorElementType::Int4 => "int4",
        TensorElementType::Float4E2M1 => "float4e2m1",
        TensorElementType::Uint2 => "uint2",
        TensorElementType::Int2 => "int2",
        TensorElementType::Float8E8M0 => "float8e8m0",
        _ => "undefined",
    }
}
