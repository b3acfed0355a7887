//! Coordinate descent on the integers: single integers move as long as the layer's output gets closer.
//!
//! With e = w − ŵ and H = E[x·xᵀ] a row's error is e·H·eᵀ. Moving integer k by m steps of its scale s changes it by
//! −2·m·s·(e·H)_k + (m·s)²·H_kk, which is least at m = (e·H)_k / (s·H_kk), rounded. Columns are swept in order until none moves,
//! at most eight times. After Behdin et al., "QuantEase" (2023); the start is the clip search's rounding.
//!
//! Limits: it ends where no single move helps, usually further from the best than [`super::gptq`] ends; scales stay as they
//! start. It suits layers with few columns, such as depthwise convolutions.

use rayon::prelude::*;

use super::algorithm::{Repair, Task};
use super::clip::{ClipSearch, to_nearest};
use super::linear::product;
use super::part::Rounded;
use crate::plan::Rounding;
use crate::simd::vectorised;

/// Most sweeps over all columns.
const SWEEPS: usize = 8;

/// Coordinate descent.
pub struct Descent;

impl Repair for Descent {
    fn method(&self) -> Rounding {
        Rounding::Descent
    }

    fn round(&self, task: &Task<'_>) -> Rounded {
        let Some(inputs) = task.inputs else { return to_nearest(task, &vec![1.0; task.columns]) };
        descend(task, ClipSearch.round(task), &inputs.hessian.to_f32())
    }
}

/// Moves single integers of `from` until none gets closer.
pub fn descend(task: &Task<'_>, mut from: Rounded, hessian: &[f32]) -> Rounded {
    let (columns, span) = (task.columns.max(1), task.span.max(1));
    let spans = columns.div_ceil(span);
    let rounded = from.dequantize(columns, span);
    let errors: Vec<f32> = task.weights.iter().zip(&rounded).map(|(w, r)| w - r).collect();
    let mut slopes = product(&errors, hessian, columns, columns);
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
    from
}

vectorised! {
    fn subtract(slopes: &mut [f32], row: &[f32], step: f32) {
        for (slope, &h) in slopes.iter_mut().zip(row) {
            *slope -= step * h;
        }
    }
}
