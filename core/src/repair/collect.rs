//! Moments of what enters layers, gathered while samples run through ONNX Runtime.

use std::collections::BTreeSet;

use rayon::prelude::*;

use super::moments::{Moments, RowsOf};
use crate::calibrate::{Rows, floats};
use crate::data::{DataSet, Sample};
use crate::model::RowCut;
use crate::onnx::build::value_info;
use crate::onnx::proto::{GraphProto, ModelProto};
use crate::quant::QuantParams;
use crate::runtime::{Runtime, Session, SessionOptions, Source, View};
use crate::stats::RowKey;
use crate::{Control, Error};

/// Rows of one tap, over all samples: this many a column, and [`LEAST_ROWS`] more.
const ROWS_PER_COLUMN: usize = 64;
const LEAST_ROWS: usize = 1024;

/// Samples that repairs learn from, and samples that judge them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// Learnt from.
    pub calibration: Vec<usize>,
    /// Held back; the same as `calibration` where there is one sample only.
    pub held_back: Vec<usize>,
}

impl Split {
    /// Holds back one in four of `indices`, at least one, spread over them.
    pub fn of(indices: &[usize]) -> Self {
        if indices.len() < 2 {
            return Self { calibration: indices.to_vec(), held_back: indices.to_vec() };
        }
        let is_held = |at: usize| if indices.len() < 4 { at == 1 } else { at % 4 == 2 };
        let (held, kept): (Vec<_>, Vec<_>) = indices.iter().enumerate().partition(|(at, _)| is_held(*at));
        let numbers = |list: Vec<(usize, &usize)>| list.into_iter().map(|(_, index)| *index).collect();
        Self { calibration: numbers(kept), held_back: numbers(held) }
    }

    /// Splits of which each holds back another part of `indices`, every `count`-th.
    pub fn folds(indices: &[usize], count: usize) -> Vec<Self> {
        let part = |fold: usize, is_held: bool| {
            let each = indices.iter().enumerate();
            each.filter(|(at, _)| (at % count == fold) == is_held).map(|(_, &index)| index).collect()
        };
        (0..count).map(|fold| Self { calibration: part(fold, false), held_back: part(fold, true) }).collect()
    }

    /// All samples, in order.
    pub fn all(&self) -> Vec<usize> {
        let both: BTreeSet<usize> = self.calibration.iter().chain(&self.held_back).copied().collect();
        both.into_iter().collect()
    }

    /// Whether the judging samples are others than those learnt from.
    pub fn is_held_back(&self) -> bool {
        self.calibration != self.held_back
    }
}

/// What enters a layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Tap {
    /// The tensor in the prepared graph.
    pub tensor: String,
    /// How rows are cut from it.
    pub cut: RowCut,
    /// Groups of columns.
    pub groups: usize,
    /// Columns of one group.
    pub columns: usize,
    /// How the layer rounds it, which counts as drift.
    pub rounding: Option<QuantParams>,
}

impl Tap {
    /// Values of a row.
    pub(super) fn width(&self) -> usize {
        self.groups * self.columns
    }

    /// Rows that each of `samples` samples may give.
    pub(super) fn rows_of_each(&self, samples: usize) -> usize {
        (self.columns * ROWS_PER_COLUMN + LEAST_ROWS).div_ceil(samples.max(1))
    }

    /// Nothing seen yet.
    pub(super) fn moments(&self, with_drift: bool) -> Vec<Moments> {
        vec![Moments::new(self.columns, with_drift); self.groups]
    }
}

/// Moments of one tap, one a group of columns.
#[derive(Clone, Debug)]
pub struct Collected {
    /// Over the samples learnt from.
    pub calibration: Vec<Moments>,
    /// Over those held back; empty where the layer is judged in another way.
    pub held_back: Vec<Moments>,
}

/// The model as the layers meet it, where that is not the float model, and what each tap is called in it.
pub struct Drifted<'a> {
    /// The model.
    pub proto: &'a ModelProto,
    /// One a tap.
    pub tensors: Vec<String>,
}

/// What runs the samples.
#[derive(Clone, Copy)]
pub struct Feed<'a> {
    /// The runtime.
    pub runtime: &'a Runtime,
    /// The samples.
    pub data: &'a DataSet,
    /// Which of them.
    pub split: &'a Split,
    /// How sessions are opened.
    pub session: &'a SessionOptions,
    /// Folder of external data.
    pub folder: &'a std::path::Path,
}

