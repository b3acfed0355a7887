//! A weight while it is trained: floating values behind its integers.
//!
//! Forward, the layer sees `ŵ = (clamp(round(w / s) + z) − z) · s`, the integers of the export. Backward, rounding counts as
//! the identity (straight-through estimator; Bengio, Léonard and Courville 2013): `∂w = ∂ŵ` inside the range. Beyond it a
//! weight only follows gradients that lead back, so that none drifts away for good.
//!
//! Scales stay as they are unless they are learnt (LSQ; Esser et al. 2020): `∂s = Σ ∂ŵ · (round(w/s) − w/s)`, with `q − z` for
//! what is clipped, divided by `√(n · qmax)`. Limits: below 3 bits only that is worth trying; steps of many percent make it
//! diverge, so a scale never leaves a quarter to four times where it began.

use super::adam::Adam;
use crate::plan::Symmetry;
use crate::quant::{QuantParams, QuantizedWeight};

/// A weight in training.
pub struct Latent {
    /// Its integers as they were, for their layout, bits and zero points.
    template: QuantizedWeight,
    /// Channel by channel.
    values: Vec<f32>,
    scales: Vec<f32>,
    first_scales: Vec<f32>,
    qmin: i32,
    qmax: i32,
    gradient: Vec<f32>,
    adam: Adam,
    scale_adam: Option<Adam>,
    /// What one integer stands for, on average: the measure of the learning rate. Measured on 2 and 4 bits, the best rate
    /// is the same in steps, and several times another one in the range of the weights.
    step: f32,
}

/// What of a [`Latent`] is kept: floating values and scales.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept {
    pub values: Vec<f32>,
    pub scales: Vec<f32>,
}

impl Latent {
    /// Starts from integers. `float` (in the tensor's own order) are the values behind them, where rounding to nearest made
    /// the integers; else the integers' own values are.
    pub fn new(
        start: QuantizedWeight,
        float: Option<&[f32]>,
        symmetry: Symmetry,
        levels: Option<u32>,
        learns_scales: bool,
    ) -> Self {
        let layout = start.layout;
        let values = match float {
            Some(values) if values.len() == layout.len() => layout.to_channel_major(values).into_owned(),
            _ => layout.to_channel_major(&start.dequantize()).into_owned(),
        };
        let half = 1_i32 << (start.bits.clamp(2, 8) - 1);
        let (mut qmin, mut qmax) = (-half, half - 1);
        if symmetry == Symmetry::Symmetric && start.bits >= 8 {
            qmin = -qmax;
        }
        if levels.is_some() {
            // Fewer values than the bits hold: those in use stay the limits.
            let used = start.values.iter().map(|&value| i32::from(value));
            qmin = used.clone().min().unwrap_or(qmin);
            qmax = used.max().unwrap_or(qmax);
        }
        let step = start.scales.iter().sum::<f32>() / start.scales.len().max(1) as f32;
        Self {
            gradient: vec![0.0; values.len()],
            adam: Adam::new(values.len()),
            scale_adam: learns_scales.then(|| Adam::new(start.scales.len())),
            scales: start.scales.clone(),
            first_scales: start.scales.clone(),
            template: start,
            values,
            qmin,
            qmax,
            step,
        }
    }

    /// What one integer stands for, on average.
    pub fn step_size(&self) -> f32 {
        self.step
    }

    /// The integers that the values are rounded to now.
    pub fn quantized(&self) -> QuantizedWeight {
        let mut integers = vec![0_i8; self.values.len()];
        for (range, params) in self.groups() {
            let (Some(values), Some(out)) = (self.values.get(range.clone()), integers.get_mut(range)) else { continue };
            params.quantize_i8(values, out);
        }
        QuantizedWeight {
            values: self.template.layout.from_channel_major(integers),
            scales: self.scales.clone(),
            ..self.template.clone()
        }
    }

    /// Adds the gradient of the rounded weight, in the tensor's own order, times `factor`.
    pub fn add(&mut self, gradient: &[f32], factor: f32) {
        if gradient.len() == self.gradient.len() {
            let turned = self.template.layout.to_channel_major(gradient);
            for (sum, g) in self.gradient.iter_mut().zip(turned.iter()) {
                *sum += g * factor;
            }
        }
    }

    /// One step of Adam with what was added, at a learning rate in integers.
    pub fn step(&mut self, learning_rate: f32, count: u64) {
        let groups: Vec<_> = self.groups().collect();
        let mut scale_gradients = vec![0.0_f32; self.scales.len()];
        let learns_scales = self.scale_adam.is_some();
        for (group, (range, params)) in groups.into_iter().enumerate() {
            let (low, high) = ((params.qmin - params.zero_point) as f32, (params.qmax - params.zero_point) as f32);
            let Some(gradients) = self.gradient.get_mut(range.clone()) else { continue };
            let Some(values) = self.values.get(range) else { continue };
            let norm = 1.0 / (values.len() as f32 * high.max(1.0)).sqrt();
            let mut of_scale = 0.0;
            for (g, &w) in gradients.iter_mut().zip(values) {
                let steps = w / params.scale;
                if learns_scales {
                    of_scale += *g
                        * (steps.round_ties_even().clamp(low, high)
                            - if steps > low && steps < high { steps } else { 0.0 });
                }
                // A step of descent goes against the gradient.
                if steps < low && *g > 0.0 || steps > high && *g < 0.0 {
                    *g = 0.0;
                }
            }
            if let Some(slot) = scale_gradients.get_mut(group) {
                *slot = of_scale * norm;
            }
        }
        let rate = learning_rate * self.step;
        self.adam.step(&mut self.values, &self.gradient, |_| rate, count);
        if let Some(adam) = &mut self.scale_adam {
            let first = &self.first_scales;
            adam.step(
                &mut self.scales,
                &scale_gradients,
                |at| learning_rate * first.get(at).copied().unwrap_or(0.0),
                count,
            );
            for (scale, &first) in self.scales.iter_mut().zip(first) {
                *scale = scale.clamp(first * 0.25, first * 4.0).max(f32::MIN_POSITIVE);
            }
        }
        self.gradient.fill(0.0);
    }

