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
pub(super) fn moments(values: &[f32]) -> Moments {
    let (whole, rest) = values.as_chunks();
    let lanes = lanes(whole);
    let mut all = Moments {
        min: lanes.min.into_iter().fold(f32::INFINITY, f32::min),
        max: lanes.max.into_iter().fold(f32::NEG_INFINITY, f32::max),
        sum: lanes.sum.iter().sum(),
        sum_abs: lanes.sum_abs.iter().sum(),
        sum_sq: lanes.sum_sq.iter().sum(),
        zeros: lanes.zeros.iter().map(|&n| u64::from(n)).sum(),
        non_finite: lanes.non_finite.iter().map(|&n| u64::from(n)).sum(),
    };
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

vectorised! {
    // One loop a field, and nothing else in the function: otherwise they do not become vector instructions. Counts wrap
    // so that checks in debug builds do not stop it either; they cannot, for 2³² values.
    fn lanes(chunks: &[[f32; LANES]]) -> Lanes {
        let (mut min, mut max) = ([f32::INFINITY; LANES], [f32::NEG_INFINITY; LANES]);
        let (mut sum, mut sum_abs, mut sum_sq) = ([0.0_f64; LANES], [0.0_f64; LANES], [0.0_f64; LANES]);
        let (mut zeros, mut non_finite) = ([0_u32; LANES], [0_u32; LANES]);
        for chunk in chunks {
            for lane in 0..LANES {
                min[lane] = if chunk[lane] < min[lane] { chunk[lane] } else { min[lane] };
            }
            for lane in 0..LANES {
                max[lane] = if chunk[lane] > max[lane] { chunk[lane] } else { max[lane] };
            }
            for lane in 0..LANES {
                sum[lane] += f64::from(chunk[lane]);
            }
            for lane in 0..LANES {
                sum_abs[lane] += f64::from(chunk[lane].abs());
            }
            for lane in 0..LANES {
                sum_sq[lane] += f64::from(chunk[lane]) * f64::from(chunk[lane]);
            }
            for lane in 0..LANES {
                zeros[lane] = zeros[lane].wrapping_add(u32::from(chunk[lane] == 0.0));
            }
            for lane in 0..LANES {
                let found = u32::from(chunk[lane].to_bits() & 0x7fff_ffff >= 0x7f80_0000);
                non_finite[lane] = non_finite[lane].wrapping_add(found);
            }
        }
        Lanes { min, max, sum, sum_abs, sum_sq, zeros, non_finite }
    }
}
