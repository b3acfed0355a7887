//! How much a quantized model differs from the original: metrics, one file each, and the measurements made with them.

mod isolated;
mod measure_error;
mod output_error;
mod quality;
mod sqnr;

pub use isolated::{Isolated, Probe, isolated};
pub use measure_error::MeasureError;
pub use output_error::{OutputError, OutputQuality};
pub use quality::{AccuracyPair, CompareOptions, Quality};
pub use sqnr::Sqnr;
