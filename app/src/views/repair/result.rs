//! What a repair found: the whole model, then layer by layer, before it is accepted.

use eframe::egui::{self, Grid, RichText, ScrollArea, Ui};
use nibble_core::repair::{Difference, RepairedLayer, ScaledBlock};

use super::{TITLE, View};
use crate::document::Document;
use crate::edit::{Action, Edit};
use crate::jobs::{Mended, Stage, Whole};
use crate::widgets::badge::{Source, badge, pill};
use crate::widgets::field;
use crate::{format, theme};

/// Draws the preview, or what it will be.
pub fn result_ui(ui: &mut Ui, document: &Document, view: &View<'_>, actions: &mut Vec<Action>) {
    ui.label(theme::caption("What it does"));
    previews_ui(ui, document, view, actions);
    let Some(mending) = &document.mending else {
        let text = "The repair is searched on a part of the calibration samples and judged on the rest; nothing changes \
                    until you accept it";
        ui.label(RichText::new(text).weak());
        return;
    };
    let Some(mended) = &mending.mended else {
        ui.label(RichText::new(format!("Searching by {}…", mending.method)).weak());
        return;
    };
    let is_running = view.running.is_some_and(|running| running.title == TITLE);
    answer_ui(ui, document, mended, is_running, actions);
    ui.add_space(theme::GAP);
    ScrollArea::both().id_salt("repaired layers").auto_shrink(false).show(ui, |ui| {
        whole_ui(ui, mended, is_running);
        if !mended.layers.is_empty() {
            layers_ui(ui, mended, actions);
        }
        if !mended.blocks.is_empty() {
            blocks_ui(ui, mended, actions);
        }
        for problem in document.problems.get("repair").into_iter().flatten() {
            super::super::problems::problem_ui(ui, problem, Some(document), actions);
        }
    });
}

/// What was found before and waits still.
fn previews_ui(ui: &mut Ui, document: &Document, view: &View<'_>, actions: &mut Vec<Action>) {
    if document.previews.is_empty() {
        return;
    }
    let is_running = view.running.is_some_and(|running| running.title == TITLE);
    ui.horizontal_wrapped(|ui| {
        ui.label(RichText::new("Found before, not accepted:").weak());
        for (at, mended) in document.previews.iter().enumerate().rev() {
            let figure = mended.whole.as_ref().map(|whole| format!(" ({})", format::sqnr(whole.after)));
            let text = format!("{}{}", mended.title(), figure.unwrap_or_default());
            let button = ui.add_enabled(!is_running, egui::Button::new(&text).small());
            let button = button.accessible_name(format!("Show again: {}", mended.title()));
            let about = "Show this preview again, to accept or discard it";
            if button.on_hover_text(about).on_disabled_hover_text("A repair is running").clicked() {
                actions.push(Edit::ShowPreview(at).into());
            }
        }
    });
}

/// Accept or not.
fn answer_ui(ui: &mut Ui, document: &Document, mended: &Mended, is_running: bool, actions: &mut Vec<Action>) {
    let palette = theme::palette(ui);
    ui.horizontal_wrapped(|ui| {
        if mended.stage != Stage::FirstLook && *document.plan() == mended.plan && mended.changes() {
            ui.label(RichText::new(format!("Accepted: {}", mended.title())).color(palette.good));
            if ui.button("Undo").clicked() {
                actions.push(crate::command::Command::Undo.into());
            }
            return;
        }
        if mended.stage == Stage::Whole && !mended.changes() {
            ui.label(nothing(mended));
            return;
        }
        let waits = if mended.stage == Stage::FirstLook {
            "This is a first look from few rows: the repair itself follows in a moment"
        } else {
            ""
        };
        let button = match mended.loss_db() {
            // Not what is advised.
            Some(_) => egui::Button::new("Accept"),
            None => egui::Button::new(RichText::new("Accept").color(palette.on_accent)).fill(palette.accent),
        };
        let response = ui.add_enabled(waits.is_empty(), button).accessible_name("Accept the repair");
        let about = match mended.stage {
            Stage::AtOnce => {
                "Put it into the plan as it is; one undo takes it back. The repair from all samples is not waited for"
            }
            _ => "Put it into the plan; one undo takes it back",
        };
        let response = response.on_hover_text(about);
        if response.on_disabled_hover_text(waits).clicked() {
            actions.push(Edit::AcceptRepair.into());
        }
        let button = ui.add_enabled(!is_running, egui::Button::new("Discard")).accessible_name("Discard the repair");
        if button.on_disabled_hover_text("Stop it first").clicked() {
            actions.push(Edit::DiscardRepair.into());
        }
        ui.label(RichText::new(mended.title()).strong());
        if *document.plan() != mended.from {
            let text = "the plan was changed since; layers that were stay as they are";
            ui.label(RichText::new(text).color(palette.warning));
        }
    });
}

