//! What was learnt about a model's output: how far each weight and each activation moves it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::together::{OutputErrors, Together};
use super::{Check, Learnt, Noise, Spread};
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

    fn choice(self) -> Choice {
        let Self { precision, symmetry, granularity, clip } = self;
        Choice { precision, symmetry, granularity, clip, ..Choice::FLOAT }
    }
}

/// One layer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LayerSensitivity {
    /// Noise power at the output, a sample, of choices for its weights.
    pub(super) weights: Vec<(WeightKey, Noise)>,
    /// Whether its importance was measured by running the model and not by gradients.
    pub measured: bool,
    /// Noise power of the activations that its kernel rounds while running, where gradients cannot say it.
    pub(super) kernel: Option<f64>,
}

impl LayerSensitivity {
    /// Choices for its weights of which it is known what they do.
    pub(super) fn choices(&self) -> impl Iterator<Item = Choice> + '_ {
        self.weights.iter().map(|(key, _)| key.choice())
    }
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
    /// Least and greatest value seen, 0 among them.
    #[serde(default)]
    pub(super) seen: (f32, f32),
    /// How errors of its values add up, against independent ones.
    pub(super) coherence: f64,
    /// Noise power through layers when it is rounded to 8 bits over each sample's own range.
    pub(super) dynamic: f64,
    /// Noise power through layers when blocks of this many values are rounded to 8 bits each.
    pub(super) blocks: Vec<(usize, f64)>,
}

/// Clips set by hand that are remembered for a layer.
const MOST_BY_HAND: usize = 64;

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
    pub fn noise(&self, params: &crate::quant::QuantParams, readers: Option<&[usize]>) -> Noise {
        let Some(readers) = readers else { return self.all.split(params) * self.coherence };
        let independent = match &self.layers {
            Some(layers) if layers.total() > 0.0 => layers.split(params) * self.share(readers),
            _ => {
                let chosen =
                    |i: usize| self.readers.get(i).copied().flatten().is_some_and(|reader| readers.contains(&reader));
                self.all.split(params) * ratio(self.energy(chosen), self.energy(|_| true))
            }
        };
        independent * self.coherence
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
    /// Uniform plans that were run.
    #[serde(default)]
    pub checks: Vec<Check>,
    /// What plans that were run teach about others.
    #[serde(default)]
    pub learnt: Learnt,
    /// The same learnt for the Kullback–Leibler divergence of class distributions: its noise powers are nats, to second order
    /// in the errors; where that was asked for and the output gives classes. Nothing that was run corrects it.
    #[serde(skip)]
    pub divergence: Option<Box<Sensitivity>>,
    /// Errors that were measured as they are.
    #[serde(skip)]
    pub(super) together: Together,
    /// Importance of every weight, by layer and number of the weight in it, while it is kept.
    #[serde(skip)]
    pub(super) importance: HashMap<(String, usize), Arc<Vec<f32>>>,
}

impl Sensitivity {
    /// Computes what `choices` do to the weights of `layer` and keeps it; those known already cost nothing. Choices are
    /// as forms honour them.
    pub fn cover(&mut self, model: &Model, layer: &Layer, choices: &[Choice]) {
        if let Some(divergence) = &mut self.divergence {
            divergence.cover(model, layer, choices);
        }
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
        let Some(sums) = self.pricing(layer).and_then(|pricing| pricing.noises(model, layer, &asked)) else { return };
        if let Some(known) = self.layers.get_mut(&layer.name) {
            known.weights.extend(missing.into_iter().zip(sums));
        }
    }

    /// What it takes to compute what any choice does to the weights of `layer`, on another thread too; `None` where nothing
    /// is known of it.
    pub fn pricing(&self, layer: &Layer) -> Option<Pricing> {
        let importance = |at| self.importance.get(&(layer.name.clone(), at)).cloned();
        let importance = (0..layer.weights.len()).map(importance).collect::<Option<Vec<_>>>()?;
        Some(Pricing { importance })
    }

    /// Keeps what [`Pricing::noise`] found. Of clips set by hand only the latest are kept: a drag makes many.
    pub fn learn(&mut self, layer: &str, choice: &Choice, noise: Noise) {
        let Some(known) = self.layers.get_mut(layer) else { return };
        let key = WeightKey::of(choice);
        if known.weights.iter().any(|(known, _)| *known == key) {
            return;
        }
        let by_hand = |key: &WeightKey| matches!(key.clip, Clip::Manual { .. });
        if by_hand(&key) && known.weights.iter().filter(|(key, _)| by_hand(key)).count() >= MOST_BY_HAND {
            let oldest = known.weights.iter().position(|(key, _)| by_hand(key));
            oldest.map(|oldest| known.weights.remove(oldest));
        }
        known.weights.push((key, noise));
    }

