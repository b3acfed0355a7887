//! Side-by-side measurement of two models in one process: latency, size, memory, agreement, and why one is slower.

mod bench_error;
mod features;
mod memory;
mod profile;
mod result;
mod run;
mod settle;
mod timing;
mod why;

pub use bench_error::BenchError;
pub use features::cpu_features;
pub use memory::{MemoryProbe, own_peak_memory_bytes, peak_memory_of, run_for_memory};
pub use profile::profile;
pub use result::{Bench, BenchModel, Clock, LatencyMs, LatencyRatio, LayerTime, OpTime, Speed};
pub use run::{BenchOptions, bench};
pub use settle::{Measured, measured_layers, settle};
pub use timing::{Timing, time_pair};
pub use why::why_slower;
