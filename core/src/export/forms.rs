//! How each layer is written: the fastest form that honours its choice, with the verdict and the reason.

use serde::{Deserialize, Serialize};

use crate::export::gemm::Matrix;
use crate::export::raise::{LOWEST, has_integer_kernels};
use crate::export::stored::UNPACK_OPSET;
use crate::model::graph::{int_attribute, node_at};
use crate::model::{Layer, Model};
use crate::plan::{Choice, Granularity, Mode, Precision, Symmetry};
use crate::stats::Stats;

/// How a layer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// Left as it is.
    Float,
    /// Weights stored as integers, floating point again when loaded.
    FoldedWeights,
    /// Weights stored as float16, float32 again when loaded.
    Float16Weights,
    /// QuantizeLinear and DequantizeLinear around it, fused to an integer kernel.
    Qdq,
    /// As `qdq`, 4-bit weights cast to int8 when loaded.
    Int4CastQdq,
    /// ONNX Runtime's MatMulNBits.
    MatmulNbits,
    /// ONNX Runtime's DynamicQuantizeMatMul.
    DynamicMatmul,
    /// ONNX Runtime's DynamicQuantizeLSTM.
    DynamicLstm,
    /// Rows looked up as integers.
    QuantizedGather,
}

/// What a form does for the layer in ONNX Runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// An integer kernel runs it faster than the float one.
    Faster,
    /// The file gets smaller; speed stays or falls a little.
    SmallerOnly,
    /// It computes what integers would, and slower.
    SimulationOnly,
    /// Nothing changes.
    Unchanged,
}

/// The form of one layer, and the choice as it is honoured.
#[derive(Clone, Debug)]
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
        Precision::Float16 if layer.weights.iter().any(|weight| weight.is_f32) => {
            let reason = "half the bytes in the file; the CPU computes in float32";
            return Pick::new(Form::Float16Weights, choice, Verdict::SmallerOnly, reason);
        }
        Precision::Float16 => {
            return Pick::new(Form::Float, choice, Verdict::Unchanged, "its weights are in half precision already");
        }
        Precision::Int8 | Precision::Int4 => {}
    }
    let mut choice = choice;
    let mut departures = Vec::new();
    if choice.precision == Precision::Int4 && model.opset < UNPACK_OPSET && !packs_itself(layer, choice) {
        choice.precision = Precision::Int8;
        departures.push(format!(
            "operator set {} cannot unpack 4-bit weights (it takes {UNPACK_OPSET}), int8 is used",
            model.opset
        ));
    }
    let mut pick = by_operator(model, layer, choice, stats);
    for departure in departures {
        pick = pick.but(departure);
    }
    pick
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
        "Gather" => gather(layer, choice),
        "LSTM" => lstm(model, layer, choice),
        "Conv" => conv(model, layer, choice, stats),
        "MatMul" | "Gemm" => matrix(model, layer, choice, stats),
        op => folded(choice, format!("ONNX Runtime has no integer kernel for {op} that is faster than float")),
    }
}

fn folded(choice: Choice, reason: impl Into<String>) -> Pick {
    let asked = choice;
    let mut honoured = choice;
    honoured.mode = Mode::WeightOnly;
    honoured.activation = crate::plan::Activation::Float32;
    let pick = Pick::new(Form::FoldedWeights, honoured, Verdict::SmallerOnly, reason);
    if asked.is_static() || asked.is_dynamic() {
        let departure = format!("{} was asked for: activations stay in floating point", asked.mode);
        return pick.but(departure);
    }
    pick
}

/// Whether calibration saw the layer's input and output, and the operator set has kernels that use what it saw.
fn observed(model: &Model, layer: &Layer, stats: Option<&Stats>) -> bool {
    !layer.in_subgraph()
        && has_integer_kernels(&model.graph, model.opset)
        && stats.is_none_or(|stats| stats.tensors.get(&layer.input).is_some_and(|tensor| tensor.count > 0))
}

