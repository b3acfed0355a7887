//! Decoding one tensor: raw bytes (little endian) or typed fields, in the file or in external data.

use std::borrow::Cow;

use bytes::Bytes;
use half::{bf16, f16};

use super::external::is_external;
use super::proto::TensorProto;
use super::proto::tensor_proto::DataType;
use super::{OnnxError, OnnxFile, element_type_name};
use crate::limits;
use crate::tensor::{Tensor, Values};

impl OnnxFile {
    /// The tensor's values, whatever way they are stored. Packed integers of 4 and 2 bits come as one value a byte: signed
    /// ones as int8, unsigned ones as uint8. Floats of fewer than 16 bits and complex numbers are refused by name.
    pub fn read(&self, tensor: &TensorProto) -> Result<Tensor, OnnxError> {
        let shape = shape(tensor)?;
        let count = shape.iter().product();
        let values = match self.raw(tensor)? {
            Some(bytes) => from_raw(tensor, &bytes, count)?,
            None => from_fields(tensor, count)?,
        };
        Ok(Tensor { shape, values })
    }

    /// The values as float32: borrowed from the mapped file where they are stored as such and aligned, else converted.
    /// Text is refused.
    pub fn read_f32<'a>(&'a self, tensor: &'a TensorProto) -> Result<Cow<'a, [f32]>, OnnxError> {
        if tensor.data_type == Some(DataType::Float as i32) {
            let count = shape(tensor)?.iter().product();
            let borrowed: Option<&'a [u8]> =
                if is_external(tensor) { Some(self.external.borrow(tensor)?) } else { tensor.raw_data.as_deref() };
            if let Some(bytes) = borrowed.filter(|_| cfg!(target_endian = "little")) {
                check_length(tensor, bytes, count, 4)?;
                if let Ok(values) = bytemuck::try_cast_slice(bytes) {
                    return Ok(Cow::Borrowed(values));
                }
            } else if borrowed.is_none() && tensor.float_data.len() == count {
                return Ok(Cow::Borrowed(&tensor.float_data));
            }
        }
        let decoded = self.read(tensor)?;
        if let Values::F32(values) = decoded.values {
            return Ok(Cow::Owned(values));
        }
        decoded.values.to_f32().map(Cow::Owned).ok_or_else(|| OnnxError::Tensor {
            tensor: name(tensor),
            reason: format!("{} values where numbers are wanted", decoded.values.type_name()),
        })
    }

    /// The raw bytes, from the file or from external data; `None` when the values stand in typed fields.
    fn raw(&self, tensor: &TensorProto) -> Result<Option<Bytes>, OnnxError> {
        if is_external(tensor) { self.external.bytes(tensor).map(Some) } else { Ok(tensor.raw_data.clone()) }
    }
}

/// The tensor's dimensions, within the limits; an empty list is a scalar.
pub(super) fn shape(tensor: &TensorProto) -> Result<Vec<usize>, OnnxError> {
    let over = |what: &str, limit: u64| OnnxError::OverLimit { what: what.to_owned(), limit, place: name(tensor) };
    if tensor.dims.len() > limits::MAX_RANK {
        return Err(over("The number of dimensions", limits::MAX_RANK as u64));
    }
    let mut elements: u64 = 1;
    let mut shape = Vec::with_capacity(tensor.dims.len());
    for &dim in &tensor.dims {
        let size = usize::try_from(dim).map_err(|_| OnnxError::Tensor {
            tensor: name(tensor),
            reason: format!("its shape {:?} has a negative size", tensor.dims),
        })?;
        // A zero anywhere makes the tensor empty; the other sizes must not overflow all the same.
        elements = elements
            .checked_mul(size.max(1) as u64)
            .filter(|&elements| elements <= limits::MAX_TENSOR_ELEMENTS)
            .ok_or_else(|| over("The number of elements", limits::MAX_TENSOR_ELEMENTS))?;
        shape.push(size);
    }
    Ok(shape)
}

