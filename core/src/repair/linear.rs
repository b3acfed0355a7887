//! The linear algebra that repairs need, blocked so that nearly all of it is matrix products: Cholesky factors of symmetric
//! matrices, solutions with them, and products.

use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView2, ArrayViewMut2, Axis, s};
use rayon::prelude::*;

/// Columns factored at a time: the block fits the processor's second-level cache.
const BLOCK: usize = 64;
/// Rows of one task.
const PANEL: usize = 64;

/// A square matrix, row by row.
#[derive(Clone, Debug, PartialEq)]
pub struct Square {
    /// Rows, and columns.
    pub size: usize,
    /// `size · size` values.
    pub values: Vec<f64>,
}

impl Square {
    /// All 0.
    pub fn zeros(size: usize) -> Self {
        Self { size, values: vec![0.0; size * size] }
    }

    /// The main diagonal.
    pub fn diagonal(&self) -> Vec<f64> {
        self.values.iter().step_by(self.size + 1).copied().collect()
    }

    /// Adds `value` to the main diagonal.
    pub fn add_to_diagonal(&mut self, value: f64) {
        self.values.iter_mut().step_by(self.size + 1).for_each(|entry| *entry += value);
    }

    /// As float32.
    pub fn to_f32(&self) -> Vec<f32> {
        self.values.iter().map(|&value| value as f32).collect()
    }

    /// Rows and columns in the opposite order.
    fn flipped(mut self) -> Self {
        self.values.reverse();
        self
    }

    /// The lower triangular L with L·Lᵀ = this (what lies above its diagonal is not part of it); `None` when the matrix is
    /// not positive definite.
    pub fn cholesky(mut self) -> Option<Self> {
        let n = self.size;
        for start in (0..n).step_by(BLOCK) {
            let end = (start + BLOCK).min(n);
            for j in start..end {
                let (above, below) = self.values.split_at_mut((j + 1) * n);
                let row = &mut above[j * n..];
                let pivot = row[j] - row[start..j].iter().map(|x| x * x).sum::<f64>();
                if !(pivot > 0.0 && pivot.is_finite()) {
                    return None;
                }
                row[j] = pivot.sqrt();
                let (done, pivot) = (&row[start..j], row[j]);
                let rest = below.chunks_mut(n).take(end - j - 1);
                rest.for_each(|other| other[j] = (other[j] - inner(done, &other[start..j])) / pivot);
            }
            let (above, below) = self.values.split_at_mut(end * n);
            let corner: Vec<&[f64]> = above.chunks(n).skip(start).map(|row| &row[start..end]).collect();
            below.par_chunks_mut(n * PANEL).for_each(|rows| {
                for row in rows.chunks_mut(n) {
                    let row = &mut row[start..end];
                    for j in 0..row.len() {
                        row[j] = (row[j] - inner(&corner[j][..j], &row[..j])) / corner[j][j];
                    }
                }
            });
            let panel: Vec<f64> = below.chunks(n).flat_map(|row| row[start..end].iter().copied()).collect();
            let width = end - start;
            let Ok(panel) = ArrayView2::from_shape((n - end, width), &panel) else { return None };
            below.par_chunks_mut(n * PANEL).enumerate().for_each(|(at, rows)| {
                let (first, count) = (at * PANEL, rows.len() / n);
                let Ok(rows) = ArrayViewMut2::from_shape((count, n), rows) else { return };
                let mut rows = rows;
                // Only what lies on and below the diagonal.
                let last = first + count;
                let mut target = rows.slice_mut(s![.., end..end + last]);
                let (own, others) = (panel.slice(s![first..last, ..]), panel.slice(s![..last, ..]));
                general_mat_mul(-1.0, &own, &others.t(), 1.0, &mut target);
            });
        }
        Some(self)
    }

    /// M unit upper triangular and D with M·diag(D)·Mᵀ = this: M row by row (0 below its diagonal), in float32. `None` when
    /// the matrix is not positive definite.
    pub fn upper_factor(self) -> Option<(Vec<f32>, Vec<f32>)> {
        let n = self.size;
        // The Cholesky factor of the matrix in opposite order, in opposite order, is upper triangular.
        let factor = self.flipped().cholesky()?.flipped();
        let pivots = factor.diagonal();
        let mut unit = vec![0.0_f32; n * n];
        unit.par_chunks_mut(n.max(1)).zip(factor.values.par_chunks(n.max(1))).enumerate().for_each(
            |(i, (out, row))| {
                for k in i..n {
                    out[k] = (row[k] / pivots[k]) as f32;
                }
            },
        );
        Some((unit, pivots.iter().map(|pivot| (pivot * pivot) as f32).collect()))
    }

