//! The model beside a file that any tool made of it: every layer found in both, the worst first. A click selects.

use eframe::egui::{Button, RichText, ScrollArea, Ui};
use egui_extras::{Column, TableBuilder};
use nibble_core::error::{ComparedLayer, MatchedBy};

use crate::document::Document;
use crate::edit::{Action, Edit};
use crate::jobs::Compared;
use crate::widgets::badge::{Source, badge};
use crate::widgets::field;
use crate::{format, theme};

/// Draws what was found.
pub fn other_ui(ui: &mut Ui, document: &Document, compared: &Compared, actions: &mut Vec<Action>) {
    ui.horizontal_wrapped(|ui| {
        let name = compared.path.file_name().unwrap_or_default().to_string_lossy();
        ui.label(theme::caption("Layer by layer"));
        ui.label(RichText::new(name).strong()).on_hover_text(compared.path.display().to_string());
        let figure = format::sqnr(compared.quality.sqnr_db);
        let label = ui.label(&figure);
        field::spoken(ui, &label, format!("SQNR of the other file: {figure}"));
        badge(ui, Source::Measured);
        ui.label(RichText::new(&compared.measured_on).small().weak());
        if ui.small_button("×").accessible_name("Close the comparison").clicked() {
            actions.push(Edit::ForgetCompared.into());
        }
    });
    let unmatched = [("here", &compared.layers.unmatched), ("there", &compared.layers.unmatched_other)];
    for (place, names) in unmatched.into_iter().filter(|(_, names)| !names.is_empty()) {
        let text = format!("{} only {place}", format::layers(names.len()));
        ui.label(RichText::new(text).weak()).on_hover_text(names.join(", "));
    }
    let mut layers: Vec<&ComparedLayer> = compared.layers.layers.iter().collect();
    layers.sort_by(|a, b| format::decibels(a.sqnr_db).total_cmp(&format::decibels(b.sqnr_db)));
    ScrollArea::horizontal().auto_shrink(false).show(ui, |ui| {
        ui.spacing_mut().scroll = eframe::egui::style::ScrollStyle::thin();
        let table = TableBuilder::new(ui)
            .id_salt("compared layers")
            .striped(true)
            .column(Column::initial(190.0).clip(true).resizable(true))
            .column(Column::exact(80.0))
            .column(Column::initial(150.0).clip(true).resizable(true))
            .column(Column::initial(190.0).clip(true).resizable(true));
        let table = table.header(20.0, |mut header| {
            for title in ["Layer", "SQNR", "Quantized to", "In the file"] {
                header.col(|ui| _ = ui.label(RichText::new(title).weak()));
            }
        });
        table.body(|body| {
            body.rows(theme::ROW, layers.len(), |mut row| {
                let Some(layer) = layers.get(row.index()) else { return };
                row.col(|ui| name_ui(ui, document, layer, actions));
                row.col(|ui| {
                    let db = format::decibels(layer.sqnr_db);
                    ui.label(RichText::new(format::sqnr(layer.sqnr_db)).color(theme::sqnr(ui, db)));
                });
                row.col(|ui| _ = ui.label(&layer.quantized));
                row.col(|ui| {
                    let matched = match layer.matched_by {
                        MatchedBy::Tensor => "by the tensor's name",
                        MatchedBy::Name => "by the layer's name",
                        MatchedBy::Order => "by the order",
                    };
                    ui.label(RichText::new(&layer.other).weak()).on_hover_text(format!("Found {matched}"));
                });
            });
        });
    });
}

fn name_ui(ui: &mut Ui, document: &Document, layer: &ComparedLayer, actions: &mut Vec<Action>) {
    let known = document.model.layer(&layer.name).is_some();
    let button = Button::new(&layer.name).frame(false).truncate();
    let response = ui.add_enabled(known, button).accessible_name(format!("Compared layer {}", layer.name));
    if response.on_hover_text(&layer.name).clicked() {
        actions.push(Edit::SelectNamed(layer.name.clone()).into());
    }
}
