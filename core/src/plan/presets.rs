//! Named starting points, as data.

use super::{Activation, Choice, Clip, Granularity, Mode, Plan, PlanError, Precision, Set, Symmetry};

/// A named plan for every layer.
#[derive(Clone, Copy, Debug)]
pub struct Preset {
    /// The name on the command line and in menus.
    pub name: &'static str,
    /// One line about it.
    pub about: &'static str,
    /// The choice of every layer.
    pub choice: Choice,
    /// What is different for embeddings (Gather), as for `--set`; empty when nothing is.
    pub embeddings: &'static str,
}

impl Preset {
    /// The plan that gives every layer this preset's choice.
    pub fn plan(&self) -> Plan {
        let mut plan = Plan::uniform(self.choice);
        plan.preset = self.name.to_owned();
        plan
    }

    /// The plan of this preset for a model's layers, given as (name, operator): embeddings get their own choice by name.
    pub fn plan_for<'a>(&self, layers: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Plan, PlanError> {
        let mut plan = self.plan();
        if self.embeddings.is_empty() {
            return Ok(plan);
        }
        let set: Set = self.embeddings.parse()?;
        plan.set_layers(layers.into_iter().filter(|(_, op)| *op == "Gather").map(|(name, _)| name), &set);
        Ok(plan)
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
    Preset {
        name: "int8",
        about: "Static int8: calibrated activations, weights per channel",
        choice: INT8,
        embeddings: "",
    },
    Preset {
        name: "int8-dynamic",
        about: "Dynamic int8: activation ranges found while running, no calibration",
        choice: Choice { mode: Mode::Dynamic, ..INT8 },
        embeddings: "",
    },
    Preset {
        name: "int8-weights",
        about: "Int8 weights only: smaller file, activations in floating point",
        choice: Choice { mode: Mode::WeightOnly, activation: Activation::Float32, ..INT8 },
        embeddings: "",
    },
    Preset {
        name: "int4-weights",
        about: "Int4 weights only, in blocks of 32, asymmetric; embeddings int8",
        choice: Choice {
            precision: Precision::Int4,
            symmetry: Symmetry::Asymmetric,
            granularity: Granularity::Block(32),
            clip: Clip::Mse,
            mode: Mode::WeightOnly,
            activation: Activation::Float32,
            ..INT8
        },
        embeddings: "precision=int8,granularity=per_channel,symmetry=symmetric,clip=minmax",
    },
    Preset {
        name: "int4-static",
        about: "Int4 weights per channel with calibrated int8 activations",
        choice: Choice { precision: Precision::Int4, clip: Clip::Mse, ..INT8 },
        embeddings: "",
    },
    Preset {
        name: "float16-weights",
        about: "Float16 weights: half the file, the same speed",
        choice: Choice { precision: Precision::Float16, ..Choice::FLOAT },
        embeddings: "",
    },
];

/// The preset of this name.
pub fn preset(name: &str) -> Result<&'static Preset, PlanError> {
    PRESETS.iter().find(|p| p.name == name).ok_or_else(|| PlanError::Preset { name: name.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn int4_weights_keeps_embeddings_at_int8() {
        let plan =
            preset("int4-weights").expect("preset").plan_for([("embed", "Gather"), ("fc", "MatMul")]).expect("plan");
        assert_eq!(plan.choice("embed").precision, Precision::Int8);
        assert_eq!(plan.choice("fc").precision, Precision::Int4);
        for preset in PRESETS {
            assert!(preset.plan_for([("embed", "Gather")]).is_ok(), "{}", preset.name);
        }
    }
}
