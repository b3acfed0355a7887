//! MatMulNBits: a matrix of 4- or 8-bit weights in blocks, unpacked inside ONNX Runtime's kernel.
//!
//! Written as the node itself with accuracy level 4: activations are rounded to int8 per block inside the kernel
//! (about 45 dB), which is what makes it fast; the exact levels run 8-bit weights at 0.1× the speed of float.

use crate::Error;
use crate::export::context::Context;
use crate::export::forms::{WriteForm, has_zero_points};
use crate::export::matrix::Matrix;
use crate::model::{Layer, Weight};
use crate::onnx::build;
use crate::plan::{Choice, Granularity};
use crate::quant::matmul_nbits;

/// Block for weights with one scale a channel or a tensor: the fastest measured.
const BLOCK: usize = 128;

/// The form.
pub struct MatmulNbits;

impl WriteForm for MatmulNbits {
    /// Puts a MatMulNBits (and an Add for the bias) in the place of a MatMul or Gemm.
    fn write<'a>(&self, context: &mut Context<'a>, layer: &'a Layer, choice: &Choice) -> Result<(), Error> {
        let Some(weight) = layer.weight() else { return Ok(()) };
        let node = context.node(layer)?;
        let matrix = Matrix::of(node, weight);
        let key = format!("nbits|{}|{}", context.weight_key(weight, choice), matrix.alpha);
        let (block, bits) = (block(choice), choice.precision.bits());
        let blocks = matrix.depth.div_ceil(block) as i64;
        let columns = matrix.columns as i64;
        let made = context.once(layer, weight, &key, |context| {
            let packed = matmul_nbits(&*context.quantized(layer, weight, choice)?, block);
            let name = &weight.tensor;
            let bytes = i64::from(packed.block as u32 * packed.bits / 8);
            let mut store = context.store(layer, weight);
            let b = store.uint8(&format!("{name}_q{bits}"), &[columns, blocks, bytes], &packed.packed);
            let scaled: Vec<f32> = packed.scales.iter().map(|&scale| scale * matrix.alpha).collect();
            let scales = store.float32(&format!("{name}_scale"), &[columns * blocks], &scaled);
            let zero_points = packed
                .zero_points
                .as_ref()
                .map(|values| store.uint8(&format!("{name}_zero_point"), &[values.len() as i64], values));
            Ok([b, scales].into_iter().chain(zero_points).collect())
        })?;
        let output = layer.output.clone();
        let bias = matrix.bias(context, layer)?;
        let product = if bias.is_some() { context.patch.fresh(&format!("{output}_product")) } else { output.clone() };
        let mut inputs = vec![node.input.first().cloned().unwrap_or_default()];
        inputs.extend(made);
        let attributes = vec![
            build::attr_int("K", matrix.depth as i64),
            build::attr_int("N", columns),
            build::attr_int("bits", i64::from(bits)),
            build::attr_int("block_size", block as i64),
            build::attr_int("accuracy_level", 4),
        ];
        let product_slot = std::slice::from_ref(&product);
        let mut nodes = vec![context.microsoft("MatMulNBits", node.name(), &inputs, product_slot, attributes)];
        if let Some(bias) = bias {
            let name = context.patch.fresh(&format!("{}/bias", node.name()));
            nodes.push(build::node("Add", "", &name, &[product, bias], &[output], Vec::new()));
        }
        context.patch.graph(&layer.path.bodies).replace(layer.path.node, nodes);
        Ok(())
    }

    fn weight_bytes(&self, weight: &Weight, choice: &Choice) -> u64 {
        let (channels, depth) = (weight.layout.channels as u64, weight.layout.depth() as u64);
        let (block, bits) = (block(choice) as u64, u64::from(choice.precision.bits()));
        let blocks = depth.div_ceil(block);
        let zero_points = if has_zero_points(choice) { channels * (blocks * bits).div_ceil(8) } else { 0 };
        channels * blocks * block * bits / 8 + channels * blocks * 4 + zero_points
    }
}

/// Weights that share a scale in the kernel.
fn block(choice: &Choice) -> usize {
    match choice.granularity {
        Granularity::Block(size) => (size as usize).max(1),
        _ => BLOCK,
    }
}
