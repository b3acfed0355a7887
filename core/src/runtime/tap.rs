//! Taps: tensors inside a model made visible by naming them as outputs.

use std::collections::BTreeSet;

use crate::onnx::build::value_info;
use crate::onnx::proto::ModelProto;

/// The model with the tensors `names` appended to its outputs, in this order, those left out that are outputs already.
/// They need no type: ONNX Runtime infers it. Weights are shared with `proto`, not copied.
///
/// Run the result at [`super::Level::Disable`] to see every tensor as the file computes it, at no cost; at higher levels
/// the taps keep nodes from being fused, which makes the run slower.
pub fn tapped(proto: &ModelProto, names: &[String]) -> ModelProto {
    let mut proto = proto.clone();
    if let Some(graph) = proto.graph.as_mut() {
        let mut known: BTreeSet<String> = graph.output.iter().filter_map(|output| output.name.clone()).collect();
        for name in names.iter().filter(|name| !name.is_empty()) {
            if known.insert(name.clone()) {
                graph.output.push(value_info(name));
            }
        }
    }
    proto
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::proto::GraphProto;

    #[test]
    fn appends_each_name_once() {
        let graph = GraphProto { output: vec![value_info("y")], ..Default::default() };
        let proto = ModelProto { graph: Some(graph), ..Default::default() };
        let names = ["a", "y", "", "b", "a"].map(str::to_owned);
        let outputs = tapped(&proto, &names).graph.unwrap_or_default().output;
        let outputs: Vec<_> = outputs.into_iter().filter_map(|output| output.name).collect();
        assert_eq!(outputs, ["y", "a", "b"]);
    }
}
