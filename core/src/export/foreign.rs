//! The file's own QuantizeLinear and DequantizeLinear of activations: which stay, and what layers read in their place.
//!
//! A pair stays as long as anything reads it that has not chosen otherwise; then every static layer behind it takes its
//! scale, so that nothing changes for the others. A layer that wants none of it reads the floating-point tensor before it.

use std::collections::{HashMap, HashSet};

use crate::Problem;
use crate::export::context::Context;
use crate::export::{Pick, pick};
use crate::model::graph::Links;
use crate::model::{ActivationPair, Layer, Model, drop_unread};
use crate::onnx::proto::{ModelProto, NodeProto};
use crate::plan::{Clip, Plan};
use crate::problem::Severity;

/// What an export makes of the file's own pairs.
#[derive(Default)]
pub struct Foreign<'m> {
    /// Pairs that stay, by the tensor behind them.
    by_result: HashMap<&'m str, &'m ActivationPair>,
    /// Pairs that stay, by the tensor before them.
    by_source: HashMap<&'m str, &'m ActivationPair>,
    /// For layers that pass a pair by: the tensor that they read.
    inputs: HashMap<&'m str, &'m str>,
}

fn is_static(pick: &Pick) -> bool {
    pick.form.writer().runs_on_integers()
}

impl<'m> Foreign<'m> {
    /// Decides for all pairs of the model.
    pub fn of(model: &'m Model, links: &Links, picks: &[Pick], problems: &mut Vec<Problem>) -> Self {
        if model.pairs.is_empty() {
            return Self::default();
        }
        let nodes: HashMap<usize, (&Layer, &Pick)> = model
            .layers
            .iter()
            .zip(picks)
            .filter(|(layer, _)| !layer.in_subgraph())
            .map(|(layer, pick)| (layer.path.node, (layer, pick)))
            .collect();
        let mut foreign = Self::default();
        for pair in &model.pairs {
            // What a reader makes of the pair: `None` for one that is no layer, or reads it in another place.
            let wishes: Vec<Option<(&Layer, &Pick)>> = links
                .readers(&pair.result)
                .iter()
                .map(|reader| nodes.get(reader).copied().filter(|(layer, _)| layer.input == pair.result))
                .collect();
            let leaves = |wish: &Option<(&Layer, &Pick)>| wish.is_some_and(|(layer, pick)| passes_by(layer, pick));
            let stays = links.outputs.contains(&pair.result) || !wishes.iter().all(leaves);
            if stays {
                foreign.by_result.insert(&pair.result, pair);
                foreign.by_source.insert(&pair.source, pair);
            }
            for (layer, pick) in wishes.iter().flatten().filter(|(layer, pick)| passes_by(layer, pick)) {
                if !(stays && is_static(pick)) {
                    let known = model.layers.iter().find(|known| known.name == layer.name);
                    foreign.inputs.extend(known.map(|known| (known.name.as_str(), pair.source.as_str())));
                    continue;
                }
                problems.push(Problem::new(
                    Severity::Note,
                    "The file's own activation range is kept",
                    layer.name.as_str(),
                    format!("Others read {} in the range that the file gives it", pair.result),
                    "Choose clip `trained` for its activation, or another range for all layers that read it",
                ));
            }
        }
        foreign
    }

    /// The tensor that a layer reads.
    pub fn input<'l>(&'l self, layer: &'l Layer) -> &'l str {
        self.inputs.get(layer.name.as_str()).copied().unwrap_or(&layer.input)
    }

    /// The pair that stays behind `tensor` or before it.
    pub fn pair(&self, tensor: &str) -> Option<&'m ActivationPair> {
        self.by_result.get(tensor).or_else(|| self.by_source.get(tensor)).copied()
    }

    /// The tensors behind pairs that stay.
    pub fn results(&self) -> impl Iterator<Item = &'m str> {
        self.by_result.keys().copied()
    }

    /// Lets layers that are not static read past their pair.
    pub fn redirect(&self, context: &mut Context<'_>, layer: &Layer, pick: &Pick) {
        if let Some(source) = self.inputs.get(layer.name.as_str()).filter(|_| !pick.form.needs_statistics()) {
            context.patch.graph(&layer.path.bodies).set_input(layer.path.node, 0, source);
        }
    }
}

/// Whether a layer leaves the file's own pair: another range for a static layer, none for one trained with it.
fn passes_by(layer: &Layer, pick: &Pick) -> bool {
    let trained = layer.weights.iter().any(|weight| weight.grid.is_some());
    if is_static(pick) { pick.choice.activation_clip != Clip::Trained } else { trained && layer.quantizable() }
}

/// Whether writing a layer takes what calibration saw: not where the file gives the ranges of what it reads and makes.
pub fn needs_statistics(model: &Model, layer: &Layer, pick: &Pick) -> bool {
    if !is_static(pick) {
        return pick.form.needs_statistics();
    }
    let makes = model.pairs.iter().any(|pair| pair.source == layer.observed || pair.source == layer.output);
    let given = pick.choice.activation_clip == Clip::Trained && model.input_pair(layer).is_some();
    !(given && (makes || layer.op != "Conv"))
}

/// Whether any layer will be written with ranges of its activations that only data can tell.
pub fn needs_calibration(plan: &Plan, model: &Model) -> bool {
    let needs = |layer: &Layer| needs_statistics(model, layer, &pick(model, layer, plan.choice(&layer.name), None));
    model.layers.iter().any(needs)
}

/// Drops the file's own pairs that nothing reads any more.
pub fn drop_pairs(proto: &mut ModelProto, model: &Model) {
    if model.pairs.is_empty() {
        return;
    }
    let Some(prepared) = &model.graph.graph else { return };
    let own: HashSet<&str> = prepared
        .node
        .iter()
        .filter(|node| matches!(node.op_type(), "QuantizeLinear" | "DequantizeLinear" | "Clip"))
        .flat_map(|node| node.output.iter().map(String::as_str))
        .collect();
    let is_own = |node: &NodeProto| {
        matches!(node.op_type(), "QuantizeLinear" | "DequantizeLinear" | "Clip")
            && node.output.first().is_some_and(|output| own.contains(output.as_str()))
    };
    if let Some(graph) = proto.graph.as_mut() {
        drop_unread(graph, is_own);
    }
}
