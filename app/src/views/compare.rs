//! Original and export side by side: A, B and the difference; and how the error grows from layer to layer.

mod other;

use eframe::egui::{self, Grid, RichText, ScrollArea, Ui};
use egui_plot::{GridMark, HoverPosition, Line, Plot, PlotPoints, Points, uniform_grid_spacer};

use nibble_core::bench::{Clock, Speed};

use super::View;
use crate::command::Command;
use crate::document::Document;
use crate::edit::{Action, Edit};
use crate::jobs::Exported;
use crate::widgets::badge::{Source, badge};
use crate::widgets::field;
use crate::{format, theme};

/// Draws the comparison.
pub fn compare_ui(ui: &mut Ui, view: &View<'_>, document: &Document, actions: &mut Vec<Action>) {
    let height = ui.available_height();
    ui.horizontal_top(|ui| {
        let width = theme::left_part(ui);
        ui.allocate_ui_with_layout(egui::vec2(width, height), egui::Layout::top_down(egui::Align::Min), |ui| {
            ScrollArea::vertical().id_salt("comparison").auto_shrink(false).show(ui, |ui| {
                measure_ui(ui, view, document, actions);
                if let Some(exported) = &document.exported {
                    table_ui(ui, document, exported);
                    slower_ui(ui, document);
                }
            });
        });
        ui.separator();
        ui.vertical(|ui| match &document.compared {
            Some(compared) => other::other_ui(ui, document, compared, actions),
            None => layers_ui(ui, document, actions),
        });
    });
}

fn measure_ui(ui: &mut Ui, view: &View<'_>, document: &Document, actions: &mut Vec<Action>) {
    ui.horizontal(|ui| {
        let refusal = Command::Compare.refusal(view.able);
        let palette = theme::palette(ui);
        let again = document.benched.is_some();
        let title = if again { "Measure again" } else { "Measure side by side" };
        let button = egui::Button::new(RichText::new(title).color(palette.on_accent)).fill(palette.accent);
        let response = ui.add_enabled(refusal.is_empty(), button).accessible_name("Measure side by side");
        if response.on_hover_text(Command::Compare.tooltip()).on_disabled_hover_text(&refusal).clicked() {
            actions.push(Command::Compare.into());
        }
        if refusal.is_empty() {
            ui.label(RichText::new("both models in turn, so that other load hits both").weak());
        } else {
            ui.label(RichText::new(refusal).weak());
        }
    });
    let refusal = Command::CompareFile.refusal(view.able);
    let button = ui.add_enabled(refusal.is_empty(), egui::Button::new(Command::CompareFile.text_and_tooltip().0));
    if button.on_hover_text(Command::CompareFile.tooltip()).on_disabled_hover_text(refusal).clicked() {
        actions.push(Command::CompareFile.into());
    }
    ui.add_space(theme::GAP);
}

/// One line of the table.
struct Line3 {
    title: &'static str,
    a: String,
    b: String,
    difference: String,
    /// Whether B is better; `None` where neither is.
    better: Option<bool>,
}

fn table_ui(ui: &mut Ui, document: &Document, exported: &Exported) {
    let current = *exported.plan == **document.plan();
    ui.horizontal(|ui| {
        ui.label(theme::caption("Side by side"));
        badge(ui, if current { Source::Measured } else { Source::Stale });
        ui.label(RichText::new(&exported.measured_on).small().weak());
    });
    let palette = theme::palette(ui);
    Grid::new("a b difference").num_columns(4).spacing([26.0, 6.0]).striped(true).show(ui, |ui| {
        ui.label("");
        for title in ["A  original", "B  quantized", "Δ"] {
            ui.label(RichText::new(title).weak().strong());
        }
        ui.end_row();
        for line in lines(document, exported) {
            ui.label(RichText::new(line.title).weak());
            ui.label(&line.a);
            ui.label(RichText::new(&line.b).strong());
            let color = match line.better {
                Some(true) => palette.good,
                Some(false) => palette.bad,
                None => palette.text,
            };
            let difference = ui.label(RichText::new(&line.difference).color(color));
            let spoken = format!("Difference in {}: {}", line.title.to_lowercase(), line.difference);
            field::spoken(ui, &difference, spoken);
            ui.end_row();
        }
    });
}