    /// Noise power, a sample, that rounding the layer's weights as `choice` says makes at the output; `None` when that was
    /// not covered.
    pub fn weight_noise(&self, layer: &str, choice: &Choice) -> Option<Noise> {
        if choice.precision == Precision::Float32 {
            return Some(Noise::default());
        }
        let key = WeightKey::of(choice);
        self.layers.get(layer)?.weights.iter().find(|(known, _)| *known == key).map(|(_, noise)| *noise)
    }

    /// A choice for the layer's weights whose noise is known, as like `choice` as any: what an estimate is held to.
    pub(super) fn like(&self, layer: &str, choice: &Choice) -> Option<(Choice, Noise)> {
        let wanted = WeightKey::of(choice);
        let known = self.layers.get(layer)?.weights.iter().filter(|(_, noise)| noise.total > 0.0);
        let likeness = |key: &WeightKey| {
            let alike = [
                key.precision == wanted.precision,
                key.granularity == wanted.granularity,
                key.symmetry == wanted.symmetry,
                key.clip == Clip::MinMax,
            ];
            alike.iter().fold(0, |sum, &alike| 2 * sum + u32::from(alike))
        };
        known.max_by_key(|(key, _)| likeness(key)).map(|(key, noise)| (key.choice(), *noise))
    }

    /// Lets the weights of `layer` matter `factor` times as much as slopes say.
    pub(super) fn scale_weights(&mut self, layer: &Layer, factor: f64) {
        for at in 0..layer.weights.len() {
            if let Some(importance) = self.importance.get_mut(&(layer.name.clone(), at)) {
                let scaled = importance.iter().map(|&known| (f64::from(known) * factor) as f32);
                *importance = Arc::new(scaled.collect());
            }
        }
        if let Some(known) = self.layers.get_mut(&layer.name) {
            known.weights.iter_mut().for_each(|(_, noise)| *noise = *noise * factor);
        }
    }

    /// Puts what was measured of a choice in the place of what slopes say; the share that is clipped stays.
    pub(super) fn set_weight_noise(&mut self, layer: &Layer, choice: &Choice, total: f64) {
        let key = WeightKey::of(choice);
        let known = self.layers.get_mut(&layer.name).map(|known| &mut known.weights);
        if let Some((_, noise)) = known.into_iter().flatten().find(|(known, _)| *known == key) {
            *noise = if noise.total > 0.0 { *noise * (total / noise.total) } else { Noise { total, clipped: 0.0 } };
        }
    }

    /// Puts what was measured of a choice, and its error itself, in the place of what slopes say.
    pub(super) fn set_weight_error(&mut self, layer: &Layer, choice: &Choice, total: f64, error: OutputErrors) {
        self.set_weight_noise(layer, choice, total);
        self.together.keep_weights(layer, choice, error);
    }

    /// Forgets the importance of single weights, which is as large as the model; choices covered stay known.
    pub fn forget(&mut self) {
        self.importance = HashMap::new();
    }
}

/// How much the weights of one layer matter, shared.
#[derive(Clone, Debug)]
pub struct Pricing {
    importance: Vec<Arc<Vec<f32>>>,
}

impl Pricing {
    /// Noise power, a sample, that rounding the weights of `layer` as `choice` says makes at the output; `None` when they
    /// cannot be read.
    pub fn noise(&self, model: &Model, layer: &Layer, choice: &Choice) -> Option<Noise> {
        self.noises(model, layer, &[*choice])?.pop()
    }

    fn noises(&self, model: &Model, layer: &Layer, choices: &[Choice]) -> Option<Vec<Noise>> {
        let mut sums = vec![Noise::default(); choices.len()];
        for (weight, importance) in layer.weights.iter().zip(&self.importance) {
            let values = model.weight(layer, weight).ok()?;
            for (sum, noise) in sums.iter_mut().zip(noises(weight, layer, &values, importance, choices)) {
                *sum += noise;
            }
        }
        Some(sums)
    }

    /// Importance of each weight of the layer, in the order of its weights.
    pub(super) fn importance(&self) -> &[Arc<Vec<f32>>] {
        &self.importance
    }
}

/// The noise of each choice for one weight. Of an embedding only the rows that samples looked up are weighed; rows share no
/// scale unless it is the whole tensor's.
fn noises(weight: &Weight, layer: &Layer, values: &[f32], importance: &[f32], choices: &[Choice]) -> Vec<Noise> {
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

fn weigh(values: &[f32], importance: &[f32], layout: crate::quant::WeightLayout, choices: &[Choice]) -> Vec<Noise> {
    if layout.is_empty() {
        return vec![Noise::default(); choices.len()];
    }
    let each = |weighing: &Weighing<'_>, choice: &Choice| {
        let (total, clipped) = weighing.noise_and_clipped(choice);
        Noise { total, clipped }
    };
    match Weighing::new(values, importance, layout) {
        Some(weighing) => choices.iter().map(|choice| each(&weighing, choice)).collect(),
        None => vec![Noise { total: f64::NAN, clipped: 0.0 }; choices.len()],
    }
}
