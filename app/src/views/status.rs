//! The status line: the model, how much of it is quantized, what it weighs, and where each number comes from.

use eframe::egui::{Align, Layout, RichText, Ui};

use nibble_core::plan::Rounding;

use super::{Snapshot, View};
use crate::document::Document;
use crate::edit::{Action, Edit, Purpose};
use crate::widgets::badge::{Source, badge};
use crate::{format, theme};

/// Draws the status line.
pub fn status_ui(ui: &mut Ui, view: &View<'_>, snapshot: Option<&Snapshot<'_>>, actions: &mut Vec<Action>) {
    let palette = theme::palette(ui);
    ui.horizontal(|ui| {
        ui.spacing_mut().item_spacing.x = 8.0;
        let Some(Snapshot { document, predicted_size }) = snapshot else {
            ui.label(RichText::new("No model open").weak());
            runtime_ui(ui, view, actions);
            return;
        };
        let dot = |ui: &mut Ui| ui.label(RichText::new("·").weak());
        let name = document.path.file_name().unwrap_or_default().to_string_lossy();
        ui.label(RichText::new(name).strong()).on_hover_text(document.path.display().to_string());
        dot(ui);
        ui.label(format!("opset {}", document.model.opset));
        dot(ui);
        let (counts, able) = document.precisions();
        let counts: Vec<String> = counts.iter().map(|(word, count)| format!("{count}/{able} {word}")).collect();
        ui.label(if able == 0 {
            "no layers to quantize".to_owned()
        } else {
            format!("{} layers", counts.join(" · "))
        });
        dot(ui);
        let before = document.model.file.size_bytes;
        let share = (*predicted_size as f64 / before.max(1) as f64 - 1.0) * 100.0;
        ui.label(format!("{} → {} ({share:+.0} %)", format::bytes(before), format::bytes(*predicted_size)));
        forecast_ui(ui, view, document);
        if let Some(exported) = &document.exported {
            dot(ui);
            let color = exported.verified.quality.sqnr_db.db().map_or(palette.text, |db| theme::sqnr(ui, db));
            ui.label(RichText::new(format::sqnr(exported.verified.quality.sqnr_db)).color(color));
            ui.label(format::bytes(exported.verified.size_bytes.quantized));
            let current = *exported.plan == **document.plan();
            badge(ui, if current { Source::Measured } else { Source::Stale });
        }
        if let Some(benched) = &document.benched {
            dot(ui);
            let ratio = benched.bench.latency_ratio.p50;
            let color = if ratio <= 1.0 { palette.good } else { palette.warning };
            let text = format!("{:+.0} % latency", (ratio - 1.0) * 100.0);
            let about = "Time of the export against the original, timed in one run: below zero is faster";
            ui.label(RichText::new(text).color(color)).on_hover_text(about);
            badge(ui, if *benched.plan == **document.plan() { Source::Measured } else { Source::Stale });
        }
        if document.is_unsaved() {
            dot(ui);
            ui.label(RichText::new("plan not saved").color(palette.warning));
        }
        let pending = document.results.in_flight();
        if pending > 0 {
            dot(ui);
            ui.label(RichText::new("computing errors…").weak());
        }
        runtime_ui(ui, view, actions);
    });
}

