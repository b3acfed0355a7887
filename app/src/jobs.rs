//! The work that runs beside the window: each job calls verbs of the library and answers with a [`Message`]. Whatever
//! reads a file, runs a model or looks at every weight is here.

mod bench;
mod beside;
mod calibrate;
mod compare;
mod data;
mod export;
mod files;
mod finetune;
mod forecast;
mod lab;
mod repair;
mod weights;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use nibble_core::bench::Bench;
use nibble_core::data::{DataPreview, Picture};
use nibble_core::error::{Isolated, Sqnr};
use nibble_core::export::Verified;
use nibble_core::finetune::Point as TrainingPoint;
use nibble_core::model::Model;
use nibble_core::plan::spare::Spared;
use nibble_core::plan::{Choice, Plan};
use nibble_core::predict::Noise;
use nibble_core::problem::Severity;
use nibble_core::runtime::Runtime;
use nibble_core::stats::{Stats, TensorStats};
use nibble_core::{Error, Problem};

pub use bench::bench;
pub use beside::beside;
pub use calibrate::calibrate;
pub use compare::{Compared, Reference, compare};
pub use data::{preview, score};
pub use export::export;
pub use files::{find_runtime, keep, open_model, open_plan, open_sample, save_plan, save_settings};
pub use finetune::{FinetuneRequest, Tuned, finetune};
pub use forecast::{Forecast, LearnRequest, Learnt, Point, learn, run_plan};
pub use lab::{Examined, examine};
pub use repair::{Mended, OpenModel, RepairRequest, ScaledModel, Stage, Whole, repair};
pub use weights::light;

use crate::blame::Finding;
use crate::cli::sample::Sample;
use crate::edit::Purpose;
use crate::results::{WeightFacts, Work};
use crate::views::calibrate::DataRequest;

/// Why a job has no result.
#[derive(Clone, Debug)]
pub enum Failure {
    /// The person cancelled.
    Cancelled,
    /// It went wrong.
    Problem(Problem),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Cancelled => Self::Cancelled,
            error => Self::Problem(Problem::new(
                Severity::Serious,
                error.to_string(),
                error.place(),
                String::new(),
                error.hint(),
            )),
        }
    }
}

