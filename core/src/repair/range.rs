//! The integers that a repair may use, and the range that suits weights of which some matter more than others.

use crate::plan::{Choice, Clip, Symmetry};
use crate::quant::{QuantParams, weighed};

/// Each end of a range is tried shrunk by this many steps of [`STEP`] of the whole.
const STEPS: usize = 32;
const STEP: f32 = 0.0225;

/// Smallest and largest integer, and how ranges map to them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    symmetry: Symmetry,
    qmin: i32,
    qmax: i32,
    /// Ends set by hand, which no range exceeds.
    limit: Option<(f32, f32)>,
}

impl Range {
    /// What `choice` leaves: all integers of its precision (±127 for symmetric int8, ±63 where it keeps to 7 bits), or the `levels` in the middle.
    pub fn new(choice: &Choice, levels: Option<u32>) -> Self {
        let all = 1_i32 << choice.weight_bits().clamp(2, 8);
        let levels = levels.map_or(all, |levels| (levels as i32).clamp(2, all));
        let odd = choice.symmetry == Symmetry::Symmetric && levels >= 128;
        let limit = match choice.clip {
            Clip::Manual { lo, hi } if choice.symmetry == Symmetry::Symmetric => {
                let radius = lo.abs().max(hi.abs());
                Some((-radius, radius))
            }
            Clip::Manual { lo, hi } => Some((lo, hi)),
            _ => None,
        };
        let qmin = -(levels / 2) + i32::from(odd);
        Self { symmetry: choice.symmetry, qmin, qmax: (levels - 1) / 2, limit }
    }

    fn params(self, lo: f32, hi: f32) -> QuantParams {
        let mut params = QuantParams::for_range(lo, hi, self.qmin, self.qmax, self.symmetry);
        if self.symmetry == Symmetry::Symmetric && params.zero_point != 0 {
            params.zero_point = 0;
        }
        params
    }

    /// Symmetric parameters in which the largest integer, or the smallest where that is further out, stands for `radius`.
    fn symmetric(self, radius: f32, by_smallest: bool) -> QuantParams {
        let levels = if by_smallest { -self.qmin } else { self.qmax.max(1) };
        self.params(0.0, radius * self.qmax.max(1) as f32 / levels as f32)
    }

    /// The parameters with the least Σ importance·(w − ŵ)² found; importance is 0 or more.
    ///
    /// Tried are ranges that shrink from the whole one, both ends alike and then each by itself, and of symmetric ones
    /// those in which the odd integer (−8 of 4 bits) stands for the largest weight.
    pub fn fit(self, values: &[f32], importance: &[f32]) -> QuantParams {
        let (mut lo, mut hi) = values.iter().fold((0.0_f32, 0.0_f32), |(lo, hi), &w| (lo.min(w), hi.max(w)));
        if let Some((from, to)) = self.limit {
            (lo, hi) = (lo.max(from.min(0.0)), hi.min(to.max(0.0)));
        }
        let mut best = Best { values, importance, params: self.params(lo, hi), error: f32::INFINITY };
        best.offer(best.params);
        match self.symmetry {
            Symmetry::Symmetric => {
                let radius = hi.max(-lo);
                for by_smallest in [false, true] {
                    let mut share = 1.0;
                    for i in 0..STEPS {
                        let tried = 1.0 - i as f32 * STEP;
                        if best.offer(self.symmetric(radius * tried, by_smallest)) {
                            share = tried;
                        }
                    }
                    for offset in [-0.5, 0.5, -0.25, 0.25] {
                        best.offer(self.symmetric(radius * (share + offset * STEP).min(1.0), by_smallest));
                    }
                }
            }
            Symmetry::Asymmetric => {
                let (mut low, mut high) = (1.0_f32, 1.0_f32);
                for i in 1..STEPS {
                    let share = 1.0 - i as f32 * STEP;
                    if best.offer(self.params(lo * share, hi * share)) {
                        (low, high) = (share, share);
                    }
                }
                for reach in [4.0, 1.0] {
                    for i in (-4..=4).filter(|&i| i != 0) {
                        let share = (low + i as f32 * 0.5 * reach * STEP).clamp(0.0, 1.0);
                        if best.offer(self.params(lo * share, hi * high)) {
                            low = share;
                        }
                    }
                    for i in (-4..=4).filter(|&i| i != 0) {
                        let share = (high + i as f32 * 0.5 * reach * STEP).clamp(0.0, 1.0);
                        if best.offer(self.params(lo * low, hi * share)) {
                            high = share;
                        }
                    }
                }
            }
        }
        best.params
    }

    /// Smallest and largest integer.
    pub fn ends(self) -> (i32, i32) {
        (self.qmin, self.qmax)
    }

    /// Whether a person set its ends.
    pub fn is_given(self) -> bool {
        self.limit.is_some()
    }

    /// Whether the zero point is fixed.
    pub fn is_symmetric(self) -> bool {
        self.symmetry == Symmetry::Symmetric
    }
}

struct Best<'a> {
    values: &'a [f32],
    importance: &'a [f32],
    params: QuantParams,
    error: f32,
}

impl Best<'_> {
    fn offer(&mut self, params: QuantParams) -> bool {
        let error = weighed(self.values, self.importance, &params);
        let won = error < self.error;
        if won {
            (self.params, self.error) = (params, error);
        }
        won
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Precision;

    fn range(precision: Precision, symmetry: Symmetry, levels: Option<u32>) -> Range {
        Range::new(&Choice { precision, symmetry, ..Choice::FLOAT }, levels)
    }

    #[test]
    fn levels_lie_around_zero() {
        use Symmetry::{Asymmetric, Symmetric};
        assert_eq!(range(Precision::Int8, Symmetric, None).ends(), (-127, 127));
        assert_eq!(range(Precision::Int8, Asymmetric, None).ends(), (-128, 127));
        assert_eq!(range(Precision::Int4, Symmetric, None).ends(), (-8, 7));
        assert_eq!(range(Precision::Int4, Symmetric, Some(8)).ends(), (-4, 3));
        assert_eq!(range(Precision::Int4, Asymmetric, Some(4)).ends(), (-2, 1));
        assert_eq!(range(Precision::Int2, Symmetric, Some(100)).ends(), (-2, 1));
    }

    #[test]
    fn what_matters_decides_the_range() {
        let mut values: Vec<f32> = (0..64).map(|i| (i as f32 * 0.7).sin()).collect();
        values[5] = 20.0;
        for symmetry in [Symmetry::Symmetric, Symmetry::Asymmetric] {
            let range = range(Precision::Int4, symmetry, None);
            let mut importance = vec![1.0; 64];
            importance[5] = 0.0;
            let clipped = range.fit(&values, &importance);
            importance[5] = 1e6;
            let whole = range.fit(&values, &importance);
            assert!(
                clipped.scale < 0.7 * whole.scale && (whole.fake(20.0) - 20.0).abs() < 0.5,
                "{clipped:?} {whole:?}"
            );
            assert!(range.fit(&[0.0; 8], &[1.0; 8]).scale > 0.0);
        }
    }
}
