//! What the float model gives: the targets of training.

use std::collections::HashMap;

use super::batch::join;
use crate::data::DataSet;
use crate::model::Model;
use crate::runtime::{Runtime, Session, SessionOptions, Source, tapped};
use crate::{Control, Error};

/// Values of one tensor.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Target {
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

/// Most bytes of targets that are kept instead of computed again.
const KEPT_BYTES: usize = 256 << 20;

/// The float model, run on demand.
pub struct Reference<'a> {
    session: Session,
    data: &'a DataSet,
    ends: Vec<String>,
    kept: HashMap<usize, Vec<Target>>,
    kept_bytes: usize,
}

impl<'a> Reference<'a> {
    /// Opens the float model with the tensors `ends` visible.
    pub fn open(
        runtime: &Runtime,
        model: &Model,
        data: &'a DataSet,
        ends: &[String],
        threads: usize,
        control: &Control,
    ) -> Result<Self, Error> {
        let proto = tapped(&model.graph, ends);
        let options = SessionOptions { threads, ..SessionOptions::default() };
        let source = Source::Proto { proto: &proto, folder: Some(model.file.folder()) };
        let session = Session::open_with(runtime, source, &options, control)?;
        Ok(Self { session, data, ends: ends.to_vec(), kept: HashMap::new(), kept_bytes: 0 })
    }

    /// The targets of one sample, one an end; empty where the model gives no floats.
    pub fn of(&mut self, index: usize, control: &Control) -> Result<Vec<Target>, Error> {
        if let Some(known) = self.kept.get(&index) {
            return Ok(known.clone());
        }
        let targets = self.run(&self.data.sample(index)?, control)?;
        let bytes: usize = targets.iter().map(|target| target.values.len() * 4).sum();
        if self.kept_bytes + bytes <= KEPT_BYTES {
            self.kept_bytes += bytes;
            self.kept.insert(index, targets.clone());
        }
        Ok(targets)
    }

    /// Whether two samples in one run give what they give one by one.
    pub fn can_join(&mut self, indices: &[usize], control: &Control) -> Result<bool, Error> {
        let [first, .., last] = *indices else { return Ok(false) };
        let mut both = self.data.sample(first)?;
        if !join(&mut both, &self.data.sample(last)?) {
            return Ok(false);
        }
        let (a, b) = (self.of(first, control)?, self.of(last, control)?);
        let joined = match self.run(&both, control) {
            Ok(joined) => joined,
            Err(Error::Cancelled) => return Err(Error::Cancelled),
            // A model whose batch is fixed inside says so in its own way.
            Err(_) => return Ok(false),
        };
        Ok(joined.iter().zip(a.iter().zip(&b)).all(|(joined, (a, b))| {
            let expected = || a.values.iter().chain(&b.values);
            let size = expected().fold(1e-6_f32, |largest, value| largest.max(value.abs()));
            joined.values.len() == a.values.len() + b.values.len()
                && a.shape.get(1..) == joined.shape.get(1..)
                && joined.values.iter().zip(expected()).all(|(y, t)| (y - t).abs() <= size * 1e-3)
        }))
    }

    fn run(&mut self, sample: &crate::data::Sample, control: &Control) -> Result<Vec<Target>, Error> {
        let mut targets = vec![Target::default(); self.ends.len()];
        let ends = &self.ends;
        self.session.visit(sample, control, &mut |name, view| {
            let slot = ends.iter().position(|end| end == name).and_then(|at| targets.get_mut(at));
            if let (Some(slot), Some(tensor)) = (slot, view.to_tensor())
                && tensor.values.is_float()
            {
                *slot = Target { values: tensor.values.to_f32().unwrap_or_default(), shape: tensor.shape };
            }
        })?;
        Ok(targets)
    }
}

/// Several samples' targets as those of one run.
pub fn joined(all: Vec<Vec<Target>>) -> Vec<Target> {
    let mut all = all.into_iter();
    let mut joined = all.next().unwrap_or_default();
    for targets in all {
        for (to, from) in joined.iter_mut().zip(targets) {
            to.values.extend(from.values);
            if let (Some(rows), Some(more)) = (to.shape.first_mut(), from.shape.first()) {
                *rows += more;
            }
        }
    }
    joined
}
