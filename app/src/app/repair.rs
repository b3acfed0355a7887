//! Repairs in the window: what can be repaired now, starting one, and what becomes of its answers.

use std::sync::Arc;

use super::{App, RuntimeState};
use crate::document::Mending;
use crate::format;
use crate::jobs::{self, Failure, Mended, Stage};
use crate::repairs::RepairMethod;
use crate::selection::Selection;
use crate::views::dock::Pane;
use crate::views::repair::{Scope, TITLE};

/// Why each repair cannot serve the layers that a command is for, found anew only when something changed.
#[derive(Default)]
pub(super) struct Refusals {
    made_for: Option<(u64, u64, Selection, bool)>,
    selection: Arc<[String]>,
    plan: Arc<[String]>,
}

impl Refusals {
    /// One a method, in the order of [`RepairMethod::ALL`]; empty where it can serve.
    pub(super) fn of(&self, scope: Scope) -> Arc<[String]> {
        Arc::clone(match scope {
            Scope::Selection => &self.selection,
            Scope::Plan => &self.plan,
        })
    }
}

impl App {
    /// Brings up to date why repairs cannot serve the selection or the plan.
    pub(super) fn refresh_repairs(&mut self) {
        let Some(document) = &self.document else { return };
        let has_data = self.views.calibrate.refusal().is_empty();
        let wanted = (document.generation, document.version, self.selection.clone(), has_data);
        if self.repairs.made_for.as_ref() == Some(&wanted) {
            return;
        }
        let reason = |method: RepairMethod, layers: &[usize]| match document.repair_refusal(method, layers) {
            reason if !reason.is_empty() => reason,
            _ if !has_data && !method.is_data_free() => {
                "Choose calibration data first, in the pane Calibrate".to_owned()
            }
            _ => String::new(),
        };
        let reasons = |layers: Vec<usize>| -> Arc<[String]> {
            RepairMethod::ALL.iter().map(|&method| reason(method, &layers)).collect()
        };
        let selection = reasons(self.layers_to_repair(Scope::Selection));
        let plan = reasons(self.layers_to_repair(Scope::Plan));
        self.repairs = Refusals { made_for: Some(wanted), selection, plan };
    }

    fn layers_to_repair(&self, scope: Scope) -> Vec<usize> {
        match (&self.document, scope) {
            (Some(document), Scope::Plan) => (0..document.model.layers.len()).collect(),
            _ => self.selection.iter().collect(),
        }
    }

    /// Starts a repair of the selection, or of the whole plan where nothing is selected, and shows it.
    pub(super) fn run_repair(&mut self, method: RepairMethod) {
        let scope = self.able().repair_scope();
        let form = &mut self.views.repair;
        (form.method, form.scope) = (method, scope);
        form.reveal = true;
        self.start_repair();
    }

    /// Starts the repair that the form describes.
    pub(super) fn start_repair(&mut self) {
        let scope = self.views.repair.scope(&self.selection);
        self.start_repair_by(self.views.repair.method, scope);
    }

    pub(super) fn start_repair_by(&mut self, method: RepairMethod, scope: Scope) {
        self.views.dock = Pane::Repair;
        let layers = self.layers_to_repair(scope);
        let (Some(document), RuntimeState::Ready { runtime, .. }) = (&self.document, &self.runtime) else { return };
        if self.worker.running().is_some() {
            return;
        }
        let form = &mut self.views.repair;
        form.enough = Arc::default();
        let (seconds, enough) = (f64::from(form.seconds), Arc::clone(&form.enough));
        let request = jobs::RepairRequest {
            model: Arc::clone(&document.model),
            stats: document.stats.clone(),
            from: Arc::clone(document.plan()),
            plan: document.plan_to_scale(method),
            data: self.data_request(document),
            layers,
            method,
            seconds,
            enough,
            bench: Arc::clone(&document.bench),
        };
        let runtime = *runtime;
        self.log.add(format!("Repairing {} by {method}", format::layers(request.layers.len())));
        let started = self
            .worker
            .start_heavy_reporting(TITLE, move |control, reporter| jobs::repair(&request, runtime, control, reporter));
        if let (Some(document), Some(_)) = (&mut self.document, started) {
            document.begin_mending(Mending { method, mended: None });
        }
    }

    pub(super) fn accept_repair(&mut self) {
        let Some(document) = &mut self.document else { return };
        let mended = document.mending.as_ref().and_then(|mending| mending.mended.as_ref());
        let (title, stage) = (mended.map(|mended| mended.title()), mended.map(|mended| mended.stage));
        let kept = document.accept_repair();
        if let Some(title) = title {
            self.log.add(title);
        }
        if stage == Some(Stage::AtOnce) {
            // The person has what they wanted; what would follow is another repair of the same layer.
            self.worker.cancel();
        }
        if !kept.is_empty() {
            self.note(format!("Changed since the repair began, and left as they are: {}", kept.join(", ")));
        }
    }

    /// Shows what a running repair has found.
    pub(super) fn mended(&mut self, mended: Mended) {
        let Some(document) = &mut self.document else { return };
        let now = Arc::clone(document.plan());
        if let Some(mending) = &mut document.mending {
            // Accepted while more was to come, which is on its way still.
            let is_taken = |known: &Arc<Mended>| known.stage == Stage::AtOnce && known.plan == now && known.changes();
            if !mending.mended.as_ref().is_some_and(is_taken) {
                mending.mended = Some(Arc::new(mended));
            }
        }
    }

    /// Takes the end of a repair.
    pub(super) fn repaired(&mut self, mended: Mended) {
        let whole = mended.whole.as_ref();
        let gain = whole.map(|whole| {
            let on = if whole.is_held_back { "held back" } else { "learnt from" };
            let (before, after) = (format::sqnr(whole.before), format::sqnr(whole.after));
            format!(": {before} → {after} on {} {on}", format::samples(whole.samples))
        });
        let (method, seconds) = (mended.method, mended.seconds);
        self.log.add(format!("Repair by {method} found in {seconds:.1} s{}", gain.unwrap_or_default()));
        if let Some(document) = &mut self.document {
            document.problems.insert("repair", mended.problems.clone());
            document.version += 1;
        }
        self.mended(mended);
    }

    /// A repair that was cancelled or failed leaves what it had found of the layers.
    pub(super) fn repair_failed(&mut self, failure: Failure) {
        if let Some(document) = &mut self.document {
            let known = document.mending.as_ref().and_then(|mending| mending.mended.as_ref());
            if known.is_none_or(|mended| mended.stage == Stage::FirstLook) {
                document.mending = None;
            }
        }
        self.failed("repair", failure);
    }
}
