//! What measurements teach a prediction: by how many dB it is off, and how far to believe it.

use serde::{Deserialize, Serialize};

/// What the sum of noise powers says of a plan, before anything measured corrects it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Expected {
    /// SQNR of the sum in dB.
    pub sum_db: f64,
    /// Share of the noise that rounded activations make, in 0..=1; the rest is the weights'.
    pub of_activations: f64,
}

/// One plan that was run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Point {
    expected: Expected,
    measured_db: f64,
    spread_db: f64,
}

/// Plans that were run, as expected and as measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Learnt {
    points: Vec<Point>,
}

/// Plans nearer to each other than this in dB all count alike.
const LEAST_DB: f64 = 0.5;
/// Sums this near to each other in dB are of the same plan.
const SAME_DB: f64 = 1e-6;
/// Noise of weights alone and of activations alone are as unlike as plans this far apart in dB.
const KINDS_DB: f64 = 10.0;
/// Half the width of the interval around a prediction in dB where the plans that were run leave no doubt: with
/// [`RESIDUALS`] the interval held 70 to 100 % of a model's mixed plans in `assets/docs/prediction-study.md`.
const LEAST_HALF_DB: f64 = 1.0;
/// How many standard deviations of what is left unexplained the interval has on each side.
const RESIDUALS: f64 = 1.5;
/// The same for what the choice of samples leaves open.
const SPREADS: f64 = 2.0;

impl Learnt {
    /// Remembers what was expected of a plan and what the runtime gave, with its standard error over samples. What was known
    /// of a plan expected to be the same is forgotten.
    pub fn add(&mut self, expected: Expected, measured_db: f64, spread_db: f64) {
        if expected.sum_db.is_finite() && measured_db.is_finite() {
            self.points.retain(|point| distance(point.expected, expected) > 0.0);
            self.points.push(Point { expected, measured_db, spread_db });
        }
    }

    /// What to add to the sum's SQNR, in dB: the mean of measured − expected, weighed by 1/distance², since errors of the
    /// first order grow with the noise and differ between weights and activations. 0 before anything was measured.
    pub fn offset(&self, expected: Expected) -> f64 {
        self.mean(expected, |point| point.measured_db - point.expected.sum_db).unwrap_or(0.0)
    }

    /// Half the width of the interval around a corrected prediction, in dB; `None` before anything was measured. It grows
    /// with how much the plans that were run differ in their offsets, and with the spread over their samples.
    pub fn half_width(&self, expected: Expected) -> Option<f64> {
        let offset = self.offset(expected);
        let square = |point: &Point| (point.measured_db - point.expected.sum_db - offset).powi(2);
        let residual = self.mean(expected, square)?;
        let spread = self.mean(expected, |point| point.spread_db * point.spread_db)?;
        let sum = LEAST_HALF_DB * LEAST_HALF_DB + RESIDUALS * RESIDUALS * residual + SPREADS * SPREADS * spread;
        Some(sum.sqrt())
    }

    fn mean(&self, expected: Expected, of: impl Fn(&Point) -> f64) -> Option<f64> {
        // Of a plan that was run nothing else says more.
        if let Some(own) = self.points.iter().find(|point| distance(point.expected, expected) < SAME_DB) {
            return Some(of(own));
        }
        let weight = |point: &Point| 1.0 / distance(point.expected, expected).max(LEAST_DB).powi(2);
        let sum: f64 = self.points.iter().map(|point| weight(point) * of(point)).sum();
        (!self.points.is_empty()).then(|| sum / self.points.iter().map(weight).sum::<f64>())
    }

    /// The mean of measured − expected over all points.
    pub fn mean_offset(&self) -> f64 {
        let sum: f64 = self.points.iter().map(|point| point.measured_db - point.expected.sum_db).sum();
        sum / self.points.len().max(1) as f64
    }

    /// Number of plans measured.
    pub fn len(&self) -> usize {
        self.points.len()
    }

    /// Whether nothing was measured.
    pub fn is_empty(&self) -> bool {
        self.points.is_empty()
    }
}

/// How unlike two plans are, in dB.
fn distance(a: Expected, b: Expected) -> f64 {
    (a.sum_db - b.sum_db).hypot(KINDS_DB * (a.of_activations - b.of_activations))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected(sum_db: f64, of_activations: f64) -> Expected {
        Expected { sum_db, of_activations }
    }

    #[test]
    fn near_plans_teach_more_than_far_ones() {
        let mut learnt = Learnt::default();
        assert_eq!(learnt.offset(expected(20.0, 0.0)), 0.0);
        assert_eq!(learnt.half_width(expected(20.0, 0.0)), None);
        learnt.add(expected(20.0, 0.0), 18.0, 0.0);
        assert!((learnt.offset(expected(40.0, 0.0)) + 2.0).abs() < 1e-9, "one point is an offset for all");
        learnt.add(expected(40.0, 0.0), 40.5, 0.0);
        assert!(learnt.offset(expected(21.0, 0.0)) < -1.8 && learnt.offset(expected(39.0, 0.0)) > 0.3);
        assert!((learnt.mean_offset() + 0.75).abs() < 1e-9);
        learnt.add(expected(f64::INFINITY, 0.0), 3.0, 0.0);
        assert_eq!(learnt.len(), 2);
        learnt.add(expected(40.0, 0.0), 41.0, 0.0);
        assert_eq!(learnt.len(), 2, "the latest figure of a plan counts");
    }

    #[test]
    fn weights_teach_little_about_activations() {
        let mut learnt = Learnt::default();
        learnt.add(expected(20.0, 0.0), 24.0, 0.0);
        learnt.add(expected(20.0, 1.0), 17.0, 0.0);
        assert!(learnt.offset(expected(20.0, 0.0)) > 3.5 && learnt.offset(expected(20.0, 1.0)) < -2.5);
    }

    #[test]
    fn doubt_widens_the_interval() {
        let mut learnt = Learnt::default();
        let wide = |learnt: &Learnt| learnt.half_width(expected(20.5, 0.0)).expect("measured");
        learnt.add(expected(20.0, 0.0), 21.0, 0.0);
        assert!((wide(&learnt) - LEAST_HALF_DB).abs() < 1e-9);
        learnt.add(expected(22.0, 0.0), 30.0, 0.0);
        let apart = wide(&learnt);
        assert!(apart > 2.0, "{apart}");
        learnt.add(expected(20.0, 0.0), 21.0, 3.0);
        assert!(wide(&learnt) > apart, "what hangs on the samples is believed less");
    }
}
