//! The form of a MatMul or Gemm with a constant matrix.

use super::{Pick, folded, observed, unobserved};
use crate::export::forms::{Form, Verdict};
use crate::export::matrix::Matrix;
use crate::model::graph::{int_attribute, node_at};
use crate::model::{Layer, Model};
use crate::plan::{Activation, Choice, Granularity, Mode, Precision};
use crate::stats::Stats;

/// Rows up to which MatMulNBits gains; with 16 it runs 1.0 to 1.5 times as long as the float kernel (support matrix).
const FEW_ROWS: u64 = 4;
/// Rows from which MatMulNBits is known to gain nothing over the float kernel (support matrix).
pub const MANY_ROWS: u64 = 16;

pub(super) fn pick(model: &Model, layer: &Layer, choice: Choice, stats: Option<&Stats>) -> Pick {
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
        return static_matrix(layer, choice, stats);
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
    if choice.precision == Precision::Int2 {
        let reason = "runs as MatMulNBits on 2 bits: two to three times faster for one row, 1.3 to 3 times slower for many; \
                      activations are rounded to int8 inside the kernel";
        let pick = Pick::new(Form::MatmulNbits, choice, Verdict::SmallerOnly, reason);
        return match choice.granularity {
            Granularity::Block(16) => {
                let honoured = Choice { granularity: Granularity::Block(32), ..choice };
                Pick { choice: honoured, ..pick }.but("2-bit blocks of 16 run 4 to 17 times slower: block:32 is used")
            }
            _ => pick,
        };
    }
    blocks(layer, choice, stats)
}

/// MatMulNBits, with what the number of rows makes of it.
fn blocks(layer: &Layer, choice: Choice, stats: Option<&Stats>) -> Pick {
    let inside = "activations are rounded to int8 inside the kernel";
    let rows = stats.and_then(|stats| rows(layer, stats));
    match rows {
        Some(rows) if rows <= FEW_ROWS => {
            let reason = format!("runs as MatMulNBits, for {rows} rows a run two to three times faster; {inside}");
            Pick::new(Form::MatmulNbits, choice, Verdict::Faster, reason)
        }
        _ => {
            let seen = rows.map_or_else(String::new, |rows| format!(" ({rows} a run were seen)"));
            let reason =
                format!("runs as MatMulNBits: faster for a few rows, slower by up to half for many{seen}; {inside}");
            Pick::new(Form::MatmulNbits, choice, Verdict::SmallerOnly, reason)
        }
    }
}

/// Rows of the layer's input in a run, as calibration saw them on average; `None` before it.
pub fn rows(layer: &Layer, stats: &Stats) -> Option<u64> {
    let depth = layer.weight()?.layout.depth() as u64;
    stats.tensors.get(&layer.input)?.count.checked_div(depth)?.checked_div(stats.samples() as u64)
}

fn static_matrix(layer: &Layer, choice: Choice, stats: Option<&Stats>) -> Pick {
    match (choice.precision, choice.granularity) {
        (Precision::Int4 | Precision::Int2, Granularity::Block(_)) => {
            let mut honoured = choice;
            honoured.mode = Mode::WeightOnly;
            honoured.activation = Activation::Float32;
            blocks(layer, honoured, stats).but("blocks have no static kernel: calibrated ranges are not used")
        }
        (Precision::Int8, Granularity::Block(size)) => {
            let mut honoured = choice;
            honoured.granularity = Granularity::PerChannel;
            Pick::new(Form::Qdq, honoured, Verdict::Faster, "runs as QLinearMatMul or MatMulIntegerToFloat")
                .but(format!("the integer kernel has one scale a column: per_channel instead of block:{size}"))
        }
        (Precision::Int4 | Precision::Int2, _) => {
            let reason = format!("runs as an int8 kernel on {}-bit weights in the file", choice.precision.bits());
            Pick::new(super::static_form(choice.precision), choice, Verdict::Faster, reason)
        }
        _ => Pick::new(Form::Qdq, choice, Verdict::Faster, "runs as QLinearMatMul or MatMulIntegerToFloat"),
    }
}
