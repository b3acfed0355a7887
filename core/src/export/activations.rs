//! Which activations of the main graph become integers, and with which scale.
//!
//! A tensor is quantized when a static layer reads it, when a static convolution makes it (its integer kernel needs an
//! integer output), or when an operator with an integer kernel carries it from quantized tensors to a static layer.
//! What a float operator makes stays readable in floating point for other float operators.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::export::bounds::{before_activation, below, bounds, makes_redundant};
use crate::export::foreign::Foreign;
use crate::model::Model;
use crate::model::graph::{Links, Tail, tail};
use crate::onnx::proto::GraphProto;
use crate::operators::{self, PassThrough};
use crate::plan::targets::{ActivationType, Style};
use crate::plan::{Activation, Choice, Clip, Symmetry};
use crate::quant::{QuantParams, activation_params_bits, clip_range};
use crate::stats::{Stats, TensorStats};

/// A static layer as the analysis sees it.
pub struct StaticLayer {
    /// Index of its node.
    pub node: usize,
    /// The activation it reads.
    pub input: String,
    /// Its output after what is merged into it.
    pub tail: Tail,
    /// Whether its integer kernel needs an integer output.
    pub needs_output: bool,
    /// Its choice.
    pub choice: Choice,
}

/// A quantized activation.
#[derive(Clone, Debug)]
pub struct Quantized {
    /// Its scale and zero point.
    pub params: QuantParams,
    /// The node after which it is quantized; `None` for an input of the graph.
    pub producer: Option<usize>,
    /// Whether every reader sees the quantized values (an integer kernel makes them), or only those that need them.
    pub for_all: bool,
    /// A second pair, between a convolution and an activation that quantizing its result does not make redundant: the
    /// tensor between them and its parameters.
    pub before: Option<(String, QuantParams)>,
    /// Whether the file has this pair already.
    pub existing: bool,
}

/// The decision for the whole main graph.
pub struct Activations {
    /// Quantized tensors by name.
    pub tensors: BTreeMap<String, Quantized>,
    /// Pass-through nodes that run on integers, with the end of their result.
    pub passing: BTreeMap<usize, Tail>,
}

/// What is known of the static layers of the main graph, and of the activations that follow from them.
pub struct Statics {
    /// Links of the prepared main graph.
    pub links: Links,
    /// The layers with integer kernels.
    pub layers: Vec<StaticLayer>,
    /// Their activations.
    pub activations: Activations,
    /// Inputs rounded to 16 bits for layers whose kernels stay floating point, by tensor.
    pub rounded: BTreeMap<String, Quantized>,
    /// Which of these a layer reads, by its node.
    pub rounds: BTreeMap<usize, String>,
}

impl Statics {
    /// The entry of the layer at this node of the main graph.
    pub fn layer(&self, node: usize) -> Option<&StaticLayer> {
        self.layers.iter().find(|layer| layer.node == node)
    }
}

/// Finds the range of a tensor, which is known by name: [`clip_range`], or what remembers its results.
pub type FindRange<'f> = &'f dyn Fn(&str, &TensorStats, Clip, Symmetry, u32) -> (f32, f32);

/// Finds every range anew.
pub fn find_range(_: &str, observed: &TensorStats, clip: Clip, symmetry: Symmetry, bits: u32) -> (f32, f32) {
    clip_range(observed, clip, symmetry, bits)
}

/// Parameters of the tensor `name` under the choice that decides for it.
pub fn params(name: &str, choice: &Choice, observed: &TensorStats, find: FindRange<'_>) -> QuantParams {
    // What no layer's choice decides is made for integer kernels.
    let bits = if choice.activation == Activation::Int16 { 16 } else { 8 };
    let (lo, hi) = find(name, observed, choice.activation_clip, choice.activation_symmetry, bits);
    activation_params_bits(lo, hi, choice.activation_symmetry, bits)
}

