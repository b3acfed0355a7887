//! Folds what follows a convolution or a Gemm channel by channel into its weights: BatchNormalization, constant Add and Mul.

use std::collections::{HashMap, HashSet};

use crate::model::graph::{Links, float_attribute, int_attribute};
use crate::model::grid::Spread;
use crate::onnx::proto::{GraphProto, NodeProto, TensorProto};
use crate::onnx::{OnnxError, OnnxFile, build};
use crate::operators::is_default_domain;

/// Dimensions and values of a constant.
type Constant = (Vec<i64>, Vec<f32>);

/// `y = scale · x + shift`, one pair a channel.
struct Affine {
    scale: Vec<f32>,
    shift: Vec<f32>,
}

/// Folds until nothing changes. Only a follower that is the only reader of the convolution's output is folded.
/// Scales that a weight brought (`spreads`) are folded alike.
pub fn fold(graph: &mut GraphProto, spreads: &mut HashMap<String, Spread>, file: &OnnxFile) -> Result<(), OnnxError> {
    let mut index: HashMap<String, usize> =
        graph.initializer.iter().enumerate().map(|(at, tensor)| (tensor.name().to_owned(), at)).collect();
    let links = Links::of(graph);
    // Folding moves outputs from follower to convolution; `removed` followers go in one sweep at the end.
    let mut removed = HashSet::new();
    for at in 0..graph.node.len() {
        let Some(channels) = channels(&graph.node[at], graph, &index) else { continue };
        while let Some(output) = graph.node[at].output.first().cloned() {
            let Some(next) = links.only_reader(&output) else { break };
            let follower = graph.node[next].clone();
            let is_matrix = graph.node[at].op_type() == "Gemm";
            let Some(affine) = affine(&follower, &output, channels, is_matrix, graph, &index, file)? else { break };
            let Some(new_output) = follower.output.first().cloned() else { break };
            if !apply(graph, at, channels, &affine, &mut index, spreads, file)? {
                break;
            }
            if let Some(slot) = graph.node[at].output.first_mut() {
                *slot = new_output;
            }
            removed.insert(next);
        }
    }
    let mut at = 0;
    graph.node.retain(|_| {
        at += 1;
        !removed.contains(&(at - 1))
    });
    Ok(())
}

/// Output channels of a convolution or a plain Gemm whose weight and bias are initializers of this graph.
fn channels(node: &NodeProto, graph: &GraphProto, index: &HashMap<String, usize>) -> Option<usize> {
    if !matches!(node.op_type(), "Conv" | "ConvTranspose" | "Gemm") || !is_default_domain(node.domain()) {
        return None;
    }
    // Factors of its own would have to be folded first.
    let is_one = |name: &str| (float_attribute(node, name, 1.0) - 1.0).abs() < f32::EPSILON;
    if node.op_type() == "Gemm" && !(is_one("alpha") && is_one("beta")) {
        return None;
    }
    let weight = graph.initializer.get(*index.get(node.input.get(1)?)?)?;
    if weight.data_type() != crate::onnx::proto::tensor_proto::DataType::Float as i32 {
        return None;
    }
    let bias = match node.input.get(2).filter(|name| !name.is_empty()) {
        Some(bias) => Some(graph.initializer.get(*index.get(bias)?)?),
        None => None,
    };
    let dims = &weight.dims;
    let channels = match node.op_type() {
        "Conv" => *dims.first()?,
        "Gemm" if int_attribute(node, "transB", 0) != 0 => *dims.first()?,
        "Gemm" => *dims.get(1)?,
        _ => dims.get(1)? * int_attribute(node, "group", 1),
    };
    // A Gemm's bias may also be one value a row.
    let fits = |bias: &TensorProto| match bias.dims.as_slice() {
        [] | [1] => true,
        [.., last] => *last == channels && bias.dims.iter().product::<i64>() == channels,
    };
    let fits = node.op_type() != "Gemm" || bias.is_none_or(fits);
    usize::try_from(channels).ok().filter(|&channels| channels > 0 && fits)
}

