//! Calibration: samples streamed through the model, its activations observed, nothing kept but statistics.

mod observer;
mod row_cut;

use std::time::Instant;

use self::observer::Observer;
use crate::data::{DataSet, Sample};
use crate::model::Model;
use crate::problem::Severity;
use crate::runtime::{Runtime, Session, SessionOptions, Source, View, tapped};
use crate::stats::{Stats, StatsError};
use crate::{Control, Error, Problem};

/// How calibration runs.
#[derive(Clone, Debug)]
pub struct CalibrateOptions {
    /// Threads within an operator of the runtime, 0 for one a core; with more than one, large tensors are observed by all
    /// threads of rayon's pool too. Statistics do not depend on it beyond what the runtime's own sums do.
    pub threads: usize,
}

impl Default for CalibrateOptions {
    fn default() -> Self {
        Self { threads: 1 }
    }
}

/// Where the time went.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CalibrateTimes {
    /// Samples added by this call.
    pub samples: usize,
    /// All of it: opening the model, reading samples, running, observing.
    pub seconds: f64,
    /// Inside the runtime's own runs of the tapped model.
    pub tapped_inference_seconds: f64,
}

/// Runs the samples called `indices` one at a time and adds what is seen to `stats`; samples already in it are skipped,
/// so a calibration that was cancelled or saved goes on where it stopped. On any error, cancelling included, `stats`
/// keeps all samples that were finished.
///
/// Every floating tensor of [`Model::taps`] is observed, once however many layers read it; float16, bfloat16 and float64
/// are converted, integers skipped. Rows of each layer's input go into reservoirs as [`crate::model::RowCut`] says.
/// Memory outside the runtime does not depend on the number of samples. NaN and infinities are counted and become a
/// problem of `control`.
pub fn calibrate(
    model: &Model,
    runtime: &Runtime,
    data: &DataSet,
    indices: &[usize],
    options: &CalibrateOptions,
    stats: &mut Stats,
    control: &Control,
) -> Result<CalibrateTimes, Error> {
    calibrate_watched(model, runtime, data, indices, options, stats, control, &mut |_| {})
}

/// As [`calibrate`], and shows the statistics to `watch` after every sample. Rows are in order only at the end.
#[allow(clippy::too_many_arguments)] // those of `calibrate`, and who watches
pub fn calibrate_watched(
    model: &Model,
    runtime: &Runtime,
    data: &DataSet,
    indices: &[usize],
    options: &CalibrateOptions,
    stats: &mut Stats,
    control: &Control,
    watch: &mut dyn FnMut(&Stats),
) -> Result<CalibrateTimes, Error> {
    let started = Instant::now();
    if stats.model_sha256.is_empty() {
        stats.model_sha256.clone_from(&model.file.sha256);
    } else if stats.model_sha256 != model.file.sha256 {
        let (expected, found) = (model.file.sha256.clone(), stats.model_sha256.clone());
        return Err(StatsError::OtherModel { expected, found }.into());
    }
    let mut times = CalibrateTimes::default();
    let result = stream(model, runtime, data, indices, options, stats, control, &mut times, watch);
    for rows in stats.rows.values_mut() {
        rows.sort();
    }
    result?;
    for (tensor, seen) in stats.tensors.iter().filter(|(_, seen)| seen.non_finite > 0) {
        control.problem(Problem::new(
            Severity::Warning,
            format!("{} values are NaN or infinite", seen.non_finite),
            tensor.as_str(),
            "The original model computes them on these samples; statistics leave them out",
            "Check how the samples are prepared",
        ));
    }
    times.seconds = started.elapsed().as_secs_f64();
    Ok(times)
}

#[allow(clippy::too_many_arguments)]
fn stream(
    model: &Model,
    runtime: &Runtime,
    data: &DataSet,
    indices: &[usize],
    options: &CalibrateOptions,
    stats: &mut Stats,
    control: &Control,
    times: &mut CalibrateTimes,
    watch: &mut dyn FnMut(&Stats),
) -> Result<(), Error> {
    control.progress("Calibrating", 0, indices.len() as u64);
    let mut observer = Observer::new(model, data.spec(), stats.seed, options.threads != 1);
    let proto = tapped(&model.graph, &observer.inner_taps());
    // Every tensor has to come out as the file computes it; fusions across taps would only copy them out again.
    let session = SessionOptions::observing(options.threads);
    let mut session =
        Session::open(runtime, Source::Proto { proto: &proto, folder: Some(model.file.folder()) }, &session)?;
    drop(proto);
    for (done, &index) in indices.iter().enumerate() {
        control.check()?;
        control.progress("Calibrating", done as u64, indices.len() as u64);
        let seen = stats.sources.get(data.spec()).is_some_and(|seen| seen.contains(&(index as u64)));
        if seen {
            continue;
        }
        let sample = data.sample(index)?;
        // The runtime shows its tensors only after a whole run: a sample is in the statistics entirely or not at all.
        session.visit(&sample, control, &mut |name, view| observer.see(name, &view, index, stats))?;
        observe_inputs(&mut observer, &sample, index, stats);
        stats.sources.entry(data.spec().to_owned()).or_default().insert(index as u64);
        times.samples += 1;
        times.tapped_inference_seconds += session.last_run().as_secs_f64();
        watch(stats);
    }
    control.progress("Calibrating", indices.len() as u64, indices.len() as u64);
    Ok(())
}

/// The model's own inputs are known without asking the runtime to hand them back.
fn observe_inputs(observer: &mut Observer<'_>, sample: &Sample, index: usize, stats: &mut Stats) {
    for (name, tensor) in sample.feeds.iter().filter(|(_, tensor)| tensor.values.is_float()) {
        if let Some(values) = tensor.values.to_f32() {
            let shape: Vec<i64> = tensor.shape.iter().map(|&size| size as i64).collect();
            observer.see_input(name, &View::F32 { shape: &shape, values: &values }, index, stats);
        }
    }
}

/// Seconds that the runtime takes for the same samples on the model as it is, with every optimisation: what calibration
/// is compared with.
pub fn plain_inference_seconds(
    model: &Model,
    runtime: &Runtime,
    data: &DataSet,
    indices: &[usize],
    options: &CalibrateOptions,
    control: &Control,
) -> Result<f64, Error> {
    let session = SessionOptions { threads: options.threads, ..SessionOptions::default() };
    let mut session = Session::open(runtime, Source::File(&model.file.path), &session)?;
    let mut seconds = 0.0;
    for (done, &index) in indices.iter().enumerate() {
        control.progress("Timing the original", done as u64, indices.len() as u64);
        session.visit(&data.sample(index)?, control, &mut |_, _| {})?;
        seconds += session.last_run().as_secs_f64();
    }
    Ok(seconds)
}

#[cfg(test)]
mod tests;
