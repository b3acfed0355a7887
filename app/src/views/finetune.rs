//! Fine-tuning: how long and how fast, the curves while it runs, and what it came to, to be accepted or not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use eframe::egui::{self, DragValue, Grid, RichText, ScrollArea, Ui};
use egui_plot::{Legend, Line, Plot, PlotPoints, Points};
use nibble_core::finetune::{Ended, Finetuned, Point};

use super::View;
use crate::command::Command;
use crate::document::Document;
use crate::edit::{Action, Edit};
use crate::jobs::Tuned;
use crate::widgets::field;
use crate::{format, theme};

/// What is set before training.
#[derive(Clone, Debug)]
pub struct Form {
    /// Steps at most.
    pub steps: usize,
    /// Samples a step.
    pub batch: usize,
    /// Learning rate in thousandths of an integer.
    pub rate: f32,
    /// While set, training waits.
    pub paused: Arc<AtomicBool>,
}

impl Default for Form {
    fn default() -> Self {
        let usual = nibble_core::finetune::FinetuneOptions::default();
        Self { steps: usual.steps, batch: usual.batch, rate: usual.learning_rate * 1e3, paused: Arc::default() }
    }
}

/// A training that runs or has ended.
#[derive(Default)]
pub struct Training {
    /// Points so far.
    pub curve: Vec<Point>,
    /// What it ended with.
    pub tuned: Option<Arc<Tuned>>,
}

/// Title of the job while it runs.
pub const TITLE: &str = "Fine-tuning";

/// Draws the pane.
pub fn finetune_ui(ui: &mut Ui, view: &View<'_>, document: &Document, form: &mut Form, actions: &mut Vec<Action>) {
    let height = ui.available_height();
    ui.horizontal_top(|ui| {
        let width = theme::left_part(ui);
        ui.allocate_ui_with_layout(egui::vec2(width, height), egui::Layout::top_down(egui::Align::Min), |ui| {
            ScrollArea::vertical().id_salt("fine-tuning").auto_shrink(false).show(ui, |ui| {
                form_ui(ui, view, form, actions);
                if let Some(tuned) = document.training.as_ref().and_then(|training| training.tuned.as_ref()) {
                    result_ui(ui, document, tuned, actions);
                }
            });
        });
        ui.separator();
        ui.vertical(|ui| curves_ui(ui, document));
    });
}

fn form_ui(ui: &mut Ui, view: &View<'_>, form: &mut Form, actions: &mut Vec<Action>) {
    let running = view.running.filter(|running| running.title == TITLE);
    ui.add_enabled_ui(running.is_none(), |ui| {
        field::row(ui, "Steps", |ui| {
            ui.add(DragValue::new(&mut form.steps).range(1..=100_000)).accessible_name("Steps")
        });
        field::row(ui, "Samples a step", |ui| {
            ui.add(DragValue::new(&mut form.batch).range(1..=4096)).accessible_name("Samples a step")
        });
        field::row(ui, "Learning rate", |ui| {
            let drag = DragValue::new(&mut form.rate).range(0.01..=1000.0).speed(0.1).suffix(" ‰");
            let hint = "About how far a weight moves in a step: 1000 ‰ are from one integer to the next";
            ui.add(drag).accessible_name("Learning rate").on_hover_text(hint)
        });
    });
    ui.add_space(theme::GAP);
    ui.horizontal_wrapped(|ui| match running {
        Some(running) => {
            let waits = form.paused.load(Ordering::Relaxed);
            if ui.button(if waits { "Go on" } else { "Pause" }).clicked() {
                form.paused.store(!waits, Ordering::Relaxed);
            }
            let stop = ui.add_enabled(!running.control.is_cancelled(), egui::Button::new("Stop and keep the best"));
            if stop.clicked() {
                actions.push(Command::Cancel.into());
            }
            if waits {
                ui.label(RichText::new("paused").color(theme::palette(ui).warning));
            }
        }
        None => {
            let palette = theme::palette(ui);
            let refusal = Command::Finetune.refusal(view.able);
            let button =
                egui::Button::new(RichText::new("Start training").color(palette.on_accent)).fill(palette.accent);
            let response = ui.add_enabled(refusal.is_empty(), button).accessible_name("Start training");
            if response.on_hover_text(Command::Finetune.tooltip()).on_disabled_hover_text(&refusal).clicked() {
                actions.push(Edit::StartFinetune.into());
            }
            let text = if refusal.is_empty() { "against the original's outputs; needs no labels" } else { &refusal };
            ui.label(RichText::new(text).weak());
        }
    });
}

