//! Statistics as bytes: numbers as LEB128, floats in little endian, names with their lengths.

use crate::limits;
use crate::stats::{Channels, Ends, Histogram, RowKey, RowReservoir, SampleId, SampleRanges, TensorStats};

/// Appends values to bytes: numbers as LEB128, floats in little endian.
#[derive(Default)]
pub(super) struct Writer(pub(super) Vec<u8>);

impl Writer {
    pub(super) fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    pub(super) fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.0.extend_from_slice(text.as_bytes());
    }

    fn float(&mut self, value: f32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn double(&mut self, value: f64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn tensor(&mut self, stats: &TensorStats) {
        self.number(stats.count);
        // 0 for an unknown rank, so that scalars can be told from it.
        self.number(stats.rank.map_or(0, |rank| u64::from(rank) + 1));
        self.float(stats.min);
        self.float(stats.max);
        self.double(stats.sum);
        self.double(stats.sum_sq);
        self.number(stats.non_finite);
        let histogram = &stats.histogram;
        self.number(histogram.zeros);
        self.0.extend_from_slice(&histogram.exponent.to_le_bytes());
        let used: Vec<_> = histogram.counts.iter().enumerate().filter(|(_, count)| **count > 0).collect();
        self.number(used.len() as u64);
        used.into_iter().fold(0, |next, (i, &count)| {
            self.number((i - next) as u64);
            self.number(count);
            i + 1
        });
    }

    pub(super) fn channels(&mut self, channels: &Channels) {
        self.number(channels.len() as u64);
        self.number(channels.count);
        for ((&min, &max), &sum) in channels.min.iter().zip(&channels.max).zip(&channels.sum_abs) {
            self.float(min);
            self.float(max);
            self.double(sum);
        }
    }

    pub(super) fn sample_ranges(&mut self, by_sample: &SampleRanges) {
        self.number(by_sample.seen);
        self.number(by_sample.kept.len() as u64);
        for (key, sample) in &by_sample.kept {
            self.0.extend_from_slice(&key.0.to_le_bytes());
            self.sample(*sample);
        }
        self.number(by_sample.ends.len() as u64);
        for (name, ends) in &by_sample.ends {
            self.text(name);
            for (value, sample) in [ends.min, ends.max] {
                self.float(value);
                self.sample(sample);
            }
            let ranges = by_sample.ranges.get(name).map(Vec::as_slice).unwrap_or_default();
            self.number(ranges.len() as u64);
            for &(lo, hi) in ranges {
                self.float(lo);
                self.float(hi);
            }
        }
    }

    fn sample(&mut self, sample: SampleId) {
        self.0.extend_from_slice(&sample.source.to_le_bytes());
        self.number(sample.sample);
    }

    pub(super) fn reservoir(&mut self, rows: &RowReservoir) {
        let mut rows = rows.clone();
        rows.sort();
        self.number(rows.width as u64);
        self.number(rows.len() as u64);
        for ((row, &(lo, hi)), key) in rows.rows.chunks(rows.width.max(1)).zip(&rows.ranges).zip(&rows.keys) {
            self.0.extend_from_slice(&key.0.to_le_bytes());
            self.float(lo);
            self.float(hi);
            for &x in row {
                self.float(x);
            }
        }
    }
}

/// Takes values off the front of bytes; `None` when they do not fit.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    pub(super) fn number(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let [byte] = self.bytes()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn length(&mut self) -> Option<usize> {
        usize::try_from(self.number()?).ok()
    }

    fn slice(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }

    pub(super) fn text(&mut self) -> Option<String> {
        let len = self.length()?;
        String::from_utf8(self.slice(len)?.to_vec()).ok()
    }

    fn float(&mut self) -> Option<f32> {
        self.bytes().map(f32::from_le_bytes)
    }

    fn double(&mut self) -> Option<f64> {
        self.bytes().map(f64::from_le_bytes)
    }

    pub(super) fn tensor(&mut self) -> Option<TensorStats> {
        let count = self.number()?;
        let rank = match self.number()? {
            0 => None,
            rank => Some(u32::try_from(rank - 1).ok()?),
        };
        let (min, max) = (self.float()?, self.float()?);
        let (sum, sum_sq) = (self.double()?, self.double()?);
        let non_finite = self.number()?;
        let zeros = self.number()?;
        let exponent = i32::from_le_bytes(self.bytes()?);
        let mut histogram = Histogram { exponent, zeros, ..Histogram::default() };
        let mut next = 0_usize;
        for _ in 0..self.number()? {
            let i = next.checked_add(self.length()?)?;
            *histogram.counts.get_mut(i)? = self.number()?;
            next = i + 1;
        }
        let total = histogram.counts.iter().try_fold(zeros, |sum, &n| sum.checked_add(n));
        let sound = (-126..=117).contains(&exponent) && total == Some(count);
        sound.then_some(TensorStats { count, rank, min, max, sum, sum_sq, non_finite, histogram })
    }

    pub(super) fn channels(&mut self) -> Option<Channels> {
        let (len, count) = (self.number()?, self.number()?);
        let mut channels = Channels { count, ..Channels::default() };
        for _ in 0..len {
            channels.min.push(self.float()?);
            channels.max.push(self.float()?);
            channels.sum_abs.push(self.double()?);
        }
        Some(channels)
    }

    pub(super) fn sample_ranges(&mut self) -> Option<SampleRanges> {
        let mut by_sample = SampleRanges { seen: self.number()?, ..SampleRanges::default() };
        for _ in 0..self.number()? {
            by_sample.kept.push((RowKey(self.bytes().map(u64::from_le_bytes)?), self.sample()?));
        }
        for _ in 0..self.number()? {
            let name = self.text()?;
            let ends = Ends { min: (self.float()?, self.sample()?), max: (self.float()?, self.sample()?) };
            let mut ranges = Vec::new();
            for _ in 0..self.number()? {
                ranges.push((self.float()?, self.float()?));
            }
            let fits = ranges.len() == by_sample.kept.len() || ranges.is_empty();
            if !fits {
                return None;
            }
            if !ranges.is_empty() {
                by_sample.ranges.insert(name.clone(), ranges);
            }
            by_sample.ends.insert(name, ends);
        }
        let ordered = by_sample.kept.is_sorted_by(|a, b| a.0 < b.0);
        (ordered && by_sample.kept.len() <= limits::SAMPLE_RANGES).then_some(by_sample)
    }

    fn sample(&mut self) -> Option<SampleId> {
        Some(SampleId { source: self.bytes().map(u64::from_le_bytes)?, sample: self.number()? })
    }

    pub(super) fn reservoir(&mut self) -> Option<RowReservoir> {
        let mut rows = RowReservoir::new(self.length()?);
        for _ in 0..self.number()? {
            rows.keys.push(RowKey(self.bytes().map(u64::from_le_bytes)?));
            rows.ranges.push((self.float()?, self.float()?));
            let values = self.slice(rows.width.checked_mul(4)?)?;
            rows.rows.extend(values.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)));
        }
        (rows.len() <= rows.capacity()).then_some(rows)
    }
}
