//! The line that offers to go on with the plan of an export: found in the opened file, or beside it.

use std::sync::Arc;

use eframe::egui::{Align, Layout, RichText, Ui};

use crate::document::Document;
use crate::edit::{Action, Edit};
use crate::format;
use crate::jobs::Offer;
use crate::theme;

/// Draws the offer.
pub fn offer_ui(ui: &mut Ui, document: &Document, offer: &Offer, actions: &mut Vec<Action>) {
    ui.horizontal(|ui| {
        ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
            if ui.small_button("×").accessible_name("Decline the plan").clicked() {
                actions.push(Edit::DeclineOffer.into());
            }
            match offer {
                Offer::Export { plan, original, .. } => {
                    let text =
                        if original.is_some() { "Open the original with this plan" } else { "Open the original…" };
                    let about =
                        "To go on with the plan, the floating-point model is needed that this file was made from";
                    if ui.button(text).on_hover_text(about).clicked() {
                        let (original, plan) = (original.clone(), Arc::clone(plan));
                        let from = document.path.clone();
                        actions.push(Edit::OpenOriginal { original, plan, from }.into());
                    }
                }
                Offer::Original(exports) => exports_ui(ui, exports, actions),
            }
            ui.with_layout(Layout::left_to_right(Align::Center), |ui| {
                ui.label(RichText::new(text(offer)).color(theme::palette(ui).text));
            });
        });
    });
}

fn exports_ui(ui: &mut Ui, exports: &[(std::path::PathBuf, Arc<nibble_core::plan::Plan>)], actions: &mut Vec<Action>) {
    let mut restore = |from: &std::path::Path, plan: &Arc<nibble_core::plan::Plan>| {
        actions.push(Edit::RestorePlan { plan: Arc::clone(plan), from: from.to_owned() }.into());
    };
    if let [(path, plan)] = exports {
        if ui.button("Restore this plan").clicked() {
            restore(path, plan);
        }
        return;
    }
    ui.menu_button("Restore a plan", |ui| {
        for (path, plan) in exports {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if ui.button(format!("{name}: {}", format::plan(plan))).clicked() {
                restore(path, plan);
                ui.close();
            }
        }
    });
}

fn text(offer: &Offer) -> String {
    match offer {
        Offer::Export { plan, version, original } => {
            let origin = match original.as_deref().and_then(std::path::Path::file_name) {
                Some(name) => format!("from {}", name.to_string_lossy()),
                None => "from a model that is not in this folder".to_owned(),
            };
            format!("Nibble {version} exported this file {origin}, with the plan {}", format::plan(plan))
        }
        Offer::Original(exports) => match exports.as_slice() {
            [(path, plan)] => {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                format!("{name} in the same folder was made from this model, with the plan {}", format::plan(plan))
            }
            _ => format!("{} files in the same folder were made from this model and hold their plans", exports.len()),
        },
    }
}
