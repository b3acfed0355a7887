//! SmoothQuant: part of the activations' range moves into the weights (Xiao et al. 2023, equation 4).
//!
//! `s_k = max|X_k|^α / max|W_k|^(1−α)`, X_k over all samples of calibration, W_k over all layers that X enters. α = 0 makes
//! the weights' input channels alike, α = 1 the activations'. The paper takes one α for a model; one channel with both a
//! large activation and a large weight ruins α = 0.5 for its block, so α is searched for each block.
//!
//! Limits: it helps where channels of X differ much in range and X has one scale; weights per channel (of the output) pay
//! for it, since their input channels then differ.

use super::rows::Trial;

/// Values of α that are tried first; a second pass tries those half-way to the neighbours of the best.
pub(super) const ALPHAS: [f32; 11] = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0];

/// Ranges that s is computed from, one a channel.
pub(super) struct Ranges {
    activations: Vec<f32>,
    weights: Vec<f32>,
}

impl Ranges {
    /// The largest over all layers of a block with `count` channels.
    pub(super) fn of(trials: &[Trial<'_>], count: usize) -> Self {
        let largest = |of: &dyn Fn(&Trial<'_>) -> Vec<f32>| {
            let mut all = vec![0.0_f32; count];
            for trial in trials {
                all.iter_mut().zip(of(trial)).for_each(|(known, its)| *known = known.max(its));
            }
            all
        };
        Self {
            activations: largest(&|trial| trial.channels.largest()),
            weights: largest(&|trial| trial.largest_weights(count)),
        }
    }

    /// s for this α.
    pub(super) fn factors(&self, alpha: f32) -> Vec<f32> {
        let (activations, weights) = (floored(&self.activations), floored(&self.weights));
        let raw = activations.iter().zip(&weights).map(|(a, w)| a.powf(alpha) / w.powf(1.0 - alpha));
        centred(raw.collect())
    }
}

/// The values with those near 0 replaced, so that a dead channel takes no extreme factor: at least 10⁻⁵ of the largest.
pub(super) fn floored(values: &[f32]) -> Vec<f32> {
    let largest = values.iter().copied().fold(0.0, f32::max);
    let least = if largest > 0.0 { largest * 1e-5 } else { 1.0 };
    values.iter().map(|value| value.max(least)).collect()
}

/// The factors around a geometric mean of 1 and within 10⁻⁴ … 10⁴, so that no constant leaves float32's range.
pub(super) fn centred(mut factors: Vec<f32>) -> Vec<f32> {
    let mean = factors.iter().map(|factor| f64::from(factor.ln())).sum::<f64>() / factors.len().max(1) as f64;
    let mean = mean.exp() as f32;
    for factor in &mut factors {
        *factor = (*factor / mean).clamp(1e-4, 1e4);
    }
    factors
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the paper's figure 5: α = 0.5, |X| (16, 9 …), |W| (1 …).
    #[test]
    fn factors_follow_the_formula() {
        let ranges = Ranges { activations: vec![16.0, 1.0, 4.0], weights: vec![1.0, 4.0, 1.0] };
        let factors = ranges.factors(0.5);
        // √16/√1 = 4, √1/√4 = 0.5, √4/√1 = 2; their geometric mean is 4^(1/3).
        let mean = 4.0_f32.powf(1.0 / 3.0);
        for (factor, expected) in factors.iter().zip([4.0, 0.5, 2.0]) {
            assert!((factor * mean - expected).abs() < 1e-5, "{factor}");
        }
        let all = ranges.factors(1.0);
        assert!((all[0] / all[1] - 16.0).abs() < 1e-3);
    }

    #[test]
    fn dead_channels_keep_factors_finite() {
        let ranges = Ranges { activations: vec![0.0, 0.0], weights: vec![0.0, 2.0] };
        assert!(ranges.factors(0.5).iter().all(|factor| factor.is_finite() && *factor > 0.0));
    }
}
