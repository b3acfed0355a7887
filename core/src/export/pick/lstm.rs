//! The form of an LSTM.

use super::{Pick, folded};
use crate::export::forms::{Form, Verdict};
use crate::model::graph::{int_attribute, node_at};
use crate::model::{Layer, Model};
use crate::plan::{Choice, Granularity, Mode, Precision, Symmetry};

/// Units from which on the integer kernel gains: 1.4 times the float kernel's time with 64, 0.8 with 128, 0.5 with 256
/// (support matrix).
const FEWEST_UNITS: usize = 128;

pub(super) fn pick(model: &Model, layer: &Layer, mut choice: Choice) -> Pick {
    let time_major = node_at(&model.graph, &layer.path).is_some_and(|node| int_attribute(node, "layout", 0) == 0);
    if choice.precision != Precision::Int8 {
        return folded(choice, "the LSTM kernel takes int8 weights only; smaller ones are stored");
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
    let units = layer.weights.last().and_then(|recurrence| recurrence.shape.last()).copied().unwrap_or(0);
    if units < FEWEST_UNITS {
        pick.verdict = Verdict::SmallerOnly;
        pick.reason = format!("runs as DynamicQuantizeLSTM, which gains nothing with {units} units");
    }
    if let Granularity::Block(size) = choice.granularity {
        pick.choice.granularity = Granularity::PerChannel;
        pick = pick.but(format!("the kernel has one scale a channel: per_channel instead of block:{size}"));
    }
    if choice.symmetry == Symmetry::Asymmetric {
        pick.choice.symmetry = Symmetry::Symmetric;
        pick = pick.but("the kernel takes no zero points: symmetric instead of asymmetric");
    }
    if asked.is_static() {
        pick.reason += ": the runtime has no LSTM with calibrated activations";
    }
    pick
}
