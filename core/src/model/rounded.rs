//! Constant weights behind QuantizeLinear and DequantizeLinear, with what exporters put between the two.
//!
//! Patterns read: PyTorch (`fake_quantize_per_channel_affine` and `TensorQuantizer`: int8 or uint8 along axis 0, zero points
//! as constants or behind a Cast, a Clip for narrower ranges), brevitas QCDQ (a Clip on the integers for fewer bits),
//! TensorFlow through tf2onnx (kernels in HWIO order, quantized along axis 3 and transposed afterwards), ONNX Runtime's
//! domain, and blocks (operator set 21).

use crate::model::graph::int_attribute;
use crate::model::grid::Spread;
use crate::model::movement::Source;
use crate::onnx::proto::{NodeProto, TensorProto, tensor_proto::DataType};
use crate::onnx::{OnnxError, OnnxFile, build};
use crate::operators::is_default_domain;
use crate::plan::Precision;
use crate::quant::QuantParams;
use crate::tensor::Values;

/// A constant after QuantizeLinear.
#[derive(Clone)]
pub struct Rounding {
    /// The float constant.
    tensor: TensorProto,
    /// How deep the graph that holds it lies.
    depth: usize,
    axis: Axis,
    scales: Vec<f32>,
    zero_points: Vec<i32>,
    qmin: i32,
    qmax: i32,
    /// Whether the integers are unsigned: they become signed ones, half the range lower.
    unsigned: bool,
    bits: u32,
}

/// Along what scales differ.
#[derive(Clone, Copy, PartialEq)]
enum Axis {
    Tensor,
    /// Product of the dimensions behind the axis, and its size.
    Channel {
        inner: usize,
        size: usize,
    },
    Block {
        inner: usize,
        size: usize,
        block: usize,
    },
}

impl Axis {
    fn group(self, index: usize) -> usize {
        match self {
            Self::Tensor => 0,
            Self::Channel { inner, size } => index / inner % size,
            Self::Block { inner, size, block } => {
                let blocks = size.div_ceil(block);
                (index / (inner * size) * blocks + index / inner % size / block) * inner + index % inner
            }
        }
    }
}

/// Whether this is the operator, in the standard's or in ONNX Runtime's own domain.
pub fn is(node: &NodeProto, op: &str) -> bool {
    node.op_type() == op && (is_default_domain(node.domain()) || node.domain() == "com.microsoft")
}

type Find<'f, 't> = &'f dyn Fn(&str) -> Option<Source<'t>>;

/// A QuantizeLinear of a float constant with constant, usable scales; `None` when it is something else.
pub fn quantize(node: &NodeProto, find: Find<'_, '_>, file: &OnnxFile) -> Result<Option<Rounding>, OnnxError> {
    if !is(node, "QuantizeLinear") {
        return Ok(None);
    }
    let constant = |position: usize| node.input.get(position).filter(|name| !name.is_empty()).and_then(|n| find(n));
    let (Some(source), Some(scale)) = (constant(0), constant(1)) else { return Ok(None) };
    if source.tensor.data_type() != DataType::Float as i32 || scale.tensor.data_type() != DataType::Float as i32 {
        return Ok(None);
    }
    let has_zero_point = node.input.get(2).is_some_and(|name| !name.is_empty());
    let zero_point = match constant(2) {
        Some(zero_point) => Some(zero_point.tensor),
        None if has_zero_point => return Ok(None),
        None => None,
    };
    let output = i32::try_from(int_attribute(node, "output_dtype", 0)).unwrap_or(0);
    let kind = zero_point.map_or(if output == 0 { DataType::Uint8 as i32 } else { output }, TensorProto::data_type);
    let Some((bits, unsigned)) = integers(kind) else { return Ok(None) };
    let scales = file.read_f32(scale.tensor)?.into_owned();
    let zero_points = match zero_point {
        Some(tensor) => integer_values(file.read(tensor)?.values),
        None => Some(vec![0; scales.len()]),
    };
    let Some(zero_points) = zero_points.filter(|values| values.len() == scales.len()) else { return Ok(None) };
    let Some(axis) = axis(node, source.tensor, scale.tensor, scales.len()) else { return Ok(None) };
    if scales.iter().any(|scale| !(scale.is_finite() && *scale > 0.0)) {
        return Ok(None);
    }
    let half = 1_i32 << (bits - 1);
    let (qmin, qmax) = if unsigned { (0, 2 * half - 1) } else { (-half, half - 1) };
    let (tensor, depth) = (source.tensor.clone(), source.depth);
    Ok(Some(Rounding { tensor, depth, axis, scales, zero_points, qmin, qmax, unsigned, bits }))
}

fn axis(node: &NodeProto, source: &TensorProto, scale: &TensorProto, count: usize) -> Option<Axis> {
    if count == 1 {
        return Some(Axis::Tensor);
    }
    let dims: Vec<usize> = source.dims.iter().map(|&dim| usize::try_from(dim).ok()).collect::<Option<_>>()?;
    let given = int_attribute(node, "axis", 1);
    let at = usize::try_from(if given < 0 { given + dims.len() as i64 } else { given }).ok()?;
    let (size, inner) = (*dims.get(at)?, dims.get(at + 1..)?.iter().product::<usize>().max(1));
    match usize::try_from(int_attribute(node, "block_size", 0)).unwrap_or(0) {
        0 => (scale.dims.len() == 1 && count == size).then_some(Axis::Channel { inner, size }),
        block => {
            let groups: usize =
                dims.iter().enumerate().map(|(i, &d)| if i == at { d.div_ceil(block) } else { d }).product();
            (groups == count).then_some(Axis::Block { inner, size, block })
        }
    }
}

