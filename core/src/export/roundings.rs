//! Where the export of a plan rounds activations, known before anything is written.

use std::collections::HashSet;

use crate::export::activations::{self, FindRange};
use crate::export::foreign::Foreign;
use crate::export::pick::Pick;
use crate::export::static_layer;
use crate::model::Model;
use crate::model::graph::Links;
use crate::operators;
use crate::quant::QuantParams;
use crate::stats::Stats;

/// One activation of the main graph that becomes integers.
#[derive(Clone, Debug)]
pub struct Rounding {
    /// The tensor.
    pub tensor: String,
    /// Its scale and zero point.
    pub params: QuantParams,
    /// Indices of the nodes that see the rounded values; `None` when all do.
    pub readers: Option<Vec<usize>>,
}

impl Rounding {
    /// Whether both round the same values for the same readers.
    pub fn is_same(&self, other: &Self) -> bool {
        (&self.tensor, &self.params, &self.readers) == (&other.tensor, &other.params, &other.readers)
    }
}

/// The calibrated activations that the export rounds when its layers are written as `picks` say (one a layer, in the
/// model's order), for the default target: other targets round the same tensors, but for second pairs before merged
/// activations.
pub fn roundings(model: &Model, picks: &[Pick], stats: &Stats) -> Vec<Rounding> {
    let Some(graph) = &model.graph.graph else { return Vec::new() };
    roundings_with(model, &Links::of(graph), picks, stats, &activations::find_range)
}

/// [`roundings`] with the links of the model's graph, and with `find` to find ranges.
pub(crate) fn roundings_with(
    model: &Model,
    links: &Links,
    picks: &[Pick],
    stats: &Stats,
    find: FindRange<'_>,
) -> Vec<Rounding> {
    let Some(graph) = &model.graph.graph else { return Vec::new() };
    let each = model.layers.iter().zip(picks).filter(|(_, pick)| pick.form.needs_statistics());
    let mut each = each.peekable();
    if each.peek().is_none() {
        return Vec::new();
    }
    // What this finds to say, the export itself says.
    let foreign = Foreign::of(model, links, picks, &mut Vec::new());
    let layers: Vec<_> = each.map(|(layer, pick)| static_layer(graph, links, layer, pick, &foreign, stats)).collect();
    let decided = activations::decide(model, graph, links, &layers, &foreign, stats, None, find);
    let reads: HashSet<(usize, &str)> = layers.iter().map(|layer| (layer.node, layer.input.as_str())).collect();
    let mut out = Vec::new();
    for (name, quantized) in decided.tensors.into_iter().filter(|(_, quantized)| !quantized.existing) {
        if let Some((tensor, params)) = quantized.before {
            out.push(Rounding { tensor, params, readers: None });
        }
        let reads_integers = |at: &&usize| {
            reads.contains(&(**at, name.as_str()))
                || decided.passing.contains_key(at)
                    && graph.node.get(**at).is_some_and(|node| {
                        let count = operators::data_inputs(node.op_type(), node.input.len());
                        node.input.iter().take(count).any(|input| *input == name)
                    })
        };
        let readers = (!quantized.for_all).then(|| {
            let mut readers: Vec<usize> = links.readers(&name).iter().filter(reads_integers).copied().collect();
            readers.dedup();
            readers
        });
        out.push(Rounding { tensor: name, params: quantized.params, readers });
    }
    out
}
