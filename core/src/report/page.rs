//! Fills the template with the results.

#![allow(
    clippy::format_push_string,
    reason = "a page is made once; `+=` reads better than a `write!` whose error cannot be"
)]

use std::collections::BTreeMap;

use serde_json::Value;

use super::text::{self, escape};
use super::{Row, Saved, tables};

const TEMPLATE: &str = include_str!("../../../assets/report.html");

/// The whole page.
pub fn html(results: &[Saved], rows: &[Row]) -> String {
    let names: Vec<_> = results.iter().map(|r| r.name.as_str()).collect();
    let title = format!("Quantization report: {}", names.join(", "));
    let mut body = String::new();
    if !rows.is_empty() {
        body += "<section><h2>Side by side</h2>";
        body += &match rows {
            [row] => tables::pair(row),
            rows => tables::side_by_side(rows),
        };
        body += &tables::charts(rows);
        body += "</section>\n";
    }
    for result in results {
        body += &section(result, rows.len() > 1);
    }
    fill(&[("title", &escape(&title)), ("body", &body), ("version", env!("CARGO_PKG_VERSION"))])
}

/// What one result says beyond the side-by-side table.
fn section(result: &Saved, several: bool) -> String {
    let Some(map) = result.json.as_object() else { return String::new() };
    let list = |key: &str| map.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut out = format!("<section><h2>{}</h2>", escape(&result.name));
    if let Some(error) = map.get("error").and_then(Value::as_object) {
        out += &format!("<p class=\"note\">This run failed</p>{}", tables::facts(error, &[]));
    }
    if several && let Some(row) = Row::of(result) {
        out += &tables::pair(&row);
    }
    let shown = [
        "layers",
        "problems",
        "deployment",
        "quality",
        "models",
        "size_bytes",
        "latency_ratio",
        "error",
        "agreement",
        "accuracy",
        "sqnr_db",
        "layer_summary",
        "report",
        "files",
        "slower",
        "notes",
    ];
    let skip: &[&str] = if Row::of(result).is_some() { &shown } else { &["layers", "problems", "error", "notes"] };
    for note in list("notes") {
        out += &format!("<p class=\"note\">{}</p>", escape(&text::scalar(note)));
    }
    out += &tables::facts(map, skip);
    if !list("slower").is_empty() {
        let lines = list("slower").iter().map(|line| format!("<li>{}</li>", escape(&text::scalar(line))));
        out += &format!("<h3>Why it is slower</h3><ul>{}</ul>", lines.collect::<String>());
    }
    out += &quality(map.get("quality"));
    if !list("layers").is_empty() {
        out += &format!("<h3>Layers</h3>{}{}", verdicts(list("layers")), tables::layers(list("layers")));
    }
    for (key, value) in map.iter().filter(|(key, _)| !shown.contains(&key.as_str())) {
        if let Some(items) = value.as_array().filter(|items| items.iter().any(Value::is_object)) {
            out += &format!("<h3>{}</h3>{}", escape(&tables::title(key)), tables::objects(items));
        }
    }
    out += &problems(map.get("problems"));
    out += &deployment(&result.json);
    out + "</section>\n"
}

/// Every output's figures, and what the scalar fields say.
fn quality(quality: Option<&Value>) -> String {
    let Some(map) = quality.and_then(Value::as_object) else { return String::new() };
    let outputs = map.get("outputs").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let outputs = if outputs.is_empty() { String::new() } else { tables::objects(outputs) };
    format!("<h3>Quality</h3>{}{outputs}", tables::facts(map, &["outputs"]))
}

/// How many layers have which verdict.
fn verdicts(layers: &[Value]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for layer in layers {
        if let Some(verdict) = layer.get("verdict").and_then(Value::as_str) {
            *counts.entry(verdict).or_default() += 1;
        }
    }
    if counts.is_empty() {
        return String::new();
    }
    let parts: Vec<_> = counts.iter().map(|(verdict, n)| format!("{n} {}", escape(text::verdict(verdict)))).collect();
    format!("<p>{} layers: {}</p>", layers.len(), parts.join(", "))
}

fn problems(problems: Option<&Value>) -> String {
    let items = problems.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if items.is_empty() {
        return String::new();
    }
    let mut out = "<h3>Problems</h3><ul class=\"problems\">".to_owned();
    for item in items {
        let field = |key: &str| escape(item.get(key).and_then(Value::as_str).unwrap_or_default());
        let severity = field("severity");
        let place = if field("where").is_empty() { String::new() } else { format!(" <code>{}</code>", field("where")) };
        out += &format!(
            "<li><b>{}</b>{place} <small>{severity}</small><br>{}<br><i>{}</i></li>",
            field("what"),
            field("why"),
            field("fix")
        );
    }
    out + "</ul>"
}

/// What the exported file needs, and how to load it.
fn deployment(result: &Value) -> String {
    let Some(map) = result.get("deployment").and_then(Value::as_object) else { return String::new() };
    let mut out = format!("<h3>Deployment</h3>{}", tables::facts(map, &["snippet"]));
    let given = map.get("snippet").and_then(Value::as_str).filter(|text| !text.is_empty());
    let snippet = given.map_or_else(|| snippet(result), str::to_owned);
    out += &format!("<p>Load it in Python:</p><pre><code>{}</code></pre>", escape(&snippet));
    out
}

/// Python that loads the exported file with the session options it needs.
pub fn snippet(result: &Value) -> String {
    let path = result.get("output").and_then(Value::as_str).unwrap_or("model.onnx");
    // JSON strings are valid Python strings.
    let quote = |text: &str| Value::from(text).to_string();
    let mut out = "import onnxruntime as ort\n\noptions = ort.SessionOptions()\n".to_owned();
    if let Some(options) = result.pointer("/deployment/session_options").and_then(Value::as_object) {
        for (key, value) in options {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            out += &format!("options.add_session_config_entry({}, {})\n", quote(key), quote(&value));
        }
    }
    out + &format!("session = ort.InferenceSession({}, options, providers=[\"CPUExecutionProvider\"])\n", quote(path))
}

/// Puts values into the template's `{{name}}` marks. One pass, so that a value holding a mark is not filled again.
fn fill(values: &[(&str, &str)]) -> String {
    let mut out = String::new();
    let mut rest = TEMPLATE;
    while let Some((before, after)) = rest.split_once("{{") {
        let Some((mark, tail)) = after.split_once("}}") else { break };
        out += before;
        out += values.iter().find(|(name, _)| *name == mark).map_or("", |(_, value)| value);
        rest = tail;
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_name_that_looks_like_a_mark_stays_as_it_is() {
        let page = html(&[Saved::new("{{body}}", json!({}))], &[]);
        assert!(page.contains("Quantization report: {{body}}"));
        assert!(page.trim_end().ends_with("</html>"));
    }

    #[test]
    fn the_snippet_quotes_what_it_is_given() {
        let text = snippet(&json!({"output": "a\"b.onnx", "deployment": {"session_options": {"k": "1"}}}));
        assert!(text.contains(r#"InferenceSession("a\"b.onnx""#) && text.contains(r#"entry("k", "1")"#));
    }
}
