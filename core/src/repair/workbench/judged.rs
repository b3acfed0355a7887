//! A layer's weight rounded to nearest and as repaired, and what each does to the layer's own output, row by row.

use super::super::collect::Tap;
use super::super::job::Job;
use super::super::linear::product;
use super::super::{BiasSlot, LayerRepair, Part};
use crate::Error;
use crate::model::{Layer, Weight};
use crate::plan::{Choice, Rounding};

/// The values of one weight.
pub struct Versions {
    /// Its shape.
    pub shape: Vec<usize>,
    /// Rounded to nearest, as the file has them.
    pub nearest: Vec<f32>,
    /// Repaired.
    pub repaired: Vec<f32>,
    /// What is added to each output channel in place of the layer's bias, after its factor.
    pub bias: Option<Vec<f32>>,
    float: Vec<f32>,
    turned: [Vec<f32>; 2],
    /// What the bias grows by.
    shift: Vec<f32>,
}

type Sums = Option<(f64, f64)>;

impl Versions {
    /// Of the main weight of `layer`.
    pub fn of(job: &Job<'_>, layer: &Layer, choice: &Choice, repair: &LayerRepair) -> Result<Self, Error> {
        let (Some(weight), Some(repaired)) = (layer.weight(), repair.weights.first()) else {
            return Ok(Self::none());
        };
        let values = job.model.weight(layer, weight)?;
        let plain = Choice { rounding: Rounding::Nearest, ..*choice };
        let nearest = Weight { repaired: None, ..weight.clone() }.quantize(&values, &plain).dequantize();
        let repaired = repaired.dequantize();
        let turned = |values: &[f32]| weight.layout.to_channel_major(values).into_owned();
        let shift = match (&repair.bias, BiasSlot::of(job.model, layer)?) {
            (Some(new), Some(slot)) => new.iter().zip(&slot.values).map(|(new, old)| new - old).collect(),
            _ => Vec::new(),
        };
        Ok(Self {
            shape: weight.shape.clone(),
            float: turned(&values),
            turned: [turned(&nearest), turned(&repaired)],
            nearest,
            repaired,
            bias: repair.bias.clone(),
            shift,
        })
    }

    fn none() -> Self {
        let (nearest, repaired, float, turned) = (Vec::new(), Vec::new(), Vec::new(), [Vec::new(), Vec::new()]);
        Self { shape: Vec::new(), nearest, repaired, bias: None, float, turned, shift: Vec::new() }
    }

    /// Σ(w·x)² and Σ(w·x − ŵ·x − b)² over rows of the layer's input, of both versions.
    pub fn noise(&self, tap: &Tap, layer: &Layer, choice: &Choice, rows: &[f32]) -> (Sums, Sums) {
        let Some(parts) = Part::of(layer, 0, choice.granularity) else { return (None, None) };
        let (mut signal, mut noises) = (0.0, [0.0; 2]);
        let width = tap.width().max(1);
        for part in &parts {
            let n = part.columns;
            let own: Vec<f32> = rows
                .chunks_exact(width)
                .flat_map(|row| row.get(part.group * n..(part.group + 1) * n).unwrap_or_default().iter().copied())
                .collect();
            let count = part.count();
            let weights = part.take(&self.float);
            let outputs = |weights: &[f32]| product(&own, &columns(weights, n, count), n, count);
            signal += outputs(&weights).iter().map(|&y| f64::from(y) * f64::from(y)).sum::<f64>();
            let channels: Vec<usize> = part.channels().collect();
            for (at, (version, noise)) in self.turned.iter().zip(&mut noises).enumerate() {
                let change: Vec<f32> = weights.iter().zip(part.take(version)).map(|(w, r)| w - r).collect();
                let shift =
                    |channel: &usize| if at == 1 { self.shift.get(*channel).copied().unwrap_or(0.0) } else { 0.0 };
                let shifts: Vec<f32> = channels.iter().map(shift).collect();
                for row in outputs(&change).chunks(count.max(1)) {
                    *noise += row.iter().zip(&shifts).map(|(e, b)| f64::from(e - b).powi(2)).sum::<f64>();
                }
            }
        }
        let [before, after] = noises.map(|noise| (signal.is_finite() && noise.is_finite()).then_some((signal, noise)));
        (before, after)
    }
}

/// Rows as columns.
fn columns(rows: &[f32], width: usize, count: usize) -> Vec<f32> {
    let mut out = vec![0.0; rows.len()];
    for (at, row) in rows.chunks_exact(width.max(1)).enumerate() {
        for (k, &value) in row.iter().enumerate() {
            if let Some(slot) = out.get_mut(k * count + at) {
                *slot = value;
            }
        }
    }
    out
}
