//! The loop: batches, held-back samples, the best state, interruptions.

use std::path::Path;
use std::time::Instant;

use sha2::{Digest, Sha256};

use super::learner::{Learner, Snapshot};
use super::simulate::Simulation;
use super::start::{Candidate, Start};
use super::state::{self, Progress};
use super::trainer::{Parts, Trainer};
use super::{Ended, FinetuneError, FinetuneOptions, Finetuned, HeldBack, Point, TrainingData, Untrained, adam};
use crate::export::export;
use crate::model::Model;
use crate::plan::Plan;
use crate::problem::Severity;
use crate::quant::QuantizedWeight;
use crate::repair::Split;
use crate::runtime::Runtime;
use crate::stats::Stats;
use crate::{Control, Error, Problem};

/// How often held-back samples are run while training.
const LOOKS: usize = 25;
/// Looks without a gain after which training goes back to the best state, at a lower rate.
const PATIENCE: usize = 5;
/// What the rate is multiplied by then. How large it may be depends on where training starts: from integers rounded to nearest
/// the highest one gains most, from repaired ones only a tenth of it gains at all.
const LOWER: f32 = 0.3;
/// Below this share of the rate training ends instead.
const LOWEST: f32 = 0.02;
/// Share of the loss on held-back samples that training has to take away for its weights to be kept: the best of many looks at
/// some ten samples is a little lucky. Measured from repaired weights: 4 % less there (0.2 dB), 0.2 dB lost on other samples; 13 %
/// less there, 0.5 dB gained on others.
const LEAST_GAIN: f64 = 0.05;
/// Most samples held back.
const MOST_HELD_BACK: usize = 512;

/// Trains the layers of `plan` that gradients reach; `stats` are needed as for [`export`]. `watch` sees every step, and may
/// wait in it. Cancelling `control` while training ends it with the best state so far; before, it is an error as everywhere.
#[allow(clippy::too_many_arguments)] // an export's, and what training sees
pub fn finetune(
    model: &Model,
    runtime: &Runtime,
    stats: Option<&Stats>,
    plan: &Plan,
    data: &TrainingData<'_>,
    options: &FinetuneOptions,
    control: &Control,
    watch: &mut dyn FnMut(&Point),
) -> Result<Finetuned, Error> {
    control.progress("Preparing to fine-tune", 0, 0);
    let start = Start::new(model, stats, plan)?;
    let nothing = |untrained: &[Untrained]| {
        let first = untrained.first().map(|first| format!("{}: {}", first.layer, first.why));
        let why = first.unwrap_or_else(|| "the plan gives no layer of the main graph an integer precision".to_owned());
        Error::from(FinetuneError::Nothing { place: model.file.path.display().to_string(), why })
    };
    if start.candidates.is_empty() {
        return Err(nothing(&start.untrained));
    }
    let names: Vec<String> =
        start.candidates.iter().filter_map(|c| model.layers.get(c.layer)).map(|layer| layer.name.clone()).collect();
    let first: Vec<_> = start.candidates.iter().map(|c| (c.weight.clone(), c.bias.clone())).collect();
    let as_repairs = start.plan(plan, &names, &first);
    let repaired = model.repaired(&as_repairs)?;
    let exported = export(model, stats, &as_repairs, control)?;
    let wanted: Vec<usize> = start.candidates.iter().map(|candidate| candidate.layer).collect();
    let simulation = Simulation::new(&repaired, &exported, &wanted)?;
    let output = options.output.clone().unwrap_or_else(|| model.judged_output().to_owned());
    let Split { calibration: seen, held_back } = split(data, options);
    let part = TrainingData { indices: &seen, ..*data };
    let parts = Parts {
        runtime,
        model,
        simulation: &simulation,
        data: part,
        output: &output,
        loss: options.loss,
        threads: options.threads,
    };
    let mut learners = learners(&start.candidates, &simulation, options, |c| c.weight.clone());
    if learners.is_empty() {
        return Err(nothing(&start.untrained));
    }
    let mut trainer = Trainer::new(&parts, &mut learners, control)?;
    trainer.prepare(&held_back, simulation.rows_are_apart, options.loss, control)?;
    let mut untrained = start.untrained.clone();
    let mut trained = Vec::new();
    for (at, name) in names.iter().enumerate() {
        let learner = learners.iter().find(|learner| learner.candidate == at);
        let why = match learner {
            Some(learner) if learner.trains => {
                trained.push(name.clone());
                continue;
            }
            Some(_) => "no gradient of the output reaches it",
            None => "its exported form is not as expected",
        };
        untrained.push(Untrained { layer: name.clone(), why: why.to_owned() });
    }
    if trained.is_empty() {
        return Err(nothing(&untrained));
    }
    let blocked = trainer.blocked();
    if !blocked.is_empty() {
        control.problem(Problem::new(
            Severity::Note,
            "Trained block by block",
            blocked.into_iter().collect::<Vec<_>>().join(", "),
            "Gradients cannot go back through these operators; what enters them is kept close to the float model instead",
            "Nothing: the figures are of the whole model",
        ));
    }
    let mut run = Run {
        fingerprint: fingerprint(model, plan, data, options),
        loss: trainer.loss(),
        trainer,
        learners,
        seen: &seen,
        held_back,
        options,
        control,
        started: Instant::now(),
        earlier: 0.0,
    };
    let tighter = |candidate: &Candidate| candidate.tighter.clone().unwrap_or_else(|| candidate.weight.clone());
    let has_tighter = start.candidates.iter().any(|candidate| candidate.tighter.is_some());
    let other = has_tighter.then(|| self::learners(&start.candidates, &simulation, options, tighter));
    let done = run.train(other, watch)?;
    let made: Vec<(QuantizedWeight, Option<Vec<f32>>)> = run.learners.iter().map(Learner::made).collect();
    let gained = done.after.loss < done.before.loss * (1.0 - LEAST_GAIN);
    let plan = if gained { converted(&start, plan, &names, &run.learners, made) } else { plan.clone() };
    Ok(Finetuned {
        plan,
        trained,
        untrained,
        loss: run.loss,
        output: output.clone(),
        steps: done.progress.step,
        best_step: if gained { done.progress.best_step } else { 0 },
        ended: done.ended,
        before: done.before,
        after: if gained { done.after } else { done.before },
        curve: done.progress.curve,
        held_back: run.held_back,
        seconds: run.earlier + run.started.elapsed().as_secs_f64(),
        resumed: done.resumed,
    })
}

