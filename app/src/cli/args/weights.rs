//! What the verbs take that give a plan weights of its own: `repair` and `finetune`.

use std::path::PathBuf;

use clap::Args;

use super::{InputArgs, PlanArgs, ThreadArgs, seconds};

/// The plan to start from, what it needs, and where the plan that is made goes.
#[derive(Debug, Args)]
pub struct MadeArgs {
    /// Use saved statistics instead of calibrating
    #[arg(long, value_name = "FILE.stats")]
    pub stats: Option<PathBuf>,
    /// Where to write the plan; its weights go beside it
    #[arg(short, long, value_name = "PLAN2.json")]
    pub output: PathBuf,
    #[command(flatten)]
    pub plan: PlanArgs,
    #[command(flatten)]
    pub input: InputArgs,
    #[command(flatten)]
    pub threads: ThreadArgs,
}

/// What training makes small.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LossArg {
    /// Squared distance to the original's output
    Distance,
    /// Divergence from the original's class probabilities
    Kl,
    /// Cross-entropy with --labels
    CrossEntropy,
}

#[derive(Debug, Args)]
pub struct FinetuneArgs {
    /// ONNX file
    pub model: PathBuf,
    /// Samples to train on: .npz, .npy, a folder of .npz files or of images, or random:N; a fifth is held back to choose the
    /// best state
    #[arg(long, value_name = "DATA")]
    pub data: String,
    /// Labels of --data, to train on instead of the original's outputs
    #[arg(long, value_name = "LABELS")]
    pub labels: Option<String>,
    /// Evaluation data, which training does not see; without it a third of --data is kept for that
    #[arg(long, value_name = "DATA")]
    pub eval: Option<String>,
    /// Labels of --eval
    #[arg(long, value_name = "LABELS")]
    pub eval_labels: Option<String>,
    #[command(flatten)]
    pub made: MadeArgs,
    /// Repair the plan's layers first, from the samples that training learns from: refit, gptq, descent, adaround, clip, bias, hqq, or best
    #[arg(long, value_name = "METHOD")]
    pub repair: Option<String>,
    /// Steps at most
    #[arg(long, value_name = "N", default_value_t = 400, allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..))]
    pub steps: u32,
    /// Samples a step
    #[arg(long, value_name = "N", default_value_t = 64, allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..))]
    pub batch: u32,
    /// Learning rate at its highest: how far a weight moves in a step, 1 being from one integer to the next
    #[arg(long, value_name = "RATE", default_value_t = 6e-3, allow_negative_numbers = true, value_parser = rate)]
    pub learning_rate: f32,
    /// What is made small; by default what fits: cross-entropy with --labels, kl where the output is probabilities, else
    /// distance
    #[arg(long, value_enum)]
    pub loss: Option<LossArg>,
    /// Train the scales of weights of at most 2 bits too
    #[arg(long)]
    pub learn_scales: bool,
    /// Start anew, though an interrupted run has left its state beside the output
    #[arg(long)]
    pub fresh: bool,
}

#[derive(Debug, Args)]
pub struct RepairArgs {
    /// ONNX file
    pub model: PathBuf,
    /// Calibration data: .npz, .npy, a folder of .npz files or of images, or random:N; parts of it are held back in
    /// turn to judge
    #[arg(long, value_name = "DATA")]
    pub data: String,
    /// Layers to repair by name: a glob, or a regex after re: (repeatable; all layers when none is given)
    #[arg(long, value_name = "PATTERN")]
    pub layer: Vec<String>,
    /// gptq, refit, descent, adaround, clip, bias, hqq (needs no data), or best; or a scaling (smoothquant, awq, equalisation); or both
    /// in a row, as smoothquant+gptq
    #[arg(long, value_name = "METHOD", default_value = "best")]
    pub method: String,
    /// Use at most this many values of each weight's range, e.g. 8 for 3-bit values in int4
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(2..=256))]
    pub levels: Option<u32>,
    /// Seconds that the repair may take; what it leaves out then is said. Without it everything is done, however long it takes
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true, value_parser = seconds)]
    pub seconds: Option<f64>,
    /// Hold every sample back once, to know the gain better (true, the default for small models), or a quarter of them once
    #[arg(long, value_name = "BOOL")]
    pub cross_fit: Option<bool>,
    /// Repair each layer by itself in about a second, from as many samples as that allows, as the window previews it
    #[arg(long, conflicts_with_all = ["seconds", "cross_fit"])]
    pub at_once: bool,
    #[command(flatten)]
    pub made: MadeArgs,
}

fn rate(text: &str) -> Result<f32, String> {
    text.parse()
        .ok()
        .filter(|rate| *rate > 0.0 && *rate <= 1.0)
        .ok_or_else(|| "allowed are more than 0 and up to 1".to_owned())
}
