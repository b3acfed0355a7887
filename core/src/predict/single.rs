//! The truth: the model really quantized, in one layer or as a plan says, and run on a few samples.

use std::sync::Arc;

use super::Sensitivity;
use super::sensitivity::LayerSensitivity;
use super::together::{Folding, OutputErrors};
use crate::data::{DataSet, Sample};
use crate::error::{OutputError, OutputQuality, Sqnr};
use crate::export::{Form, export, pick};
use crate::model::{Layer, Model};
use crate::onnx::proto::ModelProto;
use crate::plan::{Activation, Choice, Mode, Plan, Precision};
use crate::runtime::{Runtime, Session, SessionOptions, Source, View};
use crate::stats::Stats;
use crate::tensor::Tensor;
use crate::{Control, Error};

/// The original's output on some samples, to compare quantized models with.
pub struct Reference<'a> {
    model: &'a Model,
    runtime: &'a Runtime,
    samples: Vec<(Sample, Tensor)>,
    output: String,
    options: SessionOptions,
    signal: f64,
}

impl<'a> Reference<'a> {
    /// Runs the original on the samples called `indices`.
    pub fn new(
        model: &'a Model,
        runtime: &'a Runtime,
        data: &DataSet,
        indices: &[usize],
        output: &str,
        threads: usize,
        control: &Control,
    ) -> Result<Self, Error> {
        let options = SessionOptions { threads, ..SessionOptions::default() };
        let mut session = Session::open(runtime, Source::File(&model.file.path), &options)?;
        let (mut samples, mut signal) = (Vec::new(), 0.0);
        for &index in indices {
            control.check()?;
            let sample = data.sample(index)?;
            let outputs = session.run(&sample, control)?;
            let found = outputs.into_iter().find(|found| found.name == output).and_then(|found| found.value);
            if let Some(tensor) = found {
                let values = tensor.values.to_f32().unwrap_or_default();
                signal += values.iter().map(|&y| f64::from(y) * f64::from(y)).sum::<f64>();
                samples.push((sample, tensor));
            }
        }
        Ok(Self { model, runtime, samples, output: output.to_owned(), options, signal })
    }

    /// Σ y² of the output, a sample.
    pub fn signal(&self) -> f64 {
        self.signal / self.samples.len().max(1) as f64
    }

    /// Exports `plan` in memory, runs it and compares.
    pub fn measure(&self, plan: &Plan, stats: Option<&Stats>, control: &Control) -> Result<Sqnr, Error> {
        Ok(self.outcome(plan, stats, control)?.sqnr_db)
    }

    /// [`Self::measure`] with all figures of the output.
    pub fn outcome(&self, plan: &Plan, stats: Option<&Stats>, control: &Control) -> Result<OutputQuality, Error> {
        self.quality(&export(self.model, stats, plan, control)?.proto, control)
    }

    /// Exports `plan` in memory and runs it: Σy² and Σ(y − ŷ)² of every sample by itself, as [`OutputError::sums`] has them.
    pub fn sums(
        &self,
        plan: &Plan,
        stats: Option<&Stats>,
        control: &Control,
    ) -> Result<Vec<Option<(f64, f64)>>, Error> {
        let proto = export(self.model, stats, plan, control)?.proto;
        let mut each = vec![OutputError::default(); self.samples.len()];
        self.run(&proto, control, |at, expected, view| {
            if let Some(error) = each.get_mut(at) {
                error.add_view(expected, view);
            }
        })?;
        Ok(each.iter().map(OutputError::sums).collect())
    }

    /// Exports `plan` in memory and runs it: the figures of the output, and how far they hang on the samples.
    pub fn trial(&self, plan: &Plan, stats: Option<&Stats>, control: &Control) -> Result<Trial, Error> {
        self.tried(&export(self.model, stats, plan, control)?.proto, control)
    }

    /// Runs what `export` made of the model and compares: all figures of the output.
    pub fn quality(&self, proto: &ModelProto, control: &Control) -> Result<OutputQuality, Error> {
        Ok(self.tried(proto, control)?.quality)
    }

