//! A quantized model beside its original, sample by sample.

use serde::{Deserialize, Serialize};

use super::output_error::six_digits;
use super::{OutputQuality, Sqnr};

/// How two models are compared.
#[derive(Clone, Debug)]
pub struct CompareOptions {
    /// Threads of each session; 0 for all.
    pub threads: usize,
    /// The output of the scalar figures; `None`: the first floating one.
    pub output: Option<String>,
}

impl Default for CompareOptions {
    fn default() -> Self {
        Self { threads: 1, output: None }
    }
}

/// Task accuracy of both models on the same samples, in 0..=1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AccuracyPair {
    /// Of the original.
    pub original: f64,
    /// Of the quantized model.
    pub quantized: f64,
}

/// How well the quantized model keeps to the original. The scalar figures are those of [`Quality::output`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    /// SQNR over all samples, every sample run by itself.
    pub sqnr_db: Sqnr,
    /// The output that the scalar figures are of.
    pub output: String,
    /// Cosine similarity over all samples.
    #[serde(serialize_with = "six_digits")]
    pub cosine: Option<f64>,
    /// Share of samples with the same largest class; `None` where the output is not `[1, C]`.
    pub top1_agreement: Option<f64>,
    /// Values of the quantized model's output that are NaN or infinite.
    pub non_finite: u64,
    /// Task accuracy; `None` without labels.
    pub accuracy: Option<AccuracyPair>,
    /// Largest absolute difference.
    pub max_abs_error: f64,
    /// Number of samples.
    pub samples: usize,
    /// Every output's figures.
    pub outputs: Vec<OutputQuality>,
}
