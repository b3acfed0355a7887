//! Data movements of constant weights, computed once: Identity, Reshape, Squeeze, Unsqueeze, Transpose, Slice, Concat; and
//! the Cast of half-precision weights to float32.

use ndarray::{ArrayD, ArrayViewD, Axis, SliceInfoElem};

use crate::model::graph::{int_attribute, ints_attribute};
use crate::model::rounded::integer_values;
use crate::onnx::proto::{NodeProto, TensorProto, tensor_proto::DataType};
use crate::onnx::{OnnxError, OnnxFile, build};
use crate::operators::is_default_domain;
use crate::tensor::Values;

/// A constant and how deep the graph that holds it lies.
#[derive(Clone, Copy)]
pub struct Source<'t> {
    /// The constant.
    pub tensor: &'t TensorProto,
    /// 0 for the main graph.
    pub depth: usize,
}

/// The result of a node that moves constant floats, with the depth of the innermost one; `None` when it is no such node.
/// Integers (shapes, axes, indices) are left to the runtime.
pub fn compute<'t>(
    node: &NodeProto,
    find: &dyn Fn(&str) -> Option<Source<'t>>,
    file: &OnnxFile,
) -> Result<Option<(TensorProto, usize)>, OnnxError> {
    if !is_default_domain(node.domain()) {
        return Ok(None);
    }
    let op = node.op_type();
    if op == "Cast" {
        return cast(node, find, file);
    }
    let count = match op {
        "Concat" => node.input.len(),
        "Identity" | "Reshape" | "Squeeze" | "Unsqueeze" | "Transpose" | "Slice" => 1,
        _ => return Ok(None),
    };
    let mut sources = Vec::new();
    for name in node.input.iter().take(count) {
        match find(name).filter(|source| is_float(source.tensor)) {
            Some(source) => sources.push(source),
            None => return Ok(None),
        }
    }
    let Some(first) = sources.first().copied() else { return Ok(None) };
    let depth = sources.iter().map(|source| source.depth).max().unwrap_or(0);
    let ints = |position: usize| -> Result<Option<Vec<i64>>, OnnxError> {
        match node.input.get(position).filter(|name| !name.is_empty()).and_then(|name| find(name)) {
            Some(source) => Ok(match file.read(source.tensor)?.values {
                Values::I64(values) => Some(values),
                Values::I32(values) => Some(values.into_iter().map(i64::from).collect()),
                _ => None,
            }),
            None => Ok(None),
        }
    };
    let dims = shape(first.tensor);
    let moved = match op {
        "Identity" => reshaped(first.tensor, Some(dims)),
        "Reshape" => match ints(1)? {
            // `allowzero` changes what a 0 means, and nothing else.
            Some(target) if int_attribute(node, "allowzero", 0) == 0 || !target.contains(&0) => {
                reshaped(first.tensor, reshape(&dims, &target))
            }
            _ => None,
        },
        "Unsqueeze" => reshaped(first.tensor, axes(node, ints(1)?).and_then(|axes| unsqueeze(&dims, &axes))),
        "Squeeze" => reshaped(first.tensor, axes(node, ints(1)?).and_then(|axes| squeeze(&dims, &axes))),
        "Transpose" => {
            let values = file.read_f32(first.tensor)?;
            array(&dims, &values).and_then(|view| transpose(view, ints_attribute(node, "perm")))
        }
        "Slice" => {
            let given = |position: usize, name: &str| -> Result<Option<Vec<i64>>, OnnxError> {
                Ok(ints(position)?.or_else(|| Some(ints_attribute(node, name).to_vec()).filter(|v| !v.is_empty())))
            };
            let (starts, ends) = (given(1, "starts")?, given(2, "ends")?);
            let (axes, steps) = (given(3, "axes")?, ints(4)?);
            let unknown = |position: usize, read: &Option<Vec<i64>>| {
                read.is_none() && node.input.get(position).is_some_and(|name| !name.is_empty())
            };
            match (starts, ends) {
                (Some(starts), Some(ends)) if !unknown(3, &axes) && !unknown(4, &steps) => {
                    let values = file.read_f32(first.tensor)?;
                    let axes = axes.unwrap_or_else(|| (0..starts.len() as i64).collect());
                    let steps = steps.unwrap_or_else(|| vec![1; starts.len()]);
                    array(&dims, &values).and_then(|view| slice(&view, &starts, &ends, &axes, &steps))
                }
                _ => None,
            }
        }
        _ => concat(node, &sources, file)?,
    };
    Ok(moved.map(|tensor| (tensor, depth)))
}

