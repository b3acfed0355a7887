//! One line of the side-by-side table: what `quantize`, `bench` and `demo` results say about one pair of models.

use serde_json::Value;

use super::{Saved, text};
use crate::bench::{LatencyRatio, Speed};

/// What is known about one original and its quantized version; `None` where no result says it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    /// Name of the result it came from.
    pub name: String,
    /// Path of the original.
    pub original: String,
    /// Path of the quantized model.
    pub quantized: String,
    /// Bytes of the original, external data included.
    pub size_original: Option<u64>,
    /// Bytes of the quantized model, external data included.
    pub size_quantized: Option<u64>,
    /// Median latency of the original in milliseconds.
    pub latency_original_ms: Option<f64>,
    /// Median latency of the quantized model in milliseconds.
    pub latency_quantized_ms: Option<f64>,
    /// Quantized / original latency: median, and both ends of its spread. Below 1 is faster.
    pub latency_ratio: Option<f64>,
    /// Lower end of the spread.
    pub latency_low: Option<f64>,
    /// Upper end of the spread.
    pub latency_high: Option<f64>,
    /// Peak memory of the original in bytes.
    pub memory_original: Option<u64>,
    /// Peak memory of the quantized model in bytes.
    pub memory_quantized: Option<u64>,
    /// SQNR in dB, `"identical"` or `null`; `None` when nothing was compared.
    pub sqnr_db: Option<Value>,
    /// Name of the output that the SQNR belongs to.
    pub output: String,
    /// Share of samples on which both name the same class.
    pub agreement: Option<f64>,
    /// Task accuracy of the original, 0..=1.
    pub accuracy_original: Option<f64>,
    /// Task accuracy of the quantized model, 0..=1.
    pub accuracy_quantized: Option<f64>,
}

