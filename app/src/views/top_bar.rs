//! The menus, the running job, and the steps from a model to its export.

use eframe::egui::{self, Align, CornerRadius, Layout, RichText, Sense, Stroke, Ui, Vec2, WidgetInfo};
use nibble_core::plan::{PRESETS, targets};

use super::View;
use super::dock::Pane;
use crate::command::Command;
use crate::document::Document;
use crate::edit::{Action, Edit};
use crate::worker::Running;
use crate::{format, theme};

/// The menu line with the running job at its right end.
pub fn menu_ui(ui: &mut Ui, view: &View<'_>, actions: &mut Vec<Action>) {
    egui::MenuBar::new().ui(ui, |ui| {
        let mut menu =
            |ui: &mut Ui, title: &str, groups: &[&[Command]]| commands_menu(ui, view, title, groups, actions);
        use Command as C;
        menu(ui, "File", &[&[C::Open], &[C::OpenPlan, C::SavePlan, C::SavePlanAs], &[C::Export], &[C::Quit]]);
        menu(
            ui,
            "Edit",
            &[
                &[C::Undo, C::Redo],
                &[C::SelectAll, C::SelectNone],
                &[C::Int8, C::Int4, C::Int2, C::Float16, C::Float32],
                &[C::Symmetry, C::Granularity],
            ],
        );
        let panes: Vec<C> = Pane::ALL.iter().copied().map(C::Show).collect();
        menu(
            ui,
            "View",
            &[&[C::NextWorst, C::PreviousWorst, C::Filter], &panes, &[C::ThemeSystem, C::ThemeLight, C::ThemeDark]],
        );
        let run = [C::Calibrate, C::Finetune, C::Export, C::Compare, C::CompareFile];
        menu(ui, "Run", &[&run, &[C::Cancel]]);
        repair_menu(ui, view, actions);
        commands_menu(ui, view, "Help", &[&[C::Palette, C::Help]], actions);
        ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
            if let Some(running) = view.running {
                job_ui(ui, running, actions);
            }
        });
    });
}

fn commands_menu(ui: &mut Ui, view: &View<'_>, title: &str, groups: &[&[Command]], actions: &mut Vec<Action>) {
    ui.menu_button(title, |ui| {
        ui.set_min_width(230.0);
        for (index, group) in groups.iter().enumerate() {
            if index > 0 {
                ui.separator();
            }
            for command in *group {
                if command.menu_item(ui, view.able) {
                    actions.push((*command).into());
                }
            }
        }
    });
}

/// Every repair, for what is selected.
fn repair_menu(ui: &mut Ui, view: &View<'_>, actions: &mut Vec<Action>) {
    ui.menu_button("Repair", |ui| {
        let count = view.selection.len();
        let whom = if count == 0 { "Whole plan".to_owned() } else { format!("{} selected", format::layers(count)) };
        ui.label(theme::caption(&whom));
        super::repair::menu_ui(ui, view.able, actions);
        ui.separator();
        let show = Command::Show(Pane::Repair);
        if show.menu_item(ui, view.able) {
            actions.push(show.into());
        }
    });
}

/// The running job: what, how far, how long still, and the way to stop it.
fn job_ui(ui: &mut Ui, running: &Running, actions: &mut Vec<Action>) {
    let palette = theme::palette(ui);
    let cancelled = running.control.is_cancelled();
    let cancel = ui.add_enabled(!cancelled, egui::Button::new("Cancel").small());
    if cancel.on_hover_text(Command::Cancel.tooltip()).clicked() {
        actions.push(Command::Cancel.into());
    }
    let progress = running.control.current_progress();
    let fraction = progress.as_ref().and_then(nibble_core::control::Progress::fraction);
    let text = match &progress {
        _ if cancelled => format!("Cancelling: {}", running.title),
        None => running.title.clone(),
        Some(progress) => {
            let steps =
                if progress.total > 0 { format!(" {}/{}", progress.done, progress.total) } else { String::new() };
            let left = progress.remaining().filter(|left| left.as_secs() > 0);
            let left = left.map(|left| format!(" · {} left", format::time(left))).unwrap_or_default();
            format!("{}{steps}{left}", progress.label)
        }
    };
    let (rect, bar) = ui.allocate_exact_size(Vec2::new(140.0, 6.0), Sense::hover());
    bar.widget_info(|| WidgetInfo::labeled(egui::accesskit::Role::ProgressIndicator, true, "Progress"));
    ui.painter().rect_filled(rect, CornerRadius::same(3), palette.control);
    let filled = match fraction {
        Some(fraction) => rect.with_max_x(rect.left() + rect.width() * fraction),
        None => {
            // Unknown length: a piece that wanders.
            let phase = (ui.input(|input| input.time) * 0.6).fract() as f32;
            let from = rect.left() + rect.width() * 0.75 * phase;
            rect.with_min_x(from).with_max_x(from + rect.width() * 0.25)
        }
    };
    ui.painter().rect_filled(filled, CornerRadius::same(3), palette.accent);
    ui.label(text).on_hover_text(format!("{}, running for {}", running.title, format::time(running.started.elapsed())));
}