/// A Cast of floats to float32, or of a few integers (zero points, as PyTorch writes them) to 8 or 32 bits.
fn cast<'t>(
    node: &NodeProto,
    find: &dyn Fn(&str) -> Option<Source<'t>>,
    file: &OnnxFile,
) -> Result<Option<(TensorProto, usize)>, OnnxError> {
    /// Zero points come one a channel.
    const MOST_INTEGERS: usize = 1 << 16;
    let Some(source) = node.input.first().and_then(|name| find(name)) else { return Ok(None) };
    let kind = |number: i32| DataType::try_from(number).unwrap_or(DataType::Undefined);
    let to = kind(i32::try_from(int_attribute(node, "to", 0)).unwrap_or(0));
    let dims = &source.tensor.dims;
    let tensor = match (kind(source.tensor.data_type()), to) {
        (DataType::Float16 | DataType::Bfloat16 | DataType::Double, DataType::Float) => {
            build::tensor_f32("", dims, &file.read_f32(source.tensor)?)
        }
        (
            DataType::Int64 | DataType::Int32 | DataType::Int8 | DataType::Uint8,
            DataType::Int8 | DataType::Uint8 | DataType::Int32,
        ) => {
            let values: Vec<i64> = match file.read(source.tensor)?.values {
                Values::I64(values) => values,
                values => match integer_values(values) {
                    Some(values) => values.into_iter().map(i64::from).collect(),
                    None => return Ok(None),
                },
            };
            if values.len() > MOST_INTEGERS {
                return Ok(None);
            }
            match to {
                DataType::Int8 => build::tensor_i8("", dims, &values.iter().map(|&v| v as i8).collect::<Vec<_>>()),
                DataType::Uint8 => build::tensor_u8("", dims, &values.iter().map(|&v| v as u8).collect::<Vec<_>>()),
                _ => build::tensor_i32("", dims, &values.iter().map(|&v| v as i32).collect::<Vec<_>>()),
            }
        }
        _ => return Ok(None),
    };
    Ok(Some((tensor, source.depth)))
}

fn is_float(tensor: &TensorProto) -> bool {
    tensor.data_type() == DataType::Float as i32
}

fn shape(tensor: &TensorProto) -> Vec<usize> {
    tensor.dims.iter().map(|&dim| usize::try_from(dim).unwrap_or(0)).collect()
}

/// The same values under another shape, not copied.
fn reshaped(source: &TensorProto, shape: Option<Vec<usize>>) -> Option<TensorProto> {
    let shape = shape?;
    let count: usize = shape.iter().product();
    let mut tensor = source.clone();
    tensor.dims = shape.iter().map(|&dim| dim as i64).collect();
    (count == source.dims.iter().map(|&dim| usize::try_from(dim).unwrap_or(0)).product::<usize>()).then_some(tensor)
}

fn array<'v>(dims: &[usize], values: &'v [f32]) -> Option<ArrayViewD<'v, f32>> {
    ArrayViewD::from_shape(dims.to_vec(), values).ok()
}

fn tensor(array: &ArrayD<f32>) -> TensorProto {
    let dims: Vec<i64> = array.shape().iter().map(|&dim| dim as i64).collect();
    build::tensor_f32("", &dims, &array.iter().copied().collect::<Vec<_>>())
}

fn transpose(view: ArrayViewD<'_, f32>, perm: &[i64]) -> Option<TensorProto> {
    let rank = view.ndim();
    let perm: Vec<usize> = if perm.is_empty() { (0..rank).rev().collect() } else { normalise(perm, rank)? };
    let mut sorted = perm.clone();
    sorted.sort_unstable();
    if !sorted.into_iter().eq(0..rank) {
        return None;
    }
    Some(tensor(&view.permuted_axes(perm).to_owned()))
}