impl Row {
    /// The row of one result; `None` when the result compares no two models.
    pub fn of(result: &Saved) -> Option<Self> {
        let json = &result.json;
        let at = |pointer: &str| json.pointer(pointer);
        let number = |pointer: &str| at(pointer).and_then(Value::as_f64);
        let whole = |pointer: &str| at(pointer).and_then(Value::as_u64);
        let text = |pointer: &str| at(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let first = |a: String, b: String| if a.is_empty() { b } else { a };
        let row = Self {
            name: result.name.clone(),
            original: first(text("/models/0/path"), text("/model")),
            quantized: first(text("/output"), text("/models/1/path")),
            size_original: whole("/size_bytes/original").or(whole("/models/0/size_bytes")),
            size_quantized: whole("/size_bytes/quantized").or(whole("/models/1/size_bytes")),
            latency_original_ms: number("/models/0/latency_ms/p50"),
            latency_quantized_ms: number("/models/1/latency_ms/p50"),
            latency_ratio: number("/latency_ratio/p50"),
            latency_low: number("/latency_ratio/low"),
            latency_high: number("/latency_ratio/high"),
            memory_original: whole("/models/0/peak_memory_bytes"),
            memory_quantized: whole("/models/1/peak_memory_bytes"),
            sqnr_db: at("/quality/sqnr_db").or(at("/sqnr_db")).cloned(),
            output: first(text("/quality/output"), text("/output_name")),
            agreement: number("/quality/top1_agreement").or(number("/agreement")),
            accuracy_original: number("/quality/accuracy/original").or(number("/accuracy/original")),
            accuracy_quantized: number("/quality/accuracy/quantized").or(number("/accuracy/quantized")),
        };
        (row.size_quantized.is_some() || row.latency_ratio.is_some()).then_some(row)
    }

    /// The pair as `["what", "original", "quantized", "difference"]`, for the report and the terminal; what nobody
    /// measured is left out.
    pub fn lines(&self) -> Vec<[String; 4]> {
        let mut lines = Vec::new();
        let mut line = |what: &str, a: Option<String>, b: Option<String>, difference: Option<String>| {
            if a.is_some() || b.is_some() || difference.is_some() {
                let cell = Option::unwrap_or_default;
                lines.push([what.to_owned(), cell(a), cell(b), cell(difference)]);
            }
        };
        line("Size", self.size_original.map(text::bytes), self.size_quantized.map(text::bytes), self.size_change());
        line(
            "Latency (median)",
            self.latency_original_ms.map(text::milliseconds),
            self.latency_quantized_ms.map(text::milliseconds),
            None,
        );
        line("Latency ratio (median of pairs)", None, None, self.ratio_text());
        let memory = (self.memory_original.map(text::bytes), self.memory_quantized.map(text::bytes));
        line("Peak memory", memory.0, memory.1, None);
        let accuracy = (self.accuracy_original.map(text::percent), self.accuracy_quantized.map(text::percent));
        line("Accuracy", accuracy.0, accuracy.1, self.accuracy_change());
        line("SQNR", None, self.sqnr_text(), None);
        line("Top-1 agreement", None, self.agreement.map(text::percent), None);
        lines
    }

    /// `25.0 % of the original`.
    pub fn size_change(&self) -> Option<String> {
        let (from, to) = (self.size_original? as f64, self.size_quantized? as f64);
        (from > 0.0).then(|| format!("{} of the original", text::percent(to / from)))
    }

    /// `0.50 (0.45 to 0.55), faster`; it is called faster or slower only when its whole spread is, by more than 1 %.
    pub fn ratio_text(&self) -> Option<String> {
        let ratio = self.latency_ratio?;
        let (low, high) = (self.latency_low.unwrap_or(ratio), self.latency_high.unwrap_or(ratio));
        let word = match (LatencyRatio { p50: ratio, low, high }).speed() {
            Speed::Faster => "faster",
            Speed::Slower => "slower",
            Speed::Same => "no clear difference",
        };
        Some(format!("{ratio:.2} ({low:.2} to {high:.2}), {word}"))
    }

    /// `31.25 dB at logits`.
    pub fn sqnr_text(&self) -> Option<String> {
        let at = if self.output.is_empty() { String::new() } else { format!(" at {}", self.output) };
        self.sqnr_db.as_ref().map(|value| text::sqnr(value) + &at)
    }

    /// `−0.5 points`.
    pub fn accuracy_change(&self) -> Option<String> {
        Some(text::points(self.accuracy_quantized? - self.accuracy_original?))
    }

    /// Fills what this row does not know from `other`.
    fn merge(&mut self, other: Self) {
        if self.original.is_empty() {
            self.original = other.original;
        }
        if self.output.is_empty() {
            self.output = other.output;
        }
        macro_rules! fill { ($($field:ident),+) => { $(self.$field = self.$field.take().or(other.$field);)+ } }
        fill!(size_original, size_quantized, latency_original_ms, latency_quantized_ms, latency_ratio, latency_low);
        fill!(latency_high, memory_original, memory_quantized, sqnr_db, agreement, accuracy_original);
        fill!(accuracy_quantized);
    }
}

/// The rows of all results, in their order; results about the same quantized file become one row.
pub fn rows(results: &[Saved]) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for row in results.iter().filter_map(Row::of) {
        match rows.iter_mut().find(|known| !row.quantized.is_empty() && known.quantized == row.quantized) {
            Some(known) => known.merge(row),
            None => rows.push(row),
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn quantize_and_bench_of_one_file_become_one_row() {
        let quantize = json!({"output": "q.onnx", "size_bytes": {"original": 9, "quantized": 3}, "quality": {"sqnr_db": "identical"}});
        let bench = json!({"models": [{"path": "a.onnx", "latency_ms": {"p50": 1.0}}, {"path": "q.onnx"}], "latency_ratio": {"p50": 0.5}});
        let evaluate = json!({"accuracy": 0.5, "samples": 3});
        let rows = rows(&[Saved::new("q", quantize), Saved::new("b", bench), Saved::new("e", evaluate)]);
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].original.as_str(), rows[0].latency_ratio), ("a.onnx", Some(0.5)));
        assert_eq!(rows[0].sqnr_db, Some(json!("identical")));
    }
    #[test]
    fn a_ratio_is_called_faster_only_when_its_whole_spread_is() {
        let word = |low, high| {
            let row =
                Row { latency_ratio: Some(0.9), latency_low: Some(low), latency_high: Some(high), ..Row::default() };
            row.ratio_text().expect("ratio")
        };
        assert!(word(0.8, 0.95).ends_with("faster"));
        assert!(word(0.8, 1.05).ends_with("no clear difference"));
        assert!(word(1.02, 1.2).ends_with("slower"));
        assert!(word(1.005, 1.2).ends_with("no clear difference"), "1 % is what two runs differ by");
        assert_eq!(Row::default().lines().len(), 0);
    }
}