/// The plan with what was trained; layers that were not keep what they had.
fn converted(
    start: &Start,
    plan: &Plan,
    names: &[String],
    learners: &[Learner],
    made: Vec<(QuantizedWeight, Option<Vec<f32>>)>,
) -> Plan {
    let mut result = plan.clone();
    let each = learners.iter().zip(made).filter(|(learner, _)| learner.trains);
    for (learner, made) in each {
        let Some(candidate) = start.candidates.get(learner.candidate) else { continue };
        let Some(name) = names.get(learner.candidate) else { continue };
        candidate.put(&mut result, name, made.0, made.1);
    }
    result
}

fn learners(
    candidates: &[Candidate],
    simulation: &Simulation,
    options: &FinetuneOptions,
    weight: impl Fn(&Candidate) -> QuantizedWeight,
) -> Vec<Learner> {
    let parts = simulation.parts.iter();
    let each = parts.filter_map(|part| {
        let (at, candidate) = candidates.iter().enumerate().find(|(_, candidate)| candidate.layer == part.layer)?;
        Some(Learner::new(at, candidate, part, weight(candidate), options.learns_scales))
    });
    each.collect()
}

/// The samples that training learns from and those held back, both sorted. A single sample serves as both. Repairs that training is to
/// start from learn from the same part, so that what is held back judges both.
pub fn split(data: &TrainingData<'_>, options: &FinetuneOptions) -> Split {
    let count = data.indices.len();
    if count < 2 {
        return Split { calibration: data.indices.to_vec(), held_back: data.indices.to_vec() };
    }
    let share = (count as f64 * options.held_back.clamp(0.0, 0.9)) as usize;
    let held = share.clamp(1, MOST_HELD_BACK.min(count - 1));
    let mut held_back = data.indices.to_vec();
    fastrand::Rng::with_seed(options.seed ^ 0x51ed).shuffle(&mut held_back);
    let mut calibration = held_back.split_off(held);
    calibration.sort_unstable();
    held_back.sort_unstable();
    Split { calibration, held_back }
}

