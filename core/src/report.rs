//! One self-contained HTML page and CSV tables from saved `--json` results, so that figures can be shown without Nibble.
//!
//! Results are read as JSON, not as this version's types: results of other versions, and of verbs that this module has
//! never heard of, still give a readable page.

mod chart;
mod csv;
mod page;
mod row;
mod tables;
pub mod text;

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::{Error, limits};

pub use row::Row;

/// One saved result.
#[derive(Clone, Debug)]
pub struct Saved {
    /// What it is called on the page: the file's name without its ending.
    pub name: String,
    /// The JSON object that a verb printed.
    pub json: Value,
}

/// Why a report could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The file is not a result.
    #[error("not a result of `--json`: {why}")]
    Format {
        /// The file.
        path: PathBuf,
        /// The reader's reason.
        why: String,
    },
    /// There is nothing to report.
    #[error("no results were given")]
    Empty,
}

impl ReportError {
    /// The file concerned.
    pub fn place(&self) -> String {
        match self {
            Self::Format { path, .. } => path.display().to_string(),
            Self::Empty => String::new(),
        }
    }

    /// What to do next.
    pub fn hint(&self) -> String {
        match self {
            Self::Format { .. } => "Save one first, e.g. `nibble bench A.onnx B.onnx --json > bench.json`".to_owned(),
            Self::Empty => "Name at least one JSON file".to_owned(),
        }
    }
}

impl Saved {
    /// A result that is already in memory.
    pub fn new(name: impl Into<String>, json: Value) -> Self {
        Self { name: name.into(), json }
    }

    /// Reads a result that was saved with `--json`. It must be one JSON object.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let io = |source| Error::Io { action: "read the result", path: path.to_owned(), source };
        let bad = |why: String| ReportError::Format { path: path.to_owned(), why };
        if std::fs::metadata(path).map_err(io)?.len() > limits::MAX_TEXT_BYTES {
            return Err(bad("the file is too large".to_owned()).into());
        }
        let bytes = std::fs::read(path).map_err(io)?;
        let json: Value = serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()))?;
        if !json.is_object() {
            return Err(bad("it is not a JSON object".to_owned()).into());
        }
        let name = path.file_stem().map_or_else(|| "result".to_owned(), |stem| stem.to_string_lossy().into_owned());
        Ok(Self { name, json })
    }
}

/// Writes `report.html`, `comparison.csv` and, where there are layers, `layers.csv` into `folder` (made if missing).
/// The same results give the same bytes. Returns the files written.
pub fn write(results: &[Saved], folder: &Path) -> Result<Vec<PathBuf>, Error> {
    if results.is_empty() {
        return Err(ReportError::Empty.into());
    }
    let rows = row::rows(results);
    std::fs::create_dir_all(folder).map_err(|source| Error::Io {
        action: "make the report's folder",
        path: folder.to_owned(),
        source,
    })?;
    let mut files = vec![save(folder, "report.html", &page::html(results, &rows))?];
    if !rows.is_empty() {
        files.push(save(folder, "comparison.csv", &csv::comparison(&rows))?);
    }
    if let Some(layers) = csv::layers(results) {
        files.push(save(folder, "layers.csv", &layers)?);
    }
    Ok(files)
}

/// The page alone, for whoever wants to show it without writing files.
pub fn html(results: &[Saved]) -> String {
    page::html(results, &row::rows(results))
}