/// Decides for all activations. `stats` must know every tensor that a static layer reads or makes, unless the file itself
/// quantizes it (`foreign`).
#[allow(clippy::too_many_arguments)] // each is known where it is called, and nowhere together
pub fn decide(
    model: &Model,
    graph: &GraphProto,
    links: &Links,
    layers: &[StaticLayer],
    foreign: &Foreign<'_>,
    stats: &Stats,
    style: Option<&Style>,
    find: FindRange<'_>,
) -> Activations {
    let passing = passing(graph, links, layers, foreign, stats);
    let mut wanted = quantized_by_layers(layers);
    let mut made_by_kernel: BTreeSet<&str> = BTreeSet::new();
    for (&node, tail) in &passing {
        wanted.insert(&tail.end);
        made_by_kernel.insert(&tail.end);
        wanted.extend(data(graph, node));
    }
    for layer in layers {
        if wanted.contains(layer.tail.end.as_str()) {
            made_by_kernel.insert(&layer.tail.end);
        }
    }
    let sources: Vec<(&str, String)> =
        wanted.into_iter().map(|name| (name, same_scale_source(graph, links, &passing, name))).collect();
    let choices = choices(layers, &sources);
    // Other compilers merge a convolution with the activation behind it only where no pair stands between them.
    let for_onnxruntime = style.is_none_or(|style| style.activations == ActivationType::Uint8);
    let merged = merged(layers, &passing);
    let mut tensors: BTreeMap<String, Quantized> = BTreeMap::new();
    for (name, source) in &sources {
        let producer = links.producer.get(*name).copied();
        if let Some(pair) = foreign.pair(name).or_else(|| foreign.pair(source)) {
            // Behind the file's own pair, or before it with nothing else reading: it is there already. Elsewhere one
            // with the same scale changes no value.
            let before = *name == pair.source && links.only_reader(name) == Some(pair.quantize);
            let existing = *name == pair.result || before;
            let for_all = existing || made_by_kernel.contains(name);
            let quantized = Quantized { params: pair.params, producer, for_all, before: None, existing };
            tensors.insert((*name).to_owned(), quantized);
            continue;
        }
        let undecided = style.map_or(Symmetry::Asymmetric, |style| style.undecided);
        let undecided = Choice { activation_symmetry: undecided, ..Choice::FLOAT };
        let choice = choices.get(source.as_str()).copied().unwrap_or(undecided);
        let known = |name: &str| stats.tensors.get_key_value(name);
        let Some((observed_name, observed)) = known(source).or_else(|| known(name)) else { continue };
        let for_all = made_by_kernel.contains(name);
        let mut params = params(observed_name, &choice, observed, find);
        let mut before = None;
        if let Some(&(raw, activation)) = merged.get(name)
            && let Some((lo, hi)) = bounds(model, graph, activation)
        {
            params = below(params, hi);
            // An activation that the quantization does not make redundant keeps the convolution before it from its
            // integer kernel, unless that gets a pair of its own.
            if for_all && !makes_redundant(&params, lo, hi) && for_onnxruntime {
                let choice = layers.iter().find(|layer| layer.tail.raw == raw).map_or(Choice::FLOAT, |l| l.choice);
                before = before_activation(stats, raw, &choice, find).map(|params| (raw.to_owned(), params));
            }
        }
        tensors.insert((*name).to_owned(), Quantized { params, producer, for_all, before, existing: false });
    }
    if !for_onnxruntime {
        tensors
            .values_mut()
            .filter(|quantized| !quantized.existing)
            .for_each(|quantized| signed(&mut quantized.params));
    }
    Activations { tensors, passing }
}

/// The same real numbers on int8 in place of uint8.
fn signed(params: &mut QuantParams) {
    if (params.qmin, params.qmax) == (0, 255) {
        params.zero_point -= 128;
        (params.qmin, params.qmax) = (-128, 127);
    }
}

/// For everything that a merged Relu or Clip makes what comes out of the node before it, and that Relu or Clip.
fn merged<'t>(layers: &'t [StaticLayer], passing: &'t BTreeMap<usize, Tail>) -> HashMap<&'t str, (&'t str, usize)> {
    let mut merged = HashMap::new();
    for tail in layers.iter().map(|layer| &layer.tail).chain(passing.values()) {
        if let Some(activation) = tail.activation {
            merged.entry(tail.end.as_str()).or_insert((tail.raw.as_str(), activation));
        }
    }
    merged
}

