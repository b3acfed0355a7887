//! Named starting points, as data.

use super::{Activation, Choice, Clip, Granularity, Mode, Plan, PlanError, Precision, Symmetry};

/// A named plan for every layer.
#[derive(Clone, Copy, Debug)]
pub struct Preset {
    /// The name on the command line and in menus.
    pub name: &'static str,
    /// One line about it.
    pub about: &'static str,
    /// The choice of every layer.
    pub choice: Choice,
}

impl Preset {
    /// The plan that gives every layer this preset's choice.
    pub fn plan(&self) -> Plan {
        let mut plan = Plan::uniform(self.choice);
        plan.preset = self.name.to_owned();
        plan
    }
}

const INT8: Choice = Choice {
    precision: Precision::Int8,
    mode: Mode::Static,
    activation: Activation::Int8,
    activation_clip: Clip::Mse,
    ..Choice::FLOAT
};

/// All presets, the default first.
pub const PRESETS: &[Preset] = &[
    Preset { name: "int8", about: "Static int8: calibrated activations, weights per channel", choice: INT8 },
    Preset {
        name: "int8-dynamic",
        about: "Dynamic int8: activation ranges found while running, no calibration",
        choice: Choice { mode: Mode::Dynamic, ..INT8 },
    },
    Preset {
        name: "int8-weights",
        about: "Int8 weights only: smaller file, activations in floating point",
        choice: Choice { mode: Mode::WeightOnly, activation: Activation::Float32, ..INT8 },
    },
    Preset {
        name: "int4-weights",
        about: "Int4 weights only, in blocks of 32, asymmetric",
        choice: Choice {
            precision: Precision::Int4,
            symmetry: Symmetry::Asymmetric,
            granularity: Granularity::Block(32),
            clip: Clip::Mse,
            mode: Mode::WeightOnly,
            activation: Activation::Float32,
            ..INT8
        },
    },
    Preset {
        name: "int4-static",
        about: "Int4 weights per channel with calibrated int8 activations",
        choice: Choice { precision: Precision::Int4, clip: Clip::Mse, ..INT8 },
    },
    Preset {
        name: "float16-weights",
        about: "Float16 weights: half the file, the same speed",
        choice: Choice { precision: Precision::Float16, ..Choice::FLOAT },
    },
];

/// The preset of this name.
pub fn preset(name: &str) -> Result<&'static Preset, PlanError> {
    PRESETS.iter().find(|p| p.name == name).ok_or_else(|| PlanError::Preset { name: name.to_owned() })
}
