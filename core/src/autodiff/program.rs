//! Which nodes a gradient has to go back through, and where it cannot.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::LazyLock;

use super::call::{Data, Rule, Value};
use super::rules::{self, Kind};
use crate::Error;
use crate::model::Model;
use crate::model::graph::{Links, bodies, int_attribute};
use crate::onnx::OnnxFile;
use crate::onnx::proto::{GraphProto, NodeProto, ValueInfoProto, tensor_proto::DataType};

/// A node that gradients cannot pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// Index of the node in the main graph.
    pub node: usize,
    /// Its operator.
    pub op: String,
    /// Why.
    pub why: String,
}

/// One node on the way back.
pub(super) struct Step<'m> {
    pub(super) at: usize,
    pub(super) node: &'m NodeProto,
    pub(super) rule: Rule,
    pub(super) wants: Vec<bool>,
}

/// The way back from one output of a model's main graph to chosen tensors and weights.
pub struct Program<'m> {
    pub(super) steps: Vec<Step<'m>>,
    pub(super) constants: HashMap<&'m str, Value<'m>>,
    pub(super) opset: i64,
    /// Name of the output; the first of the tensors that the way starts from.
    pub output: String,
    pub(super) ends: Vec<String>,
    /// Nodes that gradients cannot pass.
    pub blocked: Vec<Blocked>,
    incomplete: HashSet<&'m str>,
    reached: HashSet<&'m str>,
    passable: HashSet<&'m str>,
}

impl<'m> Program<'m> {
    /// The way from `output` to `sources`: activations, model inputs or initializers, by name. `refused` are nodes (by
    /// index) that a first attempt could not go through, with the reason.
    pub fn new(
        model: &'m Model,
        output: &str,
        sources: &BTreeSet<String>,
        refused: &BTreeMap<usize, String>,
    ) -> Result<Self, Error> {
        static EMPTY: LazyLock<GraphProto> = LazyLock::new(GraphProto::default);
        let graph = model.graph.graph.as_ref().unwrap_or(&EMPTY);
        Self::of_graph(graph, &model.file, model.opset, &[output.to_owned()], sources, refused)
    }

    /// The way from the tensors `ends` of `graph`, whose constants `file` can read, to `sources`.
    pub fn of_graph(
        graph: &'m GraphProto,
        file: &'m OnnxFile,
        opset: i64,
        ends: &[String],
        sources: &BTreeSet<String>,
        refused: &BTreeMap<usize, String>,
    ) -> Result<Self, Error> {
        let mut program = Self {
            steps: Vec::new(),
            constants: HashMap::new(),
            opset,
            output: ends.first().cloned().unwrap_or_default(),
            ends: ends.to_vec(),
            blocked: Vec::new(),
            incomplete: HashSet::new(),
            reached: HashSet::new(),
            passable: HashSet::new(),
        };
        let mut active: HashSet<&'m str> = HashSet::new();
        let initializers: HashMap<&'m str, _> =
            graph.initializer.iter().map(|tensor| (tensor.name(), tensor)).collect();
        let inputs = graph.input.iter().map(ValueInfoProto::name);
        active.extend(inputs.chain(initializers.keys().copied()).filter(|name| sources.contains(*name)));

        // Forward: what depends on a source.
        let mut wants: Vec<Vec<bool>> = Vec::with_capacity(graph.node.len());
        for node in &graph.node {
            let mut wanted: Vec<bool> = node.input.iter().map(|name| active.contains(name.as_str())).collect();
            let through_body = bodies(node).any(|body| reads_any(body, &active));
            if through_body && !wanted.contains(&true) {
                wanted.push(true);
            }
            let flat = matches!(rules::kind(node), Kind::Flat) || casts_to_integer(node);
            let depends = wanted.contains(&true) && !flat;
            for name in node.output.iter().filter(|name| !name.is_empty()) {
                if depends || sources.contains(name.as_str()) {
                    active.insert(name);
                }
            }
            wants.push(if depends { wanted } else { Vec::new() });
        }

        // Backward: what the output depends on, and what of it lies behind a node without a rule.
        let (mut reached, mut incomplete): (HashSet<&'m str>, HashSet<&'m str>) = (HashSet::new(), HashSet::new());
        let made = graph.node.iter().flat_map(|node| &node.output).map(String::as_str);
        reached.extend(graph.output.iter().map(ValueInfoProto::name).chain(made).filter(|name| is_end(ends, name)));
        let mut passable = reached.clone();
        for (at, (node, wants)) in graph.node.iter().zip(wants).enumerate().rev() {
            let meets = |set: &HashSet<&str>| node.output.iter().any(|name| set.contains(name.as_str()));
            if wants.is_empty() || !meets(&reached) {
                continue;
            }
            let rule = match (rules::kind(node), refused.get(&at)) {
                (_, Some(why)) => Err(why.clone()),
                (Kind::Rule(rule), None) => Ok(rule),
                _ => Err("it has no backward here".to_owned()),
            };
            let spoilt = rule.is_err() || meets(&incomplete);
            for (name, _) in node.input.iter().zip(&wants).filter(|(_, wanted)| **wanted) {
                reached.insert(name);
                if spoilt {
                    incomplete.insert(name);
                }
            }
            if rule.is_err() {
                // Bodies read tensors of the graphs around them without naming them as inputs.
                let outer: Vec<&'m str> = active.iter().copied().filter(|name| body_reads(node, name)).collect();
                reached.extend(outer.iter().copied());
                incomplete.extend(outer);
            }
            if rule.is_ok() && meets(&passable) {
                let wanted = node.input.iter().zip(&wants).filter(|(_, wanted)| **wanted);
                passable.extend(wanted.map(|(name, _)| name.as_str()));
            }
            match rule {
                Ok(rule) => program.steps.push(Step { at, node, rule, wants }),
                Err(why) => program.blocked.push(Blocked { node: at, op: node.op_type().to_owned(), why }),
            }
        }
        program.reached = reached;
        program.passable = passable;
        program.incomplete = incomplete;
        for name in program.steps.iter().flat_map(|step| &step.node.input) {
            if let Some((&name, tensor)) = initializers.get_key_value(name.as_str()) {
                let shape = tensor.dims.iter().map(|&dim| usize::try_from(dim).unwrap_or(0)).collect();
                let value = if tensor.data_type() == DataType::Float as i32 {
                    Value { shape, data: Data::F32(file.read_f32(tensor)?) }
                } else {
                    Value::from_tensor(file.read(tensor)?)
                };
                program.constants.insert(name, value);
            }
        }
        Ok(program)
    }

