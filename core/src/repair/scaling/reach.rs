//! How far a scaling reaches: all tensors that have to be divided together, the constants they come from, the layers that
//! they enter.
//!
//! From X the search goes both ways through what commutes with a positive factor per channel: Relu, LeakyRelu, Clip from 0
//! without an upper bound, pooling, scalar factors, and sums (all terms and the result are divided together, constant terms
//! too: residual connections). It has to end in constants on one side and in layers on the other. A Clip with an upper
//! bound, as ReLU6, does not commute: its bound would differ from channel to channel, and no integer kernel has that.

use std::collections::{BTreeMap, BTreeSet};

use super::constants::{Channelled, Main, Part};
use crate::model::graph::bodies;
use crate::onnx::proto::NodeProto;
use crate::operators::is_default_domain;
use crate::stats::ChannelAxis;

/// Most tensors that are divided together.
const MOST_TENSORS: usize = 256;

/// What a scaling of one tensor changes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Reach {
    pub(super) shape: Channelled,
    /// Every tensor that is divided.
    pub(super) tensors: BTreeSet<String>,
    /// Layers whose weights are multiplied, and these weights.
    pub(super) layers: Vec<(usize, Part)>,
    /// Constants that are divided instead of X; empty where a Mul is inserted.
    pub(super) sources: Vec<Part>,
    /// Name of the first node that these belong to.
    pub(super) folded_into: Option<String>,
}

/// What a node does to channels that it does not mix.
enum Flow {
    /// One activation, the first input or the one that is no scalar constant, goes through.
    Through(usize),
    /// All inputs are added up.
    Sum,
}

impl Reach {
    /// Of a division of `tensor` that is folded into constants; `None` where it cannot be.
    pub(super) fn folded(main: &Main<'_>, tensor: &str) -> Option<Self> {
        let shape = readers(main, tensor).first().map(|(_, shape, _)| *shape)?;
        let mut reach = Self {
            shape,
            tensors: BTreeSet::from([tensor.to_owned()]),
            layers: Vec::new(),
            sources: Vec::new(),
            folded_into: None,
        };
        let (mut layers, mut parts) = (BTreeMap::new(), BTreeMap::new());
        let mut sources = BTreeSet::new();
        let mut open = vec![tensor.to_owned()];
        while let Some(tensor) = open.pop() {
            if main.links.outputs.contains(&tensor) || reach.tensors.len() > MOST_TENSORS {
                return None;
            }
            let mut next = Vec::new();
            for &reader in main.links.readers(&tensor) {
                let node = main.graph.node.get(reader)?;
                if let Some((index, part)) = enters(main, reader, &tensor, shape) {
                    layers.insert(index, part);
                } else {
                    next.extend(through(main, reader, node, Some(&tensor), shape, &mut parts)?);
                }
            }
            let producer = *main.links.producer.get(&tensor)?;
            let node = main.graph.node.get(producer)?;
            if node.output.first() != Some(&tensor) || node.output.iter().skip(1).any(|output| !output.is_empty()) {
                return None;
            }
            match through(main, producer, node, None, shape, &mut parts) {
                Some(more) => next.extend(more),
                None => {
                    for part in main.source(producer, shape)? {
                        parts.insert((part.node, part.input), part);
                    }
                    sources.insert(producer);
                }
            }
            open.extend(next.into_iter().filter(|name| reach.tensors.insert(name.clone())));
        }
        let first = main.graph.node.get(*sources.first()?)?;
        reach.folded_into = Some(match main.layer(*sources.first()?) {
            Some((_, layer)) => layer.name.clone(),
            None if first.name().is_empty() => first.output.first()?.clone(),
            None => first.name().to_owned(),
        });
        reach.layers = layers.into_iter().collect();
        reach.sources = parts.into_values().collect();
        Some(reach)
    }

    /// Of a division of `tensor` by a Mul in front of the layers that read it, whatever else reads it; `None` where there
    /// are none.
    pub(super) fn inserted(main: &Main<'_>, tensor: &str) -> Option<Self> {
        let readers = readers(main, tensor);
        let shape = readers.first()?.1;
        let layers = readers.into_iter().filter(|(_, its, _)| *its == shape).map(|(index, _, part)| (index, part));
        Some(Self {
            shape,
            tensors: BTreeSet::from([tensor.to_owned()]),
            layers: layers.collect(),
            sources: Vec::new(),
            folded_into: None,
        })
    }
}

/// The layers that `tensor` enters.
fn readers(main: &Main<'_>, tensor: &str) -> Vec<(usize, Channelled, Part)> {
    let layers = main.links.readers(tensor).iter().filter_map(|&node| main.layer(node));
    let entering = layers.filter(|(_, layer)| layer.input == tensor);
    entering.filter_map(|(index, layer)| main.entry(layer).map(|(shape, part)| (index, shape, part))).collect()
}

/// The layer of node `at`, where it takes `tensor` as its activation and with these channels.
fn enters(main: &Main<'_>, at: usize, tensor: &str, shape: Channelled) -> Option<(usize, Part)> {
    let (index, layer) = main.layer(at)?;
    let (its, part) = main.entry(layer).filter(|_| layer.input == tensor)?;
    (its == shape).then_some((index, part))
}

/// The activations that are divided along with those that `node` makes or reads (`read`); adds constant terms of sums to
/// `parts`. `None` where the node does not commute with the division.
fn through(
    main: &Main<'_>,
    at: usize,
    node: &NodeProto,
    read: Option<&str>,
    shape: Channelled,
    parts: &mut BTreeMap<(usize, usize), Part>,
) -> Option<Vec<String>> {
    let [output] = node.output.as_slice() else { return None };
    let mut touched = vec![output.clone()];
    match flow(main, node, shape)? {
        Flow::Through(input) => {
            let name = node.input.get(input)?;
            if read.is_some_and(|read| read != name) {
                return None;
            }
            touched.push(name.clone());
        }
        Flow::Sum => {
            for (input, name) in node.input.iter().enumerate() {
                if main.is_constant(name) {
                    let part = main.addend(at, input, shape)?;
                    parts.insert((part.node, part.input), part);
                } else {
                    touched.push(name.clone());
                }
            }
        }
    }
    Some(touched)
}

fn flow(main: &Main<'_>, node: &NodeProto, shape: Channelled) -> Option<Flow> {
    if !is_default_domain(node.domain()) || bodies(node).next().is_some() {
        return None;
    }
    let constant_rest = || node.input.iter().skip(1).all(|name| main.is_constant(name));
    let second = shape.axis == ChannelAxis::Second;
    match node.op_type() {
        "Relu" | "LeakyRelu" | "Abs" | "Identity" => Some(Flow::Through(0)),
        "PRelu" if constant_rest() => Some(Flow::Through(0)),
        "MaxPool" | "AveragePool" | "GlobalAveragePool" | "GlobalMaxPool" if second => Some(Flow::Through(0)),
        "Clip" if constant_rest() => {
            let bound = |input: usize| node.input.get(input).is_some_and(|name| !name.is_empty());
            let from_zero = bound(1) && main.scalar(node, 1) == Some(0.0);
            (from_zero && !bound(2) && node.attribute.is_empty()).then_some(Flow::Through(0))
        }
        "Add" | "Sub" => Some(Flow::Sum),
        "Mul" => {
            let side = main.constant_side(node)?;
            main.scalar(node, side)?;
            Some(Flow::Through(1 - side))
        }
        "Div" => {
            main.scalar(node, 1)?;
            Some(Flow::Through(0)).filter(|_| main.constant_side(node) == Some(1))
        }
        _ => None,
    }
}
