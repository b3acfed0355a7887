//! Colours, spacings and text sizes: everything that decides how the window looks stands here.

use eframe::egui::{
    self, Color32, CornerRadius, FontFamily, FontId, Margin, Shadow, Stroke, Style, TextStyle, Vec2, Visuals,
};
use nibble_core::export::Verdict;
use nibble_core::plan::Precision;
use nibble_core::problem::Severity;

use crate::settings;

/// Space between the parts of one group.
pub const GAP: f32 = 6.0;
/// Space between groups.
pub const SECTION: f32 = 14.0;
/// Height of a table row.
pub const ROW: f32 = 22.0;
/// Corner radius of controls.
pub const RADIUS: u8 = 5;
/// Width of the labels beside controls.
pub const LABEL_WIDTH: f32 = 96.0;

/// The colours of one theme.
#[derive(Clone, Copy, Debug)]
pub struct Palette {
    /// Behind everything.
    pub background: Color32,
    /// Panels.
    pub panel: Color32,
    /// Cards and fields that stand out from a panel.
    pub card: Color32,
    /// Controls.
    pub control: Color32,
    /// Controls under the pointer.
    pub hovered: Color32,
    /// Lines between panels and around cards.
    pub line: Color32,
    /// Text.
    pub text: Color32,
    /// Less important text.
    pub weak: Color32,
    /// What is selected or acts.
    pub accent: Color32,
    /// Text on `accent`.
    pub on_accent: Color32,
    /// Background of selected rows.
    pub selected: Color32,
    /// Good.
    pub good: Color32,
    /// Doubtful.
    pub warning: Color32,
    /// Bad.
    pub bad: Color32,
    /// Weight histograms.
    pub weights: Color32,
    /// Activation histograms.
    pub activations: Color32,
}

const fn rgb(hex: u32) -> Color32 {
    Color32::from_rgb((hex >> 16) as u8, (hex >> 8) as u8, hex as u8)
}

const DARK: Palette = Palette {
    background: rgb(0x12151a),
    panel: rgb(0x181c22),
    card: rgb(0x1f242c),
    control: rgb(0x2a303a),
    hovered: rgb(0x353d4a),
    line: rgb(0x2c333e),
    text: rgb(0xd9dee7),
    weak: rgb(0x8e99a9),
    accent: rgb(0x5b9dff),
    on_accent: rgb(0x0b1220),
    selected: rgb(0x22395c),
    good: rgb(0x4cc38a),
    warning: rgb(0xe5a445),
    bad: rgb(0xf0706c),
    weights: rgb(0x6ea8fe),
    activations: rgb(0xc08cf5),
};

const LIGHT: Palette = Palette {
    background: rgb(0xeef1f5),
    panel: rgb(0xf8f9fb),
    card: rgb(0xffffff),
    control: rgb(0xe6eaf0),
    hovered: rgb(0xd9dfe8),
    line: rgb(0xd5dbe4),
    text: rgb(0x1e2530),
    weak: rgb(0x5f6b7c),
    accent: rgb(0x1f6feb),
    on_accent: rgb(0xffffff),
    selected: rgb(0xd6e6ff),
    good: rgb(0x1a7f4e),
    warning: rgb(0x9a6200),
    bad: rgb(0xc7362f),
    weights: rgb(0x2f74e0),
    activations: rgb(0x8b46d6),
};

/// The colours in force.
pub fn palette(ui: &egui::Ui) -> &'static Palette {
    of(ui.visuals().dark_mode)
}

fn of(dark: bool) -> &'static Palette {
    if dark { &DARK } else { &LIGHT }
}

/// The colour that stands for a precision; the word always stands beside it.
pub fn precision(ui: &egui::Ui, precision: Precision) -> Color32 {
    let dark = ui.visuals().dark_mode;
    match precision {
        Precision::Int8 => rgb(if dark { 0x45c4b0 } else { 0x0c7d6d }),
        Precision::Int4 => rgb(if dark { 0xf2b35a } else { 0xa15c00 }),
        Precision::Int2 => rgb(if dark { 0xe5806b } else { 0xa83a24 }),
        Precision::Float16 => rgb(if dark { 0xb79cf7 } else { 0x6f42c1 }),
        Precision::Float32 => palette(ui).weak,
    }
}

/// The colour of a signal-to-quantization-noise ratio in dB: good from 30, doubtful from 15, bad below.
pub fn sqnr(ui: &egui::Ui, db: f64) -> Color32 {
    let palette = palette(ui);
    if db.is_nan() || db < 15.0 {
        palette.bad
    } else if db < 30.0 {
        palette.warning
    } else {
        palette.good
    }
}

/// The colour of what a form does.
pub fn verdict(ui: &egui::Ui, verdict: Verdict) -> Color32 {
    let palette = palette(ui);
    match verdict {
        Verdict::Faster => palette.accent,
        Verdict::SmallerOnly => palette.text,
        Verdict::SimulationOnly => palette.warning,
        Verdict::Unchanged => palette.weak,
    }
}

/// The colour of a problem.
pub fn severity(ui: &egui::Ui, severity: Severity) -> Color32 {
    let palette = palette(ui);
    match severity {
        Severity::Note => palette.accent,
        Severity::Warning => palette.warning,
        Severity::Serious => palette.bad,
    }
}

