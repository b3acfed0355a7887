//! Constructors of tensors, attributes and nodes, for the exporter and for tests.

use super::proto::attribute_proto::AttributeType;
use super::proto::tensor_proto::DataType;
use super::proto::{AttributeProto, GraphProto, NodeProto, TensorProto, ValueInfoProto};

/// A tensor of the given element type from its little-endian bytes.
pub fn tensor_raw(name: &str, data_type: DataType, dims: &[i64], bytes: Vec<u8>) -> TensorProto {
    TensorProto {
        dims: dims.to_vec(),
        data_type: Some(data_type as i32),
        name: Some(name.to_owned()),
        raw_data: Some(bytes.into()),
        ..Default::default()
    }
}

macro_rules! tensor_of {
    ($($(#[$doc:meta])* $name:ident: $type:ty => $data_type:ident;)*) => {$(
        $(#[$doc])*
        pub fn $name(name: &str, dims: &[i64], values: &[$type]) -> TensorProto {
            let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            tensor_raw(name, DataType::$data_type, dims, bytes)
        }
    )*};
}

tensor_of! {
    /// A float32 tensor.
    tensor_f32: f32 => Float;
    /// A float16 tensor.
    tensor_f16: half::f16 => Float16;
    /// An int8 tensor.
    tensor_i8: i8 => Int8;
    /// A uint8 tensor.
    tensor_u8: u8 => Uint8;
    /// An int16 tensor.
    tensor_i16: i16 => Int16;
    /// A uint16 tensor.
    tensor_u16: u16 => Uint16;
    /// An int32 tensor.
    tensor_i32: i32 => Int32;
    /// An int64 tensor.
    tensor_i64: i64 => Int64;
}

/// An int4 tensor (−8..7): two values a byte, the first in the low half; an odd last half is 0.
pub fn tensor_i4(name: &str, dims: &[i64], values: &[i8]) -> TensorProto {
    tensor_raw(name, DataType::Int4, dims, pack(values, 4, |&value| value as u8))
}

/// A uint4 tensor (0..15), packed as [`tensor_i4`].
pub fn tensor_u4(name: &str, dims: &[i64], values: &[u8]) -> TensorProto {
    tensor_raw(name, DataType::Uint4, dims, pack(values, 4, |&value| value))
}

/// An int2 tensor (−2..1): four values a byte, the first in the lowest bits (opset 25, IR 13).
pub fn tensor_i2(name: &str, dims: &[i64], values: &[i8]) -> TensorProto {
    tensor_raw(name, DataType::Int2, dims, pack(values, 2, |&value| value as u8))
}

/// A uint2 tensor (0..3), packed as [`tensor_i2`].
pub fn tensor_u2(name: &str, dims: &[i64], values: &[u8]) -> TensorProto {
    tensor_raw(name, DataType::Uint2, dims, pack(values, 2, |&value| value))
}

fn pack<T>(values: &[T], bits: usize, to_byte: impl Fn(&T) -> u8) -> Vec<u8> {
    let mask = (1u8 << bits) - 1;
    values
        .chunks(8 / bits)
        .map(|chunk| {
            chunk.iter().enumerate().fold(0, |byte, (index, value)| byte | ((to_byte(value) & mask) << (index * bits)))
        })
        .collect()
}

/// A node. An empty `domain` is ONNX's own; an empty name among `inputs` leaves an optional input out.
pub fn node<I: AsRef<str>, O: AsRef<str>>(
    op: &str,
    domain: &str,
    name: &str,
    inputs: &[I],
    outputs: &[O],
    attributes: Vec<AttributeProto>,
) -> NodeProto {
    NodeProto {
        input: inputs.iter().map(|name| name.as_ref().to_owned()).collect(),
        output: outputs.iter().map(|name| name.as_ref().to_owned()).collect(),
        name: Some(name.to_owned()),
        op_type: Some(op.to_owned()),
        domain: (!domain.is_empty()).then(|| domain.to_owned()),
        attribute: attributes,
        ..Default::default()
    }
}

fn attr(name: &str, r#type: AttributeType) -> AttributeProto {
    AttributeProto { name: Some(name.to_owned()), r#type: Some(r#type as i32), ..Default::default() }
}

/// An integer attribute.
pub fn attr_int(name: &str, value: i64) -> AttributeProto {
    AttributeProto { i: Some(value), ..attr(name, AttributeType::Int) }
}

/// A list of integers.
pub fn attr_ints(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto { ints: values.to_vec(), ..attr(name, AttributeType::Ints) }
}

/// A float attribute.
pub fn attr_float(name: &str, value: f32) -> AttributeProto {
    AttributeProto { f: Some(value), ..attr(name, AttributeType::Float) }
}

/// A text attribute.
pub fn attr_string(name: &str, value: &str) -> AttributeProto {
    AttributeProto { s: Some(value.as_bytes().to_vec()), ..attr(name, AttributeType::String) }
}

/// A tensor attribute.
pub fn attr_tensor(name: &str, value: TensorProto) -> AttributeProto {
    AttributeProto { t: Some(value), ..attr(name, AttributeType::Tensor) }
}

/// A subgraph attribute.
pub fn attr_graph(name: &str, value: GraphProto) -> AttributeProto {
    AttributeProto { g: Some(value), ..attr(name, AttributeType::Graph) }
}

/// An input or output known by name only; ONNX Runtime infers the type of an output written so.
pub fn value_info(name: &str) -> ValueInfoProto {
    ValueInfoProto { name: Some(name.to_owned()), ..Default::default() }
}

/// An input or output with element type and shape; a negative size stands for any.
pub fn value_info_typed(name: &str, data_type: DataType, dims: &[i64]) -> ValueInfoProto {
    use super::proto::tensor_shape_proto::{Dimension, dimension};
    use super::proto::{TensorShapeProto, TypeProto, type_proto};
    let dim =
        |&size: &i64| Dimension { denotation: None, value: (size >= 0).then_some(dimension::Value::DimValue(size)) };
    let tensor = type_proto::Tensor {
        elem_type: Some(data_type as i32),
        shape: Some(TensorShapeProto { dim: dims.iter().map(dim).collect() }),
    };
    ValueInfoProto {
        r#type: Some(TypeProto { denotation: None, value: Some(type_proto::Value::TensorType(tensor)) }),
        ..value_info(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_integers_are_packed_low_bits_first() {
        // numpy: onnx.helper.make_tensor("t", INT4, [3], [1, -2, 7]).int32_data → 0xE1, 0x07
        assert_eq!(tensor_i4("t", &[3], &[1, -2, 7]).raw_data.unwrap_or_default().as_ref(), [0xE1, 0x07]);
        assert_eq!(tensor_u4("t", &[2], &[15, 3]).raw_data.unwrap_or_default().as_ref(), [0x3F]);
        assert_eq!(tensor_i2("t", &[5], &[0, 1, -2, -1, 1]).raw_data.unwrap_or_default().as_ref(), [0b1110_0100, 1]);
        assert_eq!(tensor_u2("t", &[4], &[3, 2, 1, 0]).raw_data.unwrap_or_default().as_ref(), [0b0001_1011]);
    }

    #[test]
    fn bytes_are_little_endian() {
        assert_eq!(tensor_i32("t", &[1], &[-2]).raw_data.unwrap_or_default().as_ref(), [0xFE, 0xFF, 0xFF, 0xFF]);
        assert_eq!(tensor_f32("t", &[], &[1.0]).raw_data.unwrap_or_default().as_ref(), [0, 0, 0x80, 0x3F]);
    }
}
