//! Sums over samples and weightings, for one weight and for one activation.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::sensitivity::{BLOCKS, TensorSensitivity};
use super::spread::Growing;
use crate::autodiff::{Edge, Value};
use crate::simd::{dot, vectorised};

/// E[g²] of every weight of one tensor, not yet divided.
pub(super) struct LayerSums {
    pub(super) importance: Vec<f32>,
}

impl LayerSums {
    pub(super) fn add(&mut self, gradient: &[f32], weight: f32) {
        add_squares(&mut self.importance, gradient, weight);
    }
}

vectorised! {
    fn add_squares(sums: &mut [f32], gradient: &[f32], weight: f32) {
        for (sum, &g) in sums.iter_mut().zip(gradient) {
            *sum += weight * (g * g);
        }
    }
}

/// What is known of one activation so far.
pub(super) struct TensorSums {
    /// Nodes among its readers that are layers.
    layer_nodes: BTreeSet<usize>,
    readers: Vec<Option<usize>>,
    gram: Vec<f64>,
    all: Option<Growing>,
    layers: Option<Growing>,
    dynamic: f64,
    blocks: [f64; BLOCKS.len()],
    /// Weightings added, and over them Σ (Σ g·Δ)² and Σ Σ (g·Δ)² for rounding to 8 bits over the whole range.
    draws: f64,
    together: f64,
    apart: f64,
    /// Least and greatest value seen.
    seen: (f32, f32),
    /// Whether some kernel rounds it while it runs.
    by_kernels: bool,
}

/// Values whose errors are added up in single precision.
const CHUNK: usize = 4096;

vectorised! {
    /// Σ g·(x̂ − x) and Σ (g·(x̂ − x))², where x̂ is x rounded to whole steps of `scale` from `ends[0]` to `ends[1]` steps.
    fn errors(values: &[f32], gradient: &[f32], scale: f32, ends: [f32; 2]) -> [f32; 2] {
        const LANES: usize = 16;
        // Adding and taking away 1.5 · 2²³ rounds to the nearest integer, ties to even.
        const ROUND: f32 = 12_582_912.0;
        let inverse = 1.0 / scale;
        let error = |x: f32, g: f32| {
            let steps = ((x * inverse).clamp(ends[0], ends[1]) + ROUND) - ROUND;
            g * (steps * scale - x)
        };
        let (mut sums, mut squares) = ([0.0_f32; LANES], [0.0_f32; LANES]);
        let ((x, rest_x), (g, rest_g)) = (values.as_chunks::<LANES>(), gradient.as_chunks::<LANES>());
        for (x, g) in x.iter().zip(g) {
            for lane in 0..LANES {
                let error = error(x[lane], g[lane]);
                sums[lane] += error;
                squares[lane] += error * error;
            }
        }
        let (mut sum, mut square) = (sums.iter().sum::<f32>(), squares.iter().sum::<f32>());
        for (&x, &g) in rest_x.iter().zip(rest_g) {
            let error = error(x, g);
            sum += error;
            square += error * error;
        }
        [sum, square]
    }
}

vectorised! {
    /// The least and the greatest value, and 0.
    fn ends(values: &[f32]) -> (f32, f32) {
        const LANES: usize = 16;
        let (mut lo, mut hi) = ([0.0_f32; LANES], [0.0_f32; LANES]);
        let (whole, rest) = values.as_chunks::<LANES>();
        for chunk in whole {
            for lane in 0..LANES {
                lo[lane] = if chunk[lane] < lo[lane] { chunk[lane] } else { lo[lane] };
                hi[lane] = if chunk[lane] > hi[lane] { chunk[lane] } else { hi[lane] };
            }
        }
        let least = |lo: f32, &x: &f32| if x < lo { x } else { lo };
        let most = |hi: f32, &x: &f32| if x > hi { x } else { hi };
        (lo.iter().chain(rest).fold(0.0, least), hi.iter().chain(rest).fold(0.0, most))
    }
}

