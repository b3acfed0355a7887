//! The form of an embedding.

use super::Pick;
use crate::export::forms::{Form, Verdict};
use crate::model::Layer;
use crate::plan::{Activation, Choice, Granularity, Mode, Precision, Symmetry};

pub(super) fn pick(layer: &Layer, mut choice: Choice) -> Pick {
    if choice.precision == Precision::Int2 {
        choice.precision = Precision::Int4;
        return pick(layer, choice).but("the runtime looks up rows of 8 or 4 bits only, int4 is used");
    }
    // The kernel takes the width from the bytes of a row, so that an odd one would come out one value wider.
    let is_odd = layer.weight().and_then(|weight| weight.shape.last()).is_some_and(|width| width % 2 == 1);
    if choice.precision == Precision::Int4 && is_odd {
        choice.precision = Precision::Int8;
        choice.granularity = Granularity::PerChannel;
        return pick(layer, choice).but("4-bit rows need an even width, int8 is used");
    }
    choice.mode = Mode::WeightOnly;
    choice.activation = Activation::Float32;
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
