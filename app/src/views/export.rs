//! The plan checked, the model written, run and measured; then what it takes to run it elsewhere.

use eframe::egui::{self, Grid, RichText, ScrollArea, Ui};
use nibble_core::export::Form as LayerForm;
use nibble_core::problem::Severity;
use nibble_core::{Problem, problem};

use super::problems::problem_ui;
use super::{Snapshot, View};
use crate::document::Document;
use crate::edit::{Action, Edit, Purpose};
use crate::jobs::Exported;
use crate::widgets::badge::{Source, badge};
use crate::widgets::field;
use crate::{format, theme};

/// What is typed into the export form.
#[derive(Default)]
pub struct Form {
    /// Where to write.
    pub path: String,
    /// What was suggested last; the suggestion follows the plan until another path is typed.
    suggested: String,
}

impl Form {
    /// Forgets what belonged to another model.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    fn suggest(&mut self, document: &Document) {
        if self.path == self.suggested {
            self.path = crate::dialogs::export_path(&document.path, document.plan()).display().to_string();
            self.suggested.clone_from(&self.path);
        }
    }
}

/// Draws the check and the form on the left, the result on the right.
pub fn export_ui(ui: &mut Ui, view: &View<'_>, snapshot: &Snapshot<'_>, form: &mut Form, actions: &mut Vec<Action>) {
    let height = ui.available_height();
    ui.horizontal_top(|ui| {
        let width = theme::left_part(ui);
        ui.allocate_ui_with_layout(egui::vec2(width, height), egui::Layout::top_down(egui::Align::Min), |ui| {
            ScrollArea::vertical().id_salt("export form").auto_shrink(false).show(ui, |ui| {
                form_ui(ui, view, snapshot, form, actions);
                check_ui(ui, snapshot.document, actions);
            });
        });
        ui.separator();
        ui.vertical(|ui| {
            ScrollArea::vertical().id_salt("export result").auto_shrink(false).show(ui, |ui| {
                let document = snapshot.document;
                for problem in document.problems.get("export failed").into_iter().flatten() {
                    problem_ui(ui, problem, Some(document), actions);
                }
                if let Some(exported) = &document.exported {
                    result_ui(ui, document, exported, actions);
                    return;
                }
                ui.label(theme::caption("Result"));
                let text = "The export is written to a temporary file, loaded and run in ONNX Runtime, and kept only if it runs; what was measured then stands here";
                ui.label(RichText::new(text).weak());
            });
        });
    });
}

fn form_ui(ui: &mut Ui, view: &View<'_>, snapshot: &Snapshot<'_>, form: &mut Form, actions: &mut Vec<Action>) {
    let document = snapshot.document;
    form.suggest(document);
    ui.horizontal(|ui| {
        let before = document.model.file.size_bytes;
        ui.label(format!("{} → {}", format::bytes(before), format::bytes(snapshot.predicted_size)));
        badge(ui, Source::Predicted);
        let (quantized, able) = document.quantized_layers();
        ui.label(RichText::new(format!("{quantized} of {able} layers in integers")).weak());
    });
    field::row(ui, "Write to", |ui| {
        let width = ui.available_width() - 90.0;
        field::text(ui, "Export path", "path of the quantized .onnx file", &mut form.path, width);
        if ui.button("Browse…").accessible_name("Browse for the export").clicked() {
            actions.push(Edit::Browse(Purpose::Export).into());
        }
    });
    let refusal = refusal(view, document, form);
    ui.horizontal(|ui| {
        let palette = theme::palette(ui);
        let button =
            egui::Button::new(RichText::new("Export and verify").color(palette.on_accent)).fill(palette.accent);
        let response = ui.add_enabled(refusal.is_empty(), button);
        if response.on_disabled_hover_text(&refusal).clicked() {
            actions.push(Edit::Export { path: super::expanded(&form.path), overwrite: false }.into());
        }
        if !refusal.is_empty() {
            ui.label(RichText::new(&refusal).color(palette.warning));
        }
    });
    ui.add_space(theme::GAP);
}

fn refusal(view: &View<'_>, document: &Document, form: &Form) -> String {
    if form.path.trim().is_empty() {
        return "Say where to write it".to_owned();
    }
    if document.quantized_layers().0 == 0
        && document.model.layers.iter().enumerate().all(|(index, _)| is_float(document, index))
    {
        return "Nothing would be quantized: choose a preset or a precision".to_owned();
    }
    let statics = (0..document.model.layers.len())
        .filter(|&index| document.pick(index).is_some_and(|pick| pick.form.needs_statistics()));
    let count = statics.count();
    if count > 0 && document.stats.is_none() {
        return format!("{} are static: calibrate first", format::layers(count));
    }
    view.able.run_refusal()
}

fn is_float(document: &Document, layer: usize) -> bool {
    document.pick(layer).is_none_or(|pick| pick.form == LayerForm::Float)
}

