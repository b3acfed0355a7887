//! The layers of a block, and what factors do to them.

use super::constants::{Lane, Main, Part};
use super::reach::Reach;
use super::rows::Trial;
use super::smooth::ALPHAS;
use crate::model::Layer;
use crate::plan::{Choice, Plan};
use crate::quant::quantize_weight;
use crate::stats::Stats;
use crate::{Control, Error};

/// α, where a method has one, and the factors.
pub(super) type Found = (Option<f32>, Vec<f32>);

/// The layers of a block, made ready to try factors on.
pub(super) struct Block<'a> {
    layers: Vec<&'a Layer>,
    /// Layers whose outputs are judged.
    pub(super) trials: Vec<Trial<'a>>,
    /// Weights of layers that X comes from: their values, channels of X, and choice.
    sources: Vec<(Vec<f32>, Lane, &'a Layer, Choice)>,
}

impl<'a> Block<'a> {
    pub(super) fn new(main: &Main<'a>, reach: &Reach, plan: &Plan, stats: &Stats) -> Result<Self, Error> {
        let model = main.model;
        let mut block = Self { layers: Vec::new(), trials: Vec::new(), sources: Vec::new() };
        for (index, part) in &reach.layers {
            let Some(layer) = model.layers.get(*index) else { continue };
            block.layers.push(layer);
            let choice = plan.choice(&layer.name);
            let (Some(weight), Some(rows)) = (layer.weight(), stats.rows.get(&layer.name)) else { continue };
            if !choice.is_integer() {
                continue;
            }
            let weights = model.weight(layer, weight)?.into_owned();
            let channels = stats.channels.get(&layer.input);
            let trial = Trial::new(layer, choice, weights, *part, rows, channels, reach.shape.channels);
            block.trials.extend(trial);
        }
        for part in &reach.sources {
            if let (Some((_, layer)), &Part { lane: Some(lane), .. }) = (main.layer(part.node), part)
                && let Some(weight) = layer.weight().filter(|weight| weight.input == part.input)
            {
                let choice = plan.choice(&layer.name);
                if choice.is_integer() {
                    block.sources.push((model.weight(layer, weight)?.into_owned(), lane, layer, choice));
                }
            }
        }
        Ok(block)
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.layers.iter().map(|layer| layer.name.clone()).collect()
    }

    /// The α with the least noise on the rows of the search, and its factors; `None` where none is better than no scaling.
    pub(super) fn best(&self, factors: &dyn Fn(f32) -> Vec<f32>, control: &Control) -> Result<Option<Found>, Error> {
        let Some(mut least) = self.noise(None, false) else { return Ok(None) };
        let mut best = None;
        let attempt = |alpha: f32, least: &mut f64, best: &mut Option<f32>| -> Result<(), Error> {
            control.check()?;
            if let Some(noise) = self.noise(Some(&factors(alpha)), false)
                && noise < *least
            {
                (*least, *best) = (noise, Some(alpha));
            }
            Ok(())
        };
        for alpha in ALPHAS {
            attempt(alpha, &mut least, &mut best)?;
        }
        if let Some(coarse) = best {
            for alpha in [coarse - 0.05, coarse + 0.05] {
                if (0.0..=1.0).contains(&alpha) {
                    attempt(alpha, &mut least, &mut best)?;
                }
            }
        }
        Ok(best.map(|alpha| (Some(alpha), factors(alpha))))
    }

    /// Noise over signal, summed over the block's layers; `None` where that of none is known.
    fn noise(&self, factors: Option<&[f32]>, held_back: bool) -> Option<f64> {
        let read = self.trials.iter().map(|trial| trial.noise(factors, held_back));
        let read: f64 = read.collect::<Option<Vec<_>>>().filter(|all| !all.is_empty())?.iter().sum();
        Some(read + self.sources.iter().map(|source| source_noise(source, factors)).sum::<f64>())
    }

    /// Mean noise over signal of the block's layers on rows held back, in dB.
    pub(super) fn decibels(&self, factors: Option<&[f32]>) -> Option<f64> {
        self.noise(factors, true).map(|noise| -10.0 * (noise / self.trials.len() as f64).max(1e-30).log10())
    }
}

/// Error of the weights that X comes from, each channel relative to its own size, so that dividing a channel by a factor
/// alone does not count as a gain.
fn source_noise((values, lane, layer, choice): &(Vec<f32>, Lane, &Layer, Choice), factors: Option<&[f32]>) -> f64 {
    let Some(weight) = layer.weight() else { return 0.0 };
    let mut scaled = values.clone();
    if let Some(factors) = factors {
        for (i, value) in scaled.iter_mut().enumerate() {
            *value /= factors.get(lane.channel(i)).copied().unwrap_or(1.0);
        }
    }
    let rounded = quantize_weight(&scaled, weight.layout, choice).dequantize();
    let mut sums: Vec<(f64, f64)> = Vec::new();
    for (i, (value, rounded)) in scaled.iter().zip(&rounded).enumerate() {
        let channel = lane.channel(i);
        if sums.len() <= channel {
            sums.resize(channel + 1, (0.0, 0.0));
        }
        let error = f64::from(value - rounded);
        sums[channel].0 += f64::from(*value) * f64::from(*value);
        sums[channel].1 += error * error;
    }
    let relative = sums.iter().filter(|(signal, _)| *signal > 0.0).map(|(signal, noise)| noise / signal);
    relative.sum::<f64>() / sums.len().max(1) as f64
}