/// A step on the way to an export.
struct Step {
    title: &'static str,
    tooltip: &'static str,
    done: bool,
    here: bool,
}

/// The step strip, the presets and the targets.
pub fn steps_ui(ui: &mut Ui, view: &View<'_>, document: Option<&Document>, dock: &mut Pane, actions: &mut Vec<Action>) {
    ui.horizontal(|ui| {
        ui.spacing_mut().item_spacing.x = 4.0;
        let calibrated = document.is_some_and(|d| d.stats.is_some());
        let exported = document.and_then(|d| d.exported.as_ref());
        let current = exported.is_some_and(|e| document.is_some_and(|d| *e.plan == **d.plan()));
        let compared = document.is_some_and(|d| d.benched.is_some());
        let tuned = document.is_some_and(|d| d.history.undo_label().is_some());
        let inspected = !view.selection.is_empty();
        let open = document.is_some();
        let step =
            |title, tooltip, done, pane: Option<Pane>| Step { title, tooltip, done, here: open && pane == Some(*dock) };
        let steps = [
            (step("Open", "Open another model", open, None), None),
            (
                step(
                    "Calibrate",
                    "Choose data, look at it as the model gets it, gather statistics",
                    calibrated,
                    Some(Pane::Calibrate),
                ),
                Some(Pane::Calibrate),
            ),
            (step("Inspect", "Select the worst layer; ] and [ walk on from it", inspected, None), None),
            (step("Tune", "Change the choices of the selected layers", tuned, None), None),
            (step("Compare", "Original and export side by side", compared, Some(Pane::Compare)), Some(Pane::Compare)),
            (
                step("Export", "Check the plan, write the model, measure it", current, Some(Pane::Export)),
                Some(Pane::Export),
            ),
        ];
        for (index, (step, pane)) in steps.iter().enumerate() {
            if index > 0 {
                let (rect, _) = ui.allocate_exact_size(Vec2::new(14.0, 1.0), Sense::hover());
                ui.painter().hline(rect.x_range(), rect.center().y, Stroke::new(1.0, theme::palette(ui).line));
            }
            if step_ui(ui, index + 1, step, open || index == 0).clicked() {
                match (pane, index) {
                    (Some(pane), _) => *dock = *pane,
                    (None, 0) => actions.push(Command::Open.into()),
                    (None, 2) => actions.push(Command::NextWorst.into()),
                    // Tuning needs a selection; the worst layer is where to begin.
                    (None, _) if view.selection.is_empty() => actions.push(Command::NextWorst.into()),
                    (None, _) => {}
                }
            }
        }
        ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
            if let Some(document) = document {
                targets_ui(ui, document, actions);
                presets_ui(ui, view, document, actions);
            }
        });
    });
}

