//! Runs of the simulated model: forward by ONNX Runtime, backward here.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use ndarray::ArrayD;

use super::learner::Learner;
use super::loss::{self, Judged, Loss};
use super::reference::{Reference, Target, joined};
use super::simulate::Simulation;
use super::{FinetuneError, HeldBack, TrainingData, batch};
use crate::autodiff::{Data, Event, Program, Refused, Value, Values};
use crate::data::Sample;
use crate::model::Model;
use crate::onnx::proto::ValueInfoProto;
use crate::runtime::{Runtime, Session, SessionOptions, Source, tapped};
use crate::tensor::Tensor;
use crate::{Control, Error};

/// Most bytes of tapped values in one run.
const RUN_BYTES: usize = 192 << 20;
/// Most nodes whose backward may turn out to fail.
const ATTEMPTS: usize = 8;

/// The simulated model, ready to be run.
pub struct Trainer<'a> {
    program: Program<'a>,
    session: Session,
    reference: Reference<'a>,
    data: TrainingData<'a>,
    /// The model's output first, then what enters nodes that gradients cannot pass.
    ends: Vec<String>,
    /// Mean square of the targets of each end.
    powers: Vec<f64>,
    /// Inputs whose gradients are wanted.
    watched: BTreeSet<String>,
    feeds: Vec<(String, Tensor)>,
    /// Samples that go into one run.
    most: usize,
    loss: Loss,
    are_probabilities: bool,
}

/// What a trainer is made of.
pub struct Parts<'a> {
    pub runtime: &'a Runtime,
    pub model: &'a Model,
    pub simulation: &'a Simulation,
    pub data: TrainingData<'a>,
    pub output: &'a str,
    pub loss: Option<Loss>,
    pub threads: usize,
}

impl<'a> Trainer<'a> {
    /// Opens both models and finds out what gradients reach: `learners` that they do are marked so.
    pub fn new(parts: &Parts<'a>, learners: &mut [Learner], control: &Control) -> Result<Self, Error> {
        let mut refused = BTreeMap::new();
        for _ in 0..ATTEMPTS {
            let mut trainer = Self::with(parts, learners, &refused, control)?;
            match trainer.trial(control)? {
                Ok(()) => return Ok(trainer),
                Err(Refused { node, why }) => refused.insert(node, why),
            };
        }
        let why = "too many operators refuse".to_owned();
        Err(FinetuneError::Backward { place: parts.output.to_owned(), why }.into())
    }

    fn with(
        parts: &Parts<'a>,
        learners: &mut [Learner],
        refused: &BTreeMap<usize, String>,
        control: &Control,
    ) -> Result<Self, Error> {
        let Parts { model, simulation, .. } = *parts;
        let graph = &simulation.backward;
        let sources: BTreeSet<String> = learners.iter().flat_map(Learner::inputs).map(str::to_owned).collect();
        let mut ends = vec![parts.output.to_owned()];
        let build = |ends: &[String]| Program::of_graph(graph, &model.file, simulation.opset, ends, &sources, refused);
        let mut program = build(&ends)?;
        if !program.blocked.is_empty() {
            let floats = model.graph.graph.iter().flat_map(|graph| &graph.node).flat_map(|node| &node.output);
            let floats: BTreeSet<&str> = floats.map(String::as_str).collect();
            let borders: BTreeSet<&str> =
                super::simulate::borders(graph, program.blocked.iter().map(|blocked| blocked.node))
                    .into_iter()
                    .collect();
            ends.extend(borders.into_iter().filter(|name| floats.contains(name)).map(str::to_owned));
            program = build(&ends)?;
        }
        for learner in learners.iter_mut() {
            learner.trains = program.has_way(learner.weight_input());
        }
        let given: BTreeSet<&str> =
            simulation.proto.graph.iter().flat_map(|graph| &graph.input).map(ValueInfoProto::name).collect();
        let taps: Vec<String> = program.taps().into_iter().filter(|name| !given.contains(name.as_str())).collect();
        let proto = tapped(&simulation.proto, &taps);
        let source = Source::Proto { proto: &proto, folder: Some(model.file.folder()) };
        let options = SessionOptions::observing(parts.threads);
        let session = Session::open_with(parts.runtime, source, &options, control)?;
        let reference = Reference::open(parts.runtime, model, parts.data.set, &ends, parts.threads, control)?;
        Ok(Self {
            powers: vec![1.0; ends.len()],
            watched: sources,
            feeds: learners.iter().flat_map(Learner::feeds).collect(),
            program,
            session,
            reference,
            data: parts.data,
            ends,
            most: 1,
            loss: parts.loss.unwrap_or(Loss::Distance),
            are_probabilities: false,
        })
    }

