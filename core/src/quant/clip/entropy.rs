//! The clip range that loses the least information: the divergence of Kullback and Leibler between what was seen and
//! what its quantization leaves of it.
//!
//! Definition: NVIDIA's pytorch-quantization, `calib/histogram.py`, `_compute_amax_entropy`, after Migacz, "8-bit inference
//! with TensorRT" (2017). For each candidate window of the histogram, P is the window with all that lies outside added to
//! its outermost bin on that side; Q spreads what lies inside evenly over the non-empty bins of each of the levels'
//! equal stretches. The window with the least `Σ P·ln(P / Q)` wins, the widest on a tie.
//!
//! Three things differ. There, the bin at zero gets the count of its neighbour, so that what a Relu makes does not decide;
//! here exact zeros are counted apart and left out. There, windows begin at zero; here asymmetric ranges of both signs
//! move both ends, each outside falling to its own end. And windows may have fewer bins than there are levels, down to a
//! quarter: bins are a power of two wide, so a far outlier leaves few for all the rest.

use crate::plan::Symmetry;
use crate::stats::TensorStats;

/// Candidates of each round where both ends move.
const ROUND: usize = 64;
/// Values below which a distribution cannot be told: they keep their whole range.
const FEWEST: u64 = 256;

/// Searches the magnitude when symmetric, the end that is not 0, or both ends in turn.
pub(super) fn search(stats: &TensorStats, symmetry: Symmetry, bits: u32) -> (f32, f32) {
    let (lo, hi) = stats.range();
    if stats.count < FEWEST {
        return (lo, hi);
    }
    let counts: Vec<(f64, f64, f64)> = stats.histogram.bins().map(|(from, to, n)| (from, to, n as f64)).collect();
    let width = stats.histogram.width();
    // From zero outwards, on each side.
    let above: Vec<f64> = counts.iter().filter(|bin| bin.0 >= 0.0).map(|bin| bin.2).collect();
    let below: Vec<f64> = counts.iter().rev().filter(|bin| bin.0 < 0.0).map(|bin| bin.2).collect();
    let first_above = counts.iter().find(|bin| bin.0 >= 0.0).map_or(0, |bin| (bin.0 / width) as usize);
    let first_below = counts.iter().rev().find(|bin| bin.0 < 0.0).map_or(0, |bin| (-bin.1 / width) as usize);
    let above: Vec<f64> = std::iter::repeat_n(0.0, first_above).chain(above).collect();
    let below: Vec<f64> = std::iter::repeat_n(0.0, first_below).chain(below).collect();
    let end = |bins: usize, of: usize, seen: f32| if bins >= of { seen } else { (bins as f64 * width) as f32 };
    match symmetry {
        Symmetry::Symmetric => {
            let mut sizes = vec![0.0; above.len().max(below.len())];
            for side in [&above, &below] {
                sizes.iter_mut().zip(side).for_each(|(sum, count)| *sum += count);
            }
            let levels = (1_usize << bits.clamp(2, 16)) / 2;
            let best = one_sided(&sizes, levels);
            let radius = end(best, sizes.len(), hi.max(-lo));
            (lo.max(-radius), hi.min(radius))
        }
        Symmetry::Asymmetric => {
            let levels = 1_usize << bits.clamp(2, 16);
            if below.is_empty() {
                (0.0, end(one_sided(&above, levels), above.len(), hi))
            } else if above.is_empty() {
                (-end(one_sided(&below, levels), below.len(), -lo), 0.0)
            } else {
                let (down, up) = two_sided(&below, &above, levels);
                (-end(down, below.len(), -lo), end(up, above.len(), hi))
            }
        }
    }
}

/// How many bins from zero outwards are kept.
fn one_sided(counts: &[f64], levels: usize) -> usize {
    let all = counts.len();
    if all <= levels {
        return all;
    }
    let sums = Sums::new(counts);
    let mut best = (all, sums.divergence(0, all, levels));
    for window in (fewest(levels)..all).rev() {
        let value = sums.divergence(0, window, levels);
        if value < best.1 {
            best = (window, value);
        }
    }
    best.0
}

/// How many bins below and above zero are kept: both ends move together first, then each by itself.
fn two_sided(below: &[f64], above: &[f64], levels: usize) -> (usize, usize) {
    let zero = below.len();
    let counts: Vec<f64> = below.iter().rev().chain(above).copied().collect();
    let mut best = (below.len(), above.len());
    if counts.len() <= levels {
        return best;
    }
    let sums = Sums::new(&counts);
    let mut least = sums.divergence(0, counts.len(), levels);
    let mut offer = |best: (usize, usize), ends: (usize, usize)| {
        if ends.0 + ends.1 < fewest(levels) {
            return best;
        }
        let value = sums.divergence(zero - ends.0, zero + ends.1, levels);
        if value < least {
            least = value;
            ends
        } else {
            best
        }
    };
    let share = |all: usize, i: usize| all * (ROUND - i) / ROUND;
    for i in 1..ROUND {
        best = offer(best, (share(below.len(), i), share(above.len(), i)));
    }
    for _ in 0..2 {
        for i in 0..ROUND {
            best = offer(best, (share(below.len(), i), best.1));
        }
        for i in 0..ROUND {
            best = offer(best, (best.0, share(above.len(), i)));
        }
    }
    best
}

/// The narrowest window tried.
fn fewest(levels: usize) -> usize {
    levels.div_ceil(4)
}

