//! The export as a graph that can be trained: what is written, with floating weights in the place of stored integers.
//!
//! It is made from the exported model itself, so that activations are rounded where the export rounds them and with the same
//! scales. A layer's dequantized weight and bias become inputs of the graph, fed with what their integers stand for; kernels
//! that unpack weights inside (`MatMulNBits`, `DynamicQuantizeMatMul`, `GatherBlockQuantized`) become the operator they stand
//! for. `MatMulNBits` rounds its activations too, in blocks of its own, which is not simulated.

use std::collections::{BTreeMap, HashMap};

use crate::Error;
use crate::autodiff::fake_quantize;
use crate::export::{Export, Form, add_of};
use crate::model::graph::{Links, drop_unused_initializers};
use crate::model::{Layer, Model, drop_unread};
use crate::onnx::build;
use crate::onnx::proto::{GraphProto, ModelProto, NodeProto, TensorProto, tensor_proto::DataType};
use crate::operators;
use crate::repair::BiasSlot;

/// A layer whose weight is fed.
pub struct Part {
    /// Index of the layer.
    pub layer: usize,
    /// The input that takes its weight, in the tensor's own order.
    pub weight: String,
    /// Shape of that.
    pub shape: Vec<usize>,
    /// Factor between what the integers stand for and what is fed.
    pub alpha: f32,
    /// Its bias, where that is fed too.
    pub bias: Option<BiasPart>,
}

/// A bias that is fed.
pub struct BiasPart {
    /// The input that takes it.
    pub input: String,
    /// Shape of that.
    pub shape: Vec<usize>,
    /// Scale of the layer's quantized input, where the export rounds the bias to int32 with it.
    pub input_scale: Option<f32>,
}

/// The graph in both directions.
pub struct Simulation {
    /// What ONNX Runtime runs.
    pub proto: ModelProto,
    /// The same nodes, with every QuantizeLinear and DequantizeLinear of an activation as one: what gradients go back through.
    pub backward: GraphProto,
    /// Version of the standard operators.
    pub opset: i64,
    /// The layers that are fed.
    pub parts: Vec<Part>,
    /// Whether rows of a batch stay apart: dynamic ranges are found over a whole tensor.
    pub rows_are_apart: bool,
}

impl Simulation {
    /// The simulation of `export`, in which the layers `wanted` (indices) are fed. `model` is what was exported, with its
    /// repairs in force.
    pub fn new(model: &Model, export: &Export, wanted: &[usize]) -> Result<Self, Error> {
        let mut proto = export.proto.clone();
        let mut builder = Builder { model, parts: Vec::new(), rows_are_apart: true };
        if let Some(graph) = &mut proto.graph {
            for &at in wanted {
                if let (Some(layer), Some(outcome)) = (model.layers.get(at), export.layers.get(at)) {
                    builder.part(graph, at, layer, outcome.form)?;
                }
            }
            // Only what computes the outputs is left: what unpacked the weights goes.
            drop_unread(graph, |_| true);
            drop_unused_initializers(graph);
        }
        let imports = proto.opset_import.iter().filter(|import| operators::is_default_domain(import.domain()));
        let opset = imports.map(crate::onnx::proto::OperatorSetIdProto::version).max().unwrap_or(model.opset);
        let mut backward = proto.graph.clone().unwrap_or_default();
        join_pairs(model, &mut backward);
        let Builder { parts, rows_are_apart, .. } = builder;
        Ok(Self { proto, backward, opset, parts, rows_are_apart })
    }
}

struct Builder<'m> {
    model: &'m Model,
    parts: Vec<Part>,
    rows_are_apart: bool,
}

