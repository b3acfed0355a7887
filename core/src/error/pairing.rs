//! Which layers of two files are the same: an original and what somebody else made of it.
//!
//! By the names of tensors, which most tools keep for what a layer makes; by the names of nodes; else by order: the longest
//! common sequence of layers of one kind, weights of equal number first.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use crate::model::graph::Links;
use crate::model::{Layer, Model};
use crate::onnx::proto::{GraphProto, NodeProto};

/// What told that two layers are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MatchedBy {
    /// A tensor behind both has the same name.
    Tensor,
    /// The nodes have the same name, a suffix of the tool left out.
    Name,
    /// Their place among layers of the same kind.
    Order,
}

/// Two layers that are the same.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerMatch {
    /// Index of the layer in the original.
    pub layer: usize,
    /// Index of the layer in the other model; `None` where only the tensor was found.
    pub other: Option<usize>,
    /// What told.
    pub matched_by: MatchedBy,
    /// Tensors that may hold what both make, the original's and the other's.
    pub candidates: Vec<(String, String)>,
}

/// Suffixes that tools append to the name of a node they quantize.
const SUFFIXES: &[&str] = &["_quantized", "_quant", "_QuantizeLinear", "_Q4", "_Q8", "_nbits", "_MatMul_quant"];
/// Operators that follow a layer without being one: what the other model may have merged or taken apart.
const FOLLOWERS: &[&str] =
    &["Cast", "Mul", "Add", "Relu", "Clip", "QuantizeLinear", "DequantizeLinear", "Identity", "BatchNormalization"];
/// Followers looked at behind a layer.
const REACH: usize = 6;
/// Pairs of layers that the comparison by order looks at; longer models are compared in step.
const MOST_PAIRS: usize = 4_000_000;

/// The layers of both main graphs that are the same, in the original's order.
pub fn pair_layers(original: &Model, other: &Model) -> Vec<LayerMatch> {
    let (Some(before), Some(after)) = (&original.graph.graph, &other.graph.graph) else { return Vec::new() };
    let (before_links, links) = (Links::of(before), Links::of(after));
    let made: HashSet<&str> = after.node.iter().flat_map(|node| &node.output).map(String::as_str).collect();
    // What stands behind each layer of the other model, and whose it is.
    let tails: Vec<Vec<String>> = other.layers.iter().map(|layer| tail(layer, after, &links)).collect();
    let mut owner: HashMap<&str, usize> = HashMap::new();
    for (at, tensors) in tails.iter().enumerate() {
        for tensor in tensors {
            owner.entry(tensor).or_insert(at);
        }
    }
    let by_name: HashMap<&str, usize> =
        other.layers.iter().enumerate().map(|(at, layer)| (plain(&layer.name), at)).collect();
    let mut taken = HashSet::new();
    let mut matches: Vec<Option<LayerMatch>> = vec![None; original.layers.len()];
    for (layer, known) in original.layers.iter().enumerate().filter(|(_, layer)| !layer.in_subgraph()) {
        let names = tail(known, before, &before_links);
        let shared = names.iter().take(2).chain([&known.observed]).rev().find_map(|name| {
            let integers = format!("{name}_quantized");
            [name.as_str(), integers.as_str()]
                .into_iter()
                .find(|name| made.contains(name))
                .map(|found| (name, found.to_owned()))
        });
        if let Some((name, found)) = shared {
            let partner = owner.get(found.as_str()).or_else(|| by_name.get(plain(&known.name))).copied();
            taken.extend(partner);
            let end = behind_pair(after, &links, &found).unwrap_or(found);
            let mut candidates = vec![(name.clone(), end.clone())];
            // Integers may have absorbed the activation behind them and kept the name of what is before it.
            if known.observed != *name {
                candidates.push((known.observed.clone(), end));
            }
            matches[layer] = Some(LayerMatch { layer, other: partner, matched_by: MatchedBy::Tensor, candidates });
        }
    }
    let free = |taken: &HashSet<usize>, at: usize| {
        !taken.contains(&at) && other.layers.get(at).is_some_and(|l| !l.in_subgraph())
    };
    let candidates = |layer: &Layer, at: usize| -> Vec<(String, String)> {
        let ends = tails.get(at).map_or(&[][..], Vec::as_slice);
        let own = tail(layer, before, &before_links);
        let own = own.iter().take(2);
        own.flat_map(|name| ends.iter().map(move |end| (name.clone(), end.clone()))).collect()
    };
    for (layer, known) in original.layers.iter().enumerate().filter(|(_, layer)| !layer.in_subgraph()) {
        if matches[layer].is_none()
            && let Some(&at) = by_name.get(plain(&known.name)).filter(|&&at| free(&taken, at))
        {
            taken.insert(at);
            let candidates = candidates(known, at);
            matches[layer] = Some(LayerMatch { layer, other: Some(at), matched_by: MatchedBy::Name, candidates });
        }
    }
    let left: Vec<usize> =
        (0..original.layers.len()).filter(|&at| matches[at].is_none() && !original.layers[at].in_subgraph()).collect();
    let right: Vec<usize> = (0..other.layers.len()).filter(|&at| free(&taken, at)).collect();
    for (layer, at) in in_order(original, &left, other, &right) {
        let candidates = candidates(&original.layers[layer], at);
        matches[layer] = Some(LayerMatch { layer, other: Some(at), matched_by: MatchedBy::Order, candidates });
    }
    matches.into_iter().flatten().collect()
}

