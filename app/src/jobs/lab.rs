//! The calibration lab beside the window: what the samples of the present statistics did to their ranges.

use std::collections::BTreeMap;
use std::sync::Arc;

use nibble_core::calibrate::Taps;
use nibble_core::calibrate::lab::{Lab, LabOptions, sample_name};
use nibble_core::data::DataSet;
use nibble_core::model::Model;
use nibble_core::stats::{SampleId, Stats};

use super::Message;
use crate::views::calibrate::DataRequest;

/// The lab, with what the window shows beside it.
pub struct Examined {
    /// The statistics it is about.
    pub stats: Arc<Stats>,
    /// What was found.
    pub lab: Lab,
    /// What every sample is called.
    pub names: BTreeMap<SampleId, String>,
    /// For every tensor of the lab the layers that read or make it, by index.
    pub layers: Vec<Vec<usize>>,
}

impl Examined {
    /// What a sample is called.
    pub fn name(&self, sample: SampleId) -> String {
        self.names.get(&sample).cloned().unwrap_or_else(|| sample_name(sample, &self.stats, None))
    }
}

/// Looks at what `stats` know of single samples; `request` says where they came from, where that is known.
pub fn examine(model: &Model, stats: Arc<Stats>, request: Option<&DataRequest>) -> Message {
    let lab = Lab::of(&stats, LabOptions::default());
    // Without the source, samples are called by their numbers.
    let set = request.and_then(|request| DataSet::open(&request.spec, &model.inputs, &request.options).ok());
    let left_out = request.iter().flat_map(|request| &request.left_out).copied();
    let mentioned = lab.samples.iter().copied().chain(lab.setters.iter().map(|setter| setter.sample)).chain(left_out);
    let names = mentioned.map(|sample| (sample, sample_name(sample, &stats, set.as_ref()))).collect();
    let taps = Taps::of(model);
    let source = |name: &str| taps.aliases.get(name).map_or_else(|| name.to_owned(), Clone::clone);
    let mut by_tensor: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for ends in [false, true] {
        for (index, layer) in model.layers.iter().enumerate() {
            let name = source(if ends { &layer.observed } else { &layer.input });
            let layers = by_tensor.entry(name).or_default();
            // What a layer makes belongs to it only where no layer reads it.
            if !ends || layers.is_empty() {
                layers.push(index);
            }
        }
    }
    let layers = lab.tensors.iter().map(|tensor| by_tensor.get(&tensor.name).cloned().unwrap_or_default()).collect();
    Message::Examined(Box::new(Examined { stats, lab, names, layers }))
}
