//! Static int8: QuantizeLinear and DequantizeLinear around a layer, which ONNX Runtime fuses into its integer kernels.
//!
//! Activations are uint8 whatever the symmetry, weights int8, every zero point written even when 0, biases int32: each
//! of these is what the runtime's fast kernels were measured to need. 4-bit weights are cast to int8 by nodes that fold.

use std::rc::Rc;

use crate::Error;
use crate::export::activations::{StaticLayer, Statics};
use crate::export::boundaries;
use crate::export::context::{Context, dims, home};
use crate::export::forms::WriteForm;
use crate::export::matrix::Matrix;
use crate::export::size::written;
use crate::export::stored::{Store, unpacking_bytes};
use crate::model::graph::Links;
use crate::model::{Layer, Weight};
use crate::onnx::build;
use crate::onnx::proto::{GraphProto, NodeProto, tensor_proto::DataType};
use crate::plan::targets::BiasType;
use crate::plan::{Choice, Precision};
use crate::quant::{QuantizedWeight, bias_i32};

/// Largest |bias| in steps; above it the weight's scale grows, since int32 sums would overflow.
const BIAS_LIMIT: f32 = 1_073_741_824.0;

/// The form.
pub struct Qdq;

impl WriteForm for Qdq {
    fn write<'a>(&self, context: &mut Context<'a>, layer: &'a Layer, _: &Choice) -> Result<(), Error> {
        let Some(mut writer) = Writer::new(context) else { return Ok(()) };
        let statics = Rc::clone(&writer.statics);
        match statics.layer(layer.path.node) {
            Some(entry) => writer.layer(layer, entry),
            None => Ok(()),
        }
    }

    fn node_bytes(&self, weight: &Weight, choice: &Choice, opset: i64) -> u64 {
        let name = written(&weight.tensor);
        match choice.precision {
            Precision::Int8 => 8 * name + 170,
            _ => 10 * name + 250 + unpacking_bytes(weight, choice, opset),
        }
    }

    fn layer_bytes(&self, layer: &Layer) -> u64 {
        let (Some(bias), Some(weight)) = (&layer.bias, layer.weight()) else { return 0 };
        let channels = weight.layout.channels * if layer.op == "ConvTranspose" { layer.groups } else { 1 };
        // int32 for float32, and a scale and a zero point each.
        8 * channels as u64 + 8 * written(bias) + 170
    }

    fn needs_statistics(&self) -> bool {
        true
    }

    fn runs_on_integers(&self) -> bool {
        true
    }
}

/// The main graph while a static layer is written.
struct Writer<'w, 'a> {
    context: &'w mut Context<'a>,
    /// The prepared main graph.
    graph: &'a GraphProto,
    statics: Rc<Statics>,
}

impl<'w, 'a> Writer<'w, 'a> {
    /// A writer for the main graph, once the activations were decided.
    fn new(context: &'w mut Context<'a>) -> Option<Self> {
        let graph = context.model.graph.graph.as_ref()?;
        let statics = Rc::clone(context.statics.as_ref()?);
        Some(Self { context, graph, statics })
    }

    /// Writes the weights and the bias of one static layer.
    fn layer(&mut self, layer: &'a Layer, entry: &StaticLayer) -> Result<(), Error> {
        let statics = Rc::clone(&self.statics);
        let (Some(weight), Some(input)) = (layer.weight(), statics.activations.tensors.get(&entry.input)) else {
            return Ok(());
        };
        let node = self.context.node(layer)?;
        let matrix = (layer.op == "Gemm" || layer.op == "MatMul").then(|| Matrix::of(node, weight));
        let (alpha, beta) = matrix.as_ref().map_or((1.0, 1.0), |m| (m.alpha, m.beta));
        let added = merged_add(self.graph, &self.statics.links, layer, entry);
        let bias = match &added {
            Some((_, values)) => Some(self.context.model.file.read_f32(values)?.into_owned()),
            None => self.context.bias(layer, weight.layout.channels, beta)?,
        };
        let scale = input.params.scale;
        let name = self.weight(layer, weight, &entry.choice, alpha, bias.as_deref(), scale)?;
        let has_bias = bias.is_some();
        let mut node = node.clone();
        node.input[weight.input] = name.tensor;
        if let Some(values) = bias {
            let slot = self.bias(layer, &values, scale, &name.scales);
            if added.is_some() {
                // The runtime turns a 2-D MatMul and Add into a Gemm whose float bias keeps it out of the integer kernel.
                node.op_type = Some("Gemm".to_owned());
            }
            node.input.resize(3, String::new());
            node.input[2] = slot;
        }
        for attribute in &mut node.attribute {
            if matches!(attribute.name(), "alpha" | "beta") {
                attribute.f = Some(1.0);
            }
        }
        node.input[0] = if input.for_all { entry.input.clone() } else { boundaries::side_name(&entry.input) };
        let mut nodes = vec![node];
        if let Some(matrix) = matrix.filter(|_| !has_bias) {
            self.add_behind(layer, &matrix, &mut nodes)?;
        }
        match added {
            Some((add, _)) => {
                nodes[0].output = self.graph.node.get(add).map(|node| node.output.clone()).unwrap_or_default();
                // In the Add's place, where links and later changes look for what makes that output.
                self.context.patch.graph(&[]).replace(layer.path.node, Vec::new());
                self.context.patch.graph(&[]).replace(add, nodes);
            }
            None => self.context.patch.graph(&[]).replace(layer.path.node, nodes),
        }
        Ok(())
    }

