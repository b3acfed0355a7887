//! The views. Each is a function that reads a snapshot and pushes actions; what it may change by itself is its own
//! state: what is typed into its fields, how its list is sorted.

pub mod calibrate;
pub mod compare;
pub mod dock;
pub mod errors;
pub mod export;
pub mod finetune;
pub mod help;
pub mod inspector;
pub mod lab;
pub mod layers;
pub mod log;
pub mod modal;
pub mod offer;
pub mod palette;
pub mod pareto;
pub mod path_box;
pub mod problems;
pub mod repair;
pub mod sensitivity;
pub mod start;
pub mod status;
pub mod top_bar;

use std::path::PathBuf;

use eframe::egui::{self, CentralPanel, CornerRadius, LayerId, Margin, Order, Panel, Stroke, StrokeKind, Ui};
use nibble_core::problem::Problem;

use crate::command::Able;
use crate::document::Document;
use crate::edit::Action;
use crate::log::Log;
use crate::selection::Selection;
use crate::settings::Settings;
use crate::theme;
use crate::worker::Running;

/// What views read.
pub struct View<'a> {
    /// The selected layers.
    pub selection: &'a Selection,
    /// What can be done now.
    pub able: &'a Able,
    /// The running heavy job.
    pub running: Option<&'a Running>,
    /// Why ONNX Runtime is not there, if it is not.
    pub runtime_problem: Option<&'a Problem>,
    /// ONNX Runtime's version and file, if it is there.
    pub runtime: Option<&'a str>,
    /// What is remembered between runs.
    pub settings: &'a Settings,
    /// What happened.
    pub log: &'a Log,
    /// Whether a model is being opened.
    pub opening: Option<&'a Running>,
    /// What learns how each layer moves the output.
    pub learning: Option<&'a Running>,
}

/// State that belongs to the views alone.
#[derive(Default)]
pub struct ViewState {
    /// Which pane the dock shows.
    pub dock: dock::Pane,
    /// The start view.
    pub start: start::StartState,
    /// The layer table.
    pub layers: layers::LayersState,
    /// The calibration form.
    pub calibrate: calibrate::Form,
    /// What is chosen in the calibration lab.
    pub lab: lab::LabState,
    /// The export form.
    pub export: export::Form,
    /// The form of repairs.
    pub repair: repair::Form,
    /// The form of fine-tuning.
    pub finetune: finetune::Form,
    /// The open path box, if any.
    pub path_box: Option<path_box::PathBox>,
    /// How the sensitivity table is sorted, and its cell last clicked.
    pub sensitivity: sensitivity::SensitivityState,
    /// The point of the Pareto chart that was clicked.
    pub pareto: pareto::ParetoState,
    /// Which error the error pane shows.
    pub metric: errors::Metric,
    /// The open palette, if any.
    pub palette: Option<palette::Palette>,
    /// Whether the list of keys is open.
    pub help: bool,
    /// The open question, if any.
    pub modal: Option<modal::Question>,
}

/// Predicted size of the plan in force beside the document, computed once a frame.
pub struct Snapshot<'a> {
    /// The open model.
    pub document: &'a Document,
    /// Predicted size of the export in bytes.
    pub predicted_size: u64,
}

/// Draws the whole window.
pub fn window_ui(
    ui: &mut Ui,
    view: &View<'_>,
    snapshot: Option<&Snapshot<'_>>,
    state: &mut ViewState,
    actions: &mut Vec<Action>,
) {
    let frame = theme::panel(ui);
    let document = snapshot.map(|snapshot| snapshot.document);
    Panel::top("menu").frame(frame.inner_margin(Margin::symmetric(8, 2))).show(ui, |ui| {
        top_bar::menu_ui(ui, view, actions);
    });
    Panel::top("steps").frame(frame.inner_margin(Margin::symmetric(10, 5))).show(ui, |ui| {
        top_bar::steps_ui(ui, view, document, &mut state.dock, actions);
    });
    Panel::bottom("status").frame(frame.inner_margin(Margin::symmetric(12, 4))).show(ui, |ui| {
        status::status_ui(ui, view, snapshot, actions);
    });
    match snapshot {
        None => {
            CentralPanel::no_frame().frame(frame.fill(theme::palette(ui).background)).show(ui, |ui| {
                start::start_ui(ui, view, &mut state.start, actions);
            });
        }
        Some(snapshot) => {
            if let Some(offer) = &snapshot.document.offer {
                Panel::top("offer").frame(frame.fill(theme::palette(ui).selected)).show(ui, |ui| {
                    offer::offer_ui(ui, snapshot.document, offer, actions);
                });
            }
            let inspector = Panel::right("inspector").frame(frame).resizable(true);
            // On a narrow window the table keeps more than half.
            let most = (ui.available_width() * 0.42).clamp(321.0, 640.0);
            inspector.default_size(436.0_f32.min(most)).size_range(320.0..=most).show(ui, |ui| {
                ui.take_available_space();
                inspector::inspector_ui(ui, view, snapshot.document, actions);
            });
            let height = ui.available_height();
            let dock = Panel::bottom("dock").frame(frame).resizable(true);
            let dock = dock.default_size(height * 0.42).size_range(120.0..=(height - 160.0).max(121.0));
            dock.show(ui, |ui| {
                ui.take_available_space();
                dock::dock_ui(ui, view, snapshot, state, actions);
            });
            CentralPanel::no_frame().frame(frame.fill(theme::palette(ui).panel)).show(ui, |ui| {
                layers::layers_ui(ui, view, snapshot.document, &mut state.layers, actions);
            });
        }
    }
    path_box::path_box_ui(ui.ctx(), &mut state.path_box, actions);
    palette::palette_ui(ui.ctx(), view, document, &mut state.palette, actions);
    if state.help && help::help_ui(ui.ctx()) {
        state.help = false;
    }
    if let Some(question) = &state.modal {
        modal::modal_ui(ui.ctx(), question, actions);
    }
    focus_ui(ui);
}

/// A ring around what the keyboard acts on: tabs, steps and rows without a frame show it in no other way. Text fields have
/// their own.
fn focus_ui(ui: &Ui) {
    let ctx = ui.ctx();
    let focused = ctx.memory(egui::Memory::focused).filter(|_| !ctx.text_edit_focused());
    let Some(response) = focused.and_then(|id| ctx.read_response(id)) else { return };
    let stroke = Stroke::new(1.5, theme::palette(ui).accent);
    let painter = ctx.layer_painter(LayerId::new(Order::Foreground, egui::Id::unique("focus ring")));
    painter.rect_stroke(response.interact_rect.expand(1.0), CornerRadius::same(4), stroke, StrokeKind::Outside);
}

/// A path as people type it: without spaces around it, `~` for the home folder.
pub fn expanded(text: &str) -> PathBuf {
    let text = text.trim();
    let home = || Some(directories::BaseDirs::new()?.home_dir().to_owned());
    match text.strip_prefix("~/").zip(home()) {
        Some((rest, home)) => home.join(rest),
        None => PathBuf::from(text),
    }
}
