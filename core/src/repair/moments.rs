//! Sums over the rows of a layer's input: all that repairs know of the data.

use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, ArrayView2, ShapeBuilder, s};
use rayon::prelude::*;

use super::linear::{Square, product};

/// Columns of one task.
const PANEL: usize = 128;

/// Σ x̂·x̂ᵀ and Σ x̂ over rows x̂ as the layer meets them, and, where those are not the float model's rows x, how far they have
/// drifted: d = x − x̂.
#[derive(Clone, Debug)]
pub struct Moments {
    /// Rows seen.
    pub rows: f64,
    /// Σ x̂·x̂ᵀ.
    pub second: Square,
    /// Σ x̂.
    pub first: Vec<f64>,
    /// Of d; `None` where x̂ is x.
    pub drift: Option<Drift>,
}

/// Sums of the drift d = x − x̂.
#[derive(Clone, Debug)]
pub struct Drift {
    /// Σ x̂·dᵀ.
    pub cross: Square,
    /// Σ d·dᵀ.
    pub own: Square,
    /// Σ d.
    pub first: Vec<f64>,
}

/// Rows of one group's columns: `count` rows, `stride` values apart, from `offset` on.
#[derive(Clone, Copy, Debug)]
pub struct RowsOf<'a> {
    /// All values.
    pub values: &'a [f32],
    /// Values from one row to the next.
    pub stride: usize,
    /// Where the group's columns begin.
    pub offset: usize,
}

impl<'a> RowsOf<'a> {
    fn view(&self, size: usize) -> Option<ArrayView2<'a, f32>> {
        let count = self.values.len() / self.stride.max(1);
        ArrayView2::from_shape((count, size).strides((self.stride, 1)), self.values.get(self.offset..)?).ok()
    }
}

impl Moments {
    /// Nothing seen yet of rows of `size` values.
    pub fn new(size: usize, with_drift: bool) -> Self {
        let drift = || Drift { cross: Square::zeros(size), own: Square::zeros(size), first: vec![0.0; size] };
        Self { rows: 0.0, second: Square::zeros(size), first: vec![0.0; size], drift: with_drift.then(drift) }
    }

    /// Bytes that the moments of rows of `size` values take.
    pub fn bytes(size: usize, with_drift: bool) -> usize {
        size * size * 8 * if with_drift { 3 } else { 1 }
    }

    /// Adds rows; `float` are the float model's, needed where there is drift.
    pub fn add(&mut self, used: RowsOf<'_>, float: Option<RowsOf<'_>>) {
        let size = self.second.size;
        let Some(used) = used.view(size) else { return };
        add_product(&mut self.second, &used, &used);
        add_rows(&mut self.first, &used);
        self.rows += used.nrows() as f64;
        if let (Some(drift), Some(float)) = (&mut self.drift, float.and_then(|rows| rows.view(size)))
            && float.dim() == used.dim()
        {
            let d = &float - &used;
            add_product(&mut drift.cross, &used, &d.view());
            add_product(&mut drift.own, &d.view(), &d.view());
            add_rows(&mut drift.first, &d.view());
        }
    }

    /// E[x̂·x̂ᵀ]; without the means when `centred`, for layers whose bias takes care of them.
    pub fn hessian(&self, centred: bool) -> Square {
        let (n, rows) = (self.second.size, self.rows.max(1.0));
        let mut out = self.second.clone();
        for (i, row) in out.values.chunks_mut(n.max(1)).enumerate() {
            for (j, value) in row.iter_mut().enumerate() {
                let means = if centred { self.first[i] * self.first[j] / (rows * rows) } else { 0.0 };
                *value = *value / rows - means;
            }
        }
        out
    }

    /// E[x̂·dᵀ]; without the means when `centred`.
    pub fn cross(&self, centred: bool) -> Option<Square> {
        let drift = self.drift.as_ref()?;
        let (n, rows) = (self.second.size, self.rows.max(1.0));
        let mut out = drift.cross.clone();
        for (i, row) in out.values.chunks_mut(n.max(1)).enumerate() {
            for (j, value) in row.iter_mut().enumerate() {
                let means = if centred { self.first[i] * drift.first[j] / (rows * rows) } else { 0.0 };
                *value = *value / rows - means;
            }
        }
        Some(out)
    }

