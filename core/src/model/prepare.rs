//! The prepared copy of a graph: the same function, with every weight an initializer of its own that a layer reads directly.
//!
//! Constants become initializers; Identity, Reshape, Transpose and the like of an initializer are computed; a
//! BatchNormalization, or a constant Add or Mul, right after a convolution goes into its weights. Quantization needs it:
//! behind a DequantizeLinear the runtime can no longer merge them, and the convolution would leave its integer kernel.

use std::collections::{HashMap, HashSet};

use crate::model::fold_conv;
use crate::model::graph::{Links, bodies_mut, ints_attribute};
use crate::onnx::proto::{GraphProto, ModelProto, NodeProto, TensorProto};
use crate::onnx::{OnnxError, OnnxFile, build};
use crate::operators::is_default_domain;
use crate::tensor::{Tensor, Values};

/// The prepared copy of the file's model.
pub fn prepare(file: &OnnxFile) -> Result<ModelProto, OnnxError> {
    let mut model = file.proto.clone();
    if let Some(graph) = model.graph.as_mut() {
        let weights: HashSet<String> = graph.initializer.iter().map(|tensor| tensor.name().to_owned()).collect();
        // Old files list every weight as an input too, which makes it replaceable and so never constant to the runtime.
        graph.input.retain(|port| !weights.contains(port.name()));
        prepare_graph(graph, file)?;
    }
    // From version 4 on initializers need not be inputs.
    model.ir_version = Some(model.ir_version().max(4));
    Ok(model)
}

fn prepare_graph(graph: &mut GraphProto, file: &OnnxFile) -> Result<(), OnnxError> {
    constants_to_initializers(graph);
    compute_constants(graph, file)?;
    fold_conv::fold(graph, file)?;
    drop_unused_initializers(graph);
    for node in &mut graph.node {
        for body in bodies_mut(node) {
            prepare_graph(body, file)?;
        }
    }
    Ok(())
}

/// Turns `Constant` nodes that hold a tensor into initializers of the same name.
fn constants_to_initializers(graph: &mut GraphProto) {
    let mut made = Vec::new();
    graph.node.retain(|node| {
        if node.op_type() != "Constant" || !is_default_domain(node.domain()) {
            return true;
        }
        let value = node.attribute.iter().find(|attribute| attribute.name() == "value");
        let (Some(tensor), Some(output)) = (value.and_then(|attribute| attribute.t.as_ref()), node.output.first())
        else {
            return true;
        };
        let mut tensor = tensor.clone();
        tensor.name = Some(output.clone());
        made.push(tensor);
        false
    });
    graph.initializer.append(&mut made);
}

/// Computes data movements of initializers, until nothing changes. Only those of this graph: what a body reads from
/// outside is computed outside.
fn compute_constants(graph: &mut GraphProto, file: &OnnxFile) -> Result<(), OnnxError> {
    let outputs: HashSet<String> = graph.output.iter().map(|port| port.name().to_owned()).collect();
    let mut known: HashMap<String, usize> =
        graph.initializer.iter().enumerate().map(|(index, tensor)| (tensor.name().to_owned(), index)).collect();
    let nodes = std::mem::take(&mut graph.node);
    for node in nodes {
        let folded = match (node.output.as_slice(), node.input.first()) {
            ([output], Some(input)) if !outputs.contains(output) => match known.get(input) {
                Some(&index) => moved(&node, index, &graph.initializer, &known, file)?,
                None => None,
            },
            _ => None,
        };
        match folded {
            Some(tensor) => {
                known.insert(tensor.name().to_owned(), graph.initializer.len());
                graph.initializer.push(tensor);
            }
            None => graph.node.push(node),
        }
    }
    Ok(())
}

/// The result of a data-moving node whose first input is initializer `index`; `None` when it is no such node.
fn moved(
    node: &NodeProto,
    index: usize,
    initializers: &[TensorProto],
    known: &HashMap<String, usize>,
    file: &OnnxFile,
) -> Result<Option<TensorProto>, OnnxError> {
    let (Some(source), Some(output)) = (initializers.get(index), node.output.first()) else { return Ok(None) };
    if !is_default_domain(node.domain()) {
        return Ok(None);
    }
    let constant_ints = |position: usize| -> Result<Option<Vec<i64>>, OnnxError> {
        let Some(&at) = node.input.get(position).and_then(|name| known.get(name)) else { return Ok(None) };
        let Some(tensor) = initializers.get(at) else { return Ok(None) };
        match file.read(tensor)?.values {
            Values::I64(values) => Ok(Some(values)),
            _ => Ok(None),
        }
    };
    let dims: Vec<usize> = source.dims.iter().map(|&dim| usize::try_from(dim).unwrap_or(0)).collect();
    let reshaped = |shape: Option<Vec<usize>>| -> Option<TensorProto> {
        let mut tensor = source.clone();
        tensor.name = Some(output.clone());
        let shape = shape?;
        let same = shape.iter().product::<usize>() == dims.iter().product::<usize>();
        tensor.dims = shape.iter().map(|&dim| dim as i64).collect();
        same.then_some(tensor)
    };
    Ok(match node.op_type() {
        "Identity" => reshaped(Some(dims.clone())),
        "Reshape" => match constant_ints(1)? {
            Some(target) if crate::model::graph::int_attribute(node, "allowzero", 0) == 0 => {
                reshaped(reshape(&dims, &target))
            }
            _ => None,
        },
        "Unsqueeze" => match axes(node, constant_ints(1)?) {
            Some(axes) => reshaped(unsqueeze(&dims, &axes)),
            None => None,
        },
        "Squeeze" => match axes(node, constant_ints(1)?) {
            Some(axes) => reshaped(squeeze(&dims, &axes)),
            None => None,
        },
        "Transpose" => transpose(source, output, &dims, ints_attribute(node, "perm"), file)?,
        _ => None,
    })
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

/// A transposed float initializer; others stay as they are (no layer reads them).
fn transpose(
    source: &TensorProto,
    output: &str,
    dims: &[usize],
    perm: &[i64],
    file: &OnnxFile,
) -> Result<Option<TensorProto>, OnnxError> {
    let perm: Vec<usize> = if perm.is_empty() {
        (0..dims.len()).rev().collect()
    } else {
        match normalise(perm, dims.len()) {
            Some(perm) => perm,
            None => return Ok(None),
        }
    };
    let Tensor { values: Values::F32(values), .. } = file.read(source)? else { return Ok(None) };
    let Ok(view) = ndarray::ArrayView::from_shape(dims.to_vec(), &values) else { return Ok(None) };
    let mut seen: Vec<usize> = perm.clone();
    seen.sort_unstable();
    if seen != (0..dims.len()).collect::<Vec<_>>() {
        return Ok(None);
    }
    let moved = view.permuted_axes(perm);
    let shape: Vec<i64> = moved.shape().iter().map(|&dim| dim as i64).collect();
    let values: Vec<f32> = moved.iter().copied().collect();
    Ok(Some(build::tensor_f32(output, &shape, &values)))
}

/// Drops initializers that nothing reads any more, so that a file does not carry weights twice.
fn drop_unused_initializers(graph: &mut GraphProto) {
    let links = Links::of(graph);
    graph
        .initializer
        .retain(|tensor| links.consumers.contains_key(tensor.name()) || links.outputs.contains(tensor.name()));
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
}
