//! The choice controls. What a layer cannot take is disabled and says why.

use eframe::egui::{self, Ui};
use nibble_core::plan::{Activation, Clip, Granularity, Mode, Precision, Set, Symmetry};

use super::super::View;
use super::super::layers::Row;
use crate::edit::{Action, Edit};
use crate::theme;
use crate::widgets::field::{self, Entry};

/// Granularities that ONNX Runtime accelerates, in menu order.
const GRANULARITIES: &[Granularity] = &[
    Granularity::PerTensor,
    Granularity::PerChannel,
    Granularity::Block(16),
    Granularity::Block(32),
    Granularity::Block(64),
    Granularity::Block(128),
    Granularity::Block(256),
];

/// Draws the controls; a change applies to the whole selection.
pub fn choices_ui(ui: &mut Ui, view: &View<'_>, row: &Row<'_>, actions: &mut Vec<Action>) {
    let layers: Vec<usize> = view.selection.iter().collect();
    let mut set = |what: &str, set: Set| {
        let label = match layers.len() {
            1 => format!("{what} of {}", row.layer.name),
            count => format!("{what} of {count} layers"),
        };
        actions.push(Edit::SetLayers { layers: layers.clone(), set, label }.into());
    };
    let choice = &row.choice;
    let integer = if choice.is_integer() { "" } else { "Only for integer weights: choose int8, int4 or int2 first" };
    theme::card(ui).show(ui, |ui| {
        ui.set_width(ui.available_width());
        ui.columns(2, |columns| {
            let [ui, right] = columns else { return };
            ui.label(theme::caption("Weights"));
            field::compact(ui, "Precision", |ui| {
                let entries = || {
                    refused(Precision::ALL, |precision| {
                        row.refusal(&Set { precision: Some(*precision), ..Set::default() })
                    })
                };
                if let Some(value) = field::combo(ui, "Precision", choice.precision.word(), "", entries) {
                    set("Precision", Set { precision: Some(value), ..Set::default() });
                }
            });
            field::compact(ui, "Symmetry", |ui| {
                let entries = || {
                    refused(Symmetry::ALL, |symmetry| row.refusal(&Set { symmetry: Some(*symmetry), ..Set::default() }))
                };
                if let Some(value) = field::combo(ui, "Symmetry", choice.symmetry.word(), integer, entries) {
                    set("Symmetry", Set { symmetry: Some(value), ..Set::default() });
                }
            });
            field::compact(ui, "Granularity", |ui| {
                let entries = || {
                    refused(GRANULARITIES, |granularity| {
                        row.refusal(&Set { granularity: Some(*granularity), ..Set::default() })
                    })
                };
                let current = choice.granularity.to_string();
                if let Some(value) = field::combo(ui, "Granularity", &current, integer, entries) {
                    set("Granularity", Set { granularity: Some(value), ..Set::default() });
                }
            });
            field::compact(ui, "Clip", |ui| {
                if let Some(clip) = clip_ui(ui, "Weight clip", choice.clip, integer, row.has_grid()) {
                    set("Weight clip", Set { clip: Some(clip), ..Set::default() });
                }
            });
            let ui = right;
            ui.label(theme::caption("Activations"));
            field::compact(ui, "Mode", |ui| {
                let entries = || refused(Mode::ALL, |mode| row.refusal(&Set { mode: Some(*mode), ..Set::default() }));
                if let Some(value) = field::combo(ui, "Mode", choice.mode.word(), integer, entries) {
                    set("Mode", Set { mode: Some(value), ..Set::default() });
                }
            });
            let quantizes = match (integer.is_empty(), choice.mode) {
                (false, _) => integer,
                (true, Mode::WeightOnly) => {
                    "weight_only leaves activations in floating point: choose static or dynamic first"
                }
                (true, _) => "",
            };
            field::compact(ui, "Precision", |ui| {
                let entries = || {
                    refused(Activation::ALL, |activation| {
                        row.refusal(&Set { activation: Some(*activation), ..Set::default() })
                    })
                };
                if let Some(value) =
                    field::combo(ui, "Activation precision", choice.activation.word(), quantizes, entries)
                {
                    set("Activation precision", Set { activation: Some(value), ..Set::default() });
                }
            });
            let calibrated = match (quantizes.is_empty(), choice.is_static()) {
                (false, _) => quantizes,
                (true, false) => "Only for static activations: the ranges of dynamic ones are found while running",
                (true, true) => "",
            };
            field::compact(ui, "Symmetry", |ui| {
                let current = choice.activation_symmetry.word();
                let entries = || field::words(Symmetry::ALL);
                if let Some(value) = field::combo(ui, "Activation symmetry", current, calibrated, entries) {
                    set("Activation symmetry", Set { activation_symmetry: Some(value), ..Set::default() });
                }
            });
            field::compact(ui, "Clip", |ui| {
                let given = row.document.model.input_pair(row.layer).is_some();
                if let Some(clip) = clip_ui(ui, "Activation clip", choice.activation_clip, calibrated, given) {
                    set("Activation clip", Set { activation_clip: Some(clip), ..Set::default() });
                }
            });
        });
    });
}

