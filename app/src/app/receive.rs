//! What becomes of the answers of jobs. Answers for another document than the open one are stale and dropped.

use std::path::PathBuf;
use std::sync::Arc;

use eframe::egui::{ColorImage, Context, TextureOptions};
use nibble_core::Problem;
use nibble_core::data::Picture;
use nibble_core::error::Sqnr;
use nibble_core::model::Model;
use nibble_core::plan::Plan;
use nibble_core::problem::Severity;
use nibble_core::runtime::Runtime;

use super::{App, RuntimeState};
use crate::cli::sample::Sample;
use crate::document::Document;
use crate::format;
use crate::jobs::{self, Calibrated, Exported, Failure, Found, Message, OpenedPlan, Preview, Tuned};
use crate::results::Work;
use crate::views::dock::Pane;
use crate::views::modal::Question;
use crate::worker::{Body, Event};

impl App {
    /// Takes one answer.
    pub(super) fn receive(&mut self, ctx: &Context, event: Event<Message>) {
        if self.opening.as_ref().is_some_and(|opening| opening.id == event.job) {
            self.opening = None;
        }
        // One that was cancelled for a heavy job is not this one any more.
        let learnt = self.learning.as_ref().is_some_and(|learning| learning.id == event.job);
        if learnt {
            self.learning = None;
        }
        let message = match event.body {
            Body::Done(message) | Body::Partial(message) => message,
            Body::Dropped => return,
            Body::Panicked(text) => {
                let why = format!("A job stopped with a panic: {text}");
                let fix = "Please report it with the model; everything else goes on";
                self.problem("panic", Problem::new(Severity::Serious, "A defect in Nibble", "", why, fix));
                return;
            }
        };
        let stale = event.generation != self.generation;
        match message {
            Message::Picked { purpose, path } => self.picked(ctx, purpose, path),
            Message::RuntimeFound(result) => self.runtime_found(result),
            Message::SettingsSaved(result) => {
                if let Err(why) = result {
                    self.note(why);
                }
            }
            Message::Opened { path, result, sample } => self.opened(path, result, sample.as_ref()),
            Message::PlanSaved { path, plan, result } => match result {
                Ok(()) => {
                    self.toasts.success("Plan saved");
                    self.log.add(format!("Saved the plan as {}", path.display()));
                    if let Some(document) = self.document.as_mut().filter(|_| !stale) {
                        document.saved = plan;
                        document.plan_path = Some(path);
                    }
                }
                Err(failure) => self.failed("plan file", failure),
            },
            Message::Kept { path, result } => match result {
                Ok(()) => {
                    self.toasts.success("Histogram saved");
                    self.log.add(format!("Saved a histogram as {}", path.display()));
                }
                Err(failure) => self.failed("histogram", failure),
            },
            _ if stale => {}
            Message::Light { work, about, result } => self.light(work, &about, result),
            Message::Previewed(result) => self.previewed(ctx, result),
            Message::Scored(Ok(score)) => {
                self.log.add(format!("Float model: {} on {} samples", format::percent(score.accuracy), score.samples));
                if let Some(document) = &mut self.document {
                    document.score = Some(score);
                }
            }
            Message::CalibratedSoFar(stats) => {
                if let Some(document) = &mut self.document {
                    document.take_stats(stats);
                }
            }
            Message::Calibrated(calibrated) => self.calibrated(calibrated),
            Message::Examined(examined) => {
                if let Some(document) = &mut self.document {
                    document.take_examined(*examined);
                }
            }
            Message::Learnt(_) | Message::PlanRun(_) if !learnt => {}
            Message::Learnt(result) => self.learnt(result),
            Message::PlanRun(result) => self.plan_run(result),
            Message::FinetunedSoFar(point) => {
                if let Some(training) = self.document.as_mut().and_then(|document| document.training.as_mut()) {
                    training.curve.push(point);
                }
            }
            Message::Finetuned(Ok(tuned)) => self.finetuned(*tuned),
            Message::Finetuned(Err(failure)) => {
                if let Some(document) = &mut self.document {
                    document.training = None;
                }
                self.failed("fine-tuning", failure);
            }
            Message::RepairedSoFar(mended) => self.mended(*mended),
            Message::Repaired(Ok(mended)) => self.repaired(*mended),
            Message::Repaired(Err(failure)) => self.repair_failed(failure),
            Message::WouldOverwrite(path) => self.views.modal = Some(Question::Overwrite(path)),
            Message::Exported(Ok(exported)) => self.exported(*exported),
            Message::Benched(Ok(benched)) => {
                let ratio = benched.bench.latency_ratio.p50;
                self.log.add(format!("Latency ratio {ratio:.2} (quantized / original)"));
                if let Some(document) = &mut self.document {
                    document.problems.insert("comparison", benched.problems.clone());
                    document.benched = Some(Arc::new(*benched));
                }
            }
            Message::PlanOpened { path, result: Ok(OpenedPlan { plan, scaled }) } => {
                self.log.add(format!("Opened the plan {}", path.display()));
                if let Some(document) = &mut self.document {
                    if let Some(scaled) = scaled {
                        document.bring(scaled);
                    }
                    document.replace_plan("Open plan", *plan);
                    document.saved = Arc::clone(document.plan());
                    document.plan_path = Some(path);
                }
            }
            Message::Beside(offer) => {
                if let Some(document) = &mut self.document {
                    document.offer = offer;
                }
            }
            Message::Compared(Ok(compared)) => {
                self.log.add(format!(
                    "Compared with {}: {}",
                    compared.path.display(),
                    format::sqnr(compared.quality.sqnr_db)
                ));
                if let Some(document) = &mut self.document {
                    document.compared = Some(Arc::new(*compared));
                }
            }
            Message::Compared(Err(failure)) => self.failed("comparison of files", failure),
            Message::Scored(Err(failure)) => self.failed("score", failure),
            Message::Exported(Err(failure)) => self.failed("export failed", failure),
            Message::Benched(Err(failure)) => self.failed("comparison", failure),
            Message::PlanOpened { result: Err(failure), .. } => self.failed("plan file", failure),
        }
    }