fn result_ui(ui: &mut Ui, document: &Document, tuned: &Tuned, actions: &mut Vec<Action>) {
    let result = &tuned.result;
    ui.add_space(theme::SECTION);
    ui.label(theme::caption("What it came to"));
    Grid::new("fine-tuned").num_columns(3).striped(true).show(ui, |ui| {
        for title in ["", "Before", "After"] {
            ui.label(RichText::new(title).weak());
        }
        ui.end_row();
        for (title, before, after) in rows(tuned) {
            ui.label(title);
            ui.label(before);
            ui.label(RichText::new(after).strong());
            ui.end_row();
        }
    });
    ui.add_space(theme::GAP);
    ui.label(RichText::new(summary(result)).weak());
    for untrained in &result.untrained {
        ui.label(RichText::new(format!("Not trained: {} ({})", untrained.layer, untrained.why)).weak());
    }
    ui.add_space(theme::GAP);
    let gained = result.plan != *tuned.from;
    let accepted = *document.plan().as_ref() == result.plan;
    if !gained || accepted {
        let text = if gained { "Accepted" } else { "Nothing was gained on held-back samples: the plan stays as it is" };
        ui.label(text);
        return;
    }
    let palette = theme::palette(ui);
    let changed = *document.plan().as_ref() != *tuned.from;
    ui.horizontal_wrapped(|ui| {
        let button = egui::Button::new(RichText::new("Accept").color(palette.on_accent)).fill(palette.accent);
        let response = ui.add(button).accessible_name("Accept the trained weights");
        if response.on_hover_text("Put the trained weights into the plan; one undo takes them back").clicked() {
            actions.push(Edit::AcceptFinetuned.into());
        }
        if ui.button("Discard").clicked() {
            actions.push(Edit::DiscardFinetuned.into());
        }
        if changed {
            let text = "the plan was changed since; accepting it takes those changes back";
            ui.label(RichText::new(text).color(palette.warning));
        }
    });
}

/// Figures before and after.
fn rows(tuned: &Tuned) -> Vec<(&'static str, String, String)> {
    let result = &tuned.result;
    let db = |value: Option<f64>| value.map_or(format::NONE.to_owned(), format::db);
    let mut rows = vec![("SQNR, held back (simulated)", db(result.before.sqnr_db), db(result.after.sqnr_db))];
    if let Some((before, after)) = &tuned.measured {
        rows.push(("SQNR, evaluation (measured)", format::sqnr(before.sqnr_db), format::sqnr(after.sqnr_db)));
        if let (Some(a), Some(b)) = (before.top1_agreement, after.top1_agreement) {
            rows.push(("Top-1 agreement", format::percent(a), format::percent(b)));
        }
        if let (Some(a), Some(b)) = (before.accuracy, after.accuracy) {
            rows.push(("Accuracy", format::percent(a.quantized), format::percent(b.quantized)));
            rows.push(("Accuracy of the original", format::percent(a.original), format::percent(b.original)));
        }
    }
    rows
}

fn summary(result: &Finetuned) -> String {
    let why = match result.ended {
        Ended::Finished => "",
        Ended::NoGain => "; ended early: nothing more was gained",
        Ended::Cancelled => "; stopped",
    };
    format!(
        "{} trained, {} steps in {:.0} s, the state of step {} was kept{why}",
        format::layers(result.trained.len()),
        result.steps,
        result.seconds,
        result.best_step
    )
}

/// Loss of the steps, and of held-back samples.
fn curves_ui(ui: &mut Ui, document: &Document) {
    ui.label(theme::caption("Loss, step by step"));
    let Some(training) = &document.training else {
        let text = "Training pulls the weights to where rounding costs least. Choose int2 or int4 for some layers first; \
                    int8 rarely needs it";
        ui.label(RichText::new(text).weak());
        return;
    };
    let palette = theme::palette(ui);
    // In decibels a curve that falls to a hundredth can still be read.
    let level = |loss: f64| 10.0 * loss.max(1e-12).log10();
    let seen = training.curve.iter().filter_map(|point| Some([point.step as f64, level(point.loss?)]));
    let held = training.curve.iter().filter_map(|point| Some([point.step as f64, level(point.held_back?.loss)]));
    let (seen, held): (Vec<[f64; 2]>, Vec<[f64; 2]>) = (seen.collect(), held.collect());
    if let Some(point) = training.curve.iter().rev().find(|point| point.held_back.is_some())
        && let Some(db) = point.held_back.and_then(|held| held.sqnr_db)
    {
        ui.label(format!("Step {}: {} on held-back samples", point.step, format::db(db)));
    }
    Plot::new("fine-tuning curves")
        .height(ui.available_height().max(60.0))
        .allow_drag(false)
        .allow_zoom(false)
        .allow_scroll(false)
        .legend(Legend::default())
        .y_axis_label("loss in dB")
        .show(ui, |plot| {
            plot.line(Line::new("Training", PlotPoints::from(seen)).color(palette.weak).width(1.0));
            plot.line(Line::new("Held back", PlotPoints::from(held.clone())).color(palette.accent).width(2.0));
            plot.points(Points::new("Held back", PlotPoints::from(held)).color(palette.accent).radius(2.5));
        });
}
