//! Errors of the output as they were measured, with their signs: what several of them do together.
//!
//! Noise powers add where errors are independent. Errors of few weights are not: two layers rounded to 4 bits often push the
//! output the same way on every sample, and a shift of one makes up for that of another. Where a choice was run, its error
//! is kept itself, and errors are added before they are squared. On the sample networks that takes the prediction of random
//! mixtures from a rank correlation of 0.93 to 0.99 (`assets/docs/prediction-study.md`).

use std::collections::HashMap;
use std::sync::Arc;

use super::sensitivity::WeightKey;
use crate::export::Rounding;
use crate::model::Layer;
use crate::plan::Choice;

/// Numbers kept of an error. One with more over all samples is folded (count sketch; Charikar, Chen and Farach-Colton 2002):
/// every value is added to one of these places with a sign, both by chance, so that inner products stay right on average, to
/// about √(2 / 2048) of the product of lengths.
const KEPT: usize = 2048;
/// Sums that cancel are believed down to this share of the powers added up: slopes and samples are not that exact.
const LEAST_SHARE: f64 = 0.05;

/// An error of the output over all samples, scaled so that its squares add up to the noise power a sample.
pub(super) type OutputErrors = Arc<[f32]>;

/// What was measured, by what was rounded.
#[derive(Clone, Debug, Default)]
pub(super) struct Together {
    weights: HashMap<String, Vec<(WeightKey, OutputErrors)>>,
    activations: HashMap<String, Vec<(Rounding, OutputErrors)>>,
}

impl Together {
    pub(super) fn keep_weights(&mut self, layer: &Layer, choice: &Choice, error: OutputErrors) {
        let (key, known) = (WeightKey::of(choice), self.weights.entry(layer.name.clone()).or_default());
        known.retain(|(other, _)| *other != key);
        known.push((key, error));
    }

    pub(super) fn keep_activation(&mut self, rounding: &Rounding, error: OutputErrors) {
        let known = self.activations.entry(rounding.tensor.clone()).or_default();
        known.retain(|(other, _)| !other.is_same(rounding));
        known.push((rounding.clone(), error));
    }

    pub(super) fn of_weights(&self, layer: &str, choice: &Choice) -> Option<&OutputErrors> {
        let key = WeightKey::of(choice);
        self.weights.get(layer)?.iter().find(|(known, _)| *known == key).map(|(_, error)| error)
    }

    /// Whether rounding this tensor was run in some way.
    pub(super) fn knows(&self, tensor: &str) -> bool {
        self.activations.contains_key(tensor)
    }

    pub(super) fn of_activation(&self, rounding: &Rounding) -> Option<&OutputErrors> {
        self.activations
            .get(&rounding.tensor)?
            .iter()
            .find(|(known, _)| known.is_same(rounding))
            .map(|(_, error)| error)
    }
}

/// Errors added up with their signs.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Sum {
    whole: Vec<f32>,
    /// Σ of the powers of each by itself.
    apart: f64,
}

impl Sum {
    pub(super) fn add(&mut self, error: &[f32]) {
        self.apart += power(error);
        self.whole.resize(self.whole.len().max(error.len()), 0.0);
        self.whole.iter_mut().zip(error).for_each(|(sum, own)| *sum += own);
    }

    /// The noise of everything, of which `powers` is what all sources, those added here among them, make each by itself.
    pub(super) fn noise(&self, powers: f64) -> f64 {
        (powers + power(&self.whole) - self.apart).max(LEAST_SHARE * powers)
    }
}

/// Noise power, a sample, of an error by itself.
pub(super) fn power(error: &[f32]) -> f64 {
    error.chunks(256).map(|chunk| f64::from(chunk.iter().map(|e| e * e).sum::<f32>())).sum()
}

/// Folds an error, given value by value.
pub(super) struct Folding {
    kept: Vec<f32>,
    folds: bool,
    at: usize,
}

impl Folding {
    /// For `values` values in all.
    pub(super) fn new(values: usize) -> Self {
        Self { kept: vec![0.0; values.min(KEPT)], folds: values > KEPT, at: 0 }
    }

    pub(super) fn add(&mut self, error: f32) {
        let place = self.at as u64;
        self.at += 1;
        let (place, sign) = if self.folds {
            // The finalizer of splitmix64: all bits depend on all.
            let mut hash = place.wrapping_add(0x9e37_79b9_7f4a_7c15);
            hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            hash ^= hash >> 31;
            ((hash >> 1) as usize % KEPT, if hash & 1 == 0 { 1.0 } else { -1.0 })
        } else {
            (place as usize, 1.0)
        };
        if let Some(kept) = self.kept.get_mut(place) {
            *kept += sign * error;
        }
    }

    /// The error, every value times `factor`.
    pub(super) fn finish(mut self, factor: f64) -> OutputErrors {
        self.kept.iter_mut().for_each(|error| *error = (f64::from(*error) * factor) as f32);
        self.kept.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folded(values: &[f32]) -> OutputErrors {
        let mut folding = Folding::new(values.len());
        for &value in values {
            folding.add(value);
        }
        folding.finish(1.0)
    }

    #[test]
    fn errors_that_push_alike_add_up_and_opposite_ones_cancel() {
        let error: Vec<f32> = (0..100).map(|i| (i as f32).sin()).collect();
        let opposite: Vec<f32> = error.iter().map(|e| -e).collect();
        let own = power(&error);
        let together = |errors: &[&[f32]]| {
            let mut sum = Sum::default();
            for error in errors {
                sum.add(&folded(error));
            }
            sum.noise(own * errors.len() as f64)
        };
        assert!((together(&[&error, &error]) / own - 4.0).abs() < 1e-3);
        assert!(together(&[&error, &opposite]) <= 2.0 * LEAST_SHARE * own);
        assert!((together(&[&error]) / own - 1.0).abs() < 1e-6);
        // What was not measured adds its power.
        let mut sum = Sum::default();
        sum.add(&error);
        assert!((sum.noise(own + 5.0) - own - 5.0).abs() < 1e-3);
    }

    #[test]
    fn folded_errors_keep_their_products() {
        let mut rng = fastrand::Rng::with_seed(3);
        let mut error = || (0..50_000).map(|_| rng.f32() - 0.5).collect::<Vec<f32>>();
        let (a, other) = (error(), error());
        let b: Vec<f32> = a.iter().zip(&other).map(|(a, other)| 0.6 * a + 0.8 * other).collect();
        let (fa, fb) = (folded(&a), folded(&b));
        assert_eq!(fa.len(), KEPT);
        let product = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
        let length = (power(&a) * power(&b)).sqrt();
        assert!((product(&a, &b) - product(&fa, &fb)).abs() < 0.1 * length);
        assert!((power(&fa) / power(&a) - 1.0).abs() < 0.1);
    }
}
