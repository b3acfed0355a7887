//! What a benchmark returns: the JSON of `nibble bench`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::{AccuracyPair, Quality, Sqnr};

/// Which clock timed the runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Clock {
    /// CPU time of the thread that ran the model: one thread only; other load hardly disturbs it.
    #[serde(rename = "thread CPU")]
    ThreadCpu,
    /// Time on the wall.
    #[serde(rename = "wall")]
    Wall,
}

/// Latency of one run in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LatencyMs {
    /// Median.
    pub p50: f64,
    /// 95 % of the runs took no longer.
    pub p95: f64,
    /// Mean.
    pub mean: f64,
}

/// quantized / original, below 1 is faster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LatencyRatio {
    /// Median of the ratios of the rounds; each round times both models on the same sample.
    pub p50: f64,
    /// Lower end of the median's 95 % confidence interval (bootstrap over blocks, for each of which both models were
    /// opened anew, and over the rounds in them).
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// What a comparison of two times amounts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speed {
    /// The quantized model takes less time.
    Faster,
    /// No difference that is clear.
    Same,
    /// The quantized model takes more time.
    Slower,
}

/// Ratios this near to 1 are no difference: two runs of the same measurement differ as much.
const SAME: f64 = 0.01;

impl LatencyRatio {
    /// Faster or slower only when the whole interval lies more than 1 % away from 1.
    pub fn speed(self) -> Speed {
        if self.high < 1.0 - SAME {
            Speed::Faster
        } else if self.low > 1.0 + SAME {
            Speed::Slower
        } else {
            Speed::Same
        }
    }
}

/// One of the models.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BenchModel {
    /// Its file.
    pub path: PathBuf,
    /// File size, with external data.
    pub size_bytes: u64,
    /// Latency of one run.
    pub latency_ms: LatencyMs,
    /// Peak memory of a process of its own that opens and runs it; `None` where the system does not say.
    pub peak_memory_bytes: Option<u64>,
}

/// Time of one node of the optimised graph.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerTime {
    /// `original` or `quantized`.
    pub model: String,
    /// The node's name after ONNX Runtime's optimisation.
    pub name: String,
    /// Its operator, which names the kernel that really ran, e.g. `QLinearConv`.
    pub op: String,
    /// Median time of one run.
    pub time_ms: f64,
}

/// Time of all nodes of one operator, in both models.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OpTime {
    /// The operator.
    pub op: String,
    /// Number of nodes in the original.
    pub original_nodes: usize,
    /// Their time in one run.
    pub original_ms: f64,
    /// Number of nodes in the quantized model.
    pub quantized_nodes: usize,
    /// Their time in one run.
    pub quantized_ms: f64,
}

/// Two models side by side.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bench {
    /// Original, then quantized.
    pub models: Vec<BenchModel>,
    /// Their latency ratio.
    pub latency_ratio: LatencyRatio,
    /// Share of samples with the same largest class; `None` where the output is not `[1, C]`.
    pub agreement: Option<f64>,
    /// SQNR of the first floating output.
    pub sqnr_db: Sqnr,
    /// Task accuracy; `None` without labels.
    pub accuracy: Option<AccuracyPair>,
    /// What the processor has that int8 and float16 kernels use.
    pub cpu_features: Vec<String>,
    /// Nodes of both models that take the most time, the longest first.
    pub layers: Vec<LayerTime>,
    /// All figures of the comparison.
    #[serde(skip)]
    pub quality: Quality,
    /// All nodes of both models.
    #[serde(skip)]
    pub nodes: Vec<LayerTime>,
    /// Time by operator, the longest first.
    pub ops: Vec<OpTime>,
    /// Why the quantized model is slower; empty when it is not.
    pub slower: Vec<String>,
    /// Which clock timed the runs.
    pub clock: Clock,
    /// Number of rounds; every round runs both models.
    pub rounds: usize,
    /// Threads of each session; 0 for all.
    pub threads: usize,
    /// Number of samples that agreement, SQNR and accuracy are of.
    pub samples: usize,
}
