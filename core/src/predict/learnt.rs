//! What measurements teach a prediction: by how many dB it is off.

use serde::{Deserialize, Serialize};

/// Predicted and measured SQNR of plans that were run, in dB.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Learnt {
    points: Vec<(f64, f64)>,
}

/// Plans this far apart in dB are hardly alike: what one taught counts a hundredth for the other.
const REACH_DB: f64 = 5.0;
/// Floor of the distance, so that several plans of the same SQNR all count.
const LEAST_DB: f64 = 0.5;

impl Learnt {
    /// Remembers what the sum of noise powers said (without any offset) and what the runtime gave.
    pub fn add(&mut self, predicted_db: f64, measured_db: f64) {
        if predicted_db.is_finite() && measured_db.is_finite() {
            self.points.push((predicted_db, measured_db));
        }
    }

    /// What to add to a prediction, in dB: the mean of measured − predicted, weighed by 1/distance², since errors of the
    /// first order grow with the noise. 0 before anything was measured.
    pub fn offset(&self, predicted_db: f64) -> f64 {
        let (mut sum, mut weights) = (0.0, 0.0);
        for &(predicted, measured) in &self.points {
            let distance = (predicted - predicted_db).abs().max(LEAST_DB) / REACH_DB * 10.0;
            sum += (measured - predicted) / (distance * distance);
            weights += 1.0 / (distance * distance);
        }
        if weights > 0.0 { sum / weights } else { 0.0 }
    }

    /// The mean of measured − predicted over all points.
    pub fn mean(&self) -> f64 {
        let sum: f64 = self.points.iter().map(|(predicted, measured)| measured - predicted).sum();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_plans_teach_more_than_far_ones() {
        let mut learnt = Learnt::default();
        assert_eq!(learnt.offset(20.0), 0.0);
        learnt.add(20.0, 18.0);
        assert!((learnt.offset(40.0) + 2.0).abs() < 1e-9, "one point is an offset for all");
        learnt.add(40.0, 40.5);
        assert!(learnt.offset(21.0) < -1.8 && learnt.offset(39.0) > 0.3);
        assert!((learnt.mean() + 0.75).abs() < 1e-9);
        learnt.add(f64::INFINITY, 3.0);
        assert_eq!(learnt.len(), 2);
    }
}
