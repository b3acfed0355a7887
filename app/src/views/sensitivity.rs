//! What every candidate of every layer would do to the model's output, as a heat table; and where the noise of the present
//! plan comes from. A click selects a layer, a double click gives it the candidate.

use std::collections::HashMap;

use eframe::egui::{
    self, Align2, CornerRadius, FontId, Rect, Response, RichText, ScrollArea, Sense, Stroke, StrokeKind, Ui,
    WidgetInfo, pos2,
};
use egui_extras::{Column, TableBuilder};
use nibble_core::error::Sqnr;
use nibble_core::plan::{Choice, Clip, Granularity, Mode, Precision, Symmetry};
use nibble_core::predict::Part;

use super::{View, ViewState};
use crate::document::Document;
use crate::edit::{Action, Edit};
use crate::jobs::{Forecast, Learnt};
use crate::selection::Click;
use crate::widgets::badge::{Source, badge};
use crate::{format, theme};

/// Width of the names, of the shares, and of one candidate.
const NAME: f32 = 190.0;
const SHARE: f32 = 130.0;
const CELL: f32 = 76.0;

/// How the rows are ordered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// What adds most noise first.
    #[default]
    Noise,
    /// As in the layer table.
    Table,
}

/// Noise power of a layer in the present plan.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    weights: f64,
    activations: f64,
}

impl Share {
    fn sum(self) -> f64 {
        self.weights + self.activations
    }
}

/// Draws the table.
pub fn sensitivity_ui(
    ui: &mut Ui,
    view: &View<'_>,
    document: &Document,
    state: &mut ViewState,
    actions: &mut Vec<Action>,
) {
    let Some(learnt) = &document.learnt else {
        missing_ui(ui, view, document);
        return;
    };
    let (shares, between) = shares(document);
    let total: f64 = shares.iter().map(|share| share.sum()).sum::<f64>() + between;
    ui.horizontal(|ui| {
        for (value, title) in [(Order::Noise, "Most noise first"), (Order::Table, "As the layer table")] {
            let response = ui.selectable_label(state.sensitivity == value, title);
            if response.accessible_name(format!("Order: {title}")).clicked() {
                state.sensitivity = value;
            }
        }
        badge(ui, Source::Predicted);
        if total > 0.0 {
            let part = |noise: f64| format::percent(noise / total);
            let weights: f64 = shares.iter().map(|share| share.weights).sum();
            let activations: f64 = shares.iter().map(|share| share.activations).sum();
            ui.label(
                RichText::new(format!(
                    "noise of the plan: {} from weights, {} from layer inputs, {} from what lies between",
                    part(weights),
                    part(activations),
                    part(between)
                ))
                .weak(),
            );
        }
    });
    ui.add_space(theme::GAP);
    let mut rows: Vec<usize> =
        state.layers.order().iter().copied().filter(|&row| !candidates(learnt, row).is_empty()).collect();
    if state.sensitivity == Order::Noise {
        let noise = |row: usize| shares.get(row).copied().unwrap_or_default().sum();
        rows.sort_by(|&a, &b| noise(b).total_cmp(&noise(a)).then(a.cmp(&b)));
    }
    let columns = columns(learnt, &rows);
    ScrollArea::horizontal().auto_shrink(false).show(ui, |ui| {
        let mut table = TableBuilder::new(ui)
            .id_salt("sensitivity")
            .striped(false)
            .column(Column::exact(NAME).clip(true))
            .column(Column::exact(SHARE));
        for _ in &columns {
            table = table.column(Column::exact(CELL));
        }
        let table = table.header(32.0, |mut header| {
            header.col(|ui| _ = ui.label(RichText::new("Layer").weak()));
            header.col(|ui| {
                ui.label(RichText::new("Share of noise").weak()).on_hover_text(
                    "What the layer adds to the noise at the output in the present plan: weights, then its input",
                );
            });
            for choice in &columns {
                header.col(|ui| {
                    let (first, second) = heading(choice);
                    ui.vertical(|ui| {
                        ui.spacing_mut().item_spacing.y = 0.0;
                        ui.label(RichText::new(first).small().strong());
                        ui.label(RichText::new(second).small().weak());
                    })
                    .response
                    .on_hover_text(format::choice(choice));
                });
            }
        });
        table.body(|body| {
            body.rows(theme::ROW, rows.len(), |mut line| {
                let Some(&row) = rows.get(line.index()) else { return };
                line.col(|ui| name_ui(ui, view, document, row, actions));
                line.col(|ui| share_ui(ui, shares.get(row).copied().unwrap_or_default(), total));
                for column in &columns {
                    line.col(|ui| cell_ui(ui, document, learnt, row, column, actions));
                }
            });
        });
    });
}

