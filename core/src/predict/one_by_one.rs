//! Where slopes do not hold: weights and activations rounded one at a time in the runtime.
//!
//! What a weight or an activation does when it is rounded to 8 bits, against what its slopes say, corrects the slopes of
//! all its values by one factor. Other widths, ranges and blocks are still told apart by the slopes.

use super::prediction::Part;
use super::rounded::with_rounding;
use super::sensitivity::WeightKey;
use super::{Reference, Sensitivity, TensorSensitivity, candidates};
use crate::export::{Form, Pick, Rounding, pick, roundings};
use crate::model::{Layer, Model};
use crate::plan::{Activation, Choice, Mode, preset};
use crate::stats::Stats;
use crate::{Control, Error};

/// Sums further off than this for uniform plans, in dB, have layers measured one by one.
const TOLERANCE_DB: f64 = 3.0;
/// Share of a plan's noise from which on what activations make is told apart from what weights make.
const CLEAR_SHARE: f64 = 0.4;
/// Expected of activations alone, so many times the noise of the whole plan shows that slopes do not hold.
const OVERSHOOT: f64 = 2.0;
/// Of what a uniform plan makes in all, the least share that is expected of a layer worth measuring.
const LEAST_SHARE: f64 = 0.003;
/// Runs of single layers that are few enough to try all of them.
const MOST_TRIALS: usize = 256;
/// Below this share of the signal the runtime's own rounding is measured.
const FLOOR: f64 = 1e-11;

impl Sensitivity {
    /// Measures the weights and the activations that matter, each by itself, where the uniform plans that [`Self::check`]
    /// ran part from their sums.
    pub fn measure_one_by_one(
        &mut self,
        model: &Model,
        reference: &Reference<'_>,
        stats: Option<&Stats>,
        control: &Control,
    ) -> Result<(), Error> {
        let Some(weights) = self.noise_of_check("int8-weights") else { return Ok(()) };
        let plan = model.preset_plan(preset("int8-weights")?)?;
        let picks = self.picks(model, &plan, stats);
        let expected = self.parts(model, &picks, stats).total(Some(Part::Weights));
        let mut changed = false;
        if is_off(expected, weights) {
            self.measure_weights(model, &picks, weights, reference, stats, control)?;
            changed = true;
        }
        if let (Some(stats), Some(all)) = (stats, self.noise_of_check("int8")) {
            let plan = model.preset_plan(preset("int8")?)?;
            let picks = self.picks(model, &plan, Some(stats));
            let expected = self.parts(model, &picks, Some(stats)).total(Some(Part::Activation));
            // What both uniform plans leave for the activations; a small difference of two figures says nothing.
            let activations = all - weights;
            if activations > CLEAR_SHARE * all && is_off(expected, activations) || expected > OVERSHOOT * all {
                let rounded = roundings(model, &picks, stats);
                self.measure_activations(model, &rounded, activations.max(0.1 * all), reference, control)?;
                changed = true;
            }
        }
        if changed {
            self.compare_checks(model, stats)?;
        }
        Ok(())
    }

    /// Runs every candidate's weights and every activation, each by itself, where that is few runs; whether it was.
    pub fn measure_candidates(
        &mut self,
        model: &Model,
        reference: &Reference<'_>,
        stats: Option<&Stats>,
        control: &Control,
    ) -> Result<bool, Error> {
        let mut trials: Vec<(&Layer, Choice)> = Vec::new();
        for layer in model.layers.iter().filter(|layer| layer.quantizable()) {
            let mut keys: Vec<WeightKey> = Vec::new();
            for wished in candidates(model, layer, stats) {
                let alone = Choice { mode: Mode::WeightOnly, activation: Activation::Float32, ..wished.choice };
                let alone = pick(model, layer, alone, stats);
                let key = WeightKey::of(&wished.choice);
                // A kernel that rounds its input has that counted by itself.
                if key == WeightKey::of(&alone.choice) && alone.form != Form::MatmulNbits && !keys.contains(&key) {
                    keys.push(key);
                    trials.push((layer, alone.choice));
                }
            }
        }
        if trials.len() > MOST_TRIALS {
            return Ok(false);
        }
        let count = trials.len();
        for (at, (layer, choice)) in trials.into_iter().enumerate() {
            control.check()?;
            control.progress("Measuring candidates one by one", at as u64, count as u64);
            self.cover(model, layer, &[choice]);
            let Some(sqnr) = skip(reference.measure_layer(layer, &choice, stats, control))? else { continue };
            let Some(noise) = self.noise_of(sqnr) else { continue };
            self.set_weight_noise(layer, &choice, noise.max(FLOOR * self.signal));
        }
        if let Some(stats) = stats {
            let plan = model.preset_plan(preset("int8")?)?;
            let picks = self.picks(model, &plan, Some(stats));
            self.measure_activations(model, &roundings(model, &picks, stats), 0.0, reference, control)?;
        }
        self.compare_checks(model, stats)?;
        Ok(true)
    }

