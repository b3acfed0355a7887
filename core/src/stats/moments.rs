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

/// Moments of at most 2³² values. Without non-finite values all fields are right; with them only the counts are.
///
/// Sums are made of float32 sums of [`BLOCK`] values each, which err by less than 10⁻⁶ of the sum of magnitudes, unless the
/// squares would leave float32's range.
pub(super) fn moments(values: &[f32]) -> Moments {
    let (whole, rest) = values.as_chunks();
    let mut lanes = Lanes::NONE;
    for block in whole.chunks(BLOCK) {
        add_block(block, &mut lanes);
    }
    let mut all = lanes.sum_up();
    let largest = all.max.max(-all.min);
    if !whole.is_empty() && !(all.sum_abs.is_finite() && (largest == 0.0 || SQUARABLE.contains(&largest))) {
        all = precise(whole).sum_up();
    }
    for &x in rest {
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

/// Largest magnitudes whose squares are sums of float32 that neither overflow nor vanish.
const SQUARABLE: std::ops::Range<f32> = 1e-12..1e12;
/// Groups of [`LANES`] values that are summed in float32.
const BLOCK: usize = 64;

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

/// So many that the running values of all lanes fit AVX2's registers.
const LANES: usize = 8;

/// Moments of every eighth value.
struct Lanes {
    min: [f32; LANES],
    max: [f32; LANES],
    sum: [f64; LANES],
    sum_abs: [f64; LANES],
    sum_sq: [f64; LANES],
    zeros: [u32; LANES],
    non_finite: [u32; LANES],
}

impl Lanes {
    const NONE: Self = Self {
        min: [f32::INFINITY; LANES],
        max: [f32::NEG_INFINITY; LANES],
        sum: [0.0; LANES],
        sum_abs: [0.0; LANES],
        sum_sq: [0.0; LANES],
        zeros: [0; LANES],
        non_finite: [0; LANES],
    };

    fn sum_up(&self) -> Moments {
        Moments {
            min: self.min.into_iter().fold(f32::INFINITY, f32::min),
            max: self.max.into_iter().fold(f32::NEG_INFINITY, f32::max),
            sum: self.sum.iter().sum(),
            sum_abs: self.sum_abs.iter().sum(),
            sum_sq: self.sum_sq.iter().sum(),
            zeros: self.zeros.iter().map(|&n| u64::from(n)).sum(),
            non_finite: self.non_finite.iter().map(|&n| u64::from(n)).sum(),
        }
    }
}

vectorised! {
    // One loop a field, and nothing else in the loop: otherwise they do not become vector instructions. Counts wrap so that
    // checks in debug builds do not stop it either; they cannot, for 2³² values. What is not finite makes the sums so too.
    fn add_block(chunks: &[[f32; LANES]], into: &mut Lanes) {
        let (mut min, mut max) = (into.min, into.max);
        let (mut sum, mut sum_abs, mut sum_sq) = ([0.0_f32; LANES], [0.0_f32; LANES], [0.0_f32; LANES]);
        let mut zeros = into.zeros;
        for chunk in chunks {
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
        (into.min, into.max, into.zeros) = (min, max, zeros);
        for (into, part) in into.sum.iter_mut().zip(sum) {
            *into += f64::from(part);
        }
        for (into, part) in into.sum_abs.iter_mut().zip(sum_abs) {
            *into += f64::from(part);
        }
        for (into, part) in into.sum_sq.iter_mut().zip(sum_sq) {
            *into += f64::from(part);
        }
    }
}

/// The same in double precision, for values of any size, and counts what is not finite.
fn precise(chunks: &[[f32; LANES]]) -> Lanes {
    let mut lanes = Lanes::NONE;
    for chunk in chunks {
        for (lane, &x) in chunk.iter().enumerate() {
            lanes.min[lane] = lanes.min[lane].min(x);
            lanes.max[lane] = lanes.max[lane].max(x);
            lanes.sum[lane] += f64::from(x);
            lanes.sum_abs[lane] += f64::from(x.abs());
            lanes.sum_sq[lane] += f64::from(x) * f64::from(x);
            lanes.zeros[lane] = lanes.zeros[lane].wrapping_add(u32::from(x == 0.0));
            lanes.non_finite[lane] = lanes.non_finite[lane].wrapping_add(u32::from(!x.is_finite()));
        }
    }
    lanes
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
        assert_eq!(moments(&values[..8]).non_finite, 1);
    }
}
