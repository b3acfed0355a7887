//! Static int8: QuantizeLinear and DequantizeLinear around a layer, which ONNX Runtime fuses into its integer kernels.
//!
//! Activations are uint8 whatever the symmetry, weights int8, every zero point written even when 0, biases int32: each
//! of these is what the runtime's fast kernels were measured to need. 4-bit weights are cast to int8 by nodes that fold.

use crate::Error;
use crate::export::activations::{self, Activations, Quantized, StaticLayer};
use crate::export::context::{Context, dims, home, weight_key};
use crate::export::gemm::Matrix;
use crate::export::stored::Store;
use crate::model::graph::{Links, float_attribute};
use crate::model::{Layer, Weight};
use crate::onnx::build;
use crate::onnx::proto::{GraphProto, NodeProto, tensor_proto::DataType};
use crate::operators;
use crate::plan::Choice;
use crate::quant::{QuantParams, QuantizedWeight, bias_i32};
use crate::stats::Stats;

/// Largest |bias| in steps; above it the weight's scale grows, since int32 sums would overflow.
const BIAS_LIMIT: f32 = 1_073_741_824.0;

/// The main graph while its static layers are written.
pub struct Writer<'w, 'a> {
    /// The export.
    pub context: &'w mut Context<'a>,
    /// The prepared main graph.
    pub graph: &'a GraphProto,
    /// Its links.
    pub links: &'w Links,
    /// What calibration saw.
    pub stats: &'w Stats,
    /// Which activations are quantized.
    pub activations: &'w Activations,
}

