//! What every repair gets and gives back: rows of weights, what is known of the input they meet, and integers.

use std::sync::OnceLock;
use std::time::Instant;

use super::linear::Square;
use super::part::Rounded;
use super::range::Range;
use super::{adaround, clip, descent, gptq, hqq};
use crate::plan::Rounding;
use crate::quant::QuantParams;

/// Share of the mean of H's diagonal that is added to it, so that it can be inverted (Frantar et al. 2022).
const DAMPING: f64 = 0.01;

/// Inputs of one group of a layer: H = E[x·xᵀ], and its factor once somebody asks for it.
pub struct Inputs {
    /// H row by row, damped.
    pub hessian: Square,
    factor: OnceLock<Option<(Vec<f32>, Vec<f32>)>>,
}

impl Inputs {
    /// Inputs with this H, which `rows` rows made. It is damped here, and what lies beside its diagonal is shrunk: by half the
    /// share that columns have in columns and rows, since as few rows as columns make inputs look more alike than they are
    /// (a shrinkage to the diagonal as Ledoit and Wolf, 2004, have it, with a fixed intensity in place of their estimate).
    pub fn new(mut hessian: Square, rows: f64) -> Self {
        let size = hessian.size;
        let kept = 1.0 - 0.5 * size as f64 / (size as f64 + rows).max(1.0);
        for (i, row) in hessian.values.chunks_mut(size.max(1)).enumerate() {
            for (_, value) in row.iter_mut().enumerate().filter(|(j, _)| *j != i) {
                *value *= kept;
            }
        }
        let diagonal = hessian.diagonal();
        let mean = diagonal.iter().sum::<f64>() / diagonal.len().max(1) as f64;
        hessian.add_to_diagonal(if mean > 0.0 { DAMPING * mean } else { 1.0 });
        Self { hessian, factor: OnceLock::new() }
    }

    /// M (unit upper triangular, row by row) and D with M·diag(D)·Mᵀ = H; `None` when H cannot be factored.
    pub fn factor(&self) -> Option<(&[f32], &[f32])> {
        let factor = self.factor.get_or_init(|| self.hessian.clone().upper_factor());
        factor.as_ref().map(|(unit, pivots)| (unit.as_slice(), pivots.as_slice()))
    }
}

/// One part of a weight that is to be rounded.
pub struct Task<'a> {
    /// Weights row by row.
    pub weights: &'a [f32],
    /// Weights of a row.
    pub columns: usize,
    /// Weights of a row that share a scale, side by side.
    pub span: usize,
    /// What enters; `None` without data.
    pub inputs: Option<&'a Inputs>,
    /// The integers to use.
    pub range: Range,
    /// Parameters of each row where rows share scales, so that no row may choose its own.
    pub fixed: Option<Vec<QuantParams>>,
    /// When what is rounded is left as it is, however much polishing would better it.
    pub polish_until: Option<Instant>,
}

/// A way to round weights that is better than each by itself to the nearest integer.
pub trait Repair: Sync {
    /// Its word.
    fn method(&self) -> Rounding;

    /// Whether it looks at what enters the layer.
    fn uses_inputs(&self) -> bool {
        true
    }

    /// Rounds all rows.
    fn round(&self, task: &Task<'_>) -> Rounded;
}

/// The algorithm behind a word; `None` for what is no rounding of one layer by itself. [`Rounding::Bias`] rounds to
/// nearest, [`Rounding::Refit`] with GPTQ what it has refitted.
pub fn algorithm(method: Rounding) -> Option<&'static dyn Repair> {
    match method {
        Rounding::Clip => Some(&clip::ClipSearch),
        Rounding::Gptq | Rounding::Refit => Some(&gptq::Gptq),
        Rounding::Descent => Some(&descent::Descent),
        Rounding::AdaRound => Some(&adaround::AdaRound),
        Rounding::Hqq => Some(&hqq::Hqq),
        Rounding::Nearest | Rounding::Bias | Rounding::Finetuned => None,
    }
}
