//! The tables as CSV (RFC 4180), for spreadsheets and scripts.

use serde_json::Value;

use super::{Row, Saved, text};

/// One line a pair of models; units stand in the column names.
pub fn comparison(rows: &[Row]) -> String {
    let header = [
        "result",
        "original",
        "quantized",
        "size_original_bytes",
        "size_quantized_bytes",
        "latency_original_p50_ms",
        "latency_quantized_p50_ms",
        "latency_ratio_p50",
        "latency_ratio_low",
        "latency_ratio_high",
        "peak_memory_original_bytes",
        "peak_memory_quantized_bytes",
        "sqnr_db",
        "output",
        "agreement",
        "accuracy_original",
        "accuracy_quantized",
    ];
    let mut out = header.join(",") + "\r\n";
    for row in rows {
        let line = [
            cell(&row.name),
            cell(&row.original),
            cell(&row.quantized),
            number(row.size_original),
            number(row.size_quantized),
            number(row.latency_original_ms),
            number(row.latency_quantized_ms),
            number(row.latency_ratio),
            number(row.latency_low),
            number(row.latency_high),
            number(row.memory_original),
            number(row.memory_quantized),
            row.sqnr_db.as_ref().map(value).unwrap_or_default(),
            cell(&row.output),
            number(row.agreement),
            number(row.accuracy_original),
            number(row.accuracy_quantized),
        ];
        out += &(line.join(",") + "\r\n");
    }
    out
}

/// Every layer of every result, one line each; `None` when no result has layers. Columns are the union of the fields.
pub fn layers(results: &[Saved]) -> Option<String> {
    let mut columns: Vec<String> = Vec::new();
    let mut lines = Vec::new();
    for result in results {
        for layer in result.json.get("layers").and_then(Value::as_array).into_iter().flatten() {
            let Some(map) = layer.as_object() else { continue };
            let mut line = Vec::new();
            for (key, field) in map {
                match (key.as_str(), field) {
                    // A choice is spread over its own columns, so that one can filter by precision.
                    ("choice", Value::Object(choice)) => {
                        line.extend(choice.iter().map(|(k, v)| (k.clone(), v.clone())));
                    }
                    ("measured", Value::Object(times)) => {
                        line.extend(times.iter().map(|(k, v)| (format!("measured_{k}"), v.clone())));
                    }
                    _ => line.push((key.clone(), field.clone())),
                }
            }
            for (key, _) in &line {
                if !columns.contains(key) {
                    columns.push(key.clone());
                }
            }
            lines.push((result.name.as_str(), line));
        }
    }
    if lines.is_empty() {
        return None;
    }
    let header: Vec<_> = std::iter::once("result".to_owned()).chain(columns.iter().map(|c| cell(c))).collect();
    let mut out = header.join(",") + "\r\n";
    for (name, line) in lines {
        let field = |key: &String| line.iter().find(|(k, _)| k == key).map(|(_, v)| value(v)).unwrap_or_default();
        let cells: Vec<_> = std::iter::once(cell(name)).chain(columns.iter().map(field)).collect();
        out += &(cells.join(",") + "\r\n");
    }
    Some(out)
}

fn number<T: ToString>(number: Option<T>) -> String {
    number.map(|n| n.to_string()).unwrap_or_default()
}

fn value(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => cell(text),
        other => cell(&text::scalar(other)),
    }
}

/// Quoted where needed. Text that a spreadsheet would run as a formula gets an apostrophe: names come from strangers' files.
fn cell(text: &str) -> String {
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let text = if formula { format!("'{text}") } else { text.to_owned() };
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn cells_are_quoted_and_formulas_defused() {
        assert_eq!(cell("a,\"b\""), "\"a,\"\"b\"\"\"");
        assert_eq!(cell("=1+1"), "'=1+1");
        assert_eq!(value(&json!(-1.5)), "-1.5");
    }

    #[test]
    fn layers_take_the_union_of_their_fields() {
        let result =
            json!({"layers": [{"name": "a", "choice": {"precision": "int8"}}, {"name": "b", "reason": "x, y"}]});
        let table = layers(&[Saved::new("r", result)]).expect("layers");
        assert_eq!(table, "result,name,precision,reason\r\nr,a,int8,\r\nr,b,,\"x, y\"\r\n");
        assert!(layers(&[Saved::new("r", json!({}))]).is_none());
    }
}