impl<'a> Writer<'_, 'a> {
    /// Writes the weights and the bias of one static layer.
    pub fn layer(&mut self, layer: &'a Layer, entry: &StaticLayer) -> Result<(), Error> {
        let (Some(weight), Some(input)) = (layer.weight(), self.activations.tensors.get(&entry.input)) else {
            return Ok(());
        };
        let node = self.context.node(layer)?;
        let matrix = (layer.op == "Gemm" || layer.op == "MatMul").then(|| Matrix::of(node, weight));
        let (alpha, beta) = matrix.as_ref().map_or((1.0, 1.0), |m| (m.alpha, m.beta));
        let added = merged_add(self.graph, self.links, layer, entry);
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
        if !input.for_all {
            node.input[0] = side_name(&entry.input);
        }
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
        if let Some(bias) = bias {
            values = raise(&mut scales, &quantized, bias, input_scale);
        }
        let key = format!("qdq|{}|{scales:?}", weight_key(weight, choice));
        let tensor = match self.context.patch.made(home(layer, weight), &key) {
            Some(tensor) => tensor,
            None => {
                let values = values.as_deref().unwrap_or(&quantized.values);
                let tensor = self.dequantized(layer, weight, &quantized, values, &scales);
                self.context.patch.remember(home(layer, weight), &key, &tensor);
                tensor
            }
        };
        Ok(Dequantized { tensor, scales })
    }

    fn dequantized(
        &mut self,
        layer: &'a Layer,
        weight: &Weight,
        quantized: &QuantizedWeight,
        values: &[i8],
        scales: &[f32],
    ) -> String {
        let name = &weight.tensor;
        let axis = channel_axis(layer, weight);
        let groups: Vec<i64> = if scales.len() == 1 { Vec::new() } else { vec![scales.len() as i64] };
        let mut store: Store<'_> = self.context.store(layer, weight);
        let stored = store.integers(quantized.bits, name, &dims(&weight.shape), values);
        let scale = store.float32(&format!("{name}_scale"), &groups, scales);
        let zero_point = store.int8(&format!("{name}_zero_point"), &groups, &quantized.zero_points);
        let axis = (!groups.is_empty()).then_some(axis);
        self.dequantize(home(layer, weight), name, &[stored, scale, zero_point], axis)
    }

    /// Writes an int32 bias with its DequantizeLinear.
    fn bias(&mut self, layer: &'a Layer, values: &[f32], input_scale: f32, scales: &[f32]) -> String {
        let quantized = bias_i32(values, input_scale, scales);
        let base = layer.bias.clone().unwrap_or_else(|| format!("{}_bias", layer.output));
        let mut store = self.context.store_here(layer);
        let groups: Vec<i64> = if scales.len() == 1 { Vec::new() } else { vec![scales.len() as i64] };
        let stored = store.int32(&format!("{base}_int32"), &[values.len() as i64], &quantized.values);
        let scale = store.float32(&format!("{base}_scale"), &groups, &quantized.scales);
        let zero_point = store.int32(&format!("{base}_zero_point"), &groups, &vec![0; scales.len()]);
        let axis = (!groups.is_empty()).then_some(0);
        self.dequantize(&layer.path.bodies, &base, &[stored, scale, zero_point], axis)
    }

    /// Writes the DequantizeLinear of a constant and returns its output's name.
    fn dequantize(&mut self, bodies: &[(usize, String)], name: &str, inputs: &[String], axis: Option<i64>) -> String {
        let output = self.context.patch.fresh(&format!("{name}_dequantized"));
        let node_name = self.context.patch.fresh(&format!("{name}/DequantizeLinear"));
        let node = self.context.qdq("DequantizeLinear", &node_name, inputs, &output, axis);
        self.context.patch.graph(bodies).push_front(node);
        output
    }

    /// Writes QuantizeLinear and DequantizeLinear of every quantized activation.
    pub fn activations(&mut self, layers: &[StaticLayer]) {
        for (name, quantized) in &self.activations.tensors {
            let mut params = quantized.params;
            let merged = self.merged(name, layers);
            if let Some((lo, hi)) = merged.as_ref().and_then(|(_, node)| self.bounds(node)) {
                params = activations::below(params, hi);
                // An activation that the quantization does not make redundant keeps the convolution before it from
                // its integer kernel, unless that gets a pair of its own.
                if quantized.for_all
                    && !activations::makes_redundant(&params, lo, hi)
                    && let Some((raw, _)) = &merged
                {
                    self.pair_before(raw, layers);
                }
            }
            self.pair(name, quantized, params);
        }
        for &node in self.activations.passing.keys() {
            self.read_quantized(node);
        }
    }

    /// Lets a pass-through node read the quantized values of inputs that others read in floating point.
    fn read_quantized(&mut self, at: usize) {
        let Some(node) = self.graph.node.get(at) else { return };
        let count = operators::data_inputs(node.op_type(), node.input.len());
        for (slot, input) in node.input.iter().take(count).enumerate() {
            if self.activations.tensors.get(input).is_some_and(|quantized| !quantized.for_all) {
                let side = side_name(input);
                self.context.patch.graph(&[]).set_input(at, slot, &side);
            }
        }
    }

    /// The Relu or Clip at whose end `name` stands, with its input, when a kernel absorbs it.
    fn merged(&self, name: &str, layers: &[StaticLayer]) -> Option<(String, &'a NodeProto)> {
        let tails = layers.iter().map(|layer| &layer.tail).chain(self.activations.passing.values());
        let tail = tails.into_iter().find(|tail| tail.end == name && tail.activation.is_some())?;
        Some((tail.raw.clone(), self.graph.node.get(tail.activation?)?))
    }

    /// The bounds of a Relu or Clip; `None` when they are not constant.
    fn bounds(&self, node: &NodeProto) -> Option<(f32, f32)> {
        if node.op_type() == "Relu" {
            return Some((0.0, f32::INFINITY));
        }
        let input = |position: usize, default: f32| -> Option<f32> {
            let Some(name) = node.input.get(position).filter(|name| !name.is_empty()) else { return Some(default) };
            let tensor = self.graph.initializer.iter().find(|tensor| tensor.name() == name)?;
            self.context.model.file.read_f32(tensor).ok()?.first().copied()
        };
        if node.input.len() > 1 {
            Some((input(1, f32::NEG_INFINITY)?, input(2, f32::INFINITY)?))
        } else {
            let lo = float_attribute(node, "min", f32::NEG_INFINITY);
            Some((lo, float_attribute(node, "max", f32::INFINITY)))
        }
    }

    /// A pair between a convolution and an activation that cannot be dropped.
    fn pair_before(&mut self, raw: &str, layers: &[StaticLayer]) {
        let choice = layers.iter().find(|layer| layer.tail.raw == raw).map_or(Choice::FLOAT, |layer| layer.choice);
        let Some(params) = activations::before_activation(self.stats, raw, &choice) else { return };
        let quantized = Quantized { params, producer: self.links.producer.get(raw).copied(), for_all: true };
        self.pair(raw, &quantized, params);
    }

    fn pair(&mut self, name: &str, quantized: &Quantized, params: QuantParams) {
        let (source, result) = if quantized.for_all {
            (self.context.patch.fresh(&format!("{name}_float")), name.to_owned())
        } else {
            (name.to_owned(), side_name(name))
        };
        let patch = &mut self.context.patch;
        let scale = patch.fresh(&format!("{name}_scale"));
        let zero_point = patch.fresh(&format!("{name}_zero_point"));
        let integers = patch.fresh(&format!("{name}_uint8"));
        let (q, dq) =
            (patch.fresh(&format!("{name}/QuantizeLinear")), patch.fresh(&format!("{name}/DequantizeLinear")));
        let graph = patch.graph(&[]);
        graph.push_initializer(build::tensor_f32(&scale, &[], &[params.scale]));
        graph.push_initializer(build::tensor_u8(&zero_point, &[], &[params.zero_point as u8]));
        if quantized.for_all
            && let Some(producer) = quantized.producer
        {
            // Of a MatMul with a merged Add the Gemm stands in the Add's place, so that this finds it too.
            graph.rename_output(producer, name, &source);
        }
        let tail = [scale, zero_point];
        let inputs = |first: &str| [first.to_owned(), tail[0].clone(), tail[1].clone()];
        let quantize = self.context.qdq("QuantizeLinear", &q, &inputs(&source), &integers, None);
        let dequantize = self.context.qdq("DequantizeLinear", &dq, &inputs(&integers), &result, None);
        let graph = self.context.patch.graph(&[]);
        match quantized.producer {
            Some(producer) => {
                graph.push_after(producer, quantize);
                graph.push_after(producer, dequantize);
            }
            None => {
                graph.push_front(quantize);
                graph.push_front(dequantize);
            }
        }
    }

    /// Keeps a convolution, transposed or not, or a Gemm that stays in floating point out of the runtime's own quantization.
    ///
    /// Between a DequantizeLinear and a QuantizeLinear ONNX Runtime quantizes float weights silently; a one-input Max
    /// behind the layer stops it and costs next to nothing.
    pub fn guard_float(&mut self, layer: &Layer) {
        if !matches!(layer.op.as_str(), "Conv" | "ConvTranspose" | "Gemm") || layer.in_subgraph() {
            return;
        }
        let reads = self.activations.tensors.contains_key(&layer.input);
        let end = self.activations.tensors.get(&layer.observed).or_else(|| self.activations.tensors.get(&layer.output));
        if !reads || end.is_none() {
            return;
        }
        let unguarded = self.context.patch.fresh(&format!("{}_unguarded", layer.output));
        let name = self.context.patch.fresh(&format!("{}/keep_float", layer.name));
        let node = build::node("Max", "", &name, &[unguarded.as_str()], &[layer.output.as_str()], Vec::new());
        let graph = self.context.patch.graph(&[]);
        graph.rename_output(layer.path.node, &layer.output, &unguarded);
        graph.insert_after_first(layer.path.node, node);
    }
}

/// The dequantized copy of a tensor that other operators read in floating point.
fn side_name(name: &str) -> String {
    format!("{name}_dequantized_copy")
}

/// A weight's DequantizeLinear.
struct Dequantized {
    tensor: String,
    scales: Vec<f32>,
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
    let node =
        graph.node.get(at).filter(|node| node.op_type() == "Add" && operators::is_default_domain(node.domain()))?;
    let other = node.input.iter().find(|name| **name != layer.output)?;
    let tensor = graph.initializer.iter().find(|tensor| tensor.name() == other)?;
    (tensor.dims == [channels] && tensor.data_type() == DataType::Float as i32).then_some((at, tensor))
}
