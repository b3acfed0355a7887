//! The clip range with the least expected squared error.

use crate::plan::Symmetry;
use crate::quant::expected::Density;
use crate::quant::params::activation_params_bits;
use crate::stats::TensorStats;

/// Candidates of the first round are a factor √½ apart; so many of them reach ranges 2048 times narrower than the data.
const COARSE: i32 = 22;
/// Then steps of the square root of that, its square root, …: the last one moves an end by half a percent.
const REFINEMENTS: i32 = 6;

/// Searches both ends when asymmetric, the magnitude when symmetric. What was seen is the first candidate, so the
/// result is never worse than it by the measure of [`Density::noise`].
pub(super) fn search(stats: &TensorStats, symmetry: Symmetry, bits: u32) -> (f32, f32) {
    let (lo, hi) = stats.range();
    let radius = hi.max(-lo);
    let seen = if symmetry == Symmetry::Symmetric { (0.0, radius) } else { (lo, hi) };
    let mut search = Search::new(stats, seen, symmetry, bits);
    let share = |i: i32| 0.5_f64.powf(f64::from(i) / 2.0);

    // Both ends together first: while one is far out, shortening the other gains nothing.
    for i in 1..=COARSE {
        search.offer((share(i), share(i)));
    }
    let ends = search.ends();
    if ends.len() > 1 {
        for i in 0..=COARSE {
            search.offer((share(i), search.shares.1));
        }
        for i in 0..=COARSE {
            search.offer((search.shares.0, share(i)));
        }
    }
    for level in 1..=REFINEMENTS {
        let factor = 0.5_f64.powf(0.5_f64.powi(level + 1));
        for _ in 0..2 {
            let mut moved = false;
            for end in &ends {
                moved |= search.offer(end(search.shares, factor)) || search.offer(end(search.shares, 1.0 / factor));
            }
            if !moved {
                break;
            }
        }
    }

    let (from, to) = search.range(search.shares);
    if symmetry == Symmetry::Symmetric { (lo.max(-to), hi.min(to)) } else { (from, to) }
}

/// Scales one end's share.
type End = fn((f64, f64), f64) -> (f64, f64);

/// The best candidate so far; a candidate is the share of each end of the range seen that is kept.
struct Search {
    density: Density,
    seen: (f32, f32),
    symmetry: Symmetry,
    bits: u32,
    shares: (f64, f64),
    noise: f64,
}

impl Search {
    fn new(stats: &TensorStats, seen: (f32, f32), symmetry: Symmetry, bits: u32) -> Self {
        let mut search =
            Self { density: Density::new(stats), seen, symmetry, bits, shares: (1.0, 1.0), noise: f64::INFINITY };
        search.offer((1.0, 1.0));
        search
    }

    /// The ends that are not 0 anyway.
    fn ends(&self) -> Vec<End> {
        let low: End = |shares, factor| (shares.0 * factor, shares.1);
        let high: End = |shares, factor| (shares.0, shares.1 * factor);
        let mut ends = Vec::new();
        if self.seen.0 < 0.0 {
            ends.push(low);
        }
        if self.seen.1 > 0.0 {
            ends.push(high);
        }
        ends
    }

    fn range(&self, (low, high): (f64, f64)) -> (f32, f32) {
        ((f64::from(self.seen.0) * low) as f32, (f64::from(self.seen.1) * high) as f32)
    }

    /// Takes the candidate if it is better.
    fn offer(&mut self, shares: (f64, f64)) -> bool {
        let shares = (shares.0.min(1.0), shares.1.min(1.0));
        let (lo, hi) = self.range(shares);
        let noise = self.density.noise(&activation_params_bits(lo, hi, self.symmetry, self.bits));
        let better = noise < self.noise;
        if better {
            (self.shares, self.noise) = (shares, noise);
        }
        better
    }
}
