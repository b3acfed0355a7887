//! One layer repaired at once: in about a second, and good enough to be accepted.
//!
//! What a person tries on one layer should answer while they look. So the model is opened once, with what enters every layer
//! made visible and every weight an input that a run may give anew, and stays open from one preview to the next. A preview then
//!
//! 1. runs samples, until there are rows enough or [`CAPTURE_SECONDS`] are over; rows of all layers are kept, so that the next
//!    preview, of whatever layer, begins with them and adds more;
//! 2. repairs the layer from its rows, and judges it on those of samples held back, one by one, which gives the gain's interval;
//! 3. runs some of the samples held back through the whole model with this layer's weights rounded to nearest, and with
//!    the repair: the single-layer error, everything else in floating point.
//!
//! Limits: it learns from fewer samples than [`super::repair`], and from how many hangs on the machine's speed and on what was
//! tried before; refit and `best`'s refitting, which go through the model layer by layer, it leaves to that. Rows take at most
//! [`crate::limits::WORKBENCH_BYTES`] beside the open model. What rounded activations do is no part of 3.

mod effect;
mod graph;
mod judged;

use std::time::{Duration, Instant};

use self::effect::Effect;
use self::graph::Open;
use self::judged::Versions;
use super::collect::{Collected, Picked, Split, Tap, add, pick_rows, visit};
use super::job::{Job, RepairedLayer, tap};
use super::tally::{GainSpread, Tally};
use super::whole::ONE_PASS;
use super::{Gain, LayerRepair, Method, Moments, RepairOptions};
use crate::data::Sample;
use crate::error::Sqnr;
use crate::plan::{Choice, Granularity, Rounding};
use crate::runtime::Session;
use crate::tensor::Tensor;
use crate::{Control, Error, limits};

/// How long a preview runs samples to learn from more of them, once there are [`LEAST_SAMPLES`].
const CAPTURE_SECONDS: f64 = 0.3;
/// Samples that the first preview runs at least, where there are so many.
const LEAST_SAMPLES: usize = 8;
/// Most samples whose rows are kept.
const MOST_SAMPLES: usize = 128;
/// Rows that are added up at a time.
const TOGETHER: usize = 2048;
/// When a preview stops polishing integers, from its beginning on.
const POLISH_SECONDS: f64 = 0.6;
/// When a preview stops running the whole model, from its beginning on; two samples are run whatever it takes.
const END_SECONDS: f64 = 0.85;
/// Most samples that the whole model is run on.
const JUDGES: usize = 16;

/// A model held open for repairs of one layer at a time.
pub struct Workbench {
    open: Open,
    /// What enters each layer of the model, where that can be seen.
    taps: Vec<Option<Tap>>,
    /// Samples in the order in which they are run, and whether each is held back.
    queue: Vec<(usize, bool)>,
    identity: String,
    split: Split,
    seen: Vec<Seen>,
    output: String,
}

/// What is kept of one sample.
struct Seen {
    is_held: bool,
    /// Rows of each tap.
    rows: Vec<Option<Picked>>,
    /// The sample with the model's output, where the whole model may be judged on it.
    judge: Option<(Sample, Tensor)>,
}

/// A layer repaired at once.
#[derive(Clone, Debug)]
pub struct AtOnce {
    /// The layer.
    pub layer: RepairedLayer,
    /// The gain at its own output on samples held back, with its interval.
    pub own: Option<GainSpread>,
    /// The whole model's output with nothing but this layer's weights rounded to nearest, and with the repair.
    pub whole: Option<(Sqnr, Sqnr, Option<GainSpread>)>,
    /// Samples that it learnt from.
    pub learnt_from: usize,
    /// Samples held back that judged the layer's own output.
    pub judged_on: usize,
    /// Samples held back that the whole model was run on.
    pub run_on: usize,
    /// Seconds that it took, opening the model left out.
    pub seconds: f64,
}