/// What is expected of the plan, or what it takes to know.
fn forecast_ui(ui: &mut Ui, view: &View<'_>, document: &Document) {
    let palette = theme::palette(ui);
    let Some(forecast) = &document.forecast else {
        badge(ui, Source::Predicted);
        if view.learning.is_some() {
            ui.label(RichText::new("· learning what matters…").weak())
                .on_hover_text("Goes through a few samples, so that every plan can be judged without running it");
        }
        return;
    };
    ui.label(RichText::new("·").weak());
    let prediction = &forecast.outlook.prediction;
    let output = document.learnt.as_ref().map(|learnt| learnt.output.clone()).unwrap_or_default();
    if !prediction.unknown.is_empty() {
        badge(ui, Source::Predicted);
        let about = format!("Nothing is known of {}", prediction.unknown.join(", "));
        let text = if view.learning.is_some() { "running the repaired plan…" } else { "error not predicted" };
        ui.label(RichText::new(text).weak()).on_hover_text(about);
        return;
    }
    let about = if forecast.outlook.estimated.is_empty() { "" } else { "about " };
    let half = prediction.high_db.zip(prediction.low_db).map_or(0.0, |(high, low)| (high - low) / 2.0);
    let figure = match prediction.sqnr_db.db() {
        Some(db) if half > 0.0 => format!("{about}{} ± {half:.0}", format::db(db)),
        _ => format::sqnr(prediction.sqnr_db),
    };
    let color = prediction.sqnr_db.db().map_or(palette.text, |db| theme::sqnr(ui, db));
    let label = ui.label(RichText::new(&figure).color(color));
    crate::widgets::field::spoken(ui, &label, format!("Predicted error of the output: {figure}"));
    let interval = match (prediction.low_db, prediction.high_db) {
        (Some(low), Some(high)) => format!(", expected between {} and {}", format::db(low), format::db(high)),
        _ => String::new(),
    };
    label.on_hover_text(format!("Predicted at {output}{interval}; export to measure it"));
    badge(ui, Source::Predicted);
    if let Some(why) = parted(document) {
        ui.label(RichText::new("prediction missed").color(palette.warning)).on_hover_text(why);
    }
}

/// Where the measured figure of the present plan lies outside the interval predicted: which assumption failed.
fn parted(document: &Document) -> Option<String> {
    let prediction = &document.forecast.as_ref()?.outlook.prediction;
    let exported = document.exported.as_ref().filter(|exported| *exported.plan == **document.plan())?;
    let (low, high) = prediction.low_db.zip(prediction.high_db)?;
    let measured = exported.verified.quality.sqnr_db.db()?;
    if (low..=high).contains(&measured) {
        return None;
    }
    let repaired = |name: &String| document.plan().choice(name).rounding != Rounding::Nearest;
    let why = if document.plan().repairs.keys().any(repaired) {
        "repaired weights stand at what a run of the whole plan gave on other samples, and edits since then were added to that"
    } else if measured < 12.0 {
        "errors this large do not add up any more: slopes hold for small ones"
    } else if measured < low {
        "errors of neighbouring values do not cancel as independent ones would"
    } else {
        "the output saturates, or errors cancel: slopes on the samples gone through overstate them"
    };
    Some(format!(
        "Measured {}, predicted {} to {}: {why}. The measured figure counts",
        format::db(measured),
        format::db(low),
        format::db(high)
    ))
}

fn runtime_ui(ui: &mut Ui, view: &View<'_>, actions: &mut Vec<Action>) {
    let palette = theme::palette(ui);
    ui.with_layout(Layout::right_to_left(Align::Center), |ui| match (view.runtime, view.runtime_problem) {
        (Some(runtime), _) => {
            ui.label(RichText::new(runtime).weak());
        }
        (None, Some(problem)) => {
            ui.menu_button(RichText::new("ONNX Runtime is missing").color(palette.bad), |ui| {
                ui.set_max_width(420.0);
                ui.with_layout(Layout::top_down(Align::Min), |ui| {
                    ui.label(RichText::new(&problem.what).strong());
                    ui.label(&problem.fix);
                    ui.label(RichText::new("Until then models can be looked at and planned, but not run").weak());
                });
                ui.separator();
                if ui.button("Choose the library…").clicked() {
                    actions.push(Edit::Browse(Purpose::Library).into());
                    ui.close();
                }
                if ui.button("Let Nibble find it").clicked() {
                    actions.push(Edit::FindRuntime(None).into());
                    ui.close();
                }
            });
        }
        (None, None) => {
            ui.label(RichText::new("looking for ONNX Runtime…").weak());
        }
    });
}
