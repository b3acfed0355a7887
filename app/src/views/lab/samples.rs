//! The samples that set ranges, those that widen them most first.

use eframe::egui::{self, RichText, Sense, Ui};
use egui_extras::{Column, TableBuilder};
use nibble_core::calibrate::lab::Setter;
use nibble_core::stats::SampleId;

use crate::document::Document;
use crate::edit::{Action, Edit};
use crate::jobs::Examined;
use crate::theme;

/// Draws the list; a click on a sample chooses it, a second one chooses none.
pub fn samples_ui(
    ui: &mut Ui,
    document: &Document,
    examined: &Examined,
    chosen: &mut Option<SampleId>,
    actions: &mut Vec<Action>,
) {
    let lab = &examined.lab;
    let outliers = lab.outliers().count();
    ui.horizontal(|ui| {
        ui.label(theme::caption("Samples that set ranges"));
        let text = match outliers {
            0 => "no outliers".to_owned(),
            1 => "1 outlier".to_owned(),
            many => format!("{many} outliers"),
        };
        let palette = theme::palette(ui);
        let color = if outliers == 0 { palette.weak } else { palette.warning };
        ui.label(RichText::new(text).color(color)).on_hover_text(
            "An outlier has values beyond the outer fence of all samples (upper quartile plus three times the distance \
             of the quartiles) that make a range at least a quarter wider",
        );
    });
    super::tighten(ui);
    TableBuilder::new(ui)
        .id_salt("lab samples")
        .sense(Sense::click())
        .column(Column::remainder().at_least(90.0).clip(true))
        .column(Column::exact(34.0))
        .column(Column::exact(40.0))
        .column(Column::exact(70.0))
        .header(20.0, |mut header| {
            for (title, about) in [
                ("Sample", "Click to list what it sets"),
                ("Ends", "Ends of ranges that no other sample reaches"),
                ("dB", "Rounding noise that its ends cost, on the average of all tensors"),
                ("", ""),
            ] {
                header.col(|ui| _ = ui.label(RichText::new(title).weak()).on_hover_text(about));
            }
        })
        .body(|body| {
            body.rows(theme::ROW, lab.setters.len(), |mut row| {
                let Some(setter) = lab.setters.get(row.index()) else { return };
                row.set_selected(*chosen == Some(setter.sample));
                let name = examined.name(setter.sample);
                row.col(|ui| name_ui(ui, examined, setter, &name, chosen));
                row.col(|ui| _ = ui.label(setter.effects.len().to_string()));
                row.col(|ui| _ = ui.label(format!("{:.2}", setter.cost_db)));
                row.col(|ui| leave_out_ui(ui, document, setter.sample, name, actions));
                if row.response().clicked() {
                    *chosen = Some(setter.sample).filter(|sample| *chosen != Some(*sample));
                }
            });
        });
}

fn name_ui(ui: &mut Ui, examined: &Examined, setter: &Setter, name: &str, chosen: &mut Option<SampleId>) {
    let outlier = setter.is_outlier();
    let mut text = RichText::new(if outlier { format!("{name} · outlier") } else { name.to_owned() });
    if outlier {
        text = text.color(theme::palette(ui).warning);
    }
    let button = egui::Button::selectable(*chosen == Some(setter.sample), text).truncate();
    let response = ui.add(button).accessible_name(format!("Ranges set by {name}"));
    if response.clicked() {
        *chosen = Some(setter.sample).filter(|sample| *chosen != Some(*sample));
    }
    let about = if outlier { examined.lab.outlier_text(setter, name) } else { name.to_owned() };
    response.on_hover_text(about);
}

fn leave_out_ui(ui: &mut Ui, document: &Document, sample: SampleId, name: String, actions: &mut Vec<Action>) {
    let refusal = match () {
        () if document.left_out().contains(&sample) => "It is left out already; calibration runs again",
        () if document.calibrated_with.is_none() => "Wait until calibration has ended",
        () => "",
    };
    let button = egui::Button::new("Leave out").small();
    let response = ui.add_enabled(refusal.is_empty(), button).accessible_name(format!("Leave out {name}"));
    let about =
        format!("Calibrate without it; undo takes that back. The command line has --leave-out {}", sample.sample);
    if response.on_hover_text(about).on_disabled_hover_text(refusal).clicked() {
        actions.push(Edit::LeaveOut { sample, name, out: true }.into());
    }
}
