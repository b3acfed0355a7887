//! Repairs: which method for which layers, and what it found, to be accepted or not.

mod result;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use eframe::egui::{self, DragValue, RichText, ScrollArea, Ui};
use nibble_core::plan::Rounding;
use nibble_core::repair::{Method, ScalingMethod};

use super::View;
use crate::command::{Able, Command};
use crate::document::Document;
use crate::edit::{Action, Edit};
use crate::repairs::RepairMethod;
use crate::selection::Selection;
use crate::widgets::field;
use crate::{format, theme};

/// Title of the job while it runs.
pub const TITLE: &str = "Repairing";

/// Seconds that a repair may take unless another number is set.
const SECONDS: f32 = 60.0;

/// Which layers are repaired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The selected ones.
    Selection,
    /// All with integers.
    Plan,
}

/// What is set before a repair.
pub struct Form {
    /// How.
    pub method: RepairMethod,
    /// Which layers, where some are selected.
    pub scope: Scope,
    /// Seconds, for methods that go on until their time is up.
    pub seconds: f32,
    /// Whether the method is to be brought into view: it was chosen elsewhere.
    pub reveal: bool,
    /// Set when the running repair shall end with what it has.
    pub enough: Arc<AtomicBool>,
}

impl Default for Form {
    fn default() -> Self {
        Self {
            method: RepairMethod::Rounding(Method::One(Rounding::Gptq)),
            scope: Scope::Selection,
            seconds: SECONDS,
            reveal: false,
            enough: Arc::default(),
        }
    }
}

impl Form {
    /// The layers that it is about: all where nothing is selected.
    pub fn scope(&self, selection: &Selection) -> Scope {
        if selection.is_empty() { Scope::Plan } else { self.scope }
    }

    /// Lets the running repair end with what it has.
    pub fn is_enough(&self) {
        self.enough.store(true, Ordering::Relaxed);
    }
}

/// Draws the pane.
pub fn repair_ui(ui: &mut Ui, view: &View<'_>, document: &Document, form: &mut Form, actions: &mut Vec<Action>) {
    let height = ui.available_height();
    ui.horizontal_top(|ui| {
        let width = theme::left_part(ui);
        ui.allocate_ui_with_layout(egui::vec2(width, height), egui::Layout::top_down(egui::Align::Min), |ui| {
            // Above the methods, so that it stays in sight however low the pane is.
            start_ui(ui, view, document, form, actions);
            missing_ui(ui, view, document, actions);
            ui.add_space(theme::GAP);
            ScrollArea::vertical().id_salt("repair methods").auto_shrink(false).show(ui, |ui| {
                methods_ui(ui, view, form);
            });
        });
        ui.separator();
        ui.vertical(|ui| result::result_ui(ui, document, view, actions));
    });
}

fn start_ui(ui: &mut Ui, view: &View<'_>, document: &Document, form: &mut Form, actions: &mut Vec<Action>) {
    let running = view.running.filter(|running| running.title == TITLE);
    ui.horizontal_wrapped(|ui| {
        ui.add_enabled_ui(running.is_none(), |ui| {
            let selected = match (view.selection.len(), view.selection.primary()) {
                (0, _) => "Selection".to_owned(),
                (1, Some(layer)) => document.model.layers.get(layer).map_or(String::new(), |layer| layer.name.clone()),
                (count, _) => format!("{} selected", format::layers(count)),
            };
            let scope = form.scope(view.selection);
            let button = egui::Button::selectable(scope == Scope::Selection, format::tail(&selected, 28));
            let response = ui.add_enabled(!view.selection.is_empty(), button).accessible_name("Repair the selection");
            if response.on_hover_text(selected).on_disabled_hover_text("Nothing is selected").clicked() {
                form.scope = Scope::Selection;
            }
            let text = format!("Whole plan ({})", format::layers(document.quantized_layers().0));
            let button = egui::Button::selectable(scope == Scope::Plan, text);
            if ui.add(button).accessible_name("Repair the whole plan").clicked() {
                form.scope = Scope::Plan;
            }
        });
    });
    let palette = theme::palette(ui);
    ui.horizontal_wrapped(|ui| {
        if let Some(running) = running {
            let free = !running.control.is_cancelled();
            let is_enough = form.enough.load(Ordering::Relaxed);
            if form.method.takes_seconds() {
                let button = egui::Button::new("Take what there is");
                let response = ui.add_enabled(free && !is_enough, button);
                if response.on_hover_text("End the search and show the best found so far").clicked() {
                    actions.push(Edit::EnoughRepair.into());
                }
            }
            if is_enough {
                ui.label(RichText::new("ending with what there is…").weak());
            }
            if ui.add_enabled(free, egui::Button::new("Stop")).accessible_name("Stop the repair").clicked() {
                actions.push(Command::Cancel.into());
            }
            return;
        }
        let mut reason = view.able.repair_refusal(form.method, form.scope(view.selection));
        if reason.is_empty() {
            reason = view.able.run_refusal();
        }
        let button = egui::Button::new(RichText::new(start_text(form.method)).color(palette.on_accent));
        let response = ui.add_enabled(reason.is_empty(), button.fill(palette.accent)).accessible_name("Start repair");
        if response.on_disabled_hover_text(&reason).clicked() {
            actions.push(Edit::StartRepair.into());
        }
        if form.method.takes_seconds() {
            let drag = DragValue::new(&mut form.seconds).range(1.0..=3600.0).speed(1.0).suffix(" s");
            let hint = "When the search ends with the best found so far";
            ui.add(drag).accessible_name("Seconds for the repair").on_hover_text(hint);
        }
        if !reason.is_empty() {
            ui.label(RichText::new(&reason).color(palette.warning));
            if document.stats.is_none() && ui.button("Calibrate…").clicked() {
                actions.push(Edit::ShowCalibration.into());
            }
        }
    });
}