impl Builder<'_> {
    /// Feeds one layer; does nothing where the export did not write it as expected.
    fn part(&mut self, graph: &mut GraphProto, at: usize, layer: &Layer, form: Form) -> Result<(), Error> {
        let (Some(main), Some(weight)) = (&self.model.graph.graph, layer.weight()) else { return Ok(()) };
        let Some(original) = main.node.get(layer.path.node) else { return Ok(()) };
        let links = Links::of(graph);
        let wanted: &[&str] = match form {
            Form::MatmulNbits => &["MatMulNBits"],
            Form::DynamicMatmul => &["DynamicQuantizeMatMul"],
            Form::QuantizedGather => &["Mul", "GatherBlockQuantized"],
            _ => &["Conv", "ConvTranspose", "Gemm", "MatMul", "Gather"],
        };
        let merged = add_of(main, &Links::of(main), layer).and_then(|(add, _)| main.node.get(add)?.output.first());
        let mut ends = std::iter::once(&layer.output).chain(merged);
        let Some(found) = ends.find_map(|end| maker(graph, &links, end, wanted)) else { return Ok(()) };
        let Some(node) = graph.node.get(found).cloned() else { return Ok(()) };
        let (input, bias_input) = (format!("nibble_weight_{at}"), format!("nibble_bias_{at}"));
        let mut alpha = 1.0;
        let slot = BiasSlot::of(self.model, layer)?;
        let mut bias = None;
        let mut before = Vec::new();
        let node = match form {
            Form::MatmulNbits => unpacked(original, weight.input, &input, &node, None),
            Form::DynamicMatmul => {
                self.rows_are_apart = false;
                let rounded = format!("nibble_rounded_{at}");
                before = dynamic_pair(node.input.first().cloned().unwrap_or_default(), &rounded);
                let mut made = unpacked(original, weight.input, &input, &node, node.input.get(4).cloned());
                if let Some(slot) = made.input.first_mut() {
                    *slot = rounded;
                }
                made
            }
            Form::QuantizedGather => {
                let mut made = original.clone();
                if let Some(slot) = made.input.get_mut(weight.input) {
                    slot.clone_from(&input);
                }
                made.output.clone_from(&node.output);
                made
            }
            _ => {
                let mut made = node;
                if let Some(slot) = made.input.get_mut(weight.input) {
                    slot.clone_from(&input);
                }
                if is_static(form) {
                    let factor = crate::model::graph::float_attribute(original, "alpha", 1.0);
                    alpha = if original.op_type() == "Gemm" { factor } else { 1.0 };
                    if let Some(values) = &slot {
                        bias = self.int32_bias(graph, &links, &mut made, &bias_input, values.values.len());
                    }
                }
                made
            }
        };
        if let Some(place) = graph.node.get_mut(found) {
            *place = node;
        }
        for node in before.into_iter().rev() {
            graph.node.insert(found, node);
        }
        graph.input.push(build::value_info_typed(&input, DataType::Float, &dims(&weight.shape)));
        if bias.is_none()
            && let Some((tensor, beta)) = slot.as_ref().and_then(BiasSlot::stored)
            && (beta - 1.0).abs() < f32::EPSILON
        {
            bias = float_bias(graph, tensor, &bias_input);
        }
        if let Some(bias) = &bias {
            graph.input.push(build::value_info_typed(&bias.input, DataType::Float, &dims(&bias.shape)));
        }
        self.parts.push(Part { layer: at, weight: input, shape: weight.shape.clone(), alpha, bias });
        Ok(())
    }

    /// Feeds the bias that a static layer reads through a DequantizeLinear of int32.
    fn int32_bias(
        &self,
        graph: &GraphProto,
        links: &Links,
        node: &mut NodeProto,
        input: &str,
        count: usize,
    ) -> Option<BiasPart> {
        let stored = graph.node.get(*links.producer.get(node.input.get(2)?)?)?;
        if !is(stored, "DequantizeLinear") {
            return None;
        }
        let pair = graph.node.get(*links.producer.get(node.input.first()?)?)?;
        let scale = scalar(self.model, graph, pair.input.get(1)?).filter(|_| is(pair, "DequantizeLinear"))?;
        input.clone_into(node.input.get_mut(2)?);
        Some(BiasPart { input: input.to_owned(), shape: vec![count], input_scale: Some(scale) })
    }
}

/// Whether activations and bias of the form are integers.
pub fn is_static(form: Form) -> bool {
    matches!(form, Form::Qdq | Form::Int4CastQdq | Form::Int2CastQdq)
}

/// Feeds the bias that nodes read as a float initializer.
fn float_bias(graph: &mut GraphProto, tensor: &str, input: &str) -> Option<BiasPart> {
    let stored = graph.initializer.iter().find(|stored| stored.name() == tensor)?;
    let shape: Vec<usize> = stored.dims.iter().map(|&dim| usize::try_from(dim).unwrap_or(0)).collect();
    let mut is_read = false;
    for slot in graph.node.iter_mut().flat_map(|node| &mut node.input).filter(|name| *name == tensor) {
        input.clone_into(slot);
        is_read = true;
    }
    is_read.then(|| BiasPart { input: input.to_owned(), shape, input_scale: None })
}