fn gather(layer: &Layer, mut choice: Choice) -> Pick {
    // The kernel takes the width from the bytes of a row, so that an odd one would come out one value wider.
    let is_odd = layer.weight().and_then(|weight| weight.shape.last()).is_some_and(|width| width % 2 == 1);
    if choice.precision == Precision::Int4 && is_odd {
        choice.precision = Precision::Int8;
        choice.granularity = Granularity::PerChannel;
        return gather(layer, choice).but("4-bit rows need an even width, int8 is used");
    }
    choice.mode = Mode::WeightOnly;
    choice.activation = crate::plan::Activation::Float32;
    let reason = "rows are looked up as integers: the table is smaller in the file and in memory";
    match (choice.precision, choice.granularity) {
        (Precision::Int4, Granularity::Block(_)) => {
            choice.symmetry = Symmetry::Asymmetric;
            Pick::new(Form::QuantizedGather, choice, Verdict::SmallerOnly, reason)
        }
        (Precision::Int4, asked) => {
            choice.granularity = Granularity::Block(32);
            choice.symmetry = Symmetry::Asymmetric;
            Pick::new(Form::QuantizedGather, choice, Verdict::SmallerOnly, reason)
                .but(format!("4-bit tables come in blocks: block:32 instead of {asked}"))
        }
        (_, Granularity::Block(size)) => {
            choice.granularity = Granularity::PerChannel;
            Pick::new(Form::QuantizedGather, choice, Verdict::SmallerOnly, reason)
                .but(format!("int8 tables have one scale a row: per_channel instead of block:{size}"))
        }
        _ => Pick::new(Form::QuantizedGather, choice, Verdict::SmallerOnly, reason),
    }
}

fn lstm(model: &Model, layer: &Layer, mut choice: Choice) -> Pick {
    let time_major = node_at(&model.graph, &layer.path).is_some_and(|node| int_attribute(node, "layout", 0) == 0);
    if choice.precision == Precision::Int4 {
        return folded(choice, "the LSTM kernel takes int8 weights only; 4-bit weights are stored");
    }
    if !(choice.is_static() || choice.is_dynamic()) {
        return folded(choice, "weights are stored as integers");
    }
    if !time_major {
        return folded(choice, "the integer LSTM kernel takes time-major input only");
    }
    let asked = choice;
    choice.mode = Mode::Dynamic;
    let mut pick = Pick::new(Form::DynamicLstm, choice, Verdict::Faster, "runs as DynamicQuantizeLSTM");
    if let Granularity::Block(size) = choice.granularity {
        pick.choice.granularity = Granularity::PerChannel;
        pick = pick.but(format!("the kernel has one scale a channel: per_channel instead of block:{size}"));
    }
    if choice.symmetry == Symmetry::Asymmetric {
        pick.choice.symmetry = Symmetry::Symmetric;
        pick = pick.but("the kernel takes no zero points: symmetric instead of asymmetric");
    }
    if asked.is_static() {
        pick.reason = "runs as DynamicQuantizeLSTM: the runtime has no LSTM with calibrated activations".to_owned();
    }
    pick
}

