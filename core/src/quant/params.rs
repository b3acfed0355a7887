//! Scale and zero point, and the two formulae of ONNX's QuantizeLinear and DequantizeLinear.

use crate::plan::Symmetry;
use crate::simd::vectorised;

/// 1.5·2²³: adding and subtracting it rounds to the nearest integer, ties to even, for |x| < 2²².
const ROUNDER: f32 = 12_582_912.0;

/// How real numbers map to integers: `q = clamp(round(x / scale) + zero_point, qmin, qmax)`, ties to even.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QuantParams {
    /// Size of one step; finite and above 0 when made by this crate.
    pub scale: f32,
    /// The integer that stands for 0.0.
    pub zero_point: i32,
    /// Smallest integer.
    pub qmin: i32,
    /// Largest integer; `qmax - qmin` is at most 65 535.
    pub qmax: i32,
}

impl QuantParams {
    /// Parameters for the real range `lo..=hi`, widened to contain 0, on the integers `qmin..=qmax`.
    ///
    /// Asymmetric: `scale = (hi - lo) / (qmax - qmin)`, `zero_point = round(qmin - lo / scale)`, in float32 as ONNX's
    /// DynamicQuantizeLinear has it. Symmetric: the zero point is the middle, `scale = max(|lo|, |hi|) / (levels above
    /// it)`, so that both ends are representable (±127 for 8 bits). A range without width gets scale 1.
    pub fn for_range(lo: f32, hi: f32, qmin: i32, qmax: i32, symmetry: Symmetry) -> Self {
        let (lo, hi) = (finite(lo).min(0.0), finite(hi).max(0.0));
        match symmetry {
            Symmetry::Symmetric => {
                let zero_point = (qmin + qmax + 1) / 2;
                let scale = positive(hi.max(-lo) / (qmax - zero_point) as f32);
                Self { scale, zero_point, qmin, qmax }
            }
            Symmetry::Asymmetric => {
                let levels = (qmax - qmin) as f32;
                let width = hi - lo;
                let scale = positive(if width.is_finite() { width / levels } else { hi / levels - lo / levels });
                let zero_point = rounded_bits((qmin as f32 - lo / scale).clamp(qmin as f32, qmax as f32));
                Self { scale, zero_point, qmin, qmax }
            }
        }
    }

    /// Ends of the representable range, in steps from zero.
    #[inline]
    pub(crate) fn step_ends(&self) -> (f32, f32) {
        ((self.qmin - self.zero_point) as f32, (self.qmax - self.zero_point) as f32)
    }

    /// The real numbers that the smallest and the largest integer stand for.
    pub fn range(&self) -> (f32, f32) {
        (self.dequantize(self.qmin), self.dequantize(self.qmax))
    }

    /// The integer for `x`. The division is in float32; NaN gives `qmin`, infinities saturate (as ONNX Runtime does).
    pub fn quantize(&self, x: f32) -> i32 {
        let (lo, hi) = self.step_ends();
        rounded_bits(steps(x, self.scale, lo, hi)) + self.zero_point
    }

    /// The real number for `q`: `(q - zero_point) · scale` in float32.
    pub fn dequantize(&self, q: i32) -> f32 {
        (q - self.zero_point) as f32 * self.scale
    }

    /// `x` after quantization and back.
    #[inline]
    pub fn fake(&self, x: f32) -> f32 {
        let (lo, hi) = self.step_ends();
        round(steps(x, self.scale, lo, hi)) * self.scale
    }

    /// [`Self::fake`] of every value, in place.
    pub fn fake_slice(&self, values: &mut [f32]) {
        fake_all(values, self);
    }

    /// Every value as uint8; for parameters whose integers lie in 0..=255.
    pub fn quantize_u8(&self, values: &[f32]) -> Vec<u8> {
        let mut out = vec![0; values.len()];
        quantize_u8(values, &mut out, self);
        out
    }

    /// Every value as int8, into `out` (as many as the shorter has); for parameters whose integers lie in -128..=127.
    pub fn quantize_i8(&self, values: &[f32], out: &mut [i8]) {
        quantize_i8(values, out, self);
    }
}

vectorised! {
    fn fake_all(values: &mut [f32], params: &QuantParams) {
        let (lo, hi) = params.step_ends();
        let scale = params.scale;
        for x in values {
            *x = round(steps(*x, scale, lo, hi)) * scale;
        }
    }
}

vectorised! {
    fn quantize_u8(values: &[f32], out: &mut [u8], params: &QuantParams) {
        let (lo, hi) = params.step_ends();
        let (scale, zero_point) = (params.scale, params.zero_point);
        for (q, &x) in out.iter_mut().zip(values) {
            *q = rounded_bits(steps(x, scale, lo, hi)).wrapping_add(zero_point) as u8;
        }
    }
}

vectorised! {
    fn quantize_i8(values: &[f32], out: &mut [i8], params: &QuantParams) {
        let (lo, hi) = params.step_ends();
        let (scale, zero_point) = (params.scale, params.zero_point);
        for (q, &x) in out.iter_mut().zip(values) {
            *q = rounded_bits(steps(x, scale, lo, hi)).wrapping_add(zero_point) as i8;
        }
    }
}

/// Parameters of an activation: uint8, since ONNX Runtime accelerates no other form everywhere. Symmetric puts the zero
/// point at 128 with `scale = max(|lo|, |hi|) / 127`: the same real numbers as symmetric int8.
pub fn activation_params(lo: f32, hi: f32, symmetry: Symmetry) -> QuantParams {
    activation_params_bits(lo, hi, symmetry, 8)
}

/// [`activation_params`] for an unsigned integer of `bits` bits (2 to 16; others are brought into that range).
pub fn activation_params_bits(lo: f32, hi: f32, symmetry: Symmetry, bits: u32) -> QuantParams {
    QuantParams::for_range(lo, hi, 0, (1 << bits.clamp(2, 16)) - 1, symmetry)
}

/// `x / scale`, held to `lo..=hi`; NaN becomes `lo`.
#[inline(always)]
#[allow(clippy::inline_always)] // has to land inside the vectorised loop
fn steps(x: f32, scale: f32, lo: f32, hi: f32) -> f32 {
    let t = x / scale;
    let t = if t > lo { t } else { lo };
    if t < hi { t } else { hi }
}

/// Nearest integer, ties to even, for |t| < 2²².
#[inline(always)]
#[allow(clippy::inline_always)]
pub(crate) fn round(t: f32) -> f32 {
    (t + ROUNDER) - ROUNDER
}

/// [`round`] as an integer, without the saturation checks of `as`, which do not vectorise.
#[inline(always)]
#[allow(clippy::inline_always)]
fn rounded_bits(t: f32) -> i32 {
    ((t + ROUNDER).to_bits() as i32).wrapping_sub(ROUNDER.to_bits() as i32)
}

fn finite(x: f32) -> f32 {
    if x.is_nan() { 0.0 } else { x.clamp(f32::MIN, f32::MAX) }
}

/// A usable scale: 1 for a range without width, never subnormal (processors may flush those to zero).
fn positive(scale: f32) -> f32 {
    if scale > 0.0 { scale.clamp(f32::MIN_POSITIVE, f32::MAX) } else { 1.0 }
}
