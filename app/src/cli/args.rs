//! What the command line takes.

mod weights;

use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory, Parser, Subcommand};
use nibble_core::error::Metric;

pub use self::weights::{FinetuneArgs, LossArg, RepairArgs};

/// Nibble, an interactive ONNX quantization studio.
#[derive(Debug, Parser)]
#[command(
    name = "nibble",
    bin_name = "nibble",
    version,
    about = "Nibble, an interactive ONNX quantization studio",
    long_about = "Nibble, an interactive ONNX quantization studio\n\n\
        `nibble [MODEL]` opens the window; `nibble VERB …` works headless. Results go to stdout, progress and messages to \
        stderr. Exit codes: 0 done, 1 failed, 2 wrong usage, 130 cancelled by Ctrl-C."
)]
pub struct Cli {
    /// Model to open in the window; the bundled sample when none is given
    pub model: Option<PathBuf>,
    #[command(flatten)]
    pub common: Common,
    #[command(subcommand)]
    pub verb: Option<Verb>,
}

/// The verbs that people see, for hints.
pub fn verbs() -> String {
    let command = Cli::command();
    let names: Vec<_> =
        command.get_subcommands().filter(|verb| !verb.is_hide_set()).map(clap::Command::get_name).collect();
    names.join(", ")
}

/// Flags that every verb takes.
#[derive(Debug, Args)]
pub struct Common {
    /// Print one JSON object on stdout
    #[arg(long, global = true, overrides_with = "json")]
    pub json: bool,
    /// ONNX Runtime library to use instead of the one that Nibble finds or fetches (also: ORT_DYLIB_PATH)
    #[arg(long, global = true, value_name = "PATH")]
    pub runtime: Option<PathBuf>,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Show what is in a model: inputs, outputs, layers and why some cannot be quantized
    Inspect(InspectArgs),
    /// Gather statistics of activations from data and save them
    Calibrate(CalibrateArgs),
    /// Predict what every candidate choice of every layer does to the model's output
    Sensitivity(SensitivityArgs),
    /// Find the best plan under a budget, and check it by running it
    Auto(AutoArgs),
    /// Train a plan's weights against the original's outputs, or labels, so that rounding costs less
    Finetune(FinetuneArgs),
    /// Find better integers for chosen layers of a plan: the gain on data held back is shown
    Repair(RepairArgs),
    /// Write a quantized model, after loading, running and comparing it in ONNX Runtime
    Quantize(QuantizeArgs),
    /// Measure two models side by side in one run
    Bench(BenchArgs),
    /// Compare two models layer by layer: an original and what Nibble or any other tool made of it
    Compare(CompareArgs),
    /// Measure a model's task accuracy on labelled data
    Evaluate(EvaluateArgs),
    /// Make an HTML page and CSV tables from saved `--json` results
    Report(ReportArgs),
    /// List deployment targets, with their rules and where these are written
    Targets,
    /// The whole job on the bundled sample or on MODEL: calibrate, quantize, verify, measure, report
    Demo(DemoArgs),
    /// Peak memory of one model, measured in a process of its own
    #[command(name = "__measure", hide = true)]
    Measure(MeasureArgs),
}

impl Verb {
    /// The model that the verb works on: the place of a failure that names none.
    pub fn model(&self) -> Option<&Path> {
        match self {
            Self::Inspect(args) => Some(&args.model),
            Self::Calibrate(args) => Some(&args.model),
            Self::Sensitivity(args) => Some(&args.model),
            Self::Auto(args) => Some(&args.model),
            Self::Finetune(args) => Some(&args.model),
            Self::Repair(args) => Some(&args.model),
            Self::Quantize(args) => Some(&args.model),
            Self::Bench(args) => Some(&args.quantized),
            Self::Compare(args) => Some(&args.quantized),
            Self::Evaluate(args) => Some(&args.model),
            Self::Demo(args) => args.model.as_deref(),
            Self::Measure(args) => Some(&args.model),
            Self::Report(_) | Self::Targets => None,
        }
    }
}

