//! How figures are written for people: the same words in the report and on the terminal.

use serde_json::Value;

use crate::bench::{Measured, Speed};

/// Text made safe for HTML elements and attributes.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() && c != '\n' && c != '\t' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// A size in decimal units, as file managers and the paper's tables write it: `26.3 kB`.
pub fn bytes(size: u64) -> String {
    let units = ["kB", "MB", "GB", "TB"];
    if size < 1000 {
        return format!("{size} B");
    }
    let mut value = size as f64;
    let mut unit = "B";
    for next in units {
        if value < 999.95 {
            break;
        }
        value /= 1000.0;
        unit = next;
    }
    if value < 99.95 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
}

/// A share in 0..=1 as percent: `98.5 %`.
pub fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// A difference of shares, in percentage points with its sign: `−0.5 points`.
pub fn points(difference: f64) -> String {
    format!("{} points", signed(difference * 100.0, 1))
}

/// A number with its sign; the minus is the typographic one, and what rounds to zero is `±0`.
pub fn signed(value: f64, digits: usize) -> String {
    let text = format!("{:.digits$}", value.abs());
    if text.chars().all(|c| matches!(c, '0' | '.')) {
        return format!("±{text}");
    }
    format!("{}{text}", if value < 0.0 { "−" } else { "+" })
}

/// Milliseconds with three significant digits: `0.584 ms`.
pub fn milliseconds(value: f64) -> String {
    format!("{} ms", significant(value))
}

/// Three significant digits, no exponent for usual sizes.
pub fn significant(value: f64) -> String {
    let size = value.abs();
    if !value.is_finite() {
        "–".to_owned()
    } else if size >= 100.0 || size == 0.0 {
        format!("{value:.0}")
    } else if size >= 10.0 {
        format!("{value:.1}")
    } else if size >= 1.0 {
        format!("{value:.2}")
    } else if size >= 0.1 {
        format!("{value:.3}")
    } else {
        format!("{value:.4}")
    }
}

/// An SQNR as JSON holds it: a number of decibels, `"identical"`, or `null` when new non-finite values appeared.
pub fn sqnr(value: &Value) -> String {
    match value {
        Value::Number(db) => db.as_f64().map_or_else(|| "–".to_owned(), |db| format!("{db:.2} dB")),
        Value::String(word) => word.clone(),
        _ => "undefined".to_owned(),
    }
}

/// What the verdicts mean, in two words. They are expectations; [`measured`] says what came of them.
pub fn verdict(word: &str) -> &str {
    match word {
        "faster" => "expected faster",
        "smaller_only" => "only smaller",
        "simulation_only" => "simulation only",
        "unchanged" | "" => "left as it is",
        other => other,
    }
}

/// The measured times of a layer, `0.0020 → 0.0080 ms, slower`; `None` when `layer` has none.
pub fn measured(layer: &Value) -> Option<String> {
    let number = |key: &str| layer.get("measured")?.get(key)?.as_f64();
    let times = Measured { original_ms: number("original_ms")?, quantized_ms: number("quantized_ms")? };
    let word = match times.speed() {
        Speed::Faster => "faster",
        Speed::Slower => "slower",
        Speed::Same => "as fast",
    };
    Some(format!("{} → {}, {word}", significant(times.original_ms), milliseconds(times.quantized_ms)))
}

/// A choice in a few words, `int8 per_channel symmetric · static int8`; `left in float` when nothing is quantized.
pub fn choice(choice: &Value) -> String {
    let Some(map) = choice.as_object() else {
        return scalar(choice);
    };
    let word = |key: &str| map.get(key).and_then(Value::as_str).unwrap_or_default();
    let mut words = Vec::new();
    match word("precision") {
        "float32" | "" => words.push("left in float".to_owned()),
        "float16" => words.push("float16".to_owned()),
        precision => {
            words.extend([precision, word("granularity"), word("symmetry")].map(str::to_owned));
            if map.get("reduce_range") == Some(&Value::Bool(true)) {
                words.push("in 7 bits".to_owned());
            }
            if !matches!(word("clip"), "" | "minmax") {
                words.push(format!("clip {}", word("clip")));
            }
            if !matches!(word("rounding"), "" | "nearest") {
                words.push(format!("rounded by {}", word("rounding")));
            }
            words.push(match (word("mode"), word("activation")) {
                ("weight_only", _) | (_, "float32" | "") => "· weights only".to_owned(),
                (mode, activation) => format!("· {mode} {activation}"),
            });
        }
    }
    words.retain(|w| !w.is_empty());
    words.join(" ")
}

/// Any JSON value as short text.
pub fn scalar(value: &Value) -> String {
    match value {
        Value::Null => "–".to_owned(),
        Value::Bool(yes) => if *yes { "yes" } else { "no" }.to_owned(),
        Value::Number(number) => match number.as_f64() {
            Some(x) if number.is_f64() => significant(x),
            _ => number.to_string(),
        },
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(scalar).collect::<Vec<_>>().join(", "),
        Value::Object(map) => {
            map.iter().map(|(k, v)| format!("{} {}", k.replace('_', " "), scalar(v))).collect::<Vec<_>>().join(", ")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn figures_read_as_people_write_them() {
        assert_eq!(
            [bytes(0), bytes(999), bytes(1000), bytes(26_349), bytes(999_960)],
            ["0 B", "999 B", "1.0 kB", "26.3 kB", "1.0 MB"]
        );
        assert_eq!(bytes(135_400_000), "135 MB");
        assert_eq!([signed(-0.51, 1), signed(0.04, 1), signed(3.0, 0)], ["−0.5", "±0.0", "+3"]);
        assert_eq!([significant(0.5843), significant(12.34), significant(0.0)], ["0.584", "12.3", "0"]);
        assert_eq!(percent(0.985), "98.5 %");
        assert_eq!(
            [sqnr(&json!(31.256)), sqnr(&json!("identical")), sqnr(&Value::Null)],
            ["31.26 dB", "identical", "undefined"]
        );
    }

    #[test]
    fn measured_times_say_what_came_of_the_expectation() {
        let layer = json!({"measured": {"original_ms": 0.2, "quantized_ms": 0.8}});
        assert_eq!(measured(&layer).as_deref(), Some("0.200 → 0.800 ms, slower"));
        assert_eq!(measured(&json!({"measured": null})), None);
    }

    #[test]
    fn choices_read_in_a_few_words() {
        let int8 = serde_json::to_value(crate::plan::PRESETS[0].choice).expect("json");
        assert_eq!(choice(&int8), "int8 per_channel symmetric · static int8");
        assert_eq!(choice(&json!({"precision": "float32"})), "left in float");
        assert_eq!(choice(&json!("kept")), "kept");
    }

    #[test]
    fn markup_and_control_characters_lose_their_power() {
        assert_eq!(escape("<a b='\"&\u{1}'>"), "&lt;a b=&#39;&quot;&amp;\u{fffd}&#39;&gt;");
    }
}
