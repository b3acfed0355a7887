//! A layer: a node with a quantizable weight, and what the rest needs to know about it.

use std::sync::Arc;

use crate::model::existing::Existing;
use crate::model::grid::Grid;
use crate::plan::{Choice, Clip};
use crate::quant::{QuantizedWeight, WeightLayout, decibels, quantize_weight, weight_sqnr};
use crate::repair::Repaired;

/// One weight of a layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Weight {
    /// What it is for: `weight`, or `recurrence` for the second matrix of LSTM and GRU.
    pub role: &'static str,
    /// Name of the initializer in the prepared graph.
    pub tensor: String,
    /// Which input of the node reads it.
    pub input: usize,
    /// How many bodies deep the graph that holds it lies; 0 for the main graph.
    pub depth: usize,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Where its output channels lie.
    pub layout: WeightLayout,
    /// Whether the file holds it as float32 (otherwise float16, bfloat16 or float64).
    pub is_f32: bool,
    /// Bytes of its values in the original file.
    pub size_bytes: u64,
    /// The scales that the file brings, where it was trained quantization-aware.
    pub grid: Option<Arc<Grid>>,
    /// The integers of a repair, where one is in force for its layer (see [`crate::model::Model::repaired`]).
    pub repaired: Option<Repaired>,
}

impl Weight {
    /// The grid that `choice` keeps: the file's own, where that is what is asked for.
    pub fn kept_grid(&self, choice: &Choice) -> Option<&Grid> {
        self.grid.as_deref().filter(|grid| choice.clip == Clip::Trained && grid.fits(choice))
    }

    /// The repaired weight that `choice` asks for.
    pub fn repaired(&self, choice: &Choice) -> Option<&QuantizedWeight> {
        self.repaired.as_ref()?.weight(choice)
    }

    /// Its values as `choice` quantizes them: a repair's where the choice asks for it, on the file's own scales where the
    /// choice keeps them.
    pub fn quantize(&self, values: &[f32], choice: &Choice) -> QuantizedWeight {
        if let Some(repaired) = self.repaired(choice) {
            return repaired.clone();
        }
        match self.kept_grid(choice) {
            Some(grid) if values.len() == self.layout.len() => grid.quantize(values, self.layout),
            _ => quantize_weight(values, self.layout, choice),
        }
    }

    /// Signal to noise of the weight itself in dB under `choice`; infinite when nothing changes.
    pub fn sqnr(&self, values: &[f32], choice: &Choice) -> f64 {
        if let Some(repaired) = self.repaired(choice) {
            let squares = |(signal, noise): (f64, f64), (&w, &r): (&f32, &f32)| {
                let (w, error) = (f64::from(w), f64::from(w) - f64::from(r));
                (signal + w * w, noise + error * error)
            };
            let (signal, noise) = values.iter().zip(&repaired.dequantize()).fold((0.0, 0.0), squares);
            return decibels(signal, noise);
        }
        // What was trained lies on its own grid already.
        if self.kept_grid(choice).is_some() { f64::INFINITY } else { weight_sqnr(values, self.layout, choice) }
    }
}

/// How rows of a layer's input, each one dot product long, are cut from its input tensor.
#[derive(Clone, Debug, PartialEq)]
pub enum RowCut {
    /// The input cannot be cut into rows (embeddings: the input is indices).
    None,
    /// Each vector along the last axis is a row (MatMul, Gemm, LSTM, GRU).
    LastAxis,
    /// Each column is a row: the input is transposed (Gemm with `transA`).
    FirstAxis,
    /// The channel vector at each position of `[N, C, …]` is a row (ConvTranspose).
    ChannelAxis,
    /// Patches under the kernel of `[N, C, …]`, channel by channel, `C·Πkernel` wide (Conv).
    Patches(Window),
}

/// The sliding window of a convolution, one entry a spatial axis.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    /// Kernel size.
    pub kernel: Vec<usize>,
    /// Step between outputs.
    pub strides: Vec<usize>,
    /// Step between kernel elements.
    pub dilations: Vec<usize>,
    /// Padding before and after each axis: all begins, then all ends.
    pub pads: Vec<usize>,
    /// `SAME_UPPER` or `SAME_LOWER` instead of `pads`.
    pub same: Option<SamePadding>,
}

/// ONNX's `auto_pad` with a meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SamePadding {
    /// The odd pixel of padding goes to the end.
    Upper,
    /// The odd pixel of padding goes to the beginning.
    Lower,
}

/// Where a node lies: indices of the nodes with bodies on the way, with the attribute, then its own index.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodePath {
    /// From the main graph inwards; empty for a node of the main graph.
    pub bodies: Vec<(usize, String)>,
    /// Index of the node in its own graph.
    pub node: usize,
}

/// A node with a quantizable weight.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// Unique name: the node's, or `OP#index` where that is empty or repeated, after the bodies it lies in.
    pub name: String,
    /// Operator.
    pub op: String,
    /// Where the node is in the prepared graph.
    pub path: NodePath,
    /// Its weights, the main one first; empty when nothing is quantizable.
    pub weights: Vec<Weight>,
    /// The activation that enters it.
    pub input: String,
    /// Its output.
    pub output: String,
    /// The tensor after a Relu or Clip that the runtime merges into the layer; else the output itself.
    pub observed: String,
    /// Its bias initializer, where it has one that is constant.
    pub bias: Option<String>,
    /// Groups of a convolution; 1 elsewhere.
    pub groups: usize,
    /// How rows are cut from its input.
    pub cut: RowCut,
    /// Weights in all.
    pub parameters: u64,
    /// Why it cannot be quantized; empty when it can.
    pub reason: String,
    /// What it is quantized to in the file already.
    pub existing: Option<Existing>,
    /// Whether a scaling has divided what enters it; see [`crate::repair::Scaling`].
    pub scaled: bool,
}

impl Layer {
    /// Whether it lies in the body of an `If`, `Loop` or `Scan`.
    pub fn in_subgraph(&self) -> bool {
        !self.path.bodies.is_empty()
    }

    /// Whether its weights can be quantized.
    pub fn quantizable(&self) -> bool {
        self.reason.is_empty()
    }

    /// Whether it is a convolution with one input channel a group.
    pub fn is_depthwise(&self) -> bool {
        self.op == "Conv" && self.groups > 1 && self.weights.first().is_some_and(|w| w.shape.get(1) == Some(&1))
    }

    /// The main weight.
    pub fn weight(&self) -> Option<&Weight> {
        self.weights.first()
    }
}
