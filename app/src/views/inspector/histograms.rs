//! Weights and activations as histograms with the clip range to drag. Everything here is computed from statistics that
//! are there already, within the frame.

use eframe::egui::{Rect, RichText, Ui};
use nibble_core::plan::{Activation, Choice, Clip, Granularity, Rounding, Set, Symmetry};
use nibble_core::quant::{QuantParams, activation_params_bits, clip_range, histogram_sqnr, weight_sqnr};
use nibble_core::stats::TensorStats;

use super::super::View;
use super::super::layers::Row;
use super::range::{keep_ui, range_ui};
use crate::edit::{Action, Edit};
use crate::results::Value;
use crate::widgets::badge::{Source, badge};
use crate::widgets::channel_strip::{Channels, channel_strip};
use crate::widgets::clip_histogram::{Bin, ClipChange, ClipHistogram, Levels, bins as bins_of};
use crate::widgets::field;
use crate::{format, theme};

/// The weights: histogram with handles, and every channel's range.
pub fn weights_ui(ui: &mut Ui, row: &Row<'_>, actions: &mut Vec<Action>) {
    let palette = theme::palette(ui);
    theme::card(ui).show(ui, |ui| {
        ui.set_width(ui.available_width());
        let Some(facts) = row.document.results.facts(row.index) else {
            ui.label(theme::caption("Weight histogram"));
            ui.label(RichText::new("Reading the weights…").weak());
            return;
        };
        let choice = &row.choice;
        let manual = matches!(choice.clip, Clip::Manual { .. });
        let error = weight_error(row).known().filter(|_| choice.is_integer());
        heading(ui, "Weight histogram", error, manual, || actions.push(reset(row, Side::Weights)));
        let params = weight_params(&facts.stats, choice);
        let refusal =
            if choice.is_integer() { "" } else { "Only integer weights are clipped: choose int8, int4 or int2 first" };
        let widget = ClipHistogram {
            name: "Weight clip",
            bins: &facts.bins,
            seen: facts.stats.range(),
            clip: params.map(|_| shown_range(&facts.stats, choice)),
            levels: params
                .filter(|_| choice.granularity == Granularity::PerTensor || manual)
                .map(|params| levels(&params)),
            symmetric: choice.symmetry == Symmetry::Symmetric,
            refusal,
            color: palette.weights,
            height: 128.0,
        };
        let (response, change) = widget.show(ui);
        apply(row, Side::Weights, change, actions);
        if choice.is_integer() {
            let (shown, symmetric) = (shown_range(&facts.stats, choice), choice.symmetry == Symmetry::Symmetric);
            if let Some((lo, hi)) = range_ui(ui, "Weight range", shown, symmetric, refusal) {
                actions.push(set(row, Side::Weights, Clip::Manual { lo, hi }, false));
            }
        }
        footer_ui(ui, "Weight histogram", row, &facts.stats, &facts.bins, response.rect, actions);
        if !manual && choice.is_integer() && !matches!(choice.clip, Clip::MinMax | Clip::Trained) {
            let group = match choice.granularity {
                Granularity::PerTensor => None,
                Granularity::PerChannel => Some("channel"),
                Granularity::Block(_) => Some("block"),
            };
            if let Some(group) = group {
                let text =
                    format!("{} finds a range for every {group} of its own; drag to clip all by hand", choice.clip);
                ui.label(RichText::new(text).small().weak());
            }
        }
        rounded_ui(ui, row, facts.stats.range(), actions);
        ui.add_space(theme::GAP);
        let channels = facts.channel_min.len();
        ui.label(RichText::new(format!("Range of each of {channels} output channels")).weak());
        let channels = Channels { min: &facts.channel_min, max: &facts.channel_max };
        channel_strip(ui, 54.0, &channels, "Range of each output channel");
    });
}

/// The weights as the repair in force rounds them, over the same range as they are without.
fn rounded_ui(ui: &mut Ui, row: &Row<'_>, seen: (f32, f32), actions: &mut Vec<Action>) {
    let Some(repair) = row.document.repair(row.index) else { return };
    ui.add_space(theme::GAP);
    ui.label(theme::caption(&format!("Weights repaired by {}", repair.method)));
    let Some(stats) = row.document.results.rounded(row.index, &row.pick.choice) else {
        ui.label(RichText::new("Reading the repaired weights…").weak());
        return;
    };
    let bins = bins_of(stats);
    let widget = ClipHistogram {
        name: "Repaired weights",
        bins: &bins,
        seen: (seen.0.min(stats.range().0), seen.1.max(stats.range().1)),
        clip: None,
        levels: None,
        symmetric: false,
        refusal: "",
        color: theme::palette(ui).good,
        height: 92.0,
    };
    let (response, _) = widget.show(ui);
    footer_ui(ui, "Repaired weight histogram", row, stats, &bins, response.rect, actions);
}

