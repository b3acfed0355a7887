//! How much a quantized model differs from the original: metrics, one file each, and the measurements made with them.

pub mod accumulated;
pub mod accuracy;
mod comparison;
mod isolated;
mod measure_error;
mod metric;
mod output_error;
mod own_metric;
mod pairing;
pub mod quality;
mod sqnr;

pub use accumulated::{InMemory, LayerError, LayerPair, accumulated};
pub use accuracy::{Accuracy, evaluate};
pub use comparison::{ComparedLayer, Comparison, compare_layers};
pub use isolated::{Isolated, Probe, isolated};
pub use measure_error::MeasureError;
pub use metric::Metric;
pub(crate) use metric::{class_count, is_distribution};
pub use output_error::{OutputError, OutputQuality};
pub use own_metric::OwnMetric;
pub use pairing::{LayerMatch, MatchedBy, pair_layers};
pub(crate) use quality::converted;
pub use quality::{AccuracyPair, CompareOptions, Quality, compare};
pub use sqnr::Sqnr;
