//! What happened, in order.

use eframe::egui::{self, RichText, ScrollArea, Ui};

use super::View;
use crate::{format, theme};

/// Draws the log.
pub fn log_ui(ui: &mut Ui, view: &View<'_>) {
    let lines = view.log.lines();
    if lines.is_empty() {
        ui.label(RichText::new("Nothing has happened yet").weak());
        return;
    }
    let height = ui.text_style_height(&egui::TextStyle::Body);
    ScrollArea::both().auto_shrink(false).stick_to_bottom(true).show_rows(ui, height, lines.len(), |ui, range| {
        for line in range.filter_map(|index| lines.get(index)) {
            ui.horizontal(|ui| {
                ui.label(RichText::new(format::time(line.at)).monospace().weak());
                let text = RichText::new(&line.text);
                let text = if line.is_error { text.color(theme::palette(ui).bad) } else { text };
                ui.add(egui::Label::new(text).extend());
            });
        }
    });
}
