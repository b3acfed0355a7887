//! Nibble's library: everything between an ONNX file and a quantized one that ONNX Runtime really runs.
//!
//! Data flows one way: `file → Model → Stats → Plan → Export → verify → Bench → Report`. Every arrow is a function
//! `verb(&input, &Control) -> Result<Output, Error>`. No window, no argument parsing, no threads but rayon's.

pub mod autodiff;
pub mod bench;
pub mod calibrate;
mod child;
pub mod control;
pub mod data;
pub mod error;
pub mod export;
pub mod failure;
pub mod finetune;
pub mod limits;
pub mod model;
pub mod onnx;
pub mod operators;
pub mod plan;
pub mod port;
pub mod predict;
pub mod problem;
pub mod quant;
pub mod repair;
pub mod report;
pub mod runtime;
mod simd;
pub mod stats;
pub mod tensor;

pub use control::Control;
pub use failure::Error;
pub use problem::Problem;
