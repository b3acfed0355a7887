//! What happens to each tensor that a run shows.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use super::Taps;
use super::row_cut::Rows;
use crate::model::{Layer, Model, RowCut};
use crate::runtime::View;
use crate::stats::{ChannelAxis, Channels, RowKey, RowReservoir, SampleId, Stats, TensorStats, finite_range};

/// Rows of one sample that may enter a layer's reservoir, spread over the sample.
const ROWS_PER_SAMPLE: usize = 16;

/// Values of a channel from which they are looked at on the way; shorter runs have a pass of their own.
const LARGE_PLANE: usize = 64;

/// Sorts what a run shows into statistics.
pub(super) struct Observer<'a> {
    taps: Taps,
    /// Taps that are inputs of the model.
    inputs: BTreeSet<String>,
    /// Layers by the tensor that enters them.
    readers: BTreeMap<&'a str, Vec<&'a Layer>>,
    /// Whether large tensors may be shared out among the threads of the pool.
    parallel: bool,
    /// Ranks of the aliases that were shown.
    ranks: BTreeMap<String, u32>,
    row: Vec<f32>,
    /// Ranges that the sample in hand has shown so far.
    shown: Vec<(String, (f32, f32))>,
}

impl<'a> Observer<'a> {
    /// An observer of the model's taps.
    pub(super) fn new(model: &'a Model, parallel: bool) -> Self {
        let taps = Taps::of(model);
        let names = taps.names();
        let inputs =
            model.inputs.iter().map(|port| port.name.clone()).filter(|name| names.contains(name.as_str())).collect();
        let mut readers: BTreeMap<&str, Vec<&Layer>> = BTreeMap::new();
        for layer in model.layers.iter().filter(|layer| layer.quantizable() && !layer.in_subgraph()) {
            if layer.cut != RowCut::None {
                readers.entry(&layer.input).or_default().push(layer);
            }
        }
        Self { taps, inputs, readers, parallel, ranks: BTreeMap::new(), row: Vec::new(), shown: Vec::new() }
    }

    /// The taps that the runtime has to hand out.
    pub(super) fn handed_out(&self) -> &[String] {
        &self.taps.handed_out
    }

    /// Forgets what a sample showed that failed half way.
    pub(super) fn begin(&mut self) {
        self.shown.clear();
    }

    /// Adds the ranges that `sample` has shown to `stats`.
    pub(super) fn end(&mut self, sample: SampleId, stats: &mut Stats) {
        let shown = self.shown.iter().map(|(name, range)| (name.as_str(), *range));
        stats.by_sample.add(stats.seed, sample, shown);
        self.shown.clear();
    }

    /// Takes in an output of the run of a sample.
    pub(super) fn see(&mut self, name: &str, view: &View<'_>, sample: SampleId, stats: &mut Stats) {
        if !self.inputs.contains(name) {
            self.observe(name, view, sample, stats);
        }
    }

    /// Takes in an input of the model.
    pub(super) fn see_input(&mut self, name: &str, view: &View<'_>, sample: SampleId, stats: &mut Stats) {
        if self.inputs.contains(name) {
            self.observe(name, view, sample, stats);
        }
    }

    /// Gives aliases the statistics of the tensors that have their values.
    pub(super) fn settle(&self, stats: &mut Stats) {
        for (alias, source) in &self.taps.aliases {
            if let Some(seen) = stats.tensors.get(source) {
                let rank = self.ranks.get(alias).copied().or(stats.tensors.get(alias).and_then(|seen| seen.rank));
                let seen = TensorStats { rank, ..seen.clone() };
                stats.tensors.insert(alias.clone(), seen);
            }
        }
    }