/// What a kept state belongs to.
fn fingerprint(model: &Model, plan: &Plan, data: &TrainingData<'_>, options: &FinetuneOptions) -> String {
    let mut hash = Sha256::new();
    let mut add = |text: &str| {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text.as_bytes());
    };
    add(&model.identity);
    add(&plan.to_json());
    add(data.set.spec());
    add(&format!("{:?}", data.indices));
    add(&format!("{:?}", data.labels));
    let FinetuneOptions { steps, batch, learning_rate, loss, learns_scales, held_back, seed, output, .. } = options;
    add(&format!("{steps} {batch} {learning_rate} {loss:?} {learns_scales} {held_back} {seed} {output:?}"));
    for (name, repair) in &plan.repairs {
        add(name);
        add(&format!("{repair:?}"));
    }
    format!("{:x}", hash.finalize())
}

struct Run<'a, 'c> {
    fingerprint: String,
    loss: super::Loss,
    trainer: Trainer<'a>,
    learners: Vec<Learner>,
    seen: &'c [usize],
    held_back: Vec<usize>,
    options: &'c FinetuneOptions,
    control: &'c Control,
    started: Instant,
    /// Seconds of earlier runs.
    earlier: f64,
}

struct Done {
    progress: Progress,
    before: HeldBack,
    after: HeldBack,
    ended: Ended,
    resumed: bool,
}

impl Run<'_, '_> {
    /// Trains; the learners end in the best state. `other` are learners on other scales, taken where these start better.
    fn train(&mut self, other: Option<Vec<Learner>>, watch: &mut dyn FnMut(&Point)) -> Result<Done, Error> {
        let kept = self.options.state.as_deref();
        let mut progress = Progress::new(self.fingerprint.clone());
        let mut best: Vec<Snapshot> = self.learners.iter().map(Learner::keep).collect();
        let reaches: Vec<bool> = self.learners.iter().map(|learner| learner.trains).collect();
        let with_reach = |mut learners: Vec<Learner>| {
            for (learner, &trains) in learners.iter_mut().zip(&reaches) {
                learner.trains = trains;
            }
            learners
        };
        let mut resumed = false;
        let before = self.look()?;
        self.take_better(other.map(with_reach), before)?;
        if let Some((known, of_best)) = kept.and_then(|path| state::load(path, &self.fingerprint, &mut self.learners)) {
            (progress, best, resumed) = (known, of_best, true);
            self.earlier = progress.curve.last().map_or(0.0, |point| point.seconds);
        } else {
            // A file that did not fit may have been read half.
            self.trainer.refresh(&self.learners);
            let now = self.look()?;
            let mut point = self.point(0, None, 0.0);
            point.held_back = Some(if now.loss < before.loss { now } else { before });
            if now.loss < before.loss {
                best = self.learners.iter().map(Learner::keep).collect();
            }
            watch(&point);
            progress.curve.push(point);
        }
        let mut lowest = best_of(&progress);
        let ended = self.steps(&mut progress, &mut best, &mut lowest, watch)?;
        if let Some(path) = kept {
            if ended == Ended::Cancelled {
                state::save(path, &progress, &mut self.learners, &best)?;
            } else {
                remove(path);
            }
        }
        self.go_back(&best);
        Ok(Done { progress, before, after: lowest, ended, resumed })
    }

    /// Takes over learners on other scales where they start with less loss.
    fn take_better(&mut self, other: Option<Vec<Learner>>, before: HeldBack) -> Result<(), Error> {
        let Some(mut other) = other else { return Ok(()) };
        std::mem::swap(&mut self.learners, &mut other);
        self.trainer.refresh(&self.learners);
        if self.look()?.loss >= before.loss {
            std::mem::swap(&mut self.learners, &mut other);
            self.trainer.refresh(&self.learners);
        }
        Ok(())
    }