/// What enters the layer: histogram with handles; and what leaves it.
pub fn activations_ui(ui: &mut Ui, view: &View<'_>, row: &Row<'_>, actions: &mut Vec<Action>) {
    let palette = theme::palette(ui);
    theme::card(ui).show(ui, |ui| {
        ui.set_width(ui.available_width());
        let Some(stats) = &row.document.stats else {
            ui.label(theme::caption("Activation histogram"));
            let text = "Calibrate to see what enters the layer and to drag its range";
            ui.label(RichText::new(text).weak());
            let command = crate::command::Command::Calibrate;
            let refusal = command.refusal(view.able);
            let button = ui.add_enabled(refusal.is_empty(), eframe::egui::Button::new("Calibrate…"));
            if button.on_disabled_hover_text(refusal).clicked() {
                actions.push(Edit::ShowCalibration.into());
            }
            return;
        };
        let Some(input) = stats.tensors.get(&row.layer.input).filter(|input| input.count > 0) else {
            ui.label(theme::caption("Activation histogram"));
            let text = "Nothing was observed at this layer's input: it is an index, a constant, or lies in a subgraph";
            ui.label(RichText::new(text).weak());
            return;
        };
        let choice = &row.choice;
        let bits = if choice.is_static() { choice.activation.bits() } else { 8 };
        // What the file itself gives comes before anything seen.
        let given = row.document.model.input_pair(row.layer).filter(|_| choice.activation_clip == Clip::Trained);
        let range = given.map_or_else(
            || clip_range(input, choice.activation_clip, choice.activation_symmetry, bits),
            |pair| pair.params.range(),
        );
        let params = given.map_or_else(
            || activation_params_bits(range.0, range.1, choice.activation_symmetry, bits),
            |pair| pair.params,
        );
        let manual = matches!(choice.activation_clip, Clip::Manual { .. });
        let quantized = choice.is_static();
        let sqnr = quantized.then(|| histogram_sqnr(input, &params));
        heading(ui, "Activation histogram", sqnr, manual, || actions.push(reset(row, Side::Activations)));
        let refusal = if quantized { "" } else { "Only static int8 activations have a fixed range" };
        let bins = bins_of(input);
        let widget = ClipHistogram {
            name: "Activation clip",
            bins: &bins,
            seen: input.range(),
            clip: quantized.then_some(range),
            levels: quantized.then(|| levels(&params)),
            symmetric: choice.activation_symmetry == Symmetry::Symmetric,
            refusal,
            color: palette.activations,
            height: 128.0,
        };
        let (response, change) = widget.show(ui);
        apply(row, Side::Activations, change, actions);
        if quantized {
            let symmetric = choice.activation_symmetry == Symmetry::Symmetric;
            if let Some((lo, hi)) = range_ui(ui, "Activation range", range, symmetric, refusal) {
                actions.push(set(row, Side::Activations, Clip::Manual { lo, hi }, false));
            }
        }
        footer_ui(ui, "Activation histogram", row, input, &bins, response.rect, actions);
        if let Some(output) = stats.tensors.get(&row.layer.output).filter(|output| output.count > 0) {
            ui.add_space(theme::GAP);
            ui.label(theme::caption("Output histogram"));
            let bins = bins_of(output);
            let widget = ClipHistogram {
                name: "Output",
                bins: &bins,
                seen: output.range(),
                clip: None,
                levels: None,
                symmetric: false,
                refusal: "",
                color: palette.activations.gamma_multiply(0.7),
                height: 92.0,
            };
            let (response, _) = widget.show(ui);
            footer_ui(ui, "Output histogram", row, output, &bins, response.rect, actions);
        }
    });
}

/// Error of the weights: the exact one where it is known, else what a sample of them promises. The sample is small, so
/// that the figure follows a drag within the frame.
pub fn weight_error(row: &Row<'_>) -> Value<f64> {
    let exact = row.weight_sqnr();
    let choice = &row.pick.choice;
    // The search of `mse` is too long for a frame; its exact figure comes soon enough.
    if exact != Value::Pending
        || !choice.is_integer()
        || matches!(choice.clip, Clip::Mse | Clip::Entropy | Clip::Trained)
        || choice.rounding != Rounding::Nearest
    {
        return exact;
    }
    match row.document.results.facts(row.index) {
        Some(facts) => Value::Known(weight_sqnr(&facts.sample, facts.sample_layout, choice)),
        None => exact,
    }
}