    fn observe(&mut self, name: &str, view: &View<'_>, sample: SampleId, stats: &mut Stats) {
        let (observed, shown) = (self.taps.observed.contains(name), self.taps.shown.contains(name));
        if !observed && !shown {
            return;
        }
        let Some((values, shape)) = floats(view).zip(view.shape()) else { return };
        let readers = self.readers.get(name).map_or(&[][..], Vec::as_slice);
        let of_channels = readers.iter().find_map(|layer| channels(layer, &shape));
        if let Some((_, size)) = of_channels
            && !stats.channels.contains_key(name)
        {
            stats.channels.insert(name.to_owned(), Channels::new(size));
        }
        let mut channels = of_channels.and_then(|(axis, _)| Some((axis, stats.channels.get_mut(name)?)));
        let range = if observed {
            let tensor = match stats.tensors.get_mut(name) {
                Some(tensor) => tensor,
                None => stats.tensors.entry(name.to_owned()).or_default(),
            };
            tensor.rank = Some(shape.len() as u32);
            let plane = channels.as_ref().and_then(|(axis, known)| known.plane(*axis, &shape, values.len()));
            match plane.filter(|&plane| plane >= LARGE_PLANE).and_then(|plane| Some((plane, channels.take()?.1))) {
                Some((plane, channels)) => tensor.observe_planes(&values, plane, channels, self.parallel),
                None if self.parallel => tensor.observe_parallel(&values),
                None => tensor.observe(&values),
            }
        } else {
            match self.ranks.get_mut(name) {
                Some(rank) => *rank = shape.len() as u32,
                None => _ = self.ranks.insert(name.to_owned(), shape.len() as u32),
            }
            finite_range(&values)
        };
        if observed {
            self.shown.push((name.to_owned(), range));
        }
        if let Some((axis, channels)) = channels {
            channels.observe(axis, &shape, &values);
        }
        for layer in readers {
            let Some(rows) = Rows::new(&layer.cut, &shape, &values) else { continue };
            let reservoir = match stats.rows.get_mut(&layer.name) {
                Some(reservoir) => reservoir,
                None => stats.rows.entry(layer.name.clone()).or_insert_with(|| RowReservoir::new(rows.width())),
            };
            if reservoir.width != rows.width() {
                continue;
            }
            let bound = reservoir.bound();
            // One row from each of equal stretches of the sample.
            let stretches = rows.count().min(ROWS_PER_SAMPLE);
            for i in 0..stretches {
                let (start, end) = (i * rows.count() / stretches, (i + 1) * rows.count() / stretches);
                let within =
                    RowKey::new(!stats.seed, sample.source, sample.sample, i as u64).0 as usize % (end - start);
                let key = RowKey::new(stats.seed, sample.source, sample.sample, (start + within) as u64);
                if bound.is_none_or(|bound| key < bound) && reservoir.wants(key) {
                    rows.copy(start + within, &mut self.row);
                    if self.row.iter().all(|x| x.is_finite()) {
                        reservoir.offer(key, range, &self.row);
                    }
                }
            }
        }
    }
}

/// Along which axis the channels of a layer's input lie, and how many there are; `None` where its weights have no axis
/// for them.
fn channels(layer: &Layer, shape: &[usize]) -> Option<(ChannelAxis, usize)> {
    match layer.cut {
        RowCut::LastAxis => Some((ChannelAxis::Last, *shape.last()?)),
        RowCut::Patches(_) => Some((ChannelAxis::Second, *shape.get(1)?)),
        RowCut::None | RowCut::FirstAxis | RowCut::ChannelAxis => None,
    }
}

/// The values as float32; `None` for integers, text and what is no tensor.
pub(crate) fn floats<'b>(view: &View<'b>) -> Option<Cow<'b, [f32]>> {
    Some(match view {
        View::F32 { values, .. } => Cow::Borrowed(*values),
        View::F64 { values, .. } => values.iter().map(|&x| x as f32).collect(),
        View::F16 { values, .. } => values.iter().map(|x| x.to_f32()).collect(),
        View::Bf16 { values, .. } => values.iter().map(|x| x.to_f32()).collect(),
        View::Other(_) | View::Absent => return None,
    })
}
