//! Repairs: the library's searches, with what they found shown step by step; nothing changes until it is accepted.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nibble_core::calibrate::CalibrateOptions;
use nibble_core::error::Sqnr;
use nibble_core::export::{export, pick};
use nibble_core::model::Model;
use nibble_core::plan::spare::{LEAST_DB, Spared};
use nibble_core::plan::{Plan, preset};
use nibble_core::predict::Reference;
use nibble_core::repair::{
    AtOnce, Calibration, Difference, GainSpread, Job, Method, RepairOptions, RepairedLayer, ScaleOptions, ScaledBlock,
    ScaledPlan, ScalingMethod, Split, Workbench, judges, repair_missing, repair_watched, repairable, scale_plan,
};
use nibble_core::runtime::Runtime;
use nibble_core::stats::Stats;
use nibble_core::{Control, Error, Problem};

use super::calibrate::spared;
use super::data::Samples;
use super::{Failure, Message};
use crate::repairs::RepairMethod;
use crate::views::calibrate::DataRequest;
use crate::worker::Reporter;

/// What a repair is made from.
pub struct RepairRequest {
    /// The model, with the plan's scalings.
    pub model: Arc<Model>,
    /// What calibration gathered on it.
    pub stats: Option<Arc<Stats>>,
    /// The plan in force.
    pub from: Arc<Plan>,
    /// The plan to repair: the same, without what a scaling makes needless.
    pub plan: Plan,
    /// The samples.
    pub data: DataRequest,
    /// The layers meant, by index.
    pub layers: Vec<usize>,
    /// How.
    pub method: RepairMethod,
    /// Seconds that it may take, where it goes on until its time is up.
    pub seconds: f64,
    /// Set when the person says that what is there is enough.
    pub enough: Arc<AtomicBool>,
    /// Where the model stays open between previews of one layer.
    pub bench: OpenModel,
}

/// A model that stays open between previews, with the data that it was opened for.
pub type OpenModel = Arc<Mutex<Option<(DataRequest, Workbench)>>>;

/// How far a repair has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// From the rows that calibration kept; the samples run still.
    FirstLook,
    /// One layer from some of the samples, with the whole model in floating point around it; it can be accepted.
    AtOnce,
    /// The layers are as they will be; the whole model runs still.
    Layers,
    /// All is known.
    Whole,
}

/// A repair that waits to be accepted.
#[derive(Clone)]
pub struct Mended {
    /// How it was made.
    pub method: RepairMethod,
    /// How far it has come.
    pub stage: Stage,
    /// The plan that was in force.
    pub from: Arc<Plan>,
    /// The plan with it.
    pub plan: Arc<Plan>,
    /// Layers with other integers.
    pub layers: Vec<(RepairedLayer, Difference)>,
    /// Blocks of layers that a scaling was tried on.
    pub blocks: Vec<ScaledBlock>,
    /// The scaled model, where some were scaled.
    pub scaled: Option<Arc<ScaledModel>>,
    /// The whole model before and after.
    pub whole: Option<Whole>,
    /// Where the samples come from, for people.
    pub source: String,
    /// Seconds so far.
    pub seconds: f64,
    /// What degraded.
    pub problems: Vec<Problem>,
}

/// The model with a plan's scalings, and what belongs to it.
pub struct ScaledModel {
    /// The model.
    pub model: Arc<Model>,
    /// Its statistics.
    pub stats: Option<Arc<Stats>>,
    /// What they were gathered with.
    pub data: DataRequest,
    /// Layers that the preset int8 spares in it.
    pub spared: Vec<Spared>,
}

/// What a repair does to the whole model, measured.
#[derive(Clone)]
pub struct Whole {
    /// SQNR of the output without it.
    pub before: Sqnr,
    /// With it.
    pub after: Sqnr,
    /// The gain, and what so many samples leave open of it.
    pub gain: Option<GainSpread>,
    /// Samples that it was measured on.
    pub samples: usize,
    /// Whether these are others than those learnt from.
    pub is_held_back: bool,
    /// What was tried on the whole model.
    pub tried: Vec<(String, Sqnr)>,
    /// Whether all but the one layer was in floating point.
    pub is_alone: bool,
}

/// Repairs; `reporter` gets what is known so far.
pub fn repair(
    request: &RepairRequest,
    runtime: &Runtime,
    control: &Control,
    reporter: &Reporter<'_, Message>,
) -> Message {
    let attempt = || -> Result<Box<Mended>, Error> {
        let started = Instant::now();
        let show = |mended: &Mended| reporter.report(Message::RepairedSoFar(Box::new(mended.clone())));
        let (stage, method) = (Stage::FirstLook, request.method);
        let mut mended = Mended {
            method,
            stage,
            from: Arc::clone(&request.from),
            plan: Arc::clone(&request.from),
            layers: Vec::new(),
            blocks: Vec::new(),
            scaled: None,
            whole: None,
            source: String::new(),
            seconds: 0.0,
            problems: Vec::new(),
        };
        let work = Work { request, runtime, control, started };
        match method {
            RepairMethod::Rounding(method) => work.round(method, &mut mended, &show)?,
            RepairMethod::Scaling(method) => work.scale(method, &mut mended, &show)?,
            RepairMethod::Missing => work.missing(&mut mended, &show)?,
        }
        mended.stage = Stage::Whole;
        mended.seconds = started.elapsed().as_secs_f64();
        mended.problems = control.problems();
        Ok(Box::new(mended))
    };
    Message::Repaired(attempt().map_err(Failure::from))
}

