//! How long a quantized model runs, from what each layer took in each form on this machine.
//!
//! Profiles of whole quantized models give the time of every kernel in its real surroundings. What a profile adds beside
//! the layers' kernels is the price of the boundaries, where integers meet floats, and of other operators that changed
//! their form with their neighbours.

use std::collections::{BTreeMap, BTreeSet};

use crate::bench::{LayerTime, measured_layers};
use crate::export::{Form, Pick};
use crate::model::Model;
use crate::model::graph::Links;
use crate::onnx::proto::{GraphProto, NodeProto};
use crate::operators;
use crate::stats::Stats;

/// Operators that carry values between floats and integers.
const CONVERSIONS: [&str; 2] = ["QuantizeLinear", "DequantizeLinear"];

/// Times of a model's layers in the forms that were profiled.
#[derive(Clone, Debug, Default)]
pub struct LatencyTable {
    /// The original's nodes.
    original: Vec<LayerTime>,
    /// Σ of their times.
    original_ms: f64,
    /// By layer and form, what the form adds to the original's time (below 0: saves).
    deltas: BTreeMap<(String, Form), f64>,
    /// By operator and form, delta against the time of the layers' kernels: for layers not profiled in that form.
    usual: BTreeMap<(String, Form), (f64, f64)>,
    /// Time and elements of conversions seen.
    conversions: (f64, f64),
    /// Elements of each activation in one run.
    elements: BTreeMap<String, f64>,
    /// Models that were timed: how each layer was written, and by how much the sum of kernels was off (measured / sum).
    timed: Vec<(Vec<Form>, f64)>,
}

/// Models that differ in this share of the time or less all teach alike.
const LEAST_DISTANCE: f64 = 0.03;

impl LatencyTable {
    /// From a profile of the original, whose nodes are labelled `original`; `stats` know the size of the activations.
    pub fn new(original: Vec<LayerTime>, stats: &Stats) -> Self {
        let samples = stats.samples().max(1) as f64;
        let elements = stats.tensors.iter().map(|(name, tensor)| (name.clone(), tensor.count as f64 / samples));
        Self {
            original_ms: original.iter().map(|node| node.time_ms).sum(),
            original,
            elements: elements.collect(),
            ..Self::default()
        }
    }

    /// Learns from a profile of the model quantized as `picks` (one a layer), its nodes labelled `quantized`. Forms known
    /// already keep their times.
    pub fn learn(&mut self, model: &Model, picks: &[Pick], profile: &[LayerTime]) {
        let nodes: Vec<LayerTime> = self.original.iter().chain(profile).cloned().collect();
        let kernels = measured_layers(model, &nodes);
        let sum = |chosen: &dyn Fn(&LayerTime) -> bool| -> f64 {
            profile.iter().filter(|node| chosen(node)).map(|node| node.time_ms).sum()
        };
        let conversions = sum(&|node| CONVERSIONS.contains(&node.op.as_str()));
        let crossing = self.crossing(model, picks);
        if crossing > 0.0 {
            self.conversions.0 += conversions;
            self.conversions.1 += crossing;
        }
        let changed: Vec<_> = model
            .layers
            .iter()
            .zip(picks)
            .filter(|(_, pick)| pick.form != Form::Float)
            .filter_map(|(layer, pick)| Some((layer, pick, *kernels.get(&layer.name)?)))
            .collect();
        let grown: f64 = changed.iter().map(|(.., times)| times.quantized_ms - times.original_ms).sum();
        let beside = sum(&|_| true) - self.original_ms - grown - if crossing > 0.0 { conversions } else { 0.0 };
        let weight = |layer: &crate::model::Layer| self.elements.get(&layer.input).copied().unwrap_or(1.0);
        let whole: f64 = changed.iter().map(|(layer, ..)| weight(layer)).sum();
        let mut learnt = Vec::new();
        for (layer, pick, times) in changed {
            let delta = times.quantized_ms - times.original_ms + beside * weight(layer) / whole.max(1.0);
            learnt.push((layer, pick.form, delta, times.original_ms));
        }
        for (layer, form, delta, kernel) in learnt {
            self.deltas.entry((layer.name.clone(), form)).or_insert(delta);
            let usual = self.usual.entry((layer.op.clone(), form)).or_default();
            *usual = (usual.0 + delta, usual.1 + kernel);
        }
    }

    /// What `pick` adds to the time of the layer called `name`, of operator `op`, in milliseconds, between neighbours of its
    /// own kind; 0 where nothing like it was profiled.
    pub fn layer_ms(&self, name: &str, op: &str, pick: &Pick) -> f64 {
        if let Some(delta) = self.deltas.get(&(name.to_owned(), pick.form)) {
            return *delta;
        }
        let kernel = self.original.iter().find(|node| node.name == name).map_or(0.0, |node| node.time_ms);
        let usual = self.usual.get(&(op.to_owned(), pick.form));
        usual.filter(|(_, kernels)| *kernels > 0.0).map_or(0.0, |(delta, kernels)| delta / kernels * kernel)
    }

    /// Learns from the latency ratio measured of the model quantized as `picks`: profiles slow every kernel down by what
    /// watching it costs, small ones most.
    pub fn learn_ratio(&mut self, model: &Model, picks: &[Pick], measured: f64) {
        if let Some(sum) = self.sum(model, picks).filter(|sum| *sum > 0.0 && measured > 0.0) {
            self.timed.push((picks.iter().map(|pick| pick.form).collect(), measured / sum));
        }
    }

