//! HQQ: scales and zero points fitted to the weights alone, half-quadratically, so that few outliers cost little.
//!
//! The error Σ |w − ŵ|^p with p = 0.7 is split into Σ |e|^p + β/2·Σ (w − ŵ − e)²: e is found by the shrinkage of the p-norm,
//! e = sign(r)·max(|r| − |r|^(p−1)/β, 0) with r = w − ŵ, and then scale and zero point by least squares for w − e, in turns with β
//! growing by 1 %. After Badri and Shaji, "Half-Quadratic Quantization of Large Machine Learning Models" (2023). There the zero
//! point is a real number and the scale stays; here the zero point is an integer, as ONNX has it, and both are fitted. The best
//! of all turns by Σ |w − ŵ|^p is kept, the clip search's being the first.
//!
//! It needs no data, and so knows nothing of what enters the layer: any repair with data is better where there are data.

use rayon::prelude::*;

use super::algorithm::{Repair, Task};
use super::clip::to_nearest;
use super::part::Rounded;
use super::range::Range;
use crate::plan::Rounding;
use crate::quant::QuantParams;

/// Turns.
const TURNS: usize = 20;
const P: f32 = 0.7;
/// β at the start, in units of the weights' own size, and its growth.
const BETA: f32 = 10.0;
const GROWTH: f32 = 1.01;

/// HQQ.
pub struct Hqq;

impl Repair for Hqq {
    fn method(&self) -> Rounding {
        Rounding::Hqq
    }

    fn uses_inputs(&self) -> bool {
        false
    }

    fn round(&self, task: &Task<'_>) -> Rounded {
        let (columns, span) = (task.columns.max(1), task.span.max(1));
        let mut out = to_nearest(task, &vec![1.0; columns]);
        if task.fixed.is_some() {
            return out;
        }
        let spans = columns.div_ceil(span);
        let rows = task.weights.par_chunks(columns).zip(out.integers.par_chunks_mut(columns));
        rows.zip(out.params.par_chunks_mut(spans)).for_each(|((weights, integers), params)| {
            for ((weights, integers), params) in weights.chunks(span).zip(integers.chunks_mut(span)).zip(params) {
                *params = improve(task.range, weights, *params);
                params.quantize_i8(weights, integers);
            }
        });
        out
    }
}

fn improve(range: Range, weights: &[f32], start: QuantParams) -> QuantParams {
    let error = |params: &QuantParams| weights.iter().map(|&w| (w - params.fake(w)).abs().powf(P)).sum::<f32>();
    let (mut best, mut least) = (start, error(&start));
    let mut params = start;
    // β is in units of the weights: an error of one step must not vanish against it.
    let mut beta = BETA / start.scale.powf(2.0 - P);
    for _ in 0..TURNS {
        let (mut qq, mut qt, mut sum_q, mut sum_t) = (0.0_f64, 0.0_f64, 0.0_f64, 0.0_f64);
        for &w in weights {
            let rounded = params.fake(w);
            let rest = w - rounded;
            let shrunk = (rest.abs() - rest.abs().max(f32::MIN_POSITIVE).powf(P - 1.0) / beta).max(0.0).copysign(rest);
            let (q, target) = (f64::from(rounded / params.scale), f64::from(w - shrunk));
            qq += q * q;
            qt += q * target;
            sum_q += q;
            sum_t += target;
        }
        if qq <= 0.0 {
            break;
        }
        let n = weights.len() as f64;
        let mut next = params;
        if range.is_symmetric() {
            next.scale = (qt / qq) as f32;
        } else {
            // target ≈ scale·q + offset, the offset being whole steps of the zero point.
            let spread = qq - sum_q * sum_q / n;
            let scale = if spread > 0.0 { (qt - sum_q * sum_t / n) / spread } else { qt / qq };
            let offset = (sum_t - scale * sum_q) / n;
            let (qmin, qmax) = range.ends();
            let moved = f64::from(params.zero_point) - offset / scale;
            next.scale = scale as f32;
            next.zero_point = (moved.round() as i32).clamp(qmin, qmax);
        }
        if !(next.scale.is_finite() && next.scale >= f32::MIN_POSITIVE) {
            break;
        }
        params = next;
        let reached = error(&params);
        if reached < least {
            (best, least) = (params, reached);
        }
        beta *= GROWTH;
    }
    best
}
