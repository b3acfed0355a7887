//! What the person decided: one choice a layer, by name, with a default and patterns.

pub mod auto;
mod choice;
pub mod hurry;
mod plan_file;
mod presets;
mod set;
pub mod spare;
pub(crate) mod storage;
pub mod targets;

pub use choice::{Activation, Choice, Clip, Granularity, Mode, Precision, Rounding, Symmetry};
pub(crate) use plan_file::SCALINGS_LEFT_OUT;
pub use plan_file::{Plan, PlanError, Rule};
pub use presets::{PRESETS, Preset, preset};
pub use set::{Pattern, Set};