fn slice(view: &ArrayViewD<'_, f32>, starts: &[i64], ends: &[i64], axes: &[i64], steps: &[i64]) -> Option<TensorProto> {
    let axes = normalise(axes, view.ndim())?;
    if ends.len() != starts.len() || axes.len() != starts.len() || steps.len() != starts.len() {
        return None;
    }
    let mut info: Vec<SliceInfoElem> = vec![(..).into(); view.ndim()];
    for (at, &axis) in axes.iter().enumerate() {
        let size = *view.shape().get(axis)? as i64;
        let bound = |value: i64| (if value < 0 { value + size } else { value }).clamp(0, size);
        let (start, end) = (bound(*starts.get(at)?), bound(*ends.get(at)?));
        // Backward slices of weights do not occur; the runtime computes them.
        if steps.get(at) != Some(&1) || end < start {
            return None;
        }
        *info.get_mut(axis)? = SliceInfoElem::Slice { start: start as isize, end: Some(end as isize), step: 1 };
    }
    Some(tensor(&view.slice(info.as_slice()).to_owned()))
}

fn concat(node: &NodeProto, sources: &[Source<'_>], file: &OnnxFile) -> Result<Option<TensorProto>, OnnxError> {
    let mut values = Vec::new();
    for source in sources {
        values.push((shape(source.tensor), file.read_f32(source.tensor)?));
    }
    let views: Option<Vec<_>> = values.iter().map(|(dims, values)| array(dims, values)).collect();
    let Some(views) = views else { return Ok(None) };
    let rank = views.first().map_or(0, ArrayViewD::ndim);
    let Some(axis) = normalise(&[int_attribute(node, "axis", 0)], rank).and_then(|axes| axes.first().copied()) else {
        return Ok(None);
    };
    if axis >= rank {
        return Ok(None);
    }
    Ok(ndarray::concatenate(Axis(axis), &views).ok().map(|array| tensor(&array)))
}

fn axes(node: &NodeProto, input: Option<Vec<i64>>) -> Option<Vec<i64>> {
    input.or_else(|| Some(ints_attribute(node, "axes").to_vec()).filter(|axes| !axes.is_empty()))
}

/// ONNX Reshape: 0 keeps a dimension, −1 takes what is left.
fn reshape(dims: &[usize], target: &[i64]) -> Option<Vec<usize>> {
    let mut shape = Vec::with_capacity(target.len());
    for (index, &wanted) in target.iter().enumerate() {
        shape.push(match wanted {
            0 => *dims.get(index)?,
            -1 => usize::MAX,
            wanted => usize::try_from(wanted).ok()?,
        });
    }
    let total: usize = dims.iter().product();
    let given: usize = shape.iter().filter(|&&dim| dim != usize::MAX).product();
    for dim in &mut shape {
        if *dim == usize::MAX {
            *dim = total.checked_div(given)?;
        }
    }
    Some(shape)
}

fn normalise(axes: &[i64], rank: usize) -> Option<Vec<usize>> {
    axes.iter().map(|&axis| usize::try_from(if axis < 0 { axis + rank as i64 } else { axis }).ok()).collect()
}

fn unsqueeze(dims: &[usize], axes: &[i64]) -> Option<Vec<usize>> {
    let rank = dims.len() + axes.len();
    let axes = normalise(axes, rank)?;
    let mut rest = dims.iter();
    (0..rank).map(|axis| if axes.contains(&axis) { Some(1) } else { rest.next().copied() }).collect()
}

fn squeeze(dims: &[usize], axes: &[i64]) -> Option<Vec<usize>> {
    let axes = normalise(axes, dims.len())?;
    axes.iter()
        .all(|&axis| dims.get(axis) == Some(&1))
        .then(|| dims.iter().enumerate().filter(|(axis, _)| !axes.contains(axis)).map(|(_, &dim)| dim).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_follow_onnx() {
        assert_eq!(reshape(&[2, 3, 4], &[0, -1]), Some(vec![2, 12]));
        assert_eq!(reshape(&[4], &[1, -1, 1, 1]), Some(vec![1, 4, 1, 1]));
        assert_eq!(unsqueeze(&[5], &[0, -1]), Some(vec![1, 5, 1]));
        assert_eq!(squeeze(&[1, 5, 1], &[0]), Some(vec![5, 1]));
        assert_eq!(squeeze(&[2, 5], &[0]), None);
    }

    #[test]
    fn slices_clamp_and_count_from_the_end() {
        let values: Vec<f32> = (0..6).map(|v| v as f32).collect();
        let view = array(&[2, 3], &values).expect("fits");
        let cut = slice(&view, &[-2], &[i64::MAX], &[1], &[1]).expect("slice");
        assert_eq!(cut.dims, [2, 2]);
        assert_eq!(cut, build::tensor_f32("", &[2, 2], &[1.0, 2.0, 4.0, 5.0]));
        assert!(slice(&view, &[2], &[0], &[1], &[-1]).is_none());
    }
}
