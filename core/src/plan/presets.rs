//! Named starting points, as data.

use super::{Activation, Choice, Clip, Granularity, Mode, Plan, PlanError, Precision, Rounding, Set, Symmetry};

/// A named plan for every layer.
#[derive(Clone, Copy, Debug)]
pub struct Preset {
    /// The name on the command line and in menus.
    pub name: &'static str,
    /// One line about it.
    pub about: &'static str,
    /// Whether layers are spared once calibration has seen them (see [`super::spare`]): in the preset that promises the best
    /// static file, not in those that stand for one scheme.
    pub spares: bool,
    /// The choice of every layer.
    pub choice: Choice,
    /// What is different for some operators: their names, and the changes as for `--set`.
    pub exceptions: &'static [Exception],
    /// What samples to learn from change.
    pub with_data: Option<WithData>,
}

/// Operators, and what is different for them: changes as for `--set`.
pub type Exception = (&'static [&'static str], &'static str);

/// How a preset of few bits makes use of calibration data: a repair of its rounding, and what that can afford.
#[derive(Clone, Copy, Debug)]
pub struct WithData {
    /// The repair of the layers of at most 4 bits.
    pub rounding: Rounding,
    /// Further exceptions.
    pub exceptions: &'static [Exception],
    /// Whether matrices move to a faster kernel where calibration shows that this costs little (see [`super::hurry`]).
    pub hurries: bool,
}

impl Preset {
    /// The plan that gives every layer this preset's choice.
    pub fn plan(&self) -> Plan {
        let mut plan = Plan::uniform(self.choice);
        plan.preset = self.name.to_owned();
        plan
    }

    /// The choice for a layer of this operator.
    pub fn choice_for(&self, op: &str) -> Choice {
        let mut choice = self.choice;
        for (_, set) in self.exceptions.iter().filter(|(ops, _)| ops.contains(&op)) {
            // Exceptions are data of this program; a test parses them all.
            if let Ok(set) = set.parse::<Set>() {
                set.apply(&mut choice);
            }
        }
        choice
    }

