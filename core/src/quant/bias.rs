//! Biases of quantized layers: int32 with the scale that lets ONNX Runtime add them to its integer sums.

/// An int32 bias: `bias ≈ values · scales`, zero point 0.
#[derive(Clone, Debug, PartialEq)]
pub struct QuantizedBias {
    /// One integer an output channel.
    pub values: Vec<i32>,
    /// `input scale · weight scale`, one for each weight scale.
    pub scales: Vec<f32>,
    /// Biases that did not fit int32 and were saturated; above 0 the layer's bias has to stay in floating point.
    pub saturated: usize,
}

/// `q = round(b / (input_scale · weight_scale))` in float32, ties to even; the only scale with which ONNX Runtime fuses
/// a bias. `weight_scales` has one value (per tensor) or one a channel; NaN becomes 0.
pub fn bias_i32(bias: &[f32], input_scale: f32, weight_scales: &[f32]) -> QuantizedBias {
    let scales: Vec<f32> = weight_scales.iter().map(|&scale| input_scale * scale).collect();
    let mut saturated = 0;
    let values = bias.iter().enumerate().map(|(c, &b)| {
        let scale = if scales.len() == 1 { scales.first() } else { scales.get(c) };
        let steps = b / scale.copied().unwrap_or(1.0);
        // 2³¹ is the first float32 above i32::MAX; −2³¹ itself fits.
        saturated += usize::from(!(-2_147_483_648.0..2_147_483_648.0).contains(&steps) && !steps.is_nan());
        steps.round_ties_even() as i32
    });
    let values = values.collect();
    QuantizedBias { values, scales, saturated }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_counted() {
        let bias = bias_i32(&[1.0, -1.0, 1e-9, f32::NAN, 0.0], 1e-5, &[1e-5]);
        assert_eq!(bias.saturated, 2);
        assert_eq!(bias.values, [i32::MAX, i32::MIN, 10, 0, 0]);
        assert_eq!(bias_i32(&[1.0], 0.0, &[1.0]).saturated, 1);
        assert_eq!(bias_i32(&[3.0, 5.0], 1.0, &[2.0, 2.0]).values, [2, 2]);
    }
}