/// How inputs are read.
#[derive(Clone, Debug, Default, Args)]
pub struct InputArgs {
    /// Use at most N samples of --data
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..))]
    pub samples: Option<u32>,
    /// Leave out samples of the data by their numbers from 0, as the lab of `calibrate` names them
    #[arg(long, value_name = "N,…", value_delimiter = ',')]
    pub leave_out: Vec<usize>,
    /// Seed of everything random
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 0)]
    pub seed: u64,
    /// Size of symbolic dimensions: INPUT=1,3,224,224 or SYMBOL=64 (repeatable)
    #[arg(long, value_name = "NAME=DIMS")]
    pub shape: Vec<String>,
    /// How pictures become inputs, e.g. size=224x224,mean=0.485:0.456:0.406,std=0.229:0.224:0.225,layout=nchw,channels=bgr,scale=255,resize=crop
    #[arg(long, value_name = "OPTIONS")]
    pub image: Option<String>,
}

/// Threads of the runtime.
#[derive(Clone, Copy, Debug, Args)]
pub struct ThreadArgs {
    /// Threads of ONNX Runtime; 0 uses all cores
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 1, value_parser = threads)]
    pub threads: usize,
}

impl Default for ThreadArgs {
    fn default() -> Self {
        Self { threads: 1 }
    }
}

/// Data to judge quality with.
#[derive(Clone, Debug, Default, Args)]
pub struct EvalArgs {
    /// Evaluation data; without it a third of --data is held back
    #[arg(long, value_name = "DATA")]
    pub eval: Option<String>,
    /// Labels of the evaluation data: .npy, FILE.npz:KEY, a key of the evaluation .npz, or CSV
    #[arg(long, value_name = "LABELS")]
    pub labels: Option<String>,
}

/// The figure in front.
#[derive(Clone, Debug, Default, Args)]
pub struct MetricArgs {
    /// Judge by sqnr, kl, cosine, agreement or accuracy; without it by what fits the outputs
    #[arg(long, value_name = "NAME")]
    pub metric: Option<Metric>,
    /// Judge by a program of your own: called with the path of an .npz of the outputs, it prints a number on its last line
    /// (larger is better)
    #[arg(long, value_name = "COMMAND", conflicts_with = "metric")]
    pub metric_command: Option<String>,
}

#[derive(Debug, Args)]
pub struct InspectArgs {
    /// ONNX file
    pub model: PathBuf,
}

#[derive(Debug, Args)]
pub struct CalibrateArgs {
    /// ONNX file
    pub model: PathBuf,
    /// Calibration data: .npz, .npy, a folder of .npz files or of images, or random:N
    #[arg(long, value_name = "DATA")]
    pub data: String,
    /// Where to save the statistics
    #[arg(short, long, value_name = "FILE.stats")]
    pub output: PathBuf,
    /// Saved statistics to add to
    #[arg(long, value_name = "FILE.stats")]
    pub stats: Option<PathBuf>,
    #[command(flatten)]
    pub input: InputArgs,
    #[command(flatten)]
    pub threads: ThreadArgs,
}

#[derive(Debug, Args)]
pub struct SensitivityArgs {
    /// ONNX file
    pub model: PathBuf,
    /// Samples to learn from: .npz, .npy, a folder of .npz files or of images, or random:N
    #[arg(long, value_name = "DATA")]
    pub data: String,
    /// Use saved statistics instead of calibrating
    #[arg(long, value_name = "FILE.stats")]
    pub stats: Option<PathBuf>,
    /// Run the model with each candidate too, one layer at a time, and put the measured figure beside the predicted one
    #[arg(long)]
    pub measure: bool,
    /// Samples to measure on; without it those of --data
    #[arg(long, value_name = "DATA")]
    pub eval: Option<String>,
    /// Also judge by kl, cosine or agreement (sqnr is always there)
    #[arg(long, value_name = "NAME")]
    pub metric: Option<Metric>,
    #[command(flatten)]
    pub input: InputArgs,
    #[command(flatten)]
    pub threads: ThreadArgs,
}

#[derive(Debug, Args)]
pub struct AutoArgs {
    /// ONNX file
    pub model: PathBuf,
    /// Calibration data: .npz, .npy, a folder of .npz files or of images, or random:N
    #[arg(long, value_name = "DATA")]
    pub data: String,
    /// At least this SQNR, measured on the evaluation data
    #[arg(long, value_name = "DB", allow_negative_numbers = true)]
    pub min_sqnr: Option<f64>,
    /// At most this size: bytes, or a share of the original such as 40%
    #[arg(long, value_name = "BYTES or N%")]
    pub max_size: Option<String>,
    /// At most this latency, as quantized / original, measured on this machine
    #[arg(long, value_name = "RATIO")]
    pub max_latency: Option<f64>,
    /// At most this drop, measured on the evaluation data: percentage points of accuracy (with --labels), agreement or
    /// cosine, nats of kl, or the number of --metric-command
    #[arg(long, value_name = "POINTS")]
    pub max_drop: Option<f64>,
    #[command(flatten)]
    pub metric: MetricArgs,
    /// Where to write the plan
    #[arg(short, long, value_name = "PLAN.json")]
    pub output: PathBuf,
    #[command(flatten)]
    pub eval: EvalArgs,
    #[command(flatten)]
    pub input: InputArgs,
    #[command(flatten)]
    pub threads: ThreadArgs,
}

