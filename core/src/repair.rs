//! Repairs: other integers (and scales, zero points, bias) for a layer, so that its output is closer to the float one's.
//!
//! A repair leaves the float model as it is. The plan carries it ([`crate::plan::Plan::repairs`]); it is in force for a layer
//! when the layer's choice names its method as `rounding` and has the precision, symmetry and granularity that it was made for.

pub mod adaround;
mod algorithm;
mod bias_slot;
pub mod clip;
mod collect;
pub mod descent;
mod difference;
mod first_look;
pub mod gptq;
pub mod hqq;
mod in_force;
mod job;
mod layer;
mod linear;
mod missing;
mod moments;
mod part;
mod range;
#[cfg(test)]
mod reference;
pub mod refit;
mod scaling;
mod serves;
mod tally;
mod tensors;
mod whole;
mod workbench;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use algorithm::{Inputs, Repair, Task, algorithm};
pub use bias_slot::BiasSlot;
pub use collect::Split;
pub use difference::Difference;
pub use job::{Job, MAX_COLUMNS, RepairOptions, RepairedLayer};
pub use linear::Square;
pub use missing::{missing, repair_missing};
pub use moments::{Drift, Moments, RowsOf};
pub use part::{Part, Rounded};
pub use range::Range;
pub use scaling::{
    Calibration, ScaleOptions, Scaled, ScaledBlock, ScaledPlan, Scaling, ScalingMethod, scale, scale_plan,
};
pub use serves::Picked;
pub use tally::GainSpread;
pub(crate) use tensors::{decode, encode};
pub use whole::{CROSS_FIT_WEIGHTS, Method, Outcome, judges, learnable, repair, repair_watched, repairable, repaired};
pub use workbench::{AtOnce, Workbench};

use crate::model::Layer;
use crate::plan::{Choice, Granularity, Precision, Rounding, Symmetry};
use crate::quant::QuantizedWeight;

/// Signal to noise of a layer's own output in dB, on data that the repair did not use.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gain {
    /// With weights rounded to nearest.
    pub before_db: f64,
    /// With the repair.
    pub after_db: f64,
}

/// A repaired layer.
#[derive(Clone, Debug)]
pub struct LayerRepair {
    /// How it was made; never [`Rounding::Nearest`].
    pub method: Rounding,
    /// The precision it was made for.
    pub precision: Precision,
    /// The symmetry it was made for.
    pub symmetry: Symmetry,
    /// The granularity it was made for.
    pub granularity: Granularity,
    /// One a weight of the layer, in its order.
    pub weights: Vec<QuantizedWeight>,
    /// What is added to every output channel in place of the layer's bias (after a Gemm's `beta`); `None` leaves it alone.
    pub bias: Option<Vec<f32>>,
    /// Whether no data went into it.
    pub data_free: bool,
    /// Integers used of each weight's range, where fewer than its bits hold (8 of 16: 3-bit values in 4 bits).
    pub levels: Option<u32>,
    /// What it does to the layer's own output, where that was measured.
    pub held_back: Option<Gain>,
}

impl LayerRepair {
    /// Whether `choice` (as the layer's form honours it) asks for this repair. One in 7 bits takes integers that keep to them.
    pub fn serves(&self, choice: &Choice) -> bool {
        choice.rounding == self.method
            && choice.precision == self.precision
            && choice.symmetry == self.symmetry
            && choice.granularity == self.granularity
            && (choice.weight_bits() == self.precision.bits()
                || self.levels.is_some_and(|levels| levels <= 1 << choice.weight_bits()))
    }

    /// Whether it has a weight of the right size for each of the layer's.
    pub fn fits(&self, layer: &Layer) -> bool {
        self.weights.len() == layer.weights.len()
            && self.weights.iter().zip(&layer.weights).all(|(mine, its)| mine.layout == its.layout)
    }

    fn parts(&self) -> impl PartialEq + '_ {
        let grid = (self.method, self.precision, self.symmetry, self.granularity, self.levels);
        (grid, &self.weights, &self.bias, self.data_free, self.held_back)
    }
}

impl PartialEq for LayerRepair {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

/// Its numbers are finite, so that it equals itself; comparing two plans that share it costs nothing.
impl Eq for LayerRepair {}

/// A repair in force for a layer, and which of its weights is meant.
#[derive(Clone, Debug, PartialEq)]
pub struct Repaired {
    /// The repair.
    pub repair: Arc<LayerRepair>,
    /// Index of the weight in the layer.
    pub index: usize,
}

impl Repaired {
    /// The weight, where `choice` asks for this repair.
    pub fn weight(&self, choice: &Choice) -> Option<&QuantizedWeight> {
        if self.repair.serves(choice) { self.repair.weights.get(self.index) } else { None }
    }
}
