//! The range of one group of weights: the values that share a scale.

use rayon::prelude::*;

use super::params::{QuantParams, round};
use crate::plan::{Clip, Symmetry};
use crate::quant::clip_range;
use crate::simd::vectorised;
use crate::stats::TensorStats;

/// What is asked of every group of a weight.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    pub(super) bits: u32,
    pub(super) symmetry: Symmetry,
    pub(super) clip: Clip,
}

/// Values whose squared errors are summed in one go; the order of summation never depends on the number of threads.
const CHUNK: usize = 1 << 16;
/// Clip candidates: each end is shrunk in this many steps of [`STEP`] of the whole range.
const STEPS: usize = 38;
const STEP: f32 = 0.02;

impl Request {
    /// Smallest and largest integer: −127..127 for symmetric int8 (−63..63 in 7 bits), otherwise the whole range of two's complement.
    fn integers(self) -> (i32, i32) {
        let half = 1_i32 << (self.bits - 1);
        if self.symmetry == Symmetry::Symmetric && self.bits >= 7 { (1 - half, half - 1) } else { (-half, half - 1) }
    }

    /// Parameters for finite values. Groups of zeros get scale 1.
    pub(super) fn fit(self, values: &[f32]) -> QuantParams {
        let (lo, hi) = self.clipped(values, extremes(values));
        let plain = self.params(lo, hi);
        match self.symmetry {
            Symmetry::Symmetric if self.clip == Clip::Mse => self.best_symmetric(values, hi.max(-lo), plain),
            Symmetry::Asymmetric if self.clip == Clip::Mse => self.best_asymmetric(values, lo, hi, plain),
            // Few levels: spending the odd one, −8 or −2, on the largest weight can be worth more than an even grid.
            Symmetry::Symmetric if self.bits < 7 => better(values, plain, self.spread(hi.max(-lo))),
            _ => plain,
        }
    }

    fn params(self, lo: f32, hi: f32) -> QuantParams {
        let (qmin, qmax) = self.integers();
        let mut params = QuantParams::for_range(lo, hi, qmin, qmax, self.symmetry);
        if self.symmetry == Symmetry::Symmetric && params.zero_point != 0 {
            params.zero_point = 0;
        }
        params
    }

    /// Symmetric parameters whose smallest integer stands for `-radius`.
    fn spread(self, radius: f32) -> QuantParams {
        let (qmin, qmax) = self.integers();
        self.params(0.0, radius * (qmax as f32 / -qmin as f32))
    }

    /// The range before any search.
    fn clipped(self, values: &[f32], (lo, hi): (f32, f32)) -> (f32, f32) {
        match self.clip {
            Clip::MinMax | Clip::Mse | Clip::Trained => (lo, hi),
            Clip::Percentile(share) => percentile(values, share, self.symmetry),
            Clip::Entropy => {
                let mut stats = TensorStats::default();
                stats.observe(values);
                clip_range(&stats, Clip::Entropy, self.symmetry, self.bits)
            }
            Clip::Manual { lo: from, hi: to } if self.symmetry == Symmetry::Symmetric => {
                let radius = from.abs().max(to.abs());
                (lo.max(-radius), hi.min(radius))
            }
            Clip::Manual { lo: from, hi: to } => (lo.max(from), hi.min(to)),
        }
    }

    fn best_symmetric(self, values: &[f32], radius: f32, plain: QuantParams) -> QuantParams {
        let mut search = Search::new(values, plain);
        search.offer(self.spread(radius));
        let mut best = 1.0;
        for i in 1..STEPS {
            let share = 1.0 - i as f32 * STEP;
            if search.offer(self.params(0.0, radius * share)) {
                best = share;
            }
        }
        for offset in [-0.5, 0.5, -0.25, 0.25] {
            search.offer(self.params(0.0, radius * (best + offset * STEP).min(1.0)));
        }
        better(values, plain, search.best)
    }

    fn best_asymmetric(self, values: &[f32], lo: f32, hi: f32, plain: QuantParams) -> QuantParams {
        let mut search = Search::new(values, plain);
        let (mut low, mut high) = (1.0_f32, 1.0_f32);
        for i in 1..STEPS {
            let share = 1.0 - i as f32 * STEP;
            if search.offer(self.params(lo * share, hi * share)) {
                (low, high) = (share, share);
            }
        }
        // Then each end by itself, around what the two gave together.
        for reach in [4.0, 1.0] {
            for i in (-4..=4).filter(|&i| i != 0) {
                let share = (low + i as f32 * 0.25 * reach * STEP * 2.0).clamp(0.0, 1.0);
                if search.offer(self.params(lo * share, hi * high)) {
                    low = share;
                }
            }
            for i in (-4..=4).filter(|&i| i != 0) {
                let share = (high + i as f32 * 0.25 * reach * STEP * 2.0).clamp(0.0, 1.0);
                if search.offer(self.params(lo * low, hi * share)) {
                    high = share;
                }
            }
        }
        better(values, plain, search.best)
    }
}

/// The candidate with the least squared error so far, by the fast measure.
struct Search<'a> {
    values: &'a [f32],
    best: QuantParams,
    error: f64,
}

