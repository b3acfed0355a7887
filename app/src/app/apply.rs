//! The one place that changes anything: commands and edits come in, state and jobs go out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use eframe::egui::{self, Context};
use nibble_core::plan::{Granularity, Plan, Precision, Preset, Rounding, Set, Symmetry};

use super::{App, RuntimeState};
use crate::command::Command;
use crate::document::Document;
use crate::edit::{Action, Edit, Purpose};
use crate::repairs::RepairMethod;
use crate::settings::Theme;
use crate::views::calibrate::Source;
use crate::views::dock::Pane;
use crate::views::modal::Question;
use crate::views::path_box::PathBox;
use crate::views::repair::Scope;
use crate::worker::Priority;
use crate::{dialogs, format, jobs, theme};

impl App {
    /// Does what a view, a key or a menu asked for.
    pub(super) fn apply(&mut self, ctx: &Context, action: Action) {
        match action {
            Action::Run(command) => self.run(ctx, command),
            Action::Do(edit) => self.edit(ctx, edit),
        }
    }

    fn run(&mut self, ctx: &Context, command: Command) {
        match command {
            Command::Open => self.browse(Purpose::Model),
            Command::OpenPlan => self.browse(Purpose::Plan),
            Command::SavePlan => match self.document.as_ref().map(|document| document.plan_path.clone()) {
                Some(Some(path)) => self.save_plan(path),
                Some(None) => self.browse(Purpose::SavePlan),
                None => {}
            },
            Command::SavePlanAs => self.browse(Purpose::SavePlan),
            Command::Export => self.views.dock = Pane::Export,
            Command::Quit => {
                if self.document.as_ref().is_some_and(Document::is_unsaved) {
                    self.views.modal = Some(Question::Quit);
                } else {
                    self.close(ctx);
                }
            }
            Command::Undo => {
                if let Some(label) = self.document.as_mut().and_then(Document::undo) {
                    self.log.add(format!("Took back: {label}"));
                }
            }
            Command::Redo => {
                if let Some(label) = self.document.as_mut().and_then(Document::redo) {
                    self.log.add(format!("Brought back: {label}"));
                }
            }
            Command::SelectAll => self.selection.select_all(self.views.layers.order().iter().copied()),
            Command::SelectNone => self.selection.clear(),
            Command::NextWorst => self.walk(1),
            Command::PreviousWorst => self.walk(-1),
            Command::Int8 => self.set_precision(Precision::Int8),
            Command::Int4 => self.set_precision(Precision::Int4),
            Command::Int2 => self.set_precision(Precision::Int2),
            Command::Float16 => self.set_precision(Precision::Float16),
            Command::Float32 => self.set_precision(Precision::Float32),
            Command::Symmetry => {
                let asked = self.primary_choice().map(|choice| choice.symmetry);
                let next = if asked == Some(Symmetry::Symmetric) { Symmetry::Asymmetric } else { Symmetry::Symmetric };
                self.set_selection(next.word(), &Set { symmetry: Some(next), ..Set::default() });
            }
            Command::Granularity => {
                let next = match self.primary_choice().map(|choice| choice.granularity) {
                    Some(Granularity::PerTensor) => Granularity::PerChannel,
                    Some(Granularity::PerChannel) => Granularity::Block(32),
                    _ => Granularity::PerTensor,
                };
                self.set_selection(&next.to_string(), &Set { granularity: Some(next), ..Set::default() });
            }
            Command::Calibrate => {
                self.views.dock = Pane::Calibrate;
                if self.views.calibrate.refusal().is_empty() {
                    self.start_calibration();
                }
            }
            Command::Compare => self.start_bench(),
            Command::Finetune => self.views.dock = Pane::Finetune,
            Command::Repair(method) => self.run_repair(method),
            Command::CompareFile => self.browse(Purpose::Other),
            Command::Cancel => self.worker.cancel(),
            Command::Palette => self.views.palette = Some(crate::views::palette::Palette::default()),
            Command::Help => self.views.help = !self.views.help,
            Command::Filter => self.views.layers.focus_filter(),
            Command::Show(pane) => self.views.dock = pane,
            Command::ThemeSystem => self.set_theme(ctx, Theme::System),
            Command::ThemeLight => self.set_theme(ctx, Theme::Light),
            Command::ThemeDark => self.set_theme(ctx, Theme::Dark),
        }
    }

