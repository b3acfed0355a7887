//! Horizontal bar charts as inline SVG. Colours are classes of the page, so that light and dark both work; every bar has
//! its figure beside it, so that colour carries no meaning alone.

use std::fmt::Write as _;

use super::text::escape;

const LABEL: f64 = 220.0;
const BARS: f64 = 420.0;
const WIDTH: f64 = 760.0;
const LINE: f64 = 24.0;

/// One bar.
pub struct Bar {
    /// What it stands for.
    pub label: String,
    /// Its length, in the chart's unit; below 0 is drawn as 0.
    pub value: f64,
    /// Ends of the spread, if measured.
    pub spread: Option<(f64, f64)>,
    /// The figure as text.
    pub text: String,
    /// CSS class of the colour: `a` the original, `b` the quantized.
    pub class: &'static str,
}

/// The chart; `mark` draws a dashed line at that value (a ratio of 1, say). Empty when there is nothing to draw.
pub fn bars(title: &str, bars: &[Bar], mark: Option<f64>) -> String {
    if bars.is_empty() {
        return String::new();
    }
    let tops = bars.iter().flat_map(|bar| [bar.value, bar.spread.map_or(0.0, |(_, high)| high)]);
    let top = tops.chain(mark).filter(|v| v.is_finite()).fold(0.0, f64::max);
    let scale = if top > 0.0 { BARS / top } else { 0.0 };
    let length = |value: f64| if value.is_finite() { (value * scale).clamp(0.0, BARS) } else { 0.0 };
    let height = LINE * bars.len() as f64 + 8.0;
    let title = escape(title);
    let mut out = format!(
        "<figure><figcaption>{title}</figcaption><svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{title}\">"
    );
    for (index, bar) in bars.iter().enumerate() {
        let y = LINE * index as f64 + 4.0;
        let middle = y + LINE / 2.0;
        let text = y + LINE * 0.68;
        let label = escape(&shorten(&bar.label));
        let full = escape(&bar.label);
        let width = length(bar.value);
        let figure = escape(&bar.text);
        let class = bar.class;
        let mut end = width;
        let _ = write!(
            out,
            "<text x=\"{}\" y=\"{text:.1}\" text-anchor=\"end\">{label}<title>{full}</title></text>\
             <rect class=\"{class}\" x=\"{LABEL}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{:.1}\" rx=\"2\"/>",
            LABEL - 8.0,
            y + 3.0,
            LINE - 6.0,
        );
        if let Some((low, high)) = bar.spread {
            let (from, to) = (LABEL + length(low), LABEL + length(high));
            end = end.max(length(high));
            let _ = write!(
                out,
                "<path class=\"spread\" d=\"M{from:.1} {middle:.1}H{to:.1}M{from:.1} {0:.1}v8M{to:.1} {0:.1}v8\"/>",
                middle - 4.0
            );
        }
        let _ = write!(out, "<text class=\"figure\" x=\"{:.1}\" y=\"{text:.1}\">{figure}</text>", LABEL + end + 8.0);
    }
    if let Some(mark) = mark {
        let x = LABEL + length(mark);
        let _ = write!(out, "<path class=\"mark\" d=\"M{x:.1} 0V{height:.1}\"/>");
    }
    out += "</svg></figure>";
    out
}

/// The end of a long name says more than its beginning.
fn shorten(label: &str) -> String {
    let count = label.chars().count();
    if count <= 32 { label.to_owned() } else { format!("…{}", label.chars().skip(count - 31).collect::<String>()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(value: f64) -> Bar {
        Bar { label: "<x>".repeat(30), value, spread: Some((0.5, 4.0)), text: "1".to_owned(), class: "a" }
    }

    #[test]
    fn bars_scale_to_the_longest_and_survive_odd_numbers() {
        let chart = bars("t", &[bar(2.0), bar(f64::NAN), bar(-1.0)], Some(1.0));
        assert!(chart.contains("width=\"210.0\""), "half of the longest, which is the spread's end");
        assert!(!chart.contains("NaN") && !chart.contains("<x>"));
        assert!(bars("t", &[], None).is_empty());
        assert!(bars("t", &[Bar { spread: None, ..bar(0.0) }], None).contains("width=\"0.0\""));
    }
}
