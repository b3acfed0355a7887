//! The calibration lab: how ranges move with the number of samples, which samples set them, which are outliers. A click on
//! a sample shows what it sets, a click on a tensor leads to its layers; a sample can be left out of calibration.

mod samples;
mod tensors;

use eframe::egui::{self, RichText, Ui};
use egui_plot::{AxisHints, FilledArea, GridInput, GridMark, HLine, HoverPosition, Line, Plot, PlotPoints, Points};
use nibble_core::calibrate::lab::{Lab, Point};
use nibble_core::stats::SampleId;

use super::View;
use crate::document::Document;
use crate::edit::Action;
use crate::jobs::Examined;
use crate::widgets::field;
use crate::{format, theme};

/// Least width of the chart and of each list.
const LEAST: f32 = 300.0;

/// What is chosen.
#[derive(Clone, Debug, Default)]
pub struct LabState {
    /// The sample whose tensors are listed; all are without one.
    sample: Option<SampleId>,
    /// Name of the tensor that the chart is about; it is about all without one.
    tensor: Option<String>,
}

/// Draws the verdict, the chart, the samples and the tensors.
pub fn lab_ui(ui: &mut Ui, view: &View<'_>, document: &Document, state: &mut LabState, actions: &mut Vec<Action>) {
    let Some(examined) = document.examined.as_deref().filter(|_| document.stats.is_some()) else {
        let text = if document.stats.is_some() {
            "Looking at what single samples did"
        } else {
            "Calibrate first: the lab shows which samples set the ranges, and how many are enough"
        };
        ui.label(RichText::new(text).weak());
        left_out_ui(ui, document, None, actions);
        return;
    };
    let lab = &examined.lab;
    if lab.tensors.is_empty() {
        let why = "These statistics know nothing of single samples: calibrate again";
        ui.label(RichText::new(why).weak());
        return;
    }
    ui.horizontal_wrapped(|ui| {
        let palette = theme::palette(ui);
        let color = if lab.enough.is_some() { palette.good } else { palette.warning };
        let verdict = lab.verdict();
        let label = ui.label(RichText::new(&verdict).color(color));
        field::spoken(ui, &label, format!("Calibration: {verdict}"));
        let is_current = document.stats.as_ref().is_some_and(|stats| std::sync::Arc::ptr_eq(stats, &examined.stats));
        if !is_current {
            ui.label(RichText::new("· of the statistics before").weak());
        }
        let all = lab.samples.len();
        if lab.seen > all as u64 {
            let text = format!("· {} of {} looked at one by one", format::samples(all), lab.seen);
            ui.label(RichText::new(text).weak());
        }
    });
    left_out_ui(ui, document, Some(examined), actions);
    ui.add_space(theme::GAP);
    let height = ui.available_height();
    let gaps = 4.0 * ui.spacing().item_spacing.x + 12.0;
    let part = ((ui.available_width() - gaps) / 3.0).max(LEAST);
    egui::ScrollArea::horizontal().auto_shrink(false).show(ui, |ui| {
        ui.horizontal_top(|ui| {
            let column = |ui: &mut Ui, add: &mut dyn FnMut(&mut Ui)| {
                let layout = egui::Layout::top_down(egui::Align::Min);
                ui.allocate_ui_with_layout(egui::vec2(part, height), layout, |ui| {
                    ui.set_width(part);
                    add(ui);
                });
            };
            column(ui, &mut |ui| chart_ui(ui, lab, state));
            ui.separator();
            column(ui, &mut |ui| samples::samples_ui(ui, document, examined, &mut state.sample, actions));
            ui.separator();
            column(ui, &mut |ui| tensors::tensors_ui(ui, view, document, examined, state, actions));
        });
    });
}

/// Buttons as low as the rows of a list.
fn tighten(ui: &mut Ui) {
    let spacing = ui.spacing_mut();
    spacing.item_spacing.x = 6.0;
    spacing.button_padding = egui::vec2(4.0, 1.0);
    spacing.interact_size.y = theme::ROW - 4.0;
}