impl Workbench {
    /// Opens the model of `job`, by all processors.
    pub fn open(job: &Job<'_>, control: &Control) -> Result<Self, Error> {
        let choice = Choice { granularity: Granularity::PerChannel, ..Choice::FLOAT };
        let taps: Vec<Option<Tap>> = job.model.layers.iter().map(|layer| tap(job.model, layer, &choice)).collect();
        let output = job.model.judged_output().to_owned();
        let open = Open::new(job, &taps, control)?;
        let Split { calibration, held_back } = job.split;
        // Of every four samples one is held back, from the first on.
        let mut queue: Vec<(usize, bool)> = Vec::new();
        let (mut learn, mut held) = (calibration.iter(), held_back.iter());
        while queue.len() < MOST_SAMPLES {
            let before = queue.len();
            queue.extend(learn.by_ref().take(3).map(|&index| (index, false)));
            queue.extend(held.next().map(|&index| (index, true)));
            if queue.len() == before {
                break;
            }
        }
        queue.truncate(MOST_SAMPLES);
        let identity = job.model.identity.clone();
        Ok(Self { open, taps, queue, identity, split: job.split.clone(), seen: Vec::new(), output })
    }

    /// Whether it is open for the model and the division of samples of `job`. Whether they come from the same source is the
    /// caller's to know.
    pub fn fits(&self, job: &Job<'_>) -> bool {
        self.identity == job.model.identity && self.split == *job.split
    }

    /// Bytes of the rows and samples that it keeps.
    pub fn bytes(&self) -> usize {
        let of = |seen: &Seen| {
            let rows: usize = seen.rows.iter().flatten().map(|rows| 4 * rows.len()).sum();
            let judge = |(sample, output): &(Sample, Tensor)| {
                4 * (sample.feeds.iter().map(|(_, tensor)| tensor.values.len()).sum::<usize>() + output.values.len())
            };
            rows + seen.judge.as_ref().map_or(0, judge)
        };
        self.seen.iter().map(of).sum()
    }

    /// Repairs the layer called `index`; `None` where the method looks at more than one layer, where nothing is seen of what
    /// enters this one, or where [`Method::Best`] finds nothing better than rounding to nearest.
    pub fn repair(
        &mut self,
        job: &Job<'_>,
        index: usize,
        method: Method,
        control: &Control,
    ) -> Result<Option<AtOnce>, Error> {
        let started = Instant::now();
        let Some(layer) = job.model.layers.get(index) else { return Ok(None) };
        let Some(choice) = job.choice(layer) else { return Ok(None) };
        let known = self.taps.get(index).and_then(Option::as_ref).filter(|_| method != Method::One(Rounding::Refit));
        let Some(tap) = job.tap(layer, &choice).filter(|tap| Some(tap) == known) else { return Ok(None) };
        self.capture(job, started, control)?;
        let polish_until = started.checked_add(Duration::from_secs_f64(POLISH_SECONDS));
        let options = RepairOptions { polish_until, ..job.options.clone() };
        let job = &Job { options: &options, ..*job };
        control.progress("Repairing layers", 0, 1);
        let Some((repaired, weights, own)) = self.best_of(job, index, &choice, &tap, method, control)? else {
            return Ok(None);
        };
        let effect = Effect { open: &mut self.open, output: &self.output, index };
        let judges = self.seen.iter().filter_map(|seen| seen.judge.as_ref());
        let whole = effect.tally(&weights, judges, started + Duration::from_secs_f64(END_SECONDS), control)?;
        let run_on = whole.samples();
        let learnt_from = self.seen.iter().filter(|seen| !seen.is_held).count();
        Ok(Some(AtOnce {
            layer: repaired,
            own: own.gain(),
            whole: (run_on > 0).then(|| (whole.before(), whole.after(), whole.gain())),
            learnt_from: if method == Method::One(Rounding::Hqq) { 0 } else { learnt_from },
            judged_on: own.samples(),
            run_on,
            seconds: started.elapsed().as_secs_f64(),
        }))
    }

