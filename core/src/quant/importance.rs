//! What rounding a weight costs when some of its values matter more than others.

use std::borrow::Cow;

use rayon::prelude::*;

use super::float16::float16_round_trip;
use super::group::Request;
use super::layout::WeightLayout;
use super::params::{QuantParams, round};
use super::weight::spans;
use crate::plan::{Choice, Clip, Precision};
use crate::simd::vectorised;

/// Weights that one thread looks through by itself.
const ALONE: usize = 8192;

/// A weight and how much each of its values matters, turned channel by channel once for many choices.
pub struct Weighing<'a> {
    layout: WeightLayout,
    values: Cow<'a, [f32]>,
    importance: Cow<'a, [f32]>,
}

impl<'a> Weighing<'a> {
    /// Both in the tensor's own order; `None` when their lengths do not fit the layout.
    pub fn new(values: &'a [f32], importance: &'a [f32], layout: WeightLayout) -> Option<Self> {
        (values.len() == layout.len() && importance.len() == layout.len()).then(|| Self {
            layout,
            values: layout.to_channel_major(values),
            importance: layout.to_channel_major(importance),
        })
    }

    /// Σ importance · (w − ŵ)² under the choice's precision, symmetry, granularity and clip.
    pub fn noise(&self, choice: &Choice) -> f64 {
        self.noise_and_clipped(choice).0
    }

    /// [`Self::noise`], and how much of it comes from weights beyond the ends of their grid: clipped, not rounded.
    pub fn noise_and_clipped(&self, choice: &Choice) -> (f64, f64) {
        match choice.precision {
            Precision::Float32 => return (0.0, 0.0),
            Precision::Float16 => {
                let rounded = float16_round_trip(&self.values);
                let each = self.values.iter().zip(&rounded).zip(self.importance.iter());
                let noise = each.map(|((&w, &r), &i)| f64::from(i) * (f64::from(w) - f64::from(r)).powi(2)).sum();
                return (noise, 0.0);
            }
            _ => {}
        }
        let request = Request { bits: choice.weight_bits(), symmetry: choice.symmetry, clip: choice.clip };
        let (channel, size) = spans(self.layout, choice.granularity);
        // A range that holds every value clips none.
        let clips = choice.clip != Clip::MinMax;
        let of_channel = |(values, importance): (&[f32], &[f32])| {
            let groups = values.chunks(size).zip(importance.chunks(size));
            groups.fold((0.0, 0.0), |(noise, beyond), (values, importance)| {
                let params = request.fit(values);
                let clipped = if clips { clipped(values, importance, &params) } else { 0.0 };
                (noise + f64::from(weighed(values, importance, &params)), beyond + f64::from(clipped))
            })
        };
        // Waking other threads takes longer than a few weights do, and as long as they like while they have other work.
        let per_channel: Vec<(f64, f64)> = if self.values.len() <= ALONE {
            self.values.chunks(channel).zip(self.importance.chunks(channel)).map(of_channel).collect()
        } else {
            self.values.par_chunks(channel).zip(self.importance.par_chunks(channel)).map(of_channel).collect()
        };
        let noise: f64 = per_channel.iter().map(|(noise, _)| noise).sum();
        // The two are summed in different orders: what differs by rounding alone must not exceed the whole.
        (noise, per_channel.iter().map(|(_, clipped)| clipped).sum::<f64>().min(noise))
    }
}

/// Σ of `error` over weights with their importance, in sixteen sums side by side. Compiled anew inside each of its callers,
/// for their instructions.
#[inline(always)]
#[allow(clippy::inline_always)]
fn in_lanes(values: &[f32], importance: &[f32], error: impl Fn(f32, f32) -> f32) -> f32 {
    const LANES: usize = 16;
    let mut lanes = [0.0_f32; LANES];
    let (whole, rest) = values.as_chunks::<LANES>();
    let (whole_i, rest_i) = importance.as_chunks::<LANES>();
    for (w, i) in whole.iter().zip(whole_i) {
        for lane in 0..LANES {
            lanes[lane] += error(w[lane], i[lane]);
        }
    }
    lanes.iter().sum::<f32>() + rest.iter().zip(rest_i).map(|(&w, &i)| error(w, i)).sum::<f32>()
}

