//! The panes below the table, one shown at a time.

use eframe::egui::{self, RichText, Ui};
use nibble_core::problem::Severity;

use super::{Snapshot, View, ViewState};
use crate::edit::Action;
use crate::theme;

/// A pane of the dock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Pane {
    /// Data and statistics.
    #[default]
    Calibrate,
    /// What single samples did to the ranges.
    Lab,
    /// Which layers hurt.
    Errors,
    /// What every candidate of every layer would do to the output.
    Sensitivity,
    /// Plans by error and size.
    Pareto,
    /// Check, write, verify.
    Export,
    /// Better integers for layers.
    Repair,
    /// Training of the weights.
    Finetune,
    /// Original and export side by side.
    Compare,
    /// What degraded.
    Problems,
    /// What happened.
    Log,
}

impl Pane {
    /// Every pane, from left to right.
    pub const ALL: &'static [Self] = &[
        Self::Calibrate,
        Self::Lab,
        Self::Errors,
        Self::Sensitivity,
        Self::Pareto,
        Self::Repair,
        Self::Finetune,
        Self::Compare,
        Self::Export,
        Self::Problems,
        Self::Log,
    ];

    fn title(self) -> &'static str {
        match self {
            Self::Calibrate => "Calibrate",
            Self::Lab => "Lab",
            Self::Errors => "Errors",
            Self::Sensitivity => "Sensitivity",
            Self::Pareto => "Pareto",
            Self::Repair => "Repair",
            Self::Finetune => "Fine-tune",
            Self::Export => "Export",
            Self::Compare => "Compare",
            Self::Problems => "Problems",
            Self::Log => "Log",
        }
    }

    /// Its entry in the menu.
    pub fn text_and_tooltip(self) -> (&'static str, &'static str) {
        match self {
            Self::Calibrate => ("Show calibration", "Data, their preview, and the statistics gathered"),
            Self::Lab => (
                "Show the calibration lab",
                "Which samples set the ranges, which are outliers, and how many samples are enough",
            ),
            Self::Errors => ("Show errors", "Which layers hurt: every layer's error, the worst first"),
            Self::Sensitivity => {
                ("Show sensitivity", "What every candidate of every layer would do to the model's output")
            }
            Self::Pareto => ("Show the Pareto chart", "Plans by error and size: the best ones, the presets, and yours"),
            Self::Repair => {
                ("Show repairs", "Better integers for layers, and what they do to the model before they are accepted")
            }
            Self::Finetune => ("Show fine-tuning", "Train the weights so that rounding costs less, with the curves"),
            Self::Compare => ("Show comparison", "Original and export side by side"),
            Self::Export => ("Show export", "Check the plan, write, verify"),
            Self::Problems => ("Show problems", "What degraded, where, why, and what to do"),
            Self::Log => ("Show log", "What happened, in order"),
        }
    }
}

/// Draws the tabs and the pane shown.
pub fn dock_ui(
    ui: &mut Ui,
    view: &View<'_>,
    snapshot: &Snapshot<'_>,
    state: &mut ViewState,
    actions: &mut Vec<Action>,
) {
    // What does not fit goes into a second row: a row wider than the dock would push it under the inspector.
    ui.horizontal_wrapped(|ui| {
        ui.spacing_mut().item_spacing.x = 2.0;
        let problems = snapshot.document.all_problems();
        for &pane in Pane::ALL {
            let mut title = pane.title().to_owned();
            if pane == Pane::Problems && !problems.is_empty() {
                title = format!("{title} {}", problems.len());
            }
            tab_ui(ui, pane, &title, problems.first().map(|problem| problem.severity), &mut state.dock);
        }
    });
    ui.add_space(theme::GAP);
    match state.dock {
        Pane::Calibrate => super::calibrate::calibrate_ui(ui, view, snapshot.document, &mut state.calibrate, actions),
        Pane::Lab => super::lab::lab_ui(ui, view, snapshot.document, &mut state.lab, actions),
        Pane::Errors => super::errors::errors_ui(ui, view, snapshot.document, &mut state.metric, actions),
        Pane::Sensitivity => super::sensitivity::sensitivity_ui(ui, view, snapshot.document, state, actions),
        Pane::Pareto => super::pareto::pareto_ui(ui, view, snapshot, &mut state.pareto, actions),
        Pane::Repair => super::repair::repair_ui(ui, view, snapshot.document, &mut state.repair, actions),
        Pane::Finetune => super::finetune::finetune_ui(ui, view, snapshot.document, &mut state.finetune, actions),
        Pane::Export => super::export::export_ui(ui, view, snapshot, &mut state.export, actions),
        Pane::Compare => super::compare::compare_ui(ui, view, snapshot.document, actions),
        Pane::Problems => super::problems::problems_ui(ui, snapshot.document, actions),
        Pane::Log => super::log::log_ui(ui, view),
    }
}

fn tab_ui(ui: &mut Ui, pane: Pane, title: &str, worst: Option<Severity>, shown: &mut Pane) {
    let palette = theme::palette(ui);
    let active = *shown == pane;
    let mut text = RichText::new(title);
    if active {
        text = text.strong();
    } else {
        text = text.color(palette.weak);
    }
    if let (Pane::Problems, Some(worst)) = (pane, worst)
        && worst > Severity::Note
    {
        text = text.color(theme::severity(ui, worst));
    }
    let response = ui.add(egui::Button::new(text).frame(false).min_size(egui::vec2(0.0, 26.0)));
    if active {
        let line = response.rect.expand2(egui::vec2(2.0, 0.0));
        ui.painter().hline(line.x_range(), line.bottom() + 1.0, egui::Stroke::new(2.0, palette.accent));
    }
    let name = format!("{} tab", pane.title());
    if response.accessible_name(name).clicked() {
        *shown = pane;
    }
    ui.add_space(10.0);
}