impl TensorSums {
    /// Over `range`, where it is known. `by_kernels`: whether some kernel rounds it while it runs.
    pub(super) fn new(range: Option<(f32, f32)>, layer_nodes: BTreeSet<usize>, by_kernels: bool) -> Self {
        Self {
            layer_nodes,
            readers: Vec::new(),
            gram: Vec::new(),
            all: range.map(|(lo, hi)| Growing::new(lo, hi)),
            layers: None,
            dynamic: 0.0,
            blocks: [0.0; BLOCKS.len()],
            draws: 0.0,
            together: 0.0,
            apart: 0.0,
            seen: (0.0, 0.0),
            by_kernels,
        }
    }

    pub(super) fn add(&mut self, value: &Value<'_>, edges: &[Edge], weight: f64) {
        let Ok(values) = value.floats() else { return };
        let (lo, hi) = ends(values);
        self.seen = (self.seen.0.min(lo), self.seen.1.max(hi));
        for edge in edges.iter().filter(|edge| !self.readers.contains(&edge.reader)).collect::<Vec<_>>() {
            self.admit(edge.reader);
        }
        // A node that reads it twice brings two gradients.
        let merged = self.merged(edges);
        let count = self.readers.len();
        for (at, (i, a)) in merged.iter().enumerate() {
            for (j, b) in &merged[at..] {
                let product = f64::from(dot(a, b)) * weight;
                self.gram[i * count + j] += product;
                if i != j {
                    self.gram[j * count + i] += product;
                }
            }
        }
        let is_layer = |at: usize| self.readers[at].is_some_and(|node| self.layer_nodes.contains(&node));
        let sum_of = |chosen: &dyn Fn(usize) -> bool| -> Option<Cow<'_, [f32]>> {
            let mut parts = merged.iter().filter(|(at, _)| chosen(*at)).map(|(_, gradient)| gradient);
            let mut sum = Cow::Borrowed(parts.next()?.as_ref());
            parts.for_each(|part| sum.to_mut().iter_mut().zip(part.iter()).for_each(|(s, p)| *s += p));
            Some(sum)
        };
        let through_layers = sum_of(&is_layer);
        let other_readers = (0..count).any(|at| !is_layer(at));
        if let Some(all) = &mut self.all
            && let Some(sum) = sum_of(&|_| true)
        {
            if other_readers && through_layers.is_some() && self.layers.is_none() {
                self.layers = Some(all.empty());
            }
            all.add_some(values, &sum, weight);
            let params = all.rounded();
            let ends = params.step_ends().into();
            let (mut together, mut apart) = (0.0_f64, 0.0_f64);
            for (values, gradient) in values.chunks(CHUNK).zip(sum.chunks(CHUNK)) {
                let [sum, squares] = errors(values, gradient, params.scale, ends);
                together += f64::from(sum);
                apart += f64::from(squares);
            }
            self.draws += 1.0;
            self.together += weight * together * together;
            self.apart += weight * apart;
        }
        let Some(through_layers) = through_layers else { return };
        if let Some(layers) = &mut self.layers {
            layers.add_some(values, &through_layers, weight);
        }
        if self.by_kernels {
            self.add_kernels(value, values, &through_layers, weight);
        }
    }

    fn admit(&mut self, reader: Option<usize>) {
        let before = self.readers.len();
        self.readers.push(reader);
        let mut gram = vec![0.0; (before + 1) * (before + 1)];
        for i in 0..before {
            gram[i * (before + 1)..][..before].copy_from_slice(&self.gram[i * before..][..before]);
        }
        self.gram = gram;
    }

    fn merged<'e>(&self, edges: &'e [Edge]) -> Vec<(usize, Cow<'e, [f32]>)> {
        let mut out: Vec<(usize, Cow<'e, [f32]>)> = Vec::new();
        for edge in edges {
            let Some(at) = self.readers.iter().position(|reader| *reader == edge.reader) else { continue };
            let gradient = edge.gradient.as_slice().unwrap_or_default();
            match out.iter_mut().find(|(known, _)| *known == at) {
                Some((_, sum)) => sum.to_mut().iter_mut().zip(gradient).for_each(|(s, g)| *s += g),
                None => out.push((at, Cow::Borrowed(gradient))),
            }
        }
        out
    }

    /// Rounding over the sample's own range, and block by block along the last axis: an error of scale²/12 for every value
    /// that is not 0.
    fn add_kernels(&mut self, value: &Value<'_>, values: &[f32], gradient: &[f32], weight: f64) {
        let energy = |values: &[f32], gradient: &[f32]| -> f64 {
            let each = values.iter().zip(gradient).map(|(&x, &g)| if x == 0.0 { 0.0 } else { g * g });
            f64::from(each.sum::<f32>())
        };
        let (lo, hi) = values.iter().fold((0.0_f32, 0.0_f32), |(lo, hi), &x| (lo.min(x), hi.max(x)));
        let step = f64::from(hi - lo) / 255.0;
        self.dynamic += weight * step * step / 12.0 * energy(values, gradient);
        let width = value.shape.last().copied().unwrap_or(1).max(1);
        for (sum, size) in self.blocks.iter_mut().zip(BLOCKS) {
            let rows = values.chunks(width).zip(gradient.chunks(width));
            for (values, gradient) in rows.flat_map(|(v, g)| v.chunks(size).zip(g.chunks(size))) {
                let largest = values.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
                let step = f64::from(largest) / 127.0;
                *sum += weight * step * step / 12.0 * energy(values, gradient);
            }
        }
    }

    /// Everything times `factor`.
    pub(super) fn finish(self, factor: f64) -> TensorSensitivity {
        let is_layer = |reader: &Option<usize>| reader.is_some_and(|node| self.layer_nodes.contains(&node));
        TensorSensitivity {
            by_layers: self.readers.iter().map(is_layer).collect(),
            gram: self.gram.iter().map(|sum| sum * factor).collect(),
            all: self.all.map(|all| all.finish(factor)).unwrap_or_default(),
            layers: self.layers.map(|layers| layers.finish(factor)),
            dynamic: self.dynamic * factor,
            blocks: BLOCKS.into_iter().zip(self.blocks.map(|sum| sum * factor)).collect(),
            seen: self.seen,
            coherence: coherence(self.draws, self.together, self.apart),
            readers: self.readers,
        }
    }
}

