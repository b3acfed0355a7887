//! The ranges that single samples had: which of them set the range of a tensor, and what there would be without it.

use std::collections::BTreeMap;

use super::RowKey;
use crate::limits;

/// A sample: which source, and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SampleId {
    /// A hash of the source's description, see [`Self::new`].
    pub source: u64,
    /// Number of the sample in its source, from 0.
    pub sample: u64,
}

impl SampleId {
    /// Sample `sample` of the source that is described so.
    pub fn new(source: &str, sample: u64) -> Self {
        // FNV-1a: the same on every machine and in every release.
        let source = source
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
        Self { source, sample }
    }

    /// Its rank among samples: those with the smallest are kept.
    fn key(self, seed: u64) -> RowKey {
        // No row is at this position, so that samples are chosen apart from rows.
        RowKey::new(seed, self.source, self.sample, u64::MAX)
    }
}

/// The smallest and the largest value of a tensor over all samples, and the samples that hold them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ends {
    /// Smallest value, and the first sample (by [`SampleId`]) that has it.
    pub min: (f32, SampleId),
    /// Largest value, and the first sample that has it.
    pub max: (f32, SampleId),
}

/// What stands for a tensor without a finite value in a sample.
const NOTHING: (f32, f32) = (f32::INFINITY, f32::NEG_INFINITY);

/// Smallest and largest value of every tensor in every sample, for at most [`limits::SAMPLE_RANGES`] samples; beyond these
/// some are kept, chosen by a hash so that they do not depend on the order of the samples. Who holds the ends of a range is
/// known over all samples.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SampleRanges {
    /// Samples that went in.
    pub(super) seen: u64,
    /// The samples kept with their ranks, the smallest rank first.
    pub(super) kept: Vec<(RowKey, SampleId)>,
    /// By tensor: one range a kept sample.
    pub(super) ranges: BTreeMap<String, Vec<(f32, f32)>>,
    /// By tensor: who holds its ends.
    pub(super) ends: BTreeMap<String, Ends>,
}

