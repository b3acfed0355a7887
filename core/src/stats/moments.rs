//! Smallest, largest, sums and counts of a run of values, in one pass.

use crate::simd::vectorised;

/// Moments of a run of values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Moments {
    pub(super) min: f32,
    pub(super) max: f32,
    pub(super) sum: f64,
    pub(super) sum_abs: f64,
    pub(super) sum_sq: f64,
    pub(super) zeros: u64,
    pub(super) non_finite: u64,
}

impl Moments {
    /// Of no value.
    pub(super) const NONE: Self = Self {
        min: f32::INFINITY,
        max: f32::NEG_INFINITY,
        sum: 0.0,
        sum_abs: 0.0,
        sum_sq: 0.0,
        zeros: 0,
        non_finite: 0,
    };

    /// Of the finite ones among at most 2³² values, `finite` holding them where there are others; those are counted too.
    pub(super) fn of_finite(values: &[f32], finite: &mut Vec<f32>) -> Self {
        let seen = moments(values);
        if seen.non_finite == 0 {
            return seen;
        }
        finite.clear();
        finite.extend(values.iter().copied().filter(|x| x.is_finite()));
        Self { non_finite: seen.non_finite, ..moments(finite) }
    }

    /// Adds those of other values.
    pub(super) fn add(&mut self, other: &Self) {
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.sum += other.sum;
        self.sum_abs += other.sum_abs;
        self.sum_sq += other.sum_sq;
        self.zeros += other.zeros;
        self.non_finite += other.non_finite;
    }
}

/// Moments of values. Without non-finite values all fields are right; with them only the counts are.
///
/// Sums are made of float32 sums of [`BLOCK`] values each, which err by less than 10⁻⁶ of the sum of magnitudes, unless the
/// squares would leave float32's range.
pub(super) fn moments(values: &[f32]) -> Moments {
    let mut all = Moments::NONE;
    for block in values.chunks(BLOCK) {
        all.add(&of_block(block));
    }
    let largest = all.max.max(-all.min);
    if !values.is_empty() && !(all.sum_abs.is_finite() && (largest == 0.0 || SQUARABLE.contains(&largest))) {
        return precise(values);
    }
    all
}

/// Largest magnitudes whose squares are sums of float32 that neither overflow nor vanish.
const SQUARABLE: std::ops::Range<f32> = 1e-12..1e12;
/// Values that are summed in float32.
const BLOCK: usize = 1024;

/// The smallest and largest finite value; 0 and 0 when there is none.
pub fn finite_range(values: &[f32]) -> (f32, f32) {
    let (mut lo, mut hi) = (f32::INFINITY, f32::NEG_INFINITY);
    for run in values.chunks(1 << 16) {
        let seen = moments(run);
        if seen.non_finite == 0 {
            (lo, hi) = (lo.min(seen.min), hi.max(seen.max));
        } else {
            let finite = run.iter().filter(|x| x.is_finite());
            (lo, hi) = finite.fold((lo, hi), |(lo, hi), &x| (lo.min(x), hi.max(x)));
        }
    }
    if lo > hi { (0.0, 0.0) } else { (lo, hi) }
}

/// Running values side by side.
const LANES: usize = 16;

/// Moments of at most [`BLOCK`] values. What is not finite makes the sums so too, and is not counted.
fn of_block(values: &[f32]) -> Moments {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx512f") {
        // SAFETY: the processor has AVX-512F, as checked on the line above; nothing else is asked of callers.
        #[allow(unsafe_code)]
        return unsafe { wide::of_block(values) };
    }
    of_block_any(values)
}

/// Folds lanes by halves, always in the same order.
#[inline(always)]
#[allow(clippy::inline_always)] // has to be compiled again for AVX2
fn fold(mut lanes: [f32; LANES], with: impl Fn(f32, f32) -> f32) -> f32 {
    for half in [8, 4, 2, 1] {
        for lane in 0..half {
            lanes[lane] = with(lanes[lane], lanes[lane + half]);
        }
    }
    lanes[0]
}