    /// Whether the output depends on `tensor` and every way to it has a backward.
    pub fn is_complete(&self, tensor: &str) -> bool {
        self.reached.contains(tensor) && !self.incomplete.contains(tensor)
    }

    /// Whether some way leads from `tensor` to one of the ends through operators that all have a backward.
    pub fn has_way(&self, tensor: &str) -> bool {
        self.passable.contains(tensor)
    }

    /// Multiplications that going back once over a sample with these values takes, roughly.
    pub fn multiplications(&self, values: &super::Values) -> f64 {
        let size = |name: &String| {
            let constant = self.constants.get(name.as_str());
            constant.or_else(|| values.get(name).map(|value| value as &Value<'_>))
        };
        let each = self.steps.iter().map(|step| {
            let outputs = step.node.output.first().and_then(size).map_or(0, Value::len) as f64;
            let depth = match step.node.op_type() {
                "Conv" => step.node.input.get(1).and_then(size).map(|w| w.shape.iter().skip(1).product::<usize>()),
                "MatMul" | "Gemm" => step.node.input.first().and_then(size).and_then(|a| a.shape.last().copied()),
                "ConvTranspose" => step.node.input.get(1).and_then(size).and_then(|w| w.shape.first().copied()),
                _ => None,
            };
            let wanted = step.wants.iter().filter(|wanted| **wanted).count() as f64;
            outputs * wanted * depth.map_or(2.0, |depth| depth as f64)
        });
        each.sum()
    }

    /// Tensors whose values a run has to show.
    pub fn taps(&self) -> Vec<String> {
        let mut taps: BTreeSet<String> = self.ends.iter().cloned().collect();
        for step in &self.steps {
            taps.extend(step.node.input.iter().chain(&step.node.output).cloned());
        }
        taps.remove("");
        taps.retain(|name| !self.constants.contains_key(name.as_str()));
        taps.into_iter().collect()
    }
}

fn is_end(ends: &[String], name: &str) -> bool {
    ends.iter().any(|end| end == name)
}

fn casts_to_integer(node: &NodeProto) -> bool {
    const FLOATS: [DataType; 4] = [DataType::Float, DataType::Double, DataType::Float16, DataType::Bfloat16];
    node.op_type() == "Cast" && !FLOATS.iter().any(|&float| int_attribute(node, "to", 0) == float as i64)
}

fn reads_any(body: &GraphProto, names: &HashSet<&str>) -> bool {
    let links = Links::of(body);
    links.consumers.keys().any(|name| names.contains(name.as_str()))
        || body.output.iter().any(|port| names.contains(port.name()))
}

fn body_reads(node: &NodeProto, name: &str) -> bool {
    let only = HashSet::from([name]);
    bodies(node).any(|body| reads_any(body, &only))
}
