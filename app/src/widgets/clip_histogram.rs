//! A histogram with the clip range as two handles that are dragged: counts on a logarithmic axis, what is clipped
//! shaded, the quantization grid as ticks below.

mod handles;
mod paint;

use eframe::egui::{self, Color32, Rect, Response, Sense, Ui, Vec2, WidgetInfo};
use nibble_core::stats::TensorStats;

/// One bin: from, to, how many.
pub type Bin = (f32, f32, u64);

/// The bins of gathered values.
pub fn bins(stats: &TensorStats) -> Vec<Bin> {
    let mut bins: Vec<Bin> = stats.histogram.bins().map(|(lo, hi, count)| (lo as f32, hi as f32, count)).collect();
    // Zeros are counted apart from the bins; they are drawn where they are, as thin as a bin.
    if stats.histogram.zeros > 0 {
        let half = stats.histogram.width() as f32 / 2.0;
        bins.push((-half, half, stats.histogram.zeros));
    }
    bins
}

/// The levels that values are rounded to.
#[derive(Clone, Copy, Debug)]
pub struct Levels {
    /// Distance between levels.
    pub step: f32,
    /// Number of levels.
    pub count: u32,
}

/// What the widget shows.
pub struct ClipHistogram<'a> {
    /// Name; the handles are called `NAME low` and `NAME high`.
    pub name: &'a str,
    /// The bins, in order.
    pub bins: &'a [Bin],
    /// Least and greatest value seen.
    pub seen: (f32, f32),
    /// The clip range in force, if values are clipped at all.
    pub clip: Option<(f32, f32)>,
    /// The levels in force.
    pub levels: Option<Levels>,
    /// Whether the range stays symmetric about zero.
    pub symmetric: bool,
    /// Why the handles cannot be dragged; empty when they can.
    pub refusal: &'a str,
    /// Colour of the bins.
    pub color: Color32,
    /// Height of the whole widget.
    pub height: f32,
}

/// What the person did.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ClipChange {
    /// A drag began in this frame.
    pub started: bool,
    /// The range asked for.
    pub range: Option<(f32, f32)>,
    /// A drag or a key press ended in this frame.
    pub ended: bool,
    /// The handle was double-clicked: back to the method.
    pub reset: bool,
}

/// Horizontal mapping between values and points.
#[derive(Clone, Copy)]
pub(super) struct Axis {
    rect: Rect,
    from: f32,
    to: f32,
}

impl Axis {
    fn new(rect: Rect, seen: (f32, f32), clip: Option<(f32, f32)>) -> Self {
        let (mut from, mut to) = seen;
        if let Some((low, high)) = clip {
            // The view depends on the range seen while the handles stay within its margin, so it holds still in a drag.
            let margin = (to - from).abs() * 0.08;
            from = if low < from - margin { low } else { from };
            to = if high > to + margin { high } else { to };
        }
        let span = (to - from).max(f32::MIN_POSITIVE);
        let span = if span.is_finite() && span > 1e-30 { span } else { 1.0 };
        Self { rect, from: from - span * 0.08, to: to + span * 0.08 }
    }

    fn x(&self, value: f32) -> f32 {
        self.rect.left() + (value - self.from) / (self.to - self.from) * self.rect.width()
    }

    fn value(&self, x: f32) -> f32 {
        self.from + ((x - self.rect.left()) / self.rect.width()).clamp(0.0, 1.0) * (self.to - self.from)
    }
}

impl ClipHistogram<'_> {
    /// Draws it over the available width.
    pub fn show(&self, ui: &mut Ui) -> (Response, ClipChange) {
        let size = Vec2::new(ui.available_width().max(80.0), self.height);
        let (rect, response) = ui.allocate_exact_size(size, Sense::hover());
        response.widget_info(|| {
            WidgetInfo::labeled(egui::accesskit::Role::Image, true, format!("{} histogram", self.name))
        });
        let plot = Rect::from_min_max(rect.min + Vec2::new(0.0, 8.0), rect.max - Vec2::new(0.0, 18.0));
        let axis = Axis::new(plot, self.seen, self.clip);
        if ui.is_rect_visible(rect) {
            paint::background(ui, &axis, self);
        }
        let change = match self.clip {
            Some(clip) => handles::show(ui, &axis, self, clip, response.id),
            None => ClipChange::default(),
        };
        (response, change)
    }
}
