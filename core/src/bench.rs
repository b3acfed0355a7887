//! Side-by-side measurement of two models in one process: latency, size, memory, agreement, and why one is slower.

mod bench_error;
mod result;

pub use bench_error::BenchError;
pub use result::{Bench, BenchModel, Clock, LatencyMs, LatencyRatio, LayerTime, OpTime};
