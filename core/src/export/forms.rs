//! The forms in which a layer can be written: one file a form, behind [`WriteForm`].

mod dynamic_lstm;
mod dynamic_matmul;
mod float16;
mod float16_weights;
mod folded_weights;
mod int16_activations;
mod matmul_nbits;
pub(super) mod qdq;
mod quantized_gather;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::export::context::Context;
use crate::export::size::written;
use crate::model::{Layer, Weight};
use crate::plan::{Choice, Granularity, Symmetry};

/// Writes layers in one form, and knows what that costs.
pub(super) trait WriteForm: Sync {
    /// Puts the layer's quantized form into the patch.
    fn write<'a>(&self, context: &mut Context<'a>, layer: &'a Layer, choice: &Choice) -> Result<(), Error>;

    /// Bytes of a weight in the file, with its scales and zero points.
    fn weight_bytes(&self, weight: &Weight, choice: &Choice) -> u64 {
        value_bytes(weight, choice) + groups(weight, choice) * 5
    }

    /// Bytes of the nodes that turn a stored weight into one that its layer reads: about how often its name is
    /// repeated, and what surrounds the names.
    fn node_bytes(&self, weight: &Weight, _choice: &Choice, _opset: i64) -> u64 {
        3 * written(&weight.tensor) + 60
    }

    /// Bytes that the layer itself adds.
    fn layer_bytes(&self, _layer: &Layer) -> u64 {
        100
    }

    /// Whether calibrated activations are part of it.
    fn needs_statistics(&self) -> bool {
        false
    }

    /// Whether an integer kernel computes it, so that its activations have to be integers.
    fn runs_on_integers(&self) -> bool {
        false
    }

    /// Whether the layer stays a float operator, which the runtime must be kept from quantizing by itself.
    fn stays_float(&self) -> bool {
        false
    }
}

macro_rules! forms {
    ($($(#[$doc:meta])* $name:ident = $word:literal => $writer:expr;)+) => {
        /// How a layer is written.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Form { $($(#[$doc])* #[serde(rename = $word)] $name),+ }

        impl Form {
            /// Every form.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The word for it on the screen and in JSON.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$name => $word),+ }
            }

            /// What writes it.
            pub(super) fn writer(self) -> &'static dyn WriteForm {
                match self { $(Self::$name => &$writer),+ }
            }
        }
    };
}

forms! {
    /// Left as it is.
    Float = "float" => LeftAsItIs;
    /// Weights stored as integers, floating point again when loaded.
    FoldedWeights = "folded_weights" => folded_weights::FoldedWeights;
    /// Weights stored as float16, float32 again when loaded.
    Float16Weights = "float16_weights" => float16_weights::Float16Weights;
    /// QuantizeLinear and DequantizeLinear around it, fused to an integer kernel.
    Qdq = "qdq" => qdq::Qdq;
    /// As `qdq`, 4-bit weights cast to int8 when loaded.
    Int4CastQdq = "int4_cast_qdq" => qdq::Qdq;
    /// As `qdq`, 2-bit weights cast to int8 when loaded.
    Int2CastQdq = "int2_cast_qdq" => qdq::Qdq;
    /// Weights stored as integers, input rounded to 16 bits, a float kernel.
    Int16Activations = "int16_activations" => int16_activations::Int16Activations;
    /// Computed in half precision.
    Float16 = "float16" => float16::Float16;
    /// ONNX Runtime's MatMulNBits.
    MatmulNbits = "matmul_nbits" => matmul_nbits::MatmulNbits;
    /// ONNX Runtime's DynamicQuantizeMatMul.
    DynamicMatmul = "dynamic_matmul" => dynamic_matmul::DynamicMatmul;
    /// ONNX Runtime's DynamicQuantizeLSTM.
    DynamicLstm = "dynamic_lstm" => dynamic_lstm::DynamicLstm;
    /// Rows looked up as integers.
    QuantizedGather = "quantized_gather" => quantized_gather::QuantizedGather;
}

impl Form {
    /// Whether calibration statistics are needed to write it.
    pub fn needs_statistics(self) -> bool {
        self.writer().needs_statistics()
    }

    /// Whether an integer kernel computes it from calibrated activations.
    pub fn runs_on_integers(self) -> bool {
        self.writer().runs_on_integers()
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// What a form does for the layer in ONNX Runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// An integer kernel runs it faster than the float one.
    Faster,
    /// The file gets smaller; speed stays or falls a little.
    SmallerOnly,
    /// It computes what integers would, and slower.
    SimulationOnly,
    /// Nothing changes.
    Unchanged,
}

/// The form of a layer that is not touched.
struct LeftAsItIs;

impl WriteForm for LeftAsItIs {
    fn write<'a>(&self, _: &mut Context<'a>, _: &'a Layer, _: &Choice) -> Result<(), Error> {
        Ok(())
    }

    fn weight_bytes(&self, weight: &Weight, _: &Choice) -> u64 {
        weight.size_bytes
    }

    fn node_bytes(&self, _: &Weight, _: &Choice, _: i64) -> u64 {
        0
    }

    fn layer_bytes(&self, _: &Layer) -> u64 {
        0
    }

    fn stays_float(&self) -> bool {
        true
    }
}

/// Bytes of a weight's integers.
fn value_bytes(weight: &Weight, choice: &Choice) -> u64 {
    (weight.layout.len() as u64 * u64::from(choice.precision.bits())).div_ceil(8)
}

/// Scales of a weight.
fn groups(weight: &Weight, choice: &Choice) -> u64 {
    let (channels, depth) = (weight.layout.channels as u64, weight.layout.depth() as u64);
    match choice.granularity {
        Granularity::PerTensor => 1,
        Granularity::PerChannel => channels,
        Granularity::Block(size) => channels * depth.div_ceil(u64::from(size.max(1))),
    }
}

/// Whether zero points are stored.
fn has_zero_points(choice: &Choice) -> bool {
    choice.symmetry == Symmetry::Asymmetric
}