/// Says that the plan asks for repairs that it does not have, and offers to make them.
fn missing_ui(ui: &mut Ui, view: &View<'_>, document: &Document, actions: &mut Vec<Action>) {
    let layers = 0..document.model.layers.len();
    let missing = layers.filter(|&layer| document.missing_repair(layer).is_some()).count();
    if missing == 0 {
        return;
    }
    ui.horizontal_wrapped(|ui| {
        let text = format!("{} ask for a repair that the plan does not have", format::layers(missing));
        ui.label(RichText::new(text).color(theme::palette(ui).warning));
        let (title, about) = RepairMethod::Missing.title_and_about();
        let mut refusal = view.able.run_refusal();
        if refusal.is_empty() {
            // What gptq needs, they need too.
            refusal = view.able.repair_refusal(Form::default().method, Scope::Plan);
        }
        let response = ui.add_enabled(refusal.is_empty(), egui::Button::new(title));
        if response.on_hover_text(about).on_disabled_hover_text(refusal).clicked() {
            actions.push(Edit::RepairMissing.into());
        }
    });
}

fn start_text(method: RepairMethod) -> String {
    match method {
        RepairMethod::Rounding(_) => format!("Repair by {method}"),
        RepairMethod::Scaling(_) => format!("Scale by {method}"),
        RepairMethod::Missing => method.title_and_about().0.to_owned(),
    }
}

/// All methods as entries of a menu.
pub fn menu_ui(ui: &mut Ui, able: &Able, actions: &mut Vec<Action>) {
    ui.set_min_width(230.0);
    for &method in RepairMethod::ALL {
        if method == RepairMethod::Scaling(ScalingMethod::ALL[0]) {
            ui.separator();
        }
        let command = Command::Repair(method);
        if command.menu_item(ui, able) {
            actions.push(command.into());
        }
    }
}

fn methods_ui(ui: &mut Ui, view: &View<'_>, form: &mut Form) {
    let palette = theme::palette(ui);
    let is_running = view.running.is_some_and(|running| running.title == TITLE);
    ui.spacing_mut().item_spacing.y = 2.0;
    let reveal = std::mem::take(&mut form.reveal);
    let mut heading = "";
    for &method in RepairMethod::ALL {
        let its = match method {
            RepairMethod::Rounding(_) => "Other integers",
            RepairMethod::Scaling(_) => "Other ranges, before rounding",
            RepairMethod::Missing => continue,
        };
        if heading != its {
            ui.label(theme::caption(its));
            heading = its;
        }
        let reason = view.able.repair_refusal(method, form.scope(view.selection));
        let about = method.title_and_about().1;
        ui.horizontal(|ui| {
            let size = egui::vec2(theme::LABEL_WIDTH, ui.spacing().interact_size.y);
            ui.allocate_ui_with_layout(size, egui::Layout::left_to_right(egui::Align::Center), |ui| {
                ui.set_min_width(theme::LABEL_WIDTH);
                let button = egui::Button::selectable(form.method == method, method.word());
                // One that serves nothing can be looked at all the same: it says why.
                let response = ui.add_enabled(!is_running, button).accessible_name(format!("Method {method}"));
                field::spoken(ui, &response, format!("{method}: {about}"));
                if reveal && form.method == method {
                    response.scroll_to_me(None);
                }
                if response.on_hover_text(if reason.is_empty() { about } else { &reason }).clicked() {
                    form.method = method;
                }
            });
            let color = if reason.is_empty() { palette.text } else { palette.weak };
            ui.add(egui::Label::new(RichText::new(about).color(color)).truncate().selectable(false))
                .on_hover_text(if reason.is_empty() { about } else { &reason });
        });
    }
}