fn nothing(mended: &Mended) -> String {
    match mended.blocks.len() {
        0 if mended.layers.is_empty() => "Nothing better was found; the plan stays as it is".to_owned(),
        0 => "The plan has these integers already".to_owned(),
        blocks => format!("None of {blocks} blocks of layers gains from it; the plan stays as it is"),
    }
}

fn whole_ui(ui: &mut Ui, mended: &Mended, is_running: bool) {
    ui.horizontal_wrapped(|ui| match &mended.whole {
        Some(Whole { before, after, gain, samples, is_held_back, is_alone, .. }) => {
            ui.label(if *is_alone {
                "Output of the model with this layer alone rounded"
            } else {
                "Output of the whole model"
            });
            let text = format!("{} → {}", format::sqnr(*before), format::sqnr(*after));
            let palette = theme::palette(ui);
            let color = match mended.loss_db() {
                Some(_) => palette.bad,
                None => after.db().map_or(palette.text, |db| theme::sqnr(ui, db)),
            };
            let label = ui.label(RichText::new(&text).size(17.0).color(color));
            field::spoken(
                ui,
                &label,
                format!("{}: {text}", if *is_alone { "This layer alone" } else { "Whole model" }),
            );
            badge(ui, Source::Measured);
            let what = if *is_held_back { "held back" } else { "learnt from: there is no other" };
            ui.label(RichText::new(format!("on {samples} {what}")).weak()).on_hover_text(if *is_alone {
                "Samples of the calibration data that the original was run on, with the integers of this layer in it"
            } else {
                "Samples of the calibration data that the real export was run on"
            });
            if let Some(gain) = gain {
                let [low, high] = [gain.low_db, gain.high_db].map(|db| format!("{db:.1}"));
                ui.label(RichText::new(format!("gain {} ({low} to {high})", format::db(gain.db))).weak())
                    .on_hover_text("With the 95 % interval that so many samples leave open, from a bootstrap");
            }
            if let Some(lost) = mended.loss_db() {
                let text = format!("The whole model loses {} by it, whatever the layers gain", format::db(lost));
                ui.label(RichText::new(text).color(palette.bad));
            }
        }
        None if is_running => {
            let next = if mended.stage == Stage::FirstLook { "after the samples" } else { "next" };
            ui.label(RichText::new(format!("Output of the whole model: it is run {next}…")).weak());
        }
        None => {
            ui.label(RichText::new("Output of the whole model: not measured, since it was stopped").weak());
        }
    });
    let took = match mended.stage {
        Stage::FirstLook => format!("first look from rows that calibration kept, after {:.2} s", mended.seconds),
        Stage::AtOnce => format!("after {:.2} s, from some of the samples; all of them follow", mended.seconds),
        Stage::Layers => format!("after {:.2} s, {}", mended.seconds, mended.source),
        Stage::Whole => format!("{:.2} s, {}", mended.seconds, mended.source),
    };
    ui.label(RichText::new(took).small().weak());
    if let Some(tried) = mended.whole.as_ref().map(|whole| &whole.tried).filter(|tried| tried.len() > 1) {
        let tried: Vec<String> = tried.iter().map(|(what, sqnr)| format!("{what} {}", format::sqnr(*sqnr))).collect();
        ui.label(RichText::new(format!("Tried on the whole model: {}", tried.join(" · "))).small().weak());
    }
    ui.add_space(theme::GAP);
}

fn layers_ui(ui: &mut Ui, mended: &Mended, actions: &mut Vec<Action>) {
    let held = match mended.stage {
        Stage::FirstLook => "on the fourth part of the rows",
        Stage::AtOnce | Stage::Layers | Stage::Whole => "on samples held back",
    };
    Grid::new("repaired").num_columns(8).striped(true).spacing([11.0, 3.0]).show(ui, |ui| {
        let titles = [
            ("Layer", "Click to select it".to_owned()),
            ("Repair", "The method that won".to_owned()),
            ("Nearest", format!("SQNR of the layer's own output rounded to nearest, {held}")),
            ("Repaired", format!("The same with the repair, {held}")),
            ("Gain", "The difference".to_owned()),
            ("Integers", "Share of the integers that are others than rounding to nearest gives".to_owned()),
            ("Scales", "The new scales divided by the old ones".to_owned()),
            ("Bias", "Largest change, against the largest value of the bias".to_owned()),
        ];
        for (title, about) in titles {
            ui.label(RichText::new(title).weak()).on_hover_text(about);
        }
        ui.end_row();
        for (layer, difference) in &mended.layers {
            layer_ui(ui, layer, difference, actions);
            ui.end_row();
        }
    });
}

