//! AdaRound: whether each weight goes up or down is learnt, with a variable that is continuous until the end.
//!
//! After Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization" (2020): each weight is
//!
//! > ŵ = s · (⌊w/s⌋ + h(V)), h(V) = clamp(σ(V)·(ζ − γ) + γ, 0, 1), ζ = 1.1, γ = −0.1 (the rectified sigmoid)
//!
//! and V goes where Σ over rows of (w − ŵ)·H·(w − ŵ)ᵀ + λ·Σ (1 − |2h − 1|^β) is least, by Adam (Kingma and Ba 2015), β falling
//! from 20 to 2 after a fifth of the steps without the second term. The paper takes the first term from the layer's outputs a
//! batch of samples at a time; with H = E[x·xᵀ] it is the same sum over all samples at once. It is divided by s²·mean H_kk, so
//! that one λ serves all layers. Scales come from [`super::clip`]; what comes out is polished as [`super::gptq`] is.
//!
//! Limits: a weight goes up or down, never further, where GPTQ and descent move it as far as that helps; a step takes two matrix
//! products of the weight with H, of which there are some hundreds, so that it takes many times what GPTQ does.

use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView2, ArrayViewMut2};
use rayon::prelude::*;

use super::algorithm::{Repair, Task};
use super::clip::{ClipSearch, to_nearest};
use super::descent::polish;
use super::part::Rounded;
use crate::plan::Rounding;
use crate::quant::QuantParams;

/// Steps of Adam: as many as these multiplications allow, within limits.
const WORK: usize = 60_000_000_000;
const STEPS: (usize, usize) = (200, 1500);
/// Its rate, and how it forgets.
const RATE: f32 = 0.02;
const FORGETS: (f32, f32) = (0.9, 0.999);
/// λ.
const WEIGHT: f32 = 0.02;
/// Share of the steps without the second term.
const WARM_UP: f32 = 0.2;
/// β at the beginning and the end.
const BETA: (f32, f32) = (20.0, 2.0);
/// ζ and γ.
const STRETCH: (f32, f32) = (1.1, -0.1);
/// Rows of one task.
const PANEL: usize = 32;

/// AdaRound.
pub struct AdaRound;

impl Repair for AdaRound {
    fn method(&self) -> Rounding {
        Rounding::AdaRound
    }

    fn round(&self, task: &Task<'_>) -> Rounded {
        let Some(inputs) = task.inputs else { return to_nearest(task, &vec![1.0; task.columns]) };
        let hessian = inputs.hessian.to_f32();
        polish(task, up_or_down(task, ClipSearch.round(task), &hessian), &hessian)
    }
}

/// Each weight to one of its two neighbours on the grid of `from`.
pub fn up_or_down(task: &Task<'_>, mut from: Rounded, hessian: &[f32]) -> Rounded {
    let (columns, span) = (task.columns.max(1), task.span.max(1));
    let spans = columns.div_ceil(span);
    let mean = hessian.iter().step_by(columns + 1).sum::<f32>() / columns as f32;
    if !(mean > 0.0 && mean.is_finite()) {
        return from;
    }
    let steps = (WORK / (task.weights.len() * columns).max(1)).clamp(STEPS.0, STEPS.1);
    let rows = from.integers.par_chunks_mut(columns * PANEL).zip(from.params.par_chunks(spans * PANEL));
    rows.zip(task.weights.par_chunks(columns * PANEL)).for_each(|((integers, params), weights)| {
        let param = |at: usize| params[at / columns * spans + at % columns / span];
        let mut panel = Panel::new(weights, param, task.range.ends());
        for step in 0..steps {
            panel.step(hessian, columns, mean, step, steps);
        }
        for (integer, (low, variable)) in integers.iter_mut().zip(panel.low.iter().zip(&panel.variables)) {
            *integer = (low + i32::from(soft(*variable).0 > 0.5)) as i8;
        }
    });
    from
}

/// Some rows.
struct Panel {
    /// What each weight is above its lower neighbour, in steps.
    above: Vec<f32>,
    low: Vec<i32>,
    scales: Vec<f32>,
    variables: Vec<f32>,
    moments: Vec<(f32, f32)>,
    errors: Vec<f32>,
    slopes: Vec<f32>,
}

impl Panel {
    fn new(weights: &[f32], param: impl Fn(usize) -> QuantParams, (qmin, qmax): (i32, i32)) -> Self {
        let mut panel = Self {
            above: Vec::with_capacity(weights.len()),
            low: Vec::with_capacity(weights.len()),
            scales: Vec::with_capacity(weights.len()),
            variables: Vec::with_capacity(weights.len()),
            moments: vec![(0.0, 0.0); weights.len()],
            errors: vec![0.0; weights.len()],
            slopes: vec![0.0; weights.len()],
        };
        for (at, &weight) in weights.iter().enumerate() {
            let QuantParams { scale, zero_point, .. } = param(at);
            let steps = weight / scale + zero_point as f32;
            let low = (steps.floor() as i32).clamp(qmin, (qmax - 1).max(qmin));
            let above = steps - low as f32;
            let share = (above.clamp(0.0, 1.0) - STRETCH.1) / (STRETCH.0 - STRETCH.1);
            panel.above.push(above);
            panel.low.push(low);
            panel.scales.push(scale);
            panel.variables.push((share / (1.0 - share)).ln());
        }
        panel
    }

