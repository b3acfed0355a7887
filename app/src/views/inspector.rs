//! The selected layer: its errors, its choices, its weights and activations with the clip range to drag.

mod choices;
mod histograms;
mod range;
mod repair;

use eframe::egui::{self, RichText, ScrollArea, Ui};

use super::View;
use super::layers::Row;
use crate::document::Document;
use crate::edit::Action;
use crate::results::Value;
use crate::widgets::badge::{Source, badge, pill};
use crate::widgets::field;
use crate::{format, theme};

/// Draws the inspector.
pub fn inspector_ui(ui: &mut Ui, view: &View<'_>, document: &Document, actions: &mut Vec<Action>) {
    let Some(row) = view.selection.primary().and_then(|layer| Row::new(document, layer)) else {
        empty_ui(ui, document);
        return;
    };
    title_ui(ui, view, &row);
    ScrollArea::vertical().auto_shrink(false).show(ui, |ui| {
        if !row.layer.quantizable() {
            theme::card(ui).show(ui, |ui| {
                ui.set_width(ui.available_width());
                ui.label(RichText::new("This layer stays in floating point").strong());
                ui.label(RichText::new(&row.layer.reason).weak());
            });
            return;
        }
        errors_ui(ui, &row);
        ui.add_space(theme::GAP);
        choices::choices_ui(ui, view, &row, actions);
        ui.add_space(theme::GAP);
        repair::repair_ui(ui, view, &row, actions);
        ui.add_space(theme::GAP);
        histograms::weights_ui(ui, &row, actions);
        ui.add_space(theme::GAP);
        histograms::activations_ui(ui, view, &row, actions);
    });
}

fn empty_ui(ui: &mut Ui, document: &Document) {
    ui.label(theme::caption("Inspector"));
    ui.add_space(theme::SECTION);
    ui.label(RichText::new("Select a layer to see its weights and decide").strong());
    ui.add_space(theme::GAP);
    let keys = [
        ("Click, Ctrl, Shift", "select layers"),
        ("]  [", "walk the worst layers"),
        ("8  4  2  F  0", "int8, int4, int2, float16, float32"),
        ("S  C", "symmetry, granularity"),
        ("Ctrl+Z", "undo"),
    ];
    egui::Grid::new("keys").num_columns(2).spacing([16.0, 6.0]).show(ui, |ui| {
        for (key, what) in keys {
            ui.label(RichText::new(key).monospace());
            ui.label(RichText::new(what).weak());
            ui.end_row();
        }
    });
    ui.add_space(theme::SECTION);
    let list = |ui: &mut Ui, title: &str, ports: &[nibble_core::port::Port]| {
        ui.label(theme::caption(title));
        for port in ports.iter().take(12) {
            ui.horizontal_wrapped(|ui| {
                ui.label(&port.name);
                ui.label(RichText::new(format!("{} {}", port.element_type, port.shape_text())).weak());
            });
        }
        ui.add_space(theme::GAP);
    };
    list(ui, "Model inputs", &document.model.inputs);
    list(ui, "Model outputs", &document.model.outputs);
}

fn title_ui(ui: &mut Ui, view: &View<'_>, row: &Row<'_>) {
    ui.horizontal(|ui| {
        ui.label(theme::caption("Inspector"));
        if view.selection.len() > 1 {
            let others = view.selection.len() - 1;
            pill(ui, &format!("changes apply to {} more", format::layers(others)), theme::palette(ui).accent);
        }
    });
    ui.add(egui::Label::new(RichText::new(&row.layer.name).heading().strong()).truncate())
        .on_hover_text(&row.layer.name);
    ui.horizontal_wrapped(|ui| {
        ui.spacing_mut().item_spacing.x = 6.0;
        let shape = row.layer.weight().map(|weight| format::shape(&weight.shape)).unwrap_or_default();
        let mut parts = vec![row.layer.op.clone(), shape, format!("{} weights", format::count(row.layer.parameters))];
        if row.layer.groups > 1 {
            parts.push(format!("{} groups", row.layer.groups));
        }
        if row.layer.in_subgraph() {
            parts.push("in a subgraph".to_owned());
        }
        parts.retain(|part| !part.is_empty());
        ui.label(RichText::new(parts.join(" · ")).weak());
    });
    ui.add_space(theme::GAP);
}

/// The errors side by side, each with where it comes from.
fn errors_ui(ui: &mut Ui, row: &Row<'_>) {
    theme::card(ui).show(ui, |ui| {
        ui.set_width(ui.available_width());
        ui.columns(3, |columns| {
            let [weights, isolated, accumulated] = columns else { return };
            let value = histograms::weight_error(row);
            figure(
                weights,
                "Weights",
                value,
                Source::Predicted,
                "Signal to quantization noise of the weights themselves",
            );
            let both = if row.document.stats.is_some() { row.isolated() } else { Value::None };
            figure(
                isolated,
                "Isolated",
                both,
                Source::Predicted,
                "At the layer's own output, only this layer quantized",
            );
            let measured = row.accumulated();
            let source = if measured.is_some_and(|(_, stale)| stale) { Source::Stale } else { Source::Measured };
            let value = measured.map_or(Value::None, |(db, _)| Value::Known(db));
            figure(accumulated, "Accumulated", value, source, "At the layer's output with the whole plan in force");
        });
        if row.document.stats.is_none() {
            ui.label(RichText::new("Calibrate to see the isolated error").weak());
        } else if let Value::Known(isolated) = row.document.results.isolated(row.index, &row.pick.choice) {
            let parts = [
                ("weights only", format::decibels(isolated.weights_db)),
                ("activations only", format::decibels(isolated.activations_db)),
            ];
            let parts: Vec<String> = parts
                .iter()
                .filter(|(_, db)| db.is_finite())
                .map(|(name, db)| format!("{name} {}", format::db(*db)))
                .collect();
            if !parts.is_empty() {
                ui.label(RichText::new(format!("Isolated: {}", parts.join(" · "))).weak());
            }
        }
        ui.horizontal_wrapped(|ui| {
            pill(ui, format::verdict(row.pick.verdict), theme::verdict(ui, row.pick.verdict));
            ui.label(format::form(row.pick.form));
            ui.label(RichText::new(&row.pick.reason).weak());
        });
        if !row.pick.departure.is_empty() {
            ui.label(RichText::new(&row.pick.departure).color(theme::palette(ui).warning));
        }
    });
}

fn figure(ui: &mut Ui, title: &str, value: Value<f64>, source: Source, about: &str) {
    ui.spacing_mut().item_spacing.y = 2.0;
    ui.label(RichText::new(title).weak()).on_hover_text(about);
    let (text, color) = match value {
        Value::Known(db) if db == f64::INFINITY => ("exact".to_owned(), theme::palette(ui).weak),
        Value::Known(db) => (format::db(db), theme::sqnr(ui, db)),
        Value::Pending => (format::PENDING.to_owned(), theme::palette(ui).weak),
        Value::None => (format::NONE.to_owned(), theme::palette(ui).weak),
    };
    let label = ui.label(RichText::new(&text).size(19.0).color(color));
    field::spoken(ui, &label, format!("{title} error: {text}"));
    if matches!(value, Value::Known(_)) {
        badge(ui, source);
    }
}