/// What is left out, each with the way back.
fn left_out_ui(ui: &mut Ui, document: &Document, examined: Option<&Examined>, actions: &mut Vec<Action>) {
    if document.left_out().is_empty() {
        return;
    }
    ui.horizontal_wrapped(|ui| {
        ui.label(RichText::new("Left out:").weak());
        for &sample in document.left_out().iter() {
            let name = examined.map_or_else(|| format!("sample {}", sample.sample), |examined| examined.name(sample));
            ui.label(&name);
            let button = ui.small_button("Take in again").accessible_name(format!("Take in {name} again"));
            if button.clicked() {
                actions.push(crate::edit::Edit::LeaveOut { sample, name, out: false }.into());
            }
        }
    });
}

/// Width of ranges by number of samples; 1, 2, 4 … lie at equal distances.
fn chart_ui(ui: &mut Ui, lab: &Lab, state: &mut LabState) {
    let palette = theme::palette(ui);
    let chosen = state.tensor.as_ref().and_then(|name| lab.tensors.iter().find(|tensor| tensor.name == *name));
    ui.horizontal(|ui| {
        let title = match chosen {
            Some(tensor) => format::tail(&tensor.name, 30),
            None => format!("All {} tensors", lab.tensors.len()),
        };
        ui.label(theme::caption("Range by number of samples")).on_hover_text(
            "Sets of so many samples drawn with replacement from all of them, and how wide the ranges are that they \
             give: nine sets in ten lie in the band",
        );
        ui.label(RichText::new(title).strong());
        if chosen.is_some() && ui.small_button("All tensors").clicked() {
            state.tensor = None;
        }
    });
    let points: &[Point] = chosen.map_or(&lab.curve, |tensor| &tensor.curve);
    let xs: Vec<f64> = points.iter().map(|point| (point.samples as f64).log2()).collect();
    let line = |of: fn(&Point) -> f64| -> Vec<[f64; 2]> {
        xs.iter().zip(points).map(|(&x, point)| [x, of(point) * 100.0]).collect()
    };
    let of = |of: fn(&Point) -> f64| -> Vec<f64> { points.iter().map(|point| of(point) * 100.0).collect() };
    let marks: Vec<GridMark> = xs.iter().map(|&value| GridMark { value, step_size: 1.0 }).collect();
    let within = if chosen.is_some() { "near" } else { "settled" };
    let asked = if chosen.is_some() { lab.options.confidence } else { lab.options.share } * 100.0;
    ui.horizontal_wrapped(|ui| {
        ui.spacing_mut().item_spacing.x = 12.0;
        let median = RichText::new("● width, in % of that of all samples").small().color(palette.activations);
        ui.label(median).on_hover_text("The line is the median, the band holds nine sets in ten");
        let share =
            if chosen.is_some() { "● share of sets that come near" } else { "● share of tensors that are settled" };
        let tolerance = format::percent(lab.options.tolerance);
        ui.label(RichText::new(share).small().color(palette.accent))
            .on_hover_text(format!("Near: within {tolerance}; the grey line is what is asked for"));
    });
    Plot::new("lab")
        .height(ui.available_height().max(110.0))
        .allow_drag(false)
        .allow_zoom(false)
        .allow_scroll(false)
        .x_grid_spacer(move |_: GridInput| marks.clone())
        .custom_x_axes(vec![
            AxisHints::new_x()
                .label("samples")
                .formatter(|mark: GridMark, _| format!("{:.0}", mark.value.exp2()))
                // Every power of two has its figure, however narrow the chart is.
                .label_spacing(16.0..=22.0),
        ])
        .include_y(0.0)
        .include_y(104.0)
        .label_formatter(|hover| {
            let HoverPosition::NearDataPoint { position, .. } = hover else { return None };
            Some(format!("{} samples\n{:.1} %", position.x.exp2().round(), position.y))
        })
        .show(ui, |plot| {
            let band = FilledArea::new("nine sets in ten", &xs, &of(|p| p.low), &of(|p| p.high));
            plot.add(band.fill_color(palette.activations.gamma_multiply(0.25)));
            plot.line(Line::new("median", PlotPoints::from(line(|p| p.median))).color(palette.activations).width(2.0));
            plot.points(
                Points::new("median", PlotPoints::from(line(|p| p.median))).color(palette.activations).radius(3.0),
            );
            plot.line(Line::new(within, PlotPoints::from(line(|p| p.within))).color(palette.accent).width(1.5));
            plot.points(Points::new(within, PlotPoints::from(line(|p| p.within))).color(palette.accent).radius(2.5));
            plot.hline(HLine::new("asked for", asked).color(palette.weak).width(1.0));
        });
}