/// Where the handles stand. Channels and blocks that find their own ranges clip nothing of the whole tensor's.
fn shown_range(stats: &TensorStats, choice: &Choice) -> (f32, f32) {
    let own = choice.granularity != Granularity::PerTensor && !matches!(choice.clip, Clip::Manual { .. });
    let clip = if own { Clip::MinMax } else { choice.clip };
    weight_range(stats, &Choice { clip, ..*choice })
}

fn weight_range(stats: &TensorStats, choice: &Choice) -> (f32, f32) {
    let (low, high) = clip_range(stats, choice.clip, choice.symmetry, choice.weight_bits());
    if choice.symmetry == Symmetry::Symmetric {
        let reach = low.abs().max(high.abs());
        return (-reach, reach);
    }
    (low, high)
}

fn weight_params(stats: &TensorStats, choice: &Choice) -> Option<QuantParams> {
    if !choice.is_integer() {
        return None;
    }
    let (low, high) = weight_range(stats, choice);
    let half = 1_i32 << (choice.weight_bits() - 1);
    let least = if choice.symmetry == Symmetry::Symmetric { 1 - half } else { -half };
    Some(QuantParams::for_range(low, high, least, half - 1, choice.symmetry))
}

fn levels(params: &QuantParams) -> Levels {
    Levels { step: params.scale, count: (params.qmax - params.qmin).unsigned_abs() + 1 }
}

fn heading(ui: &mut Ui, title: &str, sqnr: Option<f64>, manual: bool, reset: impl FnOnce()) {
    ui.horizontal(|ui| {
        ui.label(theme::caption(title));
        if let Some(db) = sqnr {
            let text = format::db(db);
            let label = ui.label(RichText::new(&text).color(theme::sqnr(ui, db)));
            field::spoken(ui, &label, format!("{title} SQNR: {text}"));
            badge(ui, Source::Predicted);
        }
        if manual {
            let button = ui.small_button("Reset").accessible_name(format!("Reset {}", title.to_lowercase()));
            if button.on_hover_text("Back to the method that finds the range").clicked() {
                reset();
            }
        }
    });
}

/// What the values are like, and the way to keep the histogram.
fn footer_ui(
    ui: &mut Ui,
    title: &str,
    row: &Row<'_>,
    stats: &TensorStats,
    bins: &[Bin],
    rect: Rect,
    actions: &mut Vec<Action>,
) {
    ui.horizontal(|ui| {
        keep_ui(ui, title, &row.layer.name, bins, rect, actions);
        moments_ui(ui, stats);
    });
}

fn moments_ui(ui: &mut Ui, stats: &TensorStats) {
    let (low, high) = stats.range();
    let deviation = stats.variance().max(0.0).sqrt();
    let odd = if stats.non_finite > 0 {
        format!(" · {} not finite", format::count(stats.non_finite))
    } else {
        String::new()
    };
    let text = format!("{} values · {low:.4} … {high:.4} · σ {deviation:.4}{odd}", format::count(stats.count));
    ui.label(RichText::new(text).small().weak());
}

#[derive(Clone, Copy, PartialEq)]
enum Side {
    Weights,
    Activations,
}

fn apply(row: &Row<'_>, side: Side, change: ClipChange, actions: &mut Vec<Action>) {
    if change.reset {
        actions.push(reset(row, side));
        return;
    }
    if change.started {
        actions.push(Edit::BeginGesture.into());
    }
    if let Some((lo, hi)) = change.range {
        actions.push(set(row, side, Clip::Manual { lo, hi }, true));
    }
}

fn reset(row: &Row<'_>, side: Side) -> Action {
    // The method that the plan's default names, unless that is a range set by hand as well.
    let default = &row.document.plan().default;
    let method = match side {
        Side::Weights => default.clip,
        Side::Activations => default.activation_clip,
    };
    set(row, side, if matches!(method, Clip::Manual { .. }) { Clip::MinMax } else { method }, false)
}

fn set(row: &Row<'_>, side: Side, clip: Clip, in_gesture: bool) -> Action {
    let (set, what) = match side {
        Side::Weights => (Set { clip: Some(clip), ..Set::default() }, "Weight clip"),
        Side::Activations => (
            Set { activation_clip: Some(clip), activation: Some(Activation::Int8), ..Set::default() },
            "Activation clip",
        ),
    };
    let label = format!("{what} of {}", row.layer.name);
    Edit::SetClip { layer: row.index, set, label, in_gesture }.into()
}
