//! Every output channel's range as one column: the bar reaches from the channel's least to its greatest weight, the
//! stronger the colour the wider the range. One glance says whether one scale can serve all channels.

use eframe::egui::{self, Rect, Response, Sense, Vec2, WidgetInfo, pos2};

use crate::theme;

/// Least and greatest value of each channel.
pub struct Channels<'a> {
    /// Least value of each channel.
    pub min: &'a [f32],
    /// Greatest value of each channel.
    pub max: &'a [f32],
}

/// Draws the strip over the available width.
pub fn channel_strip(ui: &mut egui::Ui, height: f32, channels: &Channels<'_>, name: &str) -> Response {
    let (rect, response) = ui.allocate_exact_size(Vec2::new(ui.available_width(), height), Sense::hover());
    response.widget_info(|| WidgetInfo::labeled(egui::accesskit::Role::Image, true, name));
    let palette = theme::palette(ui);
    let painter = ui.painter_at(rect);
    painter.rect_filled(rect, f32::from(theme::RADIUS), palette.background);
    let count = channels.min.len().min(channels.max.len());
    let low = channels.min.iter().copied().filter(|x| x.is_finite()).fold(0.0_f32, f32::min);
    let high = channels.max.iter().copied().filter(|x| x.is_finite()).fold(0.0_f32, f32::max);
    if count == 0 || low >= high {
        return response;
    }
    let inner = rect.shrink2(Vec2::new(2.0, 3.0));
    let y = |value: f32| inner.bottom() - (value - low) / (high - low) * inner.height();
    // More channels than pixels: one column shows the widest range of the channels that share it.
    let columns = count.min(inner.width().max(1.0) as usize);
    let width = inner.width() / columns as f32;
    for column in 0..columns {
        let range = column * count / columns..((column + 1) * count / columns).max(column * count / columns + 1);
        let least = range.clone().filter_map(|c| channels.min.get(c)).copied().fold(f32::INFINITY, f32::min);
        let greatest = range.filter_map(|c| channels.max.get(c)).copied().fold(f32::NEG_INFINITY, f32::max);
        if !(least.is_finite() && greatest.is_finite()) {
            continue;
        }
        let share = ((greatest - least) / (high - low)).clamp(0.0, 1.0);
        let left = inner.left() + width * column as f32;
        let gap = if width > 4.0 { 1.0 } else { 0.0 };
        let bar =
            Rect::from_min_max(pos2(left, y(greatest)), pos2(left + width - gap, y(least).max(y(greatest) + 1.0)));
        painter.rect_filled(bar, 0.0, palette.weights.gamma_multiply(0.35 + 0.65 * share));
    }
    painter.hline(inner.x_range(), y(0.0), egui::Stroke::new(1.0, palette.weak.gamma_multiply(0.6)));
    match response.hover_pos() {
        Some(pointer) => {
            let share = ((pointer.x - inner.left()) / inner.width()).clamp(0.0, 0.999_99);
            let channel = (share * count as f32) as usize;
            let (min, max) = (channels.min[channel.min(count - 1)], channels.max[channel.min(count - 1)]);
            response.on_hover_text_at_pointer(format!("Channel {channel} of {count}: {min:.4} … {max:.4}"))
        }
        None => response,
    }
}
