//! Adam (Kingma and Ba 2015): `m = β₁m + (1 − β₁)g`, `v = β₂v + (1 − β₂)g²`, `w −= η · m̂ / (√v̂ + ε)` with `m̂ = m / (1 − β₁ᵗ)`,
//! `v̂ = v / (1 − β₂ᵗ)`; and the schedule of its learning rate.

const BETA_1: f32 = 0.9;
const BETA_2: f32 = 0.999;
/// Against a division by zero: gradients this small do not move anything.
const EPSILON: f32 = 1e-12;

/// Moments of the gradients of some values.
#[derive(Clone, Debug, PartialEq)]
pub struct Adam {
    pub first: Vec<f32>,
    pub second: Vec<f32>,
}

impl Adam {
    /// Moments of `len` values, all 0.
    pub fn new(len: usize) -> Self {
        Self { first: vec![0.0; len], second: vec![0.0; len] }
    }

    /// Step number `count`, from 1, of `values`; `rate` is the learning rate of each. Gradients that are not finite are left
    /// out.
    pub fn step(&mut self, values: &mut [f32], gradients: &[f32], rate: impl Fn(usize) -> f32, count: u64) {
        let power = |beta: f32| 1.0 - (f64::from(beta)).powi(count.min(1 << 30) as i32);
        let (first, second) = (power(BETA_1) as f32, power(BETA_2) as f32);
        let moments = self.first.iter_mut().zip(&mut self.second);
        for (at, ((w, &g), (m, v))) in values.iter_mut().zip(gradients).zip(moments).enumerate() {
            if !g.is_finite() {
                continue;
            }
            *m = BETA_1 * *m + (1.0 - BETA_1) * g;
            *v = BETA_2 * *v + (1.0 - BETA_2) * g * g;
            *w -= rate(at) * (*m / first) / ((*v / second).sqrt() + EPSILON);
        }
    }
}

/// The share of the learning rate at `step` of `steps`: up in a line over the first twentieth, then down along half a cosine
/// (Loshchilov and Hutter 2017) to a hundredth.
pub fn schedule(step: usize, steps: usize) -> f32 {
    let warm_up = (steps / 20).max(1);
    if step < warm_up {
        return (step + 1) as f32 / warm_up as f32;
    }
    let way = (step - warm_up) as f32 / (steps - warm_up).max(1) as f32;
    0.01 + 0.99 * 0.5 * (1.0 + (std::f32::consts::PI * way.min(1.0)).cos())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three steps of PyTorch's formula, written out: gradients 1, 1, −2 at rate 0.1 on one value.
    #[test]
    fn steps_are_those_of_the_paper() {
        let mut adam = Adam::new(1);
        let mut w = [1.0_f32];
        let mut expected = 1.0_f64;
        let (mut m, mut v) = (0.0_f64, 0.0_f64);
        for (t, g) in [1.0_f64, 1.0, -2.0].into_iter().enumerate() {
            adam.step(&mut w, &[g as f32], |_| 0.1, t as u64 + 1);
            m = 0.9 * m + 0.1 * g;
            v = 0.999 * v + 0.001 * g * g;
            let (a, b) = (1.0 - 0.9_f64.powi(t as i32 + 1), 1.0 - 0.999_f64.powi(t as i32 + 1));
            expected -= 0.1 * (m / a) / (v / b).sqrt();
            assert!((f64::from(w[0]) - expected).abs() < 1e-5, "{} {expected}", w[0]);
        }
        adam.step(&mut w, &[f32::NAN], |_| 0.1, 4);
        assert!(w[0].is_finite());
    }

    #[test]
    fn the_rate_warms_up_and_falls() {
        assert!(schedule(0, 400) < 0.1 && (schedule(20, 400) - 1.0).abs() < 1e-3);
        assert!(schedule(399, 400) < 0.02 && schedule(0, 1) > 0.0 && schedule(5, 1) > 0.0);
    }
}
