//! The choice for one layer, and the words it is written in (screen = code = JSON).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::PlanError;

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $word)] $variant),+ }
        impl $name {
            /// Every value, in the order menus show them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];
            /// The word for it on the screen, in JSON and on the command line.
            pub const fn word(self) -> &'static str { match self { $(Self::$variant => $word),+ } }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.pad(self.word()) }
        }
        impl FromStr for $name {
            type Err = PlanError;
            fn from_str(text: &str) -> Result<Self, PlanError> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(PlanError::Value { key: stringify!($name).to_lowercase(), value: text.to_owned(),
                        allowed: [$($word),+].join(", ") }),
                }
            }
        }
    };
}

words!(
    /// Precision of a layer's weights.
    Precision {
        /// 8-bit integers.
        Int8 = "int8",
        /// 4-bit integers.
        Int4 = "int4",
        /// 2-bit integers.
        Int2 = "int2",
        /// IEEE half precision.
        Float16 = "float16",
        /// Left as they are.
        Float32 = "float32",
    }
);

words!(
    /// Whether zero lies in the middle of the integer range.
    Symmetry {
        /// Zero point fixed (0 for signed weights).
        Symmetric = "symmetric",
        /// Zero point free, so that the whole range is used.
        Asymmetric = "asymmetric",
    }
);

words!(
    /// Precision of the activations that enter a layer.
    Activation {
        /// 8-bit integers, written as uint8.
        Int8 = "int8",
        /// 16-bit integers, written as uint16; no CPU kernel computes with them, so this is simulation.
        Int16 = "int16",
        /// IEEE half precision; only with float16 weights: the layer is computed in half precision.
        Float16 = "float16",
        /// Left in floating point.
        Float32 = "float32",
    }
);

words!(
    /// When activation ranges are found.
    Mode {
        /// Before: from calibration data.
        Static = "static",
        /// While running: from each input itself.
        Dynamic = "dynamic",
        /// Never: activations stay in floating point.
        WeightOnly = "weight_only",
    }
);

words!(
    /// How weights are rounded to integers: `nearest` needs nothing but the weight; the others name the repair
    /// ([`crate::repair`]) whose integers the plan carries.
    Rounding {
        /// To the nearest integer, ties to even.
        Nearest = "nearest",
        /// To the nearest integer of a range that was searched for the layer's own inputs.
        Clip = "clip",
        /// To the nearest integer, with the layer's bias corrected.
        Bias = "bias",
        /// Column by column, each error made up for by the columns after it.
        Gptq = "gptq",
        /// By moving single integers as long as the layer's output gets closer.
        Descent = "descent",
        /// Up or down, learnt.
        AdaRound = "adaround",
        /// Half-quadratic: scales and zero points fitted to the weights alone, without data.
        Hqq = "hqq",
        /// Fitted to the errors of the layers before it, then column by column.
        Refit = "refit",
        /// By fine-tuning.
        Finetuned = "finetuned",
    }
);

/// Which weights share a scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Granularity {
    /// One scale for the tensor.
    PerTensor,
    /// One scale an output channel.
    PerChannel,
    /// One scale for every N consecutive weights along the input axis of each output channel.
    Block(u32),
}

/// How a clip range is found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Clip {
    /// The whole range seen.
    MinMax,
    /// The range that holds this share of the values, in percent (e.g. 99.99).
    Percentile(f32),
    /// The range with the least mean squared error after quantization.
    Mse,
    /// The range whose quantization diverges least from what was seen, as TensorRT chooses it.
    Entropy,
    /// The scales that the file brings, where it was trained quantization-aware; `MinMax` where it brings none.
    Trained,
    /// A range set by hand (or by dragging the handles).
    Manual {
        /// Lower end.
        lo: f32,
        /// Upper end.
        hi: f32,
    },
}

/// What the person decided for one layer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Choice {
    /// Weight precision.
    pub precision: Precision,
    /// Weight symmetry.
    pub symmetry: Symmetry,
    /// Weight granularity.
    pub granularity: Granularity,
    /// How the weight range is clipped. `Manual` applies to the whole tensor.
    pub clip: Clip,
    /// How weights are rounded.
    pub rounding: Rounding,
    /// Whether int8 weights keep to 7 bits (−63..63, asymmetric −64..63): kernels that add two products in 16 bits, as those
    /// of processors with AVX2 and without VNNI do, then never saturate.
    #[serde(default, skip_serializing_if = "is_false")]
    pub reduce_range: bool,
    /// When activation ranges are found.
    pub mode: Mode,
    /// Activation precision (only `static` and `dynamic` quantize activations).
    pub activation: Activation,
    /// Activation symmetry.
    pub activation_symmetry: Symmetry,
    /// How the activation range is clipped (only `static`).
    pub activation_clip: Clip,
}

impl Choice {
    /// Everything left in floating point.
    pub const FLOAT: Self = Self {
        precision: Precision::Float32,
        symmetry: Symmetry::Symmetric,
        granularity: Granularity::PerChannel,
        clip: Clip::MinMax,
        rounding: Rounding::Nearest,
        reduce_range: false,
        mode: Mode::WeightOnly,
        activation: Activation::Float32,
        activation_symmetry: Symmetry::Asymmetric,
        activation_clip: Clip::MinMax,
    };

