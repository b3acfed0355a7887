//! The few choices that decide what a mixture of widths gives, run one by one.
//!
//! By how much slopes are off differs from layer to layer (a standard deviation of 1.5 dB on an image classifier). Where the loudest layers make
//! most of a plan's noise, their errors do not average out: 32 to 64 runs take the rank correlation of its random mixtures
//! from 0.64 to 0.90.

use super::one_by_one::alone;
use super::{Reference, Sensitivity, candidates};
use crate::model::{Layer, Model};
use crate::plan::{Choice, preset};
use crate::stats::Stats;
use crate::{Control, Error};

/// Most choices that are run.
const MOST: usize = 64;
/// Share of the noise of int4 weights everywhere from which on a choice is loud.
const LOUD: f64 = 0.03;

impl Sensitivity {
    /// Runs the candidates whose weights make most noise, each by itself; nothing where none stands out.
    pub fn measure_loudest(
        &mut self,
        model: &Model,
        reference: &Reference<'_>,
        stats: Option<&Stats>,
        control: &Control,
    ) -> Result<(), Error> {
        let plan = model.preset_plan(preset("int4-weights")?)?;
        let picks = self.picks(model, &plan, stats);
        let whole = self.parts(model, &picks, stats).total(None);
        let mut loud: Vec<(&Layer, Choice, f64)> = Vec::new();
        for layer in model.layers.iter().filter(|layer| layer.quantizable()) {
            let wished = candidates(model, layer, stats);
            self.cover(model, layer, &wished.iter().map(|pick| pick.choice).collect::<Vec<_>>());
            let choices = alone(model, layer, &wished, stats).into_iter();
            loud.extend(choices.filter_map(|choice| {
                let noise = self.weight_noise(&layer.name, &choice)?.total;
                (noise > LOUD * whole).then_some((layer, choice, noise))
            }));
        }
        loud.sort_by(|a, b| b.2.total_cmp(&a.2));
        loud.truncate(MOST);
        let mut measured = 0;
        for (at, (layer, choice, _)) in loud.iter().enumerate() {
            control.check()?;
            control.progress("Measuring the loudest choices", at as u64, loud.len() as u64);
            measured += usize::from(self.measure_choice(model, layer, choice, reference, stats, control)?);
        }
        if measured > 0 {
            self.notes
                .push(format!("The {measured} choices for weights that make most noise were measured one by one"));
            self.compare_checks(model, stats)?;
        }
        Ok(())
    }
}