/// What to quantize, and how.
#[derive(Clone, Debug, Default, Args)]
pub struct PlanArgs {
    /// Plan file to start from
    #[arg(long, value_name = "PLAN.json", conflicts_with = "preset")]
    pub plan: Option<PathBuf>,
    /// Preset to start from: int8 (the default), int8-dynamic, int8-weights, int4-weights, int4-static, float16-weights,
    /// float16, tflite-dynamic, tflite-float16, tflite-int8, tflite-16x8, pytorch-dynamic, pytorch-static, pytorch-weight-only
    #[arg(long, value_name = "NAME")]
    pub preset: Option<String>,
    /// Change the choice of layers by name: a glob, or a regex after re: (repeatable); keys and values are in README.md
    #[arg(long, num_args = 2, value_names = ["PATTERN", "KEY=VALUE,…"], action = clap::ArgAction::Append)]
    pub set: Vec<String>,
    /// Where the model is to run; what the plan and it cannot agree on becomes problems: onnxruntime-cpu-vnni (the default),
    /// onnxruntime-cpu-avx2, onnxruntime-mobile, tensorrt, qnn, tflite-int8-spec (`nibble targets` lists their rules)
    #[arg(long, value_name = "NAME")]
    pub target: Option<String>,
    /// Change the choices that the target does not take to the nearest that it takes
    #[arg(long)]
    pub fix_target: bool,
}

#[derive(Debug, Args)]
pub struct QuantizeArgs {
    /// ONNX file
    pub model: PathBuf,
    /// Calibration data: .npz, .npy, a folder of .npz files or of images, or random:N
    #[arg(long, value_name = "DATA")]
    pub data: Option<String>,
    /// Use saved statistics instead of calibrating
    #[arg(long, value_name = "FILE.stats")]
    pub stats: Option<PathBuf>,
    /// Where to write the quantized model
    #[arg(short, long, value_name = "OUT.onnx")]
    pub output: PathBuf,
    #[command(flatten)]
    pub repair: QuantizeRepairArgs,
    #[command(flatten)]
    pub plan: PlanArgs,
    #[command(flatten)]
    pub eval: EvalArgs,
    #[command(flatten)]
    pub metric: MetricArgs,
    #[command(flatten)]
    pub input: InputArgs,
    #[command(flatten)]
    pub threads: ThreadArgs,
}

/// The word for no repair at all, not even the one that a preset makes by itself.
pub const NO_REPAIR: &str = "none";

/// A repair on the way.
#[derive(Clone, Debug, Default, Args)]
pub struct QuantizeRepairArgs {
    /// Repair all layers first: gptq, refit, descent, adaround, clip, bias, hqq, or best; or scale them (smoothquant, awq,
    /// equalisation); or both in a row, as smoothquant+gptq; none keeps presets of 4 bits from repairing by themselves
    #[arg(long, value_name = "METHOD")]
    pub repair: Option<String>,
    /// Use at most this many values of each weight's range, e.g. 8 for 3-bit values in int4
    #[arg(long, value_name = "N", requires = "repair", allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(2..=256))]
    pub repair_levels: Option<u32>,
    /// Seconds that the repair may take; what it leaves out then is said
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true, value_parser = seconds)]
    pub repair_seconds: Option<f64>,
    /// Write the plan as it was exported too, with its repaired weights beside it: `--plan` with it gives the same integers
    /// without repairing again
    #[arg(long, value_name = "PLAN.json")]
    pub save_plan: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct BenchArgs {
    /// The original
    pub original: PathBuf,
    /// The model to compare with it
    pub quantized: PathBuf,
    /// Data to run: .npz, .npy, a folder of .npz files or of images, or random:N (the default is random:8)
    #[arg(long, visible_alias = "eval", value_name = "DATA")]
    pub data: Option<String>,
    /// Labels of the data: .npy, FILE.npz:KEY, a key of the .npz, or CSV
    #[arg(long, value_name = "LABELS")]
    pub labels: Option<String>,
    /// Judge by sqnr, kl, cosine, agreement or accuracy; without it by what fits the outputs
    #[arg(long, value_name = "NAME")]
    pub metric: Option<Metric>,
    /// Seconds to measure for
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true, default_value_t = 6.0, value_parser = seconds)]
    pub seconds: f64,
    #[command(flatten)]
    pub input: InputArgs,
    #[command(flatten)]
    pub threads: ThreadArgs,
}

