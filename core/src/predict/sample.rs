//! A few channels of a layer's weights with how much they matter: what any choice does, estimated within a frame.

use super::{Noise, Pricing, Sensitivity};
use crate::model::{Layer, Model};
use crate::plan::Choice;
use crate::quant::{Weighing, WeightLayout};

/// Weights kept of a layer's weight tensor.
const KEPT: usize = 4096;

/// Whole channels of each weight of a layer, evenly spread over those that matter; of longer channels the beginning.
#[derive(Clone, Debug, Default)]
pub(super) struct LayerSample {
    parts: Vec<Part>,
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
        Some(Self { parts })
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

    /// What `choice` does to all weights: what it does to these, in proportion to a choice of which both are known; by
    /// itself where there is none.
    pub(super) fn estimate(&self, sensitivity: &Sensitivity, layer: &str, choice: &Choice) -> Noise {
        let own = self.noise(choice);
        let Some((known, whole)) = sensitivity.like(layer, choice) else { return own };
        let part = self.noise(&known).total;
        if part > 0.0 { own * (whole.total / part) } else { own }
    }
}

impl Part {
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
