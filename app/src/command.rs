//! Every named action of the window: its text, tooltip, keys and when it can be used. Menus, buttons and keys all read
//! this one table, so that they cannot disagree.

use std::sync::Arc;

use eframe::egui::{self, Key, KeyboardShortcut, Modifiers};

use crate::repairs::RepairMethod;
use crate::views::dock::Pane;
use crate::views::repair::Scope;

/// A named action without a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// Ask for a model.
    Open,
    /// Ask for a plan.
    OpenPlan,
    /// Save the plan.
    SavePlan,
    /// Save the plan under another name.
    SavePlanAs,
    /// Go to the export.
    Export,
    /// Close the window.
    Quit,
    /// Take the last change of the plan back.
    Undo,
    /// Bring back what was taken back.
    Redo,
    /// Select every layer shown.
    SelectAll,
    /// Select nothing.
    SelectNone,
    /// Select the next better of the worst layers.
    NextWorst,
    /// Select the next worse of the worst layers.
    PreviousWorst,
    /// Weights of the selection to int8.
    Int8,
    /// Weights of the selection to int4.
    Int4,
    /// Weights of the selection to int2.
    Int2,
    /// Weights of the selection to float16.
    Float16,
    /// The selection left in floating point.
    Float32,
    /// The other symmetry for the selection.
    Symmetry,
    /// The next granularity for the selection.
    Granularity,
    /// Gather statistics.
    Calibrate,
    /// Compare original and export side by side.
    Compare,
    /// Go to fine-tuning.
    Finetune,
    /// Repair the selection, or the whole plan where nothing is selected.
    Repair(RepairMethod),
    /// Compare the model with a file that any tool made of it.
    CompareFile,
    /// Stop the running job.
    Cancel,
    /// Do anything by its name.
    Palette,
    /// Show all keys.
    Help,
    /// Type into the table's filter.
    Filter,
    /// Show a pane below the table.
    Show(Pane),
    /// Colours as the system says.
    ThemeSystem,
    /// Light colours.
    ThemeLight,
    /// Dark colours.
    ThemeDark,
}

/// What the window can do now: all that [`Command::refusal`] needs.
#[derive(Clone, Debug, Default)]
pub struct Able {
    /// A model is open.
    pub has_model: bool,
    /// Layers are selected.
    pub has_selection: bool,
    /// What undo would take back.
    pub undo: Option<String>,
    /// What redo would bring back.
    pub redo: Option<String>,
    /// Title of the running heavy job.
    pub running: Option<String>,
    /// Why nothing can be run; empty when the runtime is there.
    pub runtime_refusal: String,
    /// There is an export of this model to compare with.
    pub has_export: bool,
    /// Why each repair, in the order of [`RepairMethod::ALL`], cannot serve the selection.
    pub selection_repairs: Arc<[String]>,
    /// The same for the whole plan.
    pub plan_repairs: Arc<[String]>,
}

impl Able {
    /// Why a repair cannot serve the selection, or the whole plan; empty when it can.
    pub fn repair_refusal(&self, method: RepairMethod, scope: Scope) -> String {
        let reasons = match scope {
            Scope::Selection => &self.selection_repairs,
            Scope::Plan => &self.plan_repairs,
        };
        let mut each = RepairMethod::ALL.iter().zip(reasons.iter());
        each.find(|(known, _)| **known == method).map(|(_, reason)| reason.clone()).unwrap_or_default()
    }

    /// The layers that a command for a repair means.
    pub fn repair_scope(&self) -> Scope {
        if self.has_selection { Scope::Selection } else { Scope::Plan }
    }

    /// Why no job can be started that runs the model; empty when one can.
    pub fn run_refusal(&self) -> String {
        match &self.running {
            _ if !self.runtime_refusal.is_empty() => self.runtime_refusal.clone(),
            Some(title) => format!("{title} is running; wait for it or cancel it"),
            None => String::new(),
        }
    }
}

