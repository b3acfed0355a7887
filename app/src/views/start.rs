//! No model open: where to drop one, a box for its path, and the files opened lately.

use eframe::egui::{self, Align, CornerRadius, Layout, RichText, Sense, Stroke, Ui, Vec2};

use super::View;
use super::problems::problem_ui;
use crate::edit::{Action, Edit, Purpose};
use crate::theme;
use crate::widgets::field;

/// What is typed into the start view.
#[derive(Default)]
pub struct StartState {
    /// The path box.
    pub path: String,
    /// Why the last model could not be opened.
    pub problem: Option<nibble_core::Problem>,
}

/// Draws the start view.
pub fn start_ui(ui: &mut Ui, view: &View<'_>, state: &mut StartState, actions: &mut Vec<Action>) {
    let width = ui.available_width().min(640.0);
    let side = (ui.available_width() - width) / 2.0;
    ui.add_space((ui.available_height() * 0.12).clamp(12.0, 140.0));
    ui.horizontal_top(|ui| {
        ui.add_space(side);
        ui.allocate_ui_with_layout(Vec2::new(width, ui.available_height()), Layout::top_down(Align::Min), |ui| {
            ui.set_width(width);
            content_ui(ui, view, state, actions);
        });
    });
}

fn content_ui(ui: &mut Ui, view: &View<'_>, state: &mut StartState, actions: &mut Vec<Action>) {
    let palette = theme::palette(ui);
    ui.label(RichText::new("Nibble").size(34.0).strong());
    ui.label(
        RichText::new(
            "See layer by layer what quantization does to an ONNX model, decide, and leave with one that runs",
        )
        .size(14.0)
        .color(palette.weak),
    );
    ui.add_space(theme::SECTION);
    drop_area(ui, view, actions);
    ui.add_space(theme::GAP);
    ui.horizontal(|ui| {
        let response = field::text(
            ui,
            "Model path",
            "or type the path of an .onnx file",
            &mut state.path,
            ui.available_width() - 140.0,
        );
        let entered = response.lost_focus() && ui.input(|input| input.key_pressed(egui::Key::Enter));
        let typed = !state.path.trim().is_empty();
        let open = ui.add_enabled(typed, egui::Button::new("Open")).on_disabled_hover_text("Type a path first");
        if (open.clicked() || entered) && typed {
            actions.push(Edit::Open(super::expanded(&state.path)).into());
        }
        if ui.button("Browse…").clicked() {
            actions.push(Edit::Browse(Purpose::Model).into());
        }
    });
    ui.add_space(theme::GAP);
    ui.horizontal(|ui| {
        if ui
            .button("Try the sample")
            .on_hover_text("A small classifier of handwritten digits, with its data")
            .clicked()
        {
            actions.push(Edit::OpenSample.into());
        }
        ui.label(RichText::new("a small model of handwritten digits with its data, to look around").weak());
    });
    if let Some(problem) = &state.problem {
        ui.add_space(theme::GAP);
        problem_ui(ui, problem, None, actions);
    }
    if let Some(problem) = view.runtime_problem {
        ui.add_space(theme::GAP);
        problem_ui(ui, problem, None, actions);
        ui.horizontal(|ui| {
            if ui.button("Choose the library…").clicked() {
                actions.push(Edit::Browse(Purpose::Library).into());
            }
            if ui.button("Let Nibble find it").clicked() {
                actions.push(Edit::FindRuntime(None).into());
            }
        });
    }
    if view.settings.recent.is_empty() {
        return;
    }
    ui.add_space(theme::SECTION);
    ui.label(theme::caption("Recent"));
    egui::ScrollArea::vertical().auto_shrink([false, true]).show(ui, |ui| {
        for path in &view.settings.recent {
            recent_ui(ui, path, actions);
        }
    });
}

fn drop_area(ui: &mut Ui, view: &View<'_>, actions: &mut Vec<Action>) {
    let palette = theme::palette(ui);
    let (rect, response) = ui.allocate_exact_size(Vec2::new(ui.available_width(), 150.0), Sense::click());
    response.widget_info(|| egui::WidgetInfo::labeled(egui::accesskit::Role::Button, true, "Drop or choose a model"));
    let hovering = ui.input(|input| !input.raw.hovered_files.is_empty()) || response.hovered();
    let stroke = Stroke::new(1.5, if hovering { palette.accent } else { palette.line });
    ui.painter().rect_filled(
        rect,
        CornerRadius::same(10),
        if hovering { palette.selected.gamma_multiply(0.5) } else { palette.card },
    );
    for side in [
        [rect.left_top(), rect.right_top()],
        [rect.right_top(), rect.right_bottom()],
        [rect.right_bottom(), rect.left_bottom()],
        [rect.left_bottom(), rect.left_top()],
    ] {
        ui.painter().extend(egui::Shape::dashed_line(&side, stroke, 6.0, 4.0));
    }
    let (title, detail) = match view.opening {
        Some(_) => ("Opening…", "Reading the graph; weights stay where they are"),
        None => ("Drop an ONNX model here", "or click to choose one"),
    };
    let center = rect.center();
    let paint = |offset: f32, text: &str, size: f32, color| {
        let position = center + Vec2::new(0.0, offset);
        ui.painter().text(position, egui::Align2::CENTER_CENTER, text, egui::FontId::proportional(size), color);
    };
    paint(-10.0, title, 18.0, palette.text);
    paint(16.0, detail, 13.0, palette.weak);
    if response.on_hover_cursor(egui::CursorIcon::PointingHand).clicked() {
        actions.push(Edit::Browse(Purpose::Model).into());
    }
}

fn recent_ui(ui: &mut Ui, path: &std::path::Path, actions: &mut Vec<Action>) {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let folder = path.parent().map(|folder| folder.display().to_string()).unwrap_or_default();
    ui.horizontal(|ui| {
        if ui.add(egui::Button::new(RichText::new(name.clone()).strong()).frame(false)).clicked() {
            actions.push(Edit::Open(path.to_owned()).into());
        }
        ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
            let forget = ui.small_button("×").accessible_name(format!("Forget {name}"));
            if forget.on_hover_text("Forget this file; it stays on the disk").clicked() {
                actions.push(Edit::ForgetRecent(path.to_owned()).into());
            }
            ui.with_layout(Layout::left_to_right(Align::Center), |ui| {
                ui.add(egui::Label::new(RichText::new(folder).weak()).truncate());
            });
        });
    });
}
