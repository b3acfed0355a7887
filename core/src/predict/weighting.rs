//! How errors of an output count: what the squares of slopes are summed for.

use crate::error::{class_count, is_distribution};

/// What an output's error e costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weighting {
    /// Σ e².
    Squares,
    /// The Kullback–Leibler divergence of the class distributions to second order, in nats, the mean over rows of classes:
    /// ½ eᵀ(diag p − p pᵀ)e for scores, p being their softmax (the Fisher information of its parameters: Amari, Natural
    /// gradient works efficiently in learning, 1998), and ½ Σ e²/p for an output that is a distribution itself.
    Divergence,
}

/// Least probability that counts as possible.
const LEAST: f64 = 1e-7;

impl Weighting {
    /// A random weighting s of the output's elements with E[(Σ s·e)²] = cost of e, made of random signs; `None` where the
    /// output gives no classes.
    pub(super) fn draw(self, y: &[f32], shape: &[usize], rng: &mut fastrand::Rng) -> Option<Vec<f32>> {
        let mut sign = || if rng.bool() { 1.0_f64 } else { -1.0 };
        if self == Self::Squares {
            return Some(y.iter().map(|_| sign() as f32).collect());
        }
        let classes = class_count(shape)?;
        let half = (0.5 * classes as f64 / y.len().max(1) as f64).sqrt();
        let mut out = Vec::with_capacity(y.len());
        for row in y.chunks_exact(classes) {
            let row: Vec<f64> = row.iter().map(|&y| f64::from(y)).collect();
            if is_distribution(&row) {
                out.extend(row.iter().map(|&p| (half * sign() / p.max(LEAST).sqrt()) as f32));
                continue;
            }
            let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let powers: Vec<f64> = row.iter().map(|&y| (y - largest).exp()).collect();
            let sum: f64 = powers.iter().sum();
            // With ξ of random signs, s = √p ξ − p Σ √p ξ has E[s sᵀ] = diag p − p pᵀ.
            let drawn: Vec<f64> = powers.iter().map(|&power| (power / sum).sqrt() * sign()).collect();
            let mean: f64 = drawn.iter().sum();
            out.extend(powers.iter().zip(&drawn).map(|(&p, &drawn)| (half * (drawn - p / sum * mean)) as f32));
        }
        (out.len() == y.len()).then_some(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// E[(Σ s·e)²] over many draws.
    fn drawn(y: &[f32], shape: &[usize], error: &[f64]) -> f64 {
        let mut rng = fastrand::Rng::with_seed(3);
        let draws = 40_000;
        let each = (0..draws).map(|_| {
            let s = Weighting::Divergence.draw(y, shape, &mut rng).expect("classes");
            s.iter().zip(error).map(|(&s, &e)| f64::from(s) * e).sum::<f64>().powi(2)
        });
        each.sum::<f64>() / f64::from(draws)
    }

    /// Σ p·ln(p/q), the mean over rows.
    fn divergence(y: &[f32], error: &[f64], classes: usize) -> f64 {
        let logs = |row: &[f64]| -> Vec<f64> {
            let total = row.iter().map(|y| y.exp()).sum::<f64>().ln();
            row.iter().map(|y| y - total).collect()
        };
        let y: Vec<f64> = y.iter().map(|&y| f64::from(y)).collect();
        let x: Vec<f64> = y.iter().zip(error).map(|(y, e)| y + e).collect();
        let rows = y.chunks(classes).zip(x.chunks(classes));
        let sum: f64 =
            rows.map(|(y, x)| logs(y).iter().zip(&logs(x)).map(|(p, q)| p.exp() * (p - q)).sum::<f64>()).sum();
        sum / (y.len() / classes) as f64
    }

    #[test]
    fn small_errors_of_scores_cost_their_divergence() {
        let y = [1.0, 2.0, 3.0, 0.5, -2.0, 4.0, 0.0, 0.3];
        let error = [0.02, -0.03, 0.01, 0.04, -0.02, 0.015, 0.03, -0.01];
        let (drawn, exact) = (drawn(&y, &[2, 4], &error), divergence(&y, &error, 4));
        assert!((drawn / exact - 1.0).abs() < 0.05, "{drawn} {exact}");
        // One number added to all scores of a row changes nothing.
        assert!(self::drawn(&y, &[2, 4], &[0.7; 8]) < 1e-9);
    }

    #[test]
    fn small_errors_of_probabilities_cost_their_divergence() {
        let p = [0.1_f32, 0.2, 0.7];
        let error = [0.004, -0.006, 0.002];
        let exact: f64 =
            p.iter().zip(error).map(|(&p, e)| f64::from(p) * (f64::from(p) / (f64::from(p) + e)).ln()).sum();
        let drawn = drawn(&p, &[1, 3], &error);
        assert!((drawn / exact - 1.0).abs() < 0.05, "{drawn} {exact}");
        assert!(Weighting::Divergence.draw(&[0.1; 12], &[1, 1, 3, 4], &mut fastrand::Rng::new()).is_none());
    }
}