/// Temp, fsync, rename: a reader never sees half a file.
fn save(folder: &Path, name: &str, text: &str) -> Result<PathBuf, Error> {
    let path = folder.join(name);
    let io = |source| Error::Io { action: "write the report", path: path.clone(), source };
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666)); // less the umask, as any new file
    let mut file = builder.prefix(".nibble-").tempfile_in(folder).map_err(io)?;
    std::io::Write::write_all(&mut file, text.as_bytes()).map_err(io)?;
    file.as_file().sync_all().map_err(io)?;
    file.persist(&path).map_err(|error| io(error.error))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn demo() -> Saved {
        Saved::new(
            "demo",
            json!({
                "verb": "demo", "model": "a.onnx", "output": "b.onnx",
                "size_bytes": {"original": 4000, "quantized": 1000},
                "quality": {"sqnr_db": 31.25, "output": "y", "cosine": 0.999, "top1_agreement": 0.98, "non_finite": 0,
                    "accuracy": {"original": 0.99, "quantized": 0.985}},
                "layers": [{"name": "<script>alert(1)</script>", "op": "Conv", "form": "qdq", "verdict": "faster",
                    "choice": {"precision": "int8", "granularity": "per_channel", "symmetry": "symmetric", "mode": "static",
                        "activation": "int8"}, "reason": "a & b"}],
                "deployment": {"opset": 21, "ir_version": 10, "domains": ["ai.onnx"], "runtime": "1.28.0",
                    "session_options": {"session.x": "1"}},
                "problems": [{"severity": "warning", "what": "left <float>", "where": "n\"1", "why": "w", "fix": "f"}],
                "models": [{"path": "a.onnx", "size_bytes": 4000, "latency_ms": {"p50": 2.0, "p95": 3.0, "mean": 2.1}},
                    {"path": "b.onnx", "size_bytes": 1000, "latency_ms": {"p50": 1.0, "p95": 1.5, "mean": 1.1}}],
                "latency_ratio": {"p50": 0.5, "low": 0.45, "high": 0.55}, "agreement": 0.98, "sqnr_db": 31.25
            }),
        )
    }

    #[test]
    fn the_page_holds_the_figures_escapes_names_and_asks_the_network_for_nothing() {
        let page = html(&[demo()]);
        for figure in ["31.25 dB", "0.50", "0.45", "98.0 %", "98.5 %", "expected faster", "qdq", "session.x"] {
            assert!(page.contains(figure), "{figure} is missing");
        }
        assert!(page.contains("&lt;script&gt;alert(1)") && !page.contains("<script"));
        assert!(page.contains("left &lt;float&gt;") && page.contains("a &amp; b"));
        for outside in ["http://", "https://", "src=", "url(", "@import", "<link"] {
            let text = page.replace("http://www.w3.org/2000/svg", "");
            assert!(!text.contains(outside), "{outside}");
        }
        assert!(page.contains("prefers-color-scheme: dark"));
    }

    #[test]
    fn files_are_written_into_a_new_folder_and_are_the_same_twice() {
        let folder = tempfile::tempdir().expect("folder");
        let into = folder.path().join("deep/er");
        let files = write(&[demo()], &into).expect("report");
        let names: Vec<_> = files.iter().filter_map(|f| f.file_name()).map(|n| n.to_string_lossy()).collect();
        assert_eq!(names, ["report.html", "comparison.csv", "layers.csv"]);
        let first = std::fs::read(&files[0]).expect("page");
        write(&[demo()], &into).expect("again");
        assert_eq!(first, std::fs::read(&files[0]).expect("page"));
        assert_eq!(std::fs::read_dir(&into).expect("folder").count(), 3, "no temporary files stay");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let plain = into.join("plain");
            std::fs::write(&plain, "").expect("plain");
            let mode = |path: &Path| std::fs::metadata(path).expect("file").permissions().mode() & 0o777;
            assert_eq!(mode(&files[0]), mode(&plain), "others may read it as any new file");
        }
    }

    #[test]
    fn what_is_no_result_is_refused_by_name_and_odd_results_still_give_a_page() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("bad.json");
        for text in ["", "[1]", "{\"a\":"] {
            std::fs::write(&path, text).expect("write");
            let error = Saved::load(&path).expect_err("refused");
            assert!(error.to_string().contains("--json") && error.place().contains("bad.json"));
        }
        assert!(Saved::load(&folder.path().join("none.json")).is_err());
        assert!(write(&[], folder.path()).is_err());
        let odd = json!({"layers": [1, null, {"name": 3}], "models": 7, "size_bytes": [], "latency_ratio": "x", "problems": {}});
        assert!(
            html(&[Saved::new("odd", odd), Saved::new("error", json!({"error": {"message": "m"}}))]).contains("odd")
        );
    }
}
