//! A noise power with its cause.

use std::ops::{AddAssign, Mul};

use serde::{Deserialize, Serialize};

/// Power of the noise that quantizing something makes at the output, a sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Noise {
    /// Rounding and clipping together.
    pub total: f64,
    /// The part from values beyond the ends of the range.
    pub clipped: f64,
}

impl Noise {
    /// The part from values inside the range.
    pub fn rounded(self) -> f64 {
        self.total - self.clipped
    }
}

impl Mul<f64> for Noise {
    type Output = Self;
    fn mul(self, factor: f64) -> Self {
        Self { total: self.total * factor, clipped: self.clipped * factor }
    }
}

impl AddAssign for Noise {
    fn add_assign(&mut self, other: Self) {
        self.total += other.total;
        self.clipped += other.clipped;
    }
}
