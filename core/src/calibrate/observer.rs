//! What happens to each tensor that a run shows.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use super::row_cut::Rows;
use crate::model::{Layer, Model, RowCut};
use crate::runtime::View;
use crate::stats::{RowKey, RowReservoir, Stats};

/// Rows of one sample that may enter a layer's reservoir, spread over the sample.
const ROWS_PER_SAMPLE: usize = 32;

/// Sorts what a run shows into statistics.
pub(super) struct Observer<'a> {
    taps: BTreeSet<String>,
    /// Taps that are inputs of the model.
    inputs: BTreeSet<String>,
    /// Layers by the tensor that enters them.
    readers: BTreeMap<&'a str, Vec<&'a Layer>>,
    source: u64,
    seed: u64,
    /// Whether large tensors may be shared out among the threads of the pool.
    parallel: bool,
    row: Vec<f32>,
}

impl<'a> Observer<'a> {
    /// An observer of the model's taps on samples of `source`.
    pub(super) fn new(model: &'a Model, source: &str, seed: u64, parallel: bool) -> Self {
        let taps: BTreeSet<String> = model.taps().into_iter().collect();
        let inputs = model.inputs.iter().map(|port| port.name.clone()).filter(|name| taps.contains(name)).collect();
        let mut readers: BTreeMap<&str, Vec<&Layer>> = BTreeMap::new();
        for layer in model.layers.iter().filter(|layer| layer.quantizable() && !layer.in_subgraph()) {
            if layer.cut != RowCut::None {
                readers.entry(&layer.input).or_default().push(layer);
            }
        }
        // FNV-1a: the same on every machine and in every release.
        let source = source
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
        Self { taps, inputs, readers, source, seed, parallel, row: Vec::new() }
    }

    /// The taps that the runtime has to hand out.
    pub(super) fn inner_taps(&self) -> Vec<String> {
        self.taps.difference(&self.inputs).cloned().collect()
    }

    /// Takes in an output of the run of sample `sample`.
    pub(super) fn see(&mut self, name: &str, view: &View<'_>, sample: usize, stats: &mut Stats) {
        if self.taps.contains(name) && !self.inputs.contains(name) {
            self.observe(name, view, sample, stats);
        }
    }

    /// Takes in an input of the model.
    pub(super) fn see_input(&mut self, name: &str, view: &View<'_>, sample: usize, stats: &mut Stats) {
        if self.inputs.contains(name) {
            self.observe(name, view, sample, stats);
        }
    }

    fn observe(&mut self, name: &str, view: &View<'_>, sample: usize, stats: &mut Stats) {
        let Some((values, shape)) = floats(view).zip(view.shape()) else { return };
        let tensor = match stats.tensors.get_mut(name) {
            Some(tensor) => tensor,
            None => stats.tensors.entry(name.to_owned()).or_default(),
        };
        tensor.rank = Some(shape.len() as u32);
        let range = if self.parallel { tensor.observe_parallel(&values) } else { tensor.observe(&values) };
        for layer in self.readers.get(name).into_iter().flatten() {
            let Some(rows) = Rows::new(&layer.cut, &shape, &values) else { continue };
            let reservoir = match stats.rows.get_mut(&layer.name) {
                Some(reservoir) => reservoir,
                None => stats.rows.entry(layer.name.clone()).or_insert_with(|| RowReservoir::new(rows.width())),
            };
            if reservoir.width != rows.width() {
                continue;
            }
            // One row from each of equal stretches of the sample.
            let stretches = rows.count().min(ROWS_PER_SAMPLE);
            for i in 0..stretches {
                let (start, end) = (i * rows.count() / stretches, (i + 1) * rows.count() / stretches);
                let place = RowKey::new(!self.seed, self.source, sample as u64, i as u64).0 as usize % (end - start);
                let key = RowKey::new(self.seed, self.source, sample as u64, (start + place) as u64);
                if reservoir.wants(key) {
                    rows.copy(start + place, &mut self.row);
                    if self.row.iter().all(|x| x.is_finite()) {
                        reservoir.offer(key, range, &self.row);
                    }
                }
            }
        }
    }
}

/// The values as float32; `None` for integers, text and what is no tensor.
fn floats<'b>(view: &View<'b>) -> Option<Cow<'b, [f32]>> {
    Some(match view {
        View::F32 { values, .. } => Cow::Borrowed(*values),
        View::F64 { values, .. } => values.iter().map(|&x| x as f32).collect(),
        View::F16 { values, .. } => values.iter().map(|x| x.to_f32()).collect(),
        View::Bf16 { values, .. } => values.iter().map(|x| x.to_f32()).collect(),
        View::Other(_) | View::Absent => return None,
    })
}
