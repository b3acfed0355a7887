//! How ranges move with the number of samples: the bootstrap (Efron 1979), sets of so many samples drawn with
//! replacement from those that there are. With replacement even a set as large as the whole lacks a third of the
//! samples, so that a range which hangs on one sample is seen to move; what no sample showed no resampling shows either.

use rayon::prelude::*;

use super::LabOptions;

/// Comparisons that the draws may cost in all: about a second.
const WORK: usize = 400_000_000;
/// Fewest sets drawn, however many tensors and samples there are.
const FEWEST_SETS: usize = 50;

/// Widths of ranges with so many samples, as shares of the width with all of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Number of samples.
    pub samples: usize,
    /// One set in twenty has less.
    pub low: f64,
    /// Half of the sets have less.
    pub median: f64,
    /// One set in twenty has more.
    pub high: f64,
    /// Of one tensor: the share of sets that come within the tolerance. Of all tensors: the share of those that are settled.
    pub within: f64,
}

/// What the draws give.
pub(super) struct Curves {
    /// By tensor.
    pub(super) each: Vec<Vec<Point>>,
    /// Over all tensors.
    pub(super) all: Vec<Point>,
}

/// 1, 2, 4 … and `all`.
fn steps(all: usize) -> Vec<usize> {
    let mut steps: Vec<usize> =
        std::iter::successors(Some(1), |n: &usize| n.checked_mul(2)).take_while(|n| *n < all).collect();
    steps.extend((all > 0).then_some(all));
    steps
}

/// Draws sets of 1, 2, 4 … all samples, the same for every tensor. `tensors` holds one range a sample, each containing 0.
pub(super) fn curves(tensors: &[Vec<(f32, f32)>], options: &LabOptions) -> Curves {
    let samples = tensors.first().map_or(0, Vec::len);
    let mut curves = Curves { each: vec![Vec::new(); tensors.len()], all: Vec::new() };
    let steps = steps(samples);
    let work = tensors.len() * steps.iter().sum::<usize>();
    let sets = (WORK / work.max(1)).clamp(FEWEST_SETS.min(options.resamples), options.resamples).max(1);
    for count in steps {
        let mut random = fastrand::Rng::with_seed(options.seed ^ (count as u64) << 32);
        let draws: Vec<usize> = (0..sets * count).map(|_| random.usize(..samples)).collect();
        let shares: Vec<Vec<f64>> = tensors.par_iter().map(|ranges| shares(ranges, &draws, count)).collect();
        for (points, shares) in curves.each.iter_mut().zip(&shares) {
            let near = |share: &&f64| (**share - 1.0).abs() <= options.tolerance;
            let within = shares.iter().filter(near).count() as f64 / sets as f64;
            points.push(point(count, shares, within));
        }
        let settled = curves.each.iter().filter(|points| points.last().is_some_and(|p| p.within >= options.confidence));
        let within = settled.count() as f64 / tensors.len().max(1) as f64;
        let mut pooled: Vec<f64> = shares.into_iter().flatten().collect();
        pooled.sort_by(f64::total_cmp);
        curves.all.push(point(count, &pooled, within));
    }
    curves
}

/// Sorted widths of the union of each set of `count` samples, as shares of that of all samples.
fn shares(ranges: &[(f32, f32)], draws: &[usize], count: usize) -> Vec<f64> {
    let width = |(lo, hi): (f32, f32)| f64::from(hi) - f64::from(lo);
    let union = |a: (f32, f32), b: (f32, f32)| (a.0.min(b.0), a.1.max(b.1));
    let all = width(ranges.iter().copied().fold((0.0, 0.0), union));
    let of_set = |set: &[usize]| {
        let drawn = set.iter().filter_map(|&at| ranges.get(at).copied());
        width(drawn.fold((0.0, 0.0), union)) / all
    };
    let mut shares: Vec<f64> = draws.chunks(count).map(of_set).collect();
    shares.sort_by(f64::total_cmp);
    shares
}

fn point(samples: usize, sorted: &[f64], within: f64) -> Point {
    let quantile = |share: f64| {
        let at = (share * sorted.len().saturating_sub(1) as f64).round() as usize;
        sorted.get(at).copied().unwrap_or(1.0)
    };
    Point { samples, low: quantile(0.05), median: quantile(0.5), high: quantile(0.95), within }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// P(the largest of n draws with replacement from M is at most the k-th smallest) = (k / M)ⁿ.
    #[test]
    fn the_draws_have_the_distribution_of_a_largest_value() {
        let ranges: Vec<(f32, f32)> = (1..=32).map(|i| (0.0, i as f32)).collect();
        let options = LabOptions { resamples: 4_000, tolerance: 0.126, ..LabOptions::default() };
        let curves = curves(&[ranges], &options);
        assert_eq!(curves.all.iter().map(|point| point.samples).collect::<Vec<_>>(), [1, 2, 4, 8, 16, 32]);
        for point in &curves.each[0] {
            // Within an eighth of 32 lie 28 … 32.
            let expected = 1.0 - (27.0_f64 / 32.0).powi(point.samples as i32);
            assert!((point.within - expected).abs() < 0.03, "{point:?}: {expected}");
            let median = 0.5_f64.powf(1.0 / point.samples as f64);
            assert!((point.median - median).abs() < 0.04, "{point:?}: {median}");
        }
    }
}
