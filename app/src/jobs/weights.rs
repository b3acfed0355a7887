//! The light lane's work on one layer: histogram, weight error, error at its own output.

use std::borrow::Cow;
use std::sync::Arc;

use nibble_core::error::isolated;
use nibble_core::model::{Layer, Model, Weight};
use nibble_core::plan::{Plan, Rounding};
use nibble_core::predict::Pricing;
use nibble_core::quant::WeightLayout;
use nibble_core::stats::{Stats, TensorStats};

use super::{Found, Message};
use crate::results::{SAMPLE, WeightFacts, Work};
use crate::widgets::clip_histogram::bins;

/// Bars of the histogram in the table.
const SPARK_BARS: usize = 18;

/// Does a piece of background work.
pub fn light(model: &Model, stats: Option<&Arc<Stats>>, plan: &Plan, pricing: Option<&Pricing>, work: Work) -> Message {
    let choice = match work {
        Work::WeightError { choice, .. } | Work::Isolated { choice, .. } | Work::Rounded { choice, .. } => Some(choice),
        Work::Facts { .. } | Work::Noise { .. } => None,
    };
    // Weights that the plan carries, where the choice is for them.
    let repaired = match choice.filter(|choice| choice.rounding != Rounding::Nearest) {
        Some(_) => model.repaired(plan).unwrap_or(Cow::Borrowed(model)),
        None => Cow::Borrowed(model),
    };
    let model = &*repaired;
    let about = model.identity.clone();
    let result = model
        .layers
        .get(work.layer())
        .and_then(|layer| Some((layer, layer.weight()?)))
        .ok_or_else(|| "the layer has no weight".to_owned())
        .and_then(|(layer, weight)| compute(model, stats, pricing, work, layer, weight));
    Message::Light { work, about, result }
}

fn compute(
    model: &Model,
    stats: Option<&Arc<Stats>>,
    pricing: Option<&Pricing>,
    work: Work,
    layer: &Layer,
    weight: &Weight,
) -> Result<Found, String> {
    let values = model.weight(layer, weight).map_err(|error| error.to_string())?;
    Ok(match work {
        Work::Facts { .. } => Found::Facts(Box::new(facts(&values, weight.layout))),
        Work::WeightError { choice, .. } => Found::WeightError(choice, weight.sqnr(&values, &choice)),
        Work::Rounded { choice, .. } => {
            let mut stats = TensorStats::default();
            stats.observe(&weight.quantize(&values, &choice).dequantize());
            Found::Rounded(choice, Box::new(stats))
        }
        Work::Isolated { choice, .. } => {
            let stats = stats.ok_or_else(|| "there are no statistics".to_owned())?;
            let (rows, input) = (stats.rows.get(&layer.name), stats.tensors.get(&layer.input));
            Found::Isolated(choice, isolated(layer, &values, rows, input, &choice))
        }
        Work::Noise { choice, .. } => {
            let noise = pricing.and_then(|pricing| pricing.noise(model, layer, &choice));
            Found::Noise(choice, noise.ok_or_else(|| "its weights cannot be weighed".to_owned())?)
        }
    })
}

fn facts(values: &[f32], layout: WeightLayout) -> WeightFacts {
    let mut stats = TensorStats::default();
    stats.observe(values);
    let bins = bins(&stats);
    let (channel_min, channel_max) = ranges(values, layout);
    let (sample, sample_layout) = sample(values, layout);
    WeightFacts { spark: spark(&bins, stats.range()), bins, stats, sample, sample_layout, channel_min, channel_max }
}

/// Evenly spaced whole channels, at most [`SAMPLE`] weights; of longer channels the beginning.
fn sample(values: &[f32], layout: WeightLayout) -> (Vec<f32>, WeightLayout) {
    let depth = layout.depth().clamp(1, SAMPLE);
    let channels = layout.channels.min(SAMPLE / depth).max(1);
    let step = layout.channels.max(1) / channels;
    let of = |channel: usize| (0..depth).map(move |k| layout.index(channel * step.max(1), k));
    let sample = (0..channels).flat_map(of).map(|index| values.get(index).copied().unwrap_or_default()).collect();
    (sample, WeightLayout { outer: 1, channels, inner: depth })
}

