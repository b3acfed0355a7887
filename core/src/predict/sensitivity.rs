//! What was learnt about a model's output: how far each weight and each activation moves it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Spread;
use crate::model::{Layer, Model, Weight};
use crate::plan::{Choice, Clip, Granularity, Precision, Symmetry};
use crate::quant::Weighing;

/// A layer that gradients do not reach.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unknown {
    /// The layer.
    pub layer: String,
    /// Why.
    pub why: String,
}

/// What decides how a weight is rounded.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct WeightKey {
    precision: Precision,
    symmetry: Symmetry,
    granularity: Granularity,
    clip: Clip,
}

impl WeightKey {
    pub(super) fn of(choice: &Choice) -> Self {
        let Choice { precision, symmetry, granularity, clip, .. } = *choice;
        Self { precision, symmetry, granularity, clip }
    }
}

/// One layer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LayerSensitivity {
    /// Noise power at the output, a sample, of choices for its weights.
    pub(super) weights: Vec<(WeightKey, f64)>,
    /// Whether its importance was measured by running the model and not by gradients.
    pub measured: bool,
    /// Noise power of the activations that its kernel rounds while running, where gradients cannot say it.
    pub(super) kernel: Option<f64>,
}

/// One activation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TensorSensitivity {
    /// Nodes that read it; `None` stands for the model's output.
    pub(super) readers: Vec<Option<usize>>,
    /// E[Σ gᵢ·gⱼ] over its elements for every pair of readers, row by row.
    pub(super) gram: Vec<f64>,
    /// Which of the readers are layers.
    pub(super) by_layers: Vec<bool>,
    /// Importance through all readers.
    pub all: Spread,
    /// Importance through layers alone; `None` where these are all its readers.
    pub layers: Option<Spread>,
    /// How errors of its values add up, against independent ones.
    pub(super) coherence: f64,
    /// Noise power through layers when it is rounded to 8 bits over each sample's own range.
    pub(super) dynamic: f64,
    /// Noise power through layers when blocks of this many values are rounded to 8 bits each.
    pub(super) blocks: Vec<(usize, f64)>,
}

/// Sizes of blocks that kernels round activations in.
pub(super) const BLOCKS: [usize; 5] = [16, 32, 64, 128, 256];

impl TensorSensitivity {
    /// E[(Σ g)²] through some of the readers.
    pub(super) fn energy(&self, chosen: impl Fn(usize) -> bool) -> f64 {
        let count = self.readers.len();
        let pairs = (0..count).flat_map(|i| (0..count).map(move |j| (i, j)));
        let sum: f64 =
            pairs.filter(|&(i, j)| chosen(i) && chosen(j)).filter_map(|(i, j)| self.gram.get(i * count + j)).sum();
        sum.max(0.0)
    }

    fn is_layer(&self, reader: usize) -> bool {
        self.by_layers.get(reader).copied().unwrap_or(false)
    }

    /// Share of what comes through `nodes` in what comes through layers.
    pub(super) fn share(&self, nodes: &[usize]) -> f64 {
        let chosen = |i: usize| self.readers.get(i).copied().flatten().is_some_and(|reader| nodes.contains(&reader));
        ratio(self.energy(chosen), self.energy(|i| self.is_layer(i)))
    }

    /// Noise power at the output when the nodes `readers` (`None`: all) see it rounded to `params`.
    pub fn noise(&self, params: &crate::quant::QuantParams, readers: Option<&[usize]>) -> f64 {
        let Some(readers) = readers else { return self.coherence * self.all.noise(params) };
        let independent = match &self.layers {
            Some(layers) if layers.total() > 0.0 => layers.noise(params) * self.share(readers),
            _ => {
                let chosen =
                    |i: usize| self.readers.get(i).copied().flatten().is_some_and(|reader| readers.contains(&reader));
                self.all.noise(params) * ratio(self.energy(chosen), self.energy(|_| true))
            }
        };
        self.coherence * independent
    }
}

fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

