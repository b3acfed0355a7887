//! Numbers as people read them. One place, so that the same number looks the same everywhere.

use std::time::Duration;

use nibble_core::error::Sqnr;
use nibble_core::export::{Form, Verdict};
use nibble_core::plan::{Choice, Plan};

/// Stands for a value that does not exist.
pub const NONE: &str = "–";
/// Stands for a value that is being computed.
pub const PENDING: &str = "…";

/// Bytes in decimal units, as file managers show them: `24.1 MB`.
pub fn bytes(count: u64) -> String {
    let mut value = count as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if value < 999.5 || unit == "GB" {
            return match unit {
                "B" => format!("{value:.0} B"),
                _ if value < 9.995 => format!("{value:.2} {unit}"),
                _ if value < 99.95 => format!("{value:.1} {unit}"),
                _ => format!("{value:.0} {unit}"),
            };
        }
        value /= 1000.0;
    }
    String::new()
}

/// A count with a unit prefix: `11.7 M`.
pub fn count(count: u64) -> String {
    let value = count as f64;
    match count {
        0..1_000 => count.to_string(),
        1_000..1_000_000 => format!("{:.1} k", value / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} M", value / 1e6),
        _ => format!("{:.1} G", value / 1e9),
    }
}

/// `1 conflict`, `3 conflicts`.
pub fn conflicts(count: usize) -> String {
    if count == 1 { "1 conflict".to_owned() } else { format!("{count} conflicts") }
}

/// Decibels: `31.2 dB`; infinite means identical.
pub fn db(value: f64) -> String {
    if value.is_nan() {
        NONE.to_owned()
    } else if value == f64::INFINITY {
        "identical".to_owned()
    } else {
        format!("{value:.1} dB")
    }
}

/// A signal-to-quantization-noise ratio.
pub fn sqnr(value: Sqnr) -> String {
    match value {
        Sqnr::Db(value) => db(value),
        Sqnr::Identical => "identical".to_owned(),
        Sqnr::Undefined => "non-finite".to_owned(),
    }
}

/// The ratio as a number: infinite when identical, not a number when undefined.
pub fn decibels(value: Sqnr) -> f64 {
    match value {
        Sqnr::Db(value) => value,
        Sqnr::Identical => f64::INFINITY,
        Sqnr::Undefined => f64::NAN,
    }
}

/// The word for how a layer is written.
pub fn form(form: Form) -> &'static str {
    form.word()
}

/// The word for what a form does; whether it does is measured later.
pub fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Faster => "expected faster",
        Verdict::SmallerOnly => "smaller only",
        Verdict::SimulationOnly => "simulation only",
        Verdict::Unchanged => "unchanged",
    }
}

/// A plan in a few words: `int8, 3 layers with a choice of their own`.
pub fn plan(plan: &Plan) -> String {
    let name = if plan.preset.is_empty() { "custom" } else { &plan.preset };
    let mut text = name.to_owned();
    if !plan.layers.is_empty() {
        text += &format!(
            ", {} with a choice of {} own",
            layers(plan.layers.len()),
            if plan.layers.len() == 1 { "its" } else { "their" }
        );
    }
    match plan.rules.len() {
        0 => text,
        1 => text + ", 1 rule",
        count => text + &format!(", {count} rules"),
    }
}

/// A choice in a few words, `int8 per_channel symmetric · static int8`.
pub fn choice(choice: &Choice) -> String {
    nibble_core::report::text::choice(&serde_json::to_value(choice).unwrap_or_default())
}

/// Dimensions: `64 × 3 × 7 × 7`.
pub fn shape(dimensions: &[usize]) -> String {
    match dimensions {
        [] => "scalar".to_owned(),
        _ => dimensions.iter().map(ToString::to_string).collect::<Vec<_>>().join(" × "),
    }
}

/// Minutes and seconds: `0:42`.
pub fn time(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..3600 => format!("{}:{:02}", seconds / 60, seconds % 60),
        _ => format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60),
    }
}

/// A share in percent: `98.4 %`.
pub fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// A name of at most `letters` letters: of a longer one the end, behind an ellipsis.
pub fn tail(name: &str, letters: usize) -> String {
    let count = name.chars().count();
    if count <= letters.max(4) {
        return name.to_owned();
    }
    let rest: String = name.chars().skip(count + 1 - letters.max(4)).collect();
    format!("…{rest}")
}

/// Milliseconds: `12.3 ms`.
pub fn milliseconds(value: f64) -> String {
    match value {
        ..1.0 => format!("{value:.3} ms"),
        ..10.0 => format!("{value:.2} ms"),
        _ => format!("{value:.1} ms"),
    }
}

/// A divergence in nats, to two digits.
pub fn nats(value: f64) -> String {
    if value >= 0.01 { format!("{value:.2}") } else { format!("{value:.1e}") }
}

/// `1 sample`, `3 samples`.
pub fn samples(count: usize) -> String {
    if count == 1 { "1 sample".to_owned() } else { format!("{count} samples") }
}

/// `1 layer`, `3 layers`.
pub fn layers(count: usize) -> String {
    if count == 1 { "1 layer".to_owned() } else { format!("{count} layers") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!(bytes(512), "512 B");
        assert_eq!(bytes(24_100_000), "24.1 MB");
        assert_eq!(bytes(999_900), "1.00 MB");
        assert_eq!(count(11_720_000), "11.7 M");
        assert_eq!(db(31.24), "31.2 dB");
        assert_eq!(db(f64::INFINITY), "identical");
        assert_eq!(tail("If_0/then_branch/Conv_3", 8), "…/Conv_3");
        assert_eq!(tail("Ähre", 2), "Ähre");
        assert_eq!(shape(&[64, 3, 7, 7]), "64 × 3 × 7 × 7");
        assert_eq!(time(Duration::from_secs(42)), "0:42");
        assert_eq!(milliseconds(0.1234), "0.123 ms");
    }
}
