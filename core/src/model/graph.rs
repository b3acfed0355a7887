//! Questions about one graph of a model: who makes a tensor, who reads it, which node is which.

use std::collections::{HashMap, HashSet};

use crate::model::NodePath;
use crate::onnx::proto::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto};
use crate::operators;

/// Producers and consumers of one graph. Uses inside bodies of its nodes count as uses by those nodes.
pub struct Links {
    /// Tensor → node that makes it.
    pub producer: HashMap<String, usize>,
    /// Tensor → nodes that read it, in order, each as often as it reads it.
    pub consumers: HashMap<String, Vec<usize>>,
    /// Names of the graph's outputs.
    pub outputs: HashSet<String>,
}

impl Links {
    /// The links of `graph`.
    pub fn of(graph: &GraphProto) -> Self {
        let mut producer = HashMap::new();
        let mut consumers: HashMap<String, Vec<usize>> = HashMap::new();
        for (index, node) in graph.node.iter().enumerate() {
            for output in node.output.iter().filter(|name| !name.is_empty()) {
                producer.insert(output.clone(), index);
            }
            for input in node.input.iter().filter(|name| !name.is_empty()) {
                consumers.entry(input.clone()).or_default().push(index);
            }
            for body in bodies(node) {
                let mut used = HashSet::new();
                outer_uses(body, &mut used);
                for name in used {
                    consumers.entry(name).or_default().push(index);
                }
            }
        }
        let outputs = graph.output.iter().map(|port| port.name().to_owned()).collect();
        Self { producer, consumers, outputs }
    }

    /// The nodes that read `tensor`.
    pub fn readers(&self, tensor: &str) -> &[usize] {
        self.consumers.get(tensor).map_or(&[], Vec::as_slice)
    }

    /// The only reader of `tensor`, when it has exactly one use and is no output of the graph.
    pub fn only_reader(&self, tensor: &str) -> Option<usize> {
        match self.readers(tensor) {
            [one] if !self.outputs.contains(tensor) => Some(*one),
            _ => None,
        }
    }
}

/// Where a node's result ends, after the Relu or Clip that the runtime merges into it.
#[derive(Clone, Debug)]
pub struct Tail {
    /// The node's own output.
    pub raw: String,
    /// The tensor at the end.
    pub end: String,
    /// The merged Relu or Clip.
    pub activation: Option<usize>,
}

/// The end of the result `raw` of a node: through one Relu or Clip that alone reads it.
pub fn tail(graph: &GraphProto, links: &Links, raw: &str) -> Tail {
    let merged = links.only_reader(raw).filter(|&at| {
        graph.node.get(at).is_some_and(|node| {
            operators::is_merged_activation(node.op_type(), node.domain())
                && node.input.first().map(String::as_str) == Some(raw)
        })
    });
    let end = merged.and_then(|at| graph.node.get(at)?.output.first().cloned());
    match end {
        Some(end) => Tail { raw: raw.to_owned(), end, activation: merged },
        None => Tail { raw: raw.to_owned(), end: raw.to_owned(), activation: None },
    }
}

/// Names that `graph` (a body) reads from the graphs around it, with those of bodies inside it.
fn outer_uses(graph: &GraphProto, used: &mut HashSet<String>) {
    let mut local: HashSet<&str> = graph.input.iter().map(ValueInfoProto::name).collect();
    local.extend(graph.initializer.iter().map(TensorProto::name));
    local.extend(graph.node.iter().flat_map(|node| node.output.iter().map(String::as_str)));
    let mut inner = HashSet::new();
    for node in &graph.node {
        inner.extend(node.input.iter().filter(|name| !name.is_empty()).cloned());
        for body in bodies(node) {
            outer_uses(body, &mut inner);
        }
    }
    inner.extend(graph.output.iter().map(|port| port.name().to_owned()));
    used.extend(inner.into_iter().filter(|name| !local.contains(name.as_str())));
}

