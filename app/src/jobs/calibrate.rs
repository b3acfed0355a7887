//! Calibration: the library's loop, with what was gathered shown as it grows and kept on cancel.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nibble_core::calibrate::{CalibrateOptions, calibrate_watched as gather};
use nibble_core::model::Model;
use nibble_core::plan::PRESETS;
use nibble_core::plan::spare::{Spared, spare};
use nibble_core::runtime::Runtime;
use nibble_core::stats::Stats;
use nibble_core::{Control, Error};

use super::data::Samples;
use super::{Calibrated, Failure, Message};
use crate::views::calibrate::DataRequest;
use crate::worker::Reporter;

/// Least time between two looks at statistics that grow.
const SHOWN_EVERY: Duration = Duration::from_secs(1);
/// Most of the time that goes into copying statistics to be looked at: one part in this many.
const COPY_SHARE: u32 = 30;

/// Layers of the preset int8 that are better left in floating point.
pub fn spared(model: &Model, stats: &Stats, control: &Control) -> Result<Vec<Spared>, Error> {
    let preset = PRESETS.iter().find(|preset| preset.spares);
    preset.map_or(Ok(Vec::new()), |preset| spare(model, stats, &model.preset_plan(preset)?, control))
}

/// Gathers statistics; `reporter` gets what there is about every second.
pub fn calibrate(
    model: &Model,
    runtime: &Runtime,
    request: &DataRequest,
    control: &Control,
    reporter: &Reporter<'_, Message>,
) -> Message {
    let mut stats = Stats::new(model.identity.clone(), request.options.seed);
    let mut problems = Vec::new();
    let started = Instant::now();
    let mut run = || -> Result<(), Error> {
        let samples = Samples::open(model, request)?;
        problems.extend(samples.data.problems().iter().cloned());
        let options = CalibrateOptions::default();
        let (mut shown, mut pause) = (Instant::now(), SHOWN_EVERY);
        let mut watch = |stats: &Stats| {
            if shown.elapsed() < pause {
                return;
            }
            let began = Instant::now();
            reporter.report(Message::CalibratedSoFar(Arc::new(stats.clone())));
            shown = Instant::now();
            pause = SHOWN_EVERY.max((shown - began) * COPY_SHARE);
        };
        gather(model, runtime, &samples.data, &samples.calibration, &options, &mut stats, control, &mut watch)?;
        Ok(())
    };
    let mut failure = run().err().map(Failure::from);
    let mut found = Vec::new();
    if failure.is_none() {
        match spared(model, &stats, control) {
            Ok(spared) => found = spared,
            Err(error) => failure = Some(Failure::from(error)),
        }
    }
    problems.extend(control.problems());
    Message::Calibrated(Calibrated {
        data: request.clone(),
        stats: (stats.samples() > 0).then(|| Box::new(stats)),
        spared: found,
        failure,
        problems,
        seconds: started.elapsed().as_secs_f64(),
    })
}
