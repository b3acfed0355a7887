//! HTML tables: the side-by-side ones, the layers, and a plain one for any list of JSON objects.

#![allow(
    clippy::format_push_string,
    clippy::format_collect,
    reason = "a page is made once; `+=` reads better than a `write!` whose error cannot be"
)]

use serde_json::{Map, Value};

use super::text::{self, escape};
use super::{Row, chart};

/// All pairs, one line each.
pub fn side_by_side(rows: &[Row]) -> String {
    let header = ["Result", "Size", "Latency (median)", "Latency ratio", "SQNR", "Agreement", "Accuracy"];
    let lines = rows.iter().map(|row| {
        [
            format!("{}<br><small>{}</small>", escape(&row.name), escape(&row.quantized)),
            change(row.size_original.map(text::bytes), row.size_quantized.map(text::bytes), row.size_change()),
            change(
                row.latency_original_ms.map(text::milliseconds),
                row.latency_quantized_ms.map(text::milliseconds),
                None,
            ),
            row.ratio_text().unwrap_or_else(dash),
            row.sqnr_text().map_or_else(dash, |sqnr| escape(&sqnr)),
            row.agreement.map_or_else(dash, text::percent),
            change(
                row.accuracy_original.map(text::percent),
                row.accuracy_quantized.map(text::percent),
                row.accuracy_change(),
            ),
        ]
    });
    table(&header, lines, 1)
}

/// One pair: original | quantized | difference.
pub fn pair(row: &Row) -> String {
    let lines = row.lines().into_iter().map(|line| line.map(|cell| escape(&cell)));
    table(&["", "Original", "Quantized", "Difference"], lines, 1)
}

/// The layers of a quantize result, with what became of each.
pub fn layers(layers: &[Value]) -> String {
    let maps: Vec<_> = layers.iter().filter_map(Value::as_object).collect();
    if !maps.iter().any(|map| map.contains_key("verdict") || map.contains_key("form")) {
        return objects(layers);
    }
    let word = |map: &Map<String, Value>, key: &str| map.get(key).map(text::scalar).unwrap_or_default();
    let sized = maps.iter().any(|map| map.contains_key("bytes_after"));
    let timed = layers.iter().any(|layer| text::measured(layer).is_some());
    let mut header = vec!["Layer", "Operator", "Choice", "Form", "Verdict", "Reason"];
    if timed {
        header.push("Measured");
    }
    if sized {
        header.push("Size");
    }
    let lines = layers.iter().filter_map(|layer| Some((layer, layer.as_object()?))).map(|(layer, map)| {
        let verdict = map.get("verdict").and_then(Value::as_str).unwrap_or_default();
        let mut line = vec![
            escape(&word(map, "name")),
            escape(&word(map, "op")),
            escape(&map.get("choice").map(text::choice).unwrap_or_default()),
            escape(map.get("form").and_then(Value::as_str).unwrap_or("–")),
            format!("<span class=\"verdict {}\">{}</span>", class(verdict), escape(text::verdict(verdict))),
            escape(&word(map, "reason")),
        ];
        if timed {
            line.push(text::measured(layer).unwrap_or_else(dash));
        }
        if sized {
            let bytes = |key: &str| map.get(key).and_then(Value::as_u64).map(text::bytes);
            line.push(change(bytes("bytes_before"), bytes("bytes_after"), None));
        }
        line
    });
    table(&header, lines, 1)
}

/// Any list of objects, one column a field.
pub fn objects(items: &[Value]) -> String {
    let maps: Vec<_> = items.iter().filter_map(Value::as_object).collect();
    let mut columns: Vec<&str> = Vec::new();
    for key in maps.iter().flat_map(|map| map.keys()) {
        if !columns.contains(&key.as_str()) {
            columns.push(key);
        }
    }
    let titles: Vec<_> = columns.iter().map(|c| title(c)).collect();
    let cell =
        |map: &Map<String, Value>, key: &str| map.get(key).map(|value| escape(&field(key, value))).unwrap_or_default();
    let lines = maps.iter().map(|map| columns.iter().map(|c| cell(map, c)).collect::<Vec<_>>());
    table(&titles.iter().map(String::as_str).collect::<Vec<_>>(), lines, 1)
}

/// The plain fields of an object as a list of terms; lists of objects are left to [`objects`].
pub fn facts(map: &Map<String, Value>, skip: &[&str]) -> String {
    let is_table = |value: &Value| matches!(value, Value::Array(items) if items.iter().any(Value::is_object));
    let is_empty = |value: &Value| match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    };
    let mut out = String::new();
    for (key, value) in map {
        if skip.contains(&key.as_str()) || is_table(value) || is_empty(value) {
            continue;
        }
        out += &format!("<dt>{}</dt><dd>{}</dd>", escape(&title(key)), escape(&field(key, value)));
    }
    if out.is_empty() { out } else { format!("<dl>{out}</dl>") }
}