/// Least and greatest finite value of each channel; 0 for a channel without one.
fn ranges(values: &[f32], layout: WeightLayout) -> (Vec<f32>, Vec<f32>) {
    let mut min = vec![f32::INFINITY; layout.channels];
    let mut max = vec![f32::NEG_INFINITY; layout.channels];
    let inner = layout.inner.max(1);
    for (run, chunk) in values.chunks(inner).enumerate() {
        let channel = run % layout.channels.max(1);
        if let (Some(min), Some(max)) = (min.get_mut(channel), max.get_mut(channel)) {
            for &value in chunk.iter().filter(|value| value.is_finite()) {
                *min = min.min(value);
                *max = max.max(value);
            }
        }
    }
    for value in min.iter_mut().chain(&mut max).filter(|value| !value.is_finite()) {
        *value = 0.0;
    }
    (min, max)
}

/// A coarse histogram on log10(n + 1), 0..=1.
fn spark(bins: &[crate::widgets::clip_histogram::Bin], (low, high): (f32, f32)) -> Vec<f32> {
    let mut counts = [0_u64; SPARK_BARS];
    let span = (high - low).max(f32::MIN_POSITIVE);
    for (from, to, count) in bins {
        let share = ((from + to) / 2.0 - low) / span;
        let bar = (share.clamp(0.0, 1.0) * SPARK_BARS as f32) as usize;
        if let Some(slot) = counts.get_mut(bar.min(SPARK_BARS - 1)) {
            *slot += count;
        }
    }
    let heights: Vec<f32> = counts.iter().map(|&count| ((count + 1) as f32).log10()).collect();
    let top = heights.iter().copied().fold(1e-6, f32::max);
    heights.into_iter().map(|height| height / top).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channel_ranges_follow_the_layout() {
        // [2 inputs, 3 channels], as MatMul keeps them.
        let layout = WeightLayout { outer: 2, channels: 3, inner: 1 };
        let (min, max) = ranges(&[1.0, -2.0, f32::NAN, 4.0, 5.0, f32::INFINITY], layout);
        assert_eq!(min, [1.0, -2.0, 0.0]);
        assert_eq!(max, [4.0, 5.0, 0.0]);
    }

    #[test]
    fn a_small_weight_is_sampled_whole_and_a_large_one_by_channels() {
        let layout = WeightLayout { outer: 2, channels: 2, inner: 1 };
        let (small, small_layout) = sample(&[1.0, 2.0, 3.0, 4.0], layout);
        assert_eq!(small, [1.0, 3.0, 2.0, 4.0]);
        assert_eq!((small_layout.channels, small_layout.depth()), (2, 2));
        let layout = WeightLayout { outer: 1, channels: 300, inner: 100 };
        let values: Vec<f32> = (0..30_000).map(|i| i as f32).collect();
        let (large, large_layout) = sample(&values, layout);
        assert_eq!(large.len(), large_layout.len());
        assert!(large.len() <= SAMPLE && large_layout.channels == 163);
    }

    #[test]
    fn facts_count_every_weight() {
        let values: Vec<f32> = (0..64).map(|i| i as f32 / 10.0 - 3.0).collect();
        let facts = facts(&values, WeightLayout { outer: 1, channels: 4, inner: 16 });
        assert_eq!(facts.stats.count, 64);
        assert_eq!(facts.bins.iter().map(|bin| bin.2).sum::<u64>(), 64);
        assert_eq!(facts.channel_min.len(), 4);
        assert_eq!(facts.spark.len(), SPARK_BARS);
    }
}
