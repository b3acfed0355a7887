//! Where integers and floating point meet: the pairs of QuantizeLinear and DequantizeLinear on activations, and what keeps
//! float layers between them float.

use crate::export::activations::{Quantized, Statics};
use crate::export::context::Context;
use crate::model::Layer;
use crate::onnx::build;
use crate::operators;

/// Lowest operator set whose QuantizeLinear makes 16-bit integers.
const INT16_OPSET: i64 = 21;

/// Writes QuantizeLinear and DequantizeLinear of every quantized activation.
pub fn write(context: &mut Context<'_>) {
    let Some(statics) = context.statics.clone() else { return };
    for (name, quantized) in statics.activations.tensors.iter().filter(|(_, quantized)| !quantized.existing) {
        if let Some((raw, params)) = &quantized.before {
            let producer = statics.links.producer.get(raw).copied();
            let before = Quantized { params: *params, producer, for_all: true, before: None, existing: false };
            pair(context, raw, &before);
        }
        pair(context, name, quantized);
    }
    for &node in statics.activations.passing.keys() {
        read_quantized(context, &statics, node);
    }
    for (name, rounded) in &statics.rounded {
        round(context, name, rounded);
    }
}

/// Writes the 16-bit pair of a tensor beside whatever else reads it.
fn round(context: &mut Context<'_>, name: &str, rounded: &Quantized) {
    let Quantized { params, producer, .. } = rounded;
    let patch = &mut context.patch;
    let scale = patch.fresh(&format!("{name}_scale16"));
    let zero_point = patch.fresh(&format!("{name}_zero_point16"));
    let integers = patch.fresh(&format!("{name}_uint16"));
    let (q, dq) = (patch.fresh(&format!("{name}/Quantize16")), patch.fresh(&format!("{name}/Dequantize16")));
    let graph = patch.graph(&[]);
    graph.push_initializer(build::tensor_f32(&scale, &[], &[params.scale]));
    graph.push_initializer(build::tensor_u16(&zero_point, &[], &[params.zero_point as u16]));
    let inputs = |first: &str| [first.to_owned(), scale.clone(), zero_point.clone()];
    let (from, to) = (inputs(name), inputs(&integers));
    let nodes = [
        context.qdq_since(INT16_OPSET, "QuantizeLinear", &q, &from, &integers, None),
        context.qdq_since(INT16_OPSET, "DequantizeLinear", &dq, &to, &rounded_name(name), None),
    ];
    let graph = context.patch.graph(&[]);
    for node in nodes {
        match producer {
            Some(producer) => graph.push_after(*producer, node),
            None => graph.push_front(node),
        }
    }
}

/// Lets a pass-through node read the quantized values of inputs that others read in floating point.
fn read_quantized(context: &mut Context<'_>, statics: &Statics, at: usize) {
    let graph = context.model.graph.graph.as_ref();
    let Some(node) = graph.and_then(|graph| graph.node.get(at)) else { return };
    let count = operators::data_inputs(node.op_type(), node.input.len());
    for (slot, input) in node.input.iter().take(count).enumerate() {
        if statics.activations.tensors.get(input).is_some_and(|quantized| !quantized.for_all) {
            let side = side_name(input);
            context.patch.graph(&[]).set_input(at, slot, &side);
        }
    }
}

fn pair(context: &mut Context<'_>, name: &str, quantized: &Quantized) {
    let params = quantized.params;
    let (source, result) = if quantized.for_all {
        (context.patch.fresh(&format!("{name}_float")), name.to_owned())
    } else {
        (name.to_owned(), side_name(name))
    };
    let patch = &mut context.patch;
    let scale = patch.fresh(&format!("{name}_scale"));
    let zero_point = patch.fresh(&format!("{name}_zero_point"));
    let integers = patch.fresh(&format!("{name}_{}", if params.qmin < 0 { "int8" } else { "uint8" }));
    let (q, dq) = (patch.fresh(&format!("{name}/QuantizeLinear")), patch.fresh(&format!("{name}/DequantizeLinear")));
    let graph = patch.graph(&[]);
    graph.push_initializer(build::tensor_f32(&scale, &[], &[params.scale]));
    // Signed next to a pair of the file that is, and for targets that want it so.
    graph.push_initializer(if params.qmin < 0 {
        build::tensor_i8(&zero_point, &[], &[params.zero_point as i8])
    } else {
        build::tensor_u8(&zero_point, &[], &[params.zero_point as u8])
    });
    if quantized.for_all
        && let Some(producer) = quantized.producer
    {
        // Of a MatMul with a merged Add the Gemm stands in the Add's place, so that this finds it too.
        graph.rename_output(producer, name, &source);
    }
    let tail = [scale, zero_point];
    let inputs = |first: &str| [first.to_owned(), tail[0].clone(), tail[1].clone()];
    let quantize = context.qdq("QuantizeLinear", &q, &inputs(&source), &integers, None);
    let dequantize = context.qdq("DequantizeLinear", &dq, &inputs(&integers), &result, None);
    let graph = context.patch.graph(&[]);
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
pub fn guard_float(context: &mut Context<'_>, layer: &Layer) {
    let Some(statics) = context.statics.clone() else { return };
    let quantized = layer.existing.as_ref().is_some_and(|found| !found.trained);
    if !matches!(layer.op.as_str(), "Conv" | "ConvTranspose" | "Gemm") || layer.in_subgraph() || quantized {
        return;
    }
    let quantized =
        |name: &String| statics.activations.tensors.contains_key(name) || statics.rounded.contains_key(name);
    if !quantized(&layer.input) || !(quantized(&layer.observed) || quantized(&layer.output)) {
        return;
    }
    let unguarded = context.patch.fresh(&format!("{}_unguarded", layer.output));
    let name = context.patch.fresh(&format!("{}/keep_float", layer.name));
    let node = build::node("Max", "", &name, &[unguarded.as_str()], &[layer.output.as_str()], Vec::new());
    let graph = context.patch.graph(&[]);
    graph.rename_output(layer.path.node, &layer.output, &unguarded);
    graph.insert_after_first(layer.path.node, node);
}

/// The dequantized copy of a tensor that other operators read in floating point.
pub fn side_name(name: &str) -> String {
    format!("{name}_dequantized_copy")
}

/// The copy of a tensor that was rounded to 16 bits.
pub fn rounded_name(name: &str) -> String {
    format!("{name}_rounded16")
}
