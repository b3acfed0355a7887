//! Which bin of a histogram each value falls in: the arithmetic of [`super::bins`], sixteen values at a time where the
//! processor has AVX-512.

use super::histogram::HALF;
use crate::simd::vectorised;

/// Bins of a histogram.
pub(super) const BINS: usize = 2 * HALF;
/// Places for zeros, which are counted elsewhere: a Relu makes so many of them that counting them at one place would
/// keep each waiting for the one before.
pub(super) const SPARE: usize = 8;
/// Places of a table: the bins, then those for zeros, then so many without use that every 16-bit number is one, which
/// spares a check for each value.
pub(super) const PLACES: usize = 1 << u16::BITS;
/// Values whose places are found at a time.
pub(super) const RUN: usize = 1024;

/// 2²³: added to a number of 0..2²², it leaves the nearest integer in the low bits.
const INTEGERS: f32 = 8_388_608.0;

/// The places for zeros in turn. A table, since counting along costs checks in debug builds, and those the vectors.
static SPARES: [u16; RUN] = {
    let mut spares = [0; RUN];
    let mut i = 0;
    while i < RUN {
        spares[i] = (BINS + i % SPARE) as u16;
        i += 1;
    }
    spares
};

/// The place of each of up to [`RUN`] finite values whose magnitude times `inverse` is below [`HALF`]: its bin, or one of
/// those for zeros.
pub(super) fn find(places: &mut [u16], values: &[f32], inverse: f32) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx512f") {
        let ((places, last_places), (values, rest)) = (places.as_chunks_mut(), values.as_chunks());
        // SAFETY: the processor has AVX-512F, as checked on the line above; nothing else is asked of callers.
        #[allow(unsafe_code)]
        unsafe {
            wide::find(places, values, inverse);
        }
        return find_any(last_places, rest, inverse);
    }
    find_any(places, values, inverse);
}

vectorised! {
    fn find_any(places: &mut [u16], values: &[f32], inverse: f32) {
        for ((place, &x), &spare) in places.iter_mut().zip(values).zip(&SPARES) {
            let magnitude = x.abs() * inverse;
            let nearest = magnitude + INTEGERS;
            let above = i32::from(nearest - INTEGERS > magnitude);
            let bin = (nearest.to_bits() as i32).wrapping_sub(INTEGERS.to_bits() as i32).wrapping_sub(above);
            let bin = (bin ^ (x.to_bits() as i32 >> 31)).wrapping_add(HALF as i32);
            *place = if x == 0.0 { spare } else { bin as u16 };
        }
    }
}

/// Written out, since compilers keep to vectors of half the width by themselves.
#[cfg(target_arch = "x86_64")]
mod wide {
    use std::arch::x86_64::{
        __m256i, _CMP_EQ_OQ, _CMP_LT_OQ, _mm256_storeu_si256, _mm512_abs_ps, _mm512_add_epi32, _mm512_cmp_ps_mask,
        _mm512_cvtepi32_epi16, _mm512_cvttps_epi32, _mm512_loadu_ps, _mm512_mask_mov_epi32, _mm512_mask_xor_epi32,
        _mm512_mul_ps, _mm512_set_epi32, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps,
    };

    use super::{BINS, HALF};

    /// Sixteen values at a time.
    #[target_feature(enable = "avx512f")]
    pub(super) fn find(places: &mut [[u16; 16]], values: &[[f32; 16]], inverse: f32) {
        let (inverse, zero) = (_mm512_set1_ps(inverse), _mm512_setzero_ps());
        let (ones, half) = (_mm512_set1_epi32(-1), _mm512_set1_epi32(HALF as i32));
        let spares = _mm512_add_epi32(
            _mm512_set_epi32(7, 6, 5, 4, 3, 2, 1, 0, 7, 6, 5, 4, 3, 2, 1, 0),
            _mm512_set1_epi32(BINS as i32),
        );
        for (place, value) in places.iter_mut().zip(values) {
            // SAFETY: reads the sixteen values of the array.
            #[allow(unsafe_code)]
            let x = unsafe { _mm512_loadu_ps(value.as_ptr()) };
            let bin = _mm512_cvttps_epi32(_mm512_mul_ps(_mm512_abs_ps(x), inverse));
            let bin = _mm512_mask_xor_epi32(bin, _mm512_cmp_ps_mask::<_CMP_LT_OQ>(x, zero), bin, ones);
            let bin = _mm512_add_epi32(bin, half);
            let bin = _mm512_mask_mov_epi32(bin, _mm512_cmp_ps_mask::<_CMP_EQ_OQ>(x, zero), spares);
            // SAFETY: writes the sixteen places of the array, which need not be aligned.
            #[allow(unsafe_code, clippy::cast_ptr_alignment)]
            unsafe {
                _mm256_storeu_si256(place.as_mut_ptr().cast::<__m256i>(), _mm512_cvtepi32_epi16(bin));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_the_same_with_any_instructions() {
        let mut random = fastrand::Rng::with_seed(1);
        for exponent in [-40, -3, 0, 20] {
            let width = 2.0_f32.powi(exponent);
            let mut values: Vec<f32> = (0..1000).map(|_| (random.f32() - 0.5) * 4095.0 * width).collect();
            for i in 0..300 {
                values[3 * i] = (i as f32 - 150.0) * width;
            }
            (values[1], values[2]) = (-0.0, f32::MIN_POSITIVE / 4.0);
            let (mut any, mut best) = (vec![0; values.len()], vec![0; values.len()]);
            find_any(&mut any, &values, 1.0 / width);
            find(&mut best, &values, 1.0 / width);
            assert_eq!(any, best);
            for (&x, &place) in values.iter().zip(&best) {
                let bin = (f64::from(x.abs()) / f64::from(width)).floor() as i32;
                let bin = if x < 0.0 { -bin - 1 } else { bin } + HALF as i32;
                assert!(if x == 0.0 { usize::from(place) >= BINS } else { i32::from(place) == bin }, "{x} of {width}");
            }
        }
    }
}
