//! Every problem with what, where, why and what to do. A click on the place selects the layer.

use eframe::egui::{self, RichText, ScrollArea, Ui};
use nibble_core::Problem;
use nibble_core::problem::Severity;

use crate::document::Document;
use crate::edit::{Action, Edit};
use crate::widgets::badge::pill;
use crate::{format, theme};

/// Draws all problems of the document.
pub fn problems_ui(ui: &mut Ui, document: &Document, actions: &mut Vec<Action>) {
    let problems = document.all_problems();
    if problems.is_empty() {
        ui.label(RichText::new("No problems").weak());
        return;
    }
    fix_all_ui(ui, document, actions);
    ScrollArea::vertical().auto_shrink(false).show(ui, |ui| {
        for problem in problems {
            problem_ui(ui, problem, Some(document), actions);
        }
    });
}

/// Offers to make the plan one that its target takes, where choices can.
fn fix_all_ui(ui: &mut Ui, document: &Document, actions: &mut Vec<Action>) {
    let able = document.conflicts().iter().filter(|conflict| conflict.set.is_some()).count();
    let Some(target) = document.plan().target().filter(|_| able > 0) else { return };
    ui.horizontal(|ui| {
        ui.label(format!("{} with {}", format::conflicts(able), target.title));
        let button = ui.button("Fix all for this target");
        if button
            .on_hover_text("Sets for every layer the nearest choice that the target takes; one step to undo")
            .clicked()
        {
            actions.push(Edit::FixTarget.into());
        }
    });
}

/// The word for a severity.
fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Note => "note",
        Severity::Warning => "warning",
        Severity::Serious => "serious",
    }
}

/// Draws one problem.
pub fn problem_ui(ui: &mut Ui, problem: &Problem, document: Option<&Document>, actions: &mut Vec<Action>) {
    theme::card(ui).inner_margin(egui::Margin::symmetric(10, 6)).show(ui, |ui| {
        ui.set_width(ui.available_width());
        ui.horizontal_wrapped(|ui| {
            pill(ui, word(problem.severity), theme::severity(ui, problem.severity));
            ui.label(RichText::new(&problem.what).strong());
            if problem.place.is_empty() {
                return;
            }
            if document.is_some_and(|document| document.model.layer(&problem.place).is_some()) {
                if ui.link(&problem.place).on_hover_text("Select this layer").clicked() {
                    actions.push(Edit::SelectNamed(problem.place.clone()).into());
                }
            } else {
                ui.label(RichText::new(&problem.place).weak());
            }
        });
        if let Some(document) = document
            && let Some(finding) = document.remedy(problem)
            && let Some((set, text)) = finding.remedy
            && let Some(layer) = document.model.layers.iter().position(|layer| layer.name == problem.place)
        {
            let button =
                ui.button(format!("Choose {text}")).accessible_name(format!("Choose {text} for {}", problem.place));
            if button.on_hover_text("Changes the plan; export again to measure what it gains").clicked() {
                let label = format!("{text} for {}", problem.place);
                actions.push(Edit::SelectNamed(problem.place.clone()).into());
                actions.push(Edit::SetLayers { layers: vec![layer], set, label }.into());
            }
        }
        if let Some(document) = document
            && let Some(set) = document.way_out(problem)
            && let Some(layer) = document.model.layers.iter().position(|layer| layer.name == problem.place)
            && ui.button("Fix").accessible_name(format!("Fix {}: {}", problem.place, problem.fix)).clicked()
        {
            let label = format!("Fix {} for the target", problem.place);
            actions.push(Edit::SelectNamed(problem.place.clone()).into());
            actions.push(Edit::SetLayers { layers: vec![layer], set: *set, label }.into());
        }
        let lines = [("Why", &problem.why), ("Fix", &problem.fix)];
        for (title, text) in lines.into_iter().filter(|(_, text)| !text.is_empty()) {
            ui.horizontal_wrapped(|ui| {
                ui.label(RichText::new(title).weak());
                ui.label(text);
            });
        }
    });
}
