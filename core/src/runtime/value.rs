//! What a run gives back: borrowed views of ONNX Runtime's own memory, or owned tensors.

use half::{bf16, f16};
use ort::value::{DynValue, DynValueTypeMarker, TensorElementType, ValueType};

use super::RuntimeError;
use crate::tensor::{Tensor, Values};

/// One output of a run, owned.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// The output's name; `name[0]`, `name[1]` … for the elements of a sequence.
    pub name: String,
    /// The tensor; `None` for what is none (a map, an optional) or of a type without an equal in [`Values`].
    pub value: Option<Tensor>,
}

/// One output of a run, borrowed from ONNX Runtime for as long as the visit lasts. Shapes are in elements, row-major,
/// empty for a scalar.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum View<'a> {
    F32 {
        shape: &'a [i64],
        values: &'a [f32],
    },
    F64 {
        shape: &'a [i64],
        values: &'a [f64],
    },
    F16 {
        shape: &'a [i64],
        values: &'a [f16],
    },
    Bf16 {
        shape: &'a [i64],
        values: &'a [bf16],
    },
    /// A tensor of integers, booleans or text, copied.
    Other(Tensor),
    /// No tensor, or one of a type without an equal in [`Values`].
    Absent,
}

impl View<'_> {
    /// The dimensions; `None` when there is no tensor.
    pub fn shape(&self) -> Option<Vec<usize>> {
        match self {
            Self::F32 { shape, .. } | Self::F64 { shape, .. } | Self::F16 { shape, .. } | Self::Bf16 { shape, .. } => {
                Some(sizes(shape))
            }
            Self::Other(tensor) => Some(tensor.shape.clone()),
            Self::Absent => None,
        }
    }

    /// An owned copy; `None` when there is no tensor.
    pub fn to_tensor(&self) -> Option<Tensor> {
        let (shape, values) = match self {
            Self::F32 { shape, values } => (shape, Values::F32(values.to_vec())),
            Self::F64 { shape, values } => (shape, Values::F64(values.to_vec())),
            Self::F16 { shape, values } => (shape, Values::F16(values.to_vec())),
            Self::Bf16 { shape, values } => (shape, Values::Bf16(values.to_vec())),
            Self::Other(tensor) => return Some(tensor.clone()),
            Self::Absent => return None,
        };
        Some(Tensor { shape: sizes(shape), values })
    }
}

fn sizes(shape: &[i64]) -> Vec<usize> {
    shape.iter().map(|&size| usize::try_from(size).unwrap_or(0)).collect()
}

/// Shows one value of a run to `visit`; a sequence's elements one by one.
pub(super) fn show(name: &str, value: &DynValue, visit: &mut dyn FnMut(&str, View<'_>)) -> Result<(), RuntimeError> {
    let fail = |error: ort::Error| RuntimeError::Output { output: name.to_owned(), reason: error.message().to_owned() };
    macro_rules! borrowed {
        ($variant:ident, $type:ty) => {{
            let (shape, values) = value.try_extract_tensor::<$type>().map_err(fail)?;
            visit(name, View::$variant { shape, values });
        }};
    }
    macro_rules! copied {
        ($variant:ident, $type:ty) => {{
            let (shape, values) = value.try_extract_tensor::<$type>().map_err(fail)?;
            visit(name, View::Other(Tensor { shape: sizes(shape), values: Values::$variant(values.to_vec()) }));
        }};
    }
    match value.dtype() {
        ValueType::Tensor { ty, .. } => match ty {
            TensorElementType::Float32 => borrowed!(F32, f32),
            TensorElementType::Float64 => borrowed!(F64, f64),
            TensorElementType::Float16 => borrowed!(F16, f16),
            TensorElementType::Bfloat16 => borrowed!(Bf16, bf16),
            TensorElementType::Int8 => copied!(I8, i8),
            TensorElementType::Int16 => copied!(I16, i16),
            TensorElementType::Int32 => copied!(I32, i32),
            TensorElementType::Int64 => copied!(I64, i64),
            TensorElementType::Uint8 => copied!(U8, u8),
            TensorElementType::Uint16 => copied!(U16, u16),
            TensorElementType::Uint32 => copied!(U32, u32),
            TensorElementType::Uint64 => copied!(U64, u64),
            TensorElementType::Bool => copied!(Bool, bool),
            TensorElementType::String => {
                let (shape, values) = value.try_extract_strings().map_err(fail)?;
                visit(name, View::Other(Tensor { shape: sizes(shape), values: Values::Text(values) }));
            }
            _ => visit(name, View::Absent),
        },
        ValueType::Sequence(element) if element.is_tensor() => {
            let elements = value.try_extract_sequence::<DynValueTypeMarker>().map_err(fail)?;
            for (index, element) in elements.iter().enumerate() {
                show(&format!("{name}[{index}]"), element, visit)?;
            }
        }
        _ => visit(name, View::Absent),
    }
    Ok(())
}
