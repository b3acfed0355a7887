//! The inner loop of the histogram: counting how many values fall in each bin.

use std::cell::RefCell;

use super::histogram::Histogram;
use super::places::{BINS, PLACES, RUN, SPARE, find};
use crate::simd::{prefetch, vectorised};

/// Values from which separate tables are worth adding up afterwards.
const LARGE: usize = 1 << 14;
/// Tables filled in turn, so that runs of equal values do not wait for their own last store.
const TABLES: usize = 4;
/// Values of a line of the cache.
const LINE: usize = 16;
/// Counts in 16 bits: tables that fill half of the nearest cache are faster than those that fill it.
type Table = [u16; PLACES];
/// Values after which a place may have reached its limit: a quarter of them, and those at most, are counted in one.
const LIMIT: usize = 1 << 17;

thread_local! {
    /// Tables of zeros for the next tensor: clearing what was used costs less than new memory.
    static IDLE: RefCell<Vec<u16>> = const { RefCell::new(Vec::new()) };
}

/// Counts values into a histogram; holds tables of its own while a tensor is large.
pub(super) struct Binner {
    /// [`TABLES`] of them, one after the other, or none.
    tables: Vec<u16>,
    /// Values in the tables.
    held: usize,
    /// The smallest and largest of them.
    range: (f32, f32),
}

impl Binner {
    /// A binner for a tensor of `count` values.
    pub(super) fn new(count: usize) -> Self {
        let mut tables = Vec::new();
        if count >= LARGE {
            tables = IDLE.take();
            tables.resize(TABLES * PLACES, 0);
        }
        Self { tables, held: 0, range: (0.0, 0.0) }
    }

    /// Counts finite values of `range`, leaving out zeros. The values fit the histogram's width ([`Histogram::fit`]),
    /// which only changes after [`Self::finish`]. `next` is what will be looked at after this.
    pub(super) fn add(&mut self, histogram: &mut Histogram, values: &[f32], range: (f32, f32), next: &[f32]) {
        if self.held + values.len() > LIMIT {
            self.finish(histogram);
        }
        self.held += values.len();
        self.range = (self.range.0.min(range.0), self.range.1.max(range.1));
        let inverse = inverse(histogram);
        let mut places = [0_u16; RUN];
        let mut ahead = next.chunks(RUN);
        for run in values.chunks(RUN) {
            let places = &mut places[..run.len()];
            find(places, run, inverse);
            if let [a, b, c, d] = self.tables.as_chunks_mut::<PLACES>().0 {
                let mut count = |places: &[u16; TABLES]| {
                    up(a, places[0]);
                    up(b, places[1]);
                    up(c, places[2]);
                    up(d, places[3]);
                };
                let mut lines = ahead.next().unwrap_or_default().as_chunks::<LINE>().0.iter();
                let (whole, rest) = places.as_chunks::<LINE>();
                for places in whole {
                    // Counting keeps the memory idle, which is the other half of the time: a line at a time, since many
                    // at once would have to wait for one another.
                    if let Some(line) = lines.next() {
                        prefetch(line);
                    }
                    // Without a loop, which would be as much work as counting.
                    let fours = places.as_chunks().0;
                    count(&fours[0]);
                    count(&fours[1]);
                    count(&fours[2]);
                    count(&fours[3]);
                }
                for &place in rest {
                    up(a, place);
                }
            } else {
                for &place in &*places {
                    if let Some(count) = histogram.counts.get_mut(usize::from(place)) {
                        *count += 1;
                    }
                }
            }
        }
    }

    /// Adds the tables to the histogram and clears them.
    pub(super) fn finish(&mut self, histogram: &mut Histogram) {
        if let [a, b, c, d] = self.tables.as_chunks_mut::<PLACES>().0 {
            let range = [self.range.0.min(-f32::MIN_POSITIVE), self.range.1.max(f32::MIN_POSITIVE)];
            let mut ends = [0; 2];
            find(&mut ends, &range, inverse(histogram));
            let used = usize::from(ends[0])..(usize::from(ends[1]) + 1).min(BINS);
            let counts = &mut histogram.counts[used.clone()];
            add_up(counts, &mut a[used.clone()], &mut b[used.clone()], &mut c[used.clone()], &mut d[used]);
            for table in [a, b, c, d] {
                table[BINS..][..SPARE].fill(0);
            }
        }
        (self.held, self.range) = (0, (0.0, 0.0));
    }
}

impl Drop for Binner {
    fn drop(&mut self) {
        if !self.tables.is_empty() {
            IDLE.set(std::mem::take(&mut self.tables));
        }
    }
}

/// 1 / width. A power of two, so products with it are exact; where they are too small to be exact they lie in the first
/// bin anyway.
fn inverse(histogram: &Histogram) -> f32 {
    2.0_f32.powi(-histogram.exponent)
}

/// Counts one more, without the check for overflow that debug builds add: [`LIMIT`] sees to that.
#[inline(always)]
#[allow(clippy::inline_always)]
fn up(table: &mut Table, place: u16) {
    let count = &mut table[usize::from(place)];
    *count = count.wrapping_add(1);
}

vectorised! {
    /// Adds the counts of all tables to `counts` and clears them.
    fn add_up(counts: &mut [u64], a: &mut [u16], b: &mut [u16], c: &mut [u16], d: &mut [u16]) {
        for ((((count, a), b), c), d) in counts.iter_mut().zip(&*a).zip(&*b).zip(&*c).zip(&*d) {
            let sum = u32::from(*a).wrapping_add(u32::from(*b)).wrapping_add(u32::from(*c)).wrapping_add(u32::from(*d));
            *count = count.wrapping_add(u64::from(sum));
        }
        for table in [a, b, c, d] {
            table.fill(0);
        }
    }
}
