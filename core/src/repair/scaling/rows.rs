//! What a layer's output costs under a choice, from kept rows of its input divided by factors and weights multiplied by them.

use super::constants::Part;
use crate::error::Probe;
use crate::model::{Layer, RowCut};
use crate::plan::{Choice, Clip};
use crate::stats::{Channels, RowReservoir, TensorStats};

/// A layer with what is needed to try factors on it.
pub(super) struct Trial<'a> {
    pub(super) layer: &'a Layer,
    pub(super) choice: Choice,
    pub(super) weights: Vec<f32>,
    /// How the weights' input channels lie.
    pub(super) part: Part,
    /// Rows to search on, and rows held back.
    pub(super) search: RowReservoir,
    pub(super) held_back: RowReservoir,
    /// Ranges of the input's channels over all samples.
    pub(super) channels: Channels,
}

impl<'a> Trial<'a> {
    /// Of every three rows one is held back. Inputs are rounded in their whole range: clip searches weigh rare values by how
    /// rare they are, which so few rows do not tell.
    pub(super) fn new(
        layer: &'a Layer,
        choice: Choice,
        weights: Vec<f32>,
        part: Part,
        rows: &RowReservoir,
        channels: Option<&Channels>,
        count: usize,
    ) -> Option<Self> {
        let (mut search, mut held_back) = (RowReservoir::new(rows.width), RowReservoir::new(rows.width));
        for (at, row) in rows.rows.chunks_exact(rows.width.max(1)).enumerate() {
            let part = if at % 3 == 2 { &mut held_back } else { &mut search };
            part.rows.extend_from_slice(row);
            part.ranges.push(rows.ranges.get(at).copied()?);
            part.keys.push(rows.keys.get(at).copied()?);
        }
        let inner = inner(layer, rows.width, count)?;
        let channels = match channels.filter(|channels| channels.len() == count && channels.count > 0) {
            Some(channels) => channels.clone(),
            None => of_rows(rows, count, inner),
        };
        let enough = !search.is_empty() && !held_back.is_empty();
        let choice = Choice { activation_clip: Clip::MinMax, ..choice };
        enough.then_some(Self { layer, choice, weights, part, search, held_back, channels })
    }

    /// Noise over signal at the layer's output with these factors, or without any, on rows of the search or held back.
    ///
    /// A row weighs 1 / (its signal + the mean signal): a few rows with huge activations, as the first token of a
    /// transformer has, would decide alone otherwise, and what follows (a normalisation) sees each row by itself.
    pub(super) fn noise(&self, factors: Option<&[f32]>, held_back: bool) -> Option<f64> {
        let mut rows = if held_back { self.held_back.clone() } else { self.search.clone() };
        let mut weights = self.weights.clone();
        let mut extremes = Vec::new();
        for (channel, (&lo, &hi)) in self.channels.min.iter().zip(&self.channels.max).enumerate() {
            let factor = factors.and_then(|factors| factors.get(channel)).copied().unwrap_or(1.0);
            if lo <= hi {
                extremes.extend([lo / factor, hi / factor]);
            }
        }
        if let Some(factors) = factors {
            let inner = inner(self.layer, rows.width, factors.len())?;
            for row in rows.rows.chunks_exact_mut(rows.width.max(1)) {
                for (values, factor) in row.chunks_mut(inner).zip(factors) {
                    for value in values {
                        *value /= factor;
                    }
                }
            }
            // The range of the whole input of the sample, as dynamic quantization takes it, is not known per channel.
            for (range, row) in rows.ranges.iter_mut().zip(rows.rows.chunks_exact(rows.width.max(1))) {
                *range = row.iter().fold((0.0_f32, 0.0_f32), |(lo, hi), &x| (lo.min(x), hi.max(x)));
            }
            let lane = self.part.lane?;
            for (i, weight) in weights.iter_mut().enumerate() {
                *weight *= factors.get(lane.channel(i)).copied().unwrap_or(1.0);
            }
        }
        let mut input = TensorStats::default();
        input.observe(&extremes);
        let probe = Probe::new(self.layer, &weights, Some(&rows), Some(&input));
        let (noises, signals) = (probe.row_noises(&self.choice)?, probe.row_signals()?);
        let mean = signals.iter().sum::<f64>() / signals.len().max(1) as f64;
        let weighted =
            |of: &[f64]| -> f64 { of.iter().zip(&signals).map(|(value, signal)| value / (signal + mean)).sum() };
        let signal = weighted(&signals);
        (signal > 0.0).then(|| weighted(&noises) / signal)
    }

    /// Largest magnitude of the weights that each input channel meets.
    pub(super) fn largest_weights(&self, count: usize) -> Vec<f32> {
        let mut largest = vec![0.0_f32; count];
        let Some(lane) = self.part.lane else { return largest };
        for (i, weight) in self.weights.iter().enumerate() {
            if let Some(known) = largest.get_mut(lane.channel(i)) {
                *known = known.max(weight.abs());
            }
        }
        largest
    }
}

/// Values of one channel that follow each other in a row.
fn inner(layer: &Layer, width: usize, channels: usize) -> Option<usize> {
    let inner = match &layer.cut {
        RowCut::LastAxis => 1,
        RowCut::Patches(window) => window.kernel.iter().product(),
        RowCut::None | RowCut::FirstAxis | RowCut::ChannelAxis => return None,
    };
    (inner > 0 && inner.checked_mul(channels) == Some(width)).then_some(inner)
}

/// Channels as far as the rows show them, for statistics that hold none.
fn of_rows(rows: &RowReservoir, count: usize, inner: usize) -> Channels {
    let mut channels = Channels::new(count);
    for row in rows.rows.chunks_exact(rows.width.max(1)) {
        channels.observe(crate::stats::ChannelAxis::Second, &[1, count, inner], row);
    }
    channels
}
