//! Puts the nodes of model-local functions where they are called, as the runtime does before anything else: only then do
//! the layers in them have weights.
//!
//! A call is left alone where its function speaks of other versions of the operators than the model does, or where
//! functions call one another in a circle; the runtime says what it thinks of that.

use std::collections::{HashMap, HashSet};

use crate::limits;
use crate::model::graph::{all_names, bodies, bodies_mut};
use crate::onnx::build;
use crate::onnx::proto::{AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto};
use crate::operators::is_default_domain;

/// A function's domain, name and overload.
type Key = (String, String, String);

/// Inlines every call in the main graph and the bodies in it; functions that nothing calls any more are dropped.
pub fn functions(model: &mut ModelProto) {
    if model.functions.is_empty() {
        return;
    }
    let mut versions: HashMap<String, i64> = HashMap::new();
    for import in &model.opset_import {
        versions.insert(domain(import.domain()), import.version());
    }
    // What a function's nodes come from may be stated in the function alone.
    for function in &model.functions {
        for import in &function.opset_import {
            versions.entry(domain(import.domain())).or_insert_with(|| {
                model.opset_import.push(import.clone());
                import.version()
            });
        }
    }
    let agrees = |function: &&FunctionProto| {
        let mut imports = function.opset_import.iter();
        imports.all(|import| versions.get(&domain(import.domain())) == Some(&import.version()))
    };
    let mut functions: HashMap<Key, FunctionProto> =
        model.functions.iter().filter(agrees).map(|function| (key_of(function), function.clone())).collect();
    keep_finite(&mut functions);
    let Some(graph) = model.graph.as_mut() else { return };
    let mut names = HashSet::new();
    all_names(graph, &mut names);
    let mut inlining = Inlining { functions, names, left: limits::MAX_INLINED_NODES };
    inlining.graph(graph, 0);
    let mut called = HashSet::new();
    calls(graph, &mut called);
    for function in &model.functions {
        for node in &function.node {
            calls_of(node, &mut called);
        }
    }
    model.functions.retain(|function| called.contains(&key_of(function)));
}

/// Drops functions whose calls never end: those that call themselves, through others too, and those that call such.
fn keep_finite(functions: &mut HashMap<Key, FunctionProto>) {
    let mut finite: HashSet<Key> = HashSet::new();
    loop {
        let ends = |function: &FunctionProto| {
            let mut called = HashSet::new();
            for node in &function.node {
                calls_of(node, &mut called);
            }
            called.iter().all(|key| !functions.contains_key(key) || finite.contains(key))
        };
        let more: Vec<Key> = functions
            .iter()
            .filter(|(key, function)| !finite.contains(*key) && ends(function))
            .map(|(key, _)| key.clone())
            .collect();
        if more.is_empty() {
            break;
        }
        finite.extend(more);
    }
    functions.retain(|key, _| finite.contains(key));
}

/// The default domain has two names.
fn domain(name: &str) -> String {
    if is_default_domain(name) { String::new() } else { name.to_owned() }
}

fn key_of(function: &FunctionProto) -> Key {
    (domain(function.domain()), function.name().to_owned(), function.overload().to_owned())
}

fn key_called(node: &NodeProto) -> Key {
    (domain(node.domain()), node.op_type().to_owned(), node.overload().to_owned())
}

fn calls(graph: &GraphProto, called: &mut HashSet<Key>) {
    for node in &graph.node {
        calls_of(node, called);
    }
}

fn calls_of(node: &NodeProto, called: &mut HashSet<Key>) {
    called.insert(key_called(node));
    for body in bodies(node) {
        calls(body, called);
    }
}

struct Inlining {
    functions: HashMap<Key, FunctionProto>,
    /// Every name of a tensor in the model.
    names: HashSet<String>,
    /// Nodes that may still be made.
    left: usize,
}

impl Inlining {
    fn graph(&mut self, graph: &mut GraphProto, depth: usize) {
        if depth > limits::MAX_SUBGRAPH_DEPTH {
            return;
        }
        let nodes = std::mem::take(&mut graph.node);
        graph.node = self.nodes(nodes, depth);
    }

