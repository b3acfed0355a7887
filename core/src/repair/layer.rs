//! One layer: its weights rounded, its bias corrected, and both judged on data held back.

use std::time::Instant;

use super::algorithm::{Inputs, Task, algorithm};
use super::clip::ClipSearch;
use super::collect::Collected;
use super::part::{Part, assemble, scale_count};
use super::{BiasSlot, Gain, LayerRepair, Moments, Range, Repair, Rounded, refit};
use crate::Error;
use crate::model::{Layer, Model};
use crate::plan::{Choice, Rounding};
use crate::quant::{QuantParams, QuantizedWeight, decibels};

/// What is known of a layer's input, made ready for rounding.
pub struct Known<'a> {
    /// The moments.
    pub collected: &'a Collected,
    /// Whether the layer's bias takes care of means.
    pub centred: bool,
    /// One a group.
    pub inputs: Vec<Inputs>,
}

impl<'a> Known<'a> {
    /// Of what was collected.
    pub fn new(collected: &'a Collected, centred: bool) -> Self {
        let inputs = |moments: &Moments| Inputs::new(moments.hessian(centred), moments.rows);
        let inputs = collected.calibration.iter().map(inputs).collect();
        Self { collected, centred, inputs }
    }
}

/// A layer to repair.
pub struct LayerTask<'a> {
    /// The float model.
    pub model: &'a Model,
    /// The layer.
    pub layer: &'a Layer,
    /// Its choice as its form honours it.
    pub choice: Choice,
    /// How.
    pub method: Rounding,
    /// What enters it; `None` where that is not known.
    pub known: Option<&'a Known<'a>>,
    /// Integers to use of each weight's range.
    pub levels: Option<u32>,
    /// See [`Task::polish_until`].
    pub polish_until: Option<Instant>,
}

/// Signal to noise at the layer's own output, on the data learnt from too.
#[derive(Clone, Copy, Debug)]
pub struct Judged {
    /// Held back.
    pub held_back: Option<Gain>,
    /// Learnt from.
    pub calibration: Option<Gain>,
}

impl LayerTask<'_> {
    /// Whether `method` may change the layer's bias.
    pub fn corrects_bias(model: &Model, layer: &Layer, method: Rounding) -> Result<bool, Error> {
        let corrects = matches!(
            method,
            Rounding::Bias | Rounding::Gptq | Rounding::Descent | Rounding::AdaRound | Rounding::Refit
        );
        // Of a transposed convolution each output adds up a varying number of positions of the kernel.
        Ok(corrects && layer.op != "ConvTranspose" && BiasSlot::of(model, layer)?.is_some())
    }

    /// Repairs it. Weights whose input is not known are rounded by the clip search, which needs none, unless the method
    /// needs none either.
    pub fn run(&self) -> Result<(LayerRepair, Judged), Error> {
        let nearest = Choice { rounding: Rounding::Nearest, ..self.choice };
        let range = Range::new(&self.choice, self.levels);
        let (mut weights, mut data_free, mut bias) = (Vec::new(), true, None);
        let mut judged = Judged { held_back: None, calibration: None };
        for (index, weight) in self.layer.weights.iter().enumerate() {
            let values = self.model.weight(self.layer, weight)?;
            let turned = weight.layout.to_channel_major(&values);
            let parts = self.known.and_then(|known| {
                let parts = Part::of(self.layer, index, self.choice.granularity)?;
                Some((known, parts))
            });
            let plain = crate::model::Weight { repaired: None, ..weight.clone() }.quantize(&values, &nearest);
            let Some((known, parts)) = parts else {
                weights.push(self.without_inputs(&turned, weight.layout, range, plain));
                continue;
            };
            data_free = false;
            let before = weight.layout.to_channel_major(&plain.dequantize()).into_owned();
            let quantized = if self.method == Rounding::Bias {
                plain
            } else {
                self.with_inputs(&turned, weight.layout, range, known, &parts)
            };
            let after = weight.layout.to_channel_major(&quantized.dequantize()).into_owned();
            let correction = if known.centred { Some(self.correction(known, &parts, &turned, &after)) } else { None };
            let gain = |moments: &[Moments]| gain(&parts, moments, &turned, &before, &after, correction.as_deref());
            judged.held_back = gain(&known.collected.held_back);
            if !known.collected.held_back.is_empty() {
                judged.calibration = gain(&known.collected.calibration);
            }
            if let Some(correction) = correction
                && let Some(slot) = BiasSlot::of(self.model, self.layer)?
            {
                bias = Some(slot.values.iter().zip(&correction).map(|(&b, &c)| (f64::from(b) + c) as f32).collect());
            }
            weights.push(quantized);
        }
        let uses_inputs = !data_free && algorithm(self.method).is_none_or(Repair::uses_inputs);
        let reduced = self.choice.weight_bits() < self.choice.precision.bits();
        let repair = LayerRepair {
            method: if data_free && self.method != Rounding::Hqq { Rounding::Clip } else { self.method },
            precision: self.choice.precision,
            symmetry: self.choice.symmetry,
            granularity: self.choice.granularity,
            weights,
            bias,
            data_free: !uses_inputs,
            levels: if reduced { Some(self.levels.unwrap_or(128).min(128)) } else { self.levels },
            held_back: judged.held_back,
        };
        Ok((repair, judged))
    }

    fn with_inputs(
        &self,
        turned: &[f32],
        layout: crate::quant::WeightLayout,
        range: Range,
        known: &Known<'_>,
        parts: &[Part],
    ) -> QuantizedWeight {
        let rows: Vec<Vec<f32>> = parts
            .iter()
            .map(|part| {
                let rows = part.take(turned);
                let moments = known.collected.calibration.get(part.group).filter(|_| self.method == Rounding::Refit);
                moments.and_then(|moments| refit::refit(moments, &rows, known.centred)).unwrap_or(rows)
            })
            .collect();
        let shared = shared_scales(parts, &rows, known, range, scale_count(layout, self.choice.granularity));
        let (mut integers, mut params) = (vec![0; turned.len()], blank(layout, &self.choice));
        let algorithm = algorithm(self.method).unwrap_or(&ClipSearch);
        for (part, rows) in parts.iter().zip(&rows) {
            let fixed = shared.as_ref().map(|shared| part.scales().filter_map(|at| shared.get(at).copied()).collect());
            let inputs = known.inputs.get(part.group).filter(|_| algorithm.uses_inputs());
            let polish_until = self.polish_until;
            let task =
                Task { weights: rows, columns: part.columns, span: part.span, inputs, range, fixed, polish_until };
            part.put(&algorithm.round(&task), &mut integers, &mut params);
        }
        assemble(layout, self.choice.granularity, self.choice.precision.bits(), integers, &params)
    }

    fn without_inputs(
        &self,
        turned: &[f32],
        layout: crate::quant::WeightLayout,
        range: Range,
        plain: QuantizedWeight,
    ) -> QuantizedWeight {
        let part = Part::whole(layout, self.choice.granularity);
        if part.shares_scales && self.levels.is_none() {
            return plain;
        }
        let everything = vec![1.0; turned.len()];
        let fixed = part.shares_scales.then(|| vec![range.fit(turned, &everything); part.count()]);
        let task = Task {
            weights: turned,
            columns: part.columns,
            span: part.span,
            inputs: None,
            range,
            fixed,
            polish_until: None,
        };
        let rounded: Rounded = match algorithm(self.method).filter(|algorithm| !algorithm.uses_inputs()) {
            Some(algorithm) => algorithm.round(&task),
            None => ClipSearch.round(&task),
        };
        let (mut integers, mut params) = (vec![0; turned.len()], blank(layout, &self.choice));
        part.put(&rounded, &mut integers, &mut params);
        assemble(layout, self.choice.granularity, self.choice.precision.bits(), integers, &params)
    }

    /// The mean error of each output channel.
    fn correction(&self, known: &Known<'_>, parts: &[Part], turned: &[f32], after: &[f32]) -> Vec<f64> {
        let channels = self.layer.weight().map_or(0, |weight| weight.layout.channels);
        let mut out = vec![0.0; channels];
        for part in parts {
            let Some(moments) = known.collected.calibration.get(part.group) else { continue };
            let errors = moments.mean_errors(&part.take(turned), &part.take(after));
            for (channel, error) in part.channels().zip(errors) {
                if let Some(slot) = out.get_mut(channel) {
                    *slot += error;
                }
            }
        }
        out
    }
}

