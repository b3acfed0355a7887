//! What repair is in force for the layer, and the way to one.

use eframe::egui::{RichText, Ui};

use super::super::View;
use super::super::layers::Row;
use super::super::repair::menu_ui;
use crate::edit::{Action, Edit};
use crate::widgets::badge::pill;
use crate::{format, theme};

/// Draws the card.
pub fn repair_ui(ui: &mut Ui, view: &View<'_>, row: &Row<'_>, actions: &mut Vec<Action>) {
    let palette = theme::palette(ui);
    theme::card(ui).show(ui, |ui| {
        ui.set_width(ui.available_width());
        ui.horizontal_wrapped(|ui| {
            ui.label(theme::caption("Rounding"));
            if row.document.is_scaled(row.index) {
                pill(ui, "scaled", palette.activations)
                    .on_hover_text("Ranges were divided anew between its activations and its weights, before rounding");
            }
            match (row.document.repair(row.index), row.document.missing_repair(row.index)) {
                (Some(repair), _) => {
                    pill(ui, repair.method.word(), palette.good);
                    if repair.data_free {
                        pill(ui, "no data", palette.warning).on_hover_text("Made from the weights alone");
                    }
                    if let Some(gain) = repair.held_back {
                        let text = format!("{} → {}", format::db(gain.before_db), format::db(gain.after_db));
                        ui.label(text).on_hover_text("Its own output on samples held back when it was repaired");
                    }
                    if repair.bias.is_some() {
                        ui.label(RichText::new("bias corrected").weak());
                    }
                }
                (None, Some(rounding)) => {
                    let text = format!("{rounding} is asked for and not there: rounded to nearest");
                    ui.label(RichText::new(text).color(palette.warning));
                }
                (None, None) => {
                    ui.label(RichText::new("to nearest").weak());
                }
            }
        });
        ui.horizontal_wrapped(|ui| {
            let whom = if view.selection.len() > 1 { "Repair the selection…" } else { "Repair this layer…" };
            ui.menu_button(whom, |ui| menu_ui(ui, view.able, actions));
            if ui.button("Show repairs").clicked() {
                actions.push(Edit::ShowRepair.into());
            }
            let repaired: Vec<usize> =
                view.selection.iter().filter(|&layer| row.document.repair(layer).is_some()).collect();
            if !repaired.is_empty() && ui.button("Round to nearest again").clicked() {
                actions.push(Edit::DropRepair(repaired).into());
            }
        });
    });
}
