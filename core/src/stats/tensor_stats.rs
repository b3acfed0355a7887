//! Everything known about the values of one activation tensor.

use rayon::prelude::*;

use super::bins::Binner;
use super::moments::Moments;
use super::{Channels, Histogram};

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
/// Values handled at a time: 16 KiB, so that the second pass reads from the nearest cache.
const TILE: usize = 1 << 12;

/// Moments of values that lie in one plane, and the plane's number.
type Piece = (usize, Moments);

/// A range that may be of no value, as people read it.
fn range(seen: (f32, f32)) -> (f32, f32) {
    if seen.0 > seen.1 { (0.0, 0.0) } else { seen }
}

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
        range(self.look(values, 0, usize::MAX, &mut |_, _| {}))
    }

    /// [`Self::observe`] on all threads of the pool; the result is the same to the last bit.
    pub fn observe_parallel(&mut self, values: &[f32]) -> (f32, f32) {
        range(self.look_parallel(values, usize::MAX, &mut |_, _| {}))
    }

    /// [`Self::observe`] or [`Self::observe_parallel`], and lets `channels` see the values of `[N, C, …]` on the way,
    /// `plane` of them a channel.
    pub(crate) fn observe_planes(
        &mut self,
        values: &[f32],
        plane: usize,
        channels: &mut Channels,
        parallel: bool,
    ) -> (f32, f32) {
        let count = channels.len().max(1);
        let each = &mut |at: usize, seen: &Moments| channels.take(at % count, seen);
        let seen = if parallel { self.look_parallel(values, plane, each) } else { self.look(values, 0, plane, each) };
        channels.count += (values.len() / count) as u64;
        range(seen)
    }

    /// Adds values that begin at `start` of their tensor, and shows the moments of every piece that lies in one plane of
    /// so many values, with the plane's number. Returns the smallest and largest finite value.
    fn look(
        &mut self,
        values: &[f32],
        start: usize,
        plane: usize,
        each: &mut impl FnMut(usize, &Moments),
    ) -> (f32, f32) {
        let mut binner = Binner::new(values.len());
        let mut range = (f32::INFINITY, f32::NEG_INFINITY);
        let (mut finite, mut piece_finite) = (Vec::new(), Vec::new());
        let mut at = start;
        for part in values.chunks(PART) {
            let (mut sum, mut sum_sq) = (0.0, 0.0);
            let mut tiles = part.chunks(TILE).peekable();
            while let Some(mut tile) = tiles.next() {
                let mut seen = Moments::NONE;
                let mut rest = tile;
                while !rest.is_empty() {
                    let (piece, after) = rest.split_at((plane - at % plane).min(rest.len()));
                    let moments = Moments::of_finite(piece, &mut piece_finite);
                    each(at / plane, &moments);
                    seen.add(&moments);
                    at += piece.len();
                    rest = after;
                }
                if seen.non_finite > 0 {
                    self.non_finite += seen.non_finite;
                    finite.clear();
                    finite.extend(tile.iter().copied().filter(|x| x.is_finite()));
                    tile = &finite;
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
                let next = tiles.peek().copied().unwrap_or_default();
                binner.add(&mut self.histogram, tile, (seen.min, seen.max), next);
            }
            self.sum += sum;
            self.sum_sq += sum_sq;
        }
        binner.finish(&mut self.histogram);
        self.min = self.min.min(range.0);
        self.max = self.max.max(range.1);
        range
    }

    /// [`Self::look`] on all threads of the pool, the pieces shown in the same order.
    fn look_parallel(&mut self, values: &[f32], plane: usize, each: &mut impl FnMut(usize, &Moments)) -> (f32, f32) {
        if values.len() <= PART {
            return self.look(values, 0, plane, each);
        }
        let parts: Vec<(Self, (f32, f32), Vec<Piece>)> = values
            .par_chunks(PART)
            .enumerate()
            .map(|(i, part)| {
                let (mut stats, mut pieces) = (Self::default(), Vec::new());
                let range = stats.look(part, i * PART, plane, &mut |at, seen| {
                    if plane != usize::MAX {
                        pieces.push((at, *seen));
                    }
                });
                (stats, range, pieces)
            })
            .collect();
        let mut all = (f32::INFINITY, f32::NEG_INFINITY);
        for (part, range, pieces) in &parts {
            self.merge(part);
            all = (all.0.min(range.0), all.1.max(range.1));
            for (at, seen) in pieces {
                each(*at, seen);
            }
        }
        all
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