    /// For each row r of `rows` (of [`Self::size`] values) the x with L·Lᵀ·x = r, where this is L.
    pub fn solve(&self, mut rows: Vec<f64>) -> Vec<f64> {
        let n = self.size;
        let Ok(lower) = ArrayView2::from_shape((n, n), &self.values) else { return rows };
        let blocks: Vec<(usize, usize)> = (0..n).step_by(BLOCK).map(|from| (from, (from + BLOCK).min(n))).collect();
        rows.par_chunks_mut((n * PANEL).max(1)).for_each(|rows| {
            let count = rows.len() / n.max(1);
            let Ok(mut x) = ArrayViewMut2::from_shape((count, n), rows) else { return };
            for &(from, to) in &blocks {
                let (done, mut rest) = x.view_mut().split_at(Axis(1), from);
                let mut own = rest.slice_mut(s![.., ..to - from]);
                general_mat_mul(-1.0, &done, &lower.slice(s![from..to, ..from]).t(), 1.0, &mut own);
                for mut row in own.rows_mut() {
                    for i in 0..to - from {
                        let sum: f64 = (0..i).map(|k| lower[(from + i, from + k)] * row[k]).sum();
                        row[i] = (row[i] - sum) / lower[(from + i, from + i)];
                    }
                }
            }
            for &(from, to) in blocks.iter().rev() {
                let (mut front, done) = x.view_mut().split_at(Axis(1), to);
                let mut own = front.slice_mut(s![.., from..to]);
                general_mat_mul(-1.0, &done, &lower.slice(s![to.., from..to]), 1.0, &mut own);
                for mut row in own.rows_mut() {
                    for i in (0..to - from).rev() {
                        let sum: f64 = (i + 1..to - from).map(|k| lower[(from + k, from + i)] * row[k]).sum();
                        row[i] = (row[i] - sum) / lower[(from + i, from + i)];
                    }
                }
            }
        });
        rows
    }
}

fn inner(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// `left · right`, of `rows × depth` and `depth × columns`, by all threads.
pub fn product(left: &[f32], right: &[f32], depth: usize, columns: usize) -> Vec<f32> {
    let rows = left.len() / depth.max(1);
    let mut out = vec![0.0_f32; rows * columns];
    let Ok(right) = ArrayView2::from_shape((depth, columns), right) else { return out };
    out.par_chunks_mut((columns * PANEL).max(1)).zip(left.par_chunks((depth * PANEL).max(1))).for_each(
        |(out, left)| {
            let count = left.len() / depth.max(1);
            if let (Ok(left), Ok(mut out)) =
                (ArrayView2::from_shape((count, depth), left), ArrayViewMut2::from_shape((count, columns), out))
            {
                general_mat_mul(1.0, &left, &right, 0.0, &mut out);
            }
        },
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(n: usize, rows: usize) -> Square {
        let mut rng = fastrand::Rng::with_seed(n as u64);
        let x: Vec<f64> = (0..rows * n).map(|_| rng.f64() - 0.5).collect();
        let mut h = Square::zeros(n);
        for row in x.chunks(n) {
            for i in 0..n {
                for j in 0..n {
                    h.values[i * n + j] += row[i] * row[j];
                }
            }
        }
        h.add_to_diagonal(0.1);
        h
    }

    #[test]
    fn factors_multiply_to_the_matrix_and_solutions_solve() {
        for n in [1, 2, 63, 64, 65, 200] {
            let h = matrix(n, 2 * n);
            let lower = h.clone().cholesky().expect("positive definite");
            let (unit, pivots) = h.clone().upper_factor().expect("positive definite");
            for i in 0..n {
                for j in 0..n {
                    let l = |i: usize, k: usize| if k <= i { lower.values[i * n + k] } else { 0.0 };
                    let llt: f64 = (0..n).map(|k| l(i, k) * l(j, k)).sum();
                    let m = |i: usize, k: usize| f64::from(unit[i * n + k]);
                    let mdm: f64 = (0..n).map(|k| m(i, k) * f64::from(pivots[k]) * m(j, k)).sum();
                    let expected = h.values[i * n + j];
                    assert!((llt - expected).abs() < 1e-9 && (mdm - expected).abs() < 1e-4, "{n} {i} {j}");
                    assert!(
                        unit[i * n + j] == if i == j { 1.0 } else { unit[i * n + j] }
                            && (j >= i || unit[i * n + j] == 0.0)
                    );
                }
            }
            let right: Vec<f64> = (0..n * 3).map(|i| (i as f64).sin()).collect();
            let solved = lower.solve(right.clone());
            for (x, right) in solved.chunks(n).zip(right.chunks(n)) {
                for (row, right) in h.values.chunks(n).zip(right) {
                    assert!((inner(row, x) - right).abs() < 1e-7, "{n}");
                }
            }
        }
    }

    #[test]
    fn an_indefinite_matrix_has_no_factor() {
        let indefinite = Square { size: 2, values: vec![1.0, 2.0, 2.0, 1.0] };
        assert!(indefinite.clone().cholesky().is_none() && indefinite.upper_factor().is_none());
        assert!(Square { size: 1, values: vec![f64::NAN] }.cholesky().is_none());
    }
}