/// The affine map that `follower` applies to `input` (a matrix with a channel a column, or `[N, C, …]`), channel by channel;
/// `None` when it does something else.
fn affine(
    follower: &NodeProto,
    input: &str,
    channels: usize,
    is_matrix: bool,
    graph: &GraphProto,
    index: &HashMap<String, usize>,
    file: &OnnxFile,
) -> Result<Option<Affine>, OnnxError> {
    if !is_default_domain(follower.domain()) {
        return Ok(None);
    }
    let constant = |name: Option<&String>| -> Result<Option<Constant>, OnnxError> {
        let Some(tensor) = name.and_then(|name| index.get(name)).and_then(|&at| graph.initializer.get(at)) else {
            return Ok(None);
        };
        if tensor.data_type() != crate::onnx::proto::tensor_proto::DataType::Float as i32 {
            return Ok(None);
        }
        Ok(Some((tensor.dims.clone(), file.read_f32(tensor)?.into_owned())))
    };
    match follower.op_type() {
        "BatchNormalization" => {
            let live_outputs = follower.output.iter().filter(|name| !name.is_empty()).count();
            if live_outputs != 1
                || int_attribute(follower, "training_mode", 0) != 0
                || follower.input.first().map(String::as_str) != Some(input)
            {
                return Ok(None);
            }
            let mut read = Vec::new();
            for position in 1..5 {
                match constant(follower.input.get(position))? {
                    Some((_, values)) if values.len() == channels => read.push(values),
                    _ => return Ok(None),
                }
            }
            let [gamma, beta, mean, variance] = read.as_slice() else { return Ok(None) };
            let epsilon = float_attribute(follower, "epsilon", 1e-5);
            // In f64, as the fold happens once and its rounding stays in every later figure.
            let scale: Vec<f64> = gamma
                .iter()
                .zip(variance)
                .map(|(&g, &v)| f64::from(g) / (f64::from(v) + f64::from(epsilon)).sqrt())
                .collect();
            let shift =
                beta.iter().zip(mean).zip(&scale).map(|((&b, &m), &s)| (f64::from(b) - f64::from(m) * s) as f32);
            Ok(Some(Affine { shift: shift.collect(), scale: scale.iter().map(|&s| s as f32).collect() }))
        }
        "Add" | "Mul" => {
            let other = match follower.input.as_slice() {
                [a, b] if a == input && b != input => b,
                [a, b] if b == input && a != input => a,
                _ => return Ok(None),
            };
            let Some((dims, values)) = constant(Some(other))? else { return Ok(None) };
            let Some(values) = per_channel(&dims, values, channels, is_matrix) else { return Ok(None) };
            Ok(Some(if follower.op_type() == "Add" {
                Affine { scale: vec![1.0; channels], shift: values }
            } else {
                Affine { scale: values, shift: vec![0.0; channels] }
            }))
        }
        _ => Ok(None),
    }
}

/// A constant of shape `[1, C, 1, …]` or `[C, 1, …]` as one value a channel. A constant of lower rank than the
/// convolution's output that aligns with another axis is refused: at least one axis must follow the channel axis. The
/// channels of a matrix are its last axis: `[C]` or `[1, C]`.
fn per_channel(dims: &[i64], values: Vec<f32>, channels: usize, is_matrix: bool) -> Option<Vec<f32>> {
    if is_matrix {
        let (last, leading) = dims.split_last()?;
        let fits =
            usize::try_from(*last).ok()? == channels && leading.iter().all(|&dim| dim == 1) && leading.len() <= 1;
        return (fits && values.len() == channels).then_some(values);
    }
    let spatial = dims.iter().rev().take_while(|&&dim| dim == 1).count();
    let rest = &dims[..dims.len() - spatial];
    let (last, leading) = rest.split_last()?;
    let fits = usize::try_from(*last).ok()? == channels && leading.iter().all(|&dim| dim == 1) && leading.len() <= 1;
    (fits && spatial >= 1 && values.len() == channels && dims.len() >= 3).then_some(values)
}