/// Puts both themes and the choice between them into the context.
pub fn install(ctx: &egui::Context, theme: settings::Theme) {
    for (of_theme, palette) in [(egui::Theme::Dark, &DARK), (egui::Theme::Light, &LIGHT)] {
        ctx.style_mut_of(of_theme, |style| apply(style, palette, of_theme == egui::Theme::Dark));
    }
    ctx.set_theme(match theme {
        settings::Theme::System => egui::ThemePreference::System,
        settings::Theme::Light => egui::ThemePreference::Light,
        settings::Theme::Dark => egui::ThemePreference::Dark,
    });
}

fn apply(style: &mut Style, palette: &Palette, dark: bool) {
    style.text_styles = [
        (TextStyle::Small, FontId::new(11.0, FontFamily::Proportional)),
        (TextStyle::Body, FontId::new(13.0, FontFamily::Proportional)),
        (TextStyle::Button, FontId::new(13.0, FontFamily::Proportional)),
        (TextStyle::Heading, FontId::new(17.0, FontFamily::Proportional)),
        (TextStyle::Monospace, FontId::new(12.0, FontFamily::Monospace)),
    ]
    .into();
    let spacing = &mut style.spacing;
    spacing.item_spacing = Vec2::new(8.0, 6.0);
    spacing.button_padding = Vec2::new(9.0, 4.0);
    spacing.interact_size = Vec2::new(32.0, 24.0);
    spacing.window_margin = Margin::same(14);
    spacing.menu_margin = Margin::same(6);
    spacing.combo_width = 120.0;
    spacing.tooltip_width = 420.0;
    spacing.scroll = egui::style::ScrollStyle {
        floating: false,
        bar_width: 7.0,
        bar_inner_margin: 5.0,
        bar_outer_margin: 0.0,
        ..egui::style::ScrollStyle::thin()
    };
    style.visuals = visuals(palette, dark);
    style.interaction.tooltip_delay = 0.35;
}

fn visuals(palette: &Palette, dark: bool) -> Visuals {
    let mut visuals = if dark { Visuals::dark() } else { Visuals::light() };
    let radius = CornerRadius::same(RADIUS);
    visuals.panel_fill = palette.panel;
    visuals.window_fill = palette.card;
    visuals.extreme_bg_color = if dark { palette.background } else { Color32::WHITE };
    visuals.faint_bg_color = if dark { rgb(0x1b2027) } else { rgb(0xf1f4f8) };
    visuals.code_bg_color = palette.control;
    visuals.window_stroke = Stroke::new(1.0, palette.line);
    visuals.window_corner_radius = CornerRadius::same(9);
    visuals.menu_corner_radius = CornerRadius::same(7);
    visuals.weak_text_color = Some(palette.weak);
    visuals.hyperlink_color = palette.accent;
    visuals.warn_fg_color = palette.warning;
    visuals.error_fg_color = palette.bad;
    visuals.selection.bg_fill = palette.selected;
    visuals.selection.stroke = Stroke::new(1.0, palette.accent);
    visuals.disabled_alpha = 0.45;
    let shadow =
        Shadow { offset: [0, 6], blur: 18, spread: 0, color: Color32::from_black_alpha(if dark { 110 } else { 40 }) };
    visuals.popup_shadow = shadow;
    visuals.window_shadow = shadow;
    let widgets = &mut visuals.widgets;
    for (widget, fill, stroke, text) in [
        (&mut widgets.noninteractive, palette.panel, palette.line, palette.text),
        (&mut widgets.inactive, palette.control, palette.line, palette.text),
        (&mut widgets.hovered, palette.hovered, palette.accent, palette.text),
        (&mut widgets.active, palette.hovered, palette.accent, palette.text),
        (&mut widgets.open, palette.hovered, palette.line, palette.text),
    ] {
        widget.bg_fill = fill;
        widget.weak_bg_fill = fill;
        widget.bg_stroke = Stroke::new(1.0, stroke);
        widget.fg_stroke = Stroke::new(1.0, text);
        widget.corner_radius = radius;
        widget.expansion = 0.0;
    }
    visuals
}

/// Width of the left of two parts of a pane: a form needs some, and both have to be seen however narrow the pane is.
pub fn left_part(ui: &egui::Ui) -> f32 {
    let all = ui.available_width();
    (all * 0.46).clamp(380.0_f32.min(all * 0.58), 640.0)
}

/// A card: a titled group that stands out from its panel.
pub fn card(ui: &egui::Ui) -> egui::Frame {
    let palette = palette(ui);
    egui::Frame::new()
        .fill(palette.card)
        .stroke(Stroke::new(1.0, palette.line))
        .corner_radius(CornerRadius::same(8))
        .inner_margin(Margin::same(10))
}

/// A panel's frame.
pub fn panel(ui: &egui::Ui) -> egui::Frame {
    egui::Frame::new().fill(palette(ui).panel).inner_margin(Margin::symmetric(12, 8))
}

/// Small capitals above a group.
pub fn caption(text: &str) -> egui::RichText {
    egui::RichText::new(text.to_uppercase()).small().weak().strong()
}