impl Command {
    /// Every command.
    pub const ALL: &'static [Self] = &[
        Self::Open,
        Self::OpenPlan,
        Self::SavePlan,
        Self::SavePlanAs,
        Self::Export,
        Self::Quit,
        Self::Undo,
        Self::Redo,
        Self::SelectAll,
        Self::SelectNone,
        Self::NextWorst,
        Self::PreviousWorst,
        Self::Int8,
        Self::Int4,
        Self::Int2,
        Self::Float16,
        Self::Float32,
        Self::Symmetry,
        Self::Granularity,
        Self::Calibrate,
        Self::Compare,
        Self::Finetune,
        Self::Repair(RepairMethod::ALL[0]),
        Self::Repair(RepairMethod::ALL[1]),
        Self::Repair(RepairMethod::ALL[2]),
        Self::Repair(RepairMethod::ALL[3]),
        Self::Repair(RepairMethod::ALL[4]),
        Self::Repair(RepairMethod::ALL[5]),
        Self::Repair(RepairMethod::ALL[6]),
        Self::Repair(RepairMethod::ALL[7]),
        Self::Repair(RepairMethod::ALL[8]),
        Self::Repair(RepairMethod::ALL[9]),
        Self::CompareFile,
        Self::Cancel,
        Self::Palette,
        Self::Help,
        Self::Filter,
        Self::Show(Pane::Calibrate),
        Self::Show(Pane::Lab),
        Self::Show(Pane::Errors),
        Self::Show(Pane::Sensitivity),
        Self::Show(Pane::Pareto),
        Self::Show(Pane::Repair),
        Self::Show(Pane::Finetune),
        Self::Show(Pane::Compare),
        Self::Show(Pane::Export),
        Self::Show(Pane::Problems),
        Self::Show(Pane::Log),
        Self::ThemeSystem,
        Self::ThemeLight,
        Self::ThemeDark,
    ];

    /// Its text in menus and on buttons, and what it does.
    pub fn text_and_tooltip(self) -> (&'static str, &'static str) {
        match self {
            Self::Open => ("Open model…", "Open an ONNX model; dropping a file on the window does the same"),
            Self::OpenPlan => ("Open plan…", "Replace all choices by those of a saved plan"),
            Self::SavePlan => ("Save plan", "Save all choices as a plan that the command line takes too"),
            Self::SavePlanAs => ("Save plan as…", "Save all choices under another name"),
            Self::Export => ("Export…", "Check the plan, write the quantized model, run it and measure its quality"),
            Self::Quit => ("Quit", "Close the window; asks when the plan has unsaved changes"),
            Self::Undo => ("Undo", "Take the last change of the plan back"),
            Self::Redo => ("Redo", "Bring back what was taken back"),
            Self::SelectAll => ("Select all layers", "Select every layer that the filter shows"),
            Self::SelectNone => ("Select nothing", "Clear the selection"),
            Self::NextWorst => ("Next worst layer", "Walk from the worst layer to better ones"),
            Self::PreviousWorst => ("Previous worst layer", "Walk back towards the worst layer"),
            Self::Int8 => ("Weights to int8", "8-bit integer weights for the selected layers"),
            Self::Int4 => ("Weights to int4", "4-bit integer weights for the selected layers"),
            Self::Int2 => ("Weights to int2", "2-bit integer weights for the selected layers"),
            Self::Float16 => {
                ("Weights to float16", "Half-precision weights for the selected layers: half the size, the same speed")
            }
            Self::Float32 => ("Leave in float32", "Leave the selected layers as they are"),
            Self::Symmetry => {
                ("Switch symmetry", "Switch the selected layers between symmetric and asymmetric weights")
            }
            Self::Granularity => {
                ("Next granularity", "Per tensor, per channel, then blocks of 32 for the selected layers")
            }
            Self::Calibrate => {
                ("Calibrate", "Run samples through the model and gather the statistics of its activations")
            }
            Self::Compare => ("Compare side by side", "Time the original and the export in turn, in one run"),
            Self::Finetune => {
                ("Fine-tune…", "Train the plan's weights against the original's outputs, then accept them or not")
            }
            Self::Repair(method) => method.title_and_about(),
            Self::CompareFile => (
                "Open a quantized file to compare…",
                "Find the error at every layer of a file that any tool made of this model",
            ),
            Self::Cancel => ("Cancel the running job", "Stop at the next layer or sample; what was gathered is kept"),
            Self::Palette => ("Do anything…", "Find a command, a preset or a layer by its name"),
            Self::Help => ("Keys and gestures", "Show every key and what the pointer does"),
            Self::Filter => ("Filter layers", "Type into the filter of the table"),
            Self::Show(pane) => pane.text_and_tooltip(),
            Self::ThemeSystem => ("Colours as the system", "Light or dark as the system says"),
            Self::ThemeLight => ("Light colours", "Dark text on a light ground"),
            Self::ThemeDark => ("Dark colours", "Light text on a dark ground"),
        }
    }

    /// What it does, one sentence.
    pub fn tooltip(self) -> &'static str {
        self.text_and_tooltip().1
    }

    /// The key that runs it. Keys without a modifier act only while no text field has the focus.
    pub fn shortcut(self) -> Option<KeyboardShortcut> {
        let command = |key| Some(KeyboardShortcut::new(Modifiers::COMMAND, key));
        let command_shift = |key| Some(KeyboardShortcut::new(Modifiers::COMMAND | Modifiers::SHIFT, key));
        let plain = |key| Some(KeyboardShortcut::new(Modifiers::NONE, key));
        match self {
            Self::Open => command(Key::O),
            Self::OpenPlan => command_shift(Key::O),
            Self::SavePlan => command(Key::S),
            Self::SavePlanAs => command_shift(Key::S),
            Self::Export => command(Key::E),
            Self::Quit => command(Key::Q),
            Self::Undo => command(Key::Z),
            Self::Redo => command_shift(Key::Z),
            Self::SelectAll => command(Key::A),
            Self::SelectNone => plain(Key::Escape),
            Self::NextWorst => plain(Key::CloseBracket),
            Self::PreviousWorst => plain(Key::OpenBracket),
            Self::Int8 => plain(Key::Num8),
            Self::Int4 => plain(Key::Num4),
            Self::Int2 => plain(Key::Num2),
            Self::Float16 => plain(Key::F),
            Self::Float32 => plain(Key::Num0),
            Self::Symmetry => plain(Key::S),
            Self::Granularity => plain(Key::C),
            Self::Palette => command(Key::P),
            Self::Help => plain(Key::F1),
            Self::Filter => command(Key::F),
            Self::Show(Pane::Calibrate) => command(Key::Num1),
            Self::Show(Pane::Lab) => command(Key::L),
            Self::Show(Pane::Errors) => command(Key::Num2),
            Self::Show(Pane::Compare) => command(Key::Num3),
            Self::Show(Pane::Export) => command(Key::Num4),
            Self::Show(Pane::Problems) => command(Key::Num5),
            Self::Show(Pane::Log) => command(Key::Num6),
            Self::Show(Pane::Sensitivity) => command(Key::Num7),
            Self::Show(Pane::Pareto) => command(Key::Num8),
            Self::Show(Pane::Finetune) => command(Key::Num9),
            Self::Show(Pane::Repair) => command(Key::R),
            Self::Calibrate
            | Self::Compare
            | Self::CompareFile
            | Self::Finetune
            | Self::Repair(_)
            | Self::Cancel
            | Self::ThemeSystem
            | Self::ThemeLight
            | Self::ThemeDark => None,
        }
    }

    /// The key that runs it, for people; empty when there is none.
    pub fn key_text(self, ctx: &egui::Context) -> String {
        let text = self.shortcut().map(|shortcut| ctx.format_shortcut(&shortcut)).unwrap_or_default();
        text.replace("OpenBracket", "[").replace("CloseBracket", "]")
    }

    /// Why it cannot be used now; empty when it can.
    pub fn refusal(self, able: &Able) -> String {
        let needs_model = || if able.has_model { "" } else { "Open a model first" };
        let first =
            |reasons: &[&str]| reasons.iter().find(|r| !r.is_empty()).map(ToString::to_string).unwrap_or_default();
        match self {
            Self::Open
            | Self::Quit
            | Self::Palette
            | Self::Help
            | Self::ThemeSystem
            | Self::ThemeLight
            | Self::ThemeDark => String::new(),
            Self::OpenPlan
            | Self::SavePlan
            | Self::SavePlanAs
            | Self::Export
            | Self::SelectAll
            | Self::SelectNone
            | Self::Filter
            | Self::Show(_)
            | Self::NextWorst
            | Self::PreviousWorst => needs_model().to_owned(),
            Self::Undo => (if able.undo.is_some() { "" } else { "Nothing to undo" }).to_owned(),
            Self::Redo => (if able.redo.is_some() { "" } else { "Nothing to redo" }).to_owned(),
            Self::Int8
            | Self::Int4
            | Self::Int2
            | Self::Float16
            | Self::Float32
            | Self::Symmetry
            | Self::Granularity => first(&[needs_model(), if able.has_selection { "" } else { "Select layers first" }]),
            Self::Calibrate | Self::Finetune | Self::CompareFile => first(&[needs_model(), &able.run_refusal()]),
            Self::Repair(method) => {
                let scope = able.repair_scope();
                first(&[needs_model(), &able.run_refusal(), &able.repair_refusal(method, scope)])
            }
            Self::Compare => {
                let export = if able.has_export { "" } else { "Export first: there is nothing to compare with" };
                first(&[needs_model(), export, &able.run_refusal()])
            }
            Self::Cancel => (if able.running.is_some() { "" } else { "Nothing is running" }).to_owned(),
        }
    }

    /// The commands whose keys were pressed in this frame.
    pub fn pressed(ctx: &egui::Context) -> Vec<Self> {
        let typing = ctx.text_edit_focused();
        let mut keyed: Vec<(KeyboardShortcut, Self)> =
            Self::ALL.iter().filter_map(|command| Some((command.shortcut()?, *command))).collect();
        // Shortcuts with more modifiers first: Ctrl+Z would swallow Ctrl+Shift+Z.
        keyed.sort_by_key(|(shortcut, _)| std::cmp::Reverse(shortcut.modifiers.shift));
        ctx.input_mut(|input| {
            keyed
                .into_iter()
                .filter(|(shortcut, command)| {
                    let plain = shortcut.modifiers.is_none() && *command != Self::Help;
                    // Text fields have their own undo and "select all".
                    let of_text = matches!(command, Self::Undo | Self::Redo | Self::SelectAll);
                    if typing && (plain || of_text) {
                        return false;
                    }
                    // A plain key must not act while Ctrl or Alt is held.
                    let held = input.modifiers;
                    (!plain || held.is_none()) && input.consume_shortcut(shortcut)
                })
                .map(|(_, command)| command)
                .collect()
        })
    }

    /// A button for it in a menu; returns whether it was chosen.
    pub fn menu_item(self, ui: &mut egui::Ui, able: &Able) -> bool {
        let (text, tooltip) = self.text_and_tooltip();
        let text = match (self, &able.undo, &able.redo) {
            (Self::Undo, Some(label), _) | (Self::Redo, _, Some(label)) => format!("{text} “{label}”"),
            _ => text.to_owned(),
        };
        let refusal = self.refusal(able);
        let mut button = egui::Button::new(text);
        if self.shortcut().is_some() {
            button = button.shortcut_text(self.key_text(ui.ctx()));
        }
        let response = ui.add_enabled(refusal.is_empty(), button);
        let chosen = response.on_hover_text(tooltip).on_disabled_hover_text(refusal).clicked();
        if chosen {
            ui.close();
        }
        chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_runs_one_command() {
        let keys: Vec<_> = Command::ALL.iter().filter_map(|command| command.shortcut()).collect();
        for (index, key) in keys.iter().enumerate() {
            assert!(!keys[..index].contains(key), "{key:?}");
        }
    }

    #[test]
    fn a_refusal_says_why() {
        let able = Able::default();
        assert_eq!(Command::Open.refusal(&able), "");
        assert_eq!(Command::Int8.refusal(&able), "Open a model first");
        let able = Able { has_model: true, running: Some("Calibrating".to_owned()), ..Able::default() };
        assert!(Command::Calibrate.refusal(&able).contains("Calibrating"));
        assert_eq!(Command::Int4.refusal(&able), "Select layers first");
    }
}
