//! Labelled controls: a fixed-width label on the left, the control on the right, named for screen readers and tests.

use std::fmt::Display;

use eframe::egui::{self, Response, Ui};

use crate::theme;

/// A row with a label of fixed width; `add` draws the control.
pub fn row<R>(ui: &mut Ui, label: &str, add: impl FnOnce(&mut Ui) -> R) -> R {
    ui.horizontal(|ui| {
        let size = egui::vec2(theme::LABEL_WIDTH, ui.spacing().interact_size.y);
        ui.allocate_ui_with_layout(size, egui::Layout::left_to_right(egui::Align::Center), |ui| {
            ui.set_min_width(theme::LABEL_WIDTH);
            ui.add(egui::Label::new(egui::RichText::new(label).weak()).selectable(false));
        });
        add(ui)
    })
    .inner
}

/// As [`row`] with a shorter label, for narrow columns; what does not fit wraps.
pub fn compact<R>(ui: &mut Ui, label: &str, add: impl FnOnce(&mut Ui) -> R) -> R {
    ui.spacing_mut().item_spacing.y = 4.0;
    ui.horizontal_wrapped(|ui| {
        let width = 66.0;
        let size = egui::vec2(width, ui.spacing().interact_size.y);
        ui.allocate_ui_with_layout(size, egui::Layout::left_to_right(egui::Align::Center), |ui| {
            ui.set_min_width(width);
            ui.add(egui::Label::new(egui::RichText::new(label).weak()).selectable(false).truncate());
        });
        add(ui)
    })
    .inner
}

/// An entry of [`combo`].
pub struct Entry<T> {
    /// What choosing it means.
    pub value: T,
    /// Its text.
    pub text: String,
    /// Why it cannot be chosen; empty when it can.
    pub refusal: String,
}

/// A drop-down list named `name`. `current` is its text; entries with a refusal are disabled and say why.
/// Returns what was chosen, if it was.
pub fn combo<T: Clone>(
    ui: &mut Ui,
    name: &str,
    current: &str,
    refusal: &str,
    entries: impl FnOnce() -> Vec<Entry<T>>,
) -> Option<T> {
    let mut chosen = None;
    ui.add_enabled_ui(refusal.is_empty(), |ui| {
        let width = ui.available_width().min(150.0);
        let shown =
            egui::ComboBox::from_id_salt(name).width(width).truncate().selected_text(current).show_ui(ui, |ui| {
                for entry in entries() {
                    let button = egui::Button::selectable(entry.text == current, entry.text.as_str());
                    let response = ui.add_enabled(entry.refusal.is_empty(), button);
                    if response.on_disabled_hover_text(&entry.refusal).clicked() {
                        chosen = Some(entry.value);
                        ui.close();
                    }
                }
            });
        shown.response.accessible_name(name).on_disabled_hover_text(refusal);
    });
    chosen
}

/// A list of words.
pub fn words<T: Display + Clone>(values: &[T]) -> Vec<Entry<T>> {
    values.iter().map(|value| Entry { value: value.clone(), text: value.to_string(), refusal: String::new() }).collect()
}

/// What a screen reader says for a text that means something only beside its title: `Weights error: 31.2 dB`. It takes
/// the place of the text itself, which is where a label keeps what it says.
pub fn spoken(ui: &Ui, label: &Response, text: String) {
    ui.ctx().accesskit_node_builder(label.id, |node| node.set_value(text));
}

/// A text field named `name`; the hint shows while it is empty.
pub fn text(ui: &mut Ui, name: &str, hint: &str, value: &mut String, width: f32) -> Response {
    ui.add(egui::TextEdit::singleline(value).hint_text(hint.to_owned()).desired_width(width)).accessible_name(name)
}
