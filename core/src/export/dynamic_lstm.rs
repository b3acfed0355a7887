//! DynamicQuantizeLSTM: int8 input and recurrence matrices, activations quantized while running.

use crate::Error;
use crate::export::context::{Context, home, weight_key};
use crate::model::{Layer, Weight};
use crate::plan::Choice;

/// Puts a DynamicQuantizeLSTM in the place of an LSTM.
///
/// Inputs: X, W, R, B, sequence_lens, initial_h, initial_c, P, then scale and zero point of W and of R. The kernel wants
/// the matrices as `[directions, inputs, 4·hidden]`, scales `[directions]` or `[directions, 4·hidden]`.
pub fn write<'a>(context: &mut Context<'a>, layer: &'a Layer, choice: &Choice) -> Result<(), Error> {
    let node = context.node(layer)?;
    let mut inputs: Vec<String> = node.input.clone();
    inputs.resize(8, String::new());
    let mut parameters = Vec::new();
    for weight in &layer.weights {
        let made = matrix(context, layer, weight, choice)?;
        let mut parts = made.split('\n').map(str::to_owned);
        if let Some(slot) = inputs.get_mut(weight.input) {
            *slot = parts.next().unwrap_or_default();
        }
        parameters.extend(parts);
    }
    inputs.extend(parameters);
    let attributes: Vec<_> = node.attribute.iter().filter(|a| a.name() != "layout").cloned().collect();
    let name = node.name().to_owned();
    let outputs = node.output.clone();
    let replaced = context.microsoft("DynamicQuantizeLSTM", &name, &inputs, &outputs, attributes);
    context.patch.graph(&layer.path.bodies).replace(layer.path.node, vec![replaced]);
    Ok(())
}

fn matrix<'a>(context: &mut Context<'a>, layer: &'a Layer, weight: &Weight, choice: &Choice) -> Result<String, Error> {
    let key = format!("lstm|{}", weight_key(weight, choice));
    if let Some(made) = context.patch.made(home(layer, weight), &key) {
        return Ok(made);
    }
    let quantized = context.quantized(layer, weight, choice)?;
    let [directions, rows, depth] = weight.shape[..] else {
        return Err(crate::onnx::OnnxError::Tensor {
            tensor: weight.tensor.clone(),
            reason: "an LSTM weight has three dimensions".to_owned(),
        }
        .into());
    };
    let turned: Vec<i8> = (0..directions * rows * depth)
        .map(|at| {
            let (direction, row, column) = (at / (rows * depth), at % rows, at / rows % depth);
            quantized.values.get((direction * rows + row) * depth + column).copied().unwrap_or(0)
        })
        .collect();
    // One scale a tensor is written once a direction: the kernel has no scalar form.
    let (groups, repeat) = if quantized.scales.len() == 1 {
        (vec![directions as i64], directions)
    } else {
        (vec![directions as i64, rows as i64], 1)
    };
    let name = &weight.tensor;
    let mut store = context.store(layer, weight);
    let values = store.int8(&format!("{name}_int8"), &[directions as i64, depth as i64, rows as i64], &turned);
    let scale = store.float32(&format!("{name}_scale"), &groups, &quantized.scales.repeat(repeat));
    let zero_point = store.int8(&format!("{name}_zero_point"), &groups, &quantized.zero_points.repeat(repeat));
    let made = format!("{values}\n{scale}\n{zero_point}");
    context.patch.remember(home(layer, weight), &key, &made);
    Ok(made)
}
