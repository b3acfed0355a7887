//! DynamicQuantizeLSTM: int8 input and recurrence matrices, activations quantized while running.

use crate::Error;
use crate::export::context::Context;
use crate::export::forms::WriteForm;
use crate::model::{Layer, Weight};
use crate::plan::Choice;

/// The form.
pub struct DynamicLstm;

impl WriteForm for DynamicLstm {
    /// Puts a DynamicQuantizeLSTM in the place of an LSTM.
    ///
    /// Inputs: X, W, R, B, sequence_lens, initial_h, initial_c, P, then scale and zero point of W and of R. The kernel
    /// wants the matrices as `[directions, inputs, 4·hidden]`, scales `[directions]` or `[directions, 4·hidden]`.
    fn write<'a>(&self, context: &mut Context<'a>, layer: &'a Layer, choice: &Choice) -> Result<(), Error> {
        let node = context.node(layer)?;
        let mut inputs: Vec<String> = node.input.clone();
        inputs.resize(8, String::new());
        let mut parameters = Vec::new();
        for weight in &layer.weights {
            let mut made = matrix(context, layer, weight, choice)?.into_iter();
            if let Some(slot) = inputs.get_mut(weight.input) {
                *slot = made.next().unwrap_or_default();
            }
            parameters.extend(made);
        }
        inputs.extend(parameters);
        let attributes: Vec<_> = node.attribute.iter().filter(|a| a.name() != "layout").cloned().collect();
        let name = node.name().to_owned();
        let outputs = node.output.clone();
        let replaced = context.microsoft("DynamicQuantizeLSTM", &name, &inputs, &outputs, attributes);
        context.patch.graph(&layer.path.bodies).replace(layer.path.node, vec![replaced]);
        Ok(())
    }
}

/// The turned integers of a matrix, their scales and zero points.
fn matrix<'a>(
    context: &mut Context<'a>,
    layer: &'a Layer,
    weight: &Weight,
    choice: &Choice,
) -> Result<Vec<String>, Error> {
    let key = format!("lstm|{}", context.weight_key(weight, choice));
    context.once(layer, weight, &key, |context| turned(context, layer, weight, choice))
}

fn turned<'a>(
    context: &mut Context<'a>,
    layer: &'a Layer,
    weight: &Weight,
    choice: &Choice,
) -> Result<Vec<String>, Error> {
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
    Ok(vec![values, scale, zero_point])
}