impl Feed<'_> {
    /// Runs the samples through `float`, and through the drifted model too, and adds up the rows at `taps`. A tap whose
    /// tensor has no rows of its width gives `None`.
    pub fn collect(
        &self,
        float: &ModelProto,
        drifted: Option<&Drifted<'_>>,
        taps: &[Tap],
        label: &str,
        control: &Control,
    ) -> Result<Vec<Option<Collected>>, Error> {
        let names: Vec<&str> = taps.iter().map(|tap| tap.tensor.as_str()).collect();
        let mut float = self.open(float, &names, control)?;
        let mut used = match drifted {
            Some(drifted) => {
                let names: Vec<&str> = drifted.tensors.iter().map(String::as_str).collect();
                Some(self.open(drifted.proto, &names, control)?)
            }
            None => None,
        };
        let moments = |tap: &Tap| tap.moments(drifted.is_some() || tap.rounding.is_some());
        let empty = |tap: &Tap| Some(Collected { calibration: moments(tap), held_back: moments(tap) });
        let mut collected: Vec<Option<Collected>> = taps.iter().map(empty).collect();
        let Split { calibration, held_back } = self.split;
        let total = (calibration.len() + held_back.len()) as u64;
        let all = calibration.iter().map(|index| (false, index)).chain(held_back.iter().map(|index| (true, index)));
        for (done, (is_held, &index)) in all.enumerate() {
            control.check()?;
            control.progress(label, done as u64, total);
            let sample = self.data.sample(index)?;
            let samples = if is_held { held_back.len() } else { calibration.len() };
            let mut floats: Vec<Option<Picked>> = vec![None; taps.len()];
            visit(&mut float, &sample, &names, None, control, &mut |at, view| {
                if let Some((tap, slot)) = at.and_then(|at| taps.get(at).zip(floats.get_mut(at))) {
                    *slot = pick_rows(tap, view, tap.rows_of_each(samples), index);
                }
            })?;
            let mut met = match (&mut used, drifted) {
                (Some(used), Some(drifted)) => {
                    let names: Vec<&str> = drifted.tensors.iter().map(String::as_str).collect();
                    let mut rows: Vec<Option<Picked>> = vec![None; taps.len()];
                    visit(used, &sample, &names, None, control, &mut |at, view| {
                        if let Some((tap, slot)) = at.and_then(|at| taps.get(at).zip(rows.get_mut(at))) {
                            *slot = pick_rows(tap, view, tap.rows_of_each(samples), index);
                        }
                    })?;
                    Some(rows)
                }
                _ => None,
            };
            for (at, (tap, slot)) in taps.iter().zip(&mut collected).enumerate() {
                let Some(rows) = floats.get_mut(at).and_then(Option::take) else {
                    *slot = None;
                    continue;
                };
                let mut own = met.as_mut().and_then(|met| met.get_mut(at)?.take());
                if let Some(rounding) = &tap.rounding {
                    rounding.fake_slice(own.get_or_insert_with(|| rows.clone()));
                }
                let Some(collected) = slot else { continue };
                let part = if is_held { &mut collected.held_back } else { &mut collected.calibration };
                add(part, tap, &rows, own.as_deref());
            }
        }
        control.progress(label, total, total);
        Ok(collected)
    }

    fn open(&self, proto: &ModelProto, names: &[&str], control: &Control) -> Result<Session, Error> {
        let proto = cut_to(proto, names);
        let source = Source::Proto { proto: &proto, folder: Some(self.folder) };
        Ok(Session::open_with(self.runtime, source, self.session, control)?)
    }
}

/// Rows of one tap and sample, `groups · columns` wide.
pub(super) type Picked = Vec<f32>;

/// Shows the tensors called `names`, each by its positions in that list, and the one called `output`, without a position; the
/// model's inputs are among them.
pub(super) fn visit(
    session: &mut Session,
    sample: &Sample,
    names: &[&str],
    output: Option<&str>,
    control: &Control,
    show: &mut dyn FnMut(Option<usize>, &View<'_>),
) -> Result<(), Error> {
    let mut each = |name: &str, view: &View<'_>| {
        for (at, _) in names.iter().enumerate().filter(|(_, wanted)| **wanted == name) {
            show(Some(at), view);
        }
        if output == Some(name) {
            show(None, view);
        }
    };
    session.visit(sample, control, &mut |name, view| each(name, &view))?;
    for (name, tensor) in &sample.feeds {
        if let Some(values) = tensor.values.to_f32().filter(|_| tensor.values.is_float()) {
            let shape: Vec<i64> = tensor.shape.iter().map(|&size| size as i64).collect();
            each(name, &View::F32 { shape: &shape, values: &values });
        }
    }
    Ok(())
}