vectorised! {
    pub(crate) fn weighed(values: &[f32], importance: &[f32], params: &QuantParams) -> f32 {
        let (lo, hi) = params.step_ends();
        let (scale, inverse) = (params.scale, params.scale.recip());
        let error = |w: f32, i: f32| {
            let steps = w * inverse;
            let steps = if steps > lo { steps } else { lo };
            let rest = w - round(if steps < hi { steps } else { hi }) * scale;
            i * (rest * rest)
        };
        in_lanes(values, importance, error)
    }
}

vectorised! {
    /// The part of [`weighed`] from values more than half a step beyond the ends of the grid.
    fn clipped(values: &[f32], importance: &[f32], params: &QuantParams) -> f32 {
        let (lo, hi) = params.step_ends();
        let (scale, inverse) = (params.scale, params.scale.recip());
        let error = |w: f32, i: f32| {
            let steps = w * inverse;
            let below = if steps < lo - 0.5 { lo - steps } else { 0.0 };
            let beyond = if steps > hi + 0.5 { steps - hi } else { below };
            i * (beyond * scale) * (beyond * scale)
        };
        in_lanes(values, importance, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Granularity, Symmetry};
    use crate::quant::quantize_weight;

    #[test]
    fn it_is_the_weighed_error_of_the_quantized_weight() {
        let layout = WeightLayout { outer: 40, channels: 6, inner: 1 };
        let mut rng = fastrand::Rng::with_seed(1);
        let values: Vec<f32> = (0..240).map(|_| rng.f32() * 2.0 - 1.0).collect();
        let importance: Vec<f32> = (0..240).map(|_| rng.f32()).collect();
        let weighing = Weighing::new(&values, &importance, layout).expect("fits");
        let precisions = [Precision::Int8, Precision::Int4, Precision::Float16, Precision::Float32];
        for (precision, reduce_range) in precisions.into_iter().flat_map(|p| [(p, false), (p, true)]) {
            for granularity in [Granularity::PerTensor, Granularity::PerChannel, Granularity::Block(16)] {
                for (symmetry, clip) in [(Symmetry::Symmetric, Clip::MinMax), (Symmetry::Asymmetric, Clip::Mse)] {
                    let choice = Choice { precision, symmetry, granularity, clip, reduce_range, ..Choice::FLOAT };
                    let rounded = match precision {
                        Precision::Float32 => values.clone(),
                        Precision::Float16 => float16_round_trip(&values),
                        _ => quantize_weight(&values, layout, &choice).dequantize(),
                    };
                    let expected: f64 =
                        (0..240).map(|i| f64::from(importance[i]) * f64::from(values[i] - rounded[i]).powi(2)).sum();
                    let noise = weighing.noise(&choice);
                    assert!((noise - expected).abs() <= 1e-3 * expected + 1e-12, "{choice:?}: {noise} {expected}");
                }
            }
        }
        assert!(Weighing::new(&values, &importance[1..], layout).is_none());
    }

    #[test]
    fn what_lies_beyond_the_grid_is_clipped_and_the_rest_rounded() {
        let layout = WeightLayout { outer: 1, channels: 1, inner: 4 };
        let weighing = Weighing::new(&[0.1, -0.3, 2.0, -1.0], &[1.0, 1.0, 3.0, 0.0], layout).expect("fits");
        let choice = Choice { precision: Precision::Int8, clip: Clip::Manual { lo: -1.0, hi: 1.0 }, ..Choice::FLOAT };
        let (noise, clipped) = weighing.noise_and_clipped(&choice);
        assert!((clipped - 3.0).abs() < 1e-5 && noise > clipped && noise - clipped < 1e-4, "{noise} {clipped}");
        assert_eq!(weighing.noise_and_clipped(&Choice { clip: Clip::MinMax, ..choice }).1, 0.0);
    }
}
