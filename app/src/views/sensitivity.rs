//! What every candidate of every layer would do to the model's output, as a heat table; and where the noise of the present
//! plan comes from. A click selects a layer, a double click gives it the candidate.

use std::collections::HashMap;

use eframe::egui::{
    self, Align2, CornerRadius, FontId, Rect, Response, RichText, ScrollArea, Sense, Stroke, StrokeKind, Ui,
    WidgetInfo, pos2,
};
use egui_extras::{Column, TableBuilder};
use nibble_core::error::Sqnr;
use nibble_core::plan::Precision;
use nibble_core::predict::{Noise, NoiseSource, Part};

use super::{View, ViewState};
use crate::document::Document;
use crate::edit::{Action, Edit};
use crate::heat::Cell;
use crate::jobs::Learnt;
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
    /// By what one candidate (a column) would do, the worst first.
    Candidate(usize),
}

/// What the table remembers.
#[derive(Clone, Copy, Debug, Default)]
pub struct SensitivityState {
    order: Order,
    /// Whether the cells are in dB although the output gives classes.
    in_db: bool,
    /// Layer and column of the cell last clicked: Enter chooses it.
    cell: Option<(usize, usize)>,
}

/// Noise power by cause.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    weights: Noise,
    activations: Noise,
}

impl Share {
    fn sum(self) -> f64 {
        self.weights.total + self.activations.total
    }

    fn add(&mut self, part: Part, noise: Noise) {
        *(if part == Part::Weights { &mut self.weights } else { &mut self.activations }) += noise;
    }

    /// Every cause with its word and its power; they add up to the sum.
    fn causes(self) -> [(&'static str, f64); 4] {
        [
            ("rounding weights", self.weights.rounded()),
            ("clipping weights", self.weights.clipped),
            ("rounding activations", self.activations.rounded()),
            ("clipping activations", self.activations.clipped),
        ]
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
    let mut all = Share { activations: between, ..Share::default() };
    for share in &shares {
        all.weights += share.weights;
        all.activations += share.activations;
    }
    let heat = &learnt.heat;
    blame_ui(ui, all, between, heat.diverges(), &mut state.sensitivity);
    ui.add_space(theme::GAP);
    let by_divergence = heat.diverges() && !state.sensitivity.in_db;
    let mut rows: Vec<usize> = state.layers.order().iter().copied().filter(|&row| heat.has(row)).collect();
    let noise = |row: usize| match state.sensitivity.order {
        Order::Table => None,
        Order::Noise => shares.get(row).map(|share| share.sum()),
        Order::Candidate(column) => {
            heat.cell(row, column).and_then(|cell| if by_divergence { cell.divergence } else { Some(cell.noise) })
        }
    };
    if state.sensitivity.order != Order::Table {
        let rank = |row: usize| noise(row).unwrap_or(f64::NEG_INFINITY);
        rows.sort_by(|&a, &b| rank(b).total_cmp(&rank(a)).then(a.cmp(&b)));
    }
    let columns: Vec<usize> =
        (0..heat.columns.len()).filter(|&column| rows.iter().any(|&row| heat.cell(row, column).is_some())).collect();
    choose_by_key(ui, document, learnt, state.sensitivity.cell, actions);
    let state = &mut state.sensitivity;
    ScrollArea::horizontal().auto_shrink(false).show(ui, |ui| {
        // A bar that floats stays at the visible edge; a solid one would scroll away to the right with the columns.
        ui.spacing_mut().scroll = egui::style::ScrollStyle::thin();
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
                    "What the layer adds to the noise at the output in the present plan: weights, then its input; \
                     what is clipped is drawn darker than what is rounded",
                );
            });
            for &column in &columns {
                header.col(|ui| heading_ui(ui, learnt, column, &mut state.order));
            }
        });
        table.body(|body| {
            body.rows(theme::ROW, rows.len(), |mut line| {
                let Some(&row) = rows.get(line.index()) else { return };
                line.col(|ui| name_ui(ui, view, document, row, actions));
                line.col(|ui| share_ui(ui, shares.get(row).copied().unwrap_or_default(), all.sum()));
                for &column in &columns {
                    let clicked = &mut state.cell;
                    line.col(|ui| cell_ui(ui, document, learnt, by_divergence, (row, column), clicked, actions));
                }
            });
        });
    });
}

