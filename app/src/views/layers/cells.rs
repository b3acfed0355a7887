//! What stands in each cell.

use eframe::egui::{self, Color32, Label, RichText, Ui, Vec2};
use nibble_core::plan::Precision;

use super::columns::{Column, Row};
use crate::results::Value;
use crate::widgets::badge::pill;
use crate::widgets::field;
use crate::widgets::sparkline::sparkline;
use crate::{format, theme};

/// Width of a letter of the body font, on average.
const LETTER: f32 = 7.0;

/// Draws one cell. Text in cells is not selectable, so that clicks reach the row.
pub fn cell_ui(ui: &mut Ui, row: &Row<'_>, column: Column) {
    let palette = theme::palette(ui);
    let able = row.layer.quantizable();
    let integer = row.choice.is_integer();
    let word = |ui: &mut Ui, text: String, applies: bool| {
        let color = if able && applies { palette.text } else { palette.weak.gamma_multiply(0.7) };
        text_ui(ui, if able && applies { text } else { format::NONE.to_owned() }, color);
    };
    match column {
        Column::Index => text_ui(ui, (row.index + 1).to_string(), palette.weak),
        Column::Name => {
            // Long names are told apart by their ends.
            let letters = (ui.available_width() / LETTER) as usize;
            let text = RichText::new(format::tail(&row.layer.name, letters)).color(palette.text);
            ui.add(Label::new(text).selectable(false).truncate()).on_hover_text(&row.layer.name);
        }
        Column::Op => text_ui(ui, row.layer.op.clone(), palette.weak),
        Column::Shape => {
            let shape = row.layer.weight().map_or_else(|| format::NONE.to_owned(), |w| format::shape(&w.shape));
            text_ui(ui, shape, palette.weak);
        }
        Column::Parameters => text_ui(ui, format::count(row.layer.parameters), palette.weak),
        Column::Weights => {
            if let Some(facts) = row.document.results.facts(row.index) {
                let size = Vec2::new(54.0, 14.0);
                sparkline(ui, size, &facts.spark, palette.weights.gamma_multiply(0.75), "Weights");
            } else if able {
                text_ui(ui, format::PENDING, palette.weak);
            }
        }
        Column::Precision => {
            if let Some(existing) = row.existing() {
                text_ui(ui, existing.weights.clone(), palette.weak);
            } else if able {
                precision_ui(ui, row.choice.precision);
            } else {
                text_ui(ui, format::NONE, palette.weak);
            }
        }
        Column::Repair => repair_ui(ui, row),
        Column::Symmetry if row.existing().is_some() => {
            text_ui(ui, row.existing().map(|existing| existing.symmetry.to_string()).unwrap_or_default(), palette.weak);
        }
        Column::Granularity if row.existing().is_some() => {
            let text = row.existing().map(|existing| existing.granularity.to_string());
            text_ui(ui, text.unwrap_or_default(), palette.weak);
        }
        Column::Symmetry => word(ui, row.choice.symmetry.to_string(), integer),
        Column::Granularity => word(ui, row.choice.granularity.to_string(), integer),
        Column::Clip => word(ui, clip_word(&row.choice.clip), integer),
        Column::Mode => word(ui, row.choice.mode.to_string(), integer),
        Column::WeightSqnr => value_ui(ui, row.weight_sqnr()),
        Column::Isolated => value_ui(ui, row.isolated()),
        Column::WeightsOnly => value_ui(ui, row.isolated_part(|isolated| isolated.weights_db)),
        Column::ActivationsOnly => value_ui(ui, row.isolated_part(|isolated| isolated.activations_db)),
        Column::Activation => word(ui, row.choice.activation.to_string(), integer),
        Column::ActivationClip => word(ui, clip_word(&row.choice.activation_clip), row.choice.is_static()),
        Column::Accumulated => match row.accumulated() {
            Some((db, stale)) => {
                let color = if stale { palette.weak } else { theme::sqnr(ui, db) };
                text_ui(ui, format::db(db), color);
            }
            None => text_ui(ui, format::NONE, palette.weak),
        },
        Column::Form if !able => text_ui(ui, row.layer.reason.clone(), palette.weak),
        Column::Form => {
            let text = format!("{} · {}", format::verdict(row.pick.verdict), format::form(row.pick.form));
            text_ui(ui, text, theme::verdict(ui, row.pick.verdict));
        }
        Column::Size => {
            let (before, after) = row.document.layer_bytes(row.index);
            let text = if before == after {
                format::bytes(before)
            } else {
                format!("{} → {}", format::bytes(before), format::bytes(after))
            };
            text_ui(ui, text, palette.weak);
        }
    }
}

/// The word for a clip, short enough for a cell.
pub fn clip_word(clip: &nibble_core::plan::Clip) -> String {
    match clip {
        nibble_core::plan::Clip::Manual { .. } => "by hand".to_owned(),
        clip => clip.to_string(),
    }
}

fn precision_ui(ui: &mut Ui, precision: Precision) {
    let color = theme::precision(ui, precision);
    let (rect, _) = ui.allocate_exact_size(Vec2::new(8.0, 8.0), egui::Sense::hover());
    ui.painter().rect_filled(rect, 2.0, color);
    text_ui(ui, precision.word(), color);
}

/// Pills for what was done to the weights.
fn repair_ui(ui: &mut Ui, row: &Row<'_>) {
    let palette = theme::palette(ui);
    ui.spacing_mut().item_spacing.x = 3.0;
    if row.document.is_scaled(row.index) {
        let shown = pill(ui, "scaled", palette.activations)
            .on_hover_text("Ranges were divided anew between its activations and its weights, before rounding");
        field::spoken(ui, &shown, format!("{} is scaled", row.layer.name));
    }
    if let Some(repair) = row.document.repair(row.index) {
        let gain = repair.held_back.map_or(String::new(), |gain| {
            format!(": its output {} → {}", format::db(gain.before_db), format::db(gain.after_db))
        });
        let data = if repair.data_free { ", without data" } else { "" };
        let text = format!("Repaired by {}{data}{gain}", repair.method);
        let shown = pill(ui, repair.method.word(), palette.good).on_hover_text(text);
        field::spoken(ui, &shown, format!("{} is repaired by {}", row.layer.name, repair.method));
    } else if let Some(rounding) = row.document.missing_repair(row.index) {
        let text =
            format!("The plan asks for {rounding} and does not have it: it is rounded to nearest. Repair it again");
        let shown = pill(ui, &format!("no {rounding}"), palette.warning).on_hover_text(text);
        field::spoken(ui, &shown, format!("{} lacks its repair by {rounding}", row.layer.name));
    }
}

fn value_ui(ui: &mut Ui, value: Value<f64>) {
    let palette = theme::palette(ui);
    match value {
        Value::Known(db) if db == f64::INFINITY => text_ui(ui, "exact", palette.weak),
        Value::Known(db) if db.is_nan() => text_ui(ui, format::NONE, palette.weak),
        Value::Known(db) => text_ui(ui, format::db(db), theme::sqnr(ui, db)),
        Value::Pending => text_ui(ui, format::PENDING, palette.weak),
        Value::None => text_ui(ui, format::NONE, palette.weak),
    }
}

fn text_ui(ui: &mut Ui, text: impl Into<String>, color: Color32) {
    ui.add(Label::new(RichText::new(text).color(color)).selectable(false).truncate());
}