    /// One step of Adam.
    fn step(&mut self, hessian: &[f32], columns: usize, mean: f32, step: usize, steps: usize) {
        // Errors in real numbers; what they pull at each weight.
        for (error, ((above, scale), variable)) in
            self.errors.iter_mut().zip(self.above.iter().zip(&self.scales).zip(&self.variables))
        {
            *error = scale * (above - soft(*variable).0);
        }
        let count = self.errors.len() / columns;
        if let (Ok(errors), Ok(hessian), Ok(mut slopes)) = (
            ArrayView2::from_shape((count, columns), &self.errors),
            ArrayView2::from_shape((columns, columns), hessian),
            ArrayViewMut2::from_shape((count, columns), &mut self.slopes),
        ) {
            general_mat_mul(1.0, &errors, &hessian, 0.0, &mut slopes);
        }
        let progress = step as f32 / steps as f32;
        let weight = if progress < WARM_UP { 0.0 } else { WEIGHT };
        let left = ((progress - WARM_UP) / (1.0 - WARM_UP)).clamp(0.0, 1.0);
        let beta = BETA.1 + (BETA.0 - BETA.1) * 0.5 * (1.0 + (left * std::f32::consts::PI).cos());
        let now = step as i32 + 1;
        let (first, second) = (1.0 - FORGETS.0.powi(now), 1.0 - FORGETS.1.powi(now));
        let each = self.variables.iter_mut().zip(&mut self.moments).zip(self.slopes.iter().zip(&self.scales));
        for ((variable, (m, v)), (slope, scale)) in each {
            let (h, rises) = soft(*variable);
            let centred = 2.0 * h - 1.0;
            let pull = -2.0 * slope / (scale * mean);
            let settle = -2.0 * weight * beta * centred.abs().powf(beta - 1.0) * centred.signum();
            let gradient = (pull + settle) * rises;
            *m = FORGETS.0 * *m + (1.0 - FORGETS.0) * gradient;
            *v = FORGETS.1 * *v + (1.0 - FORGETS.1) * gradient * gradient;
            *variable -= RATE * (*m / first) / ((*v / second).sqrt() + 1e-8);
        }
    }
}

/// h(V) and its slope.
fn soft(variable: f32) -> (f32, f32) {
    let sigmoid = 1.0 / (1.0 + (-variable).exp());
    let h = sigmoid * (STRETCH.0 - STRETCH.1) + STRETCH.1;
    let rises = if (0.0..=1.0).contains(&h) { sigmoid * (1.0 - sigmoid) * (STRETCH.0 - STRETCH.1) } else { 0.0 };
    (h.clamp(0.0, 1.0), rises)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Choice, Precision, Symmetry};
    use crate::repair::{Inputs, Moments, Range, RowsOf};

    /// All 2^10 ways to go up or down, tried one by one on correlated inputs.
    #[test]
    fn it_finds_nearly_the_best_of_all_roundings() {
        let (columns, rows) = (10, 8);
        let mut rng = fastrand::Rng::with_seed(11);
        let x: Vec<f32> = (0..200)
            .flat_map(|_| {
                let common = rng.f32();
                (0..columns).map(|_| common + 0.4 * rng.f32()).collect::<Vec<_>>()
            })
            .collect();
        let weights: Vec<f32> = (0..rows * columns).map(|_| rng.f32() - 0.5).collect();
        let mut moments = Moments::new(columns, false);
        moments.add(RowsOf { values: &x, stride: columns, offset: 0 }, None);
        let inputs = Inputs::new(moments.hessian(false), moments.rows);
        let choice = Choice { precision: Precision::Int4, symmetry: Symmetry::Symmetric, ..Choice::FLOAT };
        let range = Range::new(&choice, None);
        let (inputs, span) = (Some(&inputs), columns);
        let task = Task { weights: &weights, columns, span, inputs, range, fixed: None, polish_until: None };
        let hessian = inputs.expect("inputs").hessian.to_f32();
        let nearest = ClipSearch.round(&task);
        let learnt = up_or_down(&task, nearest.clone(), &hessian);
        let error = |row: usize, values: &[f32]| -> f32 {
            let e: Vec<f32> = (0..columns).map(|k| weights[row * columns + k] - values[k]).collect();
            (0..columns).map(|i| (0..columns).map(|j| e[i] * hessian[i * columns + j] * e[j]).sum::<f32>()).sum()
        };
        let (mut best, mut found, mut plain) = (0.0, 0.0, 0.0);
        for row in 0..rows {
            let params = nearest.params[row];
            let value = |q: i32| params.dequantize(q);
            let of = |rounded: &Rounded| -> Vec<f32> {
                rounded.integers[row * columns..][..columns].iter().map(|&q| value(i32::from(q))).collect()
            };
            found += error(row, &of(&learnt));
            plain += error(row, &of(&nearest));
            let low = |k: usize| ((weights[row * columns + k] / params.scale).floor() as i32).clamp(-8, 6);
            let all = (0..1_u32 << columns).map(|bits| {
                let values: Vec<f32> = (0..columns).map(|k| value(low(k) + (bits >> k & 1) as i32)).collect();
                error(row, &values)
            });
            best += all.fold(f32::INFINITY, f32::min);
        }
        assert!(found < 2.0 * best && found < 0.25 * plain, "{plain} to nearest, {found} learnt, {best} at best");
    }
}