fn layer_ui(ui: &mut Ui, layer: &RepairedLayer, difference: &Difference, actions: &mut Vec<Action>) {
    let palette = theme::palette(ui);
    let link = egui::Button::new(format::tail(&layer.name, 30)).frame(false);
    let response = ui.add(link).accessible_name(format!("Repaired layer {}", layer.name));
    if response.on_hover_text(&layer.name).clicked() {
        actions.push(Edit::SelectNamed(layer.name.clone()).into());
    }
    ui.horizontal(|ui| {
        ui.label(layer.repair.method.word());
        if layer.repair.data_free {
            pill(ui, "no data", palette.warning).on_hover_text("Made from the weights alone");
        }
    });
    match layer.repair.held_back {
        Some(gain) => {
            ui.label(format::db(gain.before_db));
            ui.label(RichText::new(format::db(gain.after_db)).color(theme::sqnr(ui, gain.after_db)));
            gain_ui(ui, &layer.name, gain.before_db, gain.after_db, true);
        }
        None => {
            for _ in 0..3 {
                ui.label(format::NONE).on_hover_text("Its input cannot be watched");
            }
        }
    }
    ui.label(format::percent(difference.integers));
    ui.label(difference.scales.map_or("the same".to_owned(), |(low, high)| format!("× {low:.2}–{high:.2}")));
    ui.label(difference.bias.map_or("stays".to_owned(), |change| format::percent(f64::from(change))));
}

fn gain_ui(ui: &mut Ui, name: &str, before: f64, after: f64, kept: bool) {
    let palette = theme::palette(ui);
    let gain = after - before;
    let color = if kept && gain > 0.05 { palette.good } else { palette.weak };
    let text = format!("{gain:+.1}");
    let label = ui.label(RichText::new(&text).color(color));
    field::spoken(ui, &label, format!("Gain of {name}: {text} dB"));
}

fn blocks_ui(ui: &mut Ui, mended: &Mended, actions: &mut Vec<Action>) {
    Grid::new("scaled").num_columns(6).striped(true).spacing([14.0, 3.0]).show(ui, |ui| {
        for (title, about) in [
            ("Layers", "Layers that the tensor enters; click to select the first"),
            ("Before", "SQNR of their outputs on rows held back"),
            ("After", "The same, scaled"),
            ("Gain", "The difference"),
            ("α", "Share of the activations' range that moves into the weights"),
            ("Folded into", "Where the division goes"),
        ] {
            ui.label(RichText::new(title).weak()).on_hover_text(about);
        }
        ui.end_row();
        for block in &mended.blocks {
            block_ui(ui, block, actions);
            ui.end_row();
        }
    });
}

fn block_ui(ui: &mut Ui, block: &ScaledBlock, actions: &mut Vec<Action>) {
    let palette = theme::palette(ui);
    let (first, more) = (block.layers.first().cloned().unwrap_or_default(), block.layers.len().saturating_sub(1));
    let text = match more {
        0 => format::tail(&first, 30),
        more => format!("{} and {more} more", format::tail(&first, 24)),
    };
    let response = ui.add(egui::Button::new(text).frame(false)).accessible_name(format!("Scaled layer {first}"));
    if response.on_hover_text(block.layers.join("\n")).clicked() {
        actions.push(Edit::SelectNamed(first.clone()).into());
    }
    match (block.before_db, block.after_db) {
        (Some(before), Some(after)) => {
            ui.label(format::db(before));
            ui.label(format::db(after));
            gain_ui(ui, &first, before, after, block.kept);
        }
        _ => {
            for _ in 0..2 {
                ui.label(format::NONE);
            }
            pill(ui, "no data", palette.warning).on_hover_text("Found from the weights alone");
        }
    }
    ui.label(block.alpha.map_or(format::NONE.to_owned(), |alpha| format!("{alpha:.2}")));
    match (block.kept, &block.folded_into) {
        (false, _) => ui.label(RichText::new("left as it is").weak()).on_hover_text(
            "It gains less than 0.25 dB, or stays so poor that the preset leaves its input in floating point anyway",
        ),
        (true, Some(node)) => ui.label(format::tail(node, 30)).on_hover_text(node),
        (true, None) => ui.label("a Mul of its own").on_hover_text("One pass over the tensor at each run"),
    };
}