/// The noise of the whole plan by cause, how the rows are ordered, and what the cells are.
fn blame_ui(ui: &mut Ui, all: Share, between: Noise, diverges: bool, state: &mut SensitivityState) {
    ui.horizontal_wrapped(|ui| {
        for (value, title) in [(Order::Noise, "Most noise first"), (Order::Table, "As the layer table")] {
            let response = ui.selectable_label(state.order == value, title);
            if response.accessible_name(format!("Order: {title}")).clicked() {
                state.order = value;
            }
        }
        if diverges {
            ui.label(RichText::new("·").weak());
            for (in_db, title, about) in [
                (false, "KL", "Cells are Kullback–Leibler divergences of the class distribution in nats, to second order"),
                (true, "SQNR", "Cells are signal to noise ratios of the output in dB"),
            ] {
                let response = ui.selectable_label(state.in_db == in_db, title).on_hover_text(about);
                if response.accessible_name(format!("Cells: {title}")).clicked() {
                    state.in_db = in_db;
                }
            }
        }
        badge(ui, Source::Predicted);
        let total = all.sum();
        if total <= 0.0 {
            return;
        }
        let [a, b, c, d] = all.causes().map(|(_, noise)| format::percent(noise / total));
        let text = format!("Noise: weights rounded {a}, clipped {b} · activations rounded {c}, clipped {d}");
        let label = ui.label(RichText::new(text).weak());
        label.on_hover_text(format!(
            "Predicted noise power at the output by cause, adding up to 100 %. {} of it comes from activations that enter \
             no layer",
            format::percent(between.total / total)
        ));
    });
}

fn heading_ui(ui: &mut Ui, learnt: &Learnt, column: usize, order: &mut Order) {
    let Some((choice, [first, second])) = learnt.heat.columns.get(column) else { return };
    let sorted = *order == Order::Candidate(column);
    let color = if sorted { theme::palette(ui).accent } else { theme::palette(ui).text };
    let (rect, response) = ui.allocate_exact_size(egui::vec2(CELL - 4.0, 30.0), Sense::click());
    let font = FontId::proportional(11.0);
    for (top, text, color) in [(1.0, first, color), (15.0, second, theme::palette(ui).weak)] {
        ui.painter().text(rect.min + egui::vec2(1.0, top), Align2::LEFT_TOP, text, font.clone(), color);
    }
    response
        .widget_info(|| WidgetInfo::labeled(egui::accesskit::Role::Button, true, format!("Sort by {first} {second}")));
    if response.clicked() {
        *order = if sorted { Order::Noise } else { Order::Candidate(column) };
    }
    response.on_hover_text(format!("{}\nClick to put the layers that it hurts most first", format::choice(choice)));
}

/// The SQNR in dB that is as good or bad as a divergence: 0.03 nats as 15 dB, a thousandth as 30 dB.
fn nats_as_db(nats: f64) -> f64 {
    -10.0 * nats.max(1e-9).log10()
}

/// Enter gives the layer of the clicked cell its candidate, while nothing else has the keys.
fn choose_by_key(
    ui: &Ui,
    document: &Document,
    learnt: &Learnt,
    cell: Option<(usize, usize)>,
    actions: &mut Vec<Action>,
) {
    let Some((layer, column)) = cell else { return };
    let free = ui.ctx().memory(|memory| memory.focused().is_none());
    if free && ui.input(|input| input.key_pressed(egui::Key::Enter)) {
        choose(document, learnt, layer, column, actions);
    }
}

