//! Jobs handed to the worker.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{App, RuntimeState};
use crate::document::Document;
use crate::jobs;
use crate::views::calibrate::DataRequest;
use crate::views::dock::Pane;
use crate::views::finetune::{self, Training};
use crate::worker::Priority;

impl App {
    pub(super) fn start_preview(&mut self) {
        let Some(document) = &self.document else { return };
        if !self.views.calibrate.refusal().is_empty() {
            return;
        }
        let request = self.views.calibrate.request(&document.model.inputs, document.left_out());
        let model = Arc::clone(&document.model);
        self.worker.start_light(Priority::Now, move |_| jobs::preview(&model, &request));
    }

    pub(super) fn start_score(&mut self) {
        let (Some(document), RuntimeState::Ready { runtime, .. }) = (&self.document, &self.runtime) else { return };
        let request = self.views.calibrate.request(&document.model.inputs, document.left_out());
        let (model, runtime) = (Arc::clone(&document.model), *runtime);
        let work = move |control: &_| jobs::score(&model, runtime, &request, control);
        self.worker.start_heavy("Scoring the float model", work);
    }

    pub(super) fn start_calibration(&mut self) {
        let (Some(document), RuntimeState::Ready { runtime, .. }) = (&self.document, &self.runtime) else { return };
        let request = self.views.calibrate.request(&document.model.inputs, document.left_out());
        let (model, runtime) = (Arc::clone(&document.model), *runtime);
        self.log.add(format!("Calibrating with {}", request.spec));
        self.remember_data(&model.file.path);
        self.worker.start_heavy_reporting("Calibrating", move |control, reporter| {
            jobs::calibrate(&model, runtime, &request, control, reporter)
        });
    }

    /// Calibrates the model anew once the plan has scaled it, or samples were left out: statistics of before do not fit.
    pub(super) fn calibrate_anew(&mut self) {
        let (Some(document), RuntimeState::Ready { runtime, .. }) = (&self.document, &self.runtime) else { return };
        if self.worker.running().is_some() {
            return;
        }
        let Some(request) = document.calibrate_with.clone() else { return };
        let (model, runtime) = (Arc::clone(&document.model), *runtime);
        let (title, why) = if document.calibrated_with.is_some() {
            ("Calibrating again", "since other samples are left out")
        } else {
            ("Calibrating the scaled model", "since the plan scales the model")
        };
        self.log.add(format!("Calibrating again, {why}"));
        self.worker.start_heavy_reporting(title, move |control, reporter| {
            jobs::calibrate(&model, runtime, &request, control, reporter)
        });
    }

    /// Looks at what the samples did to the ranges, where that is shown and not known yet.
    pub(super) fn examine(&mut self) {
        if self.views.dock != Pane::Lab {
            return;
        }
        let Some((model, stats, data)) = self.document.as_mut().and_then(Document::examine_next) else { return };
        self.worker.start_light(Priority::Now, move |_| jobs::examine(&model, stats, data.as_ref()));
    }

    pub(super) fn start_finetune(&mut self) {
        let (Some(document), RuntimeState::Ready { runtime, .. }) = (&mut self.document, &self.runtime) else { return };
        document.training = Some(Training::default());
        let form = &self.views.finetune;
        form.paused.store(false, Ordering::Relaxed);
        let (steps, batch, learning_rate) = (form.steps, form.batch, form.rate * 1e-3);
        let paused = Arc::clone(&form.paused);
        let Some(document) = &self.document else { return };
        let request = jobs::FinetuneRequest {
            model: Arc::clone(&document.model),
            stats: document.stats.clone(),
            plan: Arc::clone(document.plan()),
            data: self.data_request(document),
            steps,
            batch,
            learning_rate,
            paused,
        };
        let runtime = *runtime;
        self.log.add(format!("Fine-tuning on {}", request.data.spec));
        self.worker.start_heavy_reporting(finetune::TITLE, move |control, reporter| {
            jobs::finetune(&request, runtime, control, reporter)
        });
    }

    pub(super) fn start_export(&mut self, path: PathBuf, overwrite: bool) {
        let (Some(document), RuntimeState::Ready { runtime, .. }) = (&self.document, &self.runtime) else { return };
        let request = jobs::ExportRequest {
            model: Arc::clone(&document.model),
            stats: document.stats.clone(),
            plan: Arc::clone(document.plan()),
            data: self.data_request(document),
            path,
            overwrite,
        };
        let runtime = *runtime;
        self.worker.start_heavy("Exporting", move |control| jobs::export(&request, runtime, control));
    }

    pub(super) fn start_bench(&mut self) {
        self.views.dock = Pane::Compare;
        let (Some(document), RuntimeState::Ready { runtime, .. }) = (&self.document, &self.runtime) else { return };
        let Some(exported) = document.exported.clone() else { return };
        let data = self.data_request(document);
        let (model, runtime) = (Arc::clone(&document.model), *runtime);
        let work = move |control: &_| jobs::bench(&model, &exported, &data, runtime, control);
        self.worker.start_heavy("Measuring side by side", work);
    }

    pub(super) fn start_comparison(&mut self, path: PathBuf) {
        self.views.dock = Pane::Compare;
        let (Some(document), RuntimeState::Ready { runtime, .. }) = (&self.document, &self.runtime) else { return };
        let data = self.data_request(document);
        let (models, runtime) =
            (jobs::Reference { scaled: Arc::clone(&document.model), original: document.original() }, *runtime);
        let work = move |control: &_| jobs::compare(&models, path, &data, runtime, control);
        self.worker.start_heavy("Comparing layer by layer", work);
    }

    /// The data of the form; random numbers where it is not filled in.
    pub(super) fn data_request(&self, document: &Document) -> DataRequest {
        let mut form = self.views.calibrate.clone();
        if !form.refusal().is_empty() {
            form.use_random();
        }
        form.request(&document.model.inputs, document.left_out())
    }
}
