//! Which tensors of the original and of the quantized model hold the same layer's output.

use std::collections::{HashMap, HashSet};

use crate::error::LayerPair;
use crate::model::{Layer, Model};
use crate::onnx::proto::{GraphProto, ModelProto};

/// For every quantizable layer of the main graph the tensor of its output in both models, in the model's order: what
/// [`crate::error::accumulated()`] compares.
///
/// Exports keep the names of tensors: where one is quantized, its name is that of the tensor behind DequantizeLinear. A
/// layer merged with what follows it (an activation, the Add of a bias) is compared behind that.
pub fn layer_pairs(model: &Model, quantized: &ModelProto) -> Vec<LayerPair> {
    let (Some(before), Some(after)) = (&model.graph.graph, &quantized.graph) else { return Vec::new() };
    let kept: HashSet<&str> = after.node.iter().flat_map(|node| &node.output).map(String::as_str).collect();
    let readers = single_readers(before);
    let layers = model.layers.iter().filter(|layer| layer.quantizable() && !layer.in_subgraph());
    layers.filter_map(|layer| pair(layer, &kept, &readers)).collect()
}

fn pair(layer: &Layer, kept: &HashSet<&str>, readers: &HashMap<&str, &str>) -> Option<LayerPair> {
    let behind = readers.get(layer.output.as_str()).copied().unwrap_or_default();
    let tensor =
        [layer.observed.as_str(), layer.output.as_str(), behind].into_iter().find(|name| kept.contains(name))?;
    Some(LayerPair { layer: layer.name.clone(), original: tensor.to_owned(), quantized: tensor.to_owned() })
}

/// For every tensor that one node alone reads, that node's first output.
fn single_readers(graph: &GraphProto) -> HashMap<&str, &str> {
    let mut readers: HashMap<&str, Option<&str>> = HashMap::new();
    for node in &graph.node {
        let output = node.output.first().map(String::as_str);
        for input in node.input.iter().filter(|input| !input.is_empty()) {
            readers.entry(input).and_modify(|known| *known = None).or_insert(output);
        }
    }
    readers.into_iter().filter_map(|(tensor, output)| Some((tensor, output?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::proto::NodeProto;

    #[test]
    fn a_tensor_read_twice_has_no_single_reader() {
        let node = |inputs: &[&str], output: &str| NodeProto {
            input: inputs.iter().map(|&name| name.to_owned()).collect(),
            output: vec![output.to_owned()],
            ..Default::default()
        };
        let graph = GraphProto {
            node: vec![node(&["x"], "a"), node(&["a", "b"], "c"), node(&["x", ""], "d")],
            ..Default::default()
        };
        let readers = single_readers(&graph);
        assert_eq!(readers.get("a"), Some(&"c"));
        assert!(!readers.contains_key("x") && !readers.contains_key(""));
    }
}
