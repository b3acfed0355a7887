//! What a backward rule is given: the node, the values around it, and which gradients are wanted.

use std::borrow::Cow;

use ndarray::{ArrayD, ArrayViewD};

use crate::model::graph::{attribute, float_attribute, int_attribute, ints_attribute};
use crate::onnx::proto::NodeProto;
use crate::tensor::{Tensor, Values};

/// Values of one tensor.
#[derive(Clone, Debug)]
pub enum Data<'a> {
    /// Floating values, converted to float32.
    F32(Cow<'a, [f32]>),
    /// Integers and booleans.
    I64(Vec<i64>),
    /// Text, or nothing known.
    Opaque,
}

/// A tensor as rules see it.
#[derive(Clone, Debug)]
pub struct Value<'a> {
    /// Dimensions; the product equals the number of values.
    pub shape: Vec<usize>,
    /// The values, row-major.
    pub data: Data<'a>,
}

impl Value<'_> {
    /// Takes over a tensor: floats as float32, integers and booleans as int64.
    pub fn from_tensor(tensor: Tensor) -> Value<'static> {
        let integers = |values: Option<Vec<i64>>| values.map_or(Data::Opaque, Data::I64);
        let data = match tensor.values {
            Values::F32(values) => Data::F32(Cow::Owned(values)),
            Values::I64(values) => Data::I64(values),
            Values::I32(values) => Data::I64(values.into_iter().map(i64::from).collect()),
            Values::Bool(values) => Data::I64(values.into_iter().map(i64::from).collect()),
            Values::Text(_) => Data::Opaque,
            values if values.is_float() => values.to_f32().map_or(Data::Opaque, |v| Data::F32(Cow::Owned(v))),
            values => integers(values.to_f32().map(|v| v.into_iter().map(|x| x as i64).collect())),
        };
        Value { shape: tensor.shape, data }
    }

    /// The floats; an error for anything else.
    pub fn floats(&self) -> Result<&[f32], String> {
        match &self.data {
            Data::F32(values) => Ok(values),
            _ => Err("a tensor is not floating".to_owned()),
        }
    }

    /// The integers; an error for anything else.
    pub fn integers(&self) -> Result<&[i64], String> {
        match &self.data {
            Data::I64(values) => Ok(values),
            _ => Err("a tensor holds no integers".to_owned()),
        }
    }

    /// The floats with their shape.
    pub fn view(&self) -> Result<ArrayViewD<'_, f32>, String> {
        ArrayViewD::from_shape(self.shape.clone(), self.floats()?).map_err(|error| error.to_string())
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One node to go back through.
pub(super) struct Call<'a> {
    pub(super) node: &'a NodeProto,
    pub(super) opset: i64,
    pub(super) inputs: Vec<Option<&'a Value<'a>>>,
    pub(super) outputs: Vec<Option<&'a Value<'a>>>,
    /// For each input whether its gradient is wanted.
    pub(super) wants: &'a [bool],
}

/// Gradients, one an input or output; `None` where there is none.
pub(super) type Gradients = Vec<Option<ArrayD<f32>>>;

/// Takes the gradients of a node's outputs (row-major, at least the first present) to those of its inputs.
pub(super) type Rule = fn(&Call<'_>, Gradients) -> Result<Gradients, String>;

impl<'a> Call<'a> {
    pub(super) fn input(&self, at: usize) -> Result<&'a Value<'a>, String> {
        self.optional(at).ok_or_else(|| format!("input {at} is not known"))
    }

    pub(super) fn optional(&self, at: usize) -> Option<&'a Value<'a>> {
        self.inputs.get(at).copied().flatten()
    }

    pub(super) fn output(&self) -> Result<&'a Value<'a>, String> {
        self.outputs.first().copied().flatten().ok_or_else(|| "its output is not known".to_owned())
    }

    pub(super) fn wants(&self, at: usize) -> bool {
        self.wants.get(at).copied().unwrap_or(false)
    }

    pub(super) fn int(&self, name: &str, default: i64) -> i64 {
        int_attribute(self.node, name, default)
    }

    pub(super) fn float(&self, name: &str, default: f32) -> f32 {
        float_attribute(self.node, name, default)
    }

    pub(super) fn ints(&self, name: &str) -> &[i64] {
        ints_attribute(self.node, name)
    }

    pub(super) fn text(&self, name: &str) -> String {
        let bytes = attribute(self.node, name).and_then(|attribute| attribute.s.clone()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The integers of an input, or of the attribute that older operator sets have instead; `None` when neither is there.
    pub(super) fn list(&self, at: usize, name: &str) -> Result<Option<Vec<i64>>, String> {
        match self.optional(at) {
            Some(value) => Ok(Some(value.integers()?.to_vec())),
            None => Ok(Some(self.ints(name).to_vec()).filter(|values| !values.is_empty())),
        }
    }

    /// The axis that `value` (possibly counted from the end) names among `rank`.
    pub(super) fn axis(value: i64, rank: usize) -> Result<usize, String> {
        let axis = if value < 0 { value + rank as i64 } else { value };
        usize::try_from(axis).ok().filter(|&axis| axis < rank.max(1)).ok_or_else(|| format!("axis {value} of {rank}"))
    }
}

/// The gradient of the first output.
pub(super) fn first(gradients: Gradients) -> Result<ArrayD<f32>, String> {
    gradients.into_iter().next().flatten().ok_or_else(|| "no gradient came".to_owned())
}

/// The array's values; rules only see row-major arrays.
pub(super) fn slice(array: &ArrayD<f32>) -> Result<&[f32], String> {
    array.as_slice().ok_or_else(|| "a gradient is not contiguous".to_owned())
}

/// A row-major array of `shape`.
pub(super) fn array(shape: &[usize], values: Vec<f32>) -> Result<ArrayD<f32>, String> {
    ArrayD::from_shape_vec(shape.to_vec(), values).map_err(|error| error.to_string())
}