/// How many bytes the tensor's raw data have by its shape and type; `None` for text and types of unknown size.
pub(super) fn byte_size(tensor: &TensorProto) -> Option<u64> {
    let bits: u64 = match data_type(tensor)? {
        DataType::Complex128 => 128,
        DataType::Double | DataType::Int64 | DataType::Uint64 | DataType::Complex64 => 64,
        DataType::Float | DataType::Int32 | DataType::Uint32 => 32,
        DataType::Float16 | DataType::Bfloat16 | DataType::Int16 | DataType::Uint16 => 16,
        DataType::Int4 | DataType::Uint4 | DataType::Float4e2m1 => 4,
        DataType::Int2 | DataType::Uint2 => 2,
        DataType::Undefined | DataType::String | DataType::Float6e2m3 | DataType::Float6e3m2 => return None,
        _ => 8,
    };
    let count: usize = shape(tensor).ok()?.iter().product();
    Some((count as u64).checked_mul(bits)?.div_ceil(8))
}

fn data_type(tensor: &TensorProto) -> Option<DataType> {
    DataType::try_from(tensor.data_type.unwrap_or_default()).ok()
}

fn from_raw(tensor: &TensorProto, bytes: &[u8], count: usize) -> Result<Values, OnnxError> {
    macro_rules! numbers {
        ($variant:ident, $type:ty) => {{
            check_length(tensor, bytes, count, size_of::<$type>())?;
            let chunks = bytes.as_chunks::<{ size_of::<$type>() }>().0;
            Values::$variant(chunks.iter().map(|&chunk| <$type>::from_le_bytes(chunk)).collect())
        }};
    }
    Ok(match data_type(tensor) {
        Some(DataType::Float) => numbers!(F32, f32),
        Some(DataType::Double) => numbers!(F64, f64),
        Some(DataType::Float16) => numbers!(F16, f16),
        Some(DataType::Bfloat16) => numbers!(Bf16, bf16),
        Some(DataType::Int8) => numbers!(I8, i8),
        Some(DataType::Int16) => numbers!(I16, i16),
        Some(DataType::Int32) => numbers!(I32, i32),
        Some(DataType::Int64) => numbers!(I64, i64),
        Some(DataType::Uint8) => numbers!(U8, u8),
        Some(DataType::Uint16) => numbers!(U16, u16),
        Some(DataType::Uint32) => numbers!(U32, u32),
        Some(DataType::Uint64) => numbers!(U64, u64),
        Some(DataType::Bool) => {
            check_length(tensor, bytes, count, 1)?;
            Values::Bool(bytes.iter().map(|&byte| byte != 0).collect())
        }
        Some(kind @ (DataType::Int4 | DataType::Uint4 | DataType::Int2 | DataType::Uint2)) => {
            unpack(tensor, kind, bytes, count)?
        }
        _ => return Err(unsupported(tensor)),
    })
}

