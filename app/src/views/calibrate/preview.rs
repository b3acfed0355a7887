//! The data as the model gets it: which array feeds which input, its range, and the picture if it looks like one.

use eframe::egui::{self, Grid, RichText, Ui, Vec2};

use super::super::problems::problem_ui;
use crate::document::Document;
use crate::edit::Action;
use crate::theme;

/// Draws the preview, or what it is for.
pub fn preview_ui(ui: &mut Ui, document: &Document, actions: &mut Vec<Action>) {
    ui.label(theme::caption("What the model gets"));
    let preview = match &document.preview {
        None => {
            inputs_ui(ui, document);
            return;
        }
        Some(Err(problem)) => {
            problem_ui(ui, problem, Some(document), actions);
            return;
        }
        Some(Ok(preview)) => preview,
    };
    ui.label(RichText::new(&preview.description).strong());
    Grid::new("preview rows").num_columns(6).spacing([18.0, 4.0]).striped(true).show(ui, |ui| {
        for title in ["Array", "Input", "Type", "Shape", "Range", "Mean"] {
            ui.label(RichText::new(title).weak());
        }
        ui.end_row();
        for row in &preview.first.inputs {
            ui.label(&row.array);
            ui.label(format!("→ {}", row.input));
            ui.label(&row.element_type);
            ui.label(crate::format::shape(&row.shape));
            ui.label(format!("{:.4} … {:.4}", row.min, row.max));
            ui.label(format!("{:.4}", row.mean));
            ui.end_row();
        }
    });
    if !preview.textures.is_empty() {
        ui.add_space(theme::GAP);
        ui.horizontal_wrapped(|ui| {
            for (index, texture) in preview.textures.iter().enumerate() {
                let size = texture.size_vec2();
                let scale = (112.0 / size.y).min(220.0 / size.x);
                let image = egui::Image::new(texture).fit_to_exact_size(Vec2::new(size.x * scale, size.y * scale));
                ui.add(image.corner_radius(4).alt_text(format!("Sample {}", index + 1)));
            }
        });
        ui.label(RichText::new("Values stretched from the least to the greatest; colours off usually mean a wrong channel order or mean").small().weak());
    }
    for problem in &preview.problems {
        problem_ui(ui, problem, Some(document), actions);
    }
}

fn inputs_ui(ui: &mut Ui, document: &Document) {
    ui.label(RichText::new("Choose data and press Preview to see the samples here before anything runs").weak());
    ui.add_space(theme::GAP);
    Grid::new("inputs").num_columns(3).spacing([18.0, 4.0]).show(ui, |ui| {
        for port in &document.model.inputs {
            ui.label(&port.name);
            ui.label(RichText::new(&port.element_type).weak());
            ui.label(RichText::new(port.shape_text()).weak());
            ui.end_row();
        }
    });
}