/// What it takes to know.
pub fn missing_ui(ui: &mut Ui, view: &View<'_>, document: &Document) {
    ui.horizontal(|ui| {
        let text = match view.learning {
            Some(_) => "Learning what matters: a few samples go back through the model",
            None if document.cannot_learn => "Nothing could be learnt; the problems say why",
            None if document.calibrated_with.is_some() => "It is learnt what matters as soon as nothing else runs",
            None => "Calibrate first: what matters is learnt from the same samples",
        };
        if view.learning.is_some() {
            ui.spinner();
        }
        ui.label(RichText::new(text).weak());
    });
}

/// The candidates of a layer with what each adds to the noise.
fn candidates(learnt: &Learnt, layer: usize) -> Vec<(Choice, f64)> {
    let (choices, offers) = (learnt.market.choices.get(layer), learnt.market.offers.get(layer));
    let each = choices.into_iter().flatten().zip(offers.into_iter().flatten());
    each.filter(|(choice, _)| choice.precision != Precision::Float32).map(|(c, offer)| (*c, offer.noise)).collect()
}

/// Every candidate of the layers shown, each once. Those with the same heading differ only in what does nothing for them.
fn columns(learnt: &Learnt, rows: &[usize]) -> Vec<Choice> {
    let mut found: Vec<Choice> = Vec::new();
    for &row in rows {
        for (choice, _) in candidates(learnt, row) {
            if !found.iter().any(|known| heading(known) == heading(&choice)) {
                found.push(choice);
            }
        }
    }
    let rank = |choice: &Choice| (choice.precision, choice.mode, choice.granularity, choice.symmetry);
    found.sort_by_key(rank);
    found
}

/// A candidate in two short lines.
fn heading(choice: &Choice) -> (String, String) {
    if choice.precision == Precision::Float16 {
        return ("float16".to_owned(), String::new());
    }
    let mode = match choice.mode {
        Mode::Static => "static",
        Mode::Dynamic => "dynamic",
        Mode::WeightOnly => "weights",
    };
    let granularity = match choice.granularity {
        Granularity::PerTensor => "tensor".to_owned(),
        Granularity::PerChannel => "channel".to_owned(),
        Granularity::Block(size) => format!("block {size}"),
    };
    let symmetry = match choice.symmetry {
        Symmetry::Symmetric => "",
        Symmetry::Asymmetric => " asym",
    };
    let clip = match (choice.mode, choice.activation_clip) {
        (Mode::Static, Clip::Mse) => " mse",
        _ => "",
    };
    (format!("{} {mode}", choice.precision), format!("{granularity}{symmetry}{clip}"))
}

/// What each layer adds in the present plan, and what tensors add that enter no layer.
fn shares(document: &Document) -> (Vec<Share>, f64) {
    let layers = &document.model.layers;
    let mut shares = vec![Share::default(); layers.len()];
    let Some(Forecast { sources, .. }) = document.forecast.as_deref() else { return (shares, 0.0) };
    let by_name: HashMap<&str, usize> = layers.iter().enumerate().map(|(i, layer)| (layer.name.as_str(), i)).collect();
    let mut by_input: HashMap<&str, Vec<usize>> = HashMap::new();
    for (index, layer) in layers.iter().enumerate() {
        by_input.entry(&layer.input).or_default().push(index);
    }
    let mut between = 0.0;
    for (part, name, noise) in sources.iter().filter(|(.., noise)| noise.is_finite()) {
        let own: &[usize] = match part {
            Part::Weights | Part::Kernel => by_name.get(name.as_str()).map(std::slice::from_ref).unwrap_or_default(),
            Part::Activation => by_input.get(name.as_str()).map(Vec::as_slice).unwrap_or_default(),
        };
        if own.is_empty() {
            between += noise;
        }
        // An input that several layers read is shared between them.
        for &index in own {
            let each = noise / own.len() as f64;
            if let Some(share) = shares.get_mut(index) {
                *(if *part == Part::Weights { &mut share.weights } else { &mut share.activations }) += each;
            }
        }
    }
    (shares, between)
}