    fn edit(&mut self, ctx: &Context, edit: Edit) {
        match edit {
            Edit::Open(path) => {
                if self.document.as_ref().is_some_and(Document::is_unsaved) {
                    self.views.modal = Some(Question::Open(path));
                } else {
                    self.open(path);
                }
            }
            Edit::OpenAnyway(path) => {
                self.views.modal = None;
                self.open(path);
            }
            Edit::OpenSample => {
                self.opening = Some(self.worker.start_light_titled("Opening", jobs::open_sample));
            }
            Edit::ForgetRecent(path) => {
                self.settings.recent.retain(|known| *known != path);
                self.save_settings();
            }
            Edit::Browse(purpose) => self.browse(purpose),
            Edit::SetLayers { layers, set, label } => {
                if let Some(document) = &mut self.document {
                    document.set_layers(&layers, &set, &label, None);
                }
            }
            Edit::Choose { layer, choice } => {
                if let Some(document) = &mut self.document
                    && let Some(known) = document.model.layers.get(layer)
                {
                    let label = format!("{} for {}", format::choice(&choice), known.name);
                    let mut plan = Plan::clone(document.plan());
                    plan.set_layer(&known.name.clone(), choice);
                    document.replace_plan(&label, plan);
                }
            }
            Edit::UsePlan { plan, label } => {
                if let Some(document) = &mut self.document {
                    document.replace_plan(&label, Plan::clone(&plan));
                    self.log.add(label);
                }
            }
            Edit::BeginGesture => self.gesture += 1,
            Edit::SetClip { layer, set, label, in_gesture } => {
                let gesture = in_gesture.then(|| self.gesture());
                if let Some(document) = &mut self.document {
                    document.set_layers(&[layer], &set, &label, gesture);
                }
            }
            Edit::Preset { preset, selection_only } => self.use_preset(preset, selection_only),
            Edit::DropScalings => {
                if let Some(document) = &mut self.document {
                    document.drop_scalings();
                    self.log.add("Removed the scalings");
                }
            }
            Edit::Target(target) => {
                if let Some(document) = &mut self.document {
                    document.set_target(target);
                }
            }
            Edit::FixTarget => {
                if let Some(document) = &mut self.document {
                    let changed = document.fix_target();
                    self.toasts.info(format!("Changed {}", format::layers(changed)));
                }
            }
            Edit::OpenPlan(path) => {
                let Some(document) = &self.document else { return };
                let model = Arc::clone(&document.model);
                self.worker.start_light(Priority::Now, move |_| jobs::open_plan(path, &model));
            }
            Edit::RestorePlan { plan, from } => self.restore_plan(&plan, &from),
            Edit::OpenOriginal { original, plan, from } => {
                self.waiting = Some((plan, from));
                match original {
                    Some(path) => self.edit(ctx, Edit::Open(path)),
                    None => self.browse(Purpose::Model),
                }
            }
            Edit::StartFinetune => self.start_finetune(),
            Edit::AcceptFinetuned => {
                if let Some(document) = &mut self.document {
                    document.accept_finetuned();
                    self.log.add("Put the trained weights into the plan");
                }
            }
            Edit::DiscardFinetuned => {
                if let Some(document) = &mut self.document {
                    document.training = None;
                }
            }
            Edit::StartRepair => self.start_repair(),
            Edit::RepairMissing => self.start_repair_by(RepairMethod::Missing, Scope::Plan),
            Edit::ShowRepair => {
                self.views.dock = Pane::Repair;
                self.views.repair.scope = self.able().repair_scope();
            }
            Edit::EnoughRepair => self.views.repair.is_enough(),
            Edit::AcceptRepair => self.accept_repair(),
            Edit::ShowPreview(at) => {
                if let Some(document) = &mut self.document {
                    document.show_preview(at);
                }
            }
            Edit::DiscardRepair => {
                if let Some(document) = &mut self.document {
                    document.mending = None;
                }
            }
            Edit::DropRepair(layers) => {
                let set = Set { rounding: Some(Rounding::Nearest), ..Set::default() };
                if let Some(document) = &mut self.document {
                    document.set_layers(&layers, &set, "Round to nearest again", None);
                }
            }
            Edit::DeclineOffer => {
                if let Some(document) = &mut self.document {
                    document.offer = None;
                }
            }
            Edit::SavePlan(path) => self.save_plan(path),
            Edit::Click { layer, click } => self.selection.click(layer, click, self.views.layers.order()),
            Edit::SelectNamed(name) => {
                let found = self.document.as_ref().and_then(|d| d.model.layers.iter().position(|l| l.name == name));
                if let Some(layer) = found {
                    self.select(layer);
                }
            }
            Edit::Reveal(layer) => self.views.layers.scroll_to(layer),
            Edit::Keep { name, bytes } => self.keep(name, bytes),
            Edit::KeepWritten(path) => self.keep_in(path),
            Edit::Picture { name, rect } => self.take_picture(ctx, name, rect),
            Edit::ShowCalibration => self.views.dock = Pane::Calibrate,
            Edit::LeaveOut { sample, name, out } => {
                if let Some(document) = &mut self.document {
                    document.leave_out(sample, &name, out);
                    let what = if out { "left out of calibration" } else { "taken into calibration again" };
                    self.log.add(format!("{name} is {what}"));
                }
            }
            Edit::UseData(path) => {
                self.views.calibrate.use_path(&path);
                self.views.dock = Pane::Calibrate;
                self.start_preview();
            }
            Edit::Preview => self.start_preview(),
            Edit::Score => self.start_score(),
            Edit::Export { path, overwrite } => {
                self.views.modal = None;
                self.start_export(path, overwrite);
            }
            Edit::CompareWith(path) => self.start_comparison(path),
            Edit::ForgetCompared => {
                if let Some(document) = &mut self.document {
                    document.compared = None;
                }
            }
            Edit::QuitAnyway => {
                self.views.modal = None;
                self.close(ctx);
            }
            Edit::Dismiss => {
                self.views.modal = None;
                self.waiting = None;
            }
            Edit::FindRuntime(library) => self.find_runtime(library),
            Edit::Copy(text) => {
                ctx.copy_text(text);
                self.toasts.info("Copied");
            }
        }
    }

