//! ONNX files: protobuf types, load, save, external data, and small constructors.
//!
//! A loaded file is memory-mapped; `raw_data` of every tensor is a slice of the mapping, so opening a model costs no copy
//! of its weights.

pub mod build;
mod error;
mod external;
mod load;
mod map;
mod metadata;
mod outline;
#[rustfmt::skip]
pub mod proto;
mod read;
mod save;
mod types;
pub mod walk;

pub use error::OnnxError;
#[cfg(test)]
pub(crate) use external::point_at;
pub use load::OnnxFile;
pub(crate) use load::{decode, hex, map_file};
pub use metadata::metadata;
pub use save::{Staged, save};
pub use types::{element_type, element_type_name, port};