    fn noise_of_check(&self, preset: &str) -> Option<f64> {
        let check = self.checks.iter().find(|check| check.preset == preset)?;
        Some(self.signal * 10_f64.powf(-check.measured_db / 10.0))
    }

    fn measure_weights(
        &mut self,
        model: &Model,
        picks: &[Pick],
        whole: f64,
        reference: &Reference<'_>,
        stats: Option<&Stats>,
        control: &Control,
    ) -> Result<(), Error> {
        let mut names = Vec::new();
        for (at, (layer, pick)) in model.layers.iter().zip(picks).enumerate() {
            control.check()?;
            control.progress("Measuring weights one by one", at as u64, picks.len() as u64);
            let by_gradients = self.layers.get(&layer.name).is_some_and(|known| !known.measured);
            let Some(noise) = self.weight_noise(&layer.name, &pick.choice).filter(|_| by_gradients) else { continue };
            if noise.total < LEAST_SHARE * whole {
                continue;
            }
            let choice = Choice { rounding: crate::plan::Rounding::Nearest, ..pick.choice };
            let Some(factor) = skip(reference.measure_layer(layer, &choice, stats, control))?
                .and_then(|sqnr| self.factor(self.noise_of(sqnr), noise.total))
            else {
                continue;
            };
            self.scale_weights(layer, factor);
            names.push(layer.name.clone());
        }
        self.note_measured("weights", &names);
        Ok(())
    }

    fn measure_activations(
        &mut self,
        model: &Model,
        rounded: &[Rounding],
        whole: f64,
        reference: &Reference<'_>,
        control: &Control,
    ) -> Result<(), Error> {
        let mut names = Vec::new();
        for (at, rounding) in rounded.iter().enumerate() {
            control.check()?;
            control.progress("Measuring activations one by one", at as u64, rounded.len() as u64);
            let Some(tensor) = self.tensors.get(&rounding.tensor) else { continue };
            let noise = tensor.noise(&rounding.params, rounding.readers.as_deref()).total;
            if noise < LEAST_SHARE * whole || names.contains(&rounding.tensor) {
                continue;
            }
            let Some(proto) = with_rounding(model, rounding) else { continue };
            let quality = skip(reference.quality(&proto, control))?;
            let measured = quality.and_then(|quality| self.noise_of(quality.sqnr_db));
            let Some(factor) = self.factor(measured, noise) else { continue };
            if let Some(tensor) = self.tensors.get_mut(&rounding.tensor) {
                tensor.scale(factor);
                names.push(rounding.tensor.clone());
            }
        }
        self.note_measured("activations", &names);
        Ok(())
    }

    fn factor(&self, measured: Option<f64>, expected: f64) -> Option<f64> {
        let factor = measured?.max(FLOOR * self.signal) / expected;
        (factor.is_finite() && factor > 0.0).then_some(factor)
    }

    fn note_measured(&mut self, what: &str, names: &[String]) {
        if !names.is_empty() {
            let count = names.len();
            self.notes.push(format!("The noise of {count} {what} was measured one by one, and not taken from slopes"));
        }
    }
}

/// What could not be run is left as it is.
fn skip<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Error::Cancelled) => Err(Error::Cancelled),
        Err(_) => Ok(None),
    }
}

fn is_off(expected: f64, measured: f64) -> bool {
    expected > 0.0 && measured > 0.0 && (10.0 * (measured / expected).log10()).abs() > TOLERANCE_DB
}

impl TensorSensitivity {
    /// Lets all that is known of the activation count `factor` times.
    fn scale(&mut self, factor: f64) {
        self.gram.iter_mut().for_each(|sum| *sum *= factor);
        self.all.scale(factor);
        if let Some(layers) = &mut self.layers {
            layers.scale(factor);
        }
        self.dynamic *= factor;
        self.blocks.iter_mut().for_each(|(_, noise)| *noise *= factor);
    }
}
