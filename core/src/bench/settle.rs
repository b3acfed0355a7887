//! Whether the layers that were expected to run faster do: the profiles of both models, layer by layer.

use std::collections::BTreeMap;

use serde::Serialize;

use super::why::{OVERHEAD_MS, family};
use super::{LayerTime, Speed};
use crate::model::graph::Links;
use crate::model::{Layer, Model};
use crate::onnx::proto::GraphProto;

/// The profiler counts whole microseconds; a difference of one says nothing.
const CLOCK_MS: f64 = 0.0015;
/// Differences below this share are noise.
const SHARE: f64 = 0.1;
/// Layers named at most.
const NAMED: usize = 4;
/// Nodes after a layer that the runtime may merge into it: batch normalization, residual sum, activation.
const MERGED: usize = 3;

/// Measured time of one layer's kernel; conversions around it are nodes of their own.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Measured {
    /// In the original.
    pub original_ms: f64,
    /// In the quantized model.
    pub quantized_ms: f64,
}

impl Measured {
    /// What the difference amounts to: at least 2 µs and a tenth of the original.
    pub fn speed(self) -> Speed {
        let noise = CLOCK_MS.max(SHARE * self.original_ms);
        match self.quantized_ms - self.original_ms {
            difference if difference < -noise => Speed::Faster,
            difference if difference > noise => Speed::Slower,
            _ => Speed::Same,
        }
    }
}

/// The time of each layer of the original `model` that both profiles name. `nodes` are those of both models.
///
/// A node that the runtime merged with its followers is called after one of them or after its last output, so a layer is
/// looked for under all of these names, among operators of its own kind.
pub fn measured_layers(model: &Model, nodes: &[LayerTime]) -> BTreeMap<String, Measured> {
    let Some(graph) = &model.graph.graph else { return BTreeMap::new() };
    let links = Links::of(graph);
    let find = |layer: &Layer, side: &str| {
        let names = names(graph, &links, layer);
        let alike = |time: &&LayerTime| time.model == side && family(&time.op) == family(&layer.op);
        names.iter().find_map(|name| nodes.iter().filter(alike).find(|time| plain_name(&time.name) == *name))
    };
    let layers = model.layers.iter().filter(|layer| !layer.in_subgraph());
    let measured = layers.filter_map(|layer| {
        let (before, after) = (find(layer, "original")?, find(layer, "quantized")?);
        Some((layer.name.clone(), Measured { original_ms: before.time_ms, quantized_ms: after.time_ms }))
    });
    measured.collect()
}

/// Names that the runtime may give to a layer's kernel, the likeliest first.
fn names<'a>(graph: &'a GraphProto, links: &Links, layer: &'a Layer) -> Vec<&'a str> {
    let mut names = vec![layer.name.as_str(), layer.output.as_str()];
    let mut tensor = layer.output.as_str();
    for _ in 0..MERGED {
        let Some(node) = links.only_reader(tensor).and_then(|index| graph.node.get(index)) else { break };
        let [output] = node.output.as_slice() else { break };
        names.extend([node.name(), output]);
        tensor = output;
    }
    names.retain(|name| !name.is_empty());
    names
}

/// A node's name without what ONNX Runtime's optimisations add: `fused conv1`, `conv1_nchwc`, `conv1_token_2`,
/// `fc/MatMulAddFusion`.
pub fn plain_name(name: &str) -> &str {
    let name = name.strip_prefix("fused ").unwrap_or(name);
    let name = match name.rsplit_once("_token_") {
        Some((plain, number)) if !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()) => plain,
        _ => name,
    };
    ["_nchwc", "_nhwc", "/MatMulAddFusion", "/MatMulScaleFusion/"]
        .iter()
        .find_map(|suffix| name.strip_suffix(suffix))
        .unwrap_or(name)
}

/// How many of the layers called `expected`, which were expected to run faster, do, and which do not; `None` when all of
/// them do, or when none was measured.
pub fn settle<'a>(
    expected: impl IntoIterator<Item = &'a str>,
    measured: &BTreeMap<String, Measured>,
) -> Option<String> {
    let known: Vec<_> = expected.into_iter().filter_map(|name| Some((name, *measured.get(name)?))).collect();
    let mut missed: Vec<_> = known.iter().filter(|(_, times)| times.speed() != Speed::Faster).collect();
    if missed.is_empty() {
        return None;
    }
    missed.sort_by(|(_, a), (_, b)| (b.quantized_ms - b.original_ms).total_cmp(&(a.quantized_ms - a.original_ms)));
    let slower = missed.iter().filter(|(_, times)| times.speed() == Speed::Slower).count();
    let named: Vec<_> = missed
        .iter()
        .take(slower.min(NAMED))
        .map(|(name, times)| format!("{name} {:.3} → {:.3} ms", times.original_ms, times.quantized_ms))
        .collect();
    let faster = known.len() - missed.len();
    let mut text = format!(
        "Of {} layers expected to run faster, {faster} measured faster, {} about as fast, {slower} slower",
        known.len(),
        missed.len() - slower
    );
    if !named.is_empty() {
        let more = if slower > NAMED { ", …" } else { "" };
        text = format!("{text} ({}{more})", named.join(", "));
    }
    if missed.iter().all(|(_, times)| times.original_ms.max(times.quantized_ms) < OVERHEAD_MS) {
        text += &format!(
            ". Kernels below {OVERHEAD_MS} ms are mostly the cost of starting them: integers pay on larger layers"
        );
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_what_the_runtime_adds() {
        for name in ["conv1", "fused conv1", "conv1_nchwc", "conv1_token_2", "conv1/MatMulAddFusion"] {
            assert_eq!(plain_name(name), "conv1");
        }
        assert_eq!(plain_name("conv_token_x"), "conv_token_x");
    }

    #[test]
    fn expectations_that_failed_are_said_and_kept_ones_are_not() {
        let times = |original_ms, quantized_ms| Measured { original_ms, quantized_ms };
        let measured: BTreeMap<_, _> =
            [("a", times(1.0, 0.5)), ("b", times(1.0, 3.0)), ("c", times(1.0, 1.05)), ("d", times(0.002, 0.003))]
                .map(|(name, times)| (name.to_owned(), times))
                .into();
        assert_eq!(settle(["a", "unknown"], &measured), None);
        let text = settle(["a", "b", "c"], &measured).expect("b is slower");
        assert!(text.contains("Of 3") && text.contains("1 measured faster, 1 about as fast, 1 slower"), "{text}");
        assert!(text.contains("b 1.000 → 3.000 ms") && !text.contains("starting"), "{text}");
        assert!(!settle(["d", "b"], &measured).expect("b is slower").contains("starting"), "b is not short");
        assert!(settle(["d"], &measured).expect("no gain").contains("cost of starting"));
    }
}