    /// Opens a model in the background; the present one stays until the new one is there.
    pub(super) fn open(&mut self, path: PathBuf) {
        self.views.start.problem = None;
        self.log.add(format!("Opening {}", path.display()));
        self.opening = Some(self.worker.start_light_titled("Opening", move |control| jobs::open_model(path, control)));
    }

    pub(super) fn browse(&mut self, purpose: Purpose) {
        let document = self.document.as_ref();
        let suggestion = document.map(|document| match (purpose, &self.kept) {
            (Purpose::Keep, Some(kept)) => document.path.with_file_name(&kept.name),
            _ => dialogs::suggestion(purpose, &document.path, document.plan()),
        });
        // The start view and the forms have a box of their own.
        let has_box = match purpose {
            Purpose::Model => self.document.is_none(),
            Purpose::Plan | Purpose::SavePlan | Purpose::Library | Purpose::Keep | Purpose::Other => false,
            _ => true,
        };
        if !has_box && self.views.path_box.as_ref().is_none_or(|open| open.purpose != purpose) {
            self.views.path_box = Some(PathBox::new(purpose, suggestion.clone()));
        }
        self.worker.start_aside(move |_| dialogs::ask(purpose, suggestion.as_deref()));
    }

    /// What was chosen in a file dialog.
    pub(super) fn picked(&mut self, ctx: &Context, purpose: Purpose, path: Option<PathBuf>) {
        let Some(path) = path else {
            self.log.add(
                "No file was chosen. If no dialog opened, this system has no file portal: type the path into the box",
            );
            match &mut self.views.path_box {
                Some(open) if open.purpose == purpose => open.dialog_closed = true,
                _ => drop(self.toasts.info("No file was chosen; a path can be typed too")),
            }
            return;
        };
        self.views.path_box = None;
        let text = path.display().to_string();
        match purpose {
            Purpose::Model => self.edit(ctx, Edit::Open(path)),
            Purpose::Plan => self.edit(ctx, Edit::OpenPlan(path)),
            Purpose::SavePlan => self.save_plan(path),
            Purpose::Data | Purpose::DataFolder => self.edit(ctx, Edit::UseData(path)),
            Purpose::Eval => self.views.calibrate.eval = text,
            Purpose::Labels => self.views.calibrate.labels = text,
            Purpose::Export => self.views.export.path = text,
            Purpose::Keep => self.keep_in(path),
            Purpose::Library => self.find_runtime(Some(path)),
            Purpose::Other => self.edit(ctx, Edit::CompareWith(path)),
        }
    }

    fn save_plan(&mut self, path: PathBuf) {
        let Some(document) = &self.document else { return };
        let plan = Arc::clone(document.plan());
        self.worker.start_light(Priority::Now, move |_| jobs::save_plan(path, plan));
    }

