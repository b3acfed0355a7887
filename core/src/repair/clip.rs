//! Clip search weighed by the inputs: every group of weights gets the range with the least Σ H_kk·(w_k − ŵ_k)², and each
//! weight its nearest integer.
//!
//! Without data H_kk is 1 and it is the search for the least squared error. Errors of different columns are taken to be
//! independent: correlated inputs are beyond it (see [`super::gptq`]). After Nagel et al., "A White Paper on Neural Network
//! Quantization" (2021), section 3.1, with the diagonal of the Hessian as OBQ and AWQ weigh it.

use rayon::prelude::*;

use super::algorithm::{Repair, Task};
use super::part::Rounded;
use crate::plan::Rounding;
use crate::quant::QuantParams;

/// The clip search.
pub struct ClipSearch;

impl Repair for ClipSearch {
    fn method(&self) -> Rounding {
        Rounding::Clip
    }

    fn round(&self, task: &Task<'_>) -> Rounded {
        let importance = match task.inputs {
            Some(inputs) => inputs.hessian.diagonal().iter().map(|&h| h as f32).collect(),
            None => vec![1.0; task.columns],
        };
        to_nearest(task, &importance)
    }
}

/// Rounds to nearest with ranges that are fitted to the importance of each column, or given.
pub fn to_nearest(task: &Task<'_>, importance: &[f32]) -> Rounded {
    let (columns, span) = (task.columns.max(1), task.span.max(1));
    let spans = columns.div_ceil(span);
    let mut integers = vec![0_i8; task.weights.len()];
    let params: Vec<QuantParams> = task
        .weights
        .par_chunks(columns)
        .zip(integers.par_chunks_mut(columns))
        .enumerate()
        .flat_map_iter(|(row, (weights, out))| {
            let groups = weights.chunks(span).zip(out.chunks_mut(span)).zip(importance.chunks(span));
            let fixed = task.fixed.as_ref().and_then(|fixed| fixed.get(row)).copied();
            let fitted: Vec<QuantParams> = groups
                .map(|((weights, out), importance)| {
                    let params = fixed.unwrap_or_else(|| task.range.fit(weights, importance));
                    params.quantize_i8(weights, out);
                    params
                })
                .collect();
            fitted
        })
        .collect();
    debug_assert_eq!(params.len(), task.weights.len() / columns * spans);
    Rounded { integers, params }
}
