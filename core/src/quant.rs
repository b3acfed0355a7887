//! The formulae of quantization: scale and zero point, round, saturate, clip, pack. Bit-equal to ONNX Runtime.

mod bias;
mod clip;
mod expected;
mod float16;
mod group;
mod importance;
mod layout;
mod pack;
mod params;
#[cfg(test)]
mod properties;
mod requantize;
#[cfg(test)]
mod runtime_numbers;
#[cfg(test)]
mod runtime_sweep;
mod weight;

pub use bias::{QuantizedBias, bias_i32};
pub use clip::clip_range;
pub(crate) use expected::Grid;
pub use expected::{histogram_noise, histogram_sqnr};
pub use float16::{Float16, float16_round_trip, to_float16};
pub use importance::Weighing;
pub(crate) use importance::weighed;
pub use layout::WeightLayout;
pub use pack::{NBits, matmul_nbits, pack_2bit, pack_4bit, unpack_4bit};
pub use params::{QuantParams, activation_params, activation_params_bits};
pub use requantize::requantize;
pub use weight::{QuantizedWeight, quantize_weight, weight_sqnr};
pub(crate) use weight::{decibels, spans};