fn blank(layout: crate::quant::WeightLayout, choice: &Choice) -> Vec<QuantParams> {
    let unset = QuantParams { scale: 1.0, zero_point: 0, qmin: 0, qmax: 0 };
    vec![unset; scale_count(layout, choice.granularity)]
}

/// One set of parameters a scale where rows share them, fitted to all their weights; `None` where no row shares.
fn shared_scales(
    parts: &[Part],
    rows: &[Vec<f32>],
    known: &Known<'_>,
    range: Range,
    count: usize,
) -> Option<Vec<QuantParams>> {
    if !parts.iter().any(|part| part.shares_scales) {
        return None;
    }
    let mut together: Vec<(Vec<f32>, Vec<f32>)> = vec![(Vec::new(), Vec::new()); count];
    for (part, rows) in parts.iter().zip(rows) {
        let diagonal: Vec<f32> = match known.inputs.get(part.group) {
            Some(inputs) => inputs.hessian.diagonal().iter().map(|&h| h as f32).collect(),
            None => vec![1.0; part.columns],
        };
        for (row, scale) in rows.chunks(part.columns.max(1)).zip(part.scales()) {
            if let Some((values, importance)) = together.get_mut(scale) {
                values.extend_from_slice(row);
                importance.extend_from_slice(&diagonal);
            }
        }
    }
    Some(together.iter().map(|(values, importance)| range.fit(values, importance)).collect())
}

fn gain(
    parts: &[Part],
    moments: &[Moments],
    turned: &[f32],
    before: &[f32],
    after: &[f32],
    correction: Option<&[f64]>,
) -> Option<Gain> {
    let (mut signal, mut noise) = (0.0, [0.0; 2]);
    for part in parts {
        let moments = moments.get(part.group).filter(|moments| moments.rows > 0.0)?;
        let weights = part.take(turned);
        let (own, plain) = moments.signal_and_noise(&weights, &part.take(before), None);
        let bias: Option<Vec<f64>> = correction
            .map(|all| part.channels().map(|channel| all.get(channel).copied().unwrap_or_default()).collect());
        let (_, repaired) = moments.signal_and_noise(&weights, &part.take(after), bias.as_deref());
        signal += own;
        noise[0] += plain;
        noise[1] += repaired;
    }
    let [before_db, after_db] = noise.map(|noise| decibels(signal, noise));
    (before_db.is_finite() && after_db.is_finite()).then_some(Gain { before_db, after_db })
}