vectorised! {
    // One loop a field, and nothing else in the loop: otherwise they do not become vector instructions. Counts wrap so that
    // checks in debug builds do not stop it either; they cannot, for so few values.
    fn of_block_any(values: &[f32]) -> Moments {
        let (mut min, mut max) = ([f32::INFINITY; LANES], [f32::NEG_INFINITY; LANES]);
        let (mut sum, mut sum_abs, mut sum_sq) = ([0.0_f32; LANES], [0.0_f32; LANES], [0.0_f32; LANES]);
        let mut zeros = [0_u32; LANES];
        let (whole, rest) = values.as_chunks::<LANES>();
        for chunk in whole {
            for lane in 0..LANES {
                min[lane] = if chunk[lane] < min[lane] { chunk[lane] } else { min[lane] };
            }
            for lane in 0..LANES {
                max[lane] = if chunk[lane] > max[lane] { chunk[lane] } else { max[lane] };
            }
            for lane in 0..LANES {
                sum[lane] += chunk[lane];
            }
            for lane in 0..LANES {
                sum_abs[lane] += chunk[lane].abs();
            }
            for lane in 0..LANES {
                sum_sq[lane] += chunk[lane] * chunk[lane];
            }
            for lane in 0..LANES {
                zeros[lane] = zeros[lane].wrapping_add(u32::from(chunk[lane] == 0.0));
            }
        }
        for (lane, &x) in rest.iter().enumerate() {
            min[lane] = if x < min[lane] { x } else { min[lane] };
            max[lane] = if x > max[lane] { x } else { max[lane] };
            sum[lane] += x;
            sum_abs[lane] += x.abs();
            sum_sq[lane] += x * x;
            zeros[lane] = zeros[lane].wrapping_add(u32::from(x == 0.0));
        }
        Moments {
            min: fold(min, |a, b| if b < a { b } else { a }),
            max: fold(max, |a, b| if b > a { b } else { a }),
            sum: f64::from(fold(sum, |a, b| a + b)),
            sum_abs: f64::from(fold(sum_abs, |a, b| a + b)),
            sum_sq: f64::from(fold(sum_sq, |a, b| a + b)),
            zeros: zeros.iter().fold(0_u64, |all, &n| all.wrapping_add(u64::from(n))),
            non_finite: 0,
        }
    }
}

/// Written out, since compilers keep to vectors of half the width by themselves.
#[cfg(target_arch = "x86_64")]
mod wide {
    use std::arch::x86_64::{
        __m512, __mmask16, _CMP_EQ_OQ, _mm_add_ps, _mm_add_ss, _mm_cvtss_f32, _mm_movehl_ps, _mm_shuffle_ps,
        _mm256_add_ps, _mm256_castpd_ps, _mm256_castps256_ps128, _mm256_extractf128_ps, _mm512_abs_ps, _mm512_add_ps,
        _mm512_castps_pd, _mm512_castps512_ps256, _mm512_cmp_ps_mask, _mm512_extractf64x4_pd, _mm512_loadu_ps,
        _mm512_mask_cmp_ps_mask, _mm512_mask_max_ps, _mm512_mask_min_ps, _mm512_maskz_loadu_ps, _mm512_max_ps,
        _mm512_min_ps, _mm512_mul_ps, _mm512_reduce_max_ps, _mm512_reduce_min_ps, _mm512_set1_ps, _mm512_setzero_ps,
    };

    use super::{LANES, Moments};