    /// What it takes to come back to this state.
    pub fn keep(&self) -> Kept {
        Kept { values: self.values.clone(), scales: self.scales.clone() }
    }

    /// Comes back to a state; one of another size is refused.
    #[must_use]
    pub fn restore(&mut self, kept: &Kept) -> bool {
        if kept.values.len() != self.values.len() || kept.scales.len() != self.scales.len() {
            return false;
        }
        self.values.clone_from(&kept.values);
        self.scales.clone_from(&kept.scales);
        true
    }

    /// The moments of its gradients, and of those of its scales where these are learnt.
    pub fn moments(&mut self) -> Vec<&mut Adam> {
        std::iter::once(&mut self.adam).chain(&mut self.scale_adam).collect()
    }

    /// Ranges of values that share a scale, with their parameters.
    fn groups(&self) -> impl Iterator<Item = (std::ops::Range<usize>, QuantParams)> + '_ {
        let size = self.template.group_size();
        let blocks = self.template.blocks();
        let channel = if self.template.scales.len() <= 1 { self.values.len() } else { self.template.layout.depth() };
        let (qmin, qmax) = (self.qmin, self.qmax);
        self.scales.iter().zip(&self.template.zero_points).enumerate().map(move |(at, (&scale, &zero_point))| {
            let start = at / blocks * channel + at % blocks * size;
            let end = (start + size).min((at / blocks + 1) * channel);
            (start..end, QuantParams { scale, zero_point: i32::from(zero_point), qmin, qmax })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Choice, Granularity, Precision};
    use crate::quant::{WeightLayout, quantize_weight};

    const LAYOUT: WeightLayout = WeightLayout { outer: 40, channels: 3, inner: 1 };

    fn values() -> Vec<f32> {
        let mut rng = fastrand::Rng::with_seed(7);
        (0..120).map(|_| rng.f32() * 2.0 - 1.0).collect()
    }

    #[test]
    fn before_any_step_the_integers_are_those_of_the_export() {
        let values = values();
        for precision in [Precision::Int8, Precision::Int4, Precision::Int2] {
            for symmetry in [Symmetry::Symmetric, Symmetry::Asymmetric] {
                for granularity in [Granularity::PerTensor, Granularity::PerChannel, Granularity::Block(16)] {
                    let choice = Choice { precision, symmetry, granularity, ..Choice::FLOAT };
                    let start = quantize_weight(&values, LAYOUT, &choice);
                    let latent = Latent::new(start.clone(), Some(&values), symmetry, None, false);
                    assert_eq!(latent.quantized(), start, "{choice:?}");
                    let latent = Latent::new(start.clone(), None, symmetry, None, false);
                    assert_eq!(latent.quantized(), start, "{choice:?}");
                }
            }
        }
    }

    #[test]
    fn a_step_goes_against_the_gradient_and_what_is_clipped_comes_back_only() {
        let choice = Choice { precision: Precision::Int4, ..Choice::FLOAT };
        let layout = WeightLayout { outer: 1, channels: 1, inner: 3 };
        let start = quantize_weight(&[0.5, -0.5, 0.7], layout, &choice);
        let mut latent = Latent::new(start, Some(&[0.5, -0.5, 9.0]), Symmetry::Symmetric, None, false);
        latent.add(&[1.0, -1.0, -1.0], 1.0);
        latent.step(0.1, 1);
        let kept = latent.keep().values;
        assert!(kept[0] < 0.5 && kept[1] > -0.5 && kept[2] == 9.0, "{kept:?}");
        latent.add(&[0.0, 0.0, 1.0], 1.0);
        latent.step(0.1, 2);
        assert!(latent.keep().values[2] < 9.0);
    }

    /// The gradient of a scale against differences of the clipped, rounded weight summed with weights.
    #[test]
    fn a_learnt_scale_goes_where_the_loss_falls() {
        let choice = Choice { precision: Precision::Int2, ..Choice::FLOAT };
        let layout = WeightLayout { outer: 1, channels: 1, inner: 64 };
        let values: Vec<f32> = values().into_iter().take(64).collect();
        let start = quantize_weight(&values, layout, &choice);
        let error = |weight: &QuantizedWeight| -> f32 {
            weight.dequantize().iter().zip(&values).map(|(q, w)| (q - w) * (q - w)).sum()
        };
        let mut latent = Latent::new(start.clone(), Some(&values), Symmetry::Symmetric, None, true);
        for count in 1..=60 {
            let now = latent.quantized().dequantize();
            let gradient: Vec<f32> = now.iter().zip(&values).map(|(q, w)| 2.0 * (q - w)).collect();
            latent.add(&gradient, 1.0);
            let kept = latent.keep().values;
            latent.step(0.01, count);
            // Only the scale is to move here.
            let scales = latent.keep().scales;
            assert!(latent.restore(&Kept { values: kept, scales }));
        }
        assert!(error(&latent.quantized()) < error(&start) * 0.9, "{} {}", error(&latent.quantized()), error(&start));
    }
}
