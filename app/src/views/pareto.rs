//! Plans by error and size: the best combinations of candidates, the presets, and the plan in force. A click shows a plan,
//! a button puts it in force.

use eframe::egui::{self, DragValue, RichText, Ui};
use egui_plot::{GridMark, HoverPosition, Line, MarkerShape, Plot, PlotPoint, PlotPoints, Points, Text};
use nibble_core::predict::Prediction;

use super::{Snapshot, View, sensitivity};
use crate::document::Document;
use crate::edit::{Action, Edit};
use crate::jobs::{Learnt, Point};
use crate::widgets::badge::{Source, badge};
use crate::widgets::field;
use crate::{format, theme};

/// How near a click has to be, in points.
const NEAR: f32 = 18.0;
/// Width of what stands beside the chart.
const DETAILS: f32 = 300.0;

/// What was asked for.
pub struct ParetoState {
    selected: Option<usize>,
    least_db: f64,
    most_percent: f64,
}

impl Default for ParetoState {
    fn default() -> Self {
        Self { selected: None, least_db: 30.0, most_percent: 30.0 }
    }
}

/// Draws the chart.
pub fn pareto_ui(
    ui: &mut Ui,
    view: &View<'_>,
    snapshot: &Snapshot<'_>,
    state: &mut ParetoState,
    actions: &mut Vec<Action>,
) {
    let document = snapshot.document;
    let Some(learnt) = &document.learnt else {
        sensitivity::missing_ui(ui, view, document);
        return;
    };
    let height = ui.available_height();
    ui.horizontal_top(|ui| {
        let width = (ui.available_width() - DETAILS).max(240.0);
        ui.allocate_ui_with_layout(egui::vec2(width, height), egui::Layout::top_down(egui::Align::Min), |ui| {
            chart_ui(ui, document, learnt, state);
        });
        ui.separator();
        ui.vertical(|ui| details_ui(ui, document, learnt, state, actions));
    });
}

/// Bytes and dB, where both can be drawn.
fn place(prediction: &Prediction) -> Option<[f64; 2]> {
    let db = prediction.sqnr_db.db().filter(|db| db.is_finite() && prediction.unknown.is_empty())?;
    Some([prediction.size_bytes as f64, db])
}

/// What at most so many bytes can have: level from each plan to the next better one.
fn stairs(found: &[[f64; 2]]) -> Vec<[f64; 2]> {
    let corners = found.windows(2).filter_map(|pair| match pair {
        [from, to] => Some([[to[0], from[1]], *to]),
        _ => None,
    });
    found.first().copied().into_iter().chain(corners.flatten()).collect()
}

fn chart_ui(ui: &mut Ui, document: &Document, learnt: &Learnt, state: &mut ParetoState) {
    let palette = theme::palette(ui);
    let found: Vec<[f64; 2]> =
        learnt.points.iter().filter(|point| point.preset.is_none()).filter_map(|p| place(&p.prediction)).collect();
    let mut presets: Vec<(&str, [f64; 2])> =
        learnt.points.iter().filter_map(|point| Some((point.preset?, place(&point.prediction)?))).collect();
    presets.sort_by(|a, b| a.1[0].total_cmp(&b.1[0]));
    let own = document.forecast.as_ref().and_then(|forecast| place(&forecast.outlook.prediction));
    let chosen = state.selected.and_then(|at| place(&learnt.points.get(at)?.prediction));
    let measured = document.exported.as_ref().and_then(|exported| {
        let db = exported.verified.quality.sqnr_db.db().filter(|db| db.is_finite())?;
        Some([exported.verified.size_bytes.quantized as f64, db])
    });
    let plot = Plot::new("pareto")
        .height(ui.available_height().max(80.0))
        .allow_drag(false)
        .allow_zoom(false)
        .allow_scroll(false)
        .show_grid([false, true])
        .x_axis_label("size of the file")
        .y_axis_label("predicted SQNR in dB")
        .x_axis_formatter(
            |mark: GridMark, _| if mark.value < 0.0 { String::new() } else { format::bytes(mark.value as u64) },
        )
        .label_formatter(|hover| {
            let HoverPosition::NearDataPoint { position, .. } = hover else { return None };
            Some(format!("{}\n{:.1} dB", format::bytes(position.x.max(0.0) as u64), position.y))
        });
    let response = plot.show(ui, |plot| {
        // Step by step: the joint of a line that turns at a right angle is drawn as a wedge.
        for step in stairs(&found).windows(2) {
            plot.line(Line::new("Best plans", PlotPoints::from(step.to_vec())).color(palette.accent).width(1.0));
        }
        plot.points(Points::new("Best plans", PlotPoints::from(found.clone())).color(palette.accent).radius(3.5));
        for (index, (name, at)) in presets.iter().enumerate() {
            let shape = Points::new(*name, PlotPoints::from(vec![*at])).shape(MarkerShape::Square);
            plot.points(shape.color(palette.activations).radius(4.5));
            // Neighbours would write over each other.
            let anchor = if index % 2 == 0 { egui::Align2::LEFT_BOTTOM } else { egui::Align2::LEFT_TOP };
            let label = RichText::new(*name).size(11.0);
            let text = Text::new(*name, PlotPoint::new(at[0], at[1]), label).anchor(anchor);
            plot.text(text.color(palette.activations));
        }
        if let Some(own) = own {
            let mark = Points::new("The present plan", PlotPoints::from(vec![own])).shape(MarkerShape::Diamond);
            plot.points(mark.color(palette.good).radius(7.0));
        }
        if let Some(measured) = measured {
            let mark = Points::new("Measured", PlotPoints::from(vec![measured])).shape(MarkerShape::Cross);
            plot.points(mark.color(palette.text).radius(7.0));
        }
        if let Some(chosen) = chosen {
            let ring = Points::new("Chosen", PlotPoints::from(vec![chosen])).filled(false);
            plot.points(ring.color(palette.text).radius(9.0));
        }
    });
    let clicked = response.response.interact_pointer_pos().filter(|_| response.response.clicked());
    if let Some(at) = clicked {
        let distance = |point: &Point| -> Option<f32> {
            let [x, y] = place(&point.prediction)?;
            Some(response.transform.position_from_point(&PlotPoint::new(x, y)).distance(at))
        };
        let each = learnt.points.iter().enumerate().filter_map(|(index, point)| Some((index, distance(point)?)));
        let nearest = each.filter(|(_, distance)| *distance < NEAR).min_by(|a, b| a.1.total_cmp(&b.1));
        state.selected = nearest.map(|(index, _)| index);
    }
}

