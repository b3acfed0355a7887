//! One layer in training: its weight, its bias, and what they are fed as.

use super::adam::Adam;
use super::latent::{Kept, Latent};
use super::simulate::Part;
use super::start::Candidate;
use crate::quant::{QuantizedWeight, bias_i32};
use crate::tensor::Tensor;

/// Learning rate of a bias, relative to its largest value, for one of 1 of the weights, in their integers.
const BIAS_SHARE: f32 = 0.25;

/// A layer in training.
pub struct Learner {
    /// Index of its candidate.
    pub candidate: usize,
    /// Whether gradients reach it; else it is fed as it is.
    pub trains: bool,
    weight_input: String,
    shape: Vec<usize>,
    alpha: f32,
    latent: Latent,
    bias: Option<Bias>,
    /// Where it began, when the plan gives a bias that is not fed.
    fixed_bias: Option<Vec<f32>>,
}

struct Bias {
    input: String,
    shape: Vec<usize>,
    input_scale: Option<f32>,
    values: Vec<f32>,
    gradient: Vec<f32>,
    adam: Adam,
    /// Typical size.
    reach: f32,
}

/// What of a learner is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    pub weight: Kept,
    pub bias: Option<Vec<f32>>,
}

impl Learner {
    /// The learner of a candidate, from the integers `weight`.
    pub fn new(at: usize, candidate: &Candidate, part: &Part, weight: QuantizedWeight, learns_scales: bool) -> Self {
        let learns_scales = learns_scales && candidate.choice.precision.bits() <= 2;
        let symmetry = candidate.choice.symmetry;
        let latent = Latent::new(weight, candidate.float.as_deref(), symmetry, candidate.levels, learns_scales);
        let bias = part.bias.as_ref().zip(candidate.bias.as_ref()).map(|(part, values)| Bias {
            input: part.input.clone(),
            shape: part.shape.clone(),
            input_scale: part.input_scale,
            gradient: vec![0.0; values.len()],
            adam: Adam::new(values.len()),
            // Where all are 0, what one input of the layer's weights adds is the measure there is.
            reach: Some(values.iter().fold(0.0_f32, |largest, b| largest.max(b.abs())))
                .filter(|largest| *largest > 0.0)
                .unwrap_or(latent.step_size()),
            values: values.clone(),
        });
        let fixed_bias = if bias.is_none() { candidate.bias.clone() } else { None };
        Self {
            candidate: at,
            trains: false,
            weight_input: part.weight.clone(),
            shape: part.shape.clone(),
            alpha: part.alpha,
            latent,
            bias,
            fixed_bias,
        }
    }

    /// Names of the inputs that it is fed through.
    pub fn inputs(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.weight_input.as_str()).chain(self.bias.as_ref().map(|bias| bias.input.as_str()))
    }

    /// Name of the input that takes the weight.
    pub fn weight_input(&self) -> &str {
        &self.weight_input
    }

    /// The integers and the bias that are exported.
    pub fn made(&self) -> (QuantizedWeight, Option<Vec<f32>>) {
        let bias = self.bias.as_ref().map(|bias| bias.values.clone());
        (self.latent.quantized(), bias.or_else(|| self.fixed_bias.clone()))
    }

    /// What the export's integers stand for, as the simulated graph takes it.
    pub fn feeds(&self) -> Vec<(String, Tensor)> {
        let quantized = self.latent.quantized();
        let mut scaled = quantized.clone();
        for scale in &mut scaled.scales {
            *scale *= self.alpha;
        }
        let mut feeds = vec![(self.weight_input.clone(), Tensor::from_f32(self.shape.clone(), scaled.dequantize()))];
        if let Some(bias) = &self.bias {
            let values = match bias.input_scale {
                None => bias.values.clone(),
                Some(input_scale) => {
                    let stored = bias_i32(&bias.values, input_scale, &scaled.scales);
                    let scale = |at: usize| stored.scales.get(if stored.scales.len() == 1 { 0 } else { at });
                    let each = stored.values.iter().enumerate();
                    each.map(|(at, &value)| value as f32 * scale(at).copied().unwrap_or(1.0)).collect()
                }
            };
            let mut shape = bias.shape.clone();
            if shape.iter().product::<usize>() != values.len() {
                shape = vec![values.len()];
            }
            feeds.push((bias.input.clone(), Tensor::from_f32(shape, values)));
        }
        feeds
    }

    /// Adds the gradient of the input called `name`; does nothing when it is another learner's.
    pub fn add(&mut self, name: &str, gradient: &[f32], factor: f32) {
        if !self.trains {
            return;
        }
        if name == self.weight_input {
            self.latent.add(gradient, factor * self.alpha);
        } else if let Some(bias) = self.bias.as_mut().filter(|bias| bias.input == name) {
            for (sum, g) in bias.gradient.iter_mut().zip(gradient) {
                *sum += g * factor;
            }
        }
    }

    /// One step with what was added.
    pub fn step(&mut self, learning_rate: f32, count: u64) {
        if !self.trains {
            return;
        }
        self.latent.step(learning_rate, count);
        if let Some(bias) = &mut self.bias {
            let rate = learning_rate * BIAS_SHARE * bias.reach;
            bias.adam.step(&mut bias.values, &bias.gradient, |_| rate, count);
            bias.gradient.fill(0.0);
        }
    }

    /// What it takes to come back to this state.
    pub fn keep(&self) -> Snapshot {
        Snapshot { weight: self.latent.keep(), bias: self.bias.as_ref().map(|bias| bias.values.clone()) }
    }

    /// Comes back to a state; one that does not fit is refused.
    #[must_use]
    pub fn restore(&mut self, kept: &Snapshot) -> bool {
        let fits = match (&mut self.bias, &kept.bias) {
            (Some(bias), Some(values)) if bias.values.len() == values.len() => {
                bias.values.clone_from(values);
                true
            }
            (None, None) => true,
            _ => false,
        };
        fits && self.latent.restore(&kept.weight)
    }

    /// Begins anew with the moments of its gradients.
    pub fn forget(&mut self) {
        for adam in self.moments() {
            *adam = Adam::new(adam.first.len());
        }
    }

    /// All moments, in a fixed order.
    pub fn moments(&mut self) -> Vec<&mut Adam> {
        let mut moments = self.latent.moments();
        moments.extend(self.bias.as_mut().map(|bias| &mut bias.adam));
        moments
    }
}
