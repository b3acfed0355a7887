//! A pill that says where a number comes from. A prediction never looks like a measurement.

use eframe::egui::{self, CornerRadius, Margin, Response, RichText, Stroke};

use crate::theme;

/// Where a number comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Computed from statistics, without running the quantized model.
    Predicted,
    /// Taken from a run of the real quantized model.
    Measured,
    /// Measured for a plan that has been changed since.
    Stale,
}

impl Source {
    /// The word on the pill.
    pub fn word(self) -> &'static str {
        match self {
            Self::Predicted => "predicted",
            Self::Measured => "measured",
            Self::Stale => "measured before the last change",
        }
    }

    fn about(self) -> &'static str {
        match self {
            Self::Predicted => "Computed from the statistics gathered, without running the quantized model",
            Self::Measured => "Taken from a run of the exported model in ONNX Runtime",
            Self::Stale => "The plan has changed since this was measured; export again to measure it anew",
        }
    }
}

/// Draws the pill.
pub fn badge(ui: &mut egui::Ui, source: Source) -> Response {
    let palette = theme::palette(ui);
    let color = match source {
        Source::Predicted => palette.activations,
        Source::Measured => palette.good,
        Source::Stale => palette.warning,
    };
    pill(ui, source.word(), color).on_hover_text(source.about())
}

/// A pill with any text.
pub fn pill(ui: &mut egui::Ui, text: &str, color: egui::Color32) -> Response {
    let frame = egui::Frame::new()
        .fill(color.gamma_multiply(0.14))
        .stroke(Stroke::new(1.0, color.gamma_multiply(0.5)))
        .corner_radius(CornerRadius::same(8))
        .inner_margin(Margin::symmetric(6, 0));
    let label = egui::Label::new(RichText::new(text).small().color(color)).selectable(false);
    // Laid out in a row of its own, so that a justified parent does not stretch it.
    ui.horizontal(|ui| frame.show(ui, |ui| ui.add(label)).inner).inner
}