fn details_ui(ui: &mut Ui, document: &Document, learnt: &Learnt, state: &mut ParetoState, actions: &mut Vec<Action>) {
    let original = document.model.file.size_bytes.max(1) as f64;
    ui.horizontal(|ui| {
        ui.label(theme::caption("Find a plan"));
        badge(ui, Source::Predicted);
    });
    ui.horizontal(|ui| {
        let drag = DragValue::new(&mut state.least_db).range(0.0..=120.0).speed(0.2).suffix(" dB");
        let drag = ui.add(drag).on_hover_text("The least quality");
        drag.accessible_name("Least SQNR");
        if ui.button("Smallest with at least this").clicked() {
            let fits = |point: &Point| place(&point.prediction).is_some_and(|[_, db]| db >= state.least_db);
            state.selected = best(learnt, fits, |[size, _]| size);
        }
    });
    ui.horizontal(|ui| {
        let drag = DragValue::new(&mut state.most_percent).range(1.0..=200.0).speed(0.2).suffix(" %");
        let drag = ui.add(drag).on_hover_text("The largest file, as a share of the original");
        drag.accessible_name("Largest size");
        if ui.button("Best with at most this size").clicked() {
            let most = state.most_percent / 100.0 * original;
            let fits = |point: &Point| place(&point.prediction).is_some_and(|[size, _]| size <= most);
            state.selected = best(learnt, fits, |[_, db]| -db);
        }
    });
    ui.add_space(theme::SECTION);
    let Some(point) = state.selected.and_then(|at| learnt.points.get(at)) else {
        ui.label(RichText::new("Click a point of the chart to look at its plan").weak());
        return;
    };
    ui.label(theme::caption(point.preset.unwrap_or("Found plan")));
    let [size, db] = place(&point.prediction).unwrap_or_default();
    let figures =
        format!("{} ({:.0} % of the original), {db:.1} dB", format::bytes(size as u64), size / original * 100.0);
    let label = ui.label(RichText::new(&figures).strong());
    field::spoken(ui, &label, format!("Plan of the point: {figures}"));
    if let (Some(low), Some(high)) = (point.prediction.low_db, point.prediction.high_db) {
        ui.label(RichText::new(format!("expected between {} and {}", format::db(low), format::db(high))).weak());
    }
    let changed = document
        .model
        .layers
        .iter()
        .filter(|layer| layer.quantizable() && point.plan.choice(&layer.name) != document.plan().choice(&layer.name))
        .count();
    ui.label(RichText::new(format!("{} would change", format::layers(changed))).weak());
    ui.add_space(theme::GAP);
    let palette = theme::palette(ui);
    let button = egui::Button::new(RichText::new("Open this plan").color(palette.on_accent)).fill(palette.accent);
    if ui.add_enabled(changed > 0, button).on_disabled_hover_text("It is the present plan").clicked() {
        let name = point.preset.map_or_else(
            || format!("Plan of {} and {db:.1} dB", format::bytes(size as u64)),
            |name| format!("Preset {name}"),
        );
        actions.push(Edit::UsePlan { plan: point.plan.clone(), label: name }.into());
    }
    ui.label(RichText::new("One step, which undo takes back; export to measure it").small().weak());
}

/// The point of those that fit whose `cost` is least.
fn best(learnt: &Learnt, fits: impl Fn(&Point) -> bool, cost: impl Fn([f64; 2]) -> f64) -> Option<usize> {
    let each = learnt.points.iter().enumerate().filter(|(_, point)| fits(point));
    let each = each.filter_map(|(index, point)| Some((index, cost(place(&point.prediction)?))));
    each.min_by(|a, b| a.1.total_cmp(&b.1)).map(|(index, _)| index)
}