/// Running sums over bins, with which a window costs one logarithm a level.
struct Sums {
    /// Counts before each bin.
    count: Vec<f64>,
    /// `Σ count · ln count` before each bin.
    log: Vec<f64>,
    /// Bins that are not empty, before each bin.
    used: Vec<u32>,
}

impl Sums {
    fn new(counts: &[f64]) -> Self {
        let (mut count, mut log, mut used) = (vec![0.0], vec![0.0], vec![0]);
        let (mut sum, mut sum_log, mut bins) = (0.0, 0.0, 0);
        for &n in counts {
            sum += n;
            sum_log += n_ln(n);
            bins += u32::from(n > 0.0);
            count.push(sum);
            log.push(sum_log);
            used.push(bins);
        }
        Self { count, log, used }
    }

    /// `Σ P·ln(P / Q)` of the bins `from..to`. Infinite when something falls on a bin that quantization leaves empty.
    fn divergence(&self, from: usize, to: usize, levels: usize) -> f64 {
        let total = self.count[self.count.len() - 1];
        let kept = self.count[to] - self.count[from];
        if kept == 0.0 {
            return f64::INFINITY;
        }
        // With c the count of a bin, o what falls onto it from outside, q the mean of its stretch's non-empty bins:
        // T·Σ P·ln(P/Q) = Σ (c + o)·ln((c + o) / q) + T·ln(kept / T).
        let mut sum = 0.0;
        let len = to - from;
        let mut start = 0;
        let (mut first, mut last) = (0.0, 0.0);
        for level in 0..levels {
            // The first bin whose lower edge is not below the end of this stretch.
            let end = ((level + 1) * len).div_ceil(levels);
            let (a, b) = (from + start, from + end);
            let used = self.used[b] - self.used[a];
            if used > 0 {
                let stretch = self.count[b] - self.count[a];
                let ln_q = (stretch / f64::from(used)).ln();
                sum += self.log[b] - self.log[a] - stretch * ln_q;
                first = if start == 0 { ln_q } else { first };
                last = ln_q;
            }
            start = end;
        }
        for (outside, bin, ln_q) in [(self.count[from], from, first), (total - self.count[to], to - 1, last)] {
            if outside > 0.0 {
                let own = self.count[bin + 1] - self.count[bin];
                if own == 0.0 {
                    return f64::INFINITY;
                }
                sum += n_ln(own + outside) - n_ln(own) - outside * ln_q;
            }
        }
        sum / total + (kept / total).ln()
    }
}

/// `n · ln n`, 0 for 0.
fn n_ln(n: f64) -> f64 {
    if n > 0.0 { n * n.ln() } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::stats::RowKey;

    #[derive(Deserialize)]
    struct Case {
        counts: Vec<u64>,
        levels: usize,
        windows: Vec<usize>,
        divergences: Vec<Option<f64>>,
    }

    /// Against NVIDIA's definition written out in numpy (`entropy.py`).
    #[test]
    fn divergences_are_those_of_the_definition() {
        let cases: Vec<Case> = serde_json::from_str(include_str!("../fixtures/entropy.json")).expect("fixture");
        assert!(cases.len() >= 4);
        for case in cases {
            let counts: Vec<f64> = case.counts.iter().map(|&n| n as f64).collect();
            let sums = Sums::new(&counts);
            let mut least = f64::INFINITY;
            for (&window, expected) in case.windows.iter().zip(&case.divergences) {
                let expected = expected.unwrap_or(f64::INFINITY);
                let found = sums.divergence(0, window, case.levels);
                let near = found == expected || (found - expected).abs() <= 1e-9 * expected.abs() + 1e-11;
                assert!(near, "{window}: {found} {expected}");
                least = least.min(expected);
            }
            let found = sums.divergence(0, one_sided(&counts, case.levels), case.levels);
            assert!(found <= least + 1e-12, "{found} {least}");
        }
    }

    /// Sums of uniform numbers, deterministic, and one far out.
    fn with_outlier(negative: bool) -> TensorStats {
        let uniform = |i: u64| (RowKey::new(0, 0, 0, i).0 >> 40) as f32 / 8_388_608.0 - 1.0;
        let mut values: Vec<f32> = (0..50_000_u64).map(|i| (0..6).map(|j| uniform(6 * i + j)).sum()).collect();
        if !negative {
            for x in &mut values {
                *x = x.max(0.0);
            }
        }
        values[7] = 40.0;
        let mut stats = TensorStats::default();
        stats.observe(&values);
        stats
    }

    #[test]
    fn outliers_are_cut_off_in_every_form() {
        for (negative, symmetry) in [
            (false, Symmetry::Asymmetric),
            (true, Symmetry::Asymmetric),
            (false, Symmetry::Symmetric),
            (true, Symmetry::Symmetric),
        ] {
            let stats = with_outlier(negative);
            let (lo, hi) = search(&stats, symmetry, 8);
            assert!(hi > 2.0 && hi < 20.0, "{negative} {symmetry}: {lo} {hi}");
            assert!(
                if negative { lo < -2.0 && lo >= stats.min } else { lo == 0.0 },
                "{negative} {symmetry}: {lo} {hi}"
            );
        }
    }

    #[test]
    fn too_little_to_tell_keeps_the_range() {
        let mut stats = TensorStats::default();
        stats.observe(&[0.5, 1.0, -3.0, 40.0]);
        assert_eq!(search(&stats, Symmetry::Asymmetric, 8), (-3.0, 40.0));
        // Sixteen bits have a level for every bin.
        let stats = with_outlier(true);
        assert_eq!(search(&stats, Symmetry::Asymmetric, 16), stats.range());
    }
}
