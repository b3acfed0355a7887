//! A dense tensor with its element type: what samples, runtime values and decoded initializers are made of.

use half::{bf16, f16};

/// Values in row-major order, by element type.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Values {
    F32(Vec<f32>),
    F64(Vec<f64>),
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
    I8(Vec<i8>),
    I16(Vec<i16>),
    I32(Vec<i32>),
    I64(Vec<i64>),
    U8(Vec<u8>),
    U16(Vec<u16>),
    U32(Vec<u32>),
    U64(Vec<u64>),
    Bool(Vec<bool>),
    Text(Vec<String>),
}

/// A tensor: shape (row-major; empty for a scalar) and values.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Dimensions; the product equals the number of values.
    pub shape: Vec<usize>,
    /// The values.
    pub values: Values,
}

impl Values {
    /// Number of values.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(v) => v.len(),
            Self::F64(v) => v.len(),
            Self::F16(v) => v.len(),
            Self::Bf16(v) => v.len(),
            Self::I8(v) => v.len(),
            Self::I16(v) => v.len(),
            Self::I32(v) => v.len(),
            Self::I64(v) => v.len(),
            Self::U8(v) => v.len(),
            Self::U16(v) => v.len(),
            Self::U32(v) => v.len(),
            Self::U64(v) => v.len(),
            Self::Bool(v) => v.len(),
            Self::Text(v) => v.len(),
        }
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// ONNX's name of the element type, e.g. `float32`.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::F32(_) => "float32",
            Self::F64(_) => "float64",
            Self::F16(_) => "float16",
            Self::Bf16(_) => "bfloat16",
            Self::I8(_) => "int8",
            Self::I16(_) => "int16",
            Self::I32(_) => "int32",
            Self::I64(_) => "int64",
            Self::U8(_) => "uint8",
            Self::U16(_) => "uint16",
            Self::U32(_) => "uint32",
            Self::U64(_) => "uint64",
            Self::Bool(_) => "bool",
            Self::Text(_) => "string",
        }
    }

    /// Whether the element type is a floating one.
    pub fn is_float(&self) -> bool {
        matches!(self, Self::F32(_) | Self::F64(_) | Self::F16(_) | Self::Bf16(_))
    }

    /// The values as `f32` (numbers converted, booleans as 0 and 1); `None` for text.
    pub fn to_f32(&self) -> Option<Vec<f32>> {
        Some(match self {
            Self::F32(v) => v.clone(),
            Self::F64(v) => v.iter().map(|&x| x as f32).collect(),
            Self::F16(v) => v.iter().map(|x| x.to_f32()).collect(),
            Self::Bf16(v) => v.iter().map(|x| x.to_f32()).collect(),
            Self::I8(v) => v.iter().map(|&x| f32::from(x)).collect(),
            Self::I16(v) => v.iter().map(|&x| f32::from(x)).collect(),
            Self::I32(v) => v.iter().map(|&x| x as f32).collect(),
            Self::I64(v) => v.iter().map(|&x| x as f32).collect(),
            Self::U8(v) => v.iter().map(|&x| f32::from(x)).collect(),
            Self::U16(v) => v.iter().map(|&x| f32::from(x)).collect(),
            Self::U32(v) => v.iter().map(|&x| x as f32).collect(),
            Self::U64(v) => v.iter().map(|&x| x as f32).collect(),
            Self::Bool(v) => v.iter().map(|&x| f32::from(u8::from(x))).collect(),
            Self::Text(_) => return None,
        })
    }
}

impl Tensor {
    /// A tensor of `f32` values. The caller keeps `shape` and `values` in step.
    pub fn from_f32(shape: Vec<usize>, values: Vec<f32>) -> Self {
        debug_assert_eq!(shape.iter().product::<usize>(), values.len());
        Self { shape, values: Values::F32(values) }
    }
}
