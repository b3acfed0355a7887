//! The inner loop of the histogram: which bin each value falls in.

use super::histogram::{HALF, Histogram};

/// Values from which separate tables are worth clearing and adding up.
const LARGE: usize = 1 << 15;
/// Tables filled in turn, so that runs of equal values do not wait for their own last store.
const TABLES: usize = 4;

/// Counts values into a histogram; keeps its own tables while a tensor is large.
pub(super) struct Binner {
    tables: Vec<[u32; 2 * HALF]>,
}

impl Binner {
    /// A binner for a tensor of `count` values (fewer than 2³² may be added before [`Self::finish`]).
    pub(super) fn new(count: usize) -> Self {
        Self { tables: vec![[0; 2 * HALF]; if count >= LARGE { TABLES } else { 0 }] }
    }

    /// Counts finite values, `zeros` of which are 0. The values fit the histogram's width ([`Histogram::fit`]), which
    /// only changes after [`Self::finish`].
    pub(super) fn add(&mut self, histogram: &mut Histogram, values: &[f32], zeros: u64) {
        histogram.zeros += zeros;
        // A power of two, so the product is exact; where it is too small to be exact it lies in the first bin anyway.
        let inverse = 2.0_f32.powi(-histogram.exponent);
        let index = |x: f32| {
            // Adding +0 turns −0 into it, so that all zeros meet in the bin that they are taken from below.
            let x = x + 0.0;
            let bin = (x.abs() * inverse) as i32 & (HALF as i32 - 1);
            ((bin ^ (x.to_bits() as i32 >> 31)) + HALF as i32) as usize & (2 * HALF - 1)
        };
        if let [a, b, c, d] = &mut self.tables[..] {
            let (fours, rest) = values.as_chunks::<TABLES>();
            for &[w, x, y, z] in fours {
                a[index(w)] += 1;
                b[index(x)] += 1;
                c[index(y)] += 1;
                d[index(z)] += 1;
            }
            for &x in rest {
                a[index(x)] += 1;
            }
            let mut left = zeros;
            for table in [a, b, c, d] {
                let taken = left.min(u64::from(table[HALF]));
                table[HALF] -= taken as u32;
                left -= taken;
            }
        } else {
            for &x in values {
                histogram.counts[index(x)] += 1;
            }
            histogram.counts[HALF] -= zeros;
        }
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
