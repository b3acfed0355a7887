//! Names of element types, and inputs and outputs as [`Port`]s.

use super::proto::tensor_shape_proto::dimension::Value as DimValue;
use super::proto::type_proto::Value as TypeValue;
use super::proto::{TensorShapeProto, ValueInfoProto};
use crate::port::{Dim, Port};

/// ONNX's name of an element type (`TensorProto.DataType`), e.g. 1 → `float32`; `unknown` for a number ONNX does not define.
pub fn element_type_name(data_type: i32) -> &'static str {
    const NAMES: [&str; 29] = [
        "undefined",
        "float32",
        "uint8",
        "int8",
        "uint16",
        "int16",
        "int32",
        "int64",
        "string",
        "bool",
        "float16",
        "float64",
        "uint32",
        "uint64",
        "complex64",
        "complex128",
        "bfloat16",
        "float8e4m3fn",
        "float8e4m3fnuz",
        "float8e5m2",
        "float8e5m2fnuz",
        "uint4",
        "int4",
        "float4e2m1",
        "float8e8m0",
        "uint2",
        "int2",
        "float6e2m3",
        "float6e3m2",
    ];
    usize::try_from(data_type).ok().and_then(|index| NAMES.get(index)).copied().unwrap_or("unknown")
}

/// The element type (`TensorProto.DataType`) that a value declares; `None` when it declares none or is no tensor.
pub fn element_type(info: &ValueInfoProto) -> Option<i32> {
    match info.r#type.as_ref()?.value.as_ref()? {
        TypeValue::TensorType(tensor) => tensor.elem_type.filter(|&data_type| data_type != 0),
        _ => None,
    }
}

/// A graph's input or output as a [`Port`]. Without a type the element type is `undefined` and the rank unknown.
pub fn port(info: &ValueInfoProto) -> Port {
    let name = info.name.clone().unwrap_or_default();
    let (element_type, shape) = match info.r#type.as_ref().and_then(|r#type| r#type.value.as_ref()) {
        Some(TypeValue::TensorType(tensor)) => {
            (element_type_name(tensor.elem_type.unwrap_or_default()), tensor.shape.as_ref())
        }
        Some(TypeValue::SparseTensorType(tensor)) => ("sparse", tensor.shape.as_ref()),
        Some(TypeValue::SequenceType(_)) => ("sequence", None),
        Some(TypeValue::MapType(_)) => ("map", None),
        Some(TypeValue::OptionalType(_)) => ("optional", None),
        Some(TypeValue::OpaqueType(_)) => ("opaque", None),
        None => ("undefined", None),
    };
    Port {
        name,
        element_type: element_type.to_owned(),
        shape: shape.map(dims).unwrap_or_default(),
        has_shape: shape.is_some(),
        table_rows: None,
    }
}

/// Negative sizes and empty names, which some exporters write for "any size", become symbols.
fn dims(shape: &TensorShapeProto) -> Vec<Dim> {
    let any = || Dim::Symbol("?".to_owned());
    shape
        .dim
        .iter()
        .map(|dim| match &dim.value {
            Some(DimValue::DimValue(size)) => usize::try_from(*size).map_or_else(|_| any(), Dim::Fixed),
            Some(DimValue::DimParam(name)) if !name.is_empty() => Dim::Symbol(name.clone()),
            _ => any(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::proto::{TypeProto, tensor_proto::DataType, tensor_shape_proto::Dimension, type_proto};

    #[test]
    fn names_follow_the_numbers_of_the_proto() {
        for (data_type, name) in [
            (DataType::Float, "float32"),
            (DataType::Double, "float64"),
            (DataType::Bfloat16, "bfloat16"),
            (DataType::Int4, "int4"),
            (DataType::Uint4, "uint4"),
            (DataType::Int2, "int2"),
            (DataType::Float6e3m2, "float6e3m2"),
        ] {
            assert_eq!(element_type_name(data_type as i32), name);
        }
        assert_eq!(element_type_name(-1), "unknown");
        assert_eq!(element_type_name(29), "unknown");
    }

    #[test]
    fn odd_dimensions_are_symbols() {
        let dim = |value| Dimension { denotation: None, value };
        let shape = TensorShapeProto {
            dim: vec![
                dim(Some(DimValue::DimParam("-1".to_owned()))),
                dim(Some(DimValue::DimValue(3))),
                dim(Some(DimValue::DimValue(-1))),
                dim(Some(DimValue::DimParam(String::new()))),
                dim(None),
            ],
        };
        let info = ValueInfoProto {
            name: Some("x".to_owned()),
            r#type: Some(TypeProto {
                denotation: None,
                value: Some(TypeValue::TensorType(type_proto::Tensor { elem_type: Some(1), shape: Some(shape) })),
            }),
            ..Default::default()
        };
        let port = port(&info);
        assert_eq!(port.shape_text(), "[-1, 3, ?, ?, ?]");
        assert_eq!(port.element_type, "float32");
        assert!(port.has_shape);
    }

    #[test]
    fn an_untyped_output_has_no_shape() {
        let port = port(&crate::onnx::build::value_info("y"));
        assert_eq!((port.name.as_str(), port.element_type.as_str(), port.has_shape), ("y", "undefined", false));
    }
}
