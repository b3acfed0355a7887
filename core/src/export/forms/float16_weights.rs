//! Storage only: float16 weights that a Cast turns back into float32 when the file loads.

use crate::Error;
use crate::export::context::{Context, dims};
use crate::export::forms::WriteForm;
use crate::model::{Layer, Weight};
use crate::onnx::build;
use crate::onnx::proto::tensor_proto::DataType;
use crate::plan::Choice;
use crate::quant::to_float16;

/// The form.
pub struct Float16Weights;

impl WriteForm for Float16Weights {
    /// Lets `layer` read its weights from stored float16 values, which must fit.
    fn write<'a>(&self, context: &mut Context<'a>, layer: &'a Layer, _: &Choice) -> Result<(), Error> {
        for weight in layer.weights.iter().filter(|weight| weight.is_f32) {
            let key = format!("float16|{}", weight.tensor);
            let made = context.once(layer, weight, &key, |context| {
                let half = to_float16(&context.model.weight(layer, weight)?);
                let mut store = context.store(layer, weight);
                let name = store.patch.fresh(&format!("{}_float16", weight.tensor));
                let tensor = build::tensor_f16(&name, &dims(&weight.shape), &half.values);
                store.patch.graph(store.bodies).push_initializer(tensor);
                Ok(vec![store.cast(&name, DataType::Float, &format!("{}_float32", weight.tensor))])
            })?;
            if let Some(tensor) = made.first() {
                context.patch.graph(&layer.path.bodies).set_input(layer.path.node, weight.input, tensor);
            }
        }
        Ok(())
    }

    fn weight_bytes(&self, weight: &Weight, _: &Choice) -> u64 {
        weight.layout.len() as u64 * 2
    }

    fn stays_float(&self) -> bool {
        true
    }
}