    fn opened(&mut self, path: PathBuf, result: Result<Box<Model>, Failure>, sample: Option<&Sample>) {
        match result {
            Ok(model) => {
                self.generation += 1;
                self.worker.set_generation(self.generation);
                self.log.add(format!("Opened {}: {}", path.display(), format::layers(model.layers.len())));
                if sample.is_none() {
                    self.remember(&path);
                }
                self.selection.clear();
                self.views.layers.reset();
                self.views.calibrate.reset();
                self.views.dock = Pane::Calibrate;
                let opened = path.clone();
                let document = Document::new(self.generation, path, *model);
                self.views.export.reset();
                let sha256 = document.model.file.sha256.clone();
                self.document = Some(document);
                match self.waiting.take() {
                    Some((plan, from)) if plan.model_sha256 == sha256 => self.restore_plan(&plan, &from),
                    waited => {
                        if waited.is_some() {
                            self.note("This is another model than the one that the plan was made for");
                        }
                        let path = opened.clone();
                        self.worker.start_aside(move |control| jobs::beside(&path, &sha256, control));
                    }
                }
                match sample {
                    Some(sample) => {
                        self.views.calibrate.use_sample(sample);
                        self.start_preview();
                    }
                    None => self.use_known_data(&opened),
                }
            }
            Err(Failure::Cancelled) => {}
            Err(Failure::Problem(problem)) => {
                self.log.error(format!("{} ({})", problem.what, problem.place));
                if self.document.is_some() {
                    self.toasts.error(problem.what.clone());
                }
                self.problem("open another", problem);
            }
        }
    }

    fn light(&mut self, work: Work, about: &str, result: Result<Found, String>) {
        let Some(document) = &mut self.document else { return };
        let is_in_force = document.model.identity == about;
        let layer = work.layer();
        let Some(results) = document.results_of(about) else { return };
        match result {
            Ok(Found::Facts(facts)) => results.put_facts(layer, *facts),
            Ok(Found::WeightError(choice, db)) => results.put_weight_error(layer, &choice, db),
            Ok(Found::Rounded(choice, stats)) => results.put_rounded(layer, &choice, *stats),
            Ok(Found::Isolated(choice, isolated)) => results.put_isolated(layer, &choice, isolated),
            Ok(Found::Noise(choice, noise)) if is_in_force => document.put_noise(layer, &choice, noise),
            Ok(Found::Noise(choice, _)) => results.put_noise(layer, &choice),
            Err(why) => {
                results.fail(&work);
                let name = document.model.layers.get(layer).map(|layer| layer.name.clone()).unwrap_or_default();
                self.log.error(format!("{name}: {why}"));
            }
        }
    }

    fn previewed(&mut self, ctx: &Context, result: Result<Box<Preview>, Failure>) {
        let Some(document) = &mut self.document else { return };
        document.preview = match result {
            Ok(mut preview) => {
                let load = |(index, picture): (usize, &Picture)| {
                    let image = ColorImage::from_rgb([picture.width, picture.height], &picture.rgb);
                    ctx.load_texture(format!("sample {index}"), image, TextureOptions::NEAREST)
                };
                preview.textures = preview.pictures.iter().enumerate().map(load).collect();
                Some(Ok(Arc::new(*preview)))
            }
            Err(Failure::Problem(problem)) => Some(Err(problem)),
            Err(Failure::Cancelled) => None,
        };
    }

