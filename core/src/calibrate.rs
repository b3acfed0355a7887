//! Calibration: samples streamed through the model, its activations observed, nothing kept but statistics.

pub mod lab;
mod observer;
mod row_cut;
mod taps;

use std::time::Instant;

pub(crate) use self::observer::floats;
pub(crate) use self::row_cut::Rows;
pub use self::taps::Taps;

use self::observer::Observer;
use crate::data::{DataSet, Sample};
use crate::model::Model;
use crate::problem::Severity;
use crate::runtime::{Runtime, Session, SessionOptions, Source, View, tapped};
use crate::stats::{SampleId, Stats, StatsError};
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

/// A model opened for calibration: feed it samples, look at the statistics whenever you like.
pub struct Calibrator<'a> {
    observer: Observer<'a>,
    session: Session,
}

impl<'a> Calibrator<'a> {
    /// Opens `model` with its [`Taps`] made visible.
    ///
    /// The runtime may fuse operators and change layouts wherever no tap lies between: what is seen is what people will
    /// run, equal to what the file says but for rounding. A model that is quantized in places runs as the file has it.
    pub fn open(
        model: &'a Model,
        runtime: &Runtime,
        options: &CalibrateOptions,
        control: &Control,
    ) -> Result<Self, Error> {
        let observer = Observer::new(model, options.threads != 1);
        let proto = tapped(&model.graph, observer.handed_out());
        let session = session_options(model, options);
        let source = Source::Proto { proto: &proto, folder: Some(model.file.folder()) };
        Ok(Self { observer, session: Session::open_with(runtime, source, &session, control)? })
    }

    /// Runs sample `index` of `data` and adds what is seen to `stats`; `false` when it is in there already. On an error,
    /// cancelling included, `stats` stays as it was: the runtime shows its tensors only after a whole run.
    ///
    /// [`Self::settle`] makes `stats` complete.
    pub fn add(&mut self, data: &DataSet, index: usize, stats: &mut Stats, control: &Control) -> Result<bool, Error> {
        if stats.sources.get(data.spec()).is_some_and(|seen| seen.contains(&(index as u64))) {
            return Ok(false);
        }
        let sample = data.sample(index)?;
        let id = SampleId::new(data.spec(), index as u64);
        let observer = &mut self.observer;
        observer.begin();
        self.session.visit(&sample, control, &mut |name, view| observer.see(name, &view, id, stats))?;
        observe_inputs(observer, &sample, id, stats);
        observer.end(id, stats);
        stats.sources.entry(data.spec().to_owned()).or_default().insert(index as u64);
        Ok(true)
    }

    /// How long the runtime itself took for the last sample.
    pub fn last_run(&self) -> std::time::Duration {
        self.session.last_run()
    }

    /// Makes `stats` fit to be used or saved after any number of samples: tensors that have the values of others get
    /// their statistics, rows come into their order. More samples may follow.
    pub fn settle(&self, stats: &mut Stats) {
        self.observer.settle(stats);
        for rows in stats.rows.values_mut() {
            rows.sort();
        }
    }
}

/// How the tapped model is run: optimised as people run it, but a model with quantization of its own as the file has it.
pub fn session_options(model: &Model, options: &CalibrateOptions) -> SessionOptions {
    let threads = options.threads;
    if taps::is_quantized(model) {
        SessionOptions::observing(threads)
    } else {
        SessionOptions { threads, ..SessionOptions::default() }
    }
}

/// Runs the samples called `indices` one at a time and adds what is seen to `stats`; samples already in it are skipped,
/// so a calibration that was cancelled or saved goes on where it stopped. On any error, cancelling included, `stats`
/// keeps all samples that were finished.
///
/// Every floating tensor of [`Taps`] is observed, once however many layers read it; float16, bfloat16 and float64
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
    run(model, runtime, data, indices, options, stats, control, None)
}

/// As [`calibrate`], and shows the statistics to `watch` after every sample.
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
    run(model, runtime, data, indices, options, stats, control, Some(watch))
}

#[allow(clippy::too_many_arguments)]
fn run(
    model: &Model,
    runtime: &Runtime,
    data: &DataSet,
    indices: &[usize],
    options: &CalibrateOptions,
    stats: &mut Stats,
    control: &Control,
    watch: Option<&mut dyn FnMut(&Stats)>,
) -> Result<CalibrateTimes, Error> {
    let started = Instant::now();
    if stats.model_sha256.is_empty() {
        stats.model_sha256.clone_from(&model.identity);
    } else if stats.model_sha256 != model.identity {
        let (expected, found) = (model.identity.clone(), stats.model_sha256.clone());
        return Err(StatsError::OtherModel { expected, found }.into());
    }
    control.progress("Calibrating", 0, indices.len() as u64);
    let mut times = CalibrateTimes::default();
    let mut calibrator = Calibrator::open(model, runtime, options, control)?;
    let result = stream(&mut calibrator, data, indices, stats, control, &mut times, watch);
    calibrator.settle(stats);
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

fn stream(
    calibrator: &mut Calibrator<'_>,
    data: &DataSet,
    indices: &[usize],
    stats: &mut Stats,
    control: &Control,
    times: &mut CalibrateTimes,
    mut watch: Option<&mut dyn FnMut(&Stats)>,
) -> Result<(), Error> {
    for (done, &index) in indices.iter().enumerate() {
        control.check()?;
        control.progress("Calibrating", done as u64, indices.len() as u64);
        if calibrator.add(data, index, stats, control)? {
            times.samples += 1;
            times.tapped_inference_seconds += calibrator.last_run().as_secs_f64();
            if let Some(watch) = &mut watch {
                calibrator.settle(stats);
                watch(stats);
            }
        }
    }
    control.progress("Calibrating", indices.len() as u64, indices.len() as u64);
    Ok(())
}

/// The model's own inputs are known without asking the runtime to hand them back.
fn observe_inputs(observer: &mut Observer<'_>, sample: &Sample, id: SampleId, stats: &mut Stats) {
    for (name, tensor) in sample.feeds.iter().filter(|(_, tensor)| tensor.values.is_float()) {
        if let Some(values) = tensor.values.to_f32() {
            let shape: Vec<i64> = tensor.shape.iter().map(|&size| size as i64).collect();
            observer.see_input(name, &View::F32 { shape: &shape, values: &values }, id, stats);
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
    let mut session = Session::open_with(runtime, Source::File(&model.file.path), &session, control)?;
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