    /// One sample forward and back, to see whether every backward works, how much memory a sample takes, and which loss fits.
    fn trial(&mut self, control: &Control) -> Result<Result<(), Refused>, Error> {
        let Some(&first) = self.data.indices.first() else { return Ok(Ok(())) };
        let sample = self.data.set.sample(first)?;
        let values = self.forward(&sample, control)?;
        let seeds = self.ends.iter().filter_map(|end| {
            let value = values.get(end)?;
            Some((end.clone(), ArrayD::zeros(value.shape.clone())))
        });
        let seeds = seeds.collect();
        if let Err(refused) = self.program.backward_from(&values, seeds, &self.watched, &mut |_| {}) {
            return Ok(Err(refused));
        }
        let bytes: usize = values.values().map(|value| value.len() * 4).sum();
        self.most = (RUN_BYTES / bytes.max(1)).max(1);
        Ok(Ok(()))
    }

    /// Learns from the held-back samples what the targets look like; `wanted` is the loss asked for.
    pub fn prepare(
        &mut self,
        held_back: &[usize],
        rows_are_apart: bool,
        wanted: Option<Loss>,
        control: &Control,
    ) -> Result<(), Error> {
        if !rows_are_apart || !self.reference.can_join(self.data.indices, control)? {
            self.most = 1;
        }
        let mut sums = vec![(0.0_f64, 0_usize); self.ends.len()];
        let mut fitting = Loss::Distance;
        for (number, &index) in held_back.iter().enumerate() {
            control.check()?;
            let targets = self.reference.of(index, control)?;
            for ((sum, count), target) in sums.iter_mut().zip(&targets) {
                *sum += target.values.iter().map(|&t| f64::from(t) * f64::from(t)).sum::<f64>();
                *count += target.values.len();
            }
            if let Some(target) = targets.first().filter(|_| number == 0) {
                self.are_probabilities = loss::is_probability(&target.shape, &target.values);
                fitting = Loss::fitting(&target.shape, &target.values, self.data.labels.is_some());
                let unfit = match wanted {
                    Some(Loss::Kl | Loss::CrossEntropy) if loss::classes(&target.shape).is_none() => {
                        Some("it has no row of classes a sample")
                    }
                    Some(Loss::CrossEntropy) if self.data.labels.is_none() => Some("cross-entropy takes labels"),
                    _ if target.values.is_empty() => Some("it holds no floating-point values"),
                    _ => None,
                };
                if let Some(why) = unfit {
                    let place = self.ends.first().cloned().unwrap_or_default();
                    return Err(FinetuneError::Loss { place, why: why.to_owned() }.into());
                }
            }
        }
        self.loss = wanted.unwrap_or(fitting);
        self.powers = sums.into_iter().map(|(sum, count)| sum / count.max(1) as f64).collect();
        Ok(())
    }

    /// The loss in force.
    pub fn loss(&self) -> Loss {
        self.loss
    }

    /// Nodes that gradients cannot pass, by operator.
    pub fn blocked(&self) -> BTreeSet<&str> {
        self.program.blocked.iter().map(|blocked| blocked.op.as_str()).collect()
    }

    /// Takes over what the learners' integers stand for now.
    pub fn refresh(&mut self, learners: &[Learner]) {
        self.feeds = learners.iter().flat_map(Learner::feeds).collect();
    }