impl SampleRanges {
    /// Adds a sample in which tensors had these ranges.
    pub fn add<'a>(&mut self, seed: u64, sample: SampleId, shown: impl IntoIterator<Item = (&'a str, (f32, f32))>) {
        self.seen += 1;
        let key = sample.key(seed);
        let place = self.place(key);
        if let Some(at) = place {
            self.kept.insert(at, (key, sample));
            for ranges in self.ranges.values_mut() {
                ranges.insert(at, NOTHING);
            }
        }
        for (name, range) in shown {
            self.reach(name, Ends { min: (range.0, sample), max: (range.1, sample) });
            if let Some(at) = place {
                let count = self.kept.len();
                let ranges = match self.ranges.get_mut(name) {
                    Some(ranges) => ranges,
                    None => self.ranges.entry(name.to_owned()).or_insert_with(|| vec![NOTHING; count]),
                };
                if let Some(slot) = ranges.get_mut(at) {
                    *slot = range;
                }
            }
        }
        self.shorten();
    }

    /// Adds what another has seen.
    pub fn merge(&mut self, other: &Self) {
        self.seen += other.seen;
        for (name, ends) in &other.ends {
            self.reach(name, *ends);
        }
        for (from, &(key, sample)) in other.kept.iter().enumerate() {
            let Some(at) = self.place(key) else { continue };
            self.kept.insert(at, (key, sample));
            let count = self.kept.len();
            for ranges in self.ranges.values_mut() {
                ranges.insert(at, NOTHING);
            }
            for (name, theirs) in &other.ranges {
                let ranges = self.ranges.entry(name.clone()).or_insert_with(|| vec![NOTHING; count]);
                if let (Some(slot), Some(&range)) = (ranges.get_mut(at), theirs.get(from)) {
                    *slot = range;
                }
            }
            self.shorten();
        }
    }

    /// Samples that went in.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// The samples whose ranges are kept.
    pub fn samples(&self) -> impl ExactSizeIterator<Item = SampleId> + '_ {
        self.kept.iter().map(|(_, sample)| *sample)
    }

    /// By tensor: who holds its ends, and the ranges of the kept samples, in the order of [`Self::samples`]. A range of a
    /// tensor that had no finite value in a sample has its ends the wrong way round.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &Ends, &[(f32, f32)])> {
        self.ends.iter().filter_map(|(name, ends)| Some((name.as_str(), ends, self.ranges.get(name)?.as_slice())))
    }

    /// Where a sample of this rank would be put; `None` when it is not kept, or is there already.
    fn place(&self, key: RowKey) -> Option<usize> {
        let at = self.kept.binary_search_by_key(&key, |(key, _)| *key).err()?;
        (at < limits::SAMPLE_RANGES).then_some(at)
    }

    fn shorten(&mut self) {
        if self.kept.len() > limits::SAMPLE_RANGES {
            self.kept.truncate(limits::SAMPLE_RANGES);
            for ranges in self.ranges.values_mut() {
                ranges.truncate(limits::SAMPLE_RANGES);
            }
        }
    }

    fn reach(&mut self, name: &str, theirs: Ends) {
        let Some(ends) = self.ends.get_mut(name) else {
            self.ends.insert(name.to_owned(), theirs);
            return;
        };
        let (min, max) = (theirs.min, theirs.max);
        if min.0 < ends.min.0 || (min.0 == ends.min.0 && min.1 < ends.min.1) {
            ends.min = min;
        }
        if max.0 > ends.max.0 || (max.0 == ends.max.0 && max.1 < ends.max.1) {
            ends.max = max;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(sample: u64, tensor: u64) -> (f32, f32) {
        let unit = |salt| (RowKey::new(5, tensor, sample, salt).0 >> 40) as f32 / 16_777_216.0;
        (-unit(1), unit(2))
    }

    fn gathered(samples: impl Iterator<Item = u64>) -> SampleRanges {
        let mut all = SampleRanges::default();
        for sample in samples {
            let shown = [("a", range(sample, 0)), ("b", range(sample, 1))];
            // One tensor that only some samples show.
            let count = if sample.is_multiple_of(3) { 2 } else { 1 };
            all.add(7, SampleId::new("data.npz", sample), shown.into_iter().take(count));
        }
        all
    }

    #[test]
    fn the_same_samples_are_kept_in_any_order_and_from_parts() {
        let count = 3 * limits::SAMPLE_RANGES as u64;
        let forward = gathered(0..count);
        assert_eq!(forward, gathered((0..count).rev()));
        let mut parts = gathered(count / 2..count);
        parts.merge(&gathered(0..count / 2));
        assert_eq!(forward, parts);
        assert_eq!((forward.seen(), forward.samples().len()), (count, limits::SAMPLE_RANGES));
        assert!(forward.tensors().all(|(_, _, ranges)| ranges.len() == limits::SAMPLE_RANGES));
    }

    #[test]
    fn every_range_stands_beside_its_sample_and_ends_know_all_samples() {
        let count = 2 * limits::SAMPLE_RANGES as u64;
        let all = gathered(0..count);
        for (name, ends, ranges) in all.tensors() {
            let (tensor, step) = if name == "a" { (0, 1) } else { (1, 3) };
            for (id, &seen) in all.samples().zip(ranges) {
                let shown = id.sample.is_multiple_of(step);
                assert_eq!(seen, if shown { range(id.sample, tensor) } else { NOTHING }, "{name} {id:?}");
            }
            let most =
                (0..count).step_by(step as usize).max_by(|&i, &j| range(i, tensor).1.total_cmp(&range(j, tensor).1));
            assert_eq!(Some(ends.max.1.sample), most, "{name}");
            assert_eq!(Some(ends.max.0), most.map(|sample| range(sample, tensor).1));
        }
    }
}
