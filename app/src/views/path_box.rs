//! A box for a path beside every file dialog: where the system has no file portal the dialog never opens.

use std::path::PathBuf;

use eframe::egui::{self, Align2, Context, Key, RichText};

use crate::edit::{Action, Edit, Purpose};
use crate::theme;
use crate::widgets::field;

/// An open path box.
#[derive(Clone, Debug)]
pub struct PathBox {
    /// What the path is for.
    pub purpose: Purpose,
    /// What is typed.
    pub text: String,
    /// Whether the dialog was closed, or never opened.
    pub dialog_closed: bool,
}

impl PathBox {
    /// A box that begins with the suggested path.
    pub fn new(purpose: Purpose, suggestion: Option<PathBuf>) -> Self {
        let text = suggestion.map(|path| path.display().to_string()).unwrap_or_default();
        Self { purpose, text, dialog_closed: false }
    }

    /// What the path is for, where such a path is asked for outside a form.
    fn title(&self) -> (&'static str, &'static str) {
        match self.purpose {
            Purpose::Plan => ("Open plan", "Open"),
            Purpose::SavePlan => ("Save plan", "Save"),
            Purpose::Keep => ("Save the histogram", "Save"),
            Purpose::Library => ("ONNX Runtime library", "Load"),
            Purpose::Other => ("Quantized file to compare", "Compare"),
            _ => ("Open model", "Open"),
        }
    }

    fn edit(&self) -> Edit {
        let path = super::expanded(&self.text);
        match self.purpose {
            Purpose::Plan => Edit::OpenPlan(path),
            Purpose::SavePlan => Edit::SavePlan(path),
            Purpose::Keep => Edit::KeepWritten(path),
            Purpose::Library => Edit::FindRuntime(Some(path)),
            Purpose::Other => Edit::CompareWith(path),
            _ => Edit::Open(path),
        }
    }
}

/// Draws the box; closes it when it is done.
pub fn path_box_ui(ctx: &Context, slot: &mut Option<PathBox>, actions: &mut Vec<Action>) {
    let Some(open) = slot else { return };
    let (title, verb) = open.title();
    let mut keep = true;
    let mut done = false;
    egui::Window::new(title)
        .collapsible(false)
        .resizable(false)
        .open(&mut keep)
        .anchor(Align2::CENTER_TOP, [0.0, 90.0])
        .show(ctx, |ui| {
            ui.set_width(560.0);
            let response = field::text(ui, "Path", "path of the file", &mut open.text, 552.0);
            let entered = response.lost_focus() && ui.input(|input| input.key_pressed(Key::Enter));
            if !open.dialog_closed && !response.has_focus() && ui.memory(|memory| memory.focused().is_none()) {
                response.request_focus();
            }
            ui.add_space(theme::GAP);
            ui.horizontal(|ui| {
                let typed = !open.text.trim().is_empty();
                let palette = theme::palette(ui);
                let button = egui::Button::new(RichText::new(verb).color(palette.on_accent)).fill(palette.accent);
                let button = ui.add_enabled(typed, button).accessible_name(format!("{verb} this path"));
                if (button.clicked() || entered) && typed {
                    actions.push(open.edit().into());
                    done = true;
                }
                if ui.button("Browse…").clicked() {
                    actions.push(Edit::Browse(open.purpose).into());
                }
                let hint = if open.dialog_closed {
                    "No file was chosen. If no dialog opened, this system has no file portal"
                } else {
                    "or choose it in the dialog that opens"
                };
                ui.label(RichText::new(hint).weak());
            });
        });
    if done || !keep || ctx.input(|input| input.key_pressed(Key::Escape)) {
        *slot = None;
    }
}
