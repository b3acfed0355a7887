//! Scalings: function-preserving changes of the float graph that make it easier to round.
//!
//! A tensor X enters layers with weights W. With a factor s > 0 for each channel, `X·W = (X / s)·(s·W)`: ranges move from
//! activations into weights, or from one layer's weights into another's. 1/s goes into the constants that X comes from
//! (`reach`), or into one Mul before the layers (`apply`). The factors come from a search for each block of layers
//! (`search`), by the formula of one of three methods:
//! - SmoothQuant (Xiao et al. 2023, "SmoothQuant", arXiv 2211.10438): `smooth`, for integer activations;
//! - AWQ (Lin et al. 2024, "AWQ", arXiv 2306.00978): `awq`, for weights alone;
//! - cross-layer equalisation (Nagel et al. 2019, "Data-Free Quantization", arXiv 1906.04721): `equalise`, without data.

mod apply;
mod awq;
mod block;
mod constants;
mod equalise;
mod reach;
mod rows;
mod search;
mod smooth;
mod step;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use search::{ScaleOptions, Scaled, ScaledBlock, scale};
pub use step::{Calibration, ScaledPlan, scale_plan};

/// How the factors of a scaling were found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScalingMethod {
    /// From the ranges of activations and weights (Xiao et al. 2023).
    Smoothquant,
    /// From the magnitudes of activations, for weights alone (Lin et al. 2024).
    Awq,
    /// From the ranges of two layers' weights (Nagel et al. 2019).
    Equalisation,
}

impl ScalingMethod {
    /// Every method, in the order menus show them.
    pub const ALL: &'static [Self] = &[Self::Smoothquant, Self::Awq, Self::Equalisation];

    /// The word for it on the screen, in JSON and on the command line.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Smoothquant => "smoothquant",
            Self::Awq => "awq",
            Self::Equalisation => "equalisation",
        }
    }
}

impl fmt::Display for ScalingMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

impl FromStr for ScalingMethod {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = Self::ALL.iter().copied().find(|method| method.word() == text);
        let words = || Self::ALL.iter().map(|method| method.word()).collect::<Vec<_>>().join(", ");
        known.ok_or_else(|| format!("allowed are {}", words()))
    }
}

/// Tensor X is divided by a factor s per channel, and the weights of the layers it enters are multiplied by it.
#[derive(Clone, Debug, PartialEq)]
pub struct Scaling {
    /// The tensor X in the prepared graph.
    pub tensor: String,
    /// s, one factor a channel of X: finite and greater than 0.
    pub factors: Vec<f32>,
    /// The node that 1/s is folded into, the first where there are several; `None` where a Mul is inserted.
    pub folded_into: Option<String>,
    /// How the factors were found.
    pub method: ScalingMethod,
    /// Share of the activations' range that moves into the weights, 0 to 1, where the method has one.
    pub alpha: Option<f32>,
}
