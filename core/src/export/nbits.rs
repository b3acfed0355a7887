//! MatMulNBits: a matrix of 4- or 8-bit weights in blocks, unpacked inside ONNX Runtime's kernel.
//!
//! Written as the node itself with accuracy level 4: activations are rounded to int8 per block inside the kernel
//! (about 45 dB), which is what makes it fast; the exact levels run 8-bit weights at 0.1× the speed of float.

use crate::Error;
use crate::export::context::{Context, home, weight_key};
use crate::export::gemm;
use crate::model::Layer;
use crate::onnx::build;
use crate::plan::Choice;
use crate::quant::matmul_nbits;

/// Block for weights with one scale a channel or a tensor: the fastest measured.
pub const BLOCK: usize = 128;

/// Puts a MatMulNBits (and an Add for the bias) in the place of a MatMul or Gemm.
pub fn write<'a>(context: &mut Context<'a>, layer: &'a Layer, choice: &Choice) -> Result<(), Error> {
    let Some(weight) = layer.weight() else { return Ok(()) };
    let node = context.node(layer)?;
    let matrix = gemm::Matrix::of(node, weight);
    let key = format!("nbits|{}|{}", weight_key(weight, choice), matrix.alpha);
    let quantized = context.quantized(layer, weight, choice)?;
    let packed = matmul_nbits(&quantized, BLOCK);
    let name = &weight.tensor;
    let blocks = matrix.depth.div_ceil(packed.block.max(1)) as i64;
    let bytes = i64::from(packed.block as u32 * packed.bits / 8);
    let columns = matrix.columns as i64;
    let (b, scales, zero_points) = match context.patch.made(home(layer, weight), &key) {
        Some(made) => {
            let mut parts = made.split('\n').map(str::to_owned);
            (parts.next().unwrap_or_default(), parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
        }
        None => {
            let mut store = context.store(layer, weight);
            let b = store.uint8(&format!("{name}_q{}", packed.bits), &[columns, blocks, bytes], &packed.packed);
            let scaled: Vec<f32> = packed.scales.iter().map(|&scale| scale * matrix.alpha).collect();
            let scales = store.float32(&format!("{name}_scale"), &[columns * blocks], &scaled);
            let zero_points = packed.zero_points.as_ref().map_or_else(String::new, |values| {
                store.uint8(&format!("{name}_zero_point"), &[values.len() as i64], values)
            });
            context.patch.remember(home(layer, weight), &key, &format!("{b}\n{scales}\n{zero_points}"));
            (b, scales, zero_points)
        }
    };
    let output = layer.output.clone();
    let bias = matrix.bias(context, layer)?;
    let product = if bias.is_some() { context.patch.fresh(&format!("{output}_product")) } else { output.clone() };
    let mut inputs = vec![node.input.first().cloned().unwrap_or_default(), b, scales];
    if !zero_points.is_empty() {
        inputs.push(zero_points);
    }
    let attributes = vec![
        build::attr_int("K", matrix.depth as i64),
        build::attr_int("N", columns),
        build::attr_int("bits", i64::from(packed.bits)),
        build::attr_int("block_size", packed.block as i64),
        build::attr_int("accuracy_level", 4),
    ];
    let mut nodes =
        vec![context.microsoft("MatMulNBits", node.name(), &inputs, std::slice::from_ref(&product), attributes)];
    if let Some(bias) = bias {
        let name = context.patch.fresh(&format!("{}/bias", node.name()));
        nodes.push(build::node("Add", "", &name, &[product, bias], &[output], Vec::new()));
    }
    context.patch.graph(&layer.path.bodies).replace(layer.path.node, nodes);
    Ok(())
}
