//! The inner loop of the histogram: which bin each value falls in.

use super::histogram::{HALF, Histogram};
use crate::simd::vectorised;

/// Values from which separate tables are worth clearing and adding up.
const LARGE: usize = 1 << 15;
/// Tables filled in turn, so that runs of equal values do not wait for their own last store.
const TABLES: usize = 4;

/// Values whose bins are found at a time.
const RUN: usize = 1024;
/// Largest index of a bin.
const LAST: usize = 2 * HALF - 1;

/// Counts values into a histogram; keeps its own tables while a tensor is large.
pub(super) struct Binner {
    tables: Vec<[u32; 2 * HALF]>,
}

impl Binner {
    /// A binner for a tensor of `count` values (fewer than 2³⁴, a quarter in each table).
    pub(super) fn new(count: usize) -> Self {
        Self { tables: vec![[0; 2 * HALF]; if count >= LARGE { TABLES } else { 0 }] }
    }

    /// Counts finite values, `zeros` of which are 0. The values fit the histogram's width ([`Histogram::fit`]), which
    /// only changes after [`Self::finish`].
    pub(super) fn add(&mut self, histogram: &mut Histogram, values: &[f32], zeros: u64) {
        histogram.zeros += zeros;
        // A power of two, so the product is exact; where it is too small to be exact it lies in the first bin anyway.
        let inverse = 2.0_f32.powi(-histogram.exponent);
        let mut places = [0_u16; RUN];
        for run in values.chunks(RUN) {
            let places = &mut places[..run.len()];
            find(places, run, inverse);
            if let [a, b, c, d] = &mut self.tables[..] {
                let (fours, rest) = places.as_chunks::<TABLES>();
                for &[w, x, y, z] in fours {
                    up(&mut a[usize::from(w) & LAST]);
                    up(&mut b[usize::from(x) & LAST]);
                    up(&mut c[usize::from(y) & LAST]);
                    up(&mut d[usize::from(z) & LAST]);
                }
                for &place in rest {
                    up(&mut a[usize::from(place) & LAST]);
                }
            } else {
                for &place in &*places {
                    histogram.counts[usize::from(place)] += 1;
                }
            }
        }
        // Zeros are counted apart: take them out of the bin that begins at 0.
        let mut left = zeros;
        for table in &mut self.tables {
            let taken = left.min(u64::from(table[HALF]));
            table[HALF] -= taken as u32;
            left -= taken;
        }
        histogram.counts[HALF] -= left;
    }

    /// Adds the tables to the histogram and clears them.
    pub(super) fn finish(&mut self, histogram: &mut Histogram) {
        for table in &mut self.tables {
            for (count, part) in histogram.counts.iter_mut().zip(table) {
                *count += u64::from(std::mem::take(part));
            }
        }
    }
}

/// Counts one more, without the check for overflow that debug builds add: fewer than 2³² values come between two sums.
#[inline(always)]
#[allow(clippy::inline_always)]
fn up(count: &mut u32) {
    *count = count.wrapping_add(1);
}

/// 2²³: added to a number of 0..2²², it leaves the nearest integer in the low bits.
const INTEGERS: f32 = 8_388_608.0;

vectorised! {
    /// The index of each value's bin, `inverse` being 1 / width.
    fn find(places: &mut [u16], values: &[f32], inverse: f32) {
        for (place, &x) in places.iter_mut().zip(values) {
            // Adding +0 turns −0 into it, so that all zeros meet in one bin.
            let x = x + 0.0;
            let magnitude = x.abs() * inverse;
            let nearest = magnitude + INTEGERS;
            let above = i32::from(nearest - INTEGERS > magnitude);
            let bin = (nearest.to_bits() as i32).wrapping_sub(INTEGERS.to_bits() as i32).wrapping_sub(above);
            *place = (bin ^ (x.to_bits() as i32 >> 31)).wrapping_add(HALF as i32) as u16 & LAST as u16;
        }
    }
}
