//! The form of a convolution.

use super::{Pick, folded, observed, unobserved};
use crate::export::forms::Verdict;
use crate::model::{Layer, Model};
use crate::plan::{Choice, Granularity, Symmetry};
use crate::stats::Stats;

pub(super) fn pick(model: &Model, layer: &Layer, mut choice: Choice, stats: Option<&Stats>) -> Pick {
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
    let form = super::static_form(choice.precision);
    let inputs = layer.weight().and_then(|weight| weight.shape.get(1)).copied().unwrap_or(0);
    let pick = if layer.is_depthwise() {
        let reason = "depthwise: gains only because its neighbours run on integers too";
        Pick::new(form, choice, Verdict::SmallerOnly, reason)
    } else if layer.groups > 1 && inputs < 32 {
        // 1.3 times the float kernel's time with 16, 0.6 with 32 (support matrix).
        let reason = format!("{inputs} input channels a group are too few for the integer kernel to gain");
        Pick::new(form, choice, Verdict::SmallerOnly, reason)
    } else if inputs < 4 {
        let channels = if inputs == 1 { "channel is" } else { "channels are" };
        let reason = format!("{inputs} input {channels} too few for the integer kernel to gain");
        Pick::new(form, choice, Verdict::SmallerOnly, reason)
    } else {
        Pick::new(form, choice, Verdict::Faster, "runs as QLinearConv")
    };
    match departure {
        Some(departure) => pick.but(departure),
        None => pick,
    }
}
