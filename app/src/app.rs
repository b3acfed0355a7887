//! The window's state and its frame: drain what jobs answered, draw the views, apply what they asked for.

mod apply;
mod keep;
mod receive;
mod repair;
mod start;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use eframe::egui::{self, Context, Ui};
use egui_notify::Toasts;
use nibble_core::Problem;
use nibble_core::plan::Plan;
use nibble_core::runtime::Runtime;

use crate::command::{Able, Command};
use crate::document::Document;
use crate::edit::{Action, Edit};
use crate::history::Gesture;
use crate::jobs::{self, Message};
use crate::log::Log;
use crate::selection::Selection;
use crate::settings::Settings;
use crate::theme;
use crate::views::repair::Scope;
use crate::views::{self, Snapshot, View, ViewState};
use crate::worker::{Priority, Running, Worker};

/// Whether models can be run.
enum RuntimeState {
    /// Still looking for the library.
    Searching,
    /// Found and started.
    Ready {
        runtime: &'static Runtime,
        /// Version and library, for people.
        about: String,
    },
    /// Not there, and why.
    Missing(Problem),
}

/// The window.
pub struct App {
    settings: Settings,
    document: Option<Document>,
    selection: Selection,
    views: ViewState,
    worker: Worker<Message>,
    runtime: RuntimeState,
    /// The model being opened.
    opening: Option<Running>,
    /// What learns how each layer moves the output. It gives way to every heavy job.
    learning: Option<Running>,
    /// The model that it learns about.
    learning_about: String,
    generation: u64,
    gesture: u64,
    log: Log,
    toasts: Toasts,
    /// A plan that waits for its model to be opened, and the export it comes from.
    waiting: Option<(Arc<Plan>, PathBuf)>,
    /// What waits to be written where the person says.
    kept: Option<keep::Kept>,
    /// A picture of the window that was asked for.
    pictures: keep::Pictures,
    /// Why each repair cannot serve the selection or the plan.
    repairs: repair::Refusals,
    /// What background work was last chosen for; nothing is chosen anew until it changes.
    scheduled_for: Option<(u64, u64, u64, Selection)>,
    may_close: bool,
}

impl App {
    /// The window, opening `model` if given.
    pub fn new(ctx: &Context, model: Option<PathBuf>, settings: Settings) -> Self {
        theme::install(ctx, settings.theme);
        let wake = ctx.clone();
        let mut worker = Worker::new(move || wake.request_repaint());
        let library = settings.library.clone();
        worker.start_aside(move |control| jobs::find_runtime(library.as_deref(), control));
        let mut app = Self {
            settings,
            document: None,
            selection: Selection::default(),
            views: ViewState::default(),
            worker,
            runtime: RuntimeState::Searching,
            opening: None,
            learning: None,
            learning_about: String::new(),
            generation: 0,
            gesture: 0,
            log: Log::default(),
            toasts: Toasts::new().with_anchor(egui_notify::Anchor::BottomRight).with_margin(egui::vec2(12.0, 36.0)),
            waiting: None,
            kept: None,
            pictures: keep::Pictures::default(),
            repairs: repair::Refusals::default(),
            scheduled_for: None,
            may_close: false,
        };
        if let Some(problem) = app.settings.problem.take() {
            app.note(problem);
        }
        if let Some(path) = model {
            app.open(path);
        }
        app
    }

    /// Shows a line about something that went wrong and hinders nothing.
    fn note(&mut self, text: impl Into<String>) {
        let text = text.into();
        self.toasts.warning(text.clone());
        self.log.error(text);
    }

    fn able(&self) -> Able {
        let document = self.document.as_ref();
        Able {
            has_model: document.is_some(),
            has_selection: !self.selection.is_empty(),
            undo: document.and_then(|d| d.history.undo_label()).map(ToOwned::to_owned),
            redo: document.and_then(|d| d.history.redo_label()).map(ToOwned::to_owned),
            running: self.worker.running().map(|running| running.title.clone()),
            runtime_refusal: match &self.runtime {
                RuntimeState::Searching => "Still looking for ONNX Runtime".to_owned(),
                RuntimeState::Ready { .. } => String::new(),
                RuntimeState::Missing(problem) => format!("{}. {}", problem.what, problem.fix),
            },
            has_export: document.is_some_and(|d| d.exported.is_some()),
            selection_repairs: self.repairs.of(Scope::Selection),
            plan_repairs: self.repairs.of(Scope::Plan),
        }
    }

    fn gesture(&self) -> Gesture {
        Gesture(self.gesture)
    }