    fn steps(
        &mut self,
        progress: &mut Progress,
        best: &mut Vec<Snapshot>,
        lowest: &mut HeldBack,
        watch: &mut dyn FnMut(&Point),
    ) -> Result<Ended, Error> {
        let steps = self.options.steps;
        let every = (steps / LOOKS).max(1);
        let mut saved = Instant::now();
        let mut cost = 0.0;
        self.trainer.refresh(&self.learners);
        for step in progress.step..steps {
            self.control.progress("Fine-tuning", step as u64, steps as u64);
            let rate = self.options.learning_rate * adam::schedule(step, steps) * progress.share;
            let batch = batch_of(self.seen, step, self.options);
            let learnt = self.trainer.learn(&batch, &mut self.learners, self.control);
            let loss = match learnt {
                Err(Error::Cancelled) => return Ok(Ended::Cancelled),
                learnt => learnt?,
            };
            for learner in &mut self.learners {
                learner.step(rate, step.saturating_sub(progress.restarted) as u64 + 1);
            }
            progress.step = step + 1;
            self.trainer.refresh(&self.learners);
            let mut point = self.point(step + 1, Some(loss), rate);
            let is_last = step + 1 == steps;
            if (step + 1) % every == 0 || is_last {
                let held = match self.look() {
                    Err(Error::Cancelled) => return Ok(Ended::Cancelled),
                    held => held?,
                };
                point.held_back = Some(held);
                if held.loss < lowest.loss {
                    *lowest = held;
                    progress.best_step = step + 1;
                    *best = self.learners.iter().map(Learner::keep).collect();
                }
                progress.curve.push(point.clone());
                let from = progress.best_step.max(progress.restarted);
                if progress.curve.iter().filter(|point| point.step > from).count() >= PATIENCE {
                    if progress.share * LOWER < LOWEST {
                        watch(&point);
                        return Ok(Ended::NoGain);
                    }
                    progress.share *= LOWER;
                    progress.restarted = step + 1;
                    self.go_back(best);
                    self.learners.iter_mut().for_each(Learner::forget);
                    self.trainer.refresh(&self.learners);
                }
                // Writing may take a twentieth of the time.
                if let Some(path) =
                    self.options.state.as_deref().filter(|_| saved.elapsed().as_secs_f64() >= cost * 20.0)
                {
                    let writing = Instant::now();
                    state::save(path, progress, &mut self.learners, best)?;
                    (saved, cost) = (Instant::now(), writing.elapsed().as_secs_f64());
                }
            }
            watch(&point);
            if self.control.is_cancelled() {
                return Ok(Ended::Cancelled);
            }
        }
        self.control.progress("Fine-tuning", steps as u64, steps as u64);
        Ok(Ended::Finished)
    }

    fn go_back(&mut self, best: &[Snapshot]) {
        for (learner, kept) in self.learners.iter_mut().zip(best) {
            let restored = learner.restore(kept);
            debug_assert!(restored, "a snapshot fits the learner it was taken of");
        }
    }

    fn look(&mut self) -> Result<HeldBack, Error> {
        self.trainer.evaluate(&self.held_back, self.control)
    }

    fn point(&self, step: usize, loss: Option<f64>, learning_rate: f32) -> Point {
        let seconds = self.earlier + self.started.elapsed().as_secs_f64();
        Point { step, loss, held_back: None, learning_rate, seconds }
    }
}

/// The figures of the best state that a progress knows.
fn best_of(progress: &Progress) -> HeldBack {
    let at_best = progress.curve.iter().find(|point| point.step == progress.best_step);
    at_best.and_then(|point| point.held_back).unwrap_or(HeldBack { loss: f64::MAX, sqnr_db: None, accuracy: None })
}

/// The samples of one step: every epoch in an order of its own, so that a step needs no memory of the ones before it.
fn batch_of(seen: &[usize], step: usize, options: &FinetuneOptions) -> Vec<usize> {
    let size = options.batch.clamp(1, seen.len().max(1));
    let per_epoch = (seen.len() / size).max(1);
    let (epoch, part) = (step / per_epoch, step % per_epoch);
    let mut order = seen.to_vec();
    let seed = options.seed ^ (epoch as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    fastrand::Rng::with_seed(seed).shuffle(&mut order);
    order.into_iter().skip(part * size).take(size).collect()
}

/// A state that is no longer needed.
fn remove(path: &Path) {
    if let Err(error) = std::fs::remove_file(path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!("cannot remove {}: {error}", path.display());
    }
}
