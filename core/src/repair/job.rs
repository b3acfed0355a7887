//! Repairs of many layers in one pass: what enters them is gathered from the float model, a few layers at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::collect::{Collected, Feed, Split, Tap};
use super::layer::{Known, LayerTask};
use super::part::Part;
use super::{Gain, LayerRepair};
use crate::calibrate::{CalibrateOptions, session_options};
use crate::data::DataSet;
use crate::export::{Form, Pick, pick};
use crate::model::{Layer, Model};
use crate::plan::{Choice, Plan, Rounding};
use crate::problem::Severity;
use crate::runtime::{Runtime, SessionOptions};
use crate::stats::Stats;
use crate::{Control, Error, Problem};

/// Most columns that a factor is made of; wider layers are repaired without data.
pub const MAX_COLUMNS: usize = 4608;

/// How repairs run.
#[derive(Clone, Debug)]
pub struct RepairOptions {
    /// Threads of the runtime.
    pub threads: usize,
    /// Bytes that moments may take at a time; one layer's are taken whatever they are.
    pub memory_bytes: usize,
    /// Integers to use of each weight's range, where it is to be fewer than its bits hold.
    pub levels: Option<u32>,
    /// When to stop; what is repaired until then is kept. With it the result depends on how fast the machine is.
    pub deadline: Option<Instant>,
    /// Set once somebody says that what is there is enough: as if the deadline had come.
    pub enough: Arc<AtomicBool>,
    /// Whether every sample is held back once to forecast the gain; `None` for where that takes little time.
    pub cross_fit: Option<bool>,
    /// When integers are no longer polished, where a single layer has a time limit.
    pub polish_until: Option<Instant>,
}

impl Default for RepairOptions {
    fn default() -> Self {
        Self {
            threads: 1,
            memory_bytes: 512 << 20,
            levels: None,
            deadline: None,
            enough: Arc::default(),
            cross_fit: None,
            polish_until: None,
        }
    }
}

impl RepairOptions {
    /// Whether time is up.
    pub fn is_over(&self) -> bool {
        self.enough.load(Ordering::Relaxed) || self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }
}

/// What is repaired, and on what.
#[derive(Clone, Copy)]
pub struct Job<'a> {
    /// The float model.
    pub model: &'a Model,
    /// What runs it.
    pub runtime: &'a Runtime,
    /// What calibration gathered; needed where the plan is static.
    pub stats: Option<&'a Stats>,
    /// The plan whose choices the repairs are for.
    pub plan: &'a Plan,
    /// The samples.
    pub data: &'a DataSet,
    /// Which of them are learnt from and which judge.
    pub split: &'a Split,
    /// How.
    pub options: &'a RepairOptions,
}

/// A layer that was repaired.
#[derive(Clone, Debug)]
pub struct RepairedLayer {
    /// Its name.
    pub name: String,
    /// The repair; its own figures are those on data held back.
    pub repair: Arc<LayerRepair>,
    /// Its figures on the data learnt from.
    pub calibration: Option<Gain>,
    /// Seconds for the layer itself, running the model left out.
    pub seconds: f64,
}

impl RepairedLayer {
    /// Puts the repair in force in `plan`.
    pub fn put(&self, plan: &mut Plan) {
        let choice = Choice { rounding: self.repair.method, ..plan.choice(&self.name) };
        plan.set_layer(&self.name, choice);
        plan.repairs.insert(self.name.clone(), Arc::clone(&self.repair));
    }
}