/// Values of the typed fields. Narrow types share `int32_data`, one value an entry: half floats by their bits, packed
/// integers by the byte (onnx.proto, `TensorProto`).
fn from_fields(tensor: &TensorProto, count: usize) -> Result<Values, OnnxError> {
    let narrow = &tensor.int32_data;
    let values = match data_type(tensor) {
        Some(DataType::Float) => Values::F32(tensor.float_data.clone()),
        Some(DataType::Double) => Values::F64(tensor.double_data.clone()),
        Some(DataType::Float16) => Values::F16(narrow.iter().map(|&bits| f16::from_bits(bits as u16)).collect()),
        Some(DataType::Bfloat16) => Values::Bf16(narrow.iter().map(|&bits| bf16::from_bits(bits as u16)).collect()),
        Some(DataType::Int8) => Values::I8(narrow.iter().map(|&value| value as i8).collect()),
        Some(DataType::Int16) => Values::I16(narrow.iter().map(|&value| value as i16).collect()),
        Some(DataType::Int32) => Values::I32(narrow.clone()),
        Some(DataType::Int64) => Values::I64(tensor.int64_data.clone()),
        Some(DataType::Uint8) => Values::U8(narrow.iter().map(|&value| value as u8).collect()),
        Some(DataType::Uint16) => Values::U16(narrow.iter().map(|&value| value as u16).collect()),
        Some(DataType::Uint32) => Values::U32(tensor.uint64_data.iter().map(|&value| value as u32).collect()),
        Some(DataType::Uint64) => Values::U64(tensor.uint64_data.clone()),
        Some(DataType::Bool) => Values::Bool(narrow.iter().map(|&value| value != 0).collect()),
        Some(DataType::String) => {
            Values::Text(tensor.string_data.iter().map(|text| String::from_utf8_lossy(text).into_owned()).collect())
        }
        Some(kind @ (DataType::Int4 | DataType::Uint4 | DataType::Int2 | DataType::Uint2)) => {
            let bytes: Vec<u8> = narrow.iter().map(|&byte| byte as u8).collect();
            unpack(tensor, kind, &bytes, count)?
        }
        _ => return Err(unsupported(tensor)),
    };
    if values.len() == count {
        Ok(values)
    } else {
        Err(OnnxError::Tensor {
            tensor: name(tensor),
            reason: format!("its shape {:?} wants {count} values, {} are stored", tensor.dims, values.len()),
        })
    }
}

fn unpack(tensor: &TensorProto, kind: DataType, bytes: &[u8], count: usize) -> Result<Values, OnnxError> {
    let bits = if matches!(kind, DataType::Int4 | DataType::Uint4) { 4 } else { 2 };
    check_length(tensor, bytes, count.div_ceil(8 / bits), 1)?;
    let fields = bytes.iter().flat_map(|&byte| (0..8 / bits).map(move |index| byte << (8 - bits * (index + 1))));
    let fields = fields.take(count);
    let shift = 8 - bits;
    // Each field stands at the top of its byte, so that an arithmetic shift extends the sign.
    Ok(if matches!(kind, DataType::Int4 | DataType::Int2) {
        Values::I8(fields.map(|byte| (byte as i8) >> shift).collect())
    } else {
        Values::U8(fields.map(|byte| byte >> shift).collect())
    })
}

fn check_length(tensor: &TensorProto, bytes: &[u8], count: usize, size: usize) -> Result<(), OnnxError> {
    let wanted = count.checked_mul(size);
    if wanted == Some(bytes.len()) {
        return Ok(());
    }
    Err(OnnxError::Tensor {
        tensor: name(tensor),
        reason: format!(
            "its shape {:?} of {} wants {} bytes, {} are stored",
            tensor.dims,
            element_type_name(tensor.data_type.unwrap_or_default()),
            wanted.map_or("too many".to_owned(), |wanted| wanted.to_string()),
            bytes.len()
        ),
    })
}

fn unsupported(tensor: &TensorProto) -> OnnxError {
    OnnxError::ElementType {
        tensor: name(tensor),
        element_type: element_type_name(tensor.data_type.unwrap_or_default()),
    }
}