    /// Latency of the model quantized as `picks` (one a layer) against the original's; `None` before anything was profiled.
    /// The sum over kernels is corrected by models that were timed, those most alike counting most.
    pub fn ratio(&self, model: &Model, picks: &[Pick]) -> Option<f64> {
        let sum = self.sum(model, picks)?;
        let (mut logs, mut weights) = (0.0, 0.0);
        for (forms, factor) in &self.timed {
            let weight = self.distance(model, picks, forms).max(LEAST_DISTANCE).powi(-2);
            logs += weight * factor.ln();
            weights += weight;
        }
        Some(if weights > 0.0 { sum * (logs / weights).exp() } else { sum })
    }

    /// Share of the original's time that is spent in layers written in another form.
    fn distance(&self, model: &Model, picks: &[Pick], forms: &[Form]) -> f64 {
        let time = |name: &str| self.original.iter().find(|node| node.name == name).map_or(0.0, |node| node.time_ms);
        let (mut other, mut all) = (0.0, 0.0);
        for ((layer, pick), form) in model.layers.iter().zip(picks).zip(forms) {
            let time = time(&layer.name);
            all += time;
            other += if pick.form == *form { 0.0 } else { time };
        }
        if all > 0.0 { other / all } else { 0.0 }
    }

    /// The sum over kernels against the original's.
    fn sum(&self, model: &Model, picks: &[Pick]) -> Option<f64> {
        if self.original_ms <= 0.0 {
            return None;
        }
        let layers = model.layers.iter().zip(picks).filter(|(_, pick)| pick.form != Form::Float);
        let changed: f64 = layers.map(|(layer, pick)| self.layer_ms(&layer.name, &layer.op, pick)).sum();
        let boundaries = self.crossing(model, picks) * self.conversion_ms();
        Some(((self.original_ms + changed + boundaries) / self.original_ms).max(0.0))
    }

    /// Milliseconds that carrying one value between floats and integers takes.
    pub fn conversion_ms(&self) -> f64 {
        if self.conversions.1 > 0.0 { self.conversions.0 / self.conversions.1 } else { 0.0 }
    }

    /// Values that cross between floats and integers in one run: inputs of integer layers that no integer layer makes, and
    /// what they make that none reads.
    fn crossing(&self, model: &Model, picks: &[Pick]) -> f64 {
        let Some(graph) = &model.graph.graph else { return 0.0 };
        let integer: Vec<_> = model
            .layers
            .iter()
            .zip(picks)
            .filter(|(layer, pick)| pick.form.runs_on_integers() && !layer.in_subgraph())
            .map(|(layer, _)| layer)
            .collect();
        let links = Links::of(graph);
        let made: BTreeSet<String> = integer.iter().map(|layer| layer.observed.clone()).collect();
        let read: BTreeSet<String> = integer.iter().map(|layer| origin(graph, &links, &layer.input)).collect();
        let size = |name: &String| self.elements.get(name).copied().unwrap_or_default();
        made.symmetric_difference(&read).map(size).sum()
    }
}

/// Where a value comes from, behind operators that only move it.
fn origin(graph: &GraphProto, links: &Links, tensor: &str) -> String {
    let mut name = tensor;
    for _ in 0..graph.node.len() {
        let node = links.producer.get(name).and_then(|&at| graph.node.get(at));
        let moves = |node: &&NodeProto| operators::pass_through(node.op_type(), node.domain()).is_some();
        let Some(input) = node.filter(moves).and_then(|node| node.input.first()) else { break };
        name = input;
    }
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Control;
    use crate::export::pick;
    use crate::plan::PRESETS;

    #[test]
    fn a_profile_is_given_back_and_half_of_it_for_half_of_the_layers() {
        let model =
            crate::model::Model::load(std::path::Path::new("../sample-models/digits_cnn.onnx"), &Control::new());
        let model = model.expect("model");
        let node = |label: &str, name: &str, op: &str, time_ms: f64| LayerTime {
            model: label.to_owned(),
            name: name.to_owned(),
            op: op.to_owned(),
            time_ms,
        };
        let layers: Vec<_> = model.layers.iter().filter(|layer| layer.quantizable()).collect();
        let original = layers.iter().map(|layer| node("original", &layer.name, &layer.op, 1.0)).collect();
        let mut table = LatencyTable::new(original, &Stats::new("", 0));
        let weights = PRESETS.iter().find(|preset| preset.name == "int8-weights").expect("preset").choice;
        let picks: Vec<_> = model.layers.iter().map(|layer| pick(&model, layer, weights, None)).collect();
        assert_eq!(table.ratio(&model, &picks), Some(1.0), "nothing is known yet");
        let faster: Vec<_> = layers.iter().map(|layer| node("quantized", &layer.name, &layer.op, 0.5)).collect();
        table.learn(&model, &picks, &faster);
        assert!(table.ratio(&model, &picks).is_some_and(|ratio| (ratio - 0.5).abs() < 1e-9));
        table.learn_ratio(&model, &picks, 0.6);
        assert!(table.ratio(&model, &picks).is_some_and(|ratio| (ratio - 0.6).abs() < 1e-9), "what was timed");
        table.timed.clear();
        let mut half = picks.clone();
        for (layer, known) in model.layers.iter().zip(&mut half).skip(model.layers.len() / 2) {
            *known = pick(&model, layer, crate::plan::Choice::FLOAT, None);
        }
        let share = half.iter().filter(|pick| pick.form != Form::Float).count() as f64 / layers.len() as f64;
        assert!(table.ratio(&model, &half).is_some_and(|ratio| (ratio - (1.0 - 0.5 * share)).abs() < 1e-9));
    }
}
