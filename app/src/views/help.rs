//! Every key and what the pointer does, from the same table that menus and the palette read.

use eframe::egui::{self, Context, Grid, Id, Modal, RichText, ScrollArea, Ui};

use crate::command::Command;
use crate::theme;

/// What has no command: gestures and keys of widgets.
const GESTURES: &[(&str, &str)] = &[
    ("Click, Ctrl+click, Shift+click", "select a layer, add or remove one, select a range"),
    ("Up, Down, with Shift", "walk through the table, extend the selection"),
    ("Drag a handle", "clip the range by hand; one drag is one step of undo"),
    ("Double-click a handle", "go back to the method that finds the range"),
    ("Left, Right on a handle", "move it a little"),
    ("Drag a border", "resize a pane or a column"),
    ("Ctrl +, Ctrl −, Ctrl 0", "zoom the window in, out, and back"),
    ("Tab, Shift+Tab, Enter, Space", "walk through all controls, press one"),
    ("Drop a file", "open a model or a plan, or take calibration data"),
];

/// Draws the overlay; returns whether it is to be closed.
pub fn help_ui(ctx: &Context) -> bool {
    let frame = egui::Frame::popup(&ctx.global_style()).inner_margin(18);
    let response = Modal::new(Id::unique("help")).frame(frame).show(ctx, |ui| {
        ui.set_width(760.0);
        let close = ui.horizontal(|ui| {
            ui.heading("Keys and gestures");
            ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| ui.button("Close").clicked()).inner
        });
        ui.add_space(theme::GAP);
        let height = (ui.ctx().content_rect().height() - 160.0).max(120.0);
        let area = ScrollArea::vertical().max_height(height).min_scrolled_height(height);
        area.auto_shrink([false, true]).show(ui, lists_ui);
        close.inner
    });
    let again = ctx.input_mut(|input| input.consume_key(egui::Modifiers::NONE, egui::Key::F1));
    response.inner || again || response.should_close()
}

fn lists_ui(ui: &mut Ui) {
    ui.label(theme::caption("Keys"));
    Grid::new("key list").num_columns(2).spacing([20.0, 4.0]).show(ui, |ui| {
        for command in Command::ALL {
            let key = command.key_text(ui.ctx());
            if key.is_empty() {
                continue;
            }
            ui.label(RichText::new(key).monospace());
            ui.label(command.tooltip());
            ui.end_row();
        }
    });
    ui.add_space(theme::SECTION);
    ui.label(theme::caption("Pointer and widgets"));
    Grid::new("gesture list").num_columns(2).spacing([20.0, 4.0]).show(ui, |ui| {
        for (gesture, what) in GESTURES {
            ui.label(RichText::new(*gesture).monospace());
            ui.label(*what);
            ui.end_row();
        }
    });
}
