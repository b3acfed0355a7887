//! Which layers hurt: every layer's error as a bar, the worst first. A click selects.

use eframe::egui::{self, Align2, CornerRadius, FontId, Rect, RichText, ScrollArea, Sense, Ui, Vec2, WidgetInfo, pos2};

use super::View;
use super::layers::Row;
use crate::document::Document;
use crate::edit::{Action, Edit};
use crate::selection::Click;
use crate::widgets::badge::{Source, badge};
use crate::{format, theme};

/// Error from which on a bar is empty, in dB.
const CLEAN_DB: f64 = 60.0;
/// Width of the names.
const NAME: f32 = 230.0;
/// Width of the figures.
const FIGURE: f32 = 70.0;

/// Which error the bars show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Metric {
    /// Of the weights themselves.
    Weights,
    /// At the layer's own output.
    #[default]
    Isolated,
    /// At the layer's output with the whole plan in force.
    Accumulated,
}

impl Metric {
    /// All of them with their titles.
    pub const ALL: &'static [(Self, &'static str)] =
        &[(Self::Weights, "Weights"), (Self::Isolated, "Isolated"), (Self::Accumulated, "Accumulated")];

    /// The layer's error in dB, if it is known.
    pub fn of(self, row: &Row<'_>) -> Option<f64> {
        let db = match self {
            Self::Weights => row.weight_sqnr().known(),
            Self::Isolated => row.isolated().known(),
            Self::Accumulated => row.accumulated().map(|(db, _)| db),
        };
        db.filter(|db| !db.is_nan())
    }

    /// What has to be done for it to be known.
    pub fn needs(self) -> &'static str {
        match self {
            Self::Weights => "The errors are being computed",
            Self::Isolated => "Calibrate first: the isolated error needs to know what enters the layers",
            Self::Accumulated => "Export first: the accumulated error is measured in the exported model",
        }
    }
}

/// Draws the choice of the error and the bars.
pub fn errors_ui(ui: &mut Ui, view: &View<'_>, document: &Document, metric: &mut Metric, actions: &mut Vec<Action>) {
    let mut rows: Vec<(f64, Row<'_>)> = (0..document.model.layers.len())
        .filter_map(|layer| Row::new(document, layer))
        .filter(|row| row.layer.quantizable())
        .filter_map(|row| Some((metric.of(&row)?, row)))
        .collect();
    rows.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.index.cmp(&b.1.index)));
    ui.horizontal(|ui| {
        for (value, title) in Metric::ALL {
            let response = ui.selectable_label(*metric == *value, *title);
            if response.accessible_name(format!("Bars of {}", title.to_lowercase())).clicked() {
                *metric = *value;
            }
        }
        match (*metric, rows.first()) {
            (Metric::Accumulated, Some((_, row))) => {
                let stale = row.accumulated().is_some_and(|(_, stale)| stale);
                badge(ui, if stale { Source::Stale } else { Source::Measured });
            }
            (_, Some(_)) => drop(badge(ui, Source::Predicted)),
            (_, None) => {}
        }
        ui.label(RichText::new("the longer the bar, the larger the error").weak());
    });
    ui.add_space(theme::GAP);
    if rows.is_empty() {
        ui.label(RichText::new(metric.needs()).weak());
        return;
    }
    ScrollArea::vertical().auto_shrink(false).show_rows(ui, theme::ROW, rows.len(), |ui, range| {
        ui.spacing_mut().item_spacing.y = 0.0;
        for (db, row) in range.filter_map(|index| rows.get(index)) {
            bar_ui(ui, view, *db, row, actions);
        }
    });
}

fn bar_ui(ui: &mut Ui, view: &View<'_>, db: f64, row: &Row<'_>, actions: &mut Vec<Action>) {
    let palette = theme::palette(ui);
    let (rect, response) = ui.allocate_exact_size(Vec2::new(ui.available_width(), theme::ROW), Sense::click());
    let name = &row.layer.name;
    response.widget_info(|| {
        WidgetInfo::labeled(egui::accesskit::Role::Button, true, format!("Error of {name}: {}", format::db(db)))
    });
    let selected = view.selection.contains(row.index);
    if selected || response.hovered() {
        let fill = if selected { palette.selected } else { palette.control };
        ui.painter().rect_filled(rect, CornerRadius::same(3), fill);
    }
    let font = FontId::proportional(13.0);
    let names = Rect::from_min_size(rect.min, Vec2::new(NAME, rect.height()));
    let middle = rect.center().y;
    ui.painter().with_clip_rect(names.intersect(ui.clip_rect())).text(
        pos2(rect.left() + 4.0, middle),
        Align2::LEFT_CENTER,
        name,
        font.clone(),
        palette.text,
    );
    let color = if db == f64::INFINITY { palette.weak } else { theme::sqnr(ui, db) };
    let text = if db == f64::INFINITY { "exact".to_owned() } else { format::db(db) };
    ui.painter().text(pos2(names.right() + FIGURE - 6.0, middle), Align2::RIGHT_CENTER, text, font, color);
    let track = Rect::from_min_max(
        pos2(names.right() + FIGURE, rect.top() + 5.0),
        pos2(rect.right() - 12.0, rect.bottom() - 5.0),
    );
    let share = ((CLEAN_DB - db) / CLEAN_DB).clamp(0.0, 1.0) as f32;
    let bar = track.with_max_x(track.left() + track.width() * share);
    ui.painter().rect_filled(bar, CornerRadius::same(2), color.gamma_multiply(0.75));
    if response.clicked() {
        let click = Click::from_modifiers(ui.input(|input| input.modifiers));
        // A range makes no sense in an order of its own.
        let click = if click == Click::Range { Click::Toggle } else { click };
        actions.push(Edit::Click { layer: row.index, click }.into());
        actions.push(Edit::Reveal(row.index).into());
    }
    response.on_hover_text(format!("{name}\n{} · {}", row.layer.op, row.choice.precision));
}
