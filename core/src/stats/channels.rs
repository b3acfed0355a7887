//! Per channel of a layer's input: what scalings are computed from.

use super::moments::Moments;
use crate::simd::vectorised;

/// Which axis of a tensor its channels lie along.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChannelAxis {
    /// The last one (MatMul, Gemm).
    Last,
    /// The second of `[N, C, …]` (convolutions).
    Second,
}

/// Smallest and largest value and mean magnitude of every channel, over all finite values of all samples so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Channels {
    /// Smallest value of each channel; +∞ before the first.
    pub min: Vec<f32>,
    /// Largest value of each channel; −∞ before the first.
    pub max: Vec<f32>,
    /// Sum of the magnitudes of each channel.
    pub sum_abs: Vec<f64>,
    /// Values seen in each channel, those that are not finite included.
    pub count: u64,
}

impl Channels {
    /// Nothing seen yet of `channels` channels.
    pub fn new(channels: usize) -> Self {
        Self {
            min: vec![f32::INFINITY; channels],
            max: vec![f32::NEG_INFINITY; channels],
            sum_abs: vec![0.0; channels],
            count: 0,
        }
    }

    /// Number of channels.
    pub fn len(&self) -> usize {
        self.min.len()
    }

    /// Whether there is no channel.
    pub fn is_empty(&self) -> bool {
        self.min.is_empty()
    }

    /// Values in a row that belong to one channel of a tensor of `count` values; `None` where its channels are others.
    pub(crate) fn plane(&self, axis: ChannelAxis, shape: &[usize], count: usize) -> Option<usize> {
        let channels = self.len();
        let (size, inner): (_, usize) = match axis {
            ChannelAxis::Last => (shape.last(), 1),
            ChannelAxis::Second => (shape.get(1), shape.iter().skip(2).product()),
        };
        let fits = channels > 0 && size == Some(&channels) && count > 0 && inner > 0;
        (fits && count.is_multiple_of(channels * inner)).then_some(inner)
    }

    /// Adds a tensor of this shape; one with another number of channels is left out.
    pub fn observe(&mut self, axis: ChannelAxis, shape: &[usize], values: &[f32]) {
        let Some(inner) = self.plane(axis, shape, values.len()) else { return };
        if inner == 1 {
            rows(values, &mut self.min, &mut self.max, &mut self.sum_abs);
        } else {
            self.planes(values, inner);
        }
        self.count += (values.len() / self.len()) as u64;
    }

    /// Adds values of one channel, but not their number.
    pub(super) fn take(&mut self, channel: usize, seen: &Moments) {
        let parts = (self.min.get_mut(channel), self.max.get_mut(channel), self.sum_abs.get_mut(channel));
        if let (Some(min), Some(max), Some(sum)) = parts {
            *min = min.min(seen.min);
            *max = max.max(seen.max);
            *sum += seen.sum_abs;
        }
    }

    /// Runs of `inner` values belong to one channel.
    fn planes(&mut self, values: &[f32], inner: usize) {
        let (channels, mut finite) = (self.len(), Vec::new());
        for (at, plane) in values.chunks_exact(inner).enumerate() {
            self.take(at % channels, &Moments::of_finite(plane, &mut finite));
        }
    }

    /// Adds what another has seen of as many channels.
    pub fn merge(&mut self, other: &Self) {
        if self.len() != other.len() {
            return;
        }
        for (mine, its) in self.min.iter_mut().zip(&other.min) {
            *mine = mine.min(*its);
        }
        for (mine, its) in self.max.iter_mut().zip(&other.max) {
            *mine = mine.max(*its);
        }
        for (mine, its) in self.sum_abs.iter_mut().zip(&other.sum_abs) {
            *mine += its;
        }
        self.count += other.count;
    }

    /// Largest magnitude of each channel; 0 where nothing finite was seen.
    pub fn largest(&self) -> Vec<f32> {
        self.min.iter().zip(&self.max).map(|(&min, &max)| if min > max { 0.0 } else { max.max(-min) }).collect()
    }

    /// Mean magnitude of each channel.
    pub fn mean_abs(&self) -> Vec<f32> {
        self.sum_abs.iter().map(|sum| (sum / self.count.max(1) as f64) as f32).collect()
    }
}

vectorised! {
    /// Each row of `values` holds one value of every channel.
    fn rows(values: &[f32], min: &mut [f32], max: &mut [f32], sum_abs: &mut [f64]) {
        for row in values.chunks_exact(min.len()) {
            for (((&x, min), max), sum) in row.iter().zip(&mut *min).zip(&mut *max).zip(&mut *sum_abs) {
                let finite = x.is_finite();
                *min = if finite && x < *min { x } else { *min };
                *max = if finite && x > *max { x } else { *max };
                *sum += if finite { f64::from(x.abs()) } else { 0.0 };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_those_of_the_axis() {
        let mut last = Channels::new(2);
        last.observe(ChannelAxis::Last, &[2, 2], &[1.0, -2.0, f32::NAN, 4.0]);
        assert_eq!((last.largest(), last.mean_abs()), (vec![1.0, 4.0], vec![0.5, 3.0]));
        let mut second = Channels::new(2);
        second.observe(ChannelAxis::Second, &[1, 2, 3], &[1.0, -5.0, 0.0, 2.0, 2.0, f32::INFINITY]);
        assert_eq!((second.min.clone(), second.max.clone()), (vec![-5.0, 2.0], vec![1.0, 2.0]));
        let mut both = Channels::new(2);
        both.merge(&second);
        both.merge(&last);
        assert_eq!((both.min, both.max, both.count), (vec![-5.0, -2.0], vec![1.0, 4.0], 5));
    }

    #[test]
    fn what_does_not_fit_is_left_out() {
        let mut channels = Channels::new(3);
        channels.observe(ChannelAxis::Last, &[2, 2], &[1.0; 4]);
        channels.observe(ChannelAxis::Second, &[2], &[1.0; 2]);
        channels.observe(ChannelAxis::Second, &[1, 3, 0], &[]);
        assert_eq!((channels.count, channels.largest()), (0, vec![0.0; 3]));
    }
}