    /// The plan of this preset for a model's layers, given as (name, operator). With data its roundings are still to be
    /// repaired as [`Self::with_data`] says.
    pub fn plan_for<'a>(
        &self,
        layers: impl IntoIterator<Item = (&'a str, &'a str)>,
        with_data: bool,
    ) -> Result<Plan, PlanError> {
        let more = self.with_data.filter(|_| with_data).map_or(&[][..], |with_data| with_data.exceptions);
        let mut plan = self.plan();
        let layers: Vec<(&str, &str)> = layers.into_iter().collect();
        for (ops, set) in self.exceptions.iter().chain(more) {
            let set: Set = set.parse()?;
            plan.set_layers(layers.iter().filter(|(_, op)| ops.contains(op)).map(|(name, _)| *name), &set);
        }
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

const FLOAT16: Choice = Choice { precision: Precision::Float16, ..Choice::FLOAT };

/// Operators that PyTorch's quantization of `Linear`, `LSTM` and `GRU` modules does not reach.
const CONVOLUTIONS: &[&str] = &["Conv", "ConvTranspose"];
const EMBEDDINGS: &[&str] = &["Gather"];
const FLOAT32: &str = "precision=float32";

/// All presets, the default first.
pub const PRESETS: &[Preset] = &[
    Preset {
        name: "int8",
        spares: true,
        about: "Static int8: calibrated activations, weights per channel",
        choice: INT8,
        exceptions: &[],
        with_data: None,
    },
    Preset {
        name: "int8-dynamic",
        spares: false,
        about: "Dynamic int8: activation ranges found while running, no calibration",
        choice: Choice { mode: Mode::Dynamic, ..INT8 },
        exceptions: &[],
        with_data: None,
    },
    Preset {
        name: "int8-weights",
        spares: false,
        about: "Int8 weights only: smaller file, activations in floating point",
        choice: Choice { mode: Mode::WeightOnly, activation: Activation::Float32, ..INT8 },
        exceptions: &[],
        with_data: None,
    },
    Preset {
        name: "int4-weights",
        spares: false,
        about: "Int4 weights only, asymmetric, in blocks of 32; with data to learn from, `quantize` repairs blocks of 128, or columns for the faster kernel where that costs little, by GPTQ; embeddings int8",
        choice: Choice {
            precision: Precision::Int4,
            symmetry: Symmetry::Asymmetric,
            granularity: Granularity::Block(32),
            clip: Clip::Mse,
            mode: Mode::WeightOnly,
            activation: Activation::Float32,
            ..INT8
        },
        exceptions: &[(EMBEDDINGS, "precision=int8,granularity=per_channel,symmetry=symmetric,clip=minmax")],
        // Coarser blocks lose less than the repair wins, and run faster.
        with_data: Some(WithData {
            rounding: Rounding::Gptq,
            exceptions: &[(&["MatMul", "Gemm"], "granularity=block:128")],
            hurries: true,
        }),
    },
    Preset {
        name: "int4-static",
        spares: false,
        about: "Int4 weights per channel, which `quantize` repairs by GPTQ, with calibrated int8 activations",
        choice: Choice { precision: Precision::Int4, clip: Clip::Mse, ..INT8 },
        exceptions: &[],
        with_data: Some(WithData { rounding: Rounding::Gptq, exceptions: &[], hurries: false }),
    },
    Preset {
        name: "float16-weights",
        spares: false,
        about: "Float16 weights: half the file, the same speed",
        choice: FLOAT16,
        exceptions: &[],
        with_data: None,
    },
    Preset {
        name: "float16",
        spares: false,
        about: "Float16 throughout, with float32 inputs and outputs: half the file; a CPU casts to float32 to compute",
        choice: Choice { activation: Activation::Float16, ..FLOAT16 },
        exceptions: &[],
        with_data: None,
    },
    // TensorFlow Lite's converter has four modes: https://developers.google.com/edge/litert/conversion/tensorflow/quantization/post_training_quantization
    // (activations of int8: asymmetric, per tensor; weights: symmetric, per axis:
    // https://developers.google.com/edge/litert/conversion/tensorflow/quantization/quantization_spec). Its ranges are the extremes
    // that the representative data give.
    Preset {
        name: "tflite-dynamic",
        spares: false,
        about: "As TensorFlow Lite's dynamic range: int8 weights, ranges of activations found while running; a convolution's \
                weights are only stored, since ONNX Runtime has no fast dynamic convolution",
        choice: Choice { mode: Mode::Dynamic, activation_clip: Clip::MinMax, ..INT8 },
        exceptions: &[],
        with_data: None,
    },
    Preset {
        name: "tflite-float16",
        spares: false,
        about: "As TensorFlow Lite's float16: weights in half precision, which a CPU turns back into float32",
        choice: FLOAT16,
        exceptions: &[],
        with_data: None,
    },
    Preset {
        name: "tflite-int8",
        spares: false,
        about: "As TensorFlow Lite's full integer: symmetric int8 weights per channel, int8 activations with the range seen \
                (written as uint8, the same values), int32 biases",
        choice: Choice { activation_clip: Clip::MinMax, ..INT8 },
        exceptions: &[],
        with_data: None,
    },
    // "Full integer with 16-bit activations and 8-bit weights": activations symmetric.
    Preset {
        name: "tflite-16x8",
        spares: false,
        about: "As TensorFlow Lite's 16x8: int8 weights, symmetric 16-bit activations; simulation, since no kernel of ONNX \
                Runtime computes with 16 bits",
        choice: Choice {
            activation: Activation::Int16,
            activation_symmetry: Symmetry::Symmetric,
            activation_clip: Clip::MinMax,
            ..INT8
        },
        exceptions: &[],
        with_data: None,
    },
    // torch.ao.quantization.quantize_dynamic reaches Linear, LSTM and GRU; default_dynamic_qconfig has
    // default_weight_observer (qint8, per_tensor_symmetric, MinMax) and quint8 activations:
    // https://docs.pytorch.org/docs/stable/quantization.html
    Preset {
        name: "pytorch-dynamic",
        spares: false,
        about: "As PyTorch's quantize_dynamic: Linear and LSTM with symmetric int8 weights, one scale a tensor; \
                convolutions and embeddings stay in float32",
        choice: Choice {
            mode: Mode::Dynamic,
            granularity: Granularity::PerTensor,
            activation_clip: Clip::MinMax,
            ..INT8
        },
        exceptions: &[(CONVOLUTIONS, FLOAT32), (EMBEDDINGS, FLOAT32)],
        with_data: None,
    },
    // get_default_qconfig("x86"): HistogramObserver (least squared error) on quint8 activations, with 7 bits of them
    // (reduce_range) against overflow on processors without VNNI; default_per_channel_weight_observer. Embeddings need a
    // qconfig of their own.
    Preset {
        name: "pytorch-static",
        spares: false,
        about: "As PyTorch's static quantization with its x86 defaults: weights per channel, activations clipped for the \
                least squared error, here with all 8 bits of them; embeddings stay in float32",
        choice: INT8,
        exceptions: &[(EMBEDDINGS, FLOAT32)],
        with_data: None,
    },
    // torchao's Int8WeightOnlyConfig: symmetric int8 per channel on Linear:
    // https://docs.pytorch.org/ao/stable/generated/torchao.quantization.Int8WeightOnlyConfig.html
    Preset {
        name: "pytorch-weight-only",
        spares: false,
        about: "As torchao's Int8WeightOnlyConfig: Linear with symmetric int8 weights per channel, all else in float32",
        choice: Choice { mode: Mode::WeightOnly, activation: Activation::Float32, ..INT8 },
        exceptions: &[(CONVOLUTIONS, FLOAT32), (EMBEDDINGS, FLOAT32), (&["LSTM", "GRU"], FLOAT32)],
        with_data: None,
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
    fn exceptions_hold_for_their_operators() {
        let plan = preset("int4-weights")
            .expect("preset")
            .plan_for([("embed", "Gather"), ("fc", "MatMul")], false)
            .expect("plan");
        assert_eq!(plan.choice("embed").precision, Precision::Int8);
        assert_eq!(plan.choice("fc").precision, Precision::Int4);
        let plan = preset("int4-weights").expect("preset").plan_for([("conv", "Conv"), ("fc", "MatMul")], true);
        let plan = plan.expect("plan");
        assert_eq!(plan.choice("conv").granularity, Granularity::Block(32));
        assert_eq!(plan.choice("fc").granularity, Granularity::Block(128));
        for preset in PRESETS {
            let layers = ["Gather", "Conv", "MatMul", "LSTM"].map(|op| (op, op));
            let plan = preset.plan_for(layers, false).expect(preset.name);
            for (name, op) in layers {
                assert_eq!(plan.choice(name), preset.choice_for(op), "{} {op}", preset.name);
            }
        }
        assert_eq!(preset("pytorch-dynamic").expect("preset").choice_for("Conv").precision, Precision::Float32);
    }
}