struct Work<'a> {
    request: &'a RepairRequest,
    runtime: &'a Runtime,
    control: &'a Control,
    started: Instant,
}

impl Work<'_> {
    fn round(&self, method: Method, mended: &mut Mended, show: &dyn Fn(&Mended)) -> Result<(), Error> {
        let RepairRequest { model, plan, stats, .. } = self.request;
        let samples = Samples::open(model, &self.request.data)?;
        let split = Split::of(&samples.calibration);
        mended.source = samples.data.describe();
        let seconds = Some(self.request.seconds).filter(|_| self.request.method.takes_seconds());
        let options = RepairOptions {
            deadline: seconds.and_then(|seconds| Instant::now().checked_add(Duration::from_secs_f64(seconds))),
            enough: Arc::clone(&self.request.enough),
            ..RepairOptions::default()
        };
        let stats = stats.as_deref();
        let (data, split, options) = (&samples.data, &split, &options);
        let job = Job { model, runtime: self.runtime, stats, plan, data, split, options };
        let is_meant = |name: &str| {
            self.request.layers.iter().any(|&layer| model.layers.get(layer).is_some_and(|layer| layer.name == name))
        };
        let indices = repairable(&job, is_meant);
        if let [only] = indices.as_slice()
            && let Some(look) = job.first_look(*only, method, self.control)?
        {
            mended.layers = vec![self.described(look)?];
            mended.seconds = self.started.elapsed().as_secs_f64();
            show(mended);
        }
        if let [only] = indices.as_slice() {
            self.at_once(&job, *only, method, mended, show)?;
        }
        let mut failed = None;
        let mut watch = |plan: &Plan, layers: &[RepairedLayer]| {
            match self.described_all(layers) {
                Ok(layers) => mended.layers = layers,
                Err(error) => failed = Some(error),
            }
            mended.plan = Arc::new(plan.clone());
            self.show_layers(mended, show);
        };
        let outcome = repair_watched(&job, &indices, method, self.control, &mut watch)?;
        if let Some(error) = failed {
            return Err(error);
        }
        mended.layers = self.described_all(&outcome.layers)?;
        mended.plan = Arc::new(outcome.plan);
        mended.whole = Some(Whole {
            before: outcome.before,
            after: outcome.after,
            gain: outcome.gain,
            samples: outcome.judged_on,
            is_held_back: split.is_held_back(),
            tried: outcome.tried,
            is_alone: false,
        });
        Ok(())
    }

    /// Repairs one layer from the model held open, which is opened where it is not.
    fn at_once(
        &self,
        job: &Job<'_>,
        layer: usize,
        method: Method,
        mended: &mut Mended,
        show: &dyn Fn(&Mended),
    ) -> Result<(), Error> {
        // A job that panicked has left rows at worst that nobody finished.
        let mut kept = self.request.bench.lock().unwrap_or_else(PoisonError::into_inner);
        let data = &self.request.data;
        if kept.as_ref().is_none_or(|(known, bench)| known != data || !bench.fits(job)) {
            // The one before goes first: two open models take twice the memory.
            *kept = None;
            *kept = Some((data.clone(), Workbench::open(job, self.control)?));
        }
        let Some((_, bench)) = kept.as_mut() else { return Ok(()) };
        let Some(AtOnce { layer, whole, run_on, .. }) = bench.repair(job, layer, method, self.control)? else {
            return Ok(());
        };
        let mut plan = job.plan.clone();
        layer.put(&mut plan);
        (mended.plan, mended.stage) = (Arc::new(plan), Stage::AtOnce);
        mended.layers = vec![self.described(layer)?];
        let is_held_back = job.split.is_held_back();
        mended.whole = whole.map(|(before, after, gain)| Whole {
            before,
            after,
            gain,
            samples: run_on,
            is_held_back,
            tried: Vec::new(),
            is_alone: true,
        });
        mended.seconds = self.started.elapsed().as_secs_f64();
        show(mended);
        Ok(())
    }

    /// The repairs that the plan's choices ask for and it does not have.
    fn missing(&self, mended: &mut Mended, show: &dyn Fn(&Mended)) -> Result<(), Error> {
        let RepairRequest { model, plan, stats, data, .. } = self.request;
        let (samples, stats) = (Samples::open(model, data)?, stats.as_deref());
        let (split, options) = (Split::of(&samples.calibration), RepairOptions::default());
        mended.source = samples.data.describe();
        let job =
            Job { model, runtime: self.runtime, stats, plan, data: &samples.data, split: &split, options: &options };
        let (plan, layers) = repair_missing(&job, self.control)?;
        mended.layers = self.described_all(&layers)?;
        mended.plan = Arc::new(plan);
        self.show_layers(mended, show);
        let plan = Arc::clone(&mended.plan);
        mended.whole = Some(self.whole(&samples, &|reference| reference.measure(&plan, stats, self.control))?);
        Ok(())
    }

    fn show_layers(&self, mended: &mut Mended, show: &dyn Fn(&Mended)) {
        // What was said of one layer alone is no figure of this.
        (mended.stage, mended.whole) = (Stage::Layers, None);
        mended.seconds = self.started.elapsed().as_secs_f64();
        show(mended);
    }

    /// Runs the plan in force, and what `after` measures, on samples held back.
    fn whole(&self, samples: &Samples, after: &dyn Fn(&Reference<'_>) -> Result<Sqnr, Error>) -> Result<Whole, Error> {
        let RepairRequest { model, from, stats, .. } = self.request;
        let split = Split::of(&samples.calibration);
        let (judges, output) = (judges(&split), model.judged_output());
        let reference = Reference::new(model, self.runtime, &samples.data, &judges, output, 1, self.control)?;
        self.control.progress("Running the whole model", 0, 0);
        let before = reference.measure(from, stats.as_deref(), self.control)?;
        let after = after(&reference)?;
        let (samples, is_held_back) = (judges.len(), split.is_held_back());
        Ok(Whole { before, after, gain: None, samples, is_held_back, tried: Vec::new(), is_alone: false })
    }

    fn described_all(&self, layers: &[RepairedLayer]) -> Result<Vec<(RepairedLayer, Difference)>, Error> {
        layers.iter().map(|layer| self.described(layer.clone())).collect()
    }

    fn described(&self, repaired: RepairedLayer) -> Result<(RepairedLayer, Difference), Error> {
        let RepairRequest { model, plan, stats, .. } = self.request;
        let difference = match model.layer(&repaired.name) {
            Some(layer) => {
                let choice = pick(model, layer, plan.choice(&layer.name), stats.as_deref()).choice;
                repaired.repair.difference(model, layer, &choice)?
            }
            None => Difference::default(),
        };
        Ok((repaired, difference))
    }

    fn scale(&self, method: ScalingMethod, mended: &mut Mended, show: &dyn Fn(&Mended)) -> Result<(), Error> {
        let RepairRequest { model, from, plan, stats, data, .. } = self.request;
        let (samples, stats) = (Samples::open(model, data)?, stats.as_deref());
        mended.source = samples.data.describe();
        let is_meant = |name: &str| {
            self.request.layers.iter().any(|&layer| model.layers.get(layer).is_some_and(|layer| layer.name == name))
        };
        let least_db = preset(&plan.preset).is_ok_and(|preset| preset.spares).then_some(LEAST_DB);
        let options = ScaleOptions { method, wanted: &is_meant, least_db };
        let how = CalibrateOptions::default();
        let calibration = Calibration {
            runtime: self.runtime,
            data: &samples.data,
            indices: &samples.calibration,
            options: &how,
            seed: data.options.seed,
            always: stats.is_some(),
        };
        let (found, scaled) = scale_plan(model, stats, plan, &options, Some(calibration), self.control)?;
        mended.blocks = found.blocks;
        let Some(ScaledPlan { mut plan, model: scaled, stats: scaled_stats, unrepaired }) = scaled else {
            return Ok(());
        };
        let found = match &scaled_stats {
            Some(stats) => spared(&scaled, stats, self.control)?,
            None => Vec::new(),
        };
        // What was put back to be scaled, and is still better off in floating point.
        let was_spared = |spared: &&Spared| from.choice(&spared.layer) != self.request.plan.choice(&spared.layer);
        plan.spare(&found.iter().filter(was_spared).cloned().collect::<Vec<_>>());
        for name in unrepaired {
            self.control.problem(dropped(&name));
        }
        let (plan, scaled_stats) = (Arc::new(plan), scaled_stats.map(Arc::new));
        mended.plan = Arc::clone(&plan);
        let scaled = Arc::new(scaled);
        mended.scaled = Some(Arc::new(ScaledModel {
            model: Arc::clone(&scaled),
            stats: scaled_stats.clone(),
            data: data.clone(),
            spared: found,
        }));
        self.show_layers(mended, show);
        let made = export(&scaled, scaled_stats.as_deref(), &plan, self.control)?;
        let after = |reference: &Reference<'_>| Ok(reference.quality(&made.proto, self.control)?.sqnr_db);
        mended.whole = Some(self.whole(&samples, &after)?);
        Ok(())
    }
}

fn dropped(layer: &str) -> Problem {
    Problem::new(
        nibble_core::problem::Severity::Note,
        "Its repair does not fit the scaled weights: it is rounded to nearest again",
        layer,
        "A repair is made for the weights as they are once scaled",
        "Repair it again",
    )
}
