//! From the sums of an integer kernel to its integer output.

use super::QuantParams;

/// `clamp(round(sum · m) + zero_point)` with `m = f32(f32(input_scale · weight_scale) / output.scale)`, ties to even, all
/// in float32: what ONNX Runtime's QLinearConv, QLinearMatMul and QGemm make of an int32 sum (bias included).
pub fn requantize(sum: i32, input_scale: f32, weight_scale: f32, output: &QuantParams) -> i32 {
    let factor = input_scale * weight_scale / output.scale;
    let (lo, hi) = output.step_ends();
    (sum as f32 * factor).max(lo).min(hi).round_ties_even() as i32 + output.zero_point
}