    /// Puts the plan of the export at `from` in force.
    pub(super) fn restore_plan(&mut self, plan: &Plan, from: &Path) {
        let Some(document) = &mut self.document else { return };
        let name = from.file_name().unwrap_or_default().to_string_lossy();
        document.restore_plan(&format!("Restore the plan of {name}"), plan);
        document.offer = None;
        self.toasts.success("Plan restored");
        self.log.add(format!("Restored the plan of {}", from.display()));
    }

    fn save_settings(&mut self) {
        let settings = self.settings.clone();
        self.worker.start_aside(move |_| jobs::save_settings(&settings));
    }

    /// Keeps `path` among the recent files.
    pub(super) fn remember(&mut self, path: &Path) {
        self.settings.remember(&absolute(path));
        self.save_settings();
    }

    /// Fills the calibration form with the data last used with the model at `path`, and shows them.
    pub(super) fn use_known_data(&mut self, path: &Path) {
        let path = absolute(path);
        let known = |map: &BTreeMap<PathBuf, String>| map.get(&path).cloned().unwrap_or_default();
        let form = &mut self.views.calibrate;
        form.eval = known(&self.settings.eval);
        form.labels = known(&self.settings.labels);
        form.path = known(&self.settings.data);
        self.start_preview();
    }

    /// Keeps what is filled into the calibration form for the next time that this model is opened.
    pub(super) fn remember_data(&mut self, model: &Path) {
        let (path, form) = (absolute(model), &self.views.calibrate);
        if form.source == Source::Random {
            return;
        }
        let settings = &mut self.settings;
        for (map, text) in
            [(&mut settings.data, &form.path), (&mut settings.eval, &form.eval), (&mut settings.labels, &form.labels)]
        {
            map.insert(path.clone(), text.clone());
        }
        self.save_settings();
    }

    fn find_runtime(&mut self, library: Option<PathBuf>) {
        self.runtime = RuntimeState::Searching;
        self.settings.library.clone_from(&library);
        self.save_settings();
        self.worker.start_aside(move |control| jobs::find_runtime(library.as_deref(), control));
    }

    fn close(&mut self, ctx: &Context) {
        self.may_close = true;
        self.worker.cancel();
        ctx.send_viewport_cmd(egui::ViewportCommand::Close);
    }

    fn set_theme(&mut self, ctx: &Context, wanted: Theme) {
        self.settings.theme = wanted;
        theme::install(ctx, wanted);
        self.save_settings();
    }

    fn select(&mut self, layer: usize) {
        self.selection.select(layer);
        self.views.layers.scroll_to(layer);
    }

    fn walk(&mut self, step: i64) {
        let Some(document) = &self.document else { return };
        let order = document.worst_first();
        if order.is_empty() {
            return;
        }
        let here = self.selection.primary().and_then(|layer| order.iter().position(|known| *known == layer));
        let next = here.map_or(0, |place| (place as i64 + step).rem_euclid(order.len() as i64) as usize);
        if let Some(&layer) = order.get(next) {
            self.select(layer);
        }
    }

    fn primary_choice(&self) -> Option<nibble_core::plan::Choice> {
        Some(self.document.as_ref()?.asked(self.selection.primary()?))
    }

    fn set_precision(&mut self, precision: Precision) {
        self.set_selection(precision.word(), &Set { precision: Some(precision), ..Set::default() });
    }

    fn set_selection(&mut self, what: &str, set: &Set) {
        let Some(document) = &mut self.document else { return };
        let layers: Vec<usize> = self.selection.iter().collect();
        let primary = self.selection.primary().and_then(|layer| document.model.layers.get(layer));
        let whom = match (layers.as_slice(), primary) {
            ([_], Some(layer)) => layer.name.clone(),
            _ => format::layers(layers.len()),
        };
        document.set_layers(&layers, set, &format!("{what} for {whom}"), None);
    }

    fn use_preset(&mut self, preset: &'static Preset, selection_only: bool) {
        let Some(document) = &mut self.document else { return };
        let label = format!("Preset {}", preset.name);
        if !selection_only {
            document.replace_plan(&label, document.preset_plan(preset));
            if !document.plan().scalings.is_empty() {
                self.toasts.info("The scalings stay; the menu of presets removes them");
            }
            return;
        }
        let mut plan = Plan::clone(document.plan());
        for layer in self.selection.iter().filter_map(|layer| document.model.layers.get(layer)) {
            plan.set_layer(&layer.name, preset.choice_for(&layer.op));
        }
        document.replace_plan(&format!("{label} for {}", format::layers(self.selection.len())), plan);
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