    /// [`Self::quality`], with how far it hangs on the samples.
    pub fn tried(&self, proto: &ModelProto, control: &Control) -> Result<Trial, Error> {
        let mut error = OutputError::at_output();
        let mut sums: Vec<(f64, f64)> = Vec::with_capacity(self.samples.len());
        self.run(proto, control, |_, expected, view| {
            let before = error.sums().unwrap_or_default();
            error.add_view(expected, view);
            let after = error.sums().unwrap_or_default();
            sums.push((after.0 - before.0, after.1 - before.1));
        })?;
        let noises: Vec<f64> = sums.iter().map(|own| own.1).collect();
        Ok(Trial { quality: error.report(&self.output), spread_db: standard_error_db(&noises), sums })
    }

    /// Runs a model and compares: its SQNR, and its error value by value, scaled to the power a sample where the original's
    /// is `signal`; `None` in its place where the outputs cannot be compared.
    pub(super) fn errors(
        &self,
        proto: &ModelProto,
        signal: f64,
        control: &Control,
    ) -> Result<(Sqnr, Option<OutputErrors>), Error> {
        let mut folding = Folding::new(self.samples.iter().map(|(_, expected)| expected.values.len()).sum());
        let (mut sums, mut fits) = (OutputError::default(), true);
        self.run(proto, control, |_, expected, view| {
            sums.add_view(expected, view);
            let values = view.to_tensor().and_then(|tensor| tensor.values.to_f32());
            match (expected.values.to_f32(), values) {
                (Some(y), Some(x)) if x.len() == y.len() => y.iter().zip(x).for_each(|(y, x)| folding.add(x - y)),
                _ => fits = false,
            }
        })?;
        let factor = (signal / self.signal).sqrt();
        let fits = fits && sums.sums().is_some() && factor.is_finite();
        Ok((sums.sqnr(), fits.then(|| folding.finish(factor))))
    }

    /// [`Self::errors`] with one layer quantized as `choice` says and all others left alone.
    pub(super) fn layer_errors(
        &self,
        layer: &Layer,
        choice: &Choice,
        stats: Option<&Stats>,
        signal: f64,
        control: &Control,
    ) -> Result<(Sqnr, Option<OutputErrors>), Error> {
        let plan = single_layer_plan(self.model, layer, choice);
        self.errors(&export(self.model, stats, &plan, control)?.proto, signal, control)
    }

