//! The prepared copy of a graph: the same function, with every weight an initializer of its own that a layer reads directly.
//!
//! Constants become initializers; Identity, Reshape, Transpose and the like of an initializer are computed; a
//! BatchNormalization, or a constant Add or Mul, right after a convolution goes into its weights. Quantization needs it:
//! behind a DequantizeLinear the runtime can no longer merge them, and the convolution would leave its integer kernel.

use std::collections::{HashMap, HashSet};

use crate::limits;
use crate::model::graph::{bodies_mut, drop_unused_initializers};
use crate::model::movement::{self, Source};
use crate::model::{fold_conv, mean_pool};
use crate::onnx::proto::{GraphProto, ModelProto, TensorProto};
use crate::onnx::{OnnxError, OnnxFile};
use crate::operators::is_default_domain;

/// The prepared copy of the file's model.
pub fn prepare(file: &OnnxFile) -> Result<ModelProto, OnnxError> {
    let mut model = file.proto.clone();
    if let Some(graph) = model.graph.as_mut() {
        let weights: HashSet<String> = graph.initializer.iter().map(|tensor| tensor.name().to_owned()).collect();
        // Old files list every weight as an input too, which makes it replaceable and so never constant to the runtime.
        graph.input.retain(|port| !weights.contains(port.name()));
        let mut names = HashSet::new();
        all_names(graph, &mut names);
        let mut preparation = Preparation { file, names, scopes: Vec::new() };
        preparation.graph(graph)?;
        drop_unused_initializers(graph);
    }
    // From version 4 on initializers need not be inputs.
    model.ir_version = Some(model.ir_version().max(4));
    Ok(model)
}

struct Preparation<'f> {
    file: &'f OnnxFile,
    /// Every name in the model: a computed tensor may move to a graph around the one that computed it.
    names: HashSet<String>,
    /// Constants of the graphs around the present one and of itself, from the main graph inwards.
    scopes: Vec<Scope>,
}

/// Constants of one graph.
#[derive(Default)]
struct Scope {
    constants: HashMap<String, TensorProto>,
    /// Computed tensors, in the order they were made.
    computed: Vec<TensorProto>,
    /// Computed tensors by what they hold: two branches that move the same weight in the same way share the result.
    by_content: HashMap<(Vec<i64>, bytes::Bytes), String>,
}

impl Preparation<'_> {
    fn graph(&mut self, graph: &mut GraphProto) -> Result<(), OnnxError> {
        if self.scopes.len() > limits::MAX_SUBGRAPH_DEPTH {
            return Ok(());
        }
        constants_to_initializers(graph);
        let constants = graph.initializer.iter().map(|tensor| (tensor.name().to_owned(), tensor.clone())).collect();
        self.scopes.push(Scope { constants, ..Scope::default() });
        self.compute(graph)?;
        for node in &mut graph.node {
            for body in bodies_mut(node) {
                self.graph(body)?;
            }
        }
        if let Some(scope) = self.scopes.pop() {
            graph.initializer.extend(scope.computed);
        }
        fold_conv::fold(graph, self.file)?;
        mean_pool::rewrite(graph, self.file)
    }

    /// Computes nodes that only move weights about. The result goes to the graph that holds the weight.
    fn compute(&mut self, graph: &mut GraphProto) -> Result<(), OnnxError> {
        let outputs: HashSet<String> = graph.output.iter().map(|port| port.name().to_owned()).collect();
        let mut renamed: HashMap<String, String> = HashMap::new();
        for mut node in std::mem::take(&mut graph.node) {
            rename_inputs(&mut node, &renamed);
            let result = match node.output.as_slice() {
                [output] if !outputs.contains(output) => {
                    let scopes = &self.scopes;
                    let find = |name: &str| {
                        let found = scopes
                            .iter()
                            .enumerate()
                            .rev()
                            .find_map(|(depth, scope)| scope.constants.get(name).map(|tensor| (tensor, depth)));
                        found.map(|(tensor, depth)| Source { tensor, depth })
                    };
                    movement::compute(&node, &find, self.file)?.map(|moved| (output.clone(), moved))
                }
                _ => None,
            };
            match result {
                Some((output, (tensor, depth))) => {
                    let name = self.keep(tensor, depth, &output);
                    if name != output {
                        renamed.insert(output, name);
                    }
                }
                None => graph.node.push(node),
            }
        }
        Ok(())
    }

    /// Keeps a computed tensor in the graph at `depth`, under `wanted` where that name is free there; returns its name.
    fn keep(&mut self, mut tensor: TensorProto, depth: usize, wanted: &str) -> String {
        let is_own = depth + 1 == self.scopes.len();
        let key = (tensor.dims.clone(), tensor.raw_data.clone().unwrap_or_default());
        let shareable = !is_own && !key.1.is_empty();
        let Some(scope) = self.scopes.get_mut(depth) else { return wanted.to_owned() };
        if shareable && let Some(known) = scope.by_content.get(&key) {
            return known.clone();
        }
        let mut name = wanted.to_owned();
        while !is_own && !self.names.insert(name.clone()) {
            name.push('_');
        }
        tensor.name = Some(name.clone());
        if shareable {
            scope.by_content.insert(key, name.clone());
        }
        scope.constants.insert(name.clone(), tensor.clone());
        scope.computed.push(tensor);
        name
    }
}

/// Lets `node`, and what it holds in bodies, read tensors under their new names.
fn rename_inputs(node: &mut crate::onnx::proto::NodeProto, renamed: &HashMap<String, String>) {
    if renamed.is_empty() {
        return;
    }
    for input in &mut node.input {
        if let Some(name) = renamed.get(input) {
            input.clone_from(name);
        }
    }
    for body in bodies_mut(node) {
        // A body's own names never repeat those around it, so that a plain search is right.
        for inner in &mut body.node {
            rename_inputs(inner, renamed);
        }
    }
}

fn all_names(graph: &GraphProto, names: &mut HashSet<String>) {
    names.extend(graph.initializer.iter().map(|tensor| tensor.name().to_owned()));
    names.extend(graph.input.iter().map(|port| port.name().to_owned()));
    for node in &graph.node {
        names.extend(node.output.iter().cloned());
        for body in crate::model::graph::bodies(node) {
            all_names(body, names);
        }
    }
}

/// Turns `Constant` nodes that hold a tensor into initializers of the same name.
fn constants_to_initializers(graph: &mut GraphProto) {
    let mut made = Vec::new();
    graph.node.retain(|node| {
        if node.op_type() != "Constant" || !is_default_domain(node.domain()) {
            return true;
        }
        let value = node.attribute.iter().find(|attribute| attribute.name() == "value");
        let (Some(tensor), Some(output)) = (value.and_then(|attribute| attribute.t.as_ref()), node.output.first())
        else {
            return true;
        };
        let mut tensor = tensor.clone();
        tensor.name = Some(output.clone());
        made.push(tensor);
        false
    });
    graph.initializer.append(&mut made);
}
