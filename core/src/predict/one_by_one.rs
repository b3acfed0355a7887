//! Where slopes do not hold: weights and activations rounded one at a time in the runtime.
//!
//! What a weight or an activation does when it is rounded to 8 bits, against what its slopes say, corrects the slopes of
//! all its values by one factor. Other widths, ranges and blocks are still told apart by the slopes.

use super::prediction::Part;
use super::rounded::with_rounding;
use super::sensitivity::WeightKey;
use super::{Reference, Sensitivity, TensorSensitivity, candidates};
use crate::export::{Pick, Rounding, pick, roundings};
use crate::model::{Layer, Model};
use crate::plan::{Activation, Choice, Clip, Mode, Set, preset};
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
/// Of what a layer's weights and its kernel's rounding make together, the least share that is left to the weights.
const LEAST_OF_WEIGHTS: f64 = 0.05;
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
            let choices = alone(model, layer, &candidates(model, layer, stats), stats);
            trials.extend(choices.into_iter().map(|choice| (layer, choice)));
        }
        if trials.len() > MOST_TRIALS {
            return Ok(false);
        }
        let count = trials.len();
        for (at, (layer, choice)) in trials.into_iter().enumerate() {
            control.check()?;
            control.progress("Measuring candidates one by one", at as u64, count as u64);
            self.cover(model, layer, &[choice]);
            self.measure_choice(model, layer, &choice, reference, stats, control)?;
        }
        for (clip, stats) in [Clip::MinMax, Clip::Mse].into_iter().zip(stats.into_iter().cycle()) {
            let mut plan = model.preset_plan(preset("int8")?)?;
            let names = model.layers.iter().map(|layer| layer.name.as_str());
            plan.set_layers(names, &Set { activation_clip: Some(clip), ..Set::default() });
            let picks = self.picks(model, &plan, Some(stats));
            self.measure_activations(model, &roundings(model, &picks, stats), 0.0, reference, control)?;
        }
        self.compare_checks(model, stats)?;
        Ok(true)
    }

    /// Runs the model with one layer's weights quantized, and keeps the noise and the error itself; whether it could be run.
    pub(super) fn measure_choice(
        &mut self,
        model: &Model,
        layer: &Layer,
        choice: &Choice,
        reference: &Reference<'_>,
        stats: Option<&Stats>,
        control: &Control,
    ) -> Result<bool, Error> {
        let errors = reference.layer_errors(layer, choice, stats, self.signal, control);
        let Some((sqnr, Some(error))) = skip(errors)? else { return Ok(false) };
        let Some(noise) = self.noise_of(sqnr) else { return Ok(false) };
        // What the kernel rounds by itself is counted by itself.
        let kernel = self.kernel_noise(layer, &pick(model, layer, *choice, stats)).unwrap_or(0.0);
        let noise = (noise - kernel).max(LEAST_OF_WEIGHTS * noise);
        self.set_weight_error(layer, choice, noise.max(FLOOR * self.signal), error);
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
            if self.together.of_activation(rounding).is_some() {
                continue;
            }
            let is_first = !self.together.knows(&rounding.tensor);
            let noise = tensor.noise(&rounding.params, rounding.readers.as_deref()).total;
            if noise < LEAST_SHARE * whole || names.contains(&rounding.tensor) {
                continue;
            }
            let Some(proto) = with_rounding(model, rounding) else { continue };
            let measured = skip(reference.errors(&proto, self.signal, control))?;
            let (power, error) = measured.map_or((None, None), |(sqnr, error)| (self.noise_of(sqnr), error));
            let Some(factor) = self.factor(power, noise) else { continue };
            if let Some(error) = error {
                self.together.keep_activation(rounding, error);
            }
            if let Some(tensor) = self.tensors.get_mut(&rounding.tensor).filter(|_| is_first) {
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

/// What the candidates `wished` for a layer do to its weights alone, each once: choices that round nothing else.
pub(super) fn alone(model: &Model, layer: &Layer, wished: &[Pick], stats: Option<&Stats>) -> Vec<Choice> {
    let mut keys: Vec<WeightKey> = Vec::new();
    let mut choices = Vec::new();
    for wished in wished {
        let alone = Choice { mode: Mode::WeightOnly, activation: Activation::Float32, ..wished.choice };
        let alone = pick(model, layer, alone, stats);
        let key = WeightKey::of(&wished.choice);
        if key == WeightKey::of(&alone.choice) && !keys.contains(&key) {
            keys.push(key);
            choices.push(alone.choice);
        }
    }
    choices
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
