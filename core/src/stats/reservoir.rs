//! A fixed number of input rows of one layer, spread evenly over all samples.

use crate::limits;

/// Rank of a row: the rows with the smallest keys are kept. A hash of where the row comes from, so that the kept rows
/// do not depend on the order of the samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RowKey(pub u64);

impl RowKey {
    /// The key of the row at `position` of the sample `sample` of a source with the hash `source`.
    pub fn new(seed: u64, source: u64, sample: u64, position: u64) -> Self {
        let mut key = seed;
        for part in [source, sample, position] {
            key = mix(key ^ part.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        }
        Self(key)
    }
}

/// SplitMix64's finaliser: every input bit reaches every output bit.
fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Rows of one layer's input, each one dot product long (a row of a MatMul's input, a patch under a Conv's kernel).
#[derive(Clone, Debug, PartialEq)]
pub struct RowReservoir {
    /// Values in a row.
    pub width: usize,
    /// The rows, one after the other.
    pub rows: Vec<f32>,
    /// For each row, the smallest and largest value of the whole input tensor in that sample: what dynamic
    /// quantization would use.
    pub ranges: Vec<(f32, f32)>,
    /// For each row, its rank.
    pub keys: Vec<RowKey>,
}

impl RowReservoir {
    /// An empty reservoir for rows of `width` values.
    pub fn new(width: usize) -> Self {
        Self { width, rows: Vec::new(), ranges: Vec::new(), keys: Vec::new() }
    }

    /// Most rows kept: [`limits::RESERVOIR_ROWS`], fewer where [`limits::RESERVOIR_BYTES`] would be exceeded, but never
    /// fewer than [`limits::RESERVOIR_MIN_ROWS`].
    pub fn capacity(&self) -> usize {
        let fit = limits::RESERVOIR_BYTES / (4 * self.width.max(1));
        fit.clamp(limits::RESERVOIR_MIN_ROWS, limits::RESERVOIR_ROWS)
    }

    /// Rows held.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether no row is held.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The key that a row has to be below to be kept, once as many are held as ever will be.
    pub fn bound(&self) -> Option<RowKey> {
        if self.len() < self.capacity() { None } else { self.keys.iter().max().copied() }
    }

    /// Whether a row with this key would be kept.
    pub fn wants(&self, key: RowKey) -> bool {
        self.width > 0
            && !self.keys.contains(&key)
            && (self.len() < self.capacity() || self.keys.iter().any(|&k| k > key))
    }

    /// Keeps `row` if its key is among the smallest; a row of another width is refused.
    pub fn offer(&mut self, key: RowKey, range: (f32, f32), row: &[f32]) {
        if row.len() != self.width || !self.wants(key) {
            return;
        }
        if self.len() < self.capacity() {
            self.rows.extend_from_slice(row);
            self.ranges.push(range);
            self.keys.push(key);
        } else if let Some((last, _)) = self.keys.iter().enumerate().max_by_key(|(_, key)| **key) {
            self.rows[last * self.width..][..self.width].copy_from_slice(row);
            self.ranges[last] = range;
            self.keys[last] = key;
        }
    }

    /// Adds the rows of another reservoir of the same width.
    pub fn merge(&mut self, other: &Self) {
        for ((row, &range), &key) in other.rows.chunks(other.width.max(1)).zip(&other.ranges).zip(&other.keys) {
            self.offer(key, range, row);
        }
    }

    /// Puts the rows in the order of their keys: the same rows then make the same bytes.
    pub fn sort(&mut self) {
        let mut order: Vec<usize> = (0..self.len()).collect();
        order.sort_by_key(|&i| self.keys[i]);
        if order.is_sorted() {
            return;
        }
        self.rows = order.iter().flat_map(|&i| self.rows[i * self.width..][..self.width].iter().copied()).collect();
        self.ranges = order.iter().map(|&i| self.ranges[i]).collect();
        self.keys = order.iter().map(|&i| self.keys[i]).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(samples: impl Iterator<Item = u64>) -> RowReservoir {
        let mut rows = RowReservoir::new(3);
        for sample in samples {
            for position in 0..20 {
                rows.offer(RowKey::new(7, 1, sample, position), (0.0, 1.0), &[sample as f32, position as f32, 0.0]);
            }
        }
        rows.sort();
        rows
    }

    #[test]
    fn the_same_rows_are_kept_in_any_order_and_from_parts() {
        let forward = filled(0..500);
        assert_eq!(forward, filled((0..500).rev()));
        let mut parts = filled(250..500);
        parts.merge(&filled(0..250));
        parts.merge(&filled(100..200));
        parts.sort();
        assert_eq!(forward, parts);
        assert_eq!(forward.len(), limits::RESERVOIR_ROWS);
    }

    #[test]
    fn rows_come_from_all_over() {
        let rows = filled(0..500);
        let early = rows.rows.chunks(3).filter(|row| row[0] < 250.0).count();
        assert!((44..=84).contains(&early), "{early} of 128 from the first half");
    }

    #[test]
    fn wide_rows_are_fewer() {
        assert_eq!(RowReservoir::new(4096).capacity(), 64);
        assert_eq!(RowReservoir::new(1 << 20).capacity(), limits::RESERVOIR_MIN_ROWS);
        let mut empty = RowReservoir::new(0);
        empty.offer(RowKey(1), (0.0, 0.0), &[]);
        assert!(empty.is_empty());
    }
}