    /// Moves a bias that differs from row to row, or is computed, into an Add behind: in floating point and inside the
    /// Gemm it would keep that out of the integer kernel.
    fn add_behind(&mut self, layer: &'a Layer, matrix: &Matrix, nodes: &mut Vec<NodeProto>) -> Result<(), Error> {
        let Some(bias) = matrix.bias(self.context, layer)? else { return Ok(()) };
        let product = self.context.patch.fresh(&format!("{}_product", layer.output));
        let name = self.context.patch.fresh(&format!("{}/bias", layer.name));
        if let Some(gemm) = nodes.first_mut() {
            gemm.input.truncate(2);
            gemm.output = vec![product.clone()];
            nodes.push(build::node(
                "Add",
                "",
                &name,
                &[product, bias],
                std::slice::from_ref(&layer.output),
                Vec::new(),
            ));
        }
        Ok(())
    }

    /// Writes the quantized weight with its DequantizeLinear.
    fn weight(
        &mut self,
        layer: &'a Layer,
        weight: &Weight,
        choice: &Choice,
        alpha: f32,
        bias: Option<&[f32]>,
        input_scale: f32,
    ) -> Result<Dequantized, Error> {
        let quantized = self.context.quantized(layer, weight, choice)?;
        let mut scales: Vec<f32> = quantized.scales.iter().map(|&scale| scale * alpha).collect();
        let mut values = None;
        if let Some(bias) = bias.filter(|_| !self.has_float_bias()) {
            values = raise(&mut scales, &quantized, bias, input_scale);
        }
        let key = format!("qdq|{}|{scales:?}", self.context.weight_key(weight, choice));
        let made = self.context.once(layer, weight, &key, |context| {
            let values = values.as_deref().unwrap_or(&quantized.values);
            Ok(vec![dequantized(context, layer, weight, &quantized, values, &scales)])
        })?;
        let tensor = made.into_iter().next().unwrap_or_default();
        Ok(Dequantized { tensor, scales })
    }

    /// Whether the target wants biases in floating point.
    fn has_float_bias(&self) -> bool {
        self.context.style.is_some_and(|style| style.bias == BiasType::Float32)
    }

    /// Writes an int32 bias with its DequantizeLinear, or the float bias where the target wants that.
    fn bias(&mut self, layer: &'a Layer, values: &[f32], input_scale: f32, scales: &[f32]) -> String {
        let base = layer.bias.clone().unwrap_or_else(|| format!("{}_bias", layer.output));
        if self.has_float_bias() {
            let dims = [values.len() as i64];
            return self.context.store_here(layer).float32(&format!("{base}_float"), &dims, values);
        }
        let mut store = self.context.store_here(layer);
        let quantized = bias_i32(values, input_scale, scales);
        let groups: Vec<i64> = if scales.len() == 1 { Vec::new() } else { vec![scales.len() as i64] };
        let stored = store.int32(&format!("{base}_int32"), &[values.len() as i64], &quantized.values);
        let scale = store.float32(&format!("{base}_scale"), &groups, &quantized.scales);
        let zero_point = store.int32(&format!("{base}_zero_point"), &groups, &vec![0; scales.len()]);
        let axis = (!groups.is_empty()).then_some(0);
        dequantize(self.context, &layer.path.bodies, &base, &[stored, scale, zero_point], axis)
    }
}

/// A weight's DequantizeLinear.
struct Dequantized {
    tensor: String,
    scales: Vec<f32>,
}