/// The original node in the place of a kernel that unpacks its weights.
fn unpacked(original: &NodeProto, weight: usize, input: &str, kernel: &NodeProto, bias: Option<String>) -> NodeProto {
    let mut made = original.clone();
    made.input.truncate(2);
    if let (Some(data), Some(first)) = (kernel.input.first(), made.input.first_mut()) {
        first.clone_from(data);
    }
    if let Some(slot) = made.input.get_mut(weight) {
        input.clone_into(slot);
    }
    if let Some(bias) = bias.filter(|bias| !bias.is_empty()) {
        made.input.push(bias);
        made.attribute.retain(|attribute| attribute.name() != "beta");
    }
    made.output.clone_from(&kernel.output);
    made
}

/// Rounds `input` as the dynamic kernel does: to uint8, over the range of the whole tensor.
fn dynamic_pair(input: String, output: &str) -> Vec<NodeProto> {
    let names: Vec<String> = ["q", "scale", "zero_point"].iter().map(|part| format!("{output}_{part}")).collect();
    let quantize = build::node("DynamicQuantizeLinear", "", "", &[input], &names, Vec::new());
    let dequantize = build::node("DequantizeLinear", "", "", &names, &[output.to_owned()], Vec::new());
    vec![quantize, dequantize]
}

/// The node of one of these operators that makes `tensor`, before what the export put behind it.
fn maker(graph: &GraphProto, links: &Links, tensor: &str, wanted: &[&str]) -> Option<usize> {
    let mut at = *links.producer.get(tensor)?;
    // The export puts at most an Add, a Max and two pairs behind a layer.
    for _ in 0..8 {
        let node = graph.node.get(at)?;
        if wanted.contains(&node.op_type()) {
            return Some(at);
        }
        let passes = ["QuantizeLinear", "DequantizeLinear", "Max", "Add"].iter().any(|op| is(node, op));
        at = *links.producer.get(node.input.first().filter(|_| passes)?)?;
    }
    None
}

/// Puts one node in the place of each QuantizeLinear and DequantizeLinear of an activation.
fn join_pairs(model: &Model, graph: &mut GraphProto) {
    let links = Links::of(graph);
    let mut joined: BTreeMap<usize, NodeProto> = BTreeMap::new();
    for (at, node) in graph.node.iter().enumerate().filter(|(_, node)| is(node, "DequantizeLinear")) {
        let Some(output) = node.output.first() else { continue };
        let before = node.input.first().and_then(|name| links.producer.get(name)).and_then(|&at| graph.node.get(at));
        let Some(input) = before.and_then(|before| before.input.first()) else { continue };
        let scale = match before {
            Some(before) if is(before, "QuantizeLinear") => {
                before.input.get(1).and_then(|name| scalar(model, graph, name))
            }
            Some(before) if is(before, "DynamicQuantizeLinear") => Some(0.0),
            _ => None,
        };
        if let Some(scale) = scale {
            joined.insert(at, fake_quantize::node(input, output, scale));
        }
    }
    for (at, node) in joined {
        if let Some(place) = graph.node.get_mut(at) {
            *place = node;
        }
    }
    drop_unread(graph, |node| is(node, "QuantizeLinear") || is(node, "DynamicQuantizeLinear"));
}

/// The value of a scalar constant.
fn scalar(model: &Model, graph: &GraphProto, name: &str) -> Option<f32> {
    let tensor: &TensorProto = graph.initializer.iter().find(|tensor| tensor.name() == name)?;
    match *model.file.read_f32(tensor).ok()? {
        [value] => Some(value),
        _ => None,
    }
}

fn is(node: &NodeProto, op: &str) -> bool {
    node.op_type() == op && (operators::is_default_domain(node.domain()) || node.domain() == "com.microsoft")
}

fn dims(shape: &[usize]) -> Vec<i64> {
    shape.iter().map(|&dim| dim as i64).collect()
}

/// Names of tensors that are inputs of nodes which gradients cannot pass: where training reaches no further, it keeps these
/// close to the float model's.
pub fn borders(graph: &GraphProto, blocked: impl Iterator<Item = usize>) -> Vec<&str> {
    let made: HashMap<&str, usize> = graph
        .node
        .iter()
        .enumerate()
        .flat_map(|(at, node)| node.output.iter().map(move |o| (o.as_str(), at)))
        .collect();
    let inputs = blocked.filter_map(|at| graph.node.get(at)).flat_map(|node| &node.input);
    inputs.map(String::as_str).filter(|name| made.contains_key(name)).collect()
}
