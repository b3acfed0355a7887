//! What rounding a weight costs when some of its values matter more than others.

use std::borrow::Cow;

use rayon::prelude::*;

use super::float16::float16_round_trip;
use super::group::Request;
use super::layout::WeightLayout;
use super::params::{QuantParams, round};
use super::weight::spans;
use crate::plan::{Choice, Precision};
use crate::simd::vectorised;

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
        match choice.precision {
            Precision::Float32 => return 0.0,
            Precision::Float16 => {
                let rounded = float16_round_trip(&self.values);
                let each = self.values.iter().zip(&rounded).zip(self.importance.iter());
                return each.map(|((&w, &r), &i)| f64::from(i) * (f64::from(w) - f64::from(r)).powi(2)).sum();
            }
            _ => {}
        }
        let request = Request { bits: choice.weight_bits(), symmetry: choice.symmetry, clip: choice.clip };
        let (channel, size) = spans(self.layout, choice.granularity);
        let per_channel: Vec<f64> = self
            .values
            .par_chunks(channel)
            .zip(self.importance.par_chunks(channel))
            .map(|(values, importance)| {
                let groups = values.chunks(size).zip(importance.chunks(size));
                groups.map(|(values, importance)| f64::from(weighed(values, importance, &request.fit(values)))).sum()
            })
            .collect();
        per_channel.iter().sum()
    }
}

vectorised! {
    pub(crate) fn weighed(values: &[f32], importance: &[f32], params: &QuantParams) -> f32 {
        const LANES: usize = 16;
        let (lo, hi) = params.step_ends();
        let (scale, inverse) = (params.scale, params.scale.recip());
        let error = |w: f32, i: f32| {
            let steps = w * inverse;
            let steps = if steps > lo { steps } else { lo };
            let rest = w - round(if steps < hi { steps } else { hi }) * scale;
            i * (rest * rest)
        };
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Clip, Granularity, Symmetry};
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
}
