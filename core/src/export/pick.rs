//! How each layer is written: the fastest form that honours its choice, with the verdict and the reason.

mod conv;
mod gather;
mod lstm;
mod matrix;

pub use matrix::{MANY_ROWS, rows};

use crate::export::forms::{Form, Verdict};
use crate::export::raise::{LOWEST, has_integer_kernels};
use crate::export::stored::UNPACK_OPSET;
use crate::model::{Layer, Model};
use crate::plan::{Activation, Choice, Mode, Precision};
use crate::stats::Stats;

/// The form of one layer, and the choice as it is honoured.
#[derive(Clone, Debug, PartialEq)]
pub struct Pick {
    /// How it is written.
    pub form: Form,
    /// The choice in force: what was asked for, or the nearest that the form allows.
    pub choice: Choice,
    /// What it does.
    pub verdict: Verdict,
    /// Why.
    pub reason: String,
    /// What of the choice could not be honoured; empty when all could.
    pub departure: String,
}

impl Pick {
    fn new(form: Form, choice: Choice, verdict: Verdict, reason: impl Into<String>) -> Self {
        Self { form, choice, verdict, reason: reason.into(), departure: String::new() }
    }

    fn but(mut self, departure: impl AsRef<str>) -> Self {
        if !self.departure.is_empty() {
            self.departure.push_str("; ");
        }
        self.departure.push_str(departure.as_ref());
        self
    }
}

/// The form of `layer` under `choice`. Without statistics a static choice is judged as if they were there, unless
/// `stats` is given and does not know the layer's input.
pub fn pick(model: &Model, layer: &Layer, choice: Choice, stats: Option<&Stats>) -> Pick {
    if !layer.quantizable() {
        return Pick::new(Form::Float, Choice::FLOAT, Verdict::Unchanged, layer.reason.clone());
    }
    if model.opset < LOWEST {
        let reason = format!("ONNX Runtime runs operators from set {LOWEST} on, the model is of set {}", model.opset);
        return Pick::new(Form::Float, Choice::FLOAT, Verdict::Unchanged, reason);
    }
    match choice.precision {
        Precision::Float32 => {
            return Pick::new(Form::Float, choice, Verdict::Unchanged, "kept in floating point as chosen");
        }
        Precision::Float16 if !layer.weights.iter().any(|weight| weight.is_f32) => {
            return Pick::new(Form::Float, choice, Verdict::Unchanged, "its weights are in half precision already");
        }
        Precision::Float16 if choice.activation == Activation::Float16 && !layer.in_subgraph() => {
            let reason = "half precision throughout; the CPU casts to float32 where it has no half-precision kernel";
            return Pick::new(Form::Float16, choice, Verdict::SmallerOnly, reason);
        }
        Precision::Float16 => {
            let reason = "half the bytes in the file; the CPU computes in float32";
            return Pick::new(Form::Float16Weights, choice, Verdict::SmallerOnly, reason);
        }
        Precision::Int8 | Precision::Int4 | Precision::Int2 => {}
    }
    let mut choice = choice;
    let mut departures = Vec::new();
    if choice.precision.bits() < 8 && model.opset < UNPACK_OPSET && !packs_itself(layer, choice) {
        departures.push(format!(
            "operator set {} cannot unpack {}-bit weights (it takes {UNPACK_OPSET}), int8 is used",
            model.opset,
            choice.precision.bits()
        ));
        choice.precision = Precision::Int8;
    }
    match choice.activation {
        Activation::Float16 => {
            choice.activation = Activation::Float32;
            departures.push("half-precision activations go with float16 weights only".to_owned());
        }
        Activation::Int16 if choice.is_static() && has_values(layer, stats) => {
            let reason = "simulation: its input is rounded to 16 bits and a float kernel computes with the stored weights; \
                          no CPU kernel takes 16-bit activations";
            let pick = Pick::new(Form::Int16Activations, choice, Verdict::SimulationOnly, reason);
            return departures.into_iter().fold(pick, Pick::but);
        }
        // Closer to 16 bits than a dynamic int8 kernel are float activations.
        Activation::Int16 if choice.is_static() && layer.op != "Gather" => {
            return departures.into_iter().fold(folded(choice, unobserved(model, layer)), Pick::but);
        }
        Activation::Int16 => {
            if choice.is_dynamic() {
                departures.push("the runtime finds ranges while running for 8 bits only: int8 activations".to_owned());
            }
            choice.activation = Activation::Int8;
        }
        Activation::Int8 | Activation::Float32 => {}
    }
    departures.into_iter().fold(by_operator(model, layer, choice, stats), Pick::but)
}

/// Whether calibration can have seen the values of the layer's input, and did where there are statistics.
fn has_values(layer: &Layer, stats: Option<&Stats>) -> bool {
    !layer.in_subgraph()
        && layer.op != "Gather"
        && stats.is_none_or(|stats| stats.tensors.get(&layer.input).is_some_and(|tensor| tensor.count > 0))
}

/// Whether the kernel reads 4-bit weights from bytes, so that the operator set does not matter.
fn packs_itself(layer: &Layer, choice: Choice) -> bool {
    matches!(layer.op.as_str(), "MatMul" | "Gemm") && !choice.is_dynamic() && !choice.is_static()
}

fn by_operator(model: &Model, layer: &Layer, choice: Choice, stats: Option<&Stats>) -> Pick {
    match layer.op.as_str() {
        _ if layer.weights.iter().any(|weight| !weight.is_f32) => {
            folded(choice, "integer kernels take float32 models; the weights are stored smaller")
        }
        "Gather" => gather::pick(layer, choice),
        "LSTM" => lstm::pick(model, layer, choice),
        "Conv" => conv::pick(model, layer, choice, stats),
        "MatMul" | "Gemm" => matrix::pick(model, layer, choice, stats),
        op => folded(choice, format!("ONNX Runtime has no integer kernel for {op} that is faster than float")),
    }
}

fn folded(choice: Choice, reason: impl Into<String>) -> Pick {
    let asked = choice;
    let mut honoured = choice;
    honoured.mode = Mode::WeightOnly;
    honoured.activation = Activation::Float32;
    let pick = Pick::new(Form::FoldedWeights, honoured, Verdict::SmallerOnly, reason);
    if asked.is_static() || asked.is_dynamic() {
        let departure = format!("{} was asked for: activations stay in floating point", asked.mode);
        return pick.but(departure);
    }
    pick
}

/// Whether calibration saw the layer's input and output, and the operator set has kernels that use what it saw.
fn observed(model: &Model, layer: &Layer, stats: Option<&Stats>) -> bool {
    has_values(layer, stats) && has_integer_kernels(&model.graph, model.opset)
}

fn unobserved(model: &Model, layer: &Layer) -> String {
    if !has_integer_kernels(&model.graph, model.opset) {
        return format!("operator set {} has no integer kernels, and the model cannot be raised to 10", model.opset);
    }
    if layer.in_subgraph() {
        "it lies in a body of If, Loop or Scan, whose activations calibration does not see".to_owned()
    } else {
        "calibration saw no value of its input".to_owned()
    }
}

/// The form of a layer with an integer kernel and calibrated activations.
fn static_form(precision: Precision) -> Form {
    match precision {
        Precision::Int4 => Form::Int4CastQdq,
        Precision::Int2 => Form::Int2CastQdq,
        _ => Form::Qdq,
    }
}
