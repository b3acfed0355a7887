//! What training makes small: how far outputs are from the float model's, or from labels.
//!
//! - distance: `mean((y − t)²) / mean(t²)`, noise to signal: −10·log10 of it is the SQNR. On logits this is distillation as
//!   Ba and Caruana (2014) have it.
//! - kl: `mean over rows of Σ p · ln(p / q)` between the float model's class probabilities p and ours (Hinton et al. 2015, at
//!   temperature 1); logits go through a softmax first.
//! - cross-entropy: `mean over rows of −ln q[label]`. It needs labels and keeps less of the float model: measured on a digit
//!   classifier the same accuracy, 10 dB further from the original.

use serde::{Deserialize, Serialize};

/// A loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Loss {
    /// Squared distance to the float model's output, relative to its power.
    Distance,
    /// Kullback-Leibler divergence from the float model's class probabilities.
    Kl,
    /// Cross-entropy with labels.
    CrossEntropy,
}

impl Loss {
    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Distance => "distance",
            Self::Kl => "kl",
            Self::CrossEntropy => "cross-entropy",
        }
    }

    /// What fits: labels where there are some, the divergence for probabilities, else the distance.
    pub fn fitting(shape: &[usize], target: &[f32], has_labels: bool) -> Self {
        let has_classes = classes(shape).is_some();
        match (has_labels && has_classes, has_classes && is_probability(shape, target)) {
            (true, _) => Self::CrossEntropy,
            (false, true) => Self::Kl,
            _ => Self::Distance,
        }
    }
}

/// Classes of an output that has one row of them a sample row; `None` for other shapes.
pub fn classes(shape: &[usize]) -> Option<usize> {
    match shape {
        [_, classes] if *classes > 1 => Some(*classes),
        _ => None,
    }
}

/// Whether every row is a distribution.
pub fn is_probability(shape: &[usize], values: &[f32]) -> bool {
    classes(shape).is_some_and(|classes| {
        values.chunks(classes).all(|row| {
            (row.iter().sum::<f32>() - 1.0).abs() < 1e-3 && row.iter().all(|p| (-1e-6..=1.000_01).contains(p))
        })
    })
}

/// A loss over one run, and its gradient.
pub struct Judged {
    /// Mean over elements or rows.
    pub loss: f64,
    /// Same shape as the output.
    pub gradient: Vec<f32>,
}

/// Squared distance of `y` to `target`, relative to `power`, the mean square of all targets.
pub fn distance(y: &[f32], target: &[f32], power: f64) -> Judged {
    let scale = 1.0 / (y.len().max(1) as f64 * power.max(f64::MIN_POSITIVE));
    let mut loss = 0.0;
    let gradient = y.iter().zip(target).map(|(&y, &t)| {
        let off = f64::from(y) - f64::from(t);
        loss += off * off;
        (2.0 * off * scale) as f32
    });
    let gradient = gradient.collect();
    Judged { loss: loss * scale, gradient }
}

/// Divergence of the rows of `y` from those of `target`.
pub fn divergence(y: &[f32], target: &[f32], classes: usize, are_probabilities: bool) -> Judged {
    let rows = (y.len() / classes.max(1)).max(1) as f64;
    let mut judged = Judged { loss: 0.0, gradient: Vec::with_capacity(y.len()) };
    for (y, t) in y.chunks(classes.max(1)).zip(target.chunks(classes.max(1))) {
        let (q, p) = if are_probabilities { (held(y), held(t)) } else { (softmax(y), softmax(t)) };
        for (q, p) in q.iter().zip(&p) {
            judged.loss += if *p > 0.0 { p * (p / q.max(FLOOR)).ln() } else { 0.0 };
            let gradient = if are_probabilities { -p / q.max(FLOOR) } else { q - p };
            judged.gradient.push((gradient / rows) as f32);
        }
    }
    judged.loss /= rows;
    judged
}

/// Cross-entropy of the rows of `y` with `labels`; rows whose label is no class count nothing.
pub fn cross_entropy(y: &[f32], labels: &[i64], classes: usize, are_probabilities: bool) -> Judged {
    let rows = (y.len() / classes.max(1)).max(1) as f64;
    let mut judged = Judged { loss: 0.0, gradient: vec![0.0; y.len()] };
    let parts = y.chunks(classes.max(1)).zip(judged.gradient.chunks_mut(classes.max(1)));
    for ((y, gradient), &label) in parts.zip(labels) {
        let Some(label) = usize::try_from(label).ok().filter(|&label| label < classes) else { continue };
        let q = if are_probabilities { held(y) } else { softmax(y) };
        let Some(&of_label) = q.get(label) else { continue };
        judged.loss -= of_label.max(FLOOR).ln() / rows;
        for (class, (slot, q)) in gradient.iter_mut().zip(&q).enumerate() {
            let hit = f64::from(u8::from(class == label));
            *slot = ((if are_probabilities { -hit / of_label.max(FLOOR) } else { q - hit }) / rows) as f32;
        }
    }
    judged
}

/// Least probability that is told from 0.
const FLOOR: f64 = 1e-7;

fn held(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&p| f64::from(p).max(0.0)).collect()
}

fn softmax(values: &[f32]) -> Vec<f64> {
    let largest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f64> = values.iter().map(|&x| f64::from(x - largest).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every loss's gradient against differences of the loss itself.
    #[test]
    fn gradients_are_slopes() {
        let logits = [0.3_f32, -1.0, 2.0, 0.5, 0.1, -0.2];
        let targets = [0.1_f32, -0.9, 1.5, 0.9, 0.0, 0.2];
        let (p, q) = ([0.2_f32, 0.3, 0.5, 0.6, 0.3, 0.1], [0.3_f32, 0.3, 0.4, 0.5, 0.25, 0.25]);
        type Case<'a> = (&'a [f32], Box<dyn Fn(&[f32]) -> Judged>);
        let cases: [Case<'_>; 5] = [
            (&logits, Box::new(move |y| distance(y, &targets, 0.7))),
            (&logits, Box::new(move |y| divergence(y, &targets, 3, false))),
            (&q, Box::new(move |y| divergence(y, &p, 3, true))),
            (&logits, Box::new(|y| cross_entropy(y, &[2, 0], 3, false))),
            (&q, Box::new(|y| cross_entropy(y, &[1, 9], 3, true))),
        ];
        for (case, (y, judge)) in cases.iter().enumerate() {
            let slope = judge(y).gradient;
            for at in 0..y.len() {
                let moved = |by: f32| {
                    let mut y = y.to_vec();
                    y[at] += by;
                    judge(&y).loss
                };
                let difference = (moved(1e-2) - moved(-1e-2)) / 2e-2;
                assert!(
                    (difference - f64::from(slope[at])).abs() < 2e-3,
                    "case {case}, {at}: {difference} {}",
                    slope[at]
                );
            }
        }
        assert!(divergence(&targets, &targets, 3, false).loss.abs() < 1e-9);
    }

    #[test]
    fn the_loss_follows_the_output() {
        assert_eq!(Loss::fitting(&[2, 3], &[0.2, 0.3, 0.5, 1.0, 0.0, 0.0], false), Loss::Kl);
        assert_eq!(Loss::fitting(&[2, 3], &[0.2, 0.3, 0.5, 1.0, 0.5, 0.0], false), Loss::Distance);
        assert_eq!(Loss::fitting(&[2, 3], &[0.2; 6], true), Loss::CrossEntropy);
        assert_eq!(Loss::fitting(&[2, 3, 4], &[0.2; 24], true), Loss::Distance);
    }
}
