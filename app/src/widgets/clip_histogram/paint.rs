//! What lies under the handles: the bins, the shading of what is clipped, the axis and the levels.

use eframe::egui::{Align2, CornerRadius, FontId, Mesh, Rect, Shape, Stroke, Ui, pos2};

use super::{Axis, Bin, ClipHistogram};
use crate::theme;

pub(super) fn background(ui: &Ui, axis: &Axis, spec: &ClipHistogram<'_>) {
    let palette = theme::palette(ui);
    let rect = axis.rect;
    let painter = ui.painter();
    painter.rect_filled(rect, CornerRadius::same(4), palette.background);
    let clipped = palette.bad.gamma_multiply(0.10);
    if let Some((low, high)) = spec.clip {
        let (low, high) = (axis.x(low).clamp(rect.left(), rect.right()), axis.x(high).clamp(rect.left(), rect.right()));
        painter.rect_filled(Rect::from_x_y_ranges(rect.left()..=low, rect.y_range()), 0.0, clipped);
        painter.rect_filled(Rect::from_x_y_ranges(high..=rect.right(), rect.y_range()), 0.0, clipped);
    }
    bins(ui, axis, spec);
    ticks(ui, axis);
    levels(ui, axis, spec);
    painter.text(
        // Between the grips of the handles, above the highest bin.
        rect.center_top() + (0.0, 2.0).into(),
        Align2::CENTER_TOP,
        "log count",
        FontId::proportional(9.5),
        palette.weak,
    );
}

/// Counts by pixel column, log10(n + 1), as a share of the highest.
pub(super) fn columns(bins: &[Bin], axis: &Axis, width: usize) -> Vec<f32> {
    let mut counts = vec![0.0_f64; width];
    let pixels = width as f32 / (axis.to - axis.from);
    for &(from, to, count) in bins.iter().filter(|bin| bin.2 > 0) {
        let (left, right) = ((from - axis.from) * pixels, (to - axis.from) * pixels);
        let (first, last) = (left.max(0.0) as usize, (right.max(0.0) as usize).min(width.saturating_sub(1)));
        let span = f64::from(right - left).max(1e-9);
        for (column, slot) in counts.iter_mut().enumerate().take(last + 1).skip(first) {
            let overlap = f64::from(right.min(column as f32 + 1.0) - left.max(column as f32)).max(0.0);
            // A bin thinner than a float can tell falls into one column whole.
            let share = if first == last { 1.0 } else { overlap / span };
            *slot += count as f64 * share;
        }
    }
    let heights: Vec<f32> = counts.iter().map(|count| (count + 1.0).log10() as f32).collect();
    let top = heights.iter().copied().fold(1e-6, f32::max);
    heights.into_iter().map(|height| height / top).collect()
}

fn bins(ui: &Ui, axis: &Axis, spec: &ClipHistogram<'_>) {
    let rect = axis.rect;
    let heights = columns(spec.bins, axis, rect.width().max(1.0) as usize);
    let width = rect.width() / heights.len().max(1) as f32;
    let mut fill = Mesh::default();
    let mut line = Vec::with_capacity(heights.len() * 2);
    let top = |height: f32| rect.bottom() - height * (rect.height() - 14.0);
    for (column, &height) in heights.iter().enumerate() {
        let left = rect.left() + column as f32 * width;
        let center = axis.value(left + width / 2.0);
        let kept = spec.clip.is_none_or(|(low, high)| (low..=high).contains(&center));
        let color = if kept { spec.color } else { theme::palette(ui).bad };
        let y = top(height);
        if height > 0.0 {
            let bar = Rect::from_min_max(pos2(left, y), pos2(left + width, rect.bottom()));
            fill.add_colored_rect(bar, color.gamma_multiply(0.38));
        }
        line.push(pos2(left, y));
        line.push(pos2(left + width, y));
    }
    ui.painter().add(Shape::mesh(fill));
    ui.painter().add(Shape::line(line, Stroke::new(1.0, spec.color)));
}

fn ticks(ui: &Ui, axis: &Axis) {
    let palette = theme::palette(ui);
    let step = nice_step((axis.to - axis.from) / (axis.rect.width() / 70.0).max(2.0));
    let decimals = (-step.log10().floor()).clamp(0.0, 6.0) as usize;
    let first = (axis.from / step).ceil() as i64;
    for index in first..first + 40 {
        let value = index as f32 * step;
        if value > axis.to {
            break;
        }
        let x = axis.x(value);
        ui.painter().vline(x, axis.rect.bottom()..=axis.rect.bottom() + 3.0, Stroke::new(1.0, palette.weak));
        let align = if x < axis.rect.left() + 14.0 {
            Align2::LEFT_TOP
        } else if x > axis.rect.right() - 14.0 {
            Align2::RIGHT_TOP
        } else {
            Align2::CENTER_TOP
        };
        let text = if step >= 1e-6 { format!("{value:.decimals$}") } else { format!("{value:.1e}") };
        ui.painter().text(pos2(x, axis.rect.bottom() + 5.0), align, text, FontId::proportional(10.0), palette.weak);
    }
}

fn levels(ui: &Ui, axis: &Axis, spec: &ClipHistogram<'_>) {
    let (Some(levels), Some((low, high))) = (spec.levels, spec.clip) else { return };
    let gap = axis.x(low + levels.step) - axis.x(low);
    if !(gap.is_finite() && gap >= 3.0) {
        return;
    }
    let stroke = Stroke::new(1.0, theme::palette(ui).accent.gamma_multiply(0.7));
    for index in 0..levels.count {
        let value = low + index as f32 * levels.step;
        if value > high + levels.step / 2.0 {
            break;
        }
        ui.painter().vline(axis.x(value), axis.rect.bottom() - 5.0..=axis.rect.bottom(), stroke);
    }
}

/// The least of 1, 2, 5 × 10ⁿ that is not below `raw`.
fn nice_step(raw: f32) -> f32 {
    let raw = if raw.is_finite() && raw > 0.0 { raw } else { 1.0 };
    let power = 10.0_f32.powf(raw.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|step| *step >= raw).unwrap_or(10.0 * power)
}

#[cfg(test)]
mod tests {
    use super::*;
    use eframe::egui::{Vec2, pos2};

    #[test]
    fn every_count_lands_in_the_columns() {
        let rect = Rect::from_min_size(pos2(0.0, 0.0), Vec2::new(100.0, 50.0));
        let axis = Axis { rect, from: 0.0, to: 10.0 };
        let heights = columns(&[(0.0, 5.0, 50), (9.95, 9.96, 9)], &axis, 100);
        // 50 values over 50 columns: log10(2) each; 9 in one column: log10(10) = 1, the highest.
        assert!((heights[10] - 2.0_f32.log10()).abs() < 1e-4);
        assert!((heights[99] - 1.0).abs() < 1e-6);
        assert_eq!(heights[70], 0.0);
    }

    #[test]
    fn steps_are_round() {
        for (raw, step) in [(0.03, 0.05), (1.0, 1.0), (130.0, 200.0), (f32::NAN, 1.0)] {
            assert!((nice_step(raw) - step).abs() < step * 1e-3, "{raw}");
        }
    }
}
