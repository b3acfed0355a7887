//! Computed in half precision, with float32 at the model's inputs and outputs.
//!
//! What lies between such layers follows them (see `half_precision`), so that a graph whose layers all have this form holds float16
//! throughout.

use super::float16_weights::Float16Weights;
use crate::Error;
use crate::export::context::Context;
use crate::export::forms::WriteForm;
use crate::model::{Layer, Weight};
use crate::plan::Choice;

/// The form.
pub struct Float16;

impl WriteForm for Float16 {
    /// Puts the layer into the region that is converted; its weights must fit.
    fn write<'a>(&self, context: &mut Context<'a>, layer: &'a Layer, _: &Choice) -> Result<(), Error> {
        context.half_layers.insert(layer.path.node);
        Ok(())
    }

    fn weight_bytes(&self, weight: &Weight, choice: &Choice) -> u64 {
        Float16Weights.weight_bytes(weight, choice)
    }
}
