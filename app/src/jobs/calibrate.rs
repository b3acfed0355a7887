//! Calibration: the library's loop, with what was gathered kept on cancel.

use nibble_core::calibrate::{CalibrateOptions, calibrate as gather};
use nibble_core::model::Model;
use nibble_core::runtime::Runtime;
use nibble_core::stats::Stats;
use nibble_core::{Control, Error};

use super::data::Samples;
use super::{Calibrated, Failure, Message};
use crate::views::calibrate::DataRequest;

/// Gathers statistics.
pub fn calibrate(model: &Model, runtime: &Runtime, request: &DataRequest, control: &Control) -> Message {
    let mut stats = Stats::new(model.file.sha256.clone(), request.options.seed);
    let mut problems = Vec::new();
    let started = std::time::Instant::now();
    let mut run = || -> Result<(), Error> {
        let samples = Samples::open(model, request)?;
        problems.extend(samples.data.problems().iter().cloned());
        let options = CalibrateOptions::default();
        gather(model, runtime, &samples.data, &samples.calibration, &options, &mut stats, control)?;
        Ok(())
    };
    let failure = run().err().map(Failure::from);
    problems.extend(control.problems());
    Message::Calibrated(Calibrated {
        stats: (stats.samples() > 0).then(|| Box::new(stats)),
        failure,
        problems,
        seconds: started.elapsed().as_secs_f64(),
    })
}