/// A Clip of rounded integers, as exporters write it for fewer bits than the type has; `None` when it is something else.
pub fn clip(
    node: &NodeProto,
    rounding: &Rounding,
    find: Find<'_, '_>,
    file: &OnnxFile,
) -> Result<Option<Rounding>, OnnxError> {
    if !is(node, "Clip") {
        return Ok(None);
    }
    let mut rounding = rounding.clone();
    for (position, bound) in [(1, &mut rounding.qmin), (2, &mut rounding.qmax)] {
        let Some(name) = node.input.get(position).filter(|name| !name.is_empty()) else { continue };
        let Some(source) = find(name) else { return Ok(None) };
        match integer_values(file.read(source.tensor)?.values).as_deref() {
            Some([value]) => *bound = if position == 1 { (*bound).max(*value) } else { (*bound).min(*value) },
            _ => return Ok(None),
        }
    }
    if rounding.qmin > rounding.qmax {
        return Ok(None);
    }
    // Shifted to signed integers, do all of them fit 4 bits?
    let shift = if rounding.unsigned { 8 } else { 0 };
    if rounding.bits == 8 && rounding.qmin - shift >= -8 && rounding.qmax - shift <= 7 {
        rounding.bits = 4;
    }
    Ok(Some(rounding))
}

/// The DequantizeLinear that undoes `rounding`: the rounded weight in floating point, its grid, and the depth of the graph
/// that holds the constant; `None` when its parameters differ.
pub fn dequantize(
    node: &NodeProto,
    rounding: &Rounding,
    find: Find<'_, '_>,
    file: &OnnxFile,
) -> Result<Option<(TensorProto, Spread, usize)>, OnnxError> {
    if !is(node, "DequantizeLinear") {
        return Ok(None);
    }
    let constant = |position: usize| node.input.get(position).filter(|name| !name.is_empty()).and_then(|n| find(n));
    let Some(scale) = constant(1) else { return Ok(None) };
    if scale.tensor.data_type() != DataType::Float as i32 {
        return Ok(None);
    }
    let scales = file.read_f32(scale.tensor)?;
    let zero_points = match constant(2) {
        Some(zero_point) => integer_values(file.read(zero_point.tensor)?.values),
        None if node.input.get(2).is_some_and(|name| !name.is_empty()) => None,
        None => Some(vec![0; scales.len()]),
    };
    let same = axis(node, &rounding.tensor, scale.tensor, scales.len()) == Some(rounding.axis)
        && *scales == *rounding.scales
        && zero_points.as_ref() == Some(&rounding.zero_points);
    if !same {
        return Ok(None);
    }
    let mut values = file.read_f32(&rounding.tensor)?.into_owned();
    // Unsigned integers with their zero points are signed ones lower by half the range: the same real numbers.
    let shift = if rounding.unsigned { 1_i32 << (rounding.bits - 1) } else { 0 };
    let (mut spread_scale, mut spread_zero) = (Vec::with_capacity(values.len()), Vec::with_capacity(values.len()));
    for (index, value) in values.iter_mut().enumerate() {
        let group = rounding.axis.group(index);
        let (Some(&scale), Some(&zero_point)) = (rounding.scales.get(group), rounding.zero_points.get(group)) else {
            return Ok(None);
        };
        let params = QuantParams { scale, zero_point, qmin: rounding.qmin, qmax: rounding.qmax };
        *value = params.fake(*value);
        spread_scale.push(scale);
        spread_zero.push((zero_point - shift) as f32);
    }
    let dims = &rounding.tensor.dims;
    let spread = Spread {
        scale: build::tensor_f32("", dims, &spread_scale),
        zero_point: build::tensor_f32("", dims, &spread_zero),
        precision: if rounding.bits == 4 { Precision::Int4 } else { Precision::Int8 },
    };
    Ok(Some((build::tensor_f32("", dims, &values), spread, rounding.depth)))
}

/// Bits of an integer type that weights are trained in, and whether it is unsigned.
fn integers(kind: i32) -> Option<(u32, bool)> {
    match DataType::try_from(kind).ok()? {
        DataType::Int8 => Some((8, false)),
        DataType::Uint8 => Some((8, true)),
        DataType::Int4 => Some((4, false)),
        DataType::Uint4 => Some((4, true)),
        _ => None,
    }
}

/// Integers of up to 32 bits; `None` for anything else.
pub fn integer_values(values: Values) -> Option<Vec<i32>> {
    Some(match values {
        Values::I8(values) => values.into_iter().map(i32::from).collect(),
        Values::U8(values) => values.into_iter().map(i32::from).collect(),
        Values::I16(values) => values.into_iter().map(i32::from).collect(),
        Values::U16(values) => values.into_iter().map(i32::from).collect(),
        Values::I32(values) => values,
        _ => return None,
    })
}