    /// The sum of the lanes, by halves.
    #[target_feature(enable = "avx512f")]
    fn folded(lanes: __m512) -> f64 {
        let upper = _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(lanes)));
        let eight = _mm256_add_ps(_mm512_castps512_ps256(lanes), upper);
        let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        f64::from(_mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two))))
    }

    /// All lanes of a field in one register.
    #[target_feature(enable = "avx512f,popcnt")]
    pub(super) fn of_block(values: &[f32]) -> Moments {
        let none = _mm512_setzero_ps();
        let (mut min, mut max) = (_mm512_set1_ps(f32::INFINITY), _mm512_set1_ps(f32::NEG_INFINITY));
        let (mut sum, mut sum_abs, mut sum_sq, mut zeros) = (none, none, none, 0);
        let (whole, rest) = values.as_chunks::<LANES>();
        for chunk in whole {
            // SAFETY: reads the sixteen values of the array.
            #[allow(unsafe_code)]
            let x = unsafe { _mm512_loadu_ps(chunk.as_ptr()) };
            min = _mm512_min_ps(x, min);
            max = _mm512_max_ps(x, max);
            sum = _mm512_add_ps(sum, x);
            sum_abs = _mm512_add_ps(sum_abs, _mm512_abs_ps(x));
            sum_sq = _mm512_add_ps(sum_sq, _mm512_mul_ps(x, x));
            zeros += _mm512_cmp_ps_mask::<_CMP_EQ_OQ>(x, none).count_ones();
        }
        if !rest.is_empty() {
            let there: __mmask16 = (1 << rest.len()) - 1;
            // SAFETY: reads those of sixteen values that the slice has.
            #[allow(unsafe_code)]
            let x = unsafe { _mm512_maskz_loadu_ps(there, rest.as_ptr()) };
            min = _mm512_mask_min_ps(min, there, x, min);
            max = _mm512_mask_max_ps(max, there, x, max);
            sum = _mm512_add_ps(sum, x);
            sum_abs = _mm512_add_ps(sum_abs, _mm512_abs_ps(x));
            sum_sq = _mm512_add_ps(sum_sq, _mm512_mul_ps(x, x));
            zeros += _mm512_mask_cmp_ps_mask::<_CMP_EQ_OQ>(there, x, none).count_ones();
        }
        Moments {
            min: _mm512_reduce_min_ps(min),
            max: _mm512_reduce_max_ps(max),
            sum: folded(sum),
            sum_abs: folded(sum_abs),
            sum_sq: folded(sum_sq),
            zeros: u64::from(zeros),
            non_finite: 0,
        }
    }
}

/// The same in double precision, for values of any size, and counts what is not finite.
fn precise(values: &[f32]) -> Moments {
    let mut all = Moments::NONE;
    for &x in values {
        all.min = all.min.min(x);
        all.max = all.max.max(x);
        all.sum += f64::from(x);
        all.sum_abs += f64::from(x.abs());
        all.sum_sq += f64::from(x) * f64::from(x);
        all.zeros += u64::from(x == 0.0);
        all.non_finite += u64::from(!x.is_finite());
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_any_size_are_summed_and_what_is_not_finite_is_counted() {
        for size in [1e-30_f32, 1e-3, 1.0, 1e30] {
            let values: Vec<f32> = (0..5_000).map(|i| (i % 7 - 3) as f32 * size).collect();
            let seen = moments(&values);
            let exact: f64 = values.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
            let magnitudes: f64 = values.iter().map(|&x| f64::from(x.abs())).sum();
            assert!(
                (seen.sum_sq / exact - 1.0).abs() < 1e-6 && (seen.sum_abs / magnitudes - 1.0).abs() < 1e-6,
                "{size}"
            );
            assert_eq!((seen.min, seen.max, seen.non_finite), (-3.0 * size, 3.0 * size, 0));
            assert_eq!(seen.zeros, values.iter().filter(|&&x| x == 0.0).count() as u64);
        }
        let mut values = vec![1.0; 3_000];
        (values[7], values[2_999], values[1_500]) = (f32::NAN, f32::INFINITY, f32::NEG_INFINITY);
        assert_eq!(moments(&values).non_finite, 3);
        assert_eq!(moments(&values[..16]).non_finite, 1);
    }

    #[test]
    fn moments_are_the_same_with_any_instructions() {
        for count in [1, 15, 16, 49, 196, BLOCK] {
            let values: Vec<f32> = (0..count).map(|i| ((i * 31) % 23) as f32 / 7.0 - 1.0).collect();
            assert_eq!(of_block_any(&values), of_block(&values), "{count}");
        }
        let values = [0.0, -0.0, 3.0, -7.0];
        let seen = of_block(&values);
        assert_eq!((seen.min, seen.max, seen.sum, seen.sum_abs, seen.sum_sq), (-7.0, 3.0, -4.0, 10.0, 58.0));
        assert_eq!(seen.zeros, 2);
    }
}