/// What was learnt about a model on some samples.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Sensitivity {
    /// SHA-256 of the model file.
    pub model_sha256: String,
    /// The output that everything is about.
    pub output: String,
    /// Samples gone through.
    pub samples: usize,
    /// Random weightings of the output a sample.
    pub projections: usize,
    /// Σ y² of the output, a sample.
    pub signal: f64,
    /// By layer name.
    pub layers: BTreeMap<String, LayerSensitivity>,
    /// By tensor name.
    pub tensors: BTreeMap<String, TensorSensitivity>,
    /// Layers about which nothing is known.
    pub unknown: Vec<Unknown>,
    /// What the gradients did not reach, for people.
    pub notes: Vec<String>,
    /// Importance of every weight, by layer and number of the weight in it, while it is kept.
    #[serde(skip)]
    pub(super) importance: HashMap<(String, usize), Arc<Vec<f32>>>,
}

impl Sensitivity {
    /// Computes what `choices` do to the weights of `layer` and keeps it; those known already cost nothing. Choices are
    /// as forms honour them.
    pub fn cover(&mut self, model: &Model, layer: &Layer, choices: &[Choice]) {
        let Some(known) = self.layers.get(&layer.name) else { return };
        let mut missing: Vec<WeightKey> = Vec::new();
        let mut asked: Vec<Choice> = Vec::new();
        for choice in choices.iter().filter(|choice| choice.precision != Precision::Float32) {
            let key = WeightKey::of(choice);
            if !missing.contains(&key) && !known.weights.iter().any(|(known, _)| *known == key) {
                missing.push(key);
                asked.push(*choice);
            }
        }
        if missing.is_empty() {
            return;
        }
        let mut sums = vec![0.0; asked.len()];
        for (at, weight) in layer.weights.iter().enumerate() {
            let Some(importance) = self.importance.get(&(layer.name.clone(), at)) else { return };
            let Ok(values) = model.weight(layer, weight) else { return };
            for (sum, noise) in sums.iter_mut().zip(noises(weight, layer, &values, importance, &asked)) {
                *sum += noise;
            }
        }
        if let Some(known) = self.layers.get_mut(&layer.name) {
            known.weights.extend(missing.into_iter().zip(sums));
        }
    }

    /// Noise power, a sample, that rounding the layer's weights as `choice` says makes at the output; `None` when that was
    /// not covered.
    pub fn weight_noise(&self, layer: &str, choice: &Choice) -> Option<f64> {
        if choice.precision == Precision::Float32 {
            return Some(0.0);
        }
        let key = WeightKey::of(choice);
        self.layers.get(layer)?.weights.iter().find(|(known, _)| *known == key).map(|(_, noise)| *noise)
    }

    /// Forgets the importance of single weights, which is as large as the model; choices covered stay known.
    pub fn forget(&mut self) {
        self.importance = HashMap::new();
    }
}

/// The noise of each choice for one weight. Of an embedding only the rows that samples looked up are weighed; rows share no
/// scale unless it is the whole tensor's.
fn noises(weight: &Weight, layer: &Layer, values: &[f32], importance: &[f32], choices: &[Choice]) -> Vec<f64> {
    let layout = weight.layout;
    let by_rows =
        layer.op == "Gather" && layout.outer == 1 && choices.iter().all(|c| c.granularity != Granularity::PerTensor);
    if by_rows {
        let width = layout.inner.max(1);
        let mut kept = (Vec::new(), Vec::new(), 0);
        for (values, importance) in values.chunks(width).zip(importance.chunks(width)) {
            if importance.iter().any(|&i| i != 0.0) {
                kept.0.extend_from_slice(values);
                kept.1.extend_from_slice(importance);
                kept.2 += 1;
            }
        }
        let layout = crate::quant::WeightLayout { channels: kept.2, ..layout };
        return weigh(&kept.0, &kept.1, layout, choices);
    }
    weigh(values, importance, layout, choices)
}

fn weigh(values: &[f32], importance: &[f32], layout: crate::quant::WeightLayout, choices: &[Choice]) -> Vec<f64> {
    if layout.is_empty() {
        return vec![0.0; choices.len()];
    }
    match Weighing::new(values, importance, layout) {
        Some(weighing) => choices.iter().map(|choice| weighing.noise(choice)).collect(),
        None => vec![f64::NAN; choices.len()],
    }
}