fn lines(document: &Document, exported: &Exported) -> Vec<Line3> {
    let (before, after) = (document.model.file.size_bytes, exported.verified.size_bytes.quantized);
    let change = |a: f64, b: f64| format!("{:+.1} %", (b / a.max(f64::MIN_POSITIVE) - 1.0) * 100.0);
    let mut lines = vec![Line3 {
        title: "Size",
        a: format::bytes(before),
        b: format::bytes(after),
        difference: change(before as f64, after as f64),
        better: Some(after < before),
    }];
    if let Some(benched) = &document.benched
        && let [a, b, ..] = benched.bench.models.as_slice()
    {
        let ratio = benched.bench.latency_ratio;
        let better = match ratio.speed() {
            Speed::Faster => Some(true),
            Speed::Slower => Some(false),
            Speed::Same => None,
        };
        let pairs =
            [("Latency p50", a.latency_ms.p50, b.latency_ms.p50), ("Latency p95", a.latency_ms.p95, b.latency_ms.p95)];
        lines.extend(pairs.map(|(title, a, b)| Line3 {
            title,
            a: format::milliseconds(a),
            b: format::milliseconds(b),
            difference: change(a, b),
            better,
        }));
        lines.push(Line3 {
            title: "Latency ratio of pairs",
            a: "1".to_owned(),
            b: format!("{:.2}", ratio.p50),
            difference: format!("{:.2} … {:.2}", ratio.low, ratio.high),
            better,
        });
        if let (Some(a), Some(b)) = (a.peak_memory_bytes, b.peak_memory_bytes) {
            lines.push(Line3 {
                title: "Peak memory",
                a: format::bytes(a),
                b: format::bytes(b),
                difference: change(a as f64, b as f64),
                better: (a != b).then_some(b < a),
            });
        }
    }
    let none = || format::NONE.to_owned();
    let quality = &exported.verified.quality;
    lines.push(Line3 { title: "SQNR", a: none(), b: format::sqnr(quality.sqnr_db), difference: none(), better: None });
    if let Some(agreement) = quality.top1_agreement {
        let b = format::percent(agreement);
        lines.push(Line3 { title: "Same class", a: none(), b, difference: none(), better: None });
    }
    if let Some(accuracy) = quality.accuracy {
        let points = (accuracy.quantized - accuracy.original) * 100.0;
        lines.push(Line3 {
            title: "Accuracy",
            a: format::percent(accuracy.original),
            b: format::percent(accuracy.quantized),
            difference: format!("{points:+.2} points"),
            better: (points != 0.0).then_some(points > 0.0),
        });
    } else if let Some(score) = &document.score {
        let a = format::percent(score.accuracy);
        lines.push(Line3 { title: "Accuracy", a, b: none(), difference: none(), better: None });
    }
    lines
}

/// Where time was lost, when some was.
fn slower_ui(ui: &mut Ui, document: &Document) {
    let Some(benched) = &document.benched else { return };
    let bench = &benched.bench;
    if !document.exported.as_ref().is_some_and(|exported| std::sync::Arc::ptr_eq(&exported.plan, &benched.plan)) {
        ui.label(RichText::new("Measured on an earlier export").color(theme::palette(ui).warning));
    }
    ui.add_space(theme::GAP);
    let clock = match bench.clock {
        Clock::ThreadCpu => "CPU time of the thread",
        Clock::Wall => "time on the wall",
    };
    let text = format!(
        "{} rounds, {} samples, {} thread{}, {} · {}",
        bench.rounds,
        bench.samples,
        bench.threads,
        if bench.threads == 1 { "" } else { "s" },
        clock,
        bench.cpu_features.join(" ")
    );
    ui.label(RichText::new(text).small().weak());
    for line in benched.settled.iter().chain(&bench.slower) {
        ui.label(RichText::new(line).color(theme::palette(ui).warning));
    }
}

/// The error at each layer's output, in the order of the model.
fn layers_ui(ui: &mut Ui, document: &Document, actions: &mut Vec<Action>) {
    ui.horizontal(|ui| {
        ui.label(theme::caption("Accumulated error, layer by layer"));
        if let Some(exported) = &document.exported {
            badge(ui, if *exported.plan == **document.plan() { Source::Measured } else { Source::Stale });
        }
    });
    let Some(exported) = &document.exported else {
        ui.label(RichText::new("Export first: the error is measured in the exported model, layer by layer").weak());
        return;
    };
    let known: Vec<(usize, f64)> = document
        .model
        .layers
        .iter()
        .enumerate()
        .filter_map(|(index, layer)| Some((index, *exported.accumulated.get(&layer.name)?)))
        .filter(|(_, db)| db.is_finite())
        .collect();
    if known.is_empty() {
        ui.label(RichText::new("No layer's output could be compared").weak());
        return;
    }
    let palette = theme::palette(ui);
    let points: Vec<[f64; 2]> = known.iter().map(|&(index, db)| [index as f64 + 1.0, db]).collect();
    let names: Vec<String> = document.model.layers.iter().map(|layer| layer.name.clone()).collect();
    let plot = Plot::new("accumulated")
        .height(ui.available_height().max(60.0))
        .allow_drag(false)
        .allow_zoom(false)
        .allow_scroll(false)
        .show_grid([false, true])
        .y_axis_label("SQNR in dB")
        .y_grid_spacer(uniform_grid_spacer(|input| {
            let (low, high) = input.bounds;
            let step =
                [1.0, 2.0, 5.0, 10.0, 20.0, 50.0].into_iter().find(|step| (high - low) / step <= 6.0).unwrap_or(100.0);
            [step, step, step]
        }))
        .x_axis_formatter(
            |mark: GridMark, _| if mark.value.fract() == 0.0 { format!("{:.0}", mark.value) } else { String::new() },
        )
        .label_formatter(move |hover| {
            let HoverPosition::NearDataPoint { position, .. } = hover else { return None };
            let index = position.x.round() as usize;
            let name = names.get(index.wrapping_sub(1)).map_or("", String::as_str);
            Some(format!("{name}\n{:.1} dB", position.y))
        });
    let response = plot.show(ui, |plot| {
        plot.line(Line::new("Accumulated SQNR", PlotPoints::from(points.clone())).color(palette.accent).width(1.5));
        plot.points(Points::new("Layers", PlotPoints::from(points)).color(palette.accent).radius(3.0));
        plot.pointer_coordinate()
    });
    if response.response.clicked()
        && let Some(at) = response.inner
    {
        let nearest = known.iter().min_by(|a, b| {
            let distance = |index: usize| (index as f64 + 1.0 - at.x).abs();
            distance(a.0).total_cmp(&distance(b.0))
        });
        if let Some(layer) = nearest.and_then(|(index, _)| document.model.layers.get(*index)) {
            actions.push(Edit::SelectNamed(layer.name.clone()).into());
        }
    }
}