/// Writes integers of a weight with their DequantizeLinear.
fn dequantized<'a>(
    context: &mut Context<'a>,
    layer: &'a Layer,
    weight: &Weight,
    quantized: &QuantizedWeight,
    values: &[i8],
    scales: &[f32],
) -> String {
    let name = &weight.tensor;
    let axis = channel_axis(layer, weight);
    let groups: Vec<i64> = if scales.len() == 1 { Vec::new() } else { vec![scales.len() as i64] };
    let mut store: Store<'_> = context.store(layer, weight);
    let stored = store.integers(quantized.bits, name, &dims(&weight.shape), values);
    let scale = store.float32(&format!("{name}_scale"), &groups, scales);
    let zero_point = store.int8(&format!("{name}_zero_point"), &groups, &quantized.zero_points);
    let axis = (!groups.is_empty()).then_some(axis);
    dequantize(context, home(layer, weight), name, &[stored, scale, zero_point], axis)
}

/// Writes the DequantizeLinear of a constant and returns its output's name.
fn dequantize(
    context: &mut Context<'_>,
    bodies: &[(usize, String)],
    name: &str,
    inputs: &[String],
    axis: Option<i64>,
) -> String {
    let output = context.patch.fresh(&format!("{name}_dequantized"));
    let node_name = context.patch.fresh(&format!("{name}/DequantizeLinear"));
    let node = context.qdq("DequantizeLinear", &node_name, inputs, &output, axis);
    context.patch.graph(bodies).push_front(node);
    output
}

/// Along which axis of the weight its channels lie.
fn channel_axis(layer: &Layer, weight: &Weight) -> i64 {
    match layer.op.as_str() {
        "Conv" => 0,
        _ if weight.layout.outer > 1 || weight.layout.inner == 1 => weight.shape.len() as i64 - 1,
        _ => 0,
    }
}

/// Raises weight scales so that no bias needs more than [`BIAS_LIMIT`] steps; returns the integers when any changed.
fn raise(scales: &mut [f32], quantized: &QuantizedWeight, bias: &[f32], input_scale: f32) -> Option<Vec<i8>> {
    let mut values: Option<Vec<i8>> = None;
    let count = scales.len();
    for (group, scale) in scales.iter_mut().enumerate() {
        let largest = if count == 1 {
            bias.iter().fold(0.0f32, |max, b| max.max(b.abs()))
        } else {
            bias.get(group).map_or(0.0, |b| b.abs())
        };
        let least = largest / BIAS_LIMIT / input_scale;
        if !(least.is_finite() && *scale < least) {
            continue;
        }
        let ratio = *scale / least;
        let all = values.get_or_insert_with(|| quantized.values.clone());
        let zero_point = f32::from(quantized.zero_points.get(group).copied().unwrap_or(0));
        let layout = quantized.layout;
        let channels = if count == 1 { 0..layout.channels } else { group..group + 1 };
        for channel in channels {
            for k in 0..layout.depth() {
                if let Some(value) = all.get_mut(layout.index(channel, k)) {
                    *value = ((f32::from(*value) - zero_point) * ratio + zero_point).round_ties_even() as i8;
                }
            }
        }
        *scale = least;
    }
    values
}

/// The Add of a constant `[N]` that follows a 2-D MatMul as its only reader: the node and the constant.
pub fn merged_add<'g>(
    graph: &'g GraphProto,
    links: &Links,
    layer: &Layer,
    entry: &StaticLayer,
) -> Option<(usize, &'g crate::onnx::proto::TensorProto)> {
    if layer.op != "MatMul" || entry.tail.raw == layer.output {
        return None;
    }
    add_of(graph, links, layer)
}

/// The Add that could be merged into a MatMul, whatever the rank of its input.
pub fn add_of<'g>(
    graph: &'g GraphProto,
    links: &Links,
    layer: &Layer,
) -> Option<(usize, &'g crate::onnx::proto::TensorProto)> {
    let channels = layer.weight()?.layout.channels as i64;
    let at = links.only_reader(&layer.output)?;
    let node = graph
        .node
        .get(at)
        .filter(|node| node.op_type() == "Add" && crate::operators::is_default_domain(node.domain()))?;
    let other = node.input.iter().find(|name| **name != layer.output)?;
    let tensor = graph.initializer.iter().find(|tensor| tensor.name() == other)?;
    (tensor.dims == [channels] && tensor.data_type() == DataType::Float as i32).then_some((at, tensor))
}
