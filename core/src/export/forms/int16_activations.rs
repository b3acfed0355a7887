//! 16-bit activations, as 16x8 schemes of other runtimes have them: simulated, since no CPU kernel computes with them.
//!
//! Weights are stored as integers and fold to floating point when the file loads; the layer's input passes a uint16
//! QuantizeLinear and DequantizeLinear; a float kernel computes. A DequantizeLinear on the weights would be the plainer
//! form, but ONNX Runtime turns DequantizeLinear → MatMul into MatMulNBits, whose kernel rounds activations to 8 bits
//! unless a session option forbids it: about 200 of the 65 536 steps of error instead of one.

use super::folded_weights::FoldedWeights;
use crate::Error;
use crate::export::boundaries::rounded_name;
use crate::export::context::Context;
use crate::export::forms::WriteForm;
use crate::model::{Layer, Weight};
use crate::plan::Choice;

/// The form.
pub struct Int16Activations;

impl WriteForm for Int16Activations {
    fn write<'a>(&self, context: &mut Context<'a>, layer: &'a Layer, choice: &Choice) -> Result<(), Error> {
        FoldedWeights.write(context, layer, choice)?;
        let statics = context.statics.clone();
        if let Some(input) = statics.as_ref().and_then(|statics| statics.rounds.get(&layer.path.node)) {
            let input = rounded_name(input);
            // Of every operator that takes this form, the activation is the first input.
            context.patch.graph(&layer.path.bodies).set_input(layer.path.node, 0, &input);
        }
        Ok(())
    }

    fn weight_bytes(&self, weight: &Weight, choice: &Choice) -> u64 {
        FoldedWeights.weight_bytes(weight, choice)
    }

    fn node_bytes(&self, weight: &Weight, choice: &Choice, opset: i64) -> u64 {
        FoldedWeights.node_bytes(weight, choice, opset)
    }

    fn layer_bytes(&self, layer: &Layer) -> u64 {
        11 * layer.input.len().min(48) as u64 + 340
    }

    fn needs_statistics(&self) -> bool {
        true
    }

    fn stays_float(&self) -> bool {
        true
    }
}
