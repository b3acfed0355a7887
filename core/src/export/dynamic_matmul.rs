//! DynamicQuantizeMatMul: int8 weights, activations quantized as a whole tensor while running.

use crate::Error;
use crate::export::context::{Context, home, weight_key};
use crate::export::gemm::Matrix;
use crate::model::Layer;
use crate::plan::{Choice, Granularity};

/// Puts a DynamicQuantizeMatMul in the place of a MatMul or Gemm.
pub fn write<'a>(context: &mut Context<'a>, layer: &'a Layer, choice: &Choice) -> Result<(), Error> {
    let Some(weight) = layer.weight() else { return Ok(()) };
    let node = context.node(layer)?;
    let matrix = Matrix::of(node, weight);
    // The kernel knows one scale a tensor or a column; the plan's checks have turned blocks into channels.
    debug_assert!(!matches!(choice.granularity, Granularity::Block(_)));
    let key = format!("dynamic|{}|{}", weight_key(weight, choice), matrix.alpha);
    let made = match context.patch.made(home(layer, weight), &key) {
        Some(made) => made,
        None => {
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
            let made = format!("{b}\n{scale}\n{zero_point}");
            context.patch.remember(home(layer, weight), &key, &made);
            made
        }
    };
    let mut inputs = vec![node.input.first().cloned().unwrap_or_default()];
    inputs.extend(made.split('\n').map(str::to_owned));
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
