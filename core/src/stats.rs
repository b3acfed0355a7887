//! Streaming, mergeable statistics of activations: moments, histograms, sample rows; saved and resumed.

mod bins;
mod channels;
mod file;
mod histogram;
mod moments;
mod places;
#[cfg(test)]
mod properties;
mod reservoir;
mod sample_ranges;
mod tensor_stats;

pub use channels::{ChannelAxis, Channels};
pub use file::StatsError;
pub use histogram::Histogram;
pub use moments::finite_range;
pub use reservoir::{RowKey, RowReservoir};
pub use sample_ranges::{Ends, SampleId, SampleRanges};
pub use tensor_stats::TensorStats;

use std::collections::{BTreeMap, BTreeSet};

/// What calibration gathered about one model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stats {
    /// Which model: [`crate::model::Model::identity`], the SHA-256 of its file where the graph is as the file has it.
    pub model_sha256: String,
    /// Seed of the choice of rows.
    pub seed: u64,
    /// Which samples went in, by the description of their source: resuming skips them.
    pub sources: BTreeMap<String, BTreeSet<u64>>,
    /// Every observed activation, by tensor name.
    pub tensors: BTreeMap<String, TensorStats>,
    /// Some rows of every layer's input, by layer name.
    pub rows: BTreeMap<String, RowReservoir>,
    /// Channels of the inputs of convolutions and matrix products, by tensor name.
    pub channels: BTreeMap<String, Channels>,
    /// The ranges that single samples had; empty in files of earlier releases.
    pub by_sample: SampleRanges,
}

impl Stats {
    /// Nothing gathered yet for the model with this hash.
    pub fn new(model_sha256: impl Into<String>, seed: u64) -> Self {
        Self { model_sha256: model_sha256.into(), seed, ..Self::default() }
    }

    /// Samples that went in.
    pub fn samples(&self) -> usize {
        self.sources.values().map(BTreeSet::len).sum()
    }

    /// Where the samples came from, for people.
    pub fn data(&self) -> String {
        self.sources.keys().cloned().collect::<Vec<_>>().join(" + ")
    }

    /// Adds what `other` gathered about the same model from other samples.
    pub fn merge(&mut self, other: &Self) -> Result<(), StatsError> {
        if self.model_sha256 != other.model_sha256 {
            return Err(StatsError::OtherModel {
                expected: self.model_sha256.clone(),
                found: other.model_sha256.clone(),
            });
        }
        for (data, seen) in &other.sources {
            self.sources.entry(data.clone()).or_default().extend(seen);
        }
        for (name, stats) in &other.tensors {
            self.tensors.entry(name.clone()).or_default().merge(stats);
        }
        for (name, rows) in &other.rows {
            self.rows.entry(name.clone()).or_insert_with(|| RowReservoir::new(rows.width)).merge(rows);
        }
        for (name, channels) in &other.channels {
            self.channels.entry(name.clone()).or_insert_with(|| Channels::new(channels.len())).merge(channels);
        }
        self.by_sample.merge(&other.by_sample);
        Ok(())
    }
}
