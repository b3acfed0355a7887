//! The tensors with their ends and who holds them: the most restless first, or those that the chosen sample sets.

use eframe::egui::{self, RichText, Sense, Ui};
use egui_extras::{Column, TableBuilder};
use nibble_core::calibrate::lab::{Effect, End, Tensor};

use super::LabState;
use crate::document::Document;
use crate::edit::{Action, Edit};
use crate::jobs::Examined;
use crate::selection::Click;
use crate::views::View;
use crate::{format, theme};

/// Draws the list; a click on a tensor selects the layers that read or make it.
pub fn tensors_ui(
    ui: &mut Ui,
    view: &View<'_>,
    document: &Document,
    examined: &Examined,
    state: &mut LabState,
    actions: &mut Vec<Action>,
) {
    let lab = &examined.lab;
    let setter = state.sample.and_then(|sample| lab.setters.iter().find(|setter| setter.sample == sample));
    let rows: Vec<(usize, Option<&Effect>)> = match setter {
        Some(setter) => setter.effects.iter().map(|effect| (effect.tensor, Some(effect))).collect(),
        None => {
            let mut rows: Vec<usize> = (0..lab.tensors.len()).collect();
            let restless = |at: usize| {
                let tensor = lab.tensors.get(at);
                tensor.and_then(|tensor| Some((tensor.settled.is_some(), tensor.curve.last()?.within)))
            };
            rows.sort_by(|&a, &b| restless(a).partial_cmp(&restless(b)).unwrap_or(std::cmp::Ordering::Equal));
            rows.into_iter().map(|at| (at, None)).collect()
        }
    };
    ui.horizontal(|ui| match setter {
        Some(setter) => {
            ui.label(theme::caption("Set by"));
            ui.label(RichText::new(format::tail(&examined.name(setter.sample), 24)).strong());
            if ui.small_button("All ranges").clicked() {
                state.sample = None;
            }
        }
        None => {
            ui.label(theme::caption("Ranges"));
            ui.label(RichText::new("those that move most first").weak());
        }
    });
    super::tighten(ui);
    let last = if setter.is_some() {
        ("Wider by", "How many times as wide the range is as without the sample")
    } else {
        ("Settled", "From how many samples on the range stays near that of all samples")
    };
    TableBuilder::new(ui)
        .id_salt("lab tensors")
        .sense(Sense::click())
        .column(Column::remainder().at_least(90.0).clip(true))
        .column(Column::exact(60.0))
        .column(Column::exact(60.0))
        .column(Column::exact(62.0))
        .header(20.0, |mut header| {
            for (title, about) in [
                ("Tensor", "Click to see its curve and select its layers"),
                ("Least", "The lower end; hover for the sample that sets it"),
                ("Most", "The upper end; hover for the sample that sets it"),
                last,
            ] {
                header.col(|ui| _ = ui.label(RichText::new(title).weak()).on_hover_text(about));
            }
        })
        .body(|body| {
            body.rows(theme::ROW, rows.len(), |mut row| {
                let Some(&(at, effect)) = rows.get(row.index()) else { return };
                let Some(tensor) = lab.tensors.get(at) else { return };
                let layers = examined.layers.get(at).map(Vec::as_slice).unwrap_or_default();
                let chosen = state.tensor.as_ref() == Some(&tensor.name);
                row.set_selected(chosen);
                let mut clicked = false;
                row.col(|ui| clicked = name_ui(ui, document, tensor, layers, chosen));
                for (end, is_upper) in [(tensor.low, false), (tensor.high, true)] {
                    let of_sample = effect.is_some_and(|effect| effect.is_upper == is_upper);
                    row.col(|ui| end_ui(ui, examined, end, of_sample));
                }
                row.col(|ui| last_ui(ui, tensor, effect));
                if clicked || row.response().clicked() {
                    state.tensor = Some(tensor.name.clone());
                    select(view, layers, actions);
                }
            });
        });
}

fn select(view: &View<'_>, layers: &[usize], actions: &mut Vec<Action>) {
    let selected = layers.len() == view.selection.len() && layers.iter().all(|&layer| view.selection.contains(layer));
    if selected {
        return;
    }
    for (at, &layer) in layers.iter().enumerate() {
        let click = if at == 0 { Click::Only } else { Click::Toggle };
        actions.push(Edit::Click { layer, click }.into());
    }
    actions.extend(layers.first().map(|&layer| Edit::Reveal(layer).into()));
}

fn name_ui(ui: &mut Ui, document: &Document, tensor: &Tensor, layers: &[usize], chosen: bool) -> bool {
    let button = egui::Button::selectable(chosen, format::tail(&tensor.name, 34)).truncate();
    let response = ui.add(button).accessible_name(format!("Range of {}", tensor.name));
    let clicked = response.clicked();
    response.on_hover_ui(|ui| {
        ui.label(RichText::new(&tensor.name).strong());
        let names =
            layers.iter().filter_map(|&layer| document.model.layers.get(layer)).map(|layer| layer.name.as_str());
        let names: Vec<&str> = names.collect();
        ui.label(if names.is_empty() { "no layer reads it".to_owned() } else { names.join(", ") });
    });
    clicked
}

fn end_ui(ui: &mut Ui, examined: &Examined, end: Option<End>, of_sample: bool) {
    let Some(end) = end else {
        ui.label(RichText::new("0").weak()).on_hover_text("All samples end at 0");
        return;
    };
    let text = RichText::new(figure(end.value));
    let response = ui.label(if of_sample { text.strong() } else { text });
    let name = examined.name(end.sample);
    response.on_hover_text(if end.is_set_alone() {
        format!("{} in {name}; {} in all others", end.value, end.others)
    } else {
        format!("{} in {name} and in others", end.value)
    });
}

fn last_ui(ui: &mut Ui, tensor: &Tensor, effect: Option<&Effect>) {
    let palette = theme::palette(ui);
    match (effect, tensor.settled) {
        (Some(effect), _) => {
            let text = RichText::new(format!("× {:.2}", effect.factor));
            ui.label(if effect.is_far_out { text.color(palette.warning) } else { text });
        }
        (None, Some(samples)) => _ = ui.label(format!("from {samples}")),
        (None, None) => {
            let within = tensor.curve.last().map_or(0.0, |point| point.within);
            let about = format!("{} of the sets as large as all come near", format::percent(within));
            ui.label(RichText::new("moves").color(palette.warning)).on_hover_text(about);
        }
    }
}

/// Three digits, whatever the size.
fn figure(value: f32) -> String {
    match value.abs() {
        size if !(1e-2..1e4).contains(&size) => format!("{value:.1e}"),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