impl Job<'_> {
    /// The choice of `layer` as its form honours it; `None` where it has no integers.
    pub fn choice(&self, layer: &Layer) -> Option<Choice> {
        integer_choice(&pick(self.model, layer, self.plan.choice(&layer.name), self.stats))
    }

    /// What enters `layer`; `None` where no rows of it meet the weight as they come.
    pub fn tap(&self, layer: &Layer, choice: &Choice) -> Option<Tap> {
        tap(self.model, layer, choice)
    }

    /// How sessions are opened.
    pub fn session(&self) -> SessionOptions {
        session_options(self.model, &CalibrateOptions { threads: self.options.threads })
    }

    /// Repairs the layers (by index, each with a method; a layer may be named more than once) from what the float model
    /// gives them. Layers without integers in the plan are left out. Those whose input cannot be seen are repaired without
    /// data, and a problem says so.
    pub fn one_pass(&self, wishes: &[(usize, Rounding)], control: &Control) -> Result<Vec<RepairedLayer>, Error> {
        let session = self.session();
        let feed = self.feed(&session);
        let mut taps: Vec<Group<'_>> = Vec::new();
        for &(at, method) in wishes {
            let Some(layer) = self.model.layers.get(at) else { continue };
            let Some(choice) = self.choice(layer) else { continue };
            let tap = if method == Rounding::Hqq { None } else { self.tap(layer, &choice) };
            match taps.iter_mut().find(|(known, _)| *known == tap) {
                Some((_, layers)) => layers.push((layer, choice, method)),
                None => taps.push((tap, vec![(layer, choice, method)])),
            }
        }
        let mut out = Vec::new();
        let total = wishes.len() as u64;
        while !taps.is_empty() && !self.options.is_over() {
            let mut bytes = 0;
            let fits = |(tap, _): &&Group<'_>| {
                let own = tap.as_ref().map_or(0, |tap| 2 * tap.groups * super::Moments::bytes(tap.columns, false));
                bytes += own;
                bytes == own || bytes <= self.options.memory_bytes
            };
            let count = taps.iter().take_while(fits).count().max(1);
            let now: Vec<_> = taps.drain(..count).collect();
            let wanted: Vec<Tap> = now.iter().filter_map(|(tap, _)| tap.clone()).collect();
            let mut collected = if wanted.is_empty() {
                Vec::new()
            } else {
                feed.collect(&self.model.graph, None, &wanted, "Watching what enters layers", control)?
            }
            .into_iter();
            for (tap, layers) in now {
                control.progress("Repairing layers", out.len() as u64, total);
                if self.options.is_over() && !out.is_empty() {
                    return Ok(out);
                }
                let collected = if tap.is_some() { collected.next().flatten() } else { None };
                out.extend(self.layers(&layers, collected.as_ref(), control)?);
            }
        }
        Ok(out)
    }

    /// What runs the samples.
    pub fn feed<'f>(&'f self, session: &'f SessionOptions) -> Feed<'f> {
        Feed { runtime: self.runtime, data: self.data, split: self.split, session, folder: self.model.file.folder() }
    }

    /// Layers that the same input enters.
    pub(super) fn layers(
        &self,
        layers: &[(&Layer, Choice, Rounding)],
        collected: Option<&Collected>,
        control: &Control,
    ) -> Result<Vec<RepairedLayer>, Error> {
        let mut known: [Option<Known<'_>>; 2] = [None, None];
        let mut out = Vec::new();
        for (layer, choice, method) in layers {
            control.check()?;
            let started = Instant::now();
            let centred = LayerTask::corrects_bias(self.model, layer, *method)?;
            let known = collected
                .map(|collected| &*known[usize::from(centred)].get_or_insert_with(|| Known::new(collected, centred)));
            let task = LayerTask {
                model: self.model,
                layer,
                choice: *choice,
                method: *method,
                known,
                levels: self.options.levels,
                polish_until: self.options.polish_until,
            };
            let (repair, judged) = task.run()?;
            if repair.method != *method {
                control.problem(without_data(layer, *method));
            }
            out.push(RepairedLayer {
                name: layer.name.clone(),
                repair: Arc::new(repair),
                calibration: judged.calibration,
                seconds: started.elapsed().as_secs_f64(),
            });
        }
        Ok(out)
    }
}

/// Layers, each with its choice and method, that the same input enters.
type Group<'a> = (Option<Tap>, Vec<(&'a Layer, Choice, Rounding)>);

/// The choice that a layer's form honours, rounded to nearest; `None` where it has no integers.
pub fn integer_choice(pick: &Pick) -> Option<Choice> {
    let integer = pick.form != Form::Float && pick.choice.is_integer();
    integer.then_some(Choice { rounding: Rounding::Nearest, ..pick.choice })
}

/// See [`Job::tap`].
pub(super) fn tap(model: &Model, layer: &Layer, choice: &Choice) -> Option<Tap> {
    let parts = Part::of(layer, 0, choice.granularity).filter(|_| !layer.in_subgraph())?;
    let columns = parts.first()?.columns;
    let is_constant = model.initializer(layer, &layer.input).is_some() || layer.input.is_empty();
    (columns <= MAX_COLUMNS && !is_constant).then(|| Tap {
        tensor: layer.input.clone(),
        cut: layer.cut.clone(),
        groups: parts.len(),
        columns,
        rounding: None,
    })
}

/// Why [`tap`] finds nothing for a layer.
pub(super) fn untapped(layer: &Layer) -> String {
    let columns = layer.weight().map_or(0, |weight| weight.layout.depth());
    if layer.in_subgraph() {
        "It lies in a body of If, Loop or Scan, where its input cannot be watched".to_owned()
    } else if columns > MAX_COLUMNS && layer.op != "Gather" {
        format!("It has {columns} weights an output, more than the {MAX_COLUMNS} that are factored")
    } else {
        format!("{}: no rows of its input meet its weight one by one", layer.op)
    }
}

/// Says that a layer was repaired without data.
fn without_data(layer: &Layer, method: Rounding) -> Problem {
    Problem::new(
        Severity::Note,
        format!("Repaired without data: a clip search takes the place of {method}"),
        layer.name.as_str(),
        untapped(layer),
        "Nothing, or choose hqq, which needs no data either",
    )
}