fn step_ui(ui: &mut Ui, number: usize, step: &Step, enabled: bool) -> egui::Response {
    let palette = theme::palette(ui);
    let font = egui::TextStyle::Body.resolve(ui.style());
    let text = ui.painter().layout_no_wrap(step.title.to_owned(), font, palette.text);
    let size = Vec2::new(text.size().x + 40.0, 28.0);
    let sense = if enabled { Sense::click() } else { Sense::hover() };
    let (rect, response) = ui.allocate_exact_size(size, sense);
    response
        .widget_info(|| WidgetInfo::labeled(egui::accesskit::Role::Button, enabled, format!("Step {}", step.title)));
    let painter = ui.painter();
    let color = match (enabled, step.done, step.here) {
        (false, _, _) => palette.weak.gamma_multiply(0.5),
        (true, _, true) => palette.accent,
        (true, true, false) => palette.good,
        (true, false, false) => palette.weak,
    };
    if step.here {
        painter.rect_filled(rect, CornerRadius::same(14), palette.selected);
    } else if response.hovered() && enabled {
        painter.rect_filled(rect, CornerRadius::same(14), palette.control);
    }
    let center = egui::pos2(rect.left() + 15.0, rect.center().y);
    if step.done {
        painter.circle_filled(center, 9.0, color);
        let tick = [center + Vec2::new(-4.0, 0.0), center + Vec2::new(-1.0, 3.5), center + Vec2::new(4.5, -3.5)];
        painter.line(tick.to_vec(), Stroke::new(1.8, palette.card));
    } else {
        painter.circle_stroke(center, 9.0, Stroke::new(1.2, color));
        let font = egui::FontId::proportional(11.0);
        painter.text(center, egui::Align2::CENTER_CENTER, number.to_string(), font, color);
    }
    let text_color = if enabled { palette.text } else { palette.weak.gamma_multiply(0.6) };
    painter.galley_with_override_text_color(
        egui::pos2(rect.left() + 30.0, rect.center().y - text.size().y / 2.0),
        text,
        text_color,
    );
    let hint = if enabled { step.tooltip } else { "Open a model first" };
    response.on_hover_text(hint)
}

fn presets_ui(ui: &mut Ui, view: &View<'_>, document: &Document, actions: &mut Vec<Action>) {
    let name = if document.plan().preset.is_empty() { "custom" } else { document.plan().preset.as_str() };
    let changed = if document.changed { ", changed" } else { "" };
    let button = ui.menu_button(RichText::new(format!("Preset: {name}{changed}")), |ui| {
        ui.set_min_width(420.0);
        for preset in PRESETS {
            let text = format!("{}\n{}", preset.name, preset.about);
            if ui.button(text).clicked() {
                actions.push(Edit::Preset { preset, selection_only: false }.into());
                ui.close();
            }
        }
        if !document.plan().scalings.is_empty() {
            ui.separator();
            let about = "A preset keeps them: they change no function. One undo brings them back";
            if ui.button("Remove the scalings").on_hover_text(about).clicked() {
                actions.push(Edit::DropScalings.into());
                ui.close();
            }
        }
        if !view.selection.is_empty() {
            ui.separator();
            ui.menu_button(format!("Only for the selection ({})", format::layers(view.selection.len())), |ui| {
                for preset in PRESETS {
                    if ui.button(preset.name).on_hover_text(preset.about).clicked() {
                        actions.push(Edit::Preset { preset, selection_only: true }.into());
                        ui.close();
                    }
                }
            });
        }
    });
    let about = if document.plan().scalings.is_empty() {
        "Start over from a named plan"
    } else {
        "Start over from a named plan; the scalings of the model stay"
    };
    button.response.on_hover_text(about);
}

fn targets_ui(ui: &mut Ui, document: &Document, actions: &mut Vec<Action>) {
    let Some(current) = document.plan().target() else { return };
    let forbidden = document.conflicts().iter().filter(|conflict| conflict.level == targets::Level::Allowed).count();
    let mut text = RichText::new(format!("Target: {}", current.name));
    if forbidden > 0 {
        text = RichText::new(format!("Target: {}, {}", current.name, format::conflicts(forbidden)))
            .color(theme::palette(ui).warning);
    }
    let button = ui.menu_button(text, |ui| {
        ui.set_max_width(460.0);
        for target in targets::all() {
            let here = if target.run.here { "run here" } else { "rules only, not run" };
            let text = format!("{}\n{} ({here})", target.name, target.title);
            let chosen = target.name == current.name;
            if ui.selectable_label(chosen, text).on_hover_text(&target.about).clicked() {
                actions.push(Edit::Target(target).into());
                ui.close();
            }
        }
        if document.conflicts().iter().any(|conflict| conflict.set.is_some()) {
            ui.separator();
            if ui.button("Fix all for this target").clicked() {
                actions.push(Edit::FixTarget.into());
                ui.close();
            }
        }
    });
    button.response.on_hover_text("Where the model is to run: what it and the plan cannot agree on becomes problems");
}
