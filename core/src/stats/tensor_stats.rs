//! Everything known about the values of one activation tensor.

use rayon::prelude::*;

use super::Histogram;
use super::bins::Binner;
use super::moments::moments;

/// Statistics of one tensor over all samples so far.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorStats {
    /// Finite values seen.
    pub count: u64,
    /// Number of dimensions it had; `None` before the first sample. Declared shapes are often missing or wrong.
    pub rank: Option<u32>,
    /// Smallest finite value; +∞ before the first.
    pub min: f32,
    /// Largest finite value; −∞ before the first.
    pub max: f32,
    /// Sum of the finite values.
    pub sum: f64,
    /// Sum of their squares.
    pub sum_sq: f64,
    /// NaN and infinities seen; they count nowhere else.
    pub non_finite: u64,
    /// How the finite values are spread.
    pub histogram: Histogram,
}

/// Values that one thread handles in one go. Their sums are added up apart, so that the number of threads changes nothing.
const PART: usize = 1 << 18;
/// Values handled at a time: 64 KiB, so that the second pass reads from the cache.
const TILE: usize = 1 << 14;

impl Default for TensorStats {
    fn default() -> Self {
        Self {
            count: 0,
            rank: None,
            min: f32::INFINITY,
            max: f32::NEG_INFINITY,
            sum: 0.0,
            sum_sq: 0.0,
            non_finite: 0,
            histogram: Histogram::default(),
        }
    }
}

impl TensorStats {
    /// Adds values; returns the smallest and largest finite one of this call, 0 and 0 when there is none.
    pub fn observe(&mut self, values: &[f32]) -> (f32, f32) {
        let mut binner = Binner::new(values.len());
        let mut range = (f32::INFINITY, f32::NEG_INFINITY);
        let mut finite = Vec::new();
        for part in values.chunks(PART) {
            let (mut sum, mut sum_sq) = (0.0, 0.0);
            for (i, tile) in part.chunks(TILE).enumerate() {
                let next = part.chunks(TILE).nth(i + 1).unwrap_or_default();
                let mut seen = moments(tile);
                let mut tile = tile;
                if seen.non_finite > 0 {
                    self.non_finite += seen.non_finite;
                    finite.clear();
                    finite.extend(tile.iter().copied().filter(|x| x.is_finite()));
                    tile = &finite;
                    seen = moments(tile);
                }
                if tile.is_empty() {
                    continue;
                }
                range = (range.0.min(seen.min), range.1.max(seen.max));
                self.count += tile.len() as u64;
                sum += seen.sum;
                sum_sq += seen.sum_sq;
                let largest = seen.max.max(-seen.min);
                // The tables hold counts of the old width.
                if !self.histogram.fits(largest) {
                    binner.finish(&mut self.histogram);
                    self.histogram.fit(largest);
                }
                self.histogram.zeros += seen.zeros;
                binner.add(&mut self.histogram, tile, (seen.min, seen.max), next);
            }
            self.sum += sum;
            self.sum_sq += sum_sq;
        }
        binner.finish(&mut self.histogram);
        self.min = self.min.min(range.0);
        self.max = self.max.max(range.1);
        if range.0 > range.1 { (0.0, 0.0) } else { range }
    }

    /// [`Self::observe`] on all threads of the pool; the result is the same to the last bit.
    pub fn observe_parallel(&mut self, values: &[f32]) -> (f32, f32) {
        if values.len() <= PART {
            return self.observe(values);
        }
        let parts: Vec<(Self, (f32, f32))> = values
            .par_chunks(PART)
            .map(|part| {
                let mut stats = Self::default();
                let range = stats.observe(part);
                (stats, range)
            })
            .collect();
        let mut all: Option<(f32, f32)> = None;
        for (part, range) in &parts {
            self.merge(part);
            if part.count > 0 {
                all = Some(all.map_or(*range, |all| (all.0.min(range.0), all.1.max(range.1))));
            }
        }
        all.unwrap_or_default()
    }

    /// Adds what another has seen.
    pub fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.rank = self.rank.or(other.rank);
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.sum += other.sum;
        self.sum_sq += other.sum_sq;
        self.non_finite += other.non_finite;
        self.histogram.merge(&other.histogram);
    }

    /// The range seen, widened to contain 0 as quantization needs it.
    pub fn range(&self) -> (f32, f32) {
        (self.min.min(0.0), self.max.max(0.0))
    }

    /// Mean of the finite values; 0 without any.
    pub fn mean(&self) -> f64 {
        self.sum / self.count.max(1) as f64
    }

    /// Variance of the finite values; 0 without any.
    pub fn variance(&self) -> f64 {
        (self.sum_sq / self.count.max(1) as f64 - self.mean() * self.mean()).max(0.0)
    }
}
