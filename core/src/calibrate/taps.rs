//! Which tensors calibration looks at: those that some plan can need, each value once.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::graph::{Links, Tail, tail};
use crate::model::{Layer, Model};
use crate::onnx::proto::GraphProto;
use crate::operators;

/// The activations of the main graph that get statistics.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Taps {
    /// Tensors whose values are counted.
    pub observed: BTreeSet<String>,
    /// Tensors that get the statistics of an observed one instead of being counted again: they hold the same values in
    /// another shape, or are what comes out of a layer before the Relu or Clip that the runtime merges into it. What
    /// that cuts off can matter to no quantization.
    pub aliases: BTreeMap<String, String>,
    /// Aliases that enter layers, which look at their shape and rows.
    pub shown: BTreeSet<String>,
    /// All that the runtime has to hand out, what it computes last first: that is still in the processor's cache.
    pub handed_out: Vec<String>,
}

impl Taps {
    /// What enters and leaves layers, and what operators with integer kernels carry from layer to layer. Weights are not
    /// among them; tensors of integers may be, and are skipped when they come.
    pub fn of(model: &Model) -> Self {
        let Some(graph) = &model.graph.graph else { return Self::default() };
        let links = Links::of(graph);
        let layers: Vec<&Layer> =
            model.layers.iter().filter(|layer| !layer.in_subgraph() && layer.quantizable()).collect();
        let inputs: BTreeSet<&str> =
            layers.iter().filter(|layer| layer.op != "Gather").map(|layer| layer.input.as_str()).collect();
        let mut wanted: BTreeSet<String> = inputs.iter().map(|name| (*name).to_owned()).collect();
        wanted.extend(layers.iter().map(|layer| layer.observed.clone()));
        let passing = between(graph, &links, &inputs, &mut wanted);
        if is_quantized(model) {
            // Quantization of the file's own lies in between; a choice may replace it.
            wanted.extend(layers.iter().filter_map(|layer| model.input_pair(layer)).map(|pair| pair.source.clone()));
            for (at, node) in graph.node.iter().enumerate() {
                if operators::pass_through(node.op_type(), node.domain()).is_some()
                    || operators::is_merged_activation(node.op_type(), node.domain())
                {
                    wanted.extend(node.output.iter().cloned());
                    wanted.extend(data(graph, at).map(str::to_owned));
                }
            }
        }
        for tensor in &graph.initializer {
            wanted.remove(tensor.name());
        }
        wanted.remove("");

        let mut taps = Self::default();
        let mut by_source: BTreeMap<String, String> = BTreeMap::new();
        // Sources first, so that what is made from them finds them.
        let (moved, made): (Vec<&String>, Vec<&String>) =
            wanted.iter().partition(|name| source(graph, &links, name) != name.as_str());
        for name in made.into_iter().chain(moved) {
            let source = source(graph, &links, name).to_owned();
            if let Some(known) = by_source.get(&source) {
                taps.aliases.insert(name.clone(), known.clone());
                if inputs.contains(name.as_str()) {
                    taps.shown.insert(name.clone());
                }
            } else {
                by_source.insert(source, name.clone());
                taps.observed.insert(name.clone());
            }
        }
        let merged = layers.iter().map(|layer| (&layer.output, &layer.observed));
        for (raw, end) in merged.chain(passing.iter().map(|tail| (&tail.raw, &tail.end))) {
            if raw != end && !raw.is_empty() && !taps.observed.contains(raw) {
                let end = taps.aliases.get(end).unwrap_or(end).clone();
                taps.aliases.entry(raw.clone()).or_insert(end);
            }
        }
        let inputs: BTreeSet<&str> = model.inputs.iter().map(|port| port.name.as_str()).collect();
        let inner = taps.observed.union(&taps.shown).filter(|name| !inputs.contains(name.as_str()));
        taps.handed_out = inner.cloned().collect();
        taps.handed_out.sort_by_key(|name| std::cmp::Reverse(links.producer.get(name)));
        taps
    }

    /// Every tensor that gets statistics.
    pub fn names(&self) -> BTreeSet<&str> {
        self.observed.iter().chain(self.aliases.keys()).map(String::as_str).collect()
    }
}

/// Whether the file quantizes activations itself.
pub(super) fn is_quantized(model: &Model) -> bool {
    let quantizes = |op: &str| matches!(op, "QuantizeLinear" | "DequantizeLinear");
    model.graph.graph.iter().flat_map(|graph| &graph.node).any(|node| quantizes(node.op_type()))
}

/// Adds what pass-through operators read and make on the way from a layer to a layer; returns the ends of their results.
fn between(graph: &GraphProto, links: &Links, inputs: &BTreeSet<&str>, wanted: &mut BTreeSet<String>) -> Vec<Tail> {
    let mut available = wanted.clone();
    let mut reached: Vec<(usize, Tail)> = Vec::new();
    for (at, node) in graph.node.iter().enumerate() {
        if operators::pass_through(node.op_type(), node.domain()).is_some()
            && let Some(output) = node.output.first()
            && data(graph, at).any(|name| available.contains(name))
        {
            let tail = tail(graph, links, output);
            available.insert(tail.end.clone());
            reached.push((at, tail));
        }
    }
    let mut kept: BTreeSet<usize> = BTreeSet::new();
    let mut tails = Vec::new();
    for (at, tail) in reached.into_iter().rev() {
        if inputs.contains(tail.end.as_str()) || links.readers(&tail.end).iter().any(|reader| kept.contains(reader)) {
            kept.insert(at);
            wanted.extend(data(graph, at).map(str::to_owned));
            wanted.insert(tail.end.clone());
            tails.push(tail);
        }
    }
    tails
}

fn data(graph: &GraphProto, node: usize) -> impl Iterator<Item = &str> {
    graph.node.get(node).into_iter().flat_map(|node| {
        let count = operators::data_inputs(node.op_type(), node.input.len());
        node.input.iter().take(count).map(String::as_str)
    })
}

/// The tensor that holds the same values, before operators that only change the shape or the order of all of them.
fn source<'g>(graph: &'g GraphProto, links: &Links, name: &'g str) -> &'g str {
    let mut name = name;
    // A graph has no cycles, so this ends; the bound is for files that claim otherwise.
    for _ in 0..graph.node.len() {
        let before = links.producer.get(name).and_then(|&at| graph.node.get(at)).filter(|node| {
            operators::is_default_domain(node.domain())
                && matches!(node.op_type(), "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" | "Transpose" | "Identity")
        });
        match before.and_then(|node| node.input.first()) {
            Some(input) if !input.is_empty() => name = input,
            _ => break,
        }
    }
    name
}