/// At most `most` rows of a tensor, spread over it; the same ones for the same sample.
pub(super) fn pick_rows(tap: &Tap, view: &View<'_>, most: usize, sample: usize) -> Option<Picked> {
    let (values, shape) = floats(view).zip(view.shape())?;
    let rows = Rows::new(&tap.cut, &shape, &values).filter(|rows| rows.width() == tap.width())?;
    let stretches = rows.count().min(most);
    let mut out = Vec::with_capacity(stretches * rows.width());
    let mut row = Vec::new();
    for i in 0..stretches {
        let (start, end) = (i * rows.count() / stretches, (i + 1) * rows.count() / stretches);
        let within = RowKey::new(0, 0, sample as u64, i as u64).0 as usize % (end - start);
        rows.copy(start + within, &mut row);
        if row.iter().all(|x| x.is_finite()) {
            out.extend_from_slice(&row);
        } else {
            // So that the drifted model's rows stay beside these.
            out.extend(std::iter::repeat_n(0.0, row.len()));
        }
    }
    Some(out)
}

pub(super) fn add(moments: &mut [Moments], tap: &Tap, float: &[f32], used: Option<&[f32]>) {
    let stride = tap.width();
    moments.par_iter_mut().enumerate().for_each(|(group, moments)| {
        let of = |values| RowsOf { values, stride, offset: group * tap.columns };
        match used {
            Some(used) => moments.add(of(used), Some(of(float))),
            None => moments.add(of(float), None),
        }
    });
}

/// The model that computes the tensors called `names` and nothing else; the model's inputs among them are left out.
fn cut_to(proto: &ModelProto, names: &[&str]) -> ModelProto {
    let Some(graph) = &proto.graph else { return proto.clone() };
    let mut wanted: BTreeSet<&str> = names.iter().copied().collect();
    let made: BTreeSet<&str> = graph
        .node
        .iter()
        .flat_map(|node| node.output.iter().map(String::as_str))
        .filter(|n| wanted.contains(n))
        .collect();
    let mut nodes = Vec::new();
    for node in graph.node.iter().rev() {
        if node.output.iter().any(|output| !output.is_empty() && wanted.contains(output.as_str())) {
            read_by(node, &mut wanted);
            nodes.push(node.clone());
        }
    }
    nodes.reverse();
    let cut = GraphProto {
        node: nodes,
        name: graph.name.clone(),
        initializer: graph.initializer.iter().filter(|tensor| wanted.contains(tensor.name())).cloned().collect(),
        sparse_initializer: graph.sparse_initializer.clone(),
        // All of them: a sample feeds them all.
        input: graph.input.clone(),
        output: made.into_iter().map(value_info).collect(),
        ..Default::default()
    };
    // A run needs an output, even when all that is looked at are inputs.
    let cut = if cut.output.is_empty() { graph.clone() } else { cut };
    let head = ModelProto { graph: None, ..proto.clone() };
    ModelProto { graph: Some(cut), ..head }
}

fn read_by<'g>(node: &'g crate::onnx::proto::NodeProto, wanted: &mut BTreeSet<&'g str>) {
    wanted.extend(node.input.iter().map(String::as_str));
    for body in crate::model::graph::bodies(node) {
        wanted.extend(body.output.iter().map(crate::onnx::proto::ValueInfoProto::name));
        body.node.iter().for_each(|node| read_by(node, wanted));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_is_held_back_and_one_sample_serves_for_both() {
        let split = Split::of(&(0..8).collect::<Vec<_>>());
        assert_eq!((split.calibration, split.held_back), (vec![0, 1, 3, 4, 5, 7], vec![2, 6]));
        assert_eq!(Split::of(&[5, 9]).held_back, [9]);
        assert!(!Split::of(&[5]).is_held_back() && Split::of(&[1, 2, 3]).is_held_back());
        let folds = Split::folds(&[1, 3, 5, 7, 9], 2);
        assert_eq!((&*folds[0].held_back, &*folds[0].calibration), (&[1, 5, 9][..], &[3, 7][..]));
        assert_eq!((&*folds[1].held_back, folds[1].all()), (&[3, 7][..], vec![1, 3, 5, 7, 9]));
    }
}