/// A value as text, by what its name says it is.
fn field(key: &str, value: &Value) -> String {
    match value {
        Value::Number(size) if key.ends_with("bytes") => size.as_u64().map_or_else(|| size.to_string(), text::bytes),
        Value::Number(_) | Value::Null if key.ends_with("sqnr_db") => text::sqnr(value),
        // Six digits: cosines of good models differ in the fourth.
        Value::Number(cosine) if key == "cosine" => format!("{:.6}", cosine.as_f64().unwrap_or_default()),
        Value::Number(share) if key == "accuracy" || key.ends_with("agreement") => {
            share.as_f64().map_or_else(|| share.to_string(), text::percent)
        }
        value if key == "choice" => text::choice(value),
        value => text::scalar(value),
    }
}

/// Charts over all pairs: size, latency, and the ratio with its spread.
pub fn charts(rows: &[Row]) -> String {
    type Sides = (Option<f64>, Option<f64>);
    let pairs = |get: &dyn Fn(&Row) -> Sides, show: &dyn Fn(f64) -> String| {
        let mut bars = Vec::new();
        for row in rows {
            let (original, quantized) = get(row);
            for (value, side, class) in [(original, "original", "a"), (quantized, "quantized", "b")] {
                if let Some(value) = value {
                    let label = if rows.len() == 1 { side.to_owned() } else { format!("{} {side}", row.name) };
                    bars.push(chart::Bar { label, value, spread: None, text: show(value), class });
                }
            }
        }
        bars
    };
    let sizes = pairs(&|row| (row.size_original.map(|b| b as f64), row.size_quantized.map(|b| b as f64)), &|b| {
        text::bytes(b as u64)
    });
    let latencies = pairs(&|row| (row.latency_original_ms, row.latency_quantized_ms), &text::milliseconds);
    let ratios: Vec<_> = rows
        .iter()
        .filter_map(|row| {
            Some(chart::Bar {
                label: row.name.clone(),
                value: row.latency_ratio?,
                spread: row.latency_low.zip(row.latency_high),
                text: row.ratio_text()?,
                class: "b",
            })
        })
        .collect();
    chart::bars("Size on disk", &sizes, None)
        + &chart::bars("Latency, median of a run", &latencies, None)
        + &chart::bars("Latency ratio, quantized / original (left of the line is faster)", &ratios, Some(1.0))
}

/// A table; the first `names` columns are names, the rest figures. Cells are HTML already.
fn table<L: AsRef<[String]>>(header: &[&str], lines: impl IntoIterator<Item = L>, names: usize) -> String {
    let head: String = header.iter().map(|h| format!("<th scope=\"col\">{}</th>", escape(h))).collect();
    let mut body = String::new();
    for line in lines {
        body += "<tr>";
        for (index, cell) in line.as_ref().iter().enumerate() {
            body += &if index < names { format!("<th scope=\"row\">{cell}</th>") } else { format!("<td>{cell}</td>") };
        }
        body += "</tr>\n";
    }
    format!("<div class=\"scroll\"><table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table></div>\n")
}

fn change(from: Option<String>, to: Option<String>, delta: Option<String>) -> String {
    let delta = delta.map(|d| format!("<br><small>{d}</small>")).unwrap_or_default();
    match (from, to) {
        (None, None) => dash(),
        (Some(from), None) => format!("{from} → –"),
        (None, Some(to)) => format!("{to}{delta}"),
        (Some(from), Some(to)) => format!("{from} → {to}{delta}"),
    }
}

/// `peak_memory_bytes` → `Peak memory`.
pub fn title(key: &str) -> String {
    let words = match key {
        "ops" => "time by operator".to_owned(),
        "layer_times" => "time by node".to_owned(),
        "ir_version" => "IR version".to_owned(),
        "top1_agreement" => "top-1 agreement".to_owned(),
        key if key.ends_with("_ms") => key.trim_end_matches("_ms").replace('_', " ") + " (ms)",
        key => key.trim_end_matches("_bytes").replace('_', " ").replace("sqnr db", "SQNR").replace("cpu ", "CPU "),
    };
    let mut letters = words.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// Only known words become CSS classes.
fn class(verdict: &str) -> &'static str {
    match verdict {
        "faster" => "faster",
        "smaller_only" => "smaller",
        "simulation_only" => "simulated",
        _ => "left",
    }
}

fn dash() -> String {
    "–".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn titles_are_words() {
        let titles = ["ir_version", "top1_agreement", "ops", "time_ms", "peak_memory_bytes"].map(title);
        assert_eq!(titles, ["IR version", "Top-1 agreement", "Time by operator", "Time (ms)", "Peak memory"]);
    }

    #[test]
    fn unknown_objects_become_a_table_with_all_their_fields() {
        let table = objects(&[json!({"name": "a", "size_bytes": 2000}), json!({"other_thing": [1, 2]})]);
        for part in ["Name", "Size", "2.0 kB", "Other thing", "1, 2"] {
            assert!(table.contains(part), "{part}");
        }
    }
}