/// What jobs answer.
pub enum Message {
    /// A model was opened.
    Opened {
        /// Its file.
        path: PathBuf,
        /// The model.
        result: Result<Box<Model>, Failure>,
        /// The data that come with it, when it is the sample.
        sample: Option<Sample>,
    },
    /// A piece of background work is done.
    Light {
        /// Which.
        work: Work,
        /// [`Model::identity`] of the model that it was done for.
        about: String,
        /// Its result.
        result: Result<Found, String>,
    },
    /// The data as the model gets it.
    Previewed(Result<Box<Preview>, Failure>),
    /// The float model's own accuracy.
    Scored(Result<Score, Failure>),
    /// Statistics that a running calibration has gathered until now.
    CalibratedSoFar(Arc<Stats>),
    /// Statistics were gathered, or calibration stopped early.
    Calibrated(Calibrated),
    /// It was found out what the samples did to the ranges.
    Examined(Box<Examined>),
    /// It was learnt what matters to the model's output.
    Learnt(Result<Box<Learnt>, Failure>),
    /// A plan with repaired weights was run.
    PlanRun(Result<(Arc<Plan>, Sqnr), Failure>),
    /// The export was written and measured.
    Exported(Result<Box<Exported>, Failure>),
    /// Where a running fine-tuning stands.
    FinetunedSoFar(TrainingPoint),
    /// Weights were trained.
    Finetuned(Result<Box<Tuned>, Failure>),
    /// What a running repair has found.
    RepairedSoFar(Box<Mended>),
    /// A repair was found.
    Repaired(Result<Box<Mended>, Failure>),
    /// The export would replace this file.
    WouldOverwrite(PathBuf),
    /// Both models were timed.
    Benched(Result<Box<Benched>, Failure>),
    /// The model was compared with a file layer by layer.
    Compared(Result<Box<Compared>, Failure>),
    /// What lies beside the open model.
    Beside(Option<Offer>),
    /// A plan was read.
    PlanOpened {
        /// Its file.
        path: PathBuf,
        /// The plan.
        result: Result<OpenedPlan, Failure>,
    },
    /// A plan was written.
    PlanSaved {
        /// Its file.
        path: PathBuf,
        /// The plan.
        plan: Arc<Plan>,
        /// Whether it worked.
        result: Result<(), Failure>,
    },
    /// A histogram was written.
    Kept {
        /// Its file.
        path: PathBuf,
        /// Whether it worked.
        result: Result<(), Failure>,
    },
    /// The settings were written, or why not.
    SettingsSaved(Result<(), String>),
    /// ONNX Runtime was found, or not.
    RuntimeFound(Result<&'static Runtime, Failure>),
    /// A file dialog was closed.
    Picked {
        /// What it was for.
        purpose: Purpose,
        /// What was chosen.
        path: Option<PathBuf>,
    },
}

/// A plan to go on with, found in an exported file.
#[derive(Clone, Debug, PartialEq)]
pub enum Offer {
    /// The open model is an export itself.
    Export {
        /// The plan it was made with.
        plan: Arc<Plan>,
        /// Version of Nibble that wrote it.
        version: String,
        /// Its original, where that lies in the same folder.
        original: Option<PathBuf>,
    },
    /// Exports of the open model in its folder, the newest first.
    Original(Vec<(PathBuf, Arc<Plan>)>),
}

/// A plan that was read.
pub struct OpenedPlan {
    /// The plan.
    pub plan: Box<Plan>,
    /// The model with its scalings, where it has some.
    pub scaled: Option<Arc<Model>>,
}

/// Result of a piece of background work.
pub enum Found {
    /// Histogram and ranges of a layer's weights.
    Facts(Box<WeightFacts>),
    /// Error of a layer's weights in dB.
    WeightError(Choice, f64),
    /// A layer's repaired weights.
    Rounded(Choice, Box<TensorStats>),
    /// Error at a layer's own output.
    Isolated(Choice, Isolated),
    /// What a choice for a layer's weights does to the model's output.
    Noise(Choice, Noise),
}

/// The data as the model gets it.
pub struct Preview {
    /// One line about the source.
    pub description: String,
    /// The first sample, input by input.
    pub first: DataPreview,
    /// Pictures of the first samples, where inputs look like pictures.
    pub pictures: Vec<Picture>,
    /// The same as textures, made when it arrives.
    pub textures: Vec<eframe::egui::TextureHandle>,
    /// What was noticed.
    pub problems: Vec<Problem>,
}

/// The float model's own accuracy.
#[derive(Clone, Copy, Debug)]
pub struct Score {
    /// Share of samples it gets right.
    pub accuracy: f64,
    /// Number of samples.
    pub samples: usize,
}

/// What calibration gathered. When it was cancelled or failed, what was gathered until then comes with the reason.
pub struct Calibrated {
    /// The samples.
    pub data: DataRequest,
    /// What was gathered, possibly in part.
    pub stats: Option<Box<Stats>>,
    /// Layers of the preset int8 that are better left in floating point.
    pub spared: Vec<Spared>,
    /// Why it stopped early.
    pub failure: Option<Failure>,
    /// What degraded.
    pub problems: Vec<Problem>,
    /// Seconds it took.
    pub seconds: f64,
}

/// What an export is made from.
pub struct ExportRequest {
    /// The model.
    pub model: Arc<Model>,
    /// What calibration gathered.
    pub stats: Option<Arc<Stats>>,
    /// The plan.
    pub plan: Arc<Plan>,
    /// The samples that the export is measured with.
    pub data: DataRequest,
    /// Where to.
    pub path: PathBuf,
    /// Whether an existing file may be replaced.
    pub overwrite: bool,
}

/// A written export with what was measured on it.
pub struct Exported {
    /// The plan it was made with.
    pub plan: Arc<Plan>,
    /// The file, its quality and what it takes to run it.
    pub verified: Verified,
    /// Measured error at each layer's output in dB, by layer name.
    pub accumulated: BTreeMap<String, f64>,
    /// Where it came out badly: which layers are to blame, and the way out of each.
    pub findings: Vec<Finding>,
    /// The samples it was measured with, for people.
    pub measured_on: String,
}

/// Both models timed in one run.
pub struct Benched {
    /// The plan of the export that was timed.
    pub plan: Arc<Plan>,
    /// The figures.
    pub bench: Bench,
    /// Which layers were expected to run faster and do not.
    pub settled: Option<String>,
    /// What could not be measured.
    pub problems: Vec<Problem>,
}
