//! DynamicQuantizeMatMul: int8 weights, activations quantized as a whole tensor while running.

use crate::Error;
use crate::export::context::Context;
use crate::export::forms::WriteForm;
use crate::export::matrix::Matrix;
use crate::export::size::written;
use crate::export::stored::unpacking_bytes;
use crate::model::{Layer, Weight};
use crate::plan::{Choice, Granularity};

/// The form.
pub struct DynamicMatmul;

impl WriteForm for DynamicMatmul {
    fn write<'a>(&self, context: &mut Context<'a>, layer: &'a Layer, choice: &Choice) -> Result<(), Error> {
        write(context, layer, choice)
    }

    fn node_bytes(&self, weight: &Weight, choice: &Choice, opset: i64) -> u64 {
        3 * written(&weight.tensor) + 60 + unpacking_bytes(weight, choice, opset)
    }
}

/// Puts a DynamicQuantizeMatMul in the place of a MatMul or Gemm.
fn write<'a>(context: &mut Context<'a>, layer: &'a Layer, choice: &Choice) -> Result<(), Error> {
    let Some(weight) = layer.weight() else { return Ok(()) };
    let node = context.node(layer)?;
    let matrix = Matrix::of(node, weight);
    // The kernel knows one scale a tensor or a column; `pick` has turned blocks into channels.
    debug_assert!(!matches!(choice.granularity, Granularity::Block(_)));
    let key = format!("dynamic|{}|{}", context.weight_key(weight, choice), matrix.alpha);
    let made = context.once(layer, weight, &key, |context| {
        let quantized = context.quantized(layer, weight, choice)?;
        let rows = matrix.rows(&quantized.values);
        let name = &weight.tensor;
        let mut store = context.store(layer, weight);
        let dims = [matrix.depth as i64, matrix.columns as i64];
        let b = store.integers(quantized.bits, name, &dims, &rows);
        let groups: &[i64] = if quantized.scales.len() == 1 { &[] } else { &[matrix.columns as i64] };
        let scaled: Vec<f32> = quantized.scales.iter().map(|&scale| scale * matrix.alpha).collect();
        let scale = store.float32(&format!("{name}_scale"), groups, &scaled);
        let zero_point = store.int8(&format!("{name}_zero_point"), groups, &quantized.zero_points);
        Ok(vec![b, scale, zero_point])
    })?;
    let mut inputs = vec![node.input.first().cloned().unwrap_or_default()];
    inputs.extend(made);
    let mut nodes = Vec::new();
    let output = layer.output.clone();
    // The kernel takes a bias of one value a column; any other shape is added behind.
    let bias = matrix.bias(context, layer)?;
    let is_vector = layer
        .bias
        .as_ref()
        .and_then(|name| context.model.initializer(layer, name))
        .is_some_and(|tensor| tensor.dims == [matrix.columns as i64]);
    match bias {
        Some(bias) if !is_vector => {
            let product = context.patch.fresh(&format!("{output}_product"));
            nodes.push(context.microsoft(
                "DynamicQuantizeMatMul",
                node.name(),
                &inputs,
                std::slice::from_ref(&product),
                Vec::new(),
            ));
            let name = context.patch.fresh(&format!("{}/bias", node.name()));
            nodes.push(crate::onnx::build::node("Add", "", &name, &[product, bias], &[output], Vec::new()));
        }
        bias => {
            inputs.extend(bias);
            nodes.push(context.microsoft("DynamicQuantizeMatMul", node.name(), &inputs, &[output], Vec::new()));
        }
    }
    context.patch.graph(&layer.path.bodies).replace(layer.path.node, nodes);
    Ok(())
}