fn name_ui(ui: &mut Ui, view: &View<'_>, document: &Document, row: usize, actions: &mut Vec<Action>) {
    let Some(layer) = document.model.layers.get(row) else { return };
    let selected = view.selection.contains(row);
    let response = ui.selectable_label(selected, format::tail(&layer.name, 26)).on_hover_text(&layer.name);
    let response = response.accessible_name(format!("Sensitivity of {}", layer.name));
    select(ui, &response, row, actions);
}

fn select(ui: &Ui, response: &Response, row: usize, actions: &mut Vec<Action>) {
    if response.clicked() {
        let click = Click::from_modifiers(ui.input(|input| input.modifiers));
        let click = if click == Click::Range { Click::Toggle } else { click };
        actions.push(Edit::Click { layer: row, click }.into());
        actions.push(Edit::Reveal(row).into());
    }
}

fn share_ui(ui: &mut Ui, share: Share, total: f64) {
    let palette = theme::palette(ui);
    let (rect, response) = ui.allocate_exact_size(egui::vec2(SHARE - 8.0, theme::ROW), Sense::hover());
    if total <= 0.0 {
        return;
    }
    let figure = 46.0;
    let track = Rect::from_min_max(rect.min + egui::vec2(figure, 6.0), rect.max - egui::vec2(0.0, 6.0));
    let width = |noise: f64| track.width() * (noise / total).clamp(0.0, 1.0) as f32;
    let weights = Rect::from_min_size(track.min, egui::vec2(width(share.weights), track.height()));
    let activations =
        Rect::from_min_size(pos2(weights.right(), track.top()), egui::vec2(width(share.activations), track.height()));
    ui.painter().rect_filled(track, CornerRadius::same(2), palette.control);
    ui.painter().rect_filled(weights, CornerRadius::same(2), palette.weights);
    ui.painter().rect_filled(activations, CornerRadius::same(2), palette.activations);
    ui.painter().text(
        pos2(rect.left() + figure - 6.0, rect.center().y),
        Align2::RIGHT_CENTER,
        format!("{:.1} %", share.sum() / total * 100.0),
        FontId::proportional(12.0),
        palette.text,
    );
    response.on_hover_text(format!(
        "weights {}, input {}",
        format::percent(share.weights / total),
        format::percent(share.activations / total)
    ));
}

fn cell_ui(ui: &mut Ui, document: &Document, learnt: &Learnt, row: usize, column: &Choice, actions: &mut Vec<Action>) {
    let palette = theme::palette(ui);
    let (rect, response) = ui.allocate_exact_size(egui::vec2(CELL - 4.0, theme::ROW - 2.0), Sense::click());
    let found = candidates(learnt, row).into_iter().find(|(choice, _)| heading(choice) == heading(column));
    let Some((choice, noise)) = found else {
        response.on_hover_text("No form honours this for the layer");
        return;
    };
    let db = Sqnr::from_sums(learnt.signal, noise).db().filter(|_| noise.is_finite());
    let text = db.map_or("?".to_owned(), |db| format!("{db:.1}"));
    let name = document.model.layers.get(row).map(|layer| layer.name.clone()).unwrap_or_default();
    response.widget_info(|| {
        let label = format!("{name} as {}: {text} dB", format::choice(&choice));
        WidgetInfo::labeled(egui::accesskit::Role::Button, true, label)
    });
    let color = db.map_or(palette.weak, |db| theme::sqnr(ui, db));
    // The worse, the stronger.
    let strength = db.map_or(0.1, |db| (1.0 - (db / 60.0).clamp(0.0, 1.0)) * 0.6 + 0.08) as f32;
    ui.painter().rect_filled(rect, CornerRadius::same(2), color.gamma_multiply(strength));
    let chosen =
        document.pick(row).is_some_and(|pick| pick.choice == choice && pick.choice.precision != Precision::Float32);
    if chosen || response.hovered() {
        let stroke = Stroke::new(if chosen { 2.0 } else { 1.0 }, if chosen { palette.accent } else { palette.weak });
        ui.painter().rect_stroke(rect, CornerRadius::same(2), stroke, StrokeKind::Inside);
    }
    ui.painter().text(rect.center(), Align2::CENTER_CENTER, &text, FontId::proportional(12.0), palette.text);
    if response.double_clicked() {
        actions.push(Edit::Choose { layer: row, choice }.into());
    } else {
        select(ui, &response, row, actions);
    }
    response.on_hover_ui(|ui| {
        ui.label(RichText::new(format::choice(&choice)).strong());
        ui.label(format!("{text} dB at {} with only this layer so", learnt.output));
        ui.label(RichText::new("Double click to choose it").weak());
    });
}
