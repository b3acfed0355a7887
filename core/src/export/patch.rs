//! Changes to a model, collected first and applied at once, so that node indices stay those of the prepared graph.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::model::graph;
use crate::onnx::proto::{GraphProto, ModelProto, NodeProto, TensorProto, tensor_proto::DataType};

/// Which graph: empty for the main one, else the way into a body (see `NodePath::bodies`).
pub type Bodies = Vec<(usize, String)>;

/// Changes to all graphs of a model.
pub struct Patch {
    graphs: BTreeMap<Bodies, GraphPatch>,
    names: HashSet<String>,
    /// Tensors made already, by what they hold: a weight shared by several layers is written once.
    made: HashMap<(Bodies, String), Vec<String>>,
    /// Whether a 4-bit tensor type was written.
    pub uses_int4: bool,
}

/// Changes to one graph.
#[derive(Default)]
pub struct GraphPatch {
    front: Vec<NodeProto>,
    after: BTreeMap<usize, Vec<NodeProto>>,
    replaced: BTreeMap<usize, Vec<NodeProto>>,
    inputs: BTreeMap<(usize, usize), String>,
    outputs: BTreeMap<(usize, String), String>,
    initializers: Vec<TensorProto>,
}

impl GraphPatch {
    /// Adds a node before all others (it may read initializers and inputs only).
    pub fn push_front(&mut self, node: NodeProto) {
        self.front.push(node);
    }

    /// Adds a node after node `index`, behind those added there before.
    pub fn push_after(&mut self, index: usize, node: NodeProto) {
        self.after.entry(index).or_default().push(node);
    }

    /// Adds a node right after node `index`, before all others added there.
    pub fn insert_after_first(&mut self, index: usize, node: NodeProto) {
        self.after.entry(index).or_default().insert(0, node);
    }

    /// Puts these nodes in the place of node `index`; an empty list removes it.
    pub fn replace(&mut self, index: usize, nodes: Vec<NodeProto>) {
        self.replaced.insert(index, nodes);
    }

    /// Lets input `input` of node `index` read another tensor.
    pub fn set_input(&mut self, index: usize, input: usize, tensor: &str) {
        self.inputs.insert((index, input), tensor.to_owned());
    }

    /// Renames an output of node `index` (or of what replaces it).
    pub fn rename_output(&mut self, index: usize, from: &str, to: &str) {
        self.outputs.insert((index, from.to_owned()), to.to_owned());
    }

    /// The name of an int8 initializer with these dimensions and values that has been added already.
    pub fn int8_matrix(&self, dims: &[i64], values: &[i8]) -> Option<String> {
        let is_same = |tensor: &&TensorProto| {
            tensor.dims == dims
                && tensor.data_type() == DataType::Int8 as i32
                && tensor.raw_data.as_deref().is_some_and(|bytes| bytes == bytemuck::cast_slice::<i8, u8>(values))
        };
        self.initializers.iter().find(is_same).map(|tensor| tensor.name().to_owned())
    }

    /// Adds an initializer.
    pub fn push_initializer(&mut self, tensor: TensorProto) {
        self.initializers.push(tensor);
    }

    fn apply(mut self, graph: &mut GraphProto) {
        let mut nodes = std::mem::take(&mut self.front);
        for (index, node) in std::mem::take(&mut graph.node).into_iter().enumerate() {
            let mut here = self.replaced.remove(&index).unwrap_or_else(|| vec![node]);
            for ((_, input), tensor) in self.inputs.range((index, 0)..(index + 1, 0)) {
                if let Some(slot) = here.first_mut().and_then(|node| node.input.get_mut(*input)) {
                    slot.clone_from(tensor);
                }
            }
            for ((_, from), to) in self.outputs.range((index, String::new())..(index + 1, String::new())) {
                for output in here.iter_mut().flat_map(|node| &mut node.output).filter(|output| *output == from) {
                    output.clone_from(to);
                }
            }
            nodes.append(&mut here);
            nodes.append(&mut self.after.remove(&index).unwrap_or_default());
        }
        graph.node = nodes;
        graph.initializer.append(&mut self.initializers);
    }
}

impl Patch {
    /// An empty patch for `model`.
    pub fn new(model: &ModelProto) -> Self {
        let mut names = HashSet::new();
        let mut open: Vec<&GraphProto> = model.graph.iter().collect();
        while let Some(graph) = open.pop() {
            names.extend(graph.initializer.iter().map(|tensor| tensor.name().to_owned()));
            names.extend(graph.input.iter().map(|port| port.name().to_owned()));
            for node in &graph.node {
                names.insert(node.name().to_owned());
                names.extend(node.output.iter().cloned());
                open.extend(graph::bodies(node));
            }
        }
        Self { graphs: BTreeMap::new(), names, made: HashMap::new(), uses_int4: false }
    }

    /// The changes to one graph.
    pub fn graph(&mut self, bodies: &[(usize, String)]) -> &mut GraphPatch {
        self.graphs.entry(bodies.to_vec()).or_default()
    }

    /// A name that nothing else in the model has, close to `wanted`. Of a long one the end stays: exporters write paths of
    /// a hundred characters, and a dozen names a layer would outweigh the weights of a small one.
    pub fn fresh(&mut self, wanted: &str) -> String {
        const LONGEST: usize = 48;
        let skipped = wanted.chars().count().saturating_sub(LONGEST);
        // Control characters in a name are legal and break every text that lists names.
        let plain = |c: char| if c.is_control() { '_' } else { c };
        let wanted: String = wanted.chars().skip(skipped).map(plain).collect();
        let mut name = wanted.clone();
        let mut count = 1;
        while !self.names.insert(name.clone()) {
            name = format!("{wanted}_{count}");
            count += 1;
        }
        name
    }

    /// The tensors made before in this graph under `key`.
    pub fn made(&self, bodies: &[(usize, String)], key: &str) -> Option<Vec<String>> {
        self.made.get(&(bodies.to_vec(), key.to_owned())).cloned()
    }

    /// Remembers tensors under `key`.
    pub fn remember(&mut self, bodies: &[(usize, String)], key: &str, tensors: &[String]) {
        self.made.insert((bodies.to_vec(), key.to_owned()), tensors.to_vec());
    }

    /// Applies everything to `model` and drops initializers that nothing reads any more.
    pub fn apply(self, model: &mut ModelProto) {
        let mut graphs: Vec<_> = self.graphs.into_iter().collect();
        // Inner graphs first: the way to them is by node indices of the graphs around.
        graphs.sort_by_key(|(bodies, _)| std::cmp::Reverse(bodies.len()));
        for (bodies, patch) in graphs {
            if let Some(graph) = graph::graph_at_mut(model, &bodies) {
                patch.apply(graph);
            }
        }
        if let Some(graph) = model.graph.as_mut() {
            graph::drop_unused_initializers(graph);
        }
    }
}