/// A node's name without what a tool appended.
fn plain(name: &str) -> &str {
    SUFFIXES.iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name)
}

/// A layer's output and what operators that belong to it make of it, as long as one alone reads it.
fn tail(layer: &Layer, graph: &GraphProto, links: &Links) -> Vec<String> {
    let mut tensors = vec![layer.output.clone()];
    for _ in 0..REACH {
        let Some(reader) = tensors.last().and_then(|name| links.only_reader(name)) else { break };
        let Some(node) = graph.node.get(reader).filter(|node| FOLLOWERS.contains(&node.op_type())) else { break };
        let Some(output) = node.output.first() else { break };
        tensors.push(output.clone());
    }
    tensors
}

/// The tensor behind the QuantizeLinear and DequantizeLinear that alone read `name`.
fn behind_pair(graph: &GraphProto, links: &Links, name: &str) -> Option<String> {
    let step = |name: &str, op: &str| -> Option<&NodeProto> {
        let node = graph.node.get(links.only_reader(name)?)?;
        (node.op_type() == op).then_some(node)
    };
    let integers = step(name, "QuantizeLinear")?.output.first()?;
    // The integers may have several readers: each has the same DequantizeLinear.
    let dequantize = links.readers(integers).iter().filter_map(|&at| graph.node.get(at));
    dequantize.filter(|node| node.op_type() == "DequantizeLinear").find_map(|node| node.output.first().cloned())
}

/// What an operator computes, whatever form it is in.
fn family(op: &str) -> &str {
    match op {
        "QLinearConv" | "ConvInteger" | "FusedConv" | "NhwcConv" => "Conv",
        "Gemm"
        | "QGemm"
        | "QLinearMatMul"
        | "MatMulInteger"
        | "MatMulIntegerToFloat"
        | "DynamicQuantizeMatMul"
        | "MatMulNBits"
        | "FusedGemm"
        | "FusedMatMul" => "MatMul",
        "DynamicQuantizeLSTM" => "LSTM",
        "GatherBlockQuantized" => "Gather",
        op => op,
    }
}

/// The longest common sequence of layers of one kind; equal numbers of weights count more.
fn in_order(original: &Model, left: &[usize], other: &Model, right: &[usize]) -> Vec<(usize, usize)> {
    let worth = |a: usize, b: usize| -> u32 {
        match (original.layers.get(a), other.layers.get(b)) {
            (Some(a), Some(b)) if family(&a.op) == family(&b.op) => 1 + 3 * u32::from(a.parameters == b.parameters),
            _ => 0,
        }
    };
    if left.len().saturating_mul(right.len()) > MOST_PAIRS {
        return left.iter().copied().zip(right.iter().copied()).filter(|&(a, b)| worth(a, b) > 0).collect();
    }
    let width = right.len() + 1;
    let mut best = vec![0_u32; (left.len() + 1) * width];
    for (i, &a) in left.iter().enumerate().rev() {
        for (j, &b) in right.iter().enumerate().rev() {
            let skip = best[(i + 1) * width + j].max(best[i * width + j + 1]);
            let pair = worth(a, b);
            best[i * width + j] = if pair > 0 { skip.max(pair + best[(i + 1) * width + j + 1]) } else { skip };
        }
    }
    let (mut i, mut j, mut pairs) = (0, 0, Vec::new());
    while i < left.len() && j < right.len() {
        let here = best[i * width + j];
        let pair = worth(left[i], right[j]);
        if pair > 0 && here == pair + best[(i + 1) * width + j + 1] {
            pairs.push((left[i], right[j]));
            (i, j) = (i + 1, j + 1);
        } else if here == best[(i + 1) * width + j] {
            i += 1;
        } else {
            j += 1;
        }
    }
    pairs
}
