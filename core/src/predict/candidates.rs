//! The choices that every layer is tried with.

use crate::export::{Pick, pick};
use crate::model::{Layer, Model};
use crate::plan::{Activation, Choice, Clip, Granularity, Mode, Precision, Symmetry};
use crate::stats::Stats;

/// What is worth trying on any layer, before its operator has a say.
fn wishes() -> Vec<Choice> {
    use Granularity::{Block, PerChannel, PerTensor};
    use Symmetry::{Asymmetric, Symmetric};
    let weights =
        |precision, symmetry, granularity, clip| Choice { precision, symmetry, granularity, clip, ..Choice::FLOAT };
    let quantized = |mode, activation_clip, choice: Choice| Choice {
        mode,
        activation: Activation::Int8,
        activation_clip,
        ..choice
    };
    let int8 = weights(Precision::Int8, Symmetric, PerChannel, Clip::MinMax);
    let int4 = weights(Precision::Int4, Symmetric, PerChannel, Clip::Mse);
    vec![
        quantized(Mode::Static, Clip::Mse, int8),
        quantized(Mode::Static, Clip::MinMax, int8),
        quantized(Mode::Static, Clip::MinMax, Choice { granularity: PerTensor, ..int8 }),
        quantized(Mode::Static, Clip::Mse, int4),
        quantized(Mode::Static, Clip::Mse, Choice { symmetry: Asymmetric, ..int4 }),
        quantized(Mode::Dynamic, Clip::Mse, int8),
        int8,
        Choice { symmetry: Asymmetric, ..int8 },
        Choice { granularity: PerTensor, ..int8 },
        weights(Precision::Int4, Asymmetric, Block(32), Clip::Mse),
        weights(Precision::Int4, Symmetric, Block(32), Clip::MinMax),
        weights(Precision::Int4, Asymmetric, Block(128), Clip::Mse),
        int4,
        Choice { precision: Precision::Float16, ..Choice::FLOAT },
    ]
}

/// The choices that `layer` can honour, each once, with the form they are written in.
pub fn candidates(model: &Model, layer: &Layer, stats: Option<&Stats>) -> Vec<Pick> {
    let mut out: Vec<Pick> = Vec::new();
    for wish in wishes() {
        let pick = pick(model, layer, wish, stats);
        let same = |known: &Pick| known.form == pick.form && known.choice == pick.choice;
        let does_something = pick.choice.precision != Precision::Float32 && pick.form != crate::export::Form::Float;
        if does_something && !out.iter().any(same) {
            out.push(pick);
        }
    }
    // Without a range of the activation these differ in nothing that is done.
    out.dedup_by(|a, b| {
        let plain = |pick: &Pick| Choice {
            activation_clip: Clip::MinMax,
            activation_symmetry: Symmetry::Asymmetric,
            ..pick.choice
        };
        a.form == b.form && !a.form.needs_statistics() && plain(a) == plain(b)
    });
    out
}