    /// Learns what matters while nothing heavy runs.
    fn look_ahead(&mut self) {
        let busy = self.worker.running().is_some();
        let is_other = self.document.as_ref().is_some_and(|document| document.model.identity != self.learning_about);
        if (busy || is_other)
            && let Some(learning) = self.learning.take()
        {
            learning.control.cancel();
        }
        let (Some(document), RuntimeState::Ready { runtime, .. }) = (&self.document, &self.runtime) else { return };
        let runtime = *runtime;
        if busy || self.learning.is_some() {
            return;
        }
        let (Some(stats), Some(data)) = (&document.stats, &document.calibrated_with) else { return };
        let request = jobs::LearnRequest {
            model: Arc::clone(&document.model),
            stats: Arc::clone(stats),
            spared: document.spared.clone(),
            data: data.clone(),
        };
        let about = request.model.identity.clone();
        self.learning = if document.learnt.is_none() && !document.cannot_learn {
            let work = move |control: &_| jobs::learn(&request, runtime, control);
            Some(self.worker.start_aside_titled("Learning what matters", work))
        } else if let Some(plan) = document.plan_to_run() {
            let work = move |control: &_| jobs::run_plan(&request, &plan, runtime, control);
            Some(self.worker.start_aside_titled("Running the repaired plan", work))
        } else {
            return;
        };
        self.learning_about = about;
    }

    /// Hands out background work: errors of what was just edited first.
    fn schedule(&mut self) {
        self.calibrate_anew();
        self.look_ahead();
        self.examine();
        let Some(document) = &mut self.document else { return };
        let now = (document.generation, document.version, document.results.version(), self.selection.clone());
        if self.scheduled_for.as_ref() == Some(&now) {
            return;
        }
        let chosen = document.next_work(self.selection.iter().take(64));
        self.scheduled_for = Some(now);
        for work in chosen {
            let model = Arc::clone(&document.model);
            let (stats, plan) = (document.stats.clone(), Arc::clone(document.plan()));
            let pricing = document.pricing(&work);
            let edited = self.selection.contains(work.layer());
            let priority = if edited { Priority::Now } else { Priority::Background };
            self.worker
                .start_light(priority, move |_| jobs::light(&model, stats.as_ref(), &plan, pricing.as_ref(), work));
        }
    }

    fn drop_files(&mut self, ctx: &Context, actions: &mut Vec<Action>) {
        let dropped = ctx.input(|input| input.raw.dropped_files.clone());
        for file in dropped {
            let path = file.path().to_owned();
            let is = |extension: &str| path.extension().is_some_and(|e| e.eq_ignore_ascii_case(extension));
            actions.push(match () {
                () if path.as_os_str().is_empty() => continue,
                () if is("json") && self.document.is_some() => Edit::OpenPlan(path).into(),
                () if (is("npz") || is("npy") || path.extension().is_none()) && self.document.is_some() => {
                    Edit::UseData(path).into()
                }
                () => Edit::Open(path).into(),
            });
        }
    }
}

impl eframe::App for App {
    fn logic(&mut self, ctx: &Context, _frame: &mut eframe::Frame) {
        for event in self.worker.drain() {
            self.receive(ctx, event);
        }
        self.receive_picture();
        let mut actions: Vec<Action> = Vec::new();
        self.drop_files(ctx, &mut actions);
        let free = self.views.modal.is_none() && self.views.palette.is_none() && !self.views.help;
        if free {
            self.refresh_repairs();
            let able = self.able();
            let pressed = Command::pressed(ctx).into_iter().filter(|command| command.refusal(&able).is_empty());
            actions.extend(pressed.map(Action::from));
        }
        if ctx.input(|input| input.viewport().close_requested()) && !self.may_close {
            if self.document.as_ref().is_some_and(Document::is_unsaved) {
                ctx.send_viewport_cmd(egui::ViewportCommand::CancelClose);
                actions.push(Command::Quit.into());
            } else {
                self.may_close = true;
            }
        }
        for action in actions {
            self.apply(ctx, action);
        }
        self.schedule();
        if self.worker.running().is_some() || self.opening.is_some() || self.learning.is_some() {
            ctx.request_repaint_after(Duration::from_millis(100));
        }
    }

    fn ui(&mut self, ui: &mut Ui, _frame: &mut eframe::Frame) {
        let ctx = ui.ctx().clone();
        self.refresh_repairs();
        let able = self.able();
        let mut actions = Vec::new();
        if self.document.as_mut().is_some_and(Document::foresee) {
            ctx.request_repaint();
        }
        let predicted_size = self.document.as_mut().map(Document::predicted_size);
        let snapshot = self
            .document
            .as_ref()
            .map(|document| Snapshot { document, predicted_size: predicted_size.unwrap_or_default() });
        let view = View {
            selection: &self.selection,
            able: &able,
            running: self.worker.running(),
            runtime_problem: match &self.runtime {
                RuntimeState::Missing(problem) => Some(problem),
                _ => None,
            },
            runtime: match &self.runtime {
                RuntimeState::Ready { about, .. } => Some(about),
                _ => None,
            },
            settings: &self.settings,
            log: &self.log,
            opening: self.opening.as_ref(),
            learning: self.learning.as_ref(),
        };
        views::window_ui(ui, &view, snapshot.as_ref(), &mut self.views, &mut actions);
        for action in actions {
            self.apply(&ctx, action);
        }
        self.toasts.show(&ctx);
        self.schedule();
    }
}
