//! Float16 storage of weights.

use half::f16;
use half::slice::HalfFloatSliceExt;

/// Weights in half precision.
#[derive(Clone, Debug, PartialEq)]
pub struct Float16 {
    /// The values, nearest with ties to even.
    pub values: Vec<f16>,
    /// Finite values beyond ±65 504, which were saturated there instead of becoming infinite.
    pub saturated: usize,
}

/// Rounds to half precision. NaN and infinities stay what they are.
pub fn to_float16(values: &[f32]) -> Float16 {
    let mut halves = vec![f16::ZERO; values.len()];
    halves.convert_from_f32_slice(values);
    let mut saturated = 0;
    for (half, &value) in halves.iter_mut().zip(values) {
        if half.is_infinite() && value.is_finite() {
            *half = if value > 0.0 { f16::MAX } else { f16::MIN };
            saturated += 1;
        }
    }
    Float16 { values: halves, saturated }
}

/// The values as they are after storage in half precision.
pub fn float16_round_trip(values: &[f32]) -> Vec<f32> {
    let halves = to_float16(values).values;
    let mut out = vec![0.0; values.len()];
    halves.convert_to_f32_slice(&mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_values_saturate_and_are_counted() {
        let halves = to_float16(&[1e6, -1e6, 65504.0, 65519.9, f32::INFINITY, 1.0, 2049.0]);
        assert_eq!(halves.saturated, 2);
        assert_eq!(float16_round_trip(&[1e6, -1e6, 65519.9, 2049.0]), [65504.0, -65504.0, 65504.0, 2048.0]);
        assert!(halves.values[4].is_infinite());
    }
}
