//! The two handles: drag, double-click to reset, arrow keys, and set by a screen reader.

use eframe::egui::accesskit::{Action, ActionData, Role};
use eframe::egui::{
    self, CornerRadius, CursorIcon, Id, Key, Modifiers, Rect, Sense, Stroke, Ui, WidgetInfo, pos2, vec2,
};

use super::{Axis, ClipChange, ClipHistogram};
use crate::theme;

/// Half the width that reacts to the pointer.
const REACH: f32 = 7.0;

pub(super) fn show(ui: &mut Ui, axis: &Axis, spec: &ClipHistogram<'_>, clip: (f32, f32), id: Id) -> ClipChange {
    let mut change = ClipChange::default();
    for high in [false, true] {
        let value = if high { clip.1 } else { clip.0 };
        let x = axis.x(value);
        let reach = Rect::from_x_y_ranges(x - REACH..=x + REACH, axis.rect.top() - 6.0..=axis.rect.bottom() + 4.0);
        let enabled = spec.refusal.is_empty();
        let sense = if enabled { Sense::click_and_drag() } else { Sense::hover() };
        let mut response = ui.interact(reach, id.with(high), sense);
        let name = format!("{} {}", spec.name, if high { "high" } else { "low" });
        response.widget_info(|| WidgetInfo::slider(enabled, f64::from(value), &name));
        ui.ctx().accesskit_node_builder(response.id, |node| {
            node.set_role(Role::Slider);
            node.set_min_numeric_value(f64::from(axis.from));
            node.set_max_numeric_value(f64::from(axis.to));
            node.add_action(Action::SetValue);
        });
        if enabled {
            response = response.on_hover_and_drag_cursor(CursorIcon::ResizeHorizontal);
            if response.drag_started() {
                change.started = true;
            }
            if response.dragged()
                && let Some(pointer) = response.interact_pointer_pos()
            {
                change.range = moved(clip, high, axis.value(pointer.x), spec.symmetric);
            }
            if response.drag_stopped() {
                change.ended = true;
            }
            if response.double_clicked() {
                change.reset = true;
            }
            if response.clicked() {
                response.request_focus();
            }
            if let Some(target) = keyboard(ui, &response, axis, value).or_else(|| requested(ui, response.id)) {
                change.started = true;
                change.ended = true;
                change.range = moved(clip, high, target, spec.symmetric);
            }
            if !response.dragged() {
                response
                    .clone()
                    .on_hover_text(format!("{value:.5}\nDrag to clip by hand; double-click to go back to the method"));
            }
        } else {
            response.clone().on_hover_text(spec.refusal);
        }
        let strong = enabled && (response.hovered() || response.dragged() || response.has_focus());
        paint(ui, axis, x, strong, enabled);
    }
    change
}

/// The range after one end moved to `target`; the ends never meet.
fn moved(clip: (f32, f32), high: bool, target: f32, symmetric: bool) -> Option<(f32, f32)> {
    let least = (clip.1 - clip.0).abs().max(1e-12) * 1e-3;
    let range = if symmetric {
        let reach = target.abs().max(least);
        (-reach, reach)
    } else if high {
        (clip.0, target.max(clip.0 + least))
    } else {
        (target.min(clip.1 - least), clip.1)
    };
    (range.0.is_finite() && range.1.is_finite() && range.0 < range.1).then_some(range)
}

fn keyboard(ui: &Ui, response: &egui::Response, axis: &Axis, value: f32) -> Option<f32> {
    if !response.has_focus() {
        return None;
    }
    let step = (axis.to - axis.from) * 0.005;
    ui.memory_mut(|memory| {
        let filter = egui::EventFilter { horizontal_arrows: true, ..egui::EventFilter::default() };
        memory.set_focus_lock_filter(response.id, filter);
    });
    let count = ui.input_mut(|input| {
        let right = input.count_and_consume_key(Modifiers::NONE, Key::ArrowRight) as f32;
        right - input.count_and_consume_key(Modifiers::NONE, Key::ArrowLeft) as f32
    });
    (count != 0.0).then_some(value + count * step)
}

fn requested(ui: &Ui, id: Id) -> Option<f32> {
    ui.input(|input| {
        input
            .accesskit_action_requests(id, Action::SetValue)
            .filter_map(|request| match request.data {
                Some(ActionData::NumericValue(value)) => Some(value as f32),
                _ => None,
            })
            .last()
    })
}

fn paint(ui: &Ui, axis: &Axis, x: f32, strong: bool, enabled: bool) {
    let palette = theme::palette(ui);
    let color = match (enabled, strong) {
        (false, _) => palette.weak.gamma_multiply(0.6),
        (true, false) => palette.text.gamma_multiply(0.8),
        (true, true) => palette.accent,
    };
    let painter = ui.painter();
    painter.vline(x, axis.rect.y_range(), Stroke::new(if strong { 2.0 } else { 1.0 }, color));
    if !enabled {
        return;
    }
    let grip = Rect::from_center_size(pos2(x, axis.rect.top()), vec2(9.0, 14.0));
    painter.rect_filled(grip, CornerRadius::same(3), color);
    for offset in [-1.5, 1.5] {
        let line = pos2(x + offset, grip.center().y);
        painter.vline(line.x, line.y - 3.0..=line.y + 3.0, Stroke::new(1.0, palette.card));
    }
}

#[cfg(test)]
mod tests {
    use super::moved;

    #[test]
    fn the_ends_never_meet_and_symmetric_ranges_stay_so() {
        assert_eq!(moved((-1.0, 2.0), true, 1.5, false), Some((-1.0, 1.5)));
        let (low, high) = moved((-1.0, 2.0), true, -5.0, false).expect("range");
        assert!(low < high);
        let (low, high) = moved((-1.0, 2.0), false, 9.0, false).expect("range");
        assert!(low < high);
        assert_eq!(moved((-1.0, 1.0), false, 0.5, true), Some((-0.5, 0.5)));
        assert!(moved((0.0, 1.0), true, f32::NAN, false).is_none_or(|(low, high)| low < high));
    }
}
