//! The two questions that stop everything else: unsaved changes, and overwriting a file.

use std::path::PathBuf;

use eframe::egui::{self, Context, Id, Modal, RichText, Ui};

use crate::command::Command;
use crate::edit::{Action, Edit};
use crate::theme;

/// A question that has to be answered first.
#[derive(Clone, Debug)]
pub enum Question {
    /// Quit although the plan has unsaved changes?
    Quit,
    /// Open another model although the plan has unsaved changes?
    Open(PathBuf),
    /// Replace this file by the export?
    Overwrite(PathBuf),
}

/// Draws the question; leaving it by Escape or a click beside it is "no".
pub fn modal_ui(ctx: &Context, question: &Question, actions: &mut Vec<Action>) {
    let frame = egui::Frame::popup(&ctx.global_style()).inner_margin(18);
    let response = Modal::new(Id::unique("question")).frame(frame).show(ctx, |ui| {
        ui.set_width(380.0);
        match question {
            Question::Quit => unsaved(ui, "Quit without saving", Edit::QuitAnyway, actions),
            Question::Open(path) => unsaved(ui, "Open without saving", Edit::OpenAnyway(path.clone()), actions),
            Question::Overwrite(path) => {
                ui.heading("Replace the file?");
                ui.label(format!("{} exists already", path.display()));
                ui.add_space(theme::SECTION);
                buttons(ui, |ui| {
                    if ui.button("Replace").clicked() {
                        actions.push(Edit::Export { path: path.clone(), overwrite: true }.into());
                    }
                    if ui.button("Keep it").clicked() {
                        actions.push(Edit::Dismiss.into());
                    }
                });
            }
        }
    });
    if response.should_close() {
        actions.push(Edit::Dismiss.into());
    }
}

fn unsaved(ui: &mut Ui, otherwise: &str, edit: Edit, actions: &mut Vec<Action>) {
    ui.heading("The plan has unsaved changes");
    ui.label(RichText::new("Save it to open it again, here or on the command line").weak());
    ui.add_space(theme::SECTION);
    buttons(ui, |ui| {
        if ui.button("Save plan").clicked() {
            actions.push(Edit::Dismiss.into());
            actions.push(Command::SavePlan.into());
        }
        if ui.button(otherwise).clicked() {
            actions.push(edit.into());
        }
        if ui.button("Go back").clicked() {
            actions.push(Edit::Dismiss.into());
        }
    });
}

fn buttons(ui: &mut Ui, add: impl FnOnce(&mut Ui)) {
    ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), add);
}
