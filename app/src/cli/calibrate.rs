//! `calibrate`: statistics of activations, gathered from data and saved.

use std::path::Path;
use std::time::Instant;

use nibble_core::bench::own_peak_memory_bytes;
use nibble_core::calibrate::lab::{Lab, LabOptions};
use nibble_core::calibrate::{CalibrateOptions, CalibrateTimes, calibrate, plain_inference_seconds};
use nibble_core::model::Model;
use nibble_core::report::text;
use nibble_core::runtime::Runtime;
use nibble_core::stats::Stats;
use serde_json::json;

use super::args::CalibrateArgs;
use super::console::{Console, problems_text};
use super::failure::Failure;
use super::inputs::{self, Samples};
use super::lab::Named;
use super::output;

/// Runs the verb.
pub fn run(args: &CalibrateArgs, console: &Console) -> Result<(), Failure> {
    let started = Instant::now();
    let control = console.control();
    let model = Model::load(&args.model, control)?;
    output::check_apart(&args.output, &model.file, &[("--data", Some(output::file_of(&args.data)))])?;
    let set = inputs::open(&args.data, &model.inputs, &inputs::options(&args.input)?, console)?;
    let samples = Samples::limited(set, &args.input)?;
    let mut stats = match &args.stats {
        Some(path) => load(path, &model)?,
        None => Stats::new(model.identity.as_str(), args.input.seed),
    };
    let runtime = console.start_runtime()?;
    let threads = args.threads.threads;
    let times = match gather(&model, runtime, &samples, threads, &mut stats, console) {
        Ok(times) => times,
        Err(failure) => {
            keep_partial(&stats, args, console);
            return Err(failure);
        }
    };
    stats.save(&args.output)?;
    // The peak of calibration, before the plain run below adds its own.
    let peak_memory_bytes = own_peak_memory_bytes();
    let seconds = started.elapsed().as_secs_f64();
    let Samples { set, indices } = &samples;
    let options = CalibrateOptions { threads };
    let plain = plain_inference_seconds(&model, runtime, set, indices, &options, control)?;
    let problems = console.problems_with(&model.problems);
    let lab = Lab::of(&stats, LabOptions { seed: args.input.seed, ..LabOptions::default() });
    let lab = Named { lab: &lab, stats: &stats, set };
    let json = json!({
        "model": args.model,
        "output": args.output,
        "data": stats.data(),
        "samples": stats.samples(),
        "new_samples": times.samples,
        "tensors": stats.tensors.len(),
        "seconds": seconds,
        "tapped_inference_seconds": times.tapped_inference_seconds,
        "plain_inference_seconds": plain,
        "peak_memory_bytes": peak_memory_bytes,
        "lab": lab.to_json(),
        "notes": console.notes(),
        "problems": problems,
    });
    let text = format!(
        "{} samples, {} tensors → {}\nTime         {seconds:.2} s (inside ONNX Runtime {:.2} s; plain inference {plain:.2} s)\n\
         Peak memory  {}\n{}\n{}",
        stats.samples(),
        stats.tensors.len(),
        args.output.display(),
        times.tapped_inference_seconds,
        peak_memory_bytes.map_or_else(|| "not known on this system".to_owned(), text::bytes),
        lab.text(),
        problems_text(&problems),
    );
    console.result(&json, &text)
}

/// Adds what the samples show to `stats`.
pub fn gather(
    model: &Model,
    runtime: &Runtime,
    samples: &Samples,
    threads: usize,
    stats: &mut Stats,
    console: &Console,
) -> Result<CalibrateTimes, Failure> {
    let Samples { set, indices } = samples;
    let options = CalibrateOptions { threads };
    Ok(calibrate(model, runtime, set, indices, &options, stats, console.control())?)
}

/// Statistics saved earlier, for this model.
pub fn load(path: &Path, model: &Model) -> Result<Stats, Failure> {
    let stats = Stats::load(path)?;
    if stats.model_sha256 != model.identity {
        let hint = "Calibrate this model, or name the model that the statistics belong to; a plan with scalings needs --data in their place";
        return Err(Failure::new("the statistics were gathered on another model", path.display().to_string(), hint));
    }
    Ok(stats)
}

/// What was gathered before Ctrl-C is saved, so that `--stats` can go on from there.
fn keep_partial(stats: &Stats, args: &CalibrateArgs, console: &Console) {
    let path = args.output.display();
    if console.control().is_cancelled() && stats.samples() > 0 {
        match stats.save(&args.output) {
            Ok(()) => console.message(&format!("{} samples are kept; go on with --stats {path}", stats.samples())),
            Err(error) => console.message(&format!("The samples so far could not be kept: {error}")),
        }
    }
}
