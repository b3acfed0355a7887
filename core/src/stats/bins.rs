//! The inner loop of the histogram: which bin each value falls in.

use std::cell::RefCell;

use super::histogram::{HALF, Histogram};
use crate::simd::{prefetch, vectorised};

/// Values from which separate tables are worth adding up afterwards.
const LARGE: usize = 1 << 14;
/// Tables filled in turn, so that runs of equal values do not wait for their own last store.
const TABLES: usize = 4;
/// Values whose bins are found at a time.
const RUN: usize = 1024;
/// Values of a line of the cache.
const LINE: usize = 16;
/// Bins of a histogram.
const BINS: usize = 2 * HALF;
/// Places for zeros, which are counted elsewhere: a Relu makes so many of them that counting them at one place would
/// keep each waiting for the one before.
const SPARE: usize = 8;
/// Places of a table, a power of two: the bins, then those for zeros.
const PLACES: usize = 2 * BINS;

type Table = [u32; PLACES];

thread_local! {
    /// Tables of zeros for the next tensor: clearing what was used costs less than new memory.
    static IDLE: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
}

/// Counts values into a histogram; holds tables of its own while a tensor is large.
pub(super) struct Binner {
    /// [`TABLES`] of them, one after the other, or none.
    tables: Vec<u32>,
    /// The smallest and largest value in the tables.
    range: (f32, f32),
}

impl Binner {
    /// A binner for a tensor of `count` values (fewer than 2³⁴, a quarter in each table).
    pub(super) fn new(count: usize) -> Self {
        let mut tables = Vec::new();
        if count >= LARGE {
            tables = IDLE.take();
            tables.resize(TABLES * PLACES, 0);
        }
        Self { tables, range: (0.0, 0.0) }
    }

    /// Counts finite values of `range`, leaving out zeros. The values fit the histogram's width ([`Histogram::fit`]),
    /// which only changes after [`Self::finish`]. `next` is what will be looked at after this.
    pub(super) fn add(&mut self, histogram: &mut Histogram, values: &[f32], range: (f32, f32), next: &[f32]) {
        self.range = (self.range.0.min(range.0), self.range.1.max(range.1));
        let inverse = inverse(histogram);
        let mut places = [0_u16; RUN];
        let mut ahead = next.chunks(RUN);
        for run in values.chunks(RUN) {
            let places = &mut places[..run.len()];
            find(places, run, inverse);
            let mut lines = ahead.next().unwrap_or_default().chunks(LINE);
            if let [a, b, c, d] = self.tables.as_chunks_mut::<PLACES>().0 {
                for places in places.chunks(LINE) {
                    // Counting keeps the memory idle, which is the other half of the time: a line at a time, since many
                    // at once would have to wait for one another.
                    prefetch(lines.next().unwrap_or_default());
                    let (fours, rest) = places.as_chunks::<TABLES>();
                    for &[w, x, y, z] in fours {
                        up(a, w);
                        up(b, x);
                        up(c, y);
                        up(d, z);
                    }
                    for &place in rest {
                        up(a, place);
                    }
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
        self.range = (0.0, 0.0);
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

/// Counts one more, without the check for overflow that debug builds add: fewer than 2³² values come between two sums.
#[inline(always)]
#[allow(clippy::inline_always)]
fn up(table: &mut Table, place: u16) {
    let count = &mut table[usize::from(place) % PLACES];
    *count = count.wrapping_add(1);
}

/// 2²³: added to a number of 0..2²², it leaves the nearest integer in the low bits.
const INTEGERS: f32 = 8_388_608.0;

/// The places for zeros in turn. A table, since counting along costs checks in debug builds, and those the vectors.
static SPARES: [u16; RUN] = {
    let mut spares = [0; RUN];
    let mut i = 0;
    while i < RUN {
        spares[i] = (BINS + i % SPARE) as u16;
        i += 1;
    }
    spares
};

vectorised! {
    /// The place of each of up to [`RUN`] values: its bin, or one of those for zeros.
    fn find(places: &mut [u16], values: &[f32], inverse: f32) {
        for ((place, &x), &spare) in places.iter_mut().zip(values).zip(&SPARES) {
            let magnitude = x.abs() * inverse;
            let nearest = magnitude + INTEGERS;
            let above = i32::from(nearest - INTEGERS > magnitude);
            let bin = (nearest.to_bits() as i32).wrapping_sub(INTEGERS.to_bits() as i32).wrapping_sub(above);
            let bin = (bin ^ (x.to_bits() as i32 >> 31)).wrapping_add(HALF as i32);
            *place = if x == 0.0 { spare } else { bin as u16 % PLACES as u16 };
        }
    }
}

vectorised! {
    /// Adds the counts of all tables to `counts` and clears them.
    fn add_up(counts: &mut [u64], a: &mut [u32], b: &mut [u32], c: &mut [u32], d: &mut [u32]) {
        for ((((count, a), b), c), d) in counts.iter_mut().zip(&*a).zip(&*b).zip(&*c).zip(&*d) {
            let sum = u64::from(*a).wrapping_add(u64::from(*b)).wrapping_add(u64::from(*c)).wrapping_add(u64::from(*d));
            *count = count.wrapping_add(sum);
        }
        for table in [a, b, c, d] {
            table.fill(0);
        }
    }
}
