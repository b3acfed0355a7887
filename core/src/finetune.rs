//! Quantization-aware training: the quantized model is simulated, its weights are trained against the float model's outputs
//! (or labels), turned back into integers, and judged on data that training did not see.
//!
//! 1. simulate ([`simulate`](self)): the export itself with floating weights in the place of stored integers, run by ONNX
//!    Runtime; rounding has straight-through gradients (Bengio et al. 2013), the backward of the operators is
//!    [`crate::autodiff`]'s.
//! 2. retrain: Adam on the floating values behind the integers, and on biases; scales and zero points stay (learnt scales as
//!    an option). BatchNormalization is part of the weights by then (see [`crate::model`]), so there is none to freeze.
//! 3. convert: the integers become [`LayerRepair`](crate::repair::LayerRepair)s of the plan, which the export writes as they are.
//! 4. validate: [`measure`] runs exports of both plans.
//!
//! Where an operator has no backward, training goes on block by block: what enters that operator is kept close to the float
//! model's own values. Layers that no gradient reaches (in bodies of If and Loop, LSTM and GRU, weights that two layers share)
//! stay as they are and are named. Limits: ranges of activations are not learnt; the runtime's own rounding inside
//! MatMulNBits is not simulated.

mod adam;
mod batch;
mod convert;
mod finetune_error;
mod latent;
mod learner;
mod loss;
mod reference;
mod simulate;
mod start;
mod state;
#[cfg(test)]
mod tests;
mod train;
mod trainer;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use convert::measure;
pub use finetune_error::FinetuneError;
pub use loss::Loss;
pub use train::{finetune, split};

use crate::data::DataSet;
use crate::plan::Plan;

/// How training goes.
#[derive(Clone, Debug)]
pub struct FinetuneOptions {
    /// Steps at most.
    pub steps: usize,
    /// Samples a step.
    pub batch: usize,
    /// Learning rate of Adam at its highest: about how far a weight moves in one step, 1 being from one integer to the next.
    pub learning_rate: f32,
    /// What is made small; `None` for what fits the output.
    pub loss: Option<Loss>,
    /// Whether scales of weights of at most 2 bits are trained too.
    pub learns_scales: bool,
    /// Share of the samples that training does not see, by which the best state is chosen.
    pub held_back: f64,
    /// Threads of ONNX Runtime.
    pub threads: usize,
    /// Seed of the order of samples.
    pub seed: u64,
    /// The output; `None` for the first floating one.
    pub output: Option<String>,
    /// Where the state is kept while training, to go on from after an interruption; removed at the end.
    pub state: Option<PathBuf>,
}

impl Default for FinetuneOptions {
    fn default() -> Self {
        Self {
            steps: 400,
            batch: 64,
            learning_rate: 6e-3,
            loss: None,
            learns_scales: false,
            held_back: 0.2,
            threads: 1,
            seed: 0,
            output: None,
            state: None,
        }
    }
}

/// What training sees.
#[derive(Clone, Copy)]
pub struct TrainingData<'a> {
    /// The data.
    pub set: &'a DataSet,
    /// Which of its samples; a share of them is held back.
    pub indices: &'a [usize],
    /// Labels of all rows of the data.
    pub labels: Option<&'a [i64]>,
}

/// Where training stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Steps taken.
    pub step: usize,
    /// Loss on the samples of the last step; `None` before the first.
    pub loss: Option<f64>,
    /// What the held-back samples gave, where they were run at this step.
    pub held_back: Option<HeldBack>,
    /// Learning rate of the step.
    pub learning_rate: f32,
    /// Seconds of training so far, earlier runs included.
    pub seconds: f64,
}

/// Figures of the simulated model on held-back samples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeldBack {
    /// The loss.
    pub loss: f64,
    /// Signal to noise of the output against the float model's; `None` when nothing differs.
    pub sqnr_db: Option<f64>,
    /// Share of rows whose label is the largest class, where there are labels.
    pub accuracy: Option<f64>,
}

/// Why training ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// All steps were taken.
    Finished,
    /// Held-back samples had not improved for long.
    NoGain,
    /// The person stopped it; the best state so far counts.
    Cancelled,
}

/// A layer that was not trained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Untrained {
    /// Its name.
    pub layer: String,
    /// Why.
    pub why: String,
}

/// The result of training.
pub struct Finetuned {
    /// The plan with the trained layers; the one that was given where nothing was gained.
    pub plan: Plan,
    /// Layers that were trained.
    pub trained: Vec<String>,
    /// Layers that stay as they were.
    pub untrained: Vec<Untrained>,
    /// The loss.
    pub loss: Loss,
    /// The output that the figures are of.
    pub output: String,
    /// Steps taken.
    pub steps: usize,
    /// The step whose state was kept; 0 for the beginning.
    pub best_step: usize,
    /// Why it ended.
    pub ended: Ended,
    /// Held-back samples at the beginning.
    pub before: HeldBack,
    /// Held-back samples in the kept state; never worse in loss than `before`.
    pub after: HeldBack,
    /// Every step at which held-back samples were run.
    pub curve: Vec<Point>,
    /// The samples that were held back.
    pub held_back: Vec<usize>,
    /// Seconds of training, earlier runs included.
    pub seconds: f64,
    /// Whether it went on from a kept state.
    pub resumed: bool,
}
