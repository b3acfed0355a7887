//! A histogram that depends only on which values went in, never on their order or batching.

/// Bins each side of zero.
pub(super) const HALF: usize = 2048;
/// Finest width of a bin, 2^-126: below it the factor that finds a bin would overflow.
const FINEST: i32 = -126;

/// Counts in bins of width 2^`exponent`, aligned at zero: the bin `i` holds `i·width <= x < (i+1)·width`, its count at
/// `counts[i + 2048]`. Negative values go by their magnitude: the bin `-i` holds `-i·width < x <= -(i-1)·width`.
/// Exact zeros are counted apart, since quantization never changes them.
///
/// The width is the least power of two with which the largest magnitude fits, and growing merges pairs of bins, so the
/// result is a function of the multiset of values alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    /// The bins are 2^exponent wide.
    pub exponent: i32,
    /// 4096 counts, from the most negative bin to the most positive.
    pub counts: Vec<u64>,
    /// Values that were 0 or −0.
    pub zeros: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { exponent: FINEST, counts: vec![0; 2 * HALF], zeros: 0 }
    }
}

impl Histogram {
    /// Width of a bin.
    pub fn width(&self) -> f64 {
        2.0_f64.powi(self.exponent)
    }

    /// Every bin from the first to the last that is not empty: lower edge, upper edge, count. Zeros are not in it.
    pub fn bins(&self) -> impl DoubleEndedIterator<Item = (f64, f64, u64)> + '_ {
        let first = self.counts.iter().position(|&n| n > 0).unwrap_or(0);
        let end = self.counts.iter().rposition(|&n| n > 0).map_or(first, |last| last + 1);
        let width = self.width();
        (first..end).map(move |i| {
            let lo = (i as f64 - HALF as f64) * width;
            (lo, lo + width, self.counts[i])
        })
    }

    /// All values counted, zeros included.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum::<u64>() + self.zeros
    }

    /// Adds another histogram's counts.
    pub fn merge(&mut self, other: &Self) {
        self.zeros += other.zeros;
        self.grow(other.exponent);
        let shift = (self.exponent - other.exponent).clamp(0, 31) as u32;
        for (i, &count) in other.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            self.counts[merged(i, shift)] += count;
        }
    }

    /// Widens the bins so that magnitudes up to `largest` (finite) fit.
    pub(super) fn fit(&mut self, largest: f32) {
        self.grow(needed(largest));
    }

    /// Whether magnitudes up to `largest` (finite) fit.
    pub(super) fn fits(&self, largest: f32) -> bool {
        needed(largest) <= self.exponent
    }

    fn grow(&mut self, exponent: i32) {
        if exponent <= self.exponent {
            return;
        }
        let shift = (exponent - self.exponent).min(31) as u32;
        let old = std::mem::replace(&mut self.counts, vec![0; 2 * HALF]);
        for (i, count) in old.into_iter().enumerate().filter(|(_, count)| *count > 0) {
            self.counts[merged(i, shift)] += count;
        }
        self.exponent = exponent;
    }
}

/// The exponent that a magnitude needs: |x| < 2^(k+1) fits 2048 bins of 2^(k-10).
fn needed(largest: f32) -> i32 {
    let biased = (largest.to_bits() >> 23) as i32 & 0xff;
    (biased - 127 - 10).max(FINEST)
}

/// Where the count at index `i` goes when bins become 2^shift times as wide.
fn merged(i: usize, shift: u32) -> usize {
    (((i as i32 - HALF as i32) >> shift) + HALF as i32) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_of_both_signs_merge_towards_zero() {
        let mut histogram = Histogram::default();
        histogram.counts[HALF] = 1;
        histogram.counts[HALF + 1] = 2;
        histogram.counts[HALF - 1] = 4;
        histogram.counts[HALF - 3] = 8;
        histogram.grow(FINEST + 1);
        let counts: Vec<_> = histogram.bins().map(|bin| bin.2).collect();
        assert_eq!(counts, [8, 4, 3]);
        histogram.grow(100);
        let counts: Vec<_> = histogram.bins().map(|bin| bin.2).collect();
        assert_eq!(counts, [12, 3]);
    }

    #[test]
    fn the_largest_finite_value_fits() {
        let mut histogram = Histogram::default();
        histogram.fit(f32::MAX);
        assert!(2048.0 * histogram.width() > f64::from(f32::MAX));
        assert_eq!(histogram.bins().count(), 0);
    }
}
