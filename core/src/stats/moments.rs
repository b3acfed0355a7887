//! Smallest, largest, sums and counts of a run of values, in one pass.

use crate::simd::widest;

/// Moments of a run of values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Moments {
    pub(super) min: f32,
    pub(super) max: f32,
    pub(super) sum: f64,
    pub(super) sum_sq: f64,
    pub(super) zeros: u64,
    pub(super) non_finite: u64,
}

const LANES: usize = 16;

struct Lanes {
    min: [f32; LANES],
    max: [f32; LANES],
    sum: [f64; LANES],
    sum_sq: [f64; LANES],
    zeros: [u32; LANES],
    non_finite: [u32; LANES],
}

impl Lanes {
    #[inline(always)]
    #[allow(clippy::inline_always)] // has to land inside the vectorised loop
    fn put(&mut self, lane: usize, x: f32) {
        self.min[lane] = if x < self.min[lane] { x } else { self.min[lane] };
        self.max[lane] = if x > self.max[lane] { x } else { self.max[lane] };
        let wide = f64::from(x);
        self.sum[lane] += wide;
        self.sum_sq[lane] += wide * wide;
        self.zeros[lane] += u32::from(x == 0.0);
        self.non_finite[lane] += u32::from(!x.is_finite());
    }
}

impl Moments {
    /// Moments of at most 2³² values. Without non-finite values all fields are right; with them only the counts are.
    pub(super) fn of(values: &[f32]) -> Self {
        let lanes = widest(|| {
            let mut lanes = Lanes {
                min: [f32::INFINITY; LANES],
                max: [f32::NEG_INFINITY; LANES],
                sum: [0.0; LANES],
                sum_sq: [0.0; LANES],
                zeros: [0; LANES],
                non_finite: [0; LANES],
            };
            let (whole, rest) = values.as_chunks::<LANES>();
            for chunk in whole {
                for (lane, &x) in chunk.iter().enumerate() {
                    lanes.put(lane, x);
                }
            }
            for (lane, &x) in rest.iter().enumerate() {
                lanes.put(lane, x);
            }
            lanes
        });
        Self {
            min: lanes.min.into_iter().fold(f32::INFINITY, f32::min),
            max: lanes.max.into_iter().fold(f32::NEG_INFINITY, f32::max),
            sum: lanes.sum.iter().sum(),
            sum_sq: lanes.sum_sq.iter().sum(),
            zeros: lanes.zeros.iter().map(|&n| u64::from(n)).sum(),
            non_finite: lanes.non_finite.iter().map(|&n| u64::from(n)).sum(),
        }
    }
}
