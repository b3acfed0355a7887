//! A few channels of a layer's weights with how much they matter: what any choice does, estimated within a frame.

use super::sensitivity::WeightKey;
use super::{Noise, Pricing};
use crate::model::{Layer, Model};
use crate::plan::{Choice, Clip, Granularity, Symmetry};
use crate::quant::{Weighing, WeightLayout};

/// Weights kept of a layer's weight tensor.
const KEPT: usize = 4096;

/// Choices whose noise in the sample is remembered.
const MOST_REMEMBERED: usize = 32;

/// Whole channels of each weight of a layer, evenly spread over those that matter; of longer channels the beginning.
#[derive(Clone, Debug, Default)]
pub(super) struct LayerSample {
    parts: Vec<Part>,
    /// What choices do to the sample that the whole is held to.
    remembered: Vec<(WeightKey, f64)>,
}

#[derive(Clone, Debug)]
struct Part {
    layout: WeightLayout,
    values: Vec<f32>,
    importance: Vec<f32>,
}

impl LayerSample {
    /// `None` where the weights cannot be read.
    pub(super) fn of(model: &Model, layer: &Layer, pricing: &Pricing) -> Option<Self> {
        let mut parts = Vec::new();
        for (weight, importance) in layer.weights.iter().zip(pricing.importance()) {
            let values = model.weight(layer, weight).ok()?;
            parts.push(Part::of(&values, importance, weight.layout)?);
        }
        Some(Self { parts, remembered: Vec::new() })
    }

    fn noise(&self, choice: &Choice) -> Noise {
        let mut sum = Noise::default();
        for part in self.parts.iter().filter(|part| !part.layout.is_empty()) {
            if let Some(weighing) = Weighing::new(&part.values, &part.importance, part.layout) {
                let (total, clipped) = weighing.noise_and_clipped(choice);
                sum += Noise { total, clipped };
            }
        }
        sum
    }

    /// How many times a weight is looked at for an estimate of `choice` that is held to `known`, about: searches try many
    /// ranges, what is remembered costs nothing.
    pub(super) fn looks(&self, choice: &Choice, known: Option<&Choice>) -> usize {
        let known = known.filter(|known| self.remembered(&WeightKey::of(known)).is_none());
        let of = |choice: &Choice| -> usize {
            let parts = self.parts.iter();
            parts.map(|part| part.values.len() * looks(choice) + part.groups(choice) * setup(choice)).sum()
        };
        of(choice) + known.map_or(0, of)
    }

    /// What `choice` does to all weights: what it does to these, in proportion to a choice of which both are known; by
    /// itself where there is none.
    pub(super) fn estimate(&mut self, choice: &Choice, known: Option<&(Choice, Noise)>) -> Noise {
        let own = self.noise(choice);
        let Some((known, whole)) = known else { return own };
        let part = self.remember(known);
        if part > 0.0 { own * (whole.total / part) } else { own }
    }

    /// What `choice` does to the sample, from now on remembered.
    pub(super) fn remember(&mut self, choice: &Choice) -> f64 {
        let key = WeightKey::of(choice);
        if let Some(noise) = self.remembered(&key) {
            return noise;
        }
        let noise = self.noise(choice).total;
        if self.remembered.len() >= MOST_REMEMBERED {
            self.remembered.remove(0);
        }
        self.remembered.push((key, noise));
        noise
    }

    fn remembered(&self, key: &WeightKey) -> Option<f64> {
        self.remembered.iter().find(|(known, _)| known == key).map(|(_, noise)| *noise)
    }
}

/// Passes over the weights that a choice takes, as measured: one that fits a range, one that rounds, and those of searches.
fn looks(choice: &Choice) -> usize {
    match (choice.clip, choice.symmetry) {
        (Clip::MinMax | Clip::Manual { .. } | Clip::Trained, _) => 3,
        (Clip::Percentile(_), _) => 12,
        (Clip::Mse, Symmetry::Symmetric) => 45,
        (Clip::Mse, Symmetry::Asymmetric) => 75,
        (Clip::Entropy, _) => 20,
    }
}

/// What a range costs beside its values, in values: searches over histograms cost the same for few values.
fn setup(choice: &Choice) -> usize {
    if choice.clip == Clip::Entropy { 1 << 20 } else { 32 }
}

impl Part {
    /// Ranges that `choice` has here.
    fn groups(&self, choice: &Choice) -> usize {
        let WeightLayout { channels, inner, .. } = self.layout;
        match choice.granularity {
            Granularity::PerTensor => 1,
            Granularity::PerChannel => channels,
            Granularity::Block(size) => channels * inner.div_ceil((size as usize).max(1)),
        }
    }

    fn of(values: &[f32], importance: &[f32], layout: WeightLayout) -> Option<Self> {
        if values.len() != layout.len() || importance.len() != layout.len() {
            return None;
        }
        let matters = |channel: &usize| (0..layout.depth()).any(|k| importance[layout.index(*channel, k)] != 0.0);
        let channels: Vec<usize> = (0..layout.channels).filter(matters).collect();
        let depth = layout.depth().min(KEPT);
        let count = (KEPT / depth.max(1)).clamp(1, channels.len().max(1)).min(channels.len());
        let chosen = (0..count).map(|i| channels[i * channels.len() / count]);
        let places: Vec<usize> = chosen.flat_map(|c| (0..depth).map(move |k| layout.index(c, k))).collect();
        Some(Self {
            layout: WeightLayout { outer: 1, channels: count, inner: depth },
            values: places.iter().map(|&at| values[at]).collect(),
            importance: places.iter().map(|&at| importance[at]).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_that_matter_are_kept_whole_and_evenly() {
        let layout = WeightLayout { outer: 1, channels: 100, inner: 1000 };
        let values: Vec<f32> = (0..100_000).map(|i| i as f32).collect();
        let importance: Vec<f32> = (0..100_000).map(|i| if i < 50_000 { 1.0 } else { 0.0 }).collect();
        let part = Part::of(&values, &importance, layout).expect("fits");
        assert_eq!((part.layout.channels, part.layout.inner), (4, 1000));
        assert_eq!([part.values[0], part.values[1000], part.values[3000]], [0.0, 12_000.0, 37_000.0]);
        let nothing = Part::of(&values, &vec![0.0; 100_000], layout).expect("fits");
        assert!(nothing.values.is_empty());
        assert!(Part::of(&values[1..], &importance, layout).is_none());
    }
}