/// Applies the map to the weights and the bias of the layer `at`; `false` when the result would not be finite.
fn apply(
    graph: &mut GraphProto,
    at: usize,
    channels: usize,
    affine: &Affine,
    index: &mut HashMap<String, usize>,
    spreads: &mut HashMap<String, Spread>,
    file: &OnnxFile,
) -> Result<bool, OnnxError> {
    let node = &graph.node[at];
    let (transposed, groups) = (node.op_type() == "ConvTranspose", int_attribute(node, "group", 1).max(1) as usize);
    let by_column = node.op_type() == "Gemm" && int_attribute(node, "transB", 0) == 0;
    let Some(weight) = node.input.get(1).and_then(|name| index.get(name)).and_then(|&at| graph.initializer.get(at))
    else {
        return Ok(false);
    };
    let dims = weight.dims.clone();
    let mut values = file.read_f32(weight)?.into_owned();
    let mut bias = match node.input.get(2).filter(|name| !name.is_empty()).and_then(|name| index.get(name)) {
        Some(&at) => match graph.initializer.get(at) {
            Some(tensor) => file.read_f32(tensor)?.into_owned(),
            None => return Ok(false),
        },
        None => vec![0.0; channels],
    };
    if node.op_type() == "Gemm" && bias.len() == 1 {
        bias = vec![bias[0]; channels];
    }
    if bias.len() != channels || values.is_empty() {
        return Ok(false);
    }
    let multiply = |values: &mut [f32]| {
        if by_column {
            for row in values.chunks_mut(channels) {
                for (value, scale) in row.iter_mut().zip(&affine.scale) {
                    *value *= scale;
                }
            }
        } else if transposed {
            // [I, O/g, k…]: input channel i belongs to group i / (I/g), its output channels start at group · O/g.
            let (inputs, per_group) = (dims.first().map_or(1, |&d| d.max(1) as usize), channels / groups);
            let inner = values.len() / (inputs * per_group).max(1);
            for (position, value) in values.iter_mut().enumerate() {
                let (input, output) = (position / (per_group * inner), position / inner % per_group);
                let channel = input / (inputs / groups).max(1) * per_group + output;
                *value *= affine.scale.get(channel).copied().unwrap_or(1.0);
            }
        } else {
            let depth = values.len() / channels;
            for (channel, row) in values.chunks_mut(depth.max(1)).enumerate() {
                let scale = affine.scale.get(channel).copied().unwrap_or(1.0);
                for value in row {
                    *value *= scale;
                }
            }
        }
    };
    multiply(&mut values);
    for ((value, scale), shift) in bias.iter_mut().zip(&affine.scale).zip(&affine.shift) {
        *value = *value * scale + shift;
    }
    if !values.iter().chain(&bias).all(|value| value.is_finite()) {
        return Ok(false);
    }
    let name = node.input.get(1).cloned().unwrap_or_default();
    // A negative factor would turn the grid around: such a weight gets scales anew.
    let spread = spreads.get(&name).filter(|_| affine.scale.iter().all(|&scale| scale > 0.0)).cloned();
    let spread = match spread {
        Some(mut spread) => {
            let mut scales = file.read_f32(&spread.scale)?.into_owned();
            multiply(&mut scales);
            spread.scale = build::tensor_f32("", &dims, &scales);
            Some(spread)
        }
        None => None,
    };
    let weight_name = fresh(&format!("{name}_folded"), index);
    let weight_tensor = build::tensor_f32(&weight_name, &dims, &values);
    add(graph, weight_tensor, index);
    if let Some(spread) = spread {
        spreads.insert(weight_name.clone(), spread);
    }
    let bias_name = fresh(&format!("{name}_folded_bias"), index);
    add(graph, build::tensor_f32(&bias_name, &[channels as i64], &bias), index);
    let node = &mut graph.node[at];
    node.input.resize(3, String::new());
    node.input[1] = weight_name;
    node.input[2] = bias_name;
    Ok(true)
}

fn fresh(wanted: &str, index: &HashMap<String, usize>) -> String {
    let mut name = wanted.to_owned();
    while index.contains_key(&name) {
        name.push('_');
    }
    name
}

fn add(graph: &mut GraphProto, tensor: TensorProto, index: &mut HashMap<String, usize>) {
    index.insert(tensor.name().to_owned(), graph.initializer.len());
    graph.initializer.push(tensor);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_channel_constants_fold() {
        let fits = |dims: &[i64], is_matrix| per_channel(dims, vec![1.0; 3], 3, is_matrix).is_some();
        assert!(fits(&[1, 3, 1, 1], false) && fits(&[3, 1, 1], false));
        assert!(!fits(&[3], false), "aligns with the last axis");
        assert!(!fits(&[1, 1, 1, 3], false));
        assert!(fits(&[3], true) && fits(&[1, 3], true) && !fits(&[3, 1], true) && !fits(&[1, 1, 3], true));
    }
}
