//! The clip range as two numbers to type, and the histogram as a file.

use std::fmt::Write;

use eframe::egui::{DragValue, Rect, RichText, Ui};

use crate::edit::{Action, Edit};
use crate::widgets::clip_histogram::Bin;

/// Low and high end as fields; returns the range typed. One number typed, or one drag, is one change.
pub fn range_ui(ui: &mut Ui, name: &str, clip: (f32, f32), symmetric: bool, refusal: &str) -> Option<(f32, f32)> {
    let mut typed = None;
    ui.horizontal(|ui| {
        ui.label(RichText::new("Range").small().weak());
        for high in [false, true] {
            let value = if high { clip.1 } else { clip.0 };
            let id = ui.scope_id().with((name, high));
            let mut edited: f32 = ui.data(|data| data.get_temp(id)).unwrap_or(value);
            let speed = f64::from((clip.1 - clip.0).abs() / 300.0).max(1e-9);
            let drag = DragValue::new(&mut edited).speed(speed).max_decimals(6).update_while_editing(false);
            let response = ui.add_enabled(refusal.is_empty(), drag).on_disabled_hover_text(refusal);
            let end = if high { "to" } else { "from" };
            let response = response.accessible_name(format!("{name} {end}")).on_hover_text("Type a number, or drag");
            if response.dragged() {
                ui.data_mut(|data| data.insert_temp(id, edited));
                continue;
            }
            ui.data_mut(|data| data.remove::<f32>(id));
            if edited.to_bits() == value.to_bits() {
                continue;
            }
            let range = match (symmetric, high) {
                (true, _) => (-edited.abs(), edited.abs()),
                (false, true) => (clip.0, edited),
                (false, false) => (edited, clip.1),
            };
            typed = Some(range).filter(|(low, high)| low.is_finite() && high.is_finite() && low < high).or(typed);
        }
    });
    typed
}

/// A menu that keeps the histogram as a file: its values, or the picture of `rect`.
pub fn keep_ui(ui: &mut Ui, title: &str, layer: &str, bins: &[Bin], rect: Rect, actions: &mut Vec<Action>) {
    let name: String = layer.chars().map(|c| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '_' }).collect();
    let name = format!("{name}.{}", title.to_lowercase().replace(' ', "_"));
    let menu = ui.menu_button(RichText::new("Save").small(), |ui| {
        if ui.button("Values as CSV…").clicked() {
            let bytes = csv(bins).into_bytes();
            actions.push(Edit::Keep { name: format!("{name}.csv"), bytes }.into());
            ui.close();
        }
        if ui.button("Picture as PNG…").clicked() {
            actions.push(Edit::Picture { name: format!("{name}.png"), rect }.into());
            ui.close();
        }
    });
    menu.response.accessible_name(format!("Save {}", title.to_lowercase()));
}

/// One line a bin that holds anything: from, to, how many.
fn csv(bins: &[Bin]) -> String {
    let mut bins: Vec<&Bin> = bins.iter().filter(|bin| bin.2 > 0).collect();
    bins.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut text = "from,to,count\n".to_owned();
    for (from, to, count) in bins {
        // Writing to a String does not fail.
        let _ = writeln!(text, "{from},{to},{count}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::csv;

    #[test]
    fn a_histogram_as_csv_is_in_order_and_without_empty_bins() {
        let text = csv(&[(0.5, 1.0, 3), (0.0, 0.5, 2), (1.0, 1.5, 0)]);
        assert_eq!(text, "from,to,count\n0,0.5,2\n0.5,1,3\n");
    }
}
