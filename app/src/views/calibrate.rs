//! Choose the data, look at it as the model gets it, gather statistics.

mod form;
mod preview;

use eframe::egui::{self, RichText, ScrollArea, Ui};

pub use form::{DataRequest, Form, Source};

use super::View;
use crate::command::Command;
use crate::document::Document;
use crate::edit::{Action, Edit};
use crate::format;
use crate::theme;

/// Draws the form on the left, what the model gets on the right.
pub fn calibrate_ui(ui: &mut Ui, view: &View<'_>, document: &Document, form: &mut Form, actions: &mut Vec<Action>) {
    let height = ui.available_height();
    ui.horizontal_top(|ui| {
        let width = theme::left_part(ui);
        ui.allocate_ui_with_layout(egui::vec2(width, height), egui::Layout::top_down(egui::Align::Min), |ui| {
            // Above the form, so that they stay in sight however low the pane is.
            buttons_ui(ui, view, document, form, actions);
            ui.add_space(theme::GAP);
            ScrollArea::vertical().id_salt("calibration form").auto_shrink(false).show(ui, |ui| {
                form.ui(ui, document, actions);
            });
        });
        ui.separator();
        ui.vertical(|ui| {
            ScrollArea::both().id_salt("preview").auto_shrink(false).show(ui, |ui| {
                preview::preview_ui(ui, document, actions);
            });
        });
    });
}

fn buttons_ui(ui: &mut Ui, view: &View<'_>, document: &Document, form: &Form, actions: &mut Vec<Action>) {
    ui.horizontal_wrapped(|ui| {
        let missing = form.refusal();
        let refusal = if missing.is_empty() { Command::Calibrate.refusal(view.able) } else { missing.clone() };
        let again = document.stats.is_some();
        let title = if again { "Calibrate again" } else { "Calibrate" };
        let button =
            egui::Button::new(RichText::new(title).color(theme::palette(ui).on_accent)).fill(theme::palette(ui).accent);
        let response = ui.add_enabled(refusal.is_empty(), button).accessible_name("Start calibration");
        if response.on_hover_text(Command::Calibrate.tooltip()).on_disabled_hover_text(&refusal).clicked() {
            actions.push(Command::Calibrate.into());
        }
        let preview = ui.add_enabled(missing.is_empty(), egui::Button::new("Preview"));
        if preview.on_hover_text("Show the samples as the model gets them").on_disabled_hover_text(&missing).clicked() {
            actions.push(Edit::Preview.into());
        }
        let needs_labels = if form.labels.trim().is_empty() { "Give labels first" } else { "" };
        let refusal = if needs_labels.is_empty() { refusal } else { needs_labels.to_owned() };
        let score = ui.add_enabled(refusal.is_empty(), egui::Button::new("Score the float model"));
        let about = "Accuracy of the model as it is: a low one usually means wrong preprocessing";
        if score.on_hover_text(about).on_disabled_hover_text(refusal).clicked() {
            actions.push(Edit::Score.into());
        }
    });
    if let Some(stats) = &document.stats {
        let samples = format::samples(stats.samples());
        let text = format!("{samples} of {} · {} activations observed", stats.data(), stats.tensors.len());
        ui.label(RichText::new(text).color(theme::palette(ui).good));
        if stats.tensors.is_empty() {
            let why = "Nothing was seen: all layers that could be observed lie in bodies of If, Loop or Scan";
            ui.label(RichText::new(why).color(theme::palette(ui).warning));
        }
    }
    if let Some(score) = &document.score {
        let text = format!("Float model: {} accuracy on {} samples", format::percent(score.accuracy), score.samples);
        ui.label(RichText::new(text).strong());
    }
}
