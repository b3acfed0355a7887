//! Visits every tensor of a model, wherever it stands: initializers, attributes, subgraphs, functions, training graphs.

use super::proto::{AttributeProto, GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto};

/// Calls `visit` for every tensor, and stops at its first error.
pub fn tensors<'a, E>(
    model: &'a ModelProto,
    visit: &mut impl FnMut(&'a TensorProto) -> Result<(), E>,
) -> Result<(), E> {
    let training = model.training_info.iter().flat_map(|info| info.initialization.iter().chain(&info.algorithm));
    for graph in model.graph.iter().chain(training) {
        graph_tensors(graph, visit)?;
    }
    for function in &model.functions {
        node_tensors(&function.node, visit)?;
        function.attribute_proto.iter().try_for_each(|attribute| attribute_tensors(attribute, visit))?;
    }
    Ok(())
}

fn graph_tensors<'a, E>(
    graph: &'a GraphProto,
    visit: &mut impl FnMut(&'a TensorProto) -> Result<(), E>,
) -> Result<(), E> {
    graph.initializer.iter().try_for_each(&mut *visit)?;
    graph.sparse_initializer.iter().try_for_each(|sparse| sparse_tensors(sparse, visit))?;
    node_tensors(&graph.node, visit)
}

fn node_tensors<'a, E>(
    nodes: &'a [NodeProto],
    visit: &mut impl FnMut(&'a TensorProto) -> Result<(), E>,
) -> Result<(), E> {
    nodes.iter().flat_map(|node| &node.attribute).try_for_each(|attribute| attribute_tensors(attribute, visit))
}

fn attribute_tensors<'a, E>(
    attribute: &'a AttributeProto,
    visit: &mut impl FnMut(&'a TensorProto) -> Result<(), E>,
) -> Result<(), E> {
    attribute.t.iter().chain(&attribute.tensors).try_for_each(&mut *visit)?;
    let mut sparse = attribute.sparse_tensor.iter().chain(&attribute.sparse_tensors);
    sparse.try_for_each(|sparse| sparse_tensors(sparse, visit))?;
    attribute.g.iter().chain(&attribute.graphs).try_for_each(|graph| graph_tensors(graph, visit))
}

fn sparse_tensors<'a, E>(
    sparse: &'a SparseTensorProto,
    visit: &mut impl FnMut(&'a TensorProto) -> Result<(), E>,
) -> Result<(), E> {
    sparse.values.iter().chain(&sparse.indices).try_for_each(visit)
}

/// As [`tensors`], with the right to change them.
pub fn tensors_mut<E>(
    model: &mut ModelProto,
    visit: &mut impl FnMut(&mut TensorProto) -> Result<(), E>,
) -> Result<(), E> {
    let training =
        model.training_info.iter_mut().flat_map(|info| info.initialization.iter_mut().chain(&mut info.algorithm));
    for graph in model.graph.iter_mut().chain(training) {
        graph_tensors_mut(graph, visit)?;
    }
    for function in &mut model.functions {
        node_tensors_mut(&mut function.node, visit)?;
        function.attribute_proto.iter_mut().try_for_each(|attribute| attribute_tensors_mut(attribute, visit))?;
    }
    Ok(())
}

fn graph_tensors_mut<E>(
    graph: &mut GraphProto,
    visit: &mut impl FnMut(&mut TensorProto) -> Result<(), E>,
) -> Result<(), E> {
    graph.initializer.iter_mut().try_for_each(&mut *visit)?;
    graph.sparse_initializer.iter_mut().try_for_each(|sparse| sparse_tensors_mut(sparse, visit))?;
    node_tensors_mut(&mut graph.node, visit)
}

fn node_tensors_mut<E>(
    nodes: &mut [NodeProto],
    visit: &mut impl FnMut(&mut TensorProto) -> Result<(), E>,
) -> Result<(), E> {
    let mut attributes = nodes.iter_mut().flat_map(|node| &mut node.attribute);
    attributes.try_for_each(|attribute| attribute_tensors_mut(attribute, visit))
}

fn attribute_tensors_mut<E>(
    attribute: &mut AttributeProto,
    visit: &mut impl FnMut(&mut TensorProto) -> Result<(), E>,
) -> Result<(), E> {
    attribute.t.iter_mut().chain(&mut attribute.tensors).try_for_each(&mut *visit)?;
    let mut sparse = attribute.sparse_tensor.iter_mut().chain(&mut attribute.sparse_tensors);
    sparse.try_for_each(|sparse| sparse_tensors_mut(sparse, visit))?;
    attribute.g.iter_mut().chain(&mut attribute.graphs).try_for_each(|graph| graph_tensors_mut(graph, visit))
}

fn sparse_tensors_mut<E>(
    sparse: &mut SparseTensorProto,
    visit: &mut impl FnMut(&mut TensorProto) -> Result<(), E>,
) -> Result<(), E> {
    sparse.values.iter_mut().chain(&mut sparse.indices).try_for_each(visit)
}

/// Visits the initializers of the model's graph and its subgraphs, with the right to change them. Those are the tensors
/// that ONNX Runtime reads from external data in every release; in attributes it does not always.
pub(super) fn initializers_mut(model: &mut ModelProto, visit: &mut impl FnMut(&mut TensorProto)) {
    fn graph_mut(graph: &mut GraphProto, visit: &mut impl FnMut(&mut TensorProto)) {
        graph.initializer.iter_mut().for_each(&mut *visit);
        for attribute in graph.node.iter_mut().flat_map(|node| &mut node.attribute) {
            attribute.g.iter_mut().chain(&mut attribute.graphs).for_each(|graph| graph_mut(graph, visit));
        }
    }
    model.graph.iter_mut().for_each(|graph| graph_mut(graph, visit));
}

/// How deep subgraphs are nested: 0 without any.
pub fn subgraph_depth(graph: &GraphProto) -> usize {
    let attributes = graph.node.iter().flat_map(|node| &node.attribute);
    let graphs = attributes.flat_map(|attribute| attribute.g.iter().chain(&attribute.graphs));
    graphs.map(|graph| 1 + subgraph_depth(graph)).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::build::{attr_graph, attr_tensor, node, tensor_f32};

    #[test]
    fn finds_initializers_attributes_and_subgraphs() {
        let tensor = |name| tensor_f32(name, &[1], &[1.0]);
        let inner = GraphProto {
            initializer: vec![tensor("inner")],
            node: vec![node("Constant", "", "", &[""; 0], &["c"], vec![attr_tensor("value", tensor("constant"))])],
            ..Default::default()
        };
        let branch = vec![attr_graph("then_branch", inner)];
        let graph = GraphProto {
            initializer: vec![tensor("outer")],
            node: vec![node("If", "", "", &["cond"], &["y"], branch)],
            ..Default::default()
        };
        let mut model = ModelProto { graph: Some(graph), ..Default::default() };
        let mut seen = Vec::new();
        tensors(&model, &mut |tensor| {
            seen.push(tensor.name.clone().unwrap_or_default());
            Ok::<_, ()>(())
        })
        .expect("nothing fails");
        assert_eq!(seen, ["outer", "inner", "constant"]);
        assert_eq!(model.graph.as_ref().map(subgraph_depth), Some(1));

        let mut count = 0;
        tensors_mut(&mut model, &mut |_| {
            count += 1;
            Ok::<_, ()>(())
        })
        .expect("nothing fails");
        assert_eq!(count, 3);
        let mut initializers = 0;
        initializers_mut(&mut model, &mut |_| initializers += 1);
        assert_eq!(initializers, 2);
    }
}