impl<'a> Search<'a> {
    fn new(values: &'a [f32], first: QuantParams) -> Self {
        Self { values, best: first, error: fast_error(values, &first) }
    }

    fn offer(&mut self, params: QuantParams) -> bool {
        let error = fast_error(self.values, &params);
        let won = error < self.error;
        if won {
            (self.best, self.error) = (params, error);
        }
        won
    }
}

/// The one with the lower exact error; the first on a tie.
fn better(values: &[f32], first: QuantParams, second: QuantParams) -> QuantParams {
    if second != first && exact_error(values, &second) < exact_error(values, &first) { second } else { first }
}

vectorised! {
    /// Smallest and largest value, and 0.
    fn extremes(values: &[f32]) -> (f32, f32) {
        const LANES: usize = 32;
        let (mut lo, mut hi) = ([0.0_f32; LANES], [0.0_f32; LANES]);
        let (whole, rest) = values.as_chunks::<LANES>();
        let mut put = |x: f32, lane: usize| {
            lo[lane] = if x < lo[lane] { x } else { lo[lane] };
            hi[lane] = if x > hi[lane] { x } else { hi[lane] };
        };
        for chunk in whole {
            for (lane, &x) in chunk.iter().enumerate() {
                put(x, lane);
            }
        }
        rest.iter().enumerate().for_each(|(lane, &x)| put(x, lane));
        (lo.into_iter().fold(0.0, f32::min), hi.into_iter().fold(0.0, f32::max))
    }
}

/// Ends of the range that holds `share` percent of the values: both tails alike, or by magnitude when symmetric.
fn percentile(values: &[f32], share: f32, symmetry: Symmetry) -> (f32, f32) {
    if values.is_empty() {
        return (0.0, 0.0);
    }
    let cut = f64::from((100.0 - share) / 100.0).clamp(0.0, 1.0);
    let last = values.len() - 1;
    let at = |sorted: &mut [f32], share: f64| {
        *sorted.select_nth_unstable_by((share * last as f64).round() as usize, f32::total_cmp).1
    };
    if symmetry == Symmetry::Symmetric {
        let mut sizes: Vec<f32> = values.iter().map(|x| x.abs()).collect();
        let radius = at(&mut sizes, 1.0 - cut);
        return (-radius, radius);
    }
    let mut sorted = values.to_vec();
    (at(&mut sorted, cut / 2.0), at(&mut sorted, 1.0 - cut / 2.0))
}

/// Σ(x − x̂)² with the runtime's own division, in f64.
fn exact_error(values: &[f32], params: &QuantParams) -> f64 {
    in_chunks(values, |chunk| exact_chunk(chunk, params))
}

vectorised! {
    fn exact_chunk(values: &[f32], params: &QuantParams) -> f64 {
        const LANES: usize = 8;
        let mut sums = [0.0_f64; LANES];
        let params = *params;
        let mut put = |x: f32, lane: usize| {
            let error = f64::from(x) - f64::from(params.fake(x));
            sums[lane] += error * error;
        };
        let (whole, rest) = values.as_chunks::<LANES>();
        for block in whole {
            for (lane, &x) in block.iter().enumerate() {
                put(x, lane);
            }
        }
        rest.iter().enumerate().for_each(|(lane, &x)| put(x, lane));
        sums.iter().sum()
    }
}

/// Σ(x − x̂)² by multiplication with 1/scale: fast, and off only where x/scale is within rounding of a tie.
fn fast_error(values: &[f32], params: &QuantParams) -> f64 {
    let scale = f64::from(params.scale);
    in_chunks(values, |chunk| fast_chunk(chunk, params)) * scale * scale
}

vectorised! {
    /// In steps².
    fn fast_chunk(values: &[f32], params: &QuantParams) -> f64 {
        const LANES: usize = 32;
        let (lo, hi) = params.step_ends();
        let inverse = 1.0 / params.scale;
        let mut total = 0.0;
        // Short runs in f32, their sums in f64: nothing is lost that a choice between candidates could hang on.
        for run in values.chunks(LANES * 64) {
            let mut sums = [0.0_f32; LANES];
            let (whole, rest) = run.as_chunks::<LANES>();
            let mut put = |x: f32, lane: usize| {
                let t = x * inverse;
                let low = if t > lo { t } else { lo };
                let held = if low < hi { low } else { hi };
                let error = t - round(held);
                sums[lane] += error * error;
            };
            for block in whole {
                for (lane, &x) in block.iter().enumerate() {
                    put(x, lane);
                }
            }
            rest.iter().enumerate().for_each(|(lane, &x)| put(x, lane));
            // Pair by pair: a chain of 32 additions would take longer than a block of 32 weights.
            let mut half = LANES / 2;
            while half > 0 {
                for lane in 0..half {
                    sums[lane] += sums[lane + half];
                }
                half /= 2;
            }
            total += f64::from(sums[0]);
        }
        total
    }
}

fn in_chunks(values: &[f32], error: impl Fn(&[f32]) -> f64 + Send + Sync) -> f64 {
    if values.len() <= CHUNK {
        return error(values);
    }
    let parts: Vec<f64> = values.par_chunks(CHUNK).map(error).collect();
    parts.iter().sum()
}