/// What will not come out as chosen, before anything is written.
fn check_ui(ui: &mut Ui, document: &Document, actions: &mut Vec<Action>) {
    let mut found: Vec<Problem> = Vec::new();
    for (index, layer) in document.model.layers.iter().enumerate() {
        let Some(pick) = document.pick(index) else { continue };
        let asked = document.asked(index);
        if !layer.quantizable() && layer.parameters >= 1024 {
            let what = "Stays in floating point";
            found.push(Problem::new(Severity::Note, what, &layer.name, &layer.reason, ""));
        } else if layer.quantizable() && !pick.departure.is_empty() {
            let what = format!("Comes out as the nearest choice, {}", format::form(pick.form));
            let why = format!("{}; {}", pick.reason, pick.departure);
            found.push(Problem::new(Severity::Note, what, &layer.name, why, ""));
        } else if layer.quantizable() && pick.form == LayerForm::Float && asked.is_integer() {
            found.push(Problem::new(Severity::Warning, "Will stay in floating point", &layer.name, &pick.reason, ""));
        }
    }
    let plan = document.problems.get("plan").into_iter().flatten();
    let worst = plan.chain(&found).filter(|problem| problem.severity > problem::Severity::Note).count();
    ui.label(theme::caption(&format!("Before you export: {} to know, {worst} to look at", found.len())));
    if found.is_empty() {
        ui.label(RichText::new("Every layer comes out as chosen").color(theme::palette(ui).good));
    }
    for problem in document.problems.get("plan").into_iter().flatten().chain(&found) {
        problem_ui(ui, problem, Some(document), actions);
    }
}

fn result_ui(ui: &mut Ui, document: &Document, exported: &Exported, actions: &mut Vec<Action>) {
    let current = *exported.plan == **document.plan();
    let quality = &exported.verified.quality;
    ui.horizontal(|ui| {
        ui.label(theme::caption("Result"));
        badge(ui, if current { Source::Measured } else { Source::Stale });
        ui.label(RichText::new(&exported.measured_on).weak());
    });
    ui.label(RichText::new(exported.verified.output.display().to_string()).strong());
    // What is wrong with it comes before its figures.
    for finding in &exported.findings {
        problem_ui(ui, &finding.problem, Some(document), actions);
    }
    Grid::new("quality").num_columns(2).spacing([24.0, 4.0]).show(ui, |ui| {
        let mut line = |title: &str, text: String, name: &str| {
            ui.label(RichText::new(title).weak());
            let label = ui.label(&text);
            field::spoken(ui, &label, format!("{name}: {text}"));
            ui.end_row();
        };
        let before = document.model.file.size_bytes;
        let share = exported.verified.size_bytes.quantized as f64 / before.max(1) as f64;
        let sizes = format!(
            "{} → {} ({})",
            format::bytes(before),
            format::bytes(exported.verified.size_bytes.quantized),
            format::percent(share)
        );
        line("Size", sizes, "Exported size");
        let output = if quality.output.is_empty() { String::new() } else { format!(" at {}", quality.output) };
        line("SQNR", format!("{}{output}", format::sqnr(quality.sqnr_db)), "Measured SQNR");
        if let Some(cosine) = quality.cosine {
            line("Cosine", format!("{cosine:.6}"), "Measured cosine");
        }
        if let Some(agreement) = quality.top1_agreement {
            line("Same class", format::percent(agreement), "Measured agreement");
        }
        if let Some(accuracy) = quality.accuracy {
            let text = format!("{} → {}", format::percent(accuracy.original), format::percent(accuracy.quantized));
            line("Accuracy", text, "Measured accuracy");
        }
        line("Largest error", format!("{:.5}", quality.max_abs_error), "Largest error");
        if quality.non_finite > 0 {
            line("Not finite", quality.non_finite.to_string(), "Non-finite values");
        }
        if let Some(ort) = &exported.verified.ort {
            let (size, same) = (format::bytes(ort.size_bytes), format::sqnr(ort.sqnr_db));
            line(
                "ORT format",
                format!("{}, {size}, {same} to the ONNX file", ort.output.display()),
                "File in ORT format",
            );
        }
        line("Samples", quality.samples.to_string(), "Samples measured");
    });
    ui.add_space(theme::GAP);
    deployment_ui(ui, exported, actions);
    let said = |problem: &&Problem| exported.findings.iter().any(|finding| finding.problem == **problem);
    let problems = exported.verified.problems.iter().filter(|problem| problem.severity > Severity::Note);
    for problem in problems.filter(|problem| !said(problem)) {
        problem_ui(ui, problem, Some(document), actions);
    }
}

/// What it takes to run the file, and the lines that load it.
fn deployment_ui(ui: &mut Ui, exported: &Exported, actions: &mut Vec<Action>) {
    let deployment = &exported.verified.deployment;
    ui.label(theme::caption("To run it"));
    let domains: Vec<String> = deployment.domains.iter().map(|(name, version)| format!("{name} {version}")).collect();
    let facts = [
        ("Runtime", deployment.runtime.clone()),
        ("Operators", domains.join(", ")),
        ("File format", format!("IR version {}", deployment.ir_version)),
        (
            "Session options",
            deployment
                .session_options
                .iter()
                .map(|(key, value)| format!("{key} = {value}"))
                .collect::<Vec<_>>()
                .join(", "),
        ),
    ];
    Grid::new("deployment").num_columns(2).spacing([24.0, 4.0]).show(ui, |ui| {
        for (title, text) in facts.iter().filter(|(_, text)| !text.is_empty()) {
            ui.label(RichText::new(*title).weak());
            ui.label(text);
            ui.end_row();
        }
    });
    egui::Frame::new().fill(theme::palette(ui).background).corner_radius(5).inner_margin(8).show(ui, |ui| {
        ui.set_width(ui.available_width());
        ui.label(RichText::new(&deployment.snippet).monospace());
    });
    if ui.button("Copy the lines").clicked() {
        actions.push(Edit::Copy(deployment.snippet.clone()).into());
    }
}