/// The bodies of a node (`If`, `Loop`, `Scan`).
pub fn bodies(node: &NodeProto) -> impl Iterator<Item = &GraphProto> {
    node.attribute.iter().flat_map(|attribute| attribute.g.iter().chain(attribute.graphs.iter()))
}

/// Adds the names of all tensors of a graph, of the bodies in it too.
pub(crate) fn all_names(graph: &GraphProto, names: &mut HashSet<String>) {
    names.extend(graph.initializer.iter().map(|tensor| tensor.name().to_owned()));
    names.extend(graph.input.iter().map(|port| port.name().to_owned()));
    for node in &graph.node {
        names.extend(node.output.iter().cloned());
        for body in bodies(node) {
            all_names(body, names);
        }
    }
}

/// The bodies of a node, to change them.
pub fn bodies_mut(node: &mut NodeProto) -> impl Iterator<Item = &mut GraphProto> {
    node.attribute.iter_mut().flat_map(|attribute| attribute.g.iter_mut().chain(attribute.graphs.iter_mut()))
}

/// Drops initializers of `graph` and its bodies that nothing reads any more, so that a file does not carry weights twice.
pub fn drop_unused_initializers(graph: &mut GraphProto) {
    for node in &mut graph.node {
        for body in bodies_mut(node) {
            drop_unused_initializers(body);
        }
    }
    let links = Links::of(graph);
    graph
        .initializer
        .retain(|tensor| links.consumers.contains_key(tensor.name()) || links.outputs.contains(tensor.name()));
}

/// The attribute of this name.
pub fn attribute<'a>(node: &'a NodeProto, name: &str) -> Option<&'a AttributeProto> {
    node.attribute.iter().find(|attribute| attribute.name() == name)
}

/// An integer attribute, or its default.
pub fn int_attribute(node: &NodeProto, name: &str, default: i64) -> i64 {
    attribute(node, name).map_or(default, AttributeProto::i)
}

/// A float attribute, or its default.
pub fn float_attribute(node: &NodeProto, name: &str, default: f32) -> f32 {
    attribute(node, name).map_or(default, AttributeProto::f)
}

/// A list of integers; empty when the attribute is absent.
pub fn ints_attribute<'a>(node: &'a NodeProto, name: &str) -> &'a [i64] {
    attribute(node, name).map_or(&[], |attribute| &attribute.ints)
}

/// The graph that holds the node at `path`; `None` when the path does not fit the model.
pub fn graph_at<'a>(model: &'a ModelProto, bodies: &[(usize, String)]) -> Option<&'a GraphProto> {
    let mut graph = model.graph.as_ref()?;
    for (node, attribute_name) in bodies {
        graph = attribute(graph.node.get(*node)?, attribute_name)?.g.as_ref()?;
    }
    Some(graph)
}

/// The graph that holds the node at `path`, to change it.
pub fn graph_at_mut<'a>(model: &'a mut ModelProto, bodies: &[(usize, String)]) -> Option<&'a mut GraphProto> {
    let mut graph = model.graph.as_mut()?;
    for (node, name) in bodies {
        let node = graph.node.get_mut(*node)?;
        graph = node.attribute.iter_mut().find(|attribute| attribute.name() == name)?.g.as_mut()?;
    }
    Some(graph)
}

/// The node at `path`.
pub fn node_at<'a>(model: &'a ModelProto, path: &NodePath) -> Option<&'a NodeProto> {
    graph_at(model, &path.bodies)?.node.get(path.node)
}

/// The initializer `name` as seen from the graph at `bodies`: its own first, then those around it.
pub fn initializer<'a>(
    model: &'a ModelProto,
    bodies: &[(usize, String)],
    name: &str,
) -> Option<(&'a TensorProto, usize)> {
    (0..=bodies.len()).rev().find_map(|depth| {
        let graph = graph_at(model, &bodies[..depth])?;
        graph.initializer.iter().find(|tensor| tensor.name() == name).map(|tensor| (tensor, depth))
    })
}