    /// For each row w of `weights` and its rounded ŵ: E[w·x − ŵ·x̂], the mean error of that output.
    pub fn mean_errors(&self, weights: &[f32], rounded: &[f32]) -> Vec<f64> {
        let (n, rows) = (self.second.size.max(1), self.rows.max(1.0));
        let dot = |a: &[f32], b: &[f64]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * b).sum::<f64>();
        let each = weights.chunks(n).zip(rounded.chunks(n)).map(|(w, r)| {
            let change: Vec<f32> = w.iter().zip(r).map(|(w, r)| w - r).collect();
            (dot(&change, &self.first) + self.drift.as_ref().map_or(0.0, |drift| dot(w, &drift.first))) / rows
        });
        each.collect()
    }

    /// Σ over rows w of `weights` of E[(w·x)²] and of E[(w·x − ŵ·x̂ − b)²], b being what is added to the layer's bias for that
    /// row.
    pub fn signal_and_noise(&self, weights: &[f32], rounded: &[f32], bias: Option<&[f64]>) -> (f64, f64) {
        let n = self.second.size;
        let change: Vec<f32> = weights.iter().zip(rounded).map(|(w, r)| w - r).collect();
        let form = |left: &[f32], matrix: &Square, right: &[f32]| -> f64 {
            let product = product(left, &matrix.to_f32(), n, n);
            product.iter().zip(right).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
        };
        let mut signal = form(weights, &self.second, weights);
        let mut noise = form(&change, &self.second, &change);
        if let Some(drift) = &self.drift {
            let own = form(weights, &drift.own, weights);
            signal += 2.0 * form(weights, &drift.cross, weights) + own;
            noise += 2.0 * form(&change, &drift.cross, weights) + own;
        }
        let rows = self.rows.max(1.0);
        let (signal, mut noise) = (signal / rows, noise / rows);
        if let Some(bias) = bias {
            let errors = self.mean_errors(weights, rounded);
            noise += bias.iter().zip(&errors).map(|(b, error)| b * b - 2.0 * b * error).sum::<f64>();
        }
        (signal, noise.max(0.0))
    }
}

fn add_rows(sums: &mut [f64], rows: &ArrayView2<'_, f32>) {
    for row in rows.rows() {
        sums.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x));
    }
}

/// `sums += leftᵀ · right`, in float32 by at most some thousand rows, summed in float64.
fn add_product(sums: &mut Square, left: &ArrayView2<'_, f32>, right: &ArrayView2<'_, f32>) {
    let n = sums.size;
    if left.nrows() == 0 {
        return;
    }
    sums.values.par_chunks_mut((n * PANEL).max(1)).enumerate().for_each(|(at, sums)| {
        let (first, count) = (at * PANEL, sums.len() / n.max(1));
        let mut part = Array2::<f32>::zeros((count, n));
        general_mat_mul(1.0, &left.slice(s![.., first..first + count]).t(), right, 0.0, &mut part);
        sums.iter_mut().zip(&part).for_each(|(sum, &x)| *sum += f64::from(x));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against sums over the rows themselves, with drift, a bias and two groups.
    #[test]
    fn noise_is_that_of_the_rows() {
        let mut rng = fastrand::Rng::with_seed(3);
        let (width, n, count) = (10, 5, 40);
        let x: Vec<f32> = (0..width * count).map(|_| rng.f32() - 0.3).collect();
        let x_hat: Vec<f32> = x.iter().map(|x| x + 0.1 * (rng.f32() - 0.4)).collect();
        let w: Vec<f32> = (0..3 * n).map(|_| rng.f32() - 0.5).collect();
        let r: Vec<f32> = w.iter().map(|w| (w * 4.0).round() / 4.0).collect();
        let bias = [0.05, -0.1, 0.02];
        for offset in [0, 5] {
            let of = |values| RowsOf { values, stride: width, offset };
            let mut moments = Moments::new(n, true);
            moments.add(of(&x_hat[..100]), Some(of(&x[..100])));
            moments.add(of(&x_hat[100..]), Some(of(&x[100..])));
            let (mut signal, mut noise, mut mean) = (0.0, 0.0, [0.0; 3]);
            for i in 0..count {
                for o in 0..3 {
                    let dot = |w: &[f32], x: &[f32]| -> f64 {
                        (0..n).map(|k| f64::from(w[o * n + k]) * f64::from(x[i * width + offset + k])).sum()
                    };
                    let (y, y_hat) = (dot(&w, &x), dot(&r, &x_hat));
                    signal += y * y / count as f64;
                    noise += (y - y_hat - bias[o]).powi(2) / count as f64;
                    mean[o] += (y - y_hat) / count as f64;
                }
            }
            let got = moments.signal_and_noise(&w, &r, Some(&bias));
            assert!((got.0 - signal).abs() < 1e-5 && (got.1 - noise).abs() < 1e-5, "{got:?} {signal} {noise}");
            for (got, expected) in moments.mean_errors(&w, &r).iter().zip(mean) {
                assert!((got - expected).abs() < 1e-5);
            }
        }
    }
}