/// The choice that sets the range of each group of tensors with one scale, by the group's source: of the first static
/// layer that reads one of them, else of the layer that makes one.
fn choices<'s>(layers: &[StaticLayer], sources: &'s [(&str, String)]) -> HashMap<&'s str, Choice> {
    let source_of: HashMap<&str, &str> = sources.iter().map(|(name, source)| (*name, source.as_str())).collect();
    let mut choices = HashMap::new();
    for layer in layers {
        if let Some(source) = source_of.get(layer.input.as_str()) {
            choices.entry(*source).or_insert(layer.choice);
        }
    }
    for layer in layers {
        // What a tensor is clipped to by hand is the business of the layer that reads it.
        let mut choice = layer.choice;
        if matches!(choice.activation_clip, Clip::Manual { .. }) {
            choice.activation_clip = Clip::MinMax;
        }
        if let Some(source) = source_of.get(layer.tail.end.as_str()) {
            choices.entry(*source).or_insert(choice);
        }
    }
    choices
}

/// Follows operators that only move values back to where these were made: all of them share that tensor's scale.
fn same_scale_source(graph: &GraphProto, links: &Links, passing: &BTreeMap<usize, Tail>, name: &str) -> String {
    let mut name = name.to_owned();
    // A graph has no cycles, so this ends; the bound is for files that claim otherwise.
    for _ in 0..graph.node.len() {
        let Some(&at) = links.producer.get(&name) else { break };
        let Some(node) = graph.node.get(at).filter(|_| passing.contains_key(&at)) else { break };
        if operators::pass_through(node.op_type(), node.domain()) != Some(PassThrough::SameScale) {
            break;
        }
        let Some(input) = node.input.first() else { break };
        name.clone_from(input);
    }
    name
}

fn data(graph: &GraphProto, node: usize) -> impl Iterator<Item = &str> {
    graph.node.get(node).into_iter().flat_map(|node| {
        let count = operators::data_inputs(node.op_type(), node.input.len());
        node.input.iter().take(count).map(String::as_str)
    })
}

/// What static layers read quantized, and what those with integer outputs make.
fn quantized_by_layers(layers: &[StaticLayer]) -> BTreeSet<&str> {
    let made = layers.iter().filter(|layer| layer.needs_output).map(|layer| layer.tail.end.as_str());
    layers.iter().map(|layer| layer.input.as_str()).chain(made).collect()
}

/// Pass-through nodes worth running on integers: all data come quantized, and the result is wanted quantized.
fn passing(
    graph: &GraphProto,
    links: &Links,
    layers: &[StaticLayer],
    foreign: &Foreign<'_>,
    stats: &Stats,
) -> BTreeMap<usize, Tail> {
    let candidates: Vec<(usize, Tail)> = graph
        .node
        .iter()
        .enumerate()
        .filter(|(_, node)| operators::pass_through(node.op_type(), node.domain()).is_some())
        .filter_map(|(at, node)| {
            let tail = tail(graph, links, node.output.first()?);
            (node.output.len() == 1 && stats.tensors.contains_key(&tail.end)).then_some((at, tail))
        })
        .collect();
    // Available going forward, from what layers make or read quantized.
    let mut by_layers = quantized_by_layers(layers);
    by_layers.extend(foreign.results());
    let mut available = by_layers.clone();
    let mut chosen: BTreeMap<usize, &Tail> = BTreeMap::new();
    for (at, tail) in &candidates {
        let mut inputs = data(graph, *at).peekable();
        if inputs.peek().is_some() && inputs.all(|name| available.contains(name)) {
            available.insert(&tail.end);
            chosen.insert(*at, tail);
        }
    }
    // Wanted going backward, from what layers read. Only a result of which some reader runs on integers stays.
    let reads: BTreeSet<&str> = layers.iter().map(|layer| layer.input.as_str()).collect();
    let mut kept: BTreeMap<usize, Tail> = BTreeMap::new();
    for (at, tail) in chosen.into_iter().rev() {
        let reader_kept = links.readers(&tail.end).iter().any(|reader| kept.contains_key(reader));
        if reads.contains(tail.end.as_str()) || reader_kept {
            kept.insert(at, tail.clone());
        }
    }
    // Dropping one may have taken an input from another: what lost a quantized input goes, until nothing changes.
    loop {
        let mut have = by_layers.clone();
        have.extend(kept.values().map(|tail| tail.end.as_str()));
        let lost: Vec<usize> =
            kept.keys().copied().filter(|&at| !data(graph, at).all(|name| have.contains(name))).collect();
        if lost.is_empty() {
            return kept;
        }
        for at in lost {
            kept.remove(&at);
        }
    }
}
