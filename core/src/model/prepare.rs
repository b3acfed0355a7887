//! The prepared copy of a graph: the same function, with every weight an initializer of its own that a layer reads directly.
//!
//! Constants become initializers; Identity, Reshape, Transpose and the like of an initializer are computed; a float weight
//! behind QuantizeLinear and DequantizeLinear becomes what it is rounded to, its scales kept (see `grid`); a
//! BatchNormalization, or a constant Add or Mul, right after a convolution goes into its weights. Quantization needs it:
//! behind a DequantizeLinear the runtime can no longer merge them, and the convolution would leave its integer kernel.

use std::collections::{HashMap, HashSet};

use crate::limits;
use crate::model::graph::{Links, all_names, bodies_mut, drop_unused_initializers};
use crate::model::grid::Spread;
use crate::model::movement::{self, Source};
use crate::model::rounded::{self, Rounding};
use crate::model::{einsum, fold_conv, inline, mean_pool};
use crate::onnx::proto::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto};
use crate::onnx::{OnnxError, OnnxFile, build};
use crate::operators::is_default_domain;
use crate::tensor::Values;

/// A prepared model, and the scales of the weights that brought some, by the weight's name.
pub struct Prepared {
    pub model: ModelProto,
    pub spreads: HashMap<String, Spread>,
}

/// The prepared copy of the file's model.
pub fn prepare(file: &OnnxFile) -> Result<Prepared, OnnxError> {
    let mut model = file.proto.clone();
    inline::functions(&mut model);
    let mut spreads = HashMap::new();
    if let Some(graph) = model.graph.as_mut() {
        let weights: HashSet<String> = graph.initializer.iter().map(|tensor| tensor.name().to_owned()).collect();
        // Old files list every weight as an input too, which makes it replaceable and so never constant to the runtime.
        graph.input.retain(|port| !weights.contains(port.name()));
        let mut names = HashSet::new();
        all_names(graph, &mut names);
        let mut preparation = Preparation { file, names, scopes: Vec::new(), spreads: HashMap::new() };
        preparation.graph(graph)?;
        drop_unused_initializers(graph);
        spreads = preparation.spreads;
    }
    // From version 4 on initializers need not be inputs.
    model.ir_version = Some(model.ir_version().max(4));
    Ok(Prepared { model, spreads })
}

struct Preparation<'f> {
    file: &'f OnnxFile,
    /// Every name in the model: a computed tensor may move to a graph around the one that computed it.
    names: HashSet<String>,
    /// Constants of the graphs around the present one and of itself, from the main graph inwards.
    scopes: Vec<Scope>,
    /// Scales of rounded weights, by name.
    spreads: HashMap<String, Spread>,
}