    /// The layer repaired by the method, or by the best of those that look at one layer, and its own output judged.
    fn best_of(
        &self,
        job: &Job<'_>,
        index: usize,
        choice: &Choice,
        tap: &Tap,
        method: Method,
        control: &Control,
    ) -> Result<Option<(RepairedLayer, Versions, Tally)>, Error> {
        let methods = match method {
            Method::One(method) => vec![method],
            Method::Best => ONE_PASS.to_vec(),
        };
        let Some(layer) = job.model.layers.get(index) else { return Ok(None) };
        let collected = (methods != [Rounding::Hqq])
            .then(|| Collected { calibration: self.moments(index, tap), held_back: vec![] });
        let wishes: Vec<_> = methods.into_iter().map(|method| (layer, *choice, method)).collect();
        let mut best: Option<(RepairedLayer, Versions, Tally)> = None;
        for mut repaired in job.layers(&wishes, collected.as_ref(), control)? {
            let versions = Versions::of(job, layer, choice, &repaired.repair)?;
            let mut own = Tally::default();
            for seen in self.seen.iter().filter(|seen| seen.is_held || !job.split.is_held_back()) {
                if let Some(rows) = seen.rows.get(index).and_then(Option::as_ref) {
                    let (before, after) = versions.noise(tap, layer, choice, rows);
                    own.push(before, after);
                }
            }
            if let (Some(before_db), Some(after_db)) = (own.before().db(), own.after().db()) {
                let held_back = Some(Gain { before_db, after_db });
                repaired.repair = LayerRepair { held_back, ..(*repaired.repair).clone() }.into();
            }
            let db = |own: &Tally| own.after().db().unwrap_or(f64::NEG_INFINITY);
            let helps = method != Method::Best || db(&own) > own.before().db().unwrap_or(f64::NEG_INFINITY);
            if helps && best.as_ref().is_none_or(|(.., known)| db(&own) > db(known)) {
                best = Some((repaired, versions, own));
            }
        }
        Ok(best)
    }

    /// Moments of what enters a layer in the samples learnt from.
    fn moments(&self, index: usize, tap: &Tap) -> Vec<Moments> {
        let mut moments = tap.moments(false);
        let mut together: Vec<f32> = Vec::new();
        for seen in self.seen.iter().filter(|seen| !seen.is_held) {
            if let Some(rows) = seen.rows.get(index).and_then(Option::as_ref) {
                together.extend_from_slice(rows);
            }
            if together.len() > TOGETHER * tap.width() {
                add(&mut moments, tap, &together, None);
                together.clear();
            }
        }
        add(&mut moments, tap, &together, None);
        moments
    }

    /// Runs more samples and keeps what enters the layers.
    fn capture(&mut self, job: &Job<'_>, started: Instant, control: &Control) -> Result<(), Error> {
        let taps: Vec<(usize, &Tap)> =
            self.taps.iter().enumerate().filter_map(|(at, tap)| Some((at, tap.as_ref()?))).collect();
        let names: Vec<&str> = taps.iter().map(|(_, tap)| tap.tensor.as_str()).collect();
        let total = self.queue.len();
        // Rows of one sample and tap, so that all of them together keep to the limit.
        let share = limits::WORKBENCH_BYTES / (4 * taps.len().max(1) * total.max(1));
        while let Some(&(index, is_held)) = self.queue.get(self.seen.len()) {
            control.check()?;
            control.progress("Watching what enters layers", self.seen.len() as u64, total as u64);
            let sample = job.data.sample(index)?;
            let mut rows: Vec<Option<Picked>> = vec![None; self.taps.len()];
            let mut output = None;
            let wanted = &self.output;
            let session: &mut Session = &mut self.open.session;
            visit(session, &sample, &names, Some(wanted), control, &mut |at, view| match at {
                Some(at) => {
                    if let Some((slot, tap)) = taps.get(at).and_then(|&(at, tap)| Some((rows.get_mut(at)?, tap))) {
                        let most = tap.rows_of_each(total).min((share / tap.width().max(1)).max(1));
                        *slot = pick_rows(tap, view, most, index);
                    }
                }
                None => output = view.to_tensor(),
            })?;
            let may_judge = is_held || !job.split.is_held_back();
            let judges = self.seen.iter().filter(|seen| seen.judge.is_some()).count();
            let judge = output.filter(|_| may_judge && judges < JUDGES).map(|output| (sample, output));
            self.seen.push(Seen { is_held, rows, judge });
            if self.seen.len() >= LEAST_SAMPLES && started.elapsed().as_secs_f64() > CAPTURE_SECONDS {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
