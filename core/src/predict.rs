//! What a plan will do to the model's output, known before the model is run.
//!
//! Noise powers add: the expected squared error of the output is Σ over everything that is rounded of `E[g²]·Δ²`, where g is
//! the slope of the output by that weight or activation and Δ what rounding does to it. The slopes come from going back
//! through the graph ([`crate::autodiff`]) on a few samples with random signs over the output's elements, E[(Σ ±∂yᵢ)²] =
//! Σ (∂yᵢ)² (the diagonal of the Fisher information, as in Hessian-free pruning and HAWQ). After that every choice costs
//! only its own Δ², so that a changed plan is judged without running anything. By how much such sums are off for a model is learnt
//! from a few uniform plans that are run ([`Sensitivity::check`]); where slopes do not hold at all, layers are measured one
//! by one ([`Sensitivity::measure_one_by_one`]).

mod anchor;
mod candidates;
mod checks;
mod forecast;
mod gather;
mod latency;
mod layers;
mod learn;
mod learnt;
mod loudest;
mod noise;
mod one_by_one;
mod prediction;
mod predictor;
mod rounded;
mod sample;
mod sensitivity;
mod single;
mod spread;
#[cfg(test)]
mod tests;
mod together;
mod weighting;

pub use candidates::candidates;
pub use checks::Check;
pub use forecast::Forecast;
pub use gather::{GatherOptions, gather};
pub use latency::LatencyTable;
pub use learn::{LearnOptions, learn};
pub use learnt::{Expected, Learnt};
pub use noise::Noise;
pub use prediction::{NoiseSource, Part, Parts, Prediction, predict};
pub use predictor::{Outlook, Predictor};
pub use sensitivity::{LayerSensitivity, Pricing, Sensitivity, TensorSensitivity, Unknown};
pub use single::{Reference, Trial, single_layer_plan};
pub use spread::Spread;