    fn calibrated(&mut self, calibrated: Calibrated) {
        let Some(document) = &mut self.document else { return };
        document.problems.insert("calibration", calibrated.problems);
        if let Some(stats) = calibrated.stats {
            let text = format!("Calibrated with {} samples in {:.1} s", stats.samples(), calibrated.seconds);
            self.log.add(&text);
            self.toasts.success(text);
            document.take_calibrated(Arc::new(*stats), calibrated.data, calibrated.spared);
        }
        if let Some(failure) = calibrated.failure {
            document.calibrate_with = None;
            self.failed("calibration", failure);
        }
    }

    fn learnt(&mut self, result: Result<Box<jobs::Learnt>, Failure>) {
        let Some(document) = &mut self.document else { return };
        match result {
            Ok(learnt) => {
                self.log.add(format!(
                    "Learnt from {} what matters to {}",
                    format::samples(learnt.samples),
                    learnt.output
                ));
                document.take_learnt(*learnt);
            }
            Err(Failure::Cancelled) => {}
            Err(failure) => {
                document.cannot_learn = true;
                self.failed("prediction", failure);
            }
        }
    }

    /// A plan with repaired weights was run.
    fn plan_run(&mut self, result: Result<(Arc<Plan>, Sqnr), Failure>) {
        let Some(document) = &mut self.document else { return };
        match result {
            Ok((plan, measured)) => {
                document.anchor(&plan, measured);
                // What gives no number, or is not known for another reason, is not run again and again.
                document.cannot_run_repairs = measured.db().is_none();
                self.log.add(format!("Ran the plan with its repaired weights: {}", format::sqnr(measured)));
            }
            Err(Failure::Cancelled) => {}
            Err(failure) => {
                document.cannot_run_repairs = true;
                self.failed("prediction", failure);
            }
        }
    }

    fn finetuned(&mut self, tuned: Tuned) {
        let db = |value: Option<f64>| value.map_or(format::NONE.to_owned(), format::db);
        let (before, after) = (db(tuned.result.before.sqnr_db), db(tuned.result.after.sqnr_db));
        self.log.add(format!("Fine-tuned: {before} → {after} on held-back samples"));
        self.toasts.success("Training ended: accept the weights or discard them");
        if let Some(document) = &mut self.document {
            document.problems.insert("fine-tuning", tuned.problems.clone());
            document.training.get_or_insert_default().tuned = Some(Arc::new(tuned));
            document.version += 1;
        }
    }

    fn exported(&mut self, exported: Exported) {
        let verified = &exported.verified;
        let path = verified.output.display();
        let (size, sqnr) = (format::bytes(verified.size_bytes.quantized), format::sqnr(verified.quality.sqnr_db));
        self.log.add(format!("Exported {path} ({size}), {sqnr}"));
        match exported.findings.first() {
            Some(finding) => {
                self.log.error(&finding.problem.what);
                self.toasts.warning("Exported, but the result is poor: see the problems");
            }
            None => drop(self.toasts.success("Exported and verified")),
        }
        if let Some(document) = &mut self.document {
            document.problems.remove("export failed");
            document.problems.insert("export", exported.verified.problems.clone());
            document.exported = Some(Arc::new(exported));
            document.benched = None;
            document.version += 1;
        }
    }

    fn runtime_found(&mut self, result: Result<&'static Runtime, Failure>) {
        self.runtime = match result {
            Ok(runtime) => {
                let about = format!("ONNX Runtime {}", runtime.version());
                self.log.add(format!("{about} from {}", runtime.library().display()));
                RuntimeState::Ready { runtime, about }
            }
            Err(Failure::Problem(problem)) => {
                self.log.error(format!("{}. {}", problem.what, problem.fix));
                RuntimeState::Missing(problem)
            }
            Err(Failure::Cancelled) => RuntimeState::Searching,
        };
    }

    /// Shows why a job has no result.
    pub(super) fn failed(&mut self, source: &'static str, failure: Failure) {
        match failure {
            Failure::Cancelled => {
                self.log.add(format!("Cancelled: {source}"));
                self.toasts.info("Cancelled");
            }
            Failure::Problem(problem) => {
                self.toasts.error(problem.what.clone());
                self.log.error(format!("{} ({})", problem.what, problem.place));
                self.problem(source, problem);
            }
        }
    }

    /// Adds a problem where it is seen: to the document's list, or to the start view.
    fn problem(&mut self, source: &'static str, problem: Problem) {
        match &mut self.document {
            Some(document) => {
                let list = document.problems.entry(source).or_default();
                list.retain(|known| *known != problem);
                list.push(problem);
                document.version += 1;
            }
            None => self.views.start.problem = Some(problem),
        }
    }
}
