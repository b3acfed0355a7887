//! The model with a plan's repairs in its layers.

use std::borrow::Cow;
use std::sync::Arc;

use super::{BiasSlot, LayerRepair, Repaired};
use crate::Error;
use crate::export::pick;
use crate::model::{Layer, Model};
use crate::plan::{Choice, Plan, Rounding};

impl Model {
    /// This model with the scalings of `plan` ([`Self::scaled`]) and the repairs that are in force: its layers carry the
    /// repaired integers, its prepared graph the repaired biases. Borrowed when there are none. The file, and with it the float reference, stays what it is.
    pub fn repaired(&self, plan: &Plan) -> Result<Cow<'_, Self>, Error> {
        let scaled = self.scaled(plan)?;
        let in_force = |(at, layer): (usize, &Layer)| -> Option<(usize, Arc<LayerRepair>)> {
            let repair = plan.repairs.get(&layer.name)?;
            let choice = plan.choice(&layer.name);
            let asked = choice.rounding == repair.method && repair.fits(layer);
            (asked && repair.serves(&pick(&scaled, layer, choice, None).choice)).then(|| (at, Arc::clone(repair)))
        };
        let repairs: Vec<_> = scaled.layers.iter().enumerate().filter_map(in_force).collect();
        if repairs.is_empty() {
            return Ok(scaled);
        }
        let mut model = scaled.into_owned();
        for (at, repair) in repairs {
            if let Some(values) = &repair.bias
                && let Some(layer) = model.layers.get(at)
                && let Some(slot) = BiasSlot::of(&model, layer)?
                && slot.values.len() == values.len()
            {
                slot.write(&mut model, at, values);
            }
            for (index, weight) in model.layers.get_mut(at).into_iter().flat_map(|l| &mut l.weights).enumerate() {
                weight.repaired = Some(Repaired { repair: Arc::clone(&repair), index });
            }
        }
        Ok(Cow::Owned(model))
    }
}

impl Layer {
    /// The repair that `choice` asks for, where it is in force.
    pub fn repair(&self, choice: &Choice) -> Option<&LayerRepair> {
        let repaired = self.weight()?.repaired.as_ref()?;
        repaired.repair.serves(choice).then_some(&*repaired.repair)
    }

    /// `choice` with `nearest` for a rounding whose repair is not there, and the rounding that was asked for.
    pub fn without_missing_repair(&self, choice: Choice) -> (Choice, Option<Rounding>) {
        if choice.rounding == Rounding::Nearest || self.repair(&choice).is_some() {
            return (choice, None);
        }
        (Choice { rounding: Rounding::Nearest, ..choice }, Some(choice.rounding))
    }
}

#[cfg(test)]
pub(super) mod tests;