fn conv(model: &Model, layer: &Layer, mut choice: Choice, stats: Option<&Stats>) -> Pick {
    if choice.is_dynamic() {
        return folded(choice, "dynamic convolution runs 5 to 10 times slower than float in ONNX Runtime");
    }
    if !choice.is_static() {
        return folded(choice, "weights are stored as integers and run at the speed of float");
    }
    if !observed(model, layer, stats) {
        return folded(choice, unobserved(model, layer));
    }
    let mut departure = None;
    if let Granularity::Block(size) = choice.granularity {
        choice.granularity = Granularity::PerChannel;
        departure =
            Some(format!("the integer convolution has one scale a channel: per_channel instead of block:{size}"));
    }
    if layer.is_depthwise() && choice.symmetry == Symmetry::Asymmetric && choice.granularity == Granularity::PerChannel
    {
        choice.symmetry = Symmetry::Symmetric;
        departure = Some(
            "a depthwise convolution with a zero point a channel runs 50 to 100 times slower: symmetric is used"
                .to_owned(),
        );
    }
    let form = if choice.precision == Precision::Int4 { Form::Int4CastQdq } else { Form::Qdq };
    let inputs = layer.weight().and_then(|weight| weight.shape.get(1)).copied().unwrap_or(0);
    let pick = if layer.is_depthwise() {
        let reason = "depthwise: gains only because its neighbours run on integers too";
        Pick::new(form, choice, Verdict::SmallerOnly, reason)
    } else if inputs < 4 {
        let reason = format!("{inputs} input channels are too few for the integer kernel to gain");
        Pick::new(form, choice, Verdict::SmallerOnly, reason)
    } else {
        Pick::new(form, choice, Verdict::Faster, "runs as QLinearConv")
    };
    match departure {
        Some(departure) => pick.but(departure),
        None => pick,
    }
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

fn matrix(model: &Model, layer: &Layer, choice: Choice, stats: Option<&Stats>) -> Pick {
    let Some((node, weight)) = node_at(&model.graph, &layer.path).zip(layer.weight()) else {
        return folded(choice, "weights are stored as integers");
    };
    let shape = Matrix::of(node, weight);
    let unusual_bias =
        shape.beta != 1.0 && layer.bias.is_none() && node.input.get(2).is_some_and(|name| !name.is_empty());
    if weight.shape.len() != 2 {
        if choice.is_static() && choice.granularity == Granularity::PerTensor && observed(model, layer, stats) {
            return Pick::new(Form::Qdq, choice, Verdict::Faster, "runs as QLinearMatMul");
        }
        return folded(choice, "a matrix for each batch entry has no integer kernel with scales a channel");
    }
    if int_attribute(node, "transA", 0) != 0 || unusual_bias {
        return folded(choice, "a transposed input or a computed, scaled bias keeps it out of the integer kernels");
    }
    if choice.is_static() && observed(model, layer, stats) {
        return static_matrix(choice);
    }
    if choice.is_static() || choice.is_dynamic() {
        let asked = choice;
        let mut choice = choice;
        choice.mode = Mode::Dynamic;
        let mut pick = Pick::new(Form::DynamicMatmul, choice, Verdict::Faster, "runs as DynamicQuantizeMatMul");
        if let Granularity::Block(size) = choice.granularity {
            pick.choice.granularity = Granularity::PerChannel;
            pick = pick.but(format!("the dynamic kernel has one scale a column: per_channel instead of block:{size}"));
        }
        if asked.is_static() {
            pick = pick.but(format!("{}: dynamic instead of static", unobserved(model, layer)));
        }
        return pick;
    }
    let reason = "runs as MatMulNBits: faster for one row, about as fast for many; activations are rounded to int8 inside the kernel";
    Pick::new(Form::MatmulNbits, choice, Verdict::Faster, reason)
}

fn static_matrix(choice: Choice) -> Pick {
    match (choice.precision, choice.granularity) {
        (Precision::Int4, Granularity::Block(_)) => {
            let mut honoured = choice;
            honoured.mode = Mode::WeightOnly;
            honoured.activation = crate::plan::Activation::Float32;
            let reason = "runs as MatMulNBits, which rounds activations to int8 itself";
            Pick::new(Form::MatmulNbits, honoured, Verdict::Faster, reason)
                .but("blocks have no static kernel: calibrated ranges are not used")
        }
        (Precision::Int8, Granularity::Block(size)) => {
            let mut honoured = choice;
            honoured.granularity = Granularity::PerChannel;
            Pick::new(Form::Qdq, honoured, Verdict::Faster, "runs as QLinearMatMul or MatMulIntegerToFloat")
                .but(format!("the integer kernel has one scale a column: per_channel instead of block:{size}"))
        }
        (Precision::Int4, _) => {
            Pick::new(Form::Int4CastQdq, choice, Verdict::Faster, "runs as an int8 kernel on 4-bit weights in the file")
        }
        _ => Pick::new(Form::Qdq, choice, Verdict::Faster, "runs as QLinearMatMul or MatMulIntegerToFloat"),
    }
}