/// What becomes of a node that works on constants.
enum Computed {
    /// It stays.
    Stays,
    /// It stays until what reads it is computed.
    Rounds(Box<Rounding>),
    /// Its result takes its place.
    Constant { tensor: Box<TensorProto>, depth: usize, spread: Option<Box<Spread>> },
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
        self.products(graph);
        self.compute(graph)?;
        for node in &mut graph.node {
            for body in bodies_mut(node) {
                self.graph(body)?;
            }
        }
        if let Some(scope) = self.scopes.pop() {
            graph.initializer.extend(scope.computed);
        }
        fold_conv::fold(graph, &mut self.spreads, self.file)?;
        mean_pool::rewrite(graph, self.file)
    }

    /// Writes products as MatMul, before what moves their weights is computed.
    fn products(&mut self, graph: &mut GraphProto) {
        let (mut names, own) = (std::mem::take(&mut self.names), graph.initializer.len());
        einsum::rewrite(graph, &mut names, &|name| self.find(name).map(|source| source.tensor));
        self.names = names;
        let shapes = graph.initializer.iter().skip(own).map(|tensor| (tensor.name().to_owned(), tensor.clone()));
        if let Some(scope) = self.scopes.last_mut() {
            scope.constants.extend(shapes);
        }
    }

    /// Computes nodes that only move or round weights. The result goes to the graph that holds the weight.
    fn compute(&mut self, graph: &mut GraphProto) -> Result<(), OnnxError> {
        let outputs: HashSet<String> = graph.output.iter().map(|port| port.name().to_owned()).collect();
        let mut renamed: HashMap<String, String> = HashMap::new();
        let mut roundings: HashMap<String, Rounding> = HashMap::new();
        for mut node in std::mem::take(&mut graph.node) {
            rename_inputs(&mut node, &renamed);
            let output = match node.output.as_slice() {
                [output] if !outputs.contains(output) => output.clone(),
                _ => {
                    graph.node.push(node);
                    continue;
                }
            };
            match self.computed(&node, &roundings)? {
                Computed::Stays => graph.node.push(node),
                Computed::Rounds(rounding) => {
                    roundings.insert(output, *rounding);
                    graph.node.push(node);
                }
                Computed::Constant { tensor, depth, spread } => {
                    let name = self.keep(*tensor, depth, &output);
                    if let Some(spread) = spread {
                        self.spreads.insert(name.clone(), *spread);
                    }
                    if name != output {
                        renamed.insert(output, name);
                    }
                }
            }
        }
        self.fold_biases(graph)?;
        drop_unread(graph, |node| node.output.first().is_some_and(|output| roundings.contains_key(output)));
        Ok(())
    }

    fn computed(&self, node: &NodeProto, roundings: &HashMap<String, Rounding>) -> Result<Computed, OnnxError> {
        let file = self.file;
        let find = |name: &str| self.find(name);
        if let Some(rounding) = rounded::quantize(node, &find, file)? {
            return Ok(Computed::Rounds(Box::new(rounding)));
        }
        if let Some(rounding) = node.input.first().and_then(|name| roundings.get(name)) {
            if let Some(rounding) = rounded::clip(node, rounding, &find, file)? {
                return Ok(Computed::Rounds(Box::new(rounding)));
            }
            if let Some((tensor, spread, depth)) = rounded::dequantize(node, rounding, &find, file)? {
                return Ok(Computed::Constant { tensor: Box::new(tensor), depth, spread: Some(Box::new(spread)) });
            }
        }
        let Some((tensor, depth)) = movement::compute(node, &find, file)? else { return Ok(Computed::Stays) };
        // The scales move as the weights do; shapes and axes stay what they are.
        let moved = |part: fn(&Spread) -> &TensorProto| {
            let find = |name: &str| match self.spreads.get(name) {
                Some(spread) => Some(Source { tensor: part(spread), depth: 0 }),
                None => self.find(name).filter(|source| !is_f32(source.tensor)),
            };
            movement::compute(node, &find, file).map(|moved| moved.map(|(tensor, _)| tensor))
        };
        let known = node.input.first().and_then(|name| self.spreads.get(name));
        let spread = match known {
            Some(known) => moved(|spread| &spread.scale)?
                .zip(moved(|spread| &spread.zero_point)?)
                .map(|(scale, zero_point)| Box::new(Spread { scale, zero_point, precision: known.precision })),
            None => None,
        };
        Ok(Computed::Constant { tensor: Box::new(tensor), depth, spread })
    }

    /// A constant of the present graph or one around it.
    fn find(&self, name: &str) -> Option<Source<'_>> {
        let mut scopes = self.scopes.iter().enumerate().rev();
        scopes.find_map(|(depth, scope)| scope.constants.get(name).map(|tensor| Source { tensor, depth }))
    }

    /// Turns int32 biases of layers with rounded weights into floats: they are quantized with the weights.
    fn fold_biases(&mut self, graph: &mut GraphProto) -> Result<(), OnnxError> {
        if self.spreads.is_empty() {
            return Ok(());
        }
        let links = Links::of(graph);
        let mut removed = HashSet::new();
        for at in 0..graph.node.len() {
            let Some(node) = graph.node.get(at).filter(|node| rounded::is(node, "DequantizeLinear")) else { continue };
            let Some(output) = node.output.first().filter(|output| !links.outputs.contains(*output)).cloned() else {
                continue;
            };
            let readers = links.readers(&output);
            let biases = readers.iter().filter_map(|&reader| graph.node.get(reader)).all(|reader| {
                matches!(reader.op_type(), "Conv" | "ConvTranspose" | "Gemm")
                    && reader.input.get(2) == Some(&output)
                    && reader.input.get(1).is_some_and(|weight| self.spreads.contains_key(weight))
            });
            if readers.is_empty() || !biases {
                continue;
            }
            let Some((tensor, depth)) = self.bias(node)? else { continue };
            if self.keep(tensor, depth, &output) == output {
                removed.insert(at);
            }
        }
        let mut at = 0;
        graph.node.retain(|_| {
            at += 1;
            !removed.contains(&(at - 1))
        });
        Ok(())
    }

    /// The values of an int32 constant behind DequantizeLinear; `None` when the node is something else.
    fn bias(&self, node: &NodeProto) -> Result<Option<(TensorProto, usize)>, OnnxError> {
        let constant = |position: usize| node.input.get(position).and_then(|name| self.find(name));
        let (Some(source), Some(scale)) = (constant(0), constant(1)) else { return Ok(None) };
        let Values::I32(integers) = self.file.read(source.tensor)?.values else { return Ok(None) };
        let scales = self.file.read_f32(scale.tensor)?;
        let zero = match constant(2) {
            Some(zero_point) => {
                matches!(self.file.read(zero_point.tensor)?.values, Values::I32(v) if v.iter().all(|&v| v == 0))
            }
            None => node.input.get(2).is_none_or(String::is_empty),
        };
        if !zero || source.tensor.dims.len() != 1 || (scales.len() != 1 && scales.len() != integers.len()) {
            return Ok(None);
        }
        let value =
            |(at, &q): (usize, &i32)| q as f32 * scales.get(if scales.len() == 1 { 0 } else { at }).unwrap_or(&0.0);
        let values: Vec<f32> = integers.iter().enumerate().map(value).collect();
        Ok(Some((build::tensor_f32("", &source.tensor.dims, &values), source.depth)))
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

fn is_f32(tensor: &TensorProto) -> bool {
    tensor.data_type() == crate::onnx::proto::tensor_proto::DataType::Float as i32
}

/// Drops nodes that `may_go` and whose result nothing reads, until there are none.
pub fn drop_unread(graph: &mut GraphProto, may_go: impl Fn(&NodeProto) -> bool) {
    if !graph.node.iter().any(&may_go) {
        return;
    }
    loop {
        let links = Links::of(graph);
        let before = graph.node.len();
        graph.node.retain(|node| {
            let is_read = |output: &String| !links.readers(output).is_empty() || links.outputs.contains(output);
            !may_go(node) || node.output.iter().any(is_read)
        });
        if graph.node.len() == before {
            return;
        }
    }
}

/// Lets `node`, and what it holds in bodies, read tensors under their new names.
fn rename_inputs(node: &mut NodeProto, renamed: &HashMap<String, String>) {
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

/// Turns `Constant` nodes that hold a tensor into initializers of the same name.
fn constants_to_initializers(graph: &mut GraphProto) {
    let mut made = Vec::new();
    graph.node.retain(|node| {
        if node.op_type() != "Constant" || !is_default_domain(node.domain()) {
            return true;
        }
        let (Some(mut tensor), Some(output)) = (node.attribute.iter().find_map(value), node.output.first()) else {
            return true;
        };
        tensor.name = Some(output.clone());
        made.push(tensor);
        false
    });
    graph.initializer.append(&mut made);
}

/// The tensor that an attribute of `Constant` holds: whole, or as plain numbers. Sparse values and text stay nodes.
fn value(attribute: &AttributeProto) -> Option<TensorProto> {
    match attribute.name() {
        "value" => attribute.t.clone(),
        "value_float" => Some(build::tensor_f32("", &[], &[attribute.f?])),
        "value_floats" => Some(build::tensor_f32("", &[attribute.floats.len() as i64], &attribute.floats)),
        "value_int" => Some(build::tensor_i64("", &[], &[attribute.i?])),
        "value_ints" => Some(build::tensor_i64("", &[attribute.ints.len() as i64], &attribute.ints)),
        _ => None,
    }
}