/// Method of a clip range, with the share of a percentile; the file's own where it `trained` one. Setting it by hand is done
/// on the histogram.
fn clip_ui(ui: &mut Ui, name: &str, clip: Clip, refusal: &str, trained: bool) -> Option<Clip> {
    let word = match clip {
        Clip::MinMax => "minmax",
        Clip::Percentile(_) => "percentile",
        Clip::Mse => "mse",
        Clip::Entropy => "entropy",
        Clip::Trained => "trained",
        Clip::Manual { .. } => "manual",
    };
    let mut chosen = field::combo(ui, name, word, refusal, || {
        let entry = |value, text: &str| Entry { value, text: text.to_owned(), refusal: String::new() };
        let mut entries = vec![
            entry(Clip::MinMax, "minmax"),
            entry(Clip::Percentile(99.99), "percentile"),
            entry(Clip::Mse, "mse"),
            entry(Clip::Entropy, "entropy"),
        ];
        if trained {
            entries.push(entry(Clip::Trained, "trained"));
        }
        if let Clip::Manual { .. } = clip {
            entries.push(entry(clip, "manual"));
        } else {
            let refusal = "Drag a handle on the histogram below, or type the range there".to_owned();
            entries.push(Entry { value: clip, text: "manual".to_owned(), refusal });
        }
        entries
    });
    match clip {
        Clip::Percentile(share) => {
            // One step of undo a drag: the value is kept aside until the pointer is released.
            let id = ui.scope_id().with((name, "percentile"));
            let mut value: f32 = ui.data(|data| data.get_temp(id)).unwrap_or(share);
            let drag = egui::DragValue::new(&mut value).range(50.01..=100.0).speed(0.005).max_decimals(4).suffix(" %");
            let response = ui.add_enabled(refusal.is_empty(), drag.update_while_editing(false));
            let response = response.accessible_name(format!("{name} percentile"));
            if response.dragged() {
                ui.data_mut(|data| data.insert_temp(id, value));
            } else {
                ui.data_mut(|data| data.remove::<f32>(id));
                if value != share {
                    chosen = Some(Clip::Percentile(value));
                }
            }
        }
        Clip::Manual { .. } | Clip::MinMax | Clip::Mse | Clip::Entropy | Clip::Trained => {}
    }
    chosen.filter(|chosen| *chosen != clip)
}

fn refused<T: std::fmt::Display + Clone>(values: &[T], refusal: impl Fn(&T) -> String) -> Vec<Entry<T>> {
    values
        .iter()
        .map(|value| Entry { value: value.clone(), text: value.to_string(), refusal: refusal(value) })
        .collect()
}
