//! The layer table: every layer a row, virtual, sortable by every column, filtered as one types, selected by click,
//! Ctrl and Shift.

mod cells;
mod columns;

use eframe::egui::{self, Align, Key, Layout, RichText, ScrollArea, Sense, Ui};
use egui_extras::{Column as TableColumn, TableBuilder};

use self::columns::Column;
pub use self::columns::Row;
use super::View;
use super::repair::menu_ui as repair_menu;
use crate::command::Command;
use crate::document::Document;
use crate::edit::{Action, Edit};
use crate::selection::Click;
use crate::widgets::field;
use crate::{format, theme};

/// Width of the buttons beside the filter.
const BUTTONS: f32 = 300.0;
/// Least width of what stands beside the filter.
const BESIDE_FILTER: f32 = BUTTONS + 30.0;

/// How the table is filtered and sorted, and the order that follows.
pub struct LayersState {
    filter: String,
    sort: Column,
    descending: bool,
    order: Vec<usize>,
    made_for: Option<MadeFor>,
    scroll_to: Option<usize>,
    focus_filter: bool,
    /// The moving end of a range that Shift and the arrow keys extend.
    end: Option<usize>,
}

#[derive(Clone, PartialEq)]
struct MadeFor {
    generation: u64,
    versions: (u64, u64),
    filter: String,
    sort: Column,
    descending: bool,
}

impl Default for LayersState {
    fn default() -> Self {
        Self {
            filter: String::new(),
            sort: Column::Index,
            descending: false,
            order: Vec::new(),
            made_for: None,
            scroll_to: None,
            focus_filter: false,
            end: None,
        }
    }
}

impl LayersState {
    /// The layers shown, in order.
    pub fn order(&self) -> &[usize] {
        &self.order
    }

    /// Brings this layer into view at the next frame.
    pub fn scroll_to(&mut self, layer: usize) {
        self.scroll_to = Some(layer);
    }

    /// Lets the next frame put the cursor into the filter.
    pub fn focus_filter(&mut self) {
        self.focus_filter = true;
    }

    /// Shows everything again, in the model's order.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    fn refresh(&mut self, document: &Document) {
        let wanted = MadeFor {
            generation: document.generation,
            versions: (document.version, document.results.version()),
            filter: self.filter.to_lowercase(),
            sort: self.sort,
            descending: self.descending,
        };
        if self.made_for.as_ref() == Some(&wanted) {
            return;
        }
        let words: Vec<&str> = wanted.filter.split_whitespace().collect();
        let mut rows: Vec<(columns::SortKey, usize)> = (0..document.model.layers.len())
            .filter_map(|layer| {
                let row = columns::Row::new(document, layer)?;
                row.fits(&words).then(|| (row.sort_key(self.sort), layer))
            })
            .collect();
        rows.sort_by(|a, b| {
            let order = a.0.compare(&b.0, self.descending);
            order.then(a.1.cmp(&b.1))
        });
        self.order = rows.into_iter().map(|(_, layer)| layer).collect();
        self.made_for = Some(wanted);
    }
}

/// Draws the filter line and the table.
pub fn layers_ui(
    ui: &mut Ui,
    view: &View<'_>,
    document: &Document,
    state: &mut LayersState,
    actions: &mut Vec<Action>,
) {
    state.refresh(document);
    filter_ui(ui, view, document, state, actions);
    ui.add_space(2.0);
    ScrollArea::horizontal().auto_shrink(false).show(ui, |ui| table_ui(ui, view, document, state, actions));
}

fn filter_ui(ui: &mut Ui, view: &View<'_>, document: &Document, state: &mut LayersState, actions: &mut Vec<Action>) {
    ui.horizontal(|ui| {
        ui.label(theme::caption("Layers"));
        let hint = "Filter by name, operator or any choice";
        // Room for the number of layers and for the buttons at the right end, which may not overlap.
        let width = (ui.available_width() - BESIDE_FILTER).clamp(60.0, 260.0);
        let response = field::text(ui, "Filter layers", hint, &mut state.filter, width);
        if std::mem::take(&mut state.focus_filter) {
            response.request_focus();
        }
        if !state.filter.is_empty() && ui.small_button("×").accessible_name("Clear the filter").clicked() {
            state.filter.clear();
        }
        let all = document.model.layers.len();
        let shown = state.order.len();
        let text = if shown == all { format::layers(all) } else { format!("{shown} of {}", format::layers(all)) };
        if ui.available_width() > BUTTONS + 90.0 {
            ui.label(RichText::new(text).weak());
        }
        if view.selection.len() > 1 && ui.available_width() > BUTTONS + 70.0 {
            ui.label(RichText::new(format!("{} selected", view.selection.len())).color(theme::palette(ui).accent));
        }
        ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
            for command in [Command::Float32, Command::Float16, Command::Int2, Command::Int4, Command::Int8] {
                let refusal = command.refusal(view.able);
                let key = command.key_text(ui.ctx());
                let word = match command {
                    Command::Int8 => "int8",
                    Command::Int4 => "int4",
                    Command::Int2 => "int2",
                    Command::Float16 => "float16",
                    _ => "float32",
                };
                let response = ui.add_enabled(refusal.is_empty(), egui::Button::new(word).small());
                let response = response.accessible_name(format!("Selection to {word}"));
                let tooltip = format!("{} (key {key})", command.tooltip());
                if response.on_hover_text(tooltip).on_disabled_hover_text(refusal).clicked() {
                    actions.push(command.into());
                }
            }
        });
    });
}

