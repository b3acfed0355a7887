//! Scalings: function-preserving changes of the float graph that make it easier to round.

use serde::{Deserialize, Serialize};

/// How the factors of a scaling were found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScalingMethod {
    /// From the ranges of activations and weights (Xiao et al. 2022).
    Smoothquant,
    /// From the magnitudes of activations, for weights alone (Lin et al. 2023).
    Awq,
    /// From the ranges of two layers' weights (Nagel et al. 2019).
    Equalisation,
}

/// Tensor X is divided by a factor s per channel, and the weights of the layers it enters are multiplied by it.
#[derive(Clone, Debug, PartialEq)]
pub struct Scaling {
    /// The tensor X in the prepared graph.
    pub tensor: String,
    /// s, one factor a channel of X: finite and greater than 0.
    pub factors: Vec<f32>,
    /// The node that 1/s is folded into; `None` where a Mul is inserted.
    pub folded_into: Option<String>,
    /// How the factors were found.
    pub method: ScalingMethod,
    /// Share of the activations' range that moves into the weights, 0 to 1, where the method has one.
    pub alpha: Option<f32>,
}