fn name(tensor: &TensorProto) -> String {
    tensor.name.clone().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Control;
    use crate::onnx::build::{node, tensor_i2, tensor_i4, tensor_raw, tensor_u4};
    use crate::onnx::proto::{GraphProto, ModelProto};

    /// Any file will do: the tensors under test carry their own data.
    fn file() -> OnnxFile {
        let folder = tempfile::tempdir().expect("temp folder");
        let graph = GraphProto { node: vec![node("Relu", "", "", &["x"], &["y"], vec![])], ..Default::default() };
        let path = folder.path().join("m.onnx");
        crate::onnx::save(&ModelProto { graph: Some(graph), ..Default::default() }, None, &path).expect("save");
        OnnxFile::load(&path, &Control::new()).expect("load")
    }

    fn typed(data_type: DataType, dims: &[i64]) -> TensorProto {
        TensorProto { raw_data: None, ..tensor_raw("t", data_type, dims, vec![]) }
    }

    #[test]
    fn raw_and_typed_fields_give_the_same() {
        let file = file();
        let read = |tensor: TensorProto| file.read(&tensor).expect("readable").values;
        let half = tensor_raw("t", DataType::Float16, &[2], vec![0x00, 0x3C, 0x00, 0xC0]);
        let half_typed = TensorProto { int32_data: vec![0x3C00, 0xC000], ..typed(DataType::Float16, &[2]) };
        assert_eq!(read(half.clone()), Values::F16(vec![f16::ONE, f16::from_f32(-2.0)]));
        assert_eq!(read(half), read(half_typed));
        let nibbles = TensorProto { int32_data: vec![0xE1, 0x07], ..typed(DataType::Int4, &[3]) };
        assert_eq!(read(tensor_i4("t", &[3], &[1, -2, 7])), Values::I8(vec![1, -2, 7]));
        assert_eq!(read(nibbles), Values::I8(vec![1, -2, 7]));
        assert_eq!(read(tensor_u4("t", &[3], &[15, 0, 8])), Values::U8(vec![15, 0, 8]));
        assert_eq!(read(tensor_i2("t", &[5], &[0, 1, -2, -1, 1])), Values::I8(vec![0, 1, -2, -1, 1]));
        let big = TensorProto { uint64_data: vec![7, u64::from(u32::MAX)], ..typed(DataType::Uint32, &[2]) };
        assert_eq!(read(big), Values::U32(vec![7, u32::MAX]));
        let text = TensorProto { string_data: vec![b"a".to_vec()], ..typed(DataType::String, &[]) };
        assert_eq!(read(text), Values::Text(vec!["a".to_owned()]));
        let bools = tensor_raw("t", DataType::Bool, &[2], vec![0, 2]);
        assert_eq!(read(bools), Values::Bool(vec![false, true]));
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let file = file();
        let reason = |tensor: &TensorProto| file.read(tensor).expect_err("refused").to_string();
        assert!(reason(&tensor_raw("w", DataType::Float, &[2], vec![0; 7])).contains("wants 8 bytes, 7 are stored"));
        assert!(reason(&tensor_raw("w", DataType::Float, &[-1], vec![])).contains("negative"));
        assert!(reason(&tensor_raw("w", DataType::Float, &[i64::MAX, 2], vec![])).contains("limit"));
        assert!(reason(&tensor_raw("w", DataType::Float, &[0, i64::MAX, 2], vec![])).contains("limit"));
        assert!(reason(&tensor_raw("w", DataType::Float, &[1; 33], vec![])).contains("limit"));
        assert!(reason(&tensor_raw("w", DataType::Float8e4m3fn, &[1], vec![0])).contains("float8e4m3fn"));
        assert!(reason(&TensorProto { int32_data: vec![1], ..typed(DataType::Int8, &[2]) }).contains("1 are stored"));
        assert!(reason(&TensorProto::default()).contains("undefined"));
    }

    #[test]
    fn float_values_are_borrowed_where_possible() {
        let file = file();
        let fields = TensorProto { float_data: vec![1.5, -2.0], ..typed(DataType::Float, &[2]) };
        assert!(matches!(file.read_f32(&fields), Ok(Cow::Borrowed([1.5, -2.0]))));
        let raw = crate::onnx::build::tensor_f32("t", &[2], &[1.5, -2.0]);
        assert_eq!(file.read_f32(&raw).expect("float32").as_ref(), [1.5, -2.0]);
        let double = TensorProto { double_data: vec![0.5], ..typed(DataType::Double, &[1]) };
        assert_eq!(file.read_f32(&double).expect("converted").as_ref(), [0.5]);
        // One byte off any alignment, as protobuf fields often are.
        let bytes = Bytes::from([vec![0; 1], 1.5f32.to_le_bytes().to_vec()].concat()).slice(1..);
        let odd = TensorProto { raw_data: Some(bytes), ..typed(DataType::Float, &[1]) };
        assert_eq!(file.read_f32(&odd).expect("copied").as_ref(), [1.5]);
    }
}