#[derive(Debug, Args)]
pub struct CompareArgs {
    /// The original
    pub original: PathBuf,
    /// The model to compare with it
    pub quantized: PathBuf,
    /// Data to run: .npz, .npy, a folder of .npz files or of images, or random:N (the default is random:8)
    #[arg(long, visible_alias = "eval", value_name = "DATA")]
    pub data: Option<String>,
    #[command(flatten)]
    pub input: InputArgs,
    #[command(flatten)]
    pub threads: ThreadArgs,
}

#[derive(Debug, Args)]
pub struct EvaluateArgs {
    /// ONNX file
    pub model: PathBuf,
    /// Evaluation data: .npz, .npy, or a folder of .npz files or of images
    #[arg(long, visible_alias = "data", value_name = "DATA")]
    pub eval: String,
    /// Labels of the evaluation data: .npy, FILE.npz:KEY, a key of the evaluation .npz, or CSV
    #[arg(long, value_name = "LABELS")]
    pub labels: Option<String>,
    #[command(flatten)]
    pub metric: MetricArgs,
    #[command(flatten)]
    pub input: InputArgs,
    #[command(flatten)]
    pub threads: ThreadArgs,
}

#[derive(Debug, Args)]
pub struct ReportArgs {
    /// Results saved with --json
    #[arg(required = true, value_name = "RESULT.json")]
    pub results: Vec<PathBuf>,
    /// Folder to write into
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
}

#[derive(Debug, Default, Args)]
pub struct DemoArgs {
    /// ONNX file; the bundled sample when none is given
    pub model: Option<PathBuf>,
    /// Calibration data of MODEL; random inputs when none is given
    #[arg(long, value_name = "DATA", requires = "model")]
    pub data: Option<String>,
    #[command(flatten)]
    pub plan: PlanArgs,
    #[command(flatten)]
    pub eval: EvalArgs,
    #[command(flatten)]
    pub input: InputArgs,
    #[command(flatten)]
    pub threads: ThreadArgs,
}

#[derive(Debug, Args)]
pub struct MeasureArgs {
    /// ONNX file
    pub model: PathBuf,
    #[arg(long)]
    pub data: String,
    #[command(flatten)]
    pub input: InputArgs,
    #[command(flatten)]
    pub threads: ThreadArgs,
}

/// Most threads: a machine of today has fewer cores, and starting a hundred thousand threads hangs it.
const MAX_THREADS: usize = 1024;
/// Longest measurement.
const MAX_SECONDS: f64 = 3600.0;

fn threads(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| *n <= MAX_THREADS).ok_or_else(|| format!("allowed are 0 to {MAX_THREADS}"))
}

fn seconds(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|seconds| *seconds > 0.0 && *seconds <= MAX_SECONDS)
        .ok_or_else(|| format!("allowed are more than 0 and up to {MAX_SECONDS}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_hold_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn set_takes_two_values_each_time() {
        let line = [
            "nibble",
            "quantize",
            "m.onnx",
            "-o",
            "q.onnx",
            "--set",
            "a*",
            "precision=int4",
            "--set",
            "re:b",
            "mode=dynamic",
        ];
        let Some(Verb::Quantize(args)) = Cli::try_parse_from(line).expect("parses").verb else {
            panic!("not quantize")
        };
        assert_eq!(args.plan.set, ["a*", "precision=int4", "re:b", "mode=dynamic"]);
        assert!(Cli::try_parse_from(&line[..7]).is_err());
    }

    #[test]
    fn a_model_alone_asks_for_the_window() {
        let cli = Cli::try_parse_from(["nibble", "m.onnx"]).expect("parses");
        assert!(cli.verb.is_none() && cli.model.is_some());
    }
}