fn table_ui(ui: &mut Ui, view: &View<'_>, document: &Document, state: &mut LayersState, actions: &mut Vec<Action>) {
    // A bar that floats stays at the visible edge; a solid one would scroll away to the right with the columns.
    ui.spacing_mut().scroll = egui::style::ScrollStyle::thin();
    let mut table = TableBuilder::new(ui)
        .id_salt("layers")
        .striped(true)
        .sense(Sense::click())
        .cell_layout(Layout::left_to_right(Align::Center))
        .auto_shrink(false);
    for column in Column::ALL {
        table = table.column(TableColumn::initial(column.width()).at_least(30.0).clip(true).resizable(true));
    }
    if let Some(layer) = state.scroll_to.take()
        && let Some(row) = state.order.iter().position(|shown| *shown == layer)
    {
        table = table.scroll_to_row(row, None);
    }
    let table = table.header(24.0, |mut header| {
        for column in Column::ALL {
            header.col(|ui| header_ui(ui, *column, &mut state.sort, &mut state.descending));
        }
    });
    let order = &state.order;
    let selection = view.selection;
    let mut clicked = None;
    table.body(|body| {
        body.rows(theme::ROW, order.len(), |mut row| {
            let Some(&layer) = order.get(row.index()) else { return };
            let Some(facts) = columns::Row::new(document, layer) else { return };
            row.set_selected(selection.contains(layer));
            for column in Column::ALL {
                row.col(|ui| cells::cell_ui(ui, &facts, *column));
            }
            let response = row.response();
            response.widget_info(|| {
                let name = format!("Layer {}", facts.layer.name);
                egui::WidgetInfo::selected(egui::accesskit::Role::Row, true, selection.contains(layer), name)
            });
            if response.clicked() {
                let click = Click::from_modifiers(response.ctx.input(|input| input.modifiers));
                actions.push(Edit::Click { layer, click }.into());
                clicked = Some(layer);
            }
            if response.secondary_clicked() && !selection.contains(layer) {
                actions.push(Edit::Click { layer, click: Click::Only }.into());
            }
            response.context_menu(|ui| {
                ui.set_min_width(220.0);
                use Command as C;
                for command in [C::Int8, C::Int4, C::Int2, C::Float16, C::Float32, C::Symmetry, C::Granularity] {
                    if command.menu_item(ui, view.able) {
                        actions.push(command.into());
                    }
                }
                ui.separator();
                let whom = if view.selection.len() > 1 { "these layers" } else { "this layer" };
                ui.menu_button(format!("Repair {whom}"), |ui| {
                    repair_menu(ui, view.able, actions);
                });
                let repaired: Vec<usize> =
                    view.selection.iter().filter(|&layer| document.repair(layer).is_some()).collect();
                let has_repair = egui::Button::new("Round to nearest again");
                let response = ui.add_enabled(!repaired.is_empty(), has_repair);
                if response.on_disabled_hover_text("No repair is in force here").clicked() {
                    actions.push(Edit::DropRepair(repaired).into());
                    ui.close();
                }
            });
        });
    });
    state.end = clicked.or(state.end);
    walk_by_arrows(ui, view, state, actions);
}

/// Up and down move the selection while no text field has the focus.
fn walk_by_arrows(ui: &mut Ui, view: &View<'_>, state: &mut LayersState, actions: &mut Vec<Action>) {
    if ui.ctx().memory(|memory| memory.focused().is_some()) {
        return;
    }
    let step =
        ui.input(|input| i64::from(input.key_pressed(Key::ArrowDown)) - i64::from(input.key_pressed(Key::ArrowUp)));
    if step == 0 || state.order.is_empty() {
        return;
    }
    let extends = ui.input(|input| input.modifiers.shift);
    let end = state.end.filter(|end| extends && view.selection.contains(*end)).or(view.selection.primary());
    let here = end.and_then(|layer| state.order.iter().position(|shown| *shown == layer));
    let next = here.map_or(0, |row| (row as i64 + step).clamp(0, state.order.len() as i64 - 1) as usize);
    if let Some(&layer) = state.order.get(next) {
        let click = if extends { Click::Range } else { Click::Only };
        actions.push(Edit::Click { layer, click }.into());
        state.end = Some(layer);
        state.scroll_to = Some(layer);
    }
}

fn header_ui(ui: &mut Ui, column: Column, sort: &mut Column, descending: &mut bool) {
    let palette = theme::palette(ui);
    let (title, tooltip) = column.title();
    let active = *sort == column;
    let text = RichText::new(title).color(if active { palette.accent } else { palette.weak }).strong();
    let response = ui.add(egui::Button::new(text).frame(false).truncate());
    if active {
        // Painted, since fonts without the arrow exist.
        let center = egui::pos2(response.rect.right() + 6.0, response.rect.center().y);
        let tip = if *descending { 3.0 } else { -3.0 };
        let points = [(-3.5, -tip / 2.0), (3.5, -tip / 2.0), (0.0, tip)].map(|(x, y)| center + egui::vec2(x, y));
        ui.painter().add(egui::Shape::convex_polygon(points.to_vec(), palette.accent, egui::Stroke::NONE));
    }
    let response = response.accessible_name(format!("Sort by {title}"));
    if response.on_hover_text(format!("{tooltip}\nClick to sort")).clicked() {
        if active {
            *descending = !*descending;
        } else {
            *sort = column;
            *descending = false;
        }
    }
}