    fn nodes(&mut self, nodes: Vec<NodeProto>, depth: usize) -> Vec<NodeProto> {
        let mut out = Vec::with_capacity(nodes.len());
        for (at, mut node) in nodes.into_iter().enumerate() {
            for body in bodies_mut(&mut node) {
                self.graph(body, depth + 1);
            }
            let function = self.functions.get(&key_called(&node)).cloned();
            match function.filter(|function| depth < limits::MAX_SUBGRAPH_DEPTH && function.node.len() <= self.left) {
                Some(function) => {
                    self.left -= function.node.len();
                    let inner = self.body(&node, &function, at);
                    out.append(&mut self.nodes(inner, depth + 1));
                }
                None => out.push(node),
            }
        }
        out
    }

    /// The nodes of `function` as `call`, the node at `at` of its graph, has them.
    fn body(&mut self, call: &NodeProto, function: &FunctionProto, at: usize) -> Vec<NodeProto> {
        let place = if call.name().is_empty() { format!("{}_{at}", call.op_type()) } else { call.name().to_owned() };
        let mut renamed: HashMap<String, String> = HashMap::new();
        for (i, formal) in function.input.iter().enumerate() {
            renamed.insert(formal.clone(), call.input.get(i).cloned().unwrap_or_default());
        }
        for (i, formal) in function.output.iter().enumerate() {
            // A function that hands an input through needs a node for it, which is made below.
            if let Some(actual) = call.output.get(i).filter(|name| !name.is_empty())
                && !renamed.contains_key(formal)
            {
                renamed.insert(formal.clone(), actual.clone());
            }
        }
        let mut nodes = function.node.clone();
        let mut made = HashSet::new();
        for node in &nodes {
            makes(node, &mut made);
        }
        let mut made: Vec<String> = made.into_iter().filter(|name| !renamed.contains_key(name)).collect();
        made.sort();
        for name in made {
            let mut wanted = format!("{place}/{name}");
            while !self.names.insert(wanted.clone()) {
                wanted.push('_');
            }
            renamed.insert(name, wanted);
        }
        for node in &mut nodes {
            if !node.name().is_empty() {
                node.name = Some(format!("{place}/{}", node.name()));
            }
            fill(node, call, function);
            rename(node, &renamed);
        }
        for (i, formal) in function.output.iter().enumerate() {
            if let (Some(actual), Some(known)) = (call.output.get(i), renamed.get(formal))
                && !actual.is_empty()
                && actual != known
            {
                nodes.push(build::node("Identity", "", "", &[known], &[actual], vec![]));
            }
        }
        nodes
    }
}

/// Adds the names of all tensors that a node makes, in its bodies too.
fn makes(node: &NodeProto, made: &mut HashSet<String>) {
    made.extend(node.output.iter().filter(|name| !name.is_empty()).cloned());
    for body in bodies(node) {
        all_names(body, made);
    }
}

/// Gives a node, and what it holds in bodies, other names of tensors. No name of a body repeats one around it.
fn rename(node: &mut NodeProto, renamed: &HashMap<String, String>) {
    let change = |name: &mut String| {
        if let Some(to) = renamed.get(name) {
            name.clone_from(to);
        }
    };
    node.input.iter_mut().chain(&mut node.output).for_each(change);
    for body in bodies_mut(node) {
        for port in body.input.iter_mut().chain(&mut body.output).chain(&mut body.value_info) {
            port.name.iter_mut().for_each(change);
        }
        body.initializer.iter_mut().flat_map(|tensor| &mut tensor.name).for_each(change);
        body.node.iter_mut().for_each(|inner| rename(inner, renamed));
    }
}

/// Gives the attributes that a function takes from its caller their values: the caller's, or the function's default, or
/// none at all, which leaves the operator its own.
fn fill(node: &mut NodeProto, call: &NodeProto, function: &FunctionProto) {
    node.attribute = std::mem::take(&mut node.attribute)
        .into_iter()
        .filter_map(|attribute| {
            let Some(wanted) = attribute.ref_attr_name.clone().filter(|name| !name.is_empty()) else {
                return Some(attribute);
            };
            let named = |given: &&AttributeProto| given.name() == wanted;
            let given = call.attribute.iter().find(named).or_else(|| function.attribute_proto.iter().find(named))?;
            Some(AttributeProto { name: attribute.name, ref_attr_name: None, ..given.clone() })
        })
        .collect();
    for body in bodies_mut(node) {
        body.node.iter_mut().for_each(|inner| fill(inner, call, function));
    }
}
