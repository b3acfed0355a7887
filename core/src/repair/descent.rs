//! Coordinate descent on the integers: single integers move as long as the layer's output gets closer.
//!
//! With e = w − ŵ and H = E[x·xᵀ] a row's error is e·H·eᵀ. Moving integer k by m steps of its scale s changes it by
//! −2·m·s·(e·H)_k + (m·s)²·H_kk, which is least at m = (e·H)_k / (s·H_kk), rounded. Columns are swept in order until none moves,
//! at most eight times. After Behdin et al., "QuantEase" (2023); the start is the clip search's rounding.
//!
//! With the integers as they are, each scale then goes where the same error is least: for the integers q of one span (the
//! zero point taken off) the scale changes by (e·H·qᵀ) / (q·H·qᵀ). Both are done in turns, since each never makes the error larger.
//!
//! Limits: it ends where no single move helps, usually further from the best than [`super::gptq`] ends; zero points stay, and
//! scales where rows share them or a person gave the range. It suits layers with few columns, such as depthwise convolutions.

use std::time::Instant;

use rayon::prelude::*;

use super::algorithm::{Repair, Task};
use super::clip::{ClipSearch, to_nearest};
use super::linear::product;
use super::part::Rounded;
use crate::plan::Rounding;
use crate::simd::vectorised;

/// Most sweeps over all columns.
const SWEEPS: usize = 8;
/// Times that scales are fitted to the integers, and the integers moved again.
const FITS: usize = 2;
/// Most that a scale grows or shrinks in one fit.
const REACH: f32 = 4.0;

/// Coordinate descent.
pub struct Descent;

impl Repair for Descent {
    fn method(&self) -> Rounding {
        Rounding::Descent
    }

    fn round(&self, task: &Task<'_>) -> Rounded {
        let Some(inputs) = task.inputs else { return to_nearest(task, &vec![1.0; task.columns]) };
        polish(task, ClipSearch.round(task), &inputs.hessian.to_f32())
    }
}

/// Moves integers and fits scales in turns; scales stay once the task's time for that is up.
pub fn polish(task: &Task<'_>, mut from: Rounded, hessian: &[f32]) -> Rounded {
    let mut slopes = slopes(task, &from, hessian);
    if task.fixed.is_none() && !task.range.is_given() {
        for _ in 0..FITS {
            if task.polish_until.is_some_and(|end| Instant::now() > end) {
                return from;
            }
            move_integers(task, &mut from, &mut slopes, hessian);
            fit_scales(task, &mut from, &mut slopes, hessian);
        }
    }
    move_integers(task, &mut from, &mut slopes, hessian);
    from
}

/// Moves single integers of `from` until none gets closer.
pub fn descend(task: &Task<'_>, mut from: Rounded, hessian: &[f32]) -> Rounded {
    let mut slopes = slopes(task, &from, hessian);
    move_integers(task, &mut from, &mut slopes, hessian);
    from
}

/// The same where e·H is known, which is kept true.
fn move_integers(task: &Task<'_>, from: &mut Rounded, slopes: &mut [f32], hessian: &[f32]) {
    let (columns, span) = (task.columns.max(1), task.span.max(1));
    let spans = columns.div_ceil(span);
    let rows =
        from.integers.par_chunks_mut(columns).zip(from.params.par_chunks(spans)).zip(slopes.par_chunks_mut(columns));
    let (qmin, qmax) = task.range.ends();
    rows.for_each(|((integers, params), slopes)| {
        for _ in 0..SWEEPS {
            let mut moved = false;
            for k in 0..columns {
                let (scale, curve) = (params[k / span].scale, hessian[k * columns + k]);
                let wanted = (slopes[k] / (scale * curve)).round();
                if wanted == 0.0 || !wanted.is_finite() {
                    continue;
                }
                let now = i32::from(integers[k]);
                let next = (now + wanted.clamp(-512.0, 512.0) as i32).clamp(qmin, qmax);
                if next != now {
                    integers[k] = next as i8;
                    subtract(slopes, &hessian[k * columns..][..columns], (next - now) as f32 * scale);
                    moved = true;
                }
            }
            if !moved {
                break;
            }
        }
    });
}

/// e·H of every row.
fn slopes(task: &Task<'_>, rounded: &Rounded, hessian: &[f32]) -> Vec<f32> {
    let columns = task.columns.max(1);
    let rounded = rounded.dequantize(columns, task.span.max(1));
    let errors: Vec<f32> = task.weights.iter().zip(&rounded).map(|(w, r)| w - r).collect();
    product(&errors, hessian, columns, columns)
}

/// Puts each scale where the error of its row is least with the integers as they are, span after span; e·H is kept true.
fn fit_scales(task: &Task<'_>, from: &mut Rounded, slopes: &mut [f32], hessian: &[f32]) {
    let (columns, span) = (task.columns.max(1), task.span.max(1));
    let spans = columns.div_ceil(span);
    let rows =
        from.integers.par_chunks(columns).zip(from.params.par_chunks_mut(spans)).zip(slopes.par_chunks_mut(columns));
    rows.for_each(|((integers, params), slopes)| {
        // q·H of one span.
        let mut pull = vec![0.0_f32; columns];
        for (at, (integers, params)) in integers.chunks(span).zip(params).enumerate() {
            let steps = || integers.iter().enumerate().map(|(k, &q)| (at * span + k, i32::from(q) - params.zero_point));
            pull.fill(0.0);
            for (k, q) in steps().filter(|(_, q)| *q != 0) {
                subtract(&mut pull, &hessian[k * columns..][..columns], -q as f32);
            }
            let along = |row: &[f32]| steps().map(|(k, q)| f64::from(q) * f64::from(row[k])).sum::<f64>();
            let scale = params.scale + (along(slopes) / along(&pull)) as f32;
            if scale > params.scale / REACH && scale < params.scale * REACH {
                subtract(slopes, &pull, scale - params.scale);
                params.scale = scale;
            }
        }
    });
}

vectorised! {
    fn subtract(slopes: &mut [f32], row: &[f32], step: f32) {
        for (slope, &h) in slopes.iter_mut().zip(row) {
            *slope -= step * h;
        }
    }
}
