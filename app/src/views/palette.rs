//! Everything that can be done, by typing a piece of its name: commands, presets, layers.

use eframe::egui::{self, Align2, Context, Key, Modifiers, RichText, ScrollArea, Ui};
use nibble_core::plan::PRESETS;

use super::View;
use crate::command::Command;
use crate::document::Document;
use crate::edit::{Action, Edit};
use crate::theme;
use crate::widgets::field;

/// Most entries shown.
const MAX_SHOWN: usize = 60;

/// The open palette.
#[derive(Clone, Debug, Default)]
pub struct Palette {
    query: String,
    at: usize,
}

/// Something that can be chosen.
struct Entry {
    title: String,
    detail: String,
    key: String,
    refusal: String,
    action: Action,
}

/// Draws the palette; closes it when something was chosen.
pub fn palette_ui(
    ctx: &Context,
    view: &View<'_>,
    document: Option<&Document>,
    slot: &mut Option<Palette>,
    actions: &mut Vec<Action>,
) {
    let Some(open) = slot else { return };
    let mut done = ctx.input_mut(|input| input.consume_key(Modifiers::NONE, Key::Escape));
    let (down, up, enter) = ctx.input_mut(|input| {
        (
            input.count_and_consume_key(Modifiers::NONE, Key::ArrowDown),
            input.count_and_consume_key(Modifiers::NONE, Key::ArrowUp),
            input.consume_key(Modifiers::NONE, Key::Enter),
        )
    });
    let found = entries(ctx, view, document, &open.query);
    open.at = (open.at + down).saturating_sub(up).min(found.len().saturating_sub(1));
    let mut chosen = enter.then_some(open.at);
    let frame = egui::Frame::popup(&ctx.global_style()).inner_margin(12);
    let mut modal = egui::Modal::new(egui::Id::unique("palette")).frame(frame);
    modal.area = modal.area.anchor(Align2::CENTER_TOP, [0.0, 80.0]);
    let response = modal.show(ctx, |ui| {
        ui.set_width(560.0);
        let typed = field::text(ui, "Palette", "Type a command, a preset or a layer", &mut open.query, 552.0);
        typed.request_focus();
        if typed.changed() {
            open.at = 0;
        }
        ui.add_space(theme::GAP);
        ScrollArea::vertical().max_height(420.0).min_scrolled_height(420.0).auto_shrink([false, true]).show(ui, |ui| {
            for (index, entry) in found.iter().enumerate() {
                if entry_ui(ui, entry, index == open.at, down + up > 0) {
                    chosen = Some(index);
                }
            }
            if found.is_empty() {
                ui.label(RichText::new("Nothing by that name").weak());
            }
        });
    });
    done |= response.backdrop_response.clicked();
    if let Some(entry) = chosen.and_then(|index| found.into_iter().nth(index))
        && entry.refusal.is_empty()
    {
        actions.push(entry.action);
        done = true;
    }
    if done {
        *slot = None;
    }
}

fn entry_ui(ui: &mut Ui, entry: &Entry, here: bool, follow: bool) -> bool {
    let text =
        if entry.detail.is_empty() { entry.title.clone() } else { format!("{}  ·  {}", entry.title, entry.detail) };
    let button = egui::Button::selectable(here, text).shortcut_text(entry.key.as_str()).truncate();
    let width = egui::vec2(ui.available_width(), 24.0);
    let response = ui.add_enabled(entry.refusal.is_empty(), button.min_size(width));
    let response = response.accessible_name(format!("Do: {}", entry.title));
    if here && follow {
        response.scroll_to_me(None);
    }
    response.on_disabled_hover_text(&entry.refusal).clicked()
}

fn entries(ctx: &Context, view: &View<'_>, document: Option<&Document>, query: &str) -> Vec<Entry> {
    let query = query.to_lowercase();
    let words: Vec<&str> = query.split_whitespace().collect();
    let mut all: Vec<Entry> = Command::ALL
        .iter()
        .filter(|command| **command != Command::Palette)
        .map(|command| {
            let (title, tooltip) = command.text_and_tooltip();
            Entry {
                title: title.to_owned(),
                detail: tooltip.to_owned(),
                key: command.key_text(ctx),
                refusal: command.refusal(view.able),
                action: (*command).into(),
            }
        })
        .collect();
    if let Some(document) = document {
        all.extend(PRESETS.iter().map(|preset| Entry {
            title: format!("Preset {}", preset.name),
            detail: preset.about.to_owned(),
            key: String::new(),
            refusal: String::new(),
            action: Edit::Preset { preset, selection_only: false }.into(),
        }));
        all.extend(document.model.layers.iter().map(|layer| Entry {
            title: format!("Layer {}", layer.name),
            detail: layer.op.clone(),
            key: String::new(),
            refusal: String::new(),
            action: Edit::SelectNamed(layer.name.clone()).into(),
        }));
    }
    all.retain(|entry| {
        let text = format!("{} {}", entry.title, entry.detail).to_lowercase();
        words.iter().all(|word| text.contains(word))
    });
    // What is found in the title comes before what is found in its explanation.
    all.sort_by_key(|entry| {
        let title = entry.title.to_lowercase();
        words.iter().filter(|word| !title.contains(**word)).count()
    });
    all.truncate(MAX_SHOWN);
    all
}