    /// Whether calibrated activations are quantized.
    pub fn is_static(&self) -> bool {
        self.mode == Mode::Static && self.activation.is_integer() && self.is_integer()
    }

    /// Whether activations are quantized at run time.
    pub fn is_dynamic(&self) -> bool {
        self.mode == Mode::Dynamic && self.activation.is_integer() && self.is_integer()
    }

    /// Bits that a weight uses of those that it is stored in: 7 for int8 with [`Self::reduce_range`].
    pub fn weight_bits(&self) -> u32 {
        if self.reduce_range && self.precision == Precision::Int8 { 7 } else { self.precision.bits() }
    }

    /// Whether the weights become integers.
    pub fn is_integer(&self) -> bool {
        matches!(self.precision, Precision::Int8 | Precision::Int4 | Precision::Int2)
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

impl Activation {
    /// Bits of one value.
    pub fn bits(self) -> u32 {
        match self {
            Self::Int8 => 8,
            Self::Int16 | Self::Float16 => 16,
            Self::Float32 => 32,
        }
    }

    /// Whether the values become integers.
    pub fn is_integer(self) -> bool {
        matches!(self, Self::Int8 | Self::Int16)
    }
}

impl Precision {
    /// Bits of one weight.
    pub fn bits(self) -> u32 {
        match self {
            Self::Int2 => 2,
            Self::Int4 => 4,
            Self::Int8 => 8,
            Self::Float16 => 16,
            Self::Float32 => 32,
        }
    }
}

impl fmt::Display for Granularity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PerTensor => f.pad("per_tensor"),
            Self::PerChannel => f.pad("per_channel"),
            Self::Block(size) => f.pad(&format!("block:{size}")),
        }
    }
}

impl FromStr for Granularity {
    type Err = PlanError;
    fn from_str(text: &str) -> Result<Self, PlanError> {
        let allowed = "per_tensor, per_channel, block:16, block:32, block:64, block:128, block:256";
        let bad =
            || PlanError::Value { key: "granularity".to_owned(), value: text.to_owned(), allowed: allowed.to_owned() };
        match text {
            "per_tensor" => Ok(Self::PerTensor),
            "per_channel" => Ok(Self::PerChannel),
            _ => {
                let size: u32 = text.strip_prefix("block:").and_then(|n| n.parse().ok()).ok_or_else(bad)?;
                // ONNX Runtime accelerates powers of two from 16 only.
                if (16..=256).contains(&size) && size.is_power_of_two() { Ok(Self::Block(size)) } else { Err(bad()) }
            }
        }
    }
}

impl fmt::Display for Clip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MinMax => f.pad("minmax"),
            Self::Percentile(p) => f.pad(&format!("percentile:{p}")),
            Self::Mse => f.pad("mse"),
            Self::Entropy => f.pad("entropy"),
            Self::Trained => f.pad("trained"),
            Self::Manual { lo, hi } => f.pad(&format!("manual:{lo}:{hi}")),
        }
    }
}

impl FromStr for Clip {
    type Err = PlanError;
    fn from_str(text: &str) -> Result<Self, PlanError> {
        let bad = || PlanError::Value {
            key: "clip".to_owned(),
            value: text.to_owned(),
            allowed: "minmax, percentile:P (50 < P <= 100), mse, entropy, trained, manual:LO:HI (LO < HI)".to_owned(),
        };
        let mut parts = text.split(':');
        let number = |part: Option<&str>| -> Result<f32, PlanError> {
            part.and_then(|t| t.parse().ok()).filter(|x: &f32| x.is_finite()).ok_or_else(bad)
        };
        let clip = match parts.next() {
            Some("minmax") => Self::MinMax,
            Some("mse") => Self::Mse,
            Some("entropy") => Self::Entropy,
            Some("trained") => Self::Trained,
            Some("percentile") => {
                let share = match parts.next() {
                    None => 99.99,
                    part => number(part)?,
                };
                if !(share > 50.0 && share <= 100.0) {
                    return Err(bad());
                }
                Self::Percentile(share)
            }
            Some("manual") => {
                let (lo, hi) = (number(parts.next())?, number(parts.next())?);
                if lo >= hi {
                    return Err(bad());
                }
                Self::Manual { lo, hi }
            }
            _ => return Err(bad()),
        };
        if parts.next().is_some() { Err(bad()) } else { Ok(clip) }
    }
}

macro_rules! serde_as_text {
    ($($name:ident),+) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )+};
}
serde_as_text!(Granularity, Clip);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_a_round_trip() {
        for text in ["minmax", "percentile:99.9", "mse", "entropy", "trained", "manual:-1.5:2"] {
            assert_eq!(text.parse::<Clip>().expect(text).to_string(), text);
        }
        for text in ["per_tensor", "per_channel", "block:32"] {
            assert_eq!(text.parse::<Granularity>().expect(text).to_string(), text);
        }
        for precision in Precision::ALL {
            assert_eq!(precision.word().parse::<Precision>().expect("word"), *precision);
        }
    }

    #[test]
    fn refused_values_name_the_allowed_ones() {
        for text in ["block:17", "block:8", "per_row"] {
            assert!(text.parse::<Granularity>().unwrap_err().to_string().contains(text));
        }
        for text in ["percentile:20", "manual:2:1", "manual:nan:1", "mse:3"] {
            assert!(text.parse::<Clip>().is_err(), "{text}");
        }
    }
}
