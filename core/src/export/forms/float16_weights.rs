//! Storage only: float16 weights that a Cast turns back into float32 when the file loads.

use crate::Error;
use crate::Problem;
use crate::export::context::{Context, dims};
use crate::export::forms::WriteForm;
use crate::model::{Layer, Weight};
use crate::onnx::build;
use crate::onnx::proto::tensor_proto::DataType;
use crate::plan::Choice;
use crate::problem::Severity;
use crate::quant::to_float16;

/// The form.
pub struct Float16Weights;

impl WriteForm for Float16Weights {
    /// Lets `layer` read its weights from stored float16 values. Weights that do not fit float16 stay as they are.
    fn write<'a>(&self, context: &mut Context<'a>, layer: &'a Layer, _: &Choice) -> Result<(), Error> {
        let mut overflowing = 0;
        for weight in layer.weights.iter().filter(|weight| weight.is_f32) {
            let key = format!("float16|{}", weight.tensor);
            let made = context.once(layer, weight, &key, |context| {
                let values = context.model.weight(layer, weight)?;
                let half = to_float16(&values);
                overflowing += half.saturated;
                if half.saturated > 0 {
                    return Ok(Vec::new());
                }
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
        if overflowing > 0 {
            context.problems.push(Problem::new(
                Severity::Warning,
                "Kept in float32",
                layer.name.as_str(),
                format!("{overflowing} weights are beyond float16's largest value, 65 504"),
                "Choose int8 for this layer",
            ));
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