    /// Adds up the gradients of one batch in `learners` and returns its loss.
    pub fn learn(&mut self, indices: &[usize], learners: &mut [Learner], control: &Control) -> Result<f64, Error> {
        let mut total = 0.0;
        for (members, sample) in self.joined(indices)? {
            control.check()?;
            let share = members.len() as f64 / indices.len().max(1) as f64;
            let values = self.forward(&sample, control)?;
            let targets = self.targets(&members, control)?;
            let mut seeds = Vec::new();
            for (at, end) in self.ends.iter().enumerate() {
                let (Some(value), Some(target)) = (values.get(end), targets.get(at)) else { continue };
                let Some(judged) = self.judge(at, value, target, &members) else { continue };
                total += judged.loss * share;
                seeds.extend(
                    ArrayD::from_shape_vec(value.shape.clone(), judged.gradient).ok().map(|seed| (end.clone(), seed)),
                );
            }
            let mut report = |event: Event<'_>| {
                if let Event::Activation { tensor, edges, .. } = event {
                    for gradient in edges.iter().filter_map(|edge| edge.gradient.as_slice()) {
                        for learner in learners.iter_mut() {
                            learner.add(tensor, gradient, share as f32);
                        }
                    }
                }
            };
            self.program
                .backward_from(&values, seeds, &self.watched, &mut report)
                .map_err(|Refused { node, why }| FinetuneError::Backward { place: format!("node {node}"), why })?;
        }
        Ok(total)
    }

    /// Runs the held-back samples.
    pub fn evaluate(&mut self, indices: &[usize], control: &Control) -> Result<HeldBack, Error> {
        let (mut total, mut signal, mut noise) = (0.0, 0.0, 0.0);
        let (mut hits, mut rows) = (0_usize, 0_usize);
        for (members, sample) in self.joined(indices)? {
            control.check()?;
            let values = self.forward(&sample, control)?;
            let targets = self.targets(&members, control)?;
            let share = members.len() as f64 / indices.len().max(1) as f64;
            for (at, end) in self.ends.iter().enumerate() {
                let (Some(value), Some(target)) = (values.get(end), targets.get(at)) else { continue };
                let judged = self.judge(at, value, target, &members);
                // What cannot be judged (another size, NaN) is as bad as can be.
                total += judged.map_or(f64::INFINITY, |judged| judged.loss) * share;
                let (Ok(y), 0) = (value.floats(), at) else { continue };
                for (&y, &t) in y.iter().zip(&target.values) {
                    signal += f64::from(t) * f64::from(t);
                    noise += (f64::from(y) - f64::from(t)).powi(2);
                }
                if let (Some(classes), true) = (loss::classes(&value.shape), self.data.labels.is_some()) {
                    for (row, label) in y.chunks(classes).zip(self.labels(&members)) {
                        let best = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map(|(class, _)| class);
                        hits += usize::from(best.is_some_and(|best| best as i64 == label));
                        rows += 1;
                    }
                }
            }
        }
        let loss = if total.is_finite() { total } else { f64::MAX };
        Ok(HeldBack {
            loss,
            sqnr_db: (noise > 0.0 && noise.is_finite()).then(|| 10.0 * (signal / noise).log10()),
            accuracy: (rows > 0).then(|| hits as f64 / rows as f64),
        })
    }

    fn judge(&self, end: usize, value: &Value<'_>, target: &Target, members: &[usize]) -> Option<Judged> {
        let y = value.floats().ok().filter(|y| y.len() == target.values.len())?;
        let classes = loss::classes(&value.shape).filter(|_| end == 0);
        let judged = match (self.loss, classes) {
            (Loss::Kl, Some(classes)) => loss::divergence(y, &target.values, classes, self.are_probabilities),
            (Loss::CrossEntropy, Some(classes)) => {
                loss::cross_entropy(y, &self.labels(members), classes, self.are_probabilities)
            }
            _ => loss::distance(y, &target.values, self.powers.get(end).copied().unwrap_or(1.0)),
        };
        judged.loss.is_finite().then_some(judged)
    }

    /// Labels of the rows of these samples.
    fn labels(&self, members: &[usize]) -> Vec<i64> {
        let batch = self.data.set.batch();
        let all = self.data.labels.unwrap_or_default();
        members
            .iter()
            .flat_map(|&at| (at * batch..(at + 1) * batch).map(|row| all.get(row).copied().unwrap_or(-1)))
            .collect()
    }

    fn joined(&self, indices: &[usize]) -> Result<Vec<(Vec<usize>, Sample)>, Error> {
        let samples = indices.iter().map(|&at| Ok((at, self.data.set.sample(at)?)));
        Ok(batch::groups(samples.collect::<Result<Vec<_>, Error>>()?, self.most))
    }

    fn targets(&mut self, members: &[usize], control: &Control) -> Result<Vec<Target>, Error> {
        let each = members.iter().map(|&at| self.reference.of(at, control));
        Ok(joined(each.collect::<Result<Vec<_>, Error>>()?))
    }

    /// Runs the simulated model and returns every value that the backward needs.
    fn forward(&mut self, sample: &Sample, control: &Control) -> Result<Values, Error> {
        let own = self.feeds.len();
        let mut all = Sample { feeds: std::mem::take(&mut self.feeds) };
        all.feeds.extend(sample.feeds.iter().cloned());
        let mut values = Values::new();
        let ran = self.session.visit(&all, control, &mut |name, view| {
            if let Some(tensor) = view.to_tensor() {
                values.insert(name.to_owned(), Value::from_tensor(tensor));
            }
        });
        for (name, tensor) in &all.feeds {
            values.insert(name.clone(), value_of(tensor));
        }
        all.feeds.truncate(own);
        self.feeds = all.feeds;
        ran?;
        Ok(values)
    }
}

fn value_of(tensor: &Tensor) -> Value<'static> {
    match &tensor.values {
        crate::tensor::Values::F32(values) => {
            Value { shape: tensor.shape.clone(), data: Data::F32(Cow::Owned(values.clone())) }
        }
        _ => Value::from_tensor(tensor.clone()),
    }
}