fn choose(document: &Document, learnt: &Learnt, layer: usize, column: usize, actions: &mut Vec<Action>) {
    let in_force = document.asked(layer);
    if let Some(cell) = learnt.heat.cell(layer, column).filter(|cell| cell.choice != in_force) {
        actions.push(Edit::Choose { layer, choice: cell.choice }.into());
    }
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

/// What each layer adds in the present plan, and what tensors add that enter no layer.
fn shares(document: &Document) -> (Vec<Share>, Noise) {
    let layers = &document.model.layers;
    let mut shares = vec![Share::default(); layers.len()];
    let mut between = Noise::default();
    let Some(forecast) = document.forecast.as_deref() else { return (shares, between) };
    let by_name: HashMap<&str, usize> = layers.iter().enumerate().map(|(i, layer)| (layer.name.as_str(), i)).collect();
    let mut by_input: HashMap<&str, Vec<usize>> = HashMap::new();
    for (index, layer) in layers.iter().enumerate() {
        by_input.entry(&layer.input).or_default().push(index);
    }
    let sources = &forecast.outlook.parts.sources;
    for NoiseSource { part, name, noise } in sources.iter().filter(|source| source.noise.total.is_finite()) {
        let own: &[usize] = match part {
            Part::Weights | Part::Kernel => by_name.get(name.as_str()).map(std::slice::from_ref).unwrap_or_default(),
            Part::Activation => by_input.get(name.as_str()).map(Vec::as_slice).unwrap_or_default(),
        };
        if own.is_empty() {
            between += *noise;
        }
        // An input that several layers read is shared between them.
        for &index in own {
            if let Some(share) = shares.get_mut(index) {
                share.add(*part, *noise * (1.0 / own.len() as f64));
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
    ui.painter().rect_filled(track, CornerRadius::same(2), palette.control);
    // What is clipped stands out from what is rounded by the edge that it is drawn with, too.
    let clipped = Stroke::new(1.0, palette.text);
    let mut left = track.left();
    let colors = [palette.weights, palette.weights, palette.activations, palette.activations];
    for (at, ((_, noise), color)) in share.causes().into_iter().zip(colors).enumerate() {
        let width = track.width() * (noise / total).clamp(0.0, 1.0) as f32;
        let part = Rect::from_min_size(pos2(left, track.top()), egui::vec2(width, track.height()));
        ui.painter().rect_filled(part, CornerRadius::ZERO, if at % 2 == 1 { color.gamma_multiply(0.5) } else { color });
        if at % 2 == 1 && width > 3.0 {
            ui.painter().rect_stroke(part, CornerRadius::ZERO, clipped, StrokeKind::Inside);
        }
        left += width;
    }
    ui.painter().text(
        pos2(rect.left() + figure - 6.0, rect.center().y),
        Align2::RIGHT_CENTER,
        format!("{:.1} %", share.sum() / total * 100.0),
        FontId::proportional(12.0),
        palette.text,
    );
    let causes = share.causes().map(|(cause, noise)| format!("{cause} {}", format::percent(noise / total)));
    response.on_hover_text(causes.join("\n"));
}

fn cell_ui(
    ui: &mut Ui,
    document: &Document,
    learnt: &Learnt,
    by_divergence: bool,
    (row, column): (usize, usize),
    clicked: &mut Option<(usize, usize)>,
    actions: &mut Vec<Action>,
) {
    let palette = theme::palette(ui);
    let (rect, response) = ui.allocate_exact_size(egui::vec2(CELL - 4.0, theme::ROW - 2.0), Sense::click());
    let Some(Cell { choice, noise, of_weights, divergence }) = learnt.heat.cell(row, column) else {
        response.on_hover_text("No form honours this for the layer");
        return;
    };
    let db = Sqnr::from_sums(learnt.signal, noise).db().filter(|_| noise.is_finite());
    let divergence = divergence.filter(|_| by_divergence);
    let known = if by_divergence {
        divergence.map(|nats| (format::nats(nats), nats_as_db(nats)))
    } else {
        db.map(|db| (format!("{db:.1}"), db))
    };
    let (text, unit) =
        (known.as_ref().map_or("?", |(text, _)| text.as_str()), if by_divergence { "nats" } else { "dB" });
    let name = document.model.layers.get(row).map(|layer| layer.name.as_str()).unwrap_or_default();
    response.widget_info(|| {
        let label = format!("{name} as {}: {text} {unit}", format::choice(&choice));
        WidgetInfo::labeled(egui::accesskit::Role::Button, true, label)
    });
    let color = known.as_ref().map_or(palette.weak, |(_, db)| theme::sqnr(ui, *db));
    // The worse, the stronger.
    let strength = known.as_ref().map_or(0.1, |(_, db)| (1.0 - (db / 60.0).clamp(0.0, 1.0)) * 0.6 + 0.08) as f32;
    ui.painter().rect_filled(rect, CornerRadius::same(2), color.gamma_multiply(strength));
    let chosen =
        document.pick(row).is_some_and(|pick| pick.choice == choice && pick.choice.precision != Precision::Float32);
    let last = *clicked == Some((row, column));
    if chosen || last || response.hovered() {
        let stroke = Stroke::new(if chosen { 2.0 } else { 1.0 }, if chosen { palette.accent } else { palette.text });
        ui.painter().rect_stroke(rect, CornerRadius::same(2), stroke, StrokeKind::Inside);
    }
    ui.painter().text(rect.center(), Align2::CENTER_CENTER, text, FontId::proportional(12.0), palette.text);
    if response.double_clicked() {
        choose(document, learnt, row, column, actions);
    } else {
        select(ui, &response, row, actions);
    }
    if response.clicked() {
        *clicked = Some((row, column));
    }
    response.on_hover_ui(|ui| {
        ui.label(RichText::new(format::choice(&choice)).strong());
        ui.label(format!("{text} {unit} at {} with only this layer so", learnt.output));
        if noise.is_finite() && noise > 0.0 {
            ui.label(format!("{} of the noise from the weights", format::percent(of_weights / noise)));
        }
        ui.label(RichText::new("Double click or Enter chooses it").weak());
    });
}
