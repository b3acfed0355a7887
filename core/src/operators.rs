//! The registry: per operator, which inputs are weights, where their channels lie, and what passes a quantized tensor on.
//!
//! What varies by operator stands here, one entry an operator, and nowhere else.

mod element_types;

pub use element_types::{has_half_precision, result_type};

use crate::quant::WeightLayout;

/// A weight input of an operator.
#[derive(Clone, Copy, Debug)]
pub struct WeightSlot {
    /// Index of the input.
    pub input: usize,
    /// What it is for.
    pub role: &'static str,
}

/// An operator with quantizable weights.
#[derive(Clone, Copy, Debug)]
pub struct WeightedOperator {
    /// ONNX's name (default domain).
    pub op: &'static str,
    /// Its weight inputs, the main one first.
    pub weights: &'static [WeightSlot],
    /// The input that carries the activation.
    pub activation: usize,
    /// The input that carries the bias.
    pub bias: Option<usize>,
    /// Where the channels of a weight of this shape lie; `None` when this shape cannot be quantized.
    pub layout: fn(&[usize], &Traits) -> Option<WeightLayout>,
}

/// Attributes that decide a weight's layout.
#[derive(Clone, Copy, Debug, Default)]
pub struct Traits {
    /// `transB` of Gemm.
    pub trans_b: bool,
    /// `axis` of Gather.
    pub axis: i64,
    /// `group` of a convolution.
    pub groups: usize,
}

const WEIGHT: WeightSlot = WeightSlot { input: 1, role: "weight" };
const RECURRENT: &[WeightSlot] = &[WEIGHT, WeightSlot { input: 2, role: "recurrence" }];

/// All operators with quantizable weights.
pub const WEIGHTED: &[WeightedOperator] = &[
    WeightedOperator {
        op: "Conv",
        weights: &[WEIGHT],
        activation: 0,
        bias: Some(2),
        layout: |shape, _| if shape.len() >= 3 { WeightLayout::along(shape, 0) } else { None },
    },
    WeightedOperator {
        op: "ConvTranspose",
        weights: &[WEIGHT],
        activation: 0,
        bias: Some(2),
        layout: |shape, _| if shape.len() >= 3 { WeightLayout::along(shape, 1) } else { None },
    },
    WeightedOperator {
        op: "Gemm",
        weights: &[WEIGHT],
        activation: 0,
        bias: Some(2),
        layout: |shape, traits| {
            if shape.len() == 2 { WeightLayout::along(shape, usize::from(!traits.trans_b)) } else { None }
        },
    },
    WeightedOperator {
        op: "MatMul",
        weights: &[WEIGHT],
        activation: 0,
        bias: None,
        layout: |shape, _| if shape.len() >= 2 { WeightLayout::along(shape, shape.len() - 1) } else { None },
    },
    WeightedOperator {
        op: "Gather",
        weights: &[WeightSlot { input: 0, role: "weight" }],
        activation: 1,
        bias: None,
        layout: |shape, traits| {
            if shape.len() == 2 && traits.axis == 0 { WeightLayout::along(shape, 0) } else { None }
        },
    },
    WeightedOperator { op: "LSTM", weights: RECURRENT, activation: 0, bias: Some(3), layout: recurrent },
    WeightedOperator { op: "GRU", weights: RECURRENT, activation: 0, bias: Some(3), layout: recurrent },
];

/// Weights of LSTM and GRU, `[directions, gates·hidden, inputs]`: every gate row of every direction is a channel.
fn recurrent(shape: &[usize], _: &Traits) -> Option<WeightLayout> {
    match shape {
        [directions, rows, depth] => Some(WeightLayout { outer: 1, channels: directions * rows, inner: *depth }),
        _ => None,
    }
}

/// The entry of an operator of the default domain; `None` when it has no quantizable weights.
pub fn weighted(op: &str, domain: &str) -> Option<&'static WeightedOperator> {
    if !is_default_domain(domain) {
        return None;
    }
    WEIGHTED.iter().find(|entry| entry.op == op)
}

/// Whether this is the domain of standard operators, under either of its names.
pub fn is_default_domain(domain: &str) -> bool {
    domain.is_empty() || domain == "ai.onnx"
}

/// How an operator without weights hands a quantized tensor on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PassThrough {
    /// It moves or selects values: its output has the scale of its first input.
    SameScale,
    /// It computes: its output has a scale of its own, and the runtime has an integer kernel for it.
    OwnScale,
}

/// How the runtime passes a quantized tensor through this operator; `None` when it has no integer kernel that pays.
///
/// Measured in ONNX Runtime: Softmax (0.17×), LayerNormalization, Gelu, Tanh, Erf, Pad, linear Resize, Sub and Div are slower quantized.
pub fn pass_through(op: &str, domain: &str) -> Option<PassThrough> {
    if !is_default_domain(domain) {
        return None;
    }
    match op {
        "MaxPool" | "Reshape" | "Flatten" | "Transpose" | "Squeeze" | "Unsqueeze" | "Slice" => {
            Some(PassThrough::SameScale)
        }
        "Add" | "Mul" | "Concat" | "GlobalAveragePool" | "AveragePool" | "Sigmoid" | "LeakyRelu" => {
            Some(PassThrough::OwnScale)
        }
        _ => None,
    }
}

/// How many leading inputs of a pass-through operator are data; the rest are shapes, axes and the like.
pub fn data_inputs(op: &str, inputs: usize) -> usize {
    match op {
        "Add" | "Mul" => inputs.min(2),
        "Concat" => inputs,
        _ => inputs.min(1),
    }
}

/// Whether the runtime merges this operator into the layer before it.
pub fn is_merged_activation(op: &str, domain: &str) -> bool {
    is_default_domain(domain) && matches!(op, "Relu" | "Clip")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_put_the_channels_where_the_operators_have_them() {
        let traits = Traits::default();
        let of = |op: &str, shape: &[usize], traits: &Traits| {
            (weighted(op, "").expect("entry").layout)(shape, traits).map(|l| (l.outer, l.channels, l.inner))
        };
        assert_eq!(of("Conv", &[8, 3, 3, 3], &traits), Some((1, 8, 27)));
        assert_eq!(of("ConvTranspose", &[8, 4, 2, 2], &traits), Some((8, 4, 4)));
        assert_eq!(of("Gemm", &[10, 64], &Traits { trans_b: true, ..traits }), Some((1, 10, 64)));
        assert_eq!(of("Gemm", &[64, 10], &traits), Some((64, 10, 1)));
        assert_eq!(of("MatMul", &[4, 64, 10], &traits), Some((256, 10, 1)));
        assert_eq!(of("LSTM", &[2, 32, 5], &traits), Some((1, 64, 5)));
        assert_eq!(of("Gather", &[100, 8], &Traits { axis: 1, ..traits }), None);
        assert!(weighted("Conv", "com.microsoft").is_none());
    }
}