/// How much more (or less) than independent ones the errors of neighbouring values add up to: E[(Σ g·Δ)²] / E[Σ (g·Δ)²].
///
/// Values on a grid of their own, such as pixels, are rounded alike wherever they are alike, so that their errors do not
/// cancel. A square of one draw has a relative variance of 2; what may be chance counts as 1.
fn coherence(draws: f64, together: f64, apart: f64) -> f64 {
    let ratio = together / apart;
    let chance = 2.0 * (2.0 / draws.max(1.0)).sqrt();
    if ratio.is_finite() && ratio > 0.0 && (ratio.ln()).abs() > chance { ratio } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_errors_are_those_of_fake_quantization() {
        let mut rng = fastrand::Rng::with_seed(5);
        let values: Vec<f32> = (0..1003).map(|_| 8.0 * rng.f32() - 3.0).collect();
        let gradient: Vec<f32> = (0..1003).map(|_| rng.f32() - 0.5).collect();
        let params = crate::quant::activation_params(-2.0, 4.0, crate::plan::Symmetry::Asymmetric);
        let [sum, squares] = errors(&values, &gradient, params.scale, params.step_ends().into());
        let each = values.iter().zip(&gradient).map(|(&x, &g)| f64::from(g) * f64::from(params.fake(x) - x));
        let (a, b) = each.fold((0.0, 0.0), |(a, b), error| (a + error, b + error * error));
        assert!((f64::from(sum) - a).abs() < 1e-3 && (f64::from(squares) / b - 1.0).abs() < 1e-4, "{sum} {a}");
        let (lo, hi) = ends(&values);
        assert_eq!(lo, values.iter().copied().fold(0.0, f32::min));
        assert_eq!(hi, values.iter().copied().fold(0.0, f32::max));
    }

    #[test]
    fn coherence_is_told_from_chance() {
        assert_eq!(coherence(48.0, 5.0, 1.0), 5.0);
        assert_eq!(coherence(48.0, 1.3, 1.0), 1.0);
        assert_eq!(coherence(2.0, 5.0, 1.0), 1.0);
        assert_eq!(coherence(48.0, 0.0, 0.0), 1.0);
    }
}
