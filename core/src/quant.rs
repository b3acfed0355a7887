//! Formulae: scale and zero point, rounding, saturation, packing, and the searches for clip ranges.

mod layout;

pub use layout::WeightLayout;
