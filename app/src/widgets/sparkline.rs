//! A histogram the size of a word.

use eframe::egui::{self, Color32, Response, Sense, Vec2, WidgetInfo};

/// Draws `heights` (0..=1) as bars.
pub fn sparkline(ui: &mut egui::Ui, size: Vec2, heights: &[f32], color: Color32, name: &str) -> Response {
    let (rect, response) = ui.allocate_exact_size(size, Sense::hover());
    response.widget_info(|| WidgetInfo::labeled(egui::accesskit::Role::Image, true, name));
    if ui.is_rect_visible(rect) && !heights.is_empty() {
        let step = rect.width() / heights.len() as f32;
        for (index, height) in heights.iter().enumerate() {
            let left = rect.left() + step * index as f32;
            let top = rect.bottom() - (height.clamp(0.0, 1.0) * rect.height()).max(1.0);
            let bar = egui::Rect::from_min_max(
                egui::pos2(left, top),
                egui::pos2((left + step - 0.5).max(left + 0.5), rect.bottom()),
            );
            ui.painter().rect_filled(bar, 0.0, color);
        }
    }
    response
}
