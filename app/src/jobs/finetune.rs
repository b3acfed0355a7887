//! Fine-tuning: the library's loop, with its curve shown as it grows; what it ends with waits to be accepted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nibble_core::error::{CompareOptions, Quality};
use nibble_core::finetune::{Ended, FinetuneOptions, Finetuned, Point, TrainingData, finetune as train, measure};
use nibble_core::model::Model;
use nibble_core::plan::Plan;
use nibble_core::runtime::Runtime;
use nibble_core::stats::Stats;
use nibble_core::{Control, Error, Problem};

use super::data::Samples;
use super::{Failure, Message};
use crate::views::calibrate::DataRequest;
use crate::worker::Reporter;

/// Least time between two points without held-back figures.
const SHOWN_EVERY: Duration = Duration::from_millis(200);

/// What training is made from.
pub struct FinetuneRequest {
    /// The model.
    pub model: Arc<Model>,
    /// What calibration gathered.
    pub stats: Option<Arc<Stats>>,
    /// The plan to train.
    pub plan: Arc<Plan>,
    /// The samples.
    pub data: DataRequest,
    /// Steps at most.
    pub steps: usize,
    /// Samples a step.
    pub batch: usize,
    /// Learning rate.
    pub learning_rate: f32,
    /// While set, training waits.
    pub paused: Arc<AtomicBool>,
}

/// What training ended with, not yet accepted.
pub struct Tuned {
    /// The plan that was trained.
    pub from: Arc<Plan>,
    /// What came of it.
    pub result: Finetuned,
    /// Both plans' exports on evaluation samples, before and after; `None` when training was cancelled.
    pub measured: Option<(Quality, Quality)>,
    /// What degraded.
    pub problems: Vec<Problem>,
}

/// Trains; `reporter` gets the curve.
pub fn finetune(
    request: &FinetuneRequest,
    runtime: &Runtime,
    control: &Control,
    reporter: &Reporter<'_, Message>,
) -> Message {
    let run = || -> Result<Box<Tuned>, Error> {
        let FinetuneRequest { model, plan, .. } = request;
        let samples = Samples::open(model, &request.data)?;
        let stats = request.stats.as_deref();
        let options = FinetuneOptions {
            steps: request.steps,
            batch: request.batch,
            learning_rate: request.learning_rate,
            ..FinetuneOptions::default()
        };
        let data = TrainingData { set: &samples.data, indices: &samples.calibration, labels: None };
        let mut shown = Instant::now();
        let mut watch = |point: &Point| {
            if point.held_back.is_some() || shown.elapsed() >= SHOWN_EVERY {
                reporter.report(Message::FinetunedSoFar(point.clone()));
                shown = Instant::now();
            }
            while request.paused.load(Ordering::Relaxed) && !control.is_cancelled() {
                std::thread::sleep(Duration::from_millis(50));
            }
        };
        let result = train(model, runtime, stats, plan, &data, &options, control, &mut watch)?;
        let judge = |plan: &Plan| {
            let options = CompareOptions::default();
            let (set, labels) = (samples.judged(), samples.labels.as_deref());
            measure(model, runtime, stats, plan, set, &samples.evaluation, labels, &options, control)
        };
        let measured = match result.ended {
            Ended::Cancelled => None,
            _ => Some((judge(plan)?, judge(&result.plan)?)),
        };
        Ok(Box::new(Tuned { from: Arc::clone(plan), result, measured, problems: control.problems() }))
    };
    Message::Finetuned(run().map_err(Failure::from))
}