    /// Runs a model on the samples, and shows for each what the original gave and what it gives.
    fn run(
        &self,
        proto: &ModelProto,
        control: &Control,
        mut show: impl FnMut(usize, &Tensor, &View<'_>),
    ) -> Result<(), Error> {
        let source = Source::Proto { proto, folder: Some(self.model.file.folder()) };
        let mut session = Session::open(self.runtime, source, &self.options)?;
        for (at, (sample, expected)) in self.samples.iter().enumerate() {
            control.check()?;
            session.visit(sample, control, &mut |name, view| {
                if name == self.output {
                    show(at, expected, &view);
                }
            })?;
        }
        Ok(())
    }

    /// [`Self::measure`] with one layer quantized as `choice` says and all others left alone.
    pub fn measure_layer(
        &self,
        layer: &Layer,
        choice: &Choice,
        stats: Option<&Stats>,
        control: &Control,
    ) -> Result<Sqnr, Error> {
        self.measure(&single_layer_plan(self.model, layer, choice), stats, control)
    }
}

/// What running a plan gave.
#[derive(Clone, Debug, PartialEq)]
pub struct Trial {
    /// All figures of the output.
    pub quality: OutputQuality,
    /// Standard error of its SQNR in dB, from how the noise differs between samples.
    pub spread_db: f64,
    /// Σy² and Σ(y − ŷ)² of every sample.
    pub sums: Vec<(f64, f64)>,
}

/// Standard error of the mean of `noises`, in dB above the mean; 0 for fewer than two.
fn standard_error_db(noises: &[f64]) -> f64 {
    let count = noises.len() as f64;
    let mean = noises.iter().sum::<f64>() / count;
    if count < 2.0 || mean <= 0.0 {
        return 0.0;
    }
    let squares: f64 = noises.iter().map(|noise| (noise - mean) * (noise - mean)).sum();
    10.0 * (1.0 + (squares / (count - 1.0) / count).sqrt() / mean).log10()
}

/// The plan that quantizes one layer and leaves the others alone.
pub fn single_layer_plan(model: &Model, layer: &Layer, choice: &Choice) -> Plan {
    let mut plan = Plan::uniform(Choice::FLOAT);
    plan.model_sha256.clone_from(&model.file.sha256);
    plan.set_layer(&layer.name, *choice);
    plan
}

/// Precision with which an unknown layer is tried: errors large enough to stand out from the kernels' own rounding, and
/// small enough to add up.
const TRIAL: Precision = Precision::Int8;

impl Sensitivity {
    /// Learns about layers that gradients do not reach by quantizing one at a time and running the model: what int8 weights
    /// do says how much its weights matter on the whole, and where its kernel rounds activations too, how much that adds.
    pub fn measure_unknown(
        &mut self,
        model: &Model,
        reference: &Reference<'_>,
        stats: Option<&Stats>,
        control: &Control,
    ) -> Result<(), Error> {
        if self.signal == 0.0 {
            self.signal = reference.signal();
        }
        let unknown = std::mem::take(&mut self.unknown);
        let total = unknown.len() as u64;
        for (done, mut unknown) in unknown.into_iter().enumerate() {
            control.progress("Measuring layers one by one", done as u64, total);
            let Some(layer) = model.layer(&unknown.layer) else { continue };
            let choice = Choice { precision: TRIAL, ..Choice::FLOAT };
            let noise = match reference.measure_layer(layer, &choice, stats, control) {
                Ok(sqnr) => self.noise_of(sqnr),
                Err(Error::Cancelled) => return Err(Error::Cancelled),
                Err(error) => {
                    unknown.why = format!("{}; trying it failed: {error}", unknown.why);
                    None
                }
            };
            let Some(noise) = noise else {
                self.unknown.push(unknown);
                continue;
            };
            let mut learnt = LayerSensitivity { measured: true, ..LayerSensitivity::default() };
            let dynamic = Choice { mode: Mode::Dynamic, activation: Activation::Int8, ..choice };
            if pick(model, layer, dynamic, stats).form == Form::DynamicLstm {
                let both = self.noise_of(reference.measure_layer(layer, &dynamic, stats, control)?);
                learnt.kernel = both.map(|both| (both - noise).max(0.0));
            }
            self.spread_evenly(model, layer, noise, &choice)?;
            self.layers.insert(layer.name.clone(), learnt);
            self.notes
                .push(format!("{}: measured by running the model with it quantized ({})", layer.name, unknown.why));
        }
        Ok(())
    }

    /// Noise power, a sample, that an SQNR stands for; `None` where it is undefined.
    pub(super) fn noise_of(&self, sqnr: Sqnr) -> Option<f64> {
        sqnr.db().map(|db| self.signal * 10_f64.powf(-db / 10.0))
    }

    /// Lets every weight of `layer` matter alike, so that `choice` makes `noise`.
    fn spread_evenly(&mut self, model: &Model, layer: &Layer, noise: f64, choice: &Choice) -> Result<(), Error> {
        let mut local = 0.0;
        for weight in &layer.weights {
            let values = model.weight(layer, weight)?;
            let even = vec![1.0; values.len()];
            local += crate::quant::Weighing::new(&values, &even, weight.layout).map_or(0.0, |w| w.noise(choice));
        }
        let gain = if local > 0.0 { (noise / local) as f32 } else { 0.0 };
        for (at, weight) in layer.weights.iter().enumerate() {
            self.importance.insert((layer.name.clone(), at), Arc::new(vec![gain; weight.layout.len()]));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_of_one_sample_in_many_is_believed_less() {
        assert_eq!(standard_error_db(&[2.0; 9]), 0.0);
        assert_eq!(standard_error_db(&[3.0]), 0.0);
        let mut one = vec![0.0; 16];
        one[3] = 1.0;
        // All the noise in one sample: the standard error is the mean itself.
        assert!((standard_error_db(&one) - 10.0 * 2.0_f64.log10()).abs() < 1e-9);
    }
}
