//! Exports carry their plan. Beside an original they are looked for, beside an export its original.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use nibble_core::Control;
use nibble_core::export::Stored;
use nibble_core::onnx::OnnxFile;

use super::{Message, Offer};

/// Most files of a folder looked at.
const MAX_FILES: usize = 256;
/// Most files read whole to find the original of an export.
const MAX_READ: usize = 24;

/// What lies beside the model at `path` with the hash `sha256`.
pub fn beside(path: &Path, sha256: &str, control: &Control) -> Message {
    let offer = match Stored::in_file(path) {
        Some(stored) => {
            let original = original(path, &stored.plan.model_sha256, control);
            Some(Offer::Export { plan: Arc::new(stored.plan), version: stored.version, original })
        }
        None => Some(exports(path, sha256)).filter(|found| !found.is_empty()).map(Offer::Original),
    };
    Message::Beside(offer)
}

/// Exports of the model in its folder, the newest first.
fn exports(path: &Path, sha256: &str) -> Vec<(PathBuf, Arc<nibble_core::plan::Plan>)> {
    let mut found: Vec<(SystemTime, PathBuf, Arc<_>)> = models(path)
        .into_iter()
        .filter_map(|other| {
            let stored = Stored::in_file(&other)?;
            let written = other.metadata().and_then(|data| data.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
            (stored.plan.model_sha256 == sha256).then(|| (written, other, Arc::new(stored.plan)))
        })
        .collect();
    found.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    found.into_iter().map(|(_, path, plan)| (path, plan)).collect()
}

/// The model with the hash `sha256` in the folder of the export at `path`, likely names first.
fn original(path: &Path, sha256: &str, control: &Control) -> Option<PathBuf> {
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let export = name(path);
    let mut others = models(path);
    others.retain(|other| Stored::in_file(other).is_none());
    let alike = |other: &PathBuf| {
        let other = name(other);
        other.bytes().zip(export.bytes()).take_while(|(a, b)| a == b).count()
    };
    others.sort_by_key(|other| std::cmp::Reverse(alike(other)));
    others
        .into_iter()
        .take(MAX_READ)
        .find(|other| !control.is_cancelled() && OnnxFile::load(other, control).is_ok_and(|file| file.sha256 == sha256))
}

/// Other models in the folder of `path`, by name.
fn models(path: &Path) -> Vec<PathBuf> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_model = |other: &PathBuf| {
        other.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("onnx"))
            && other.file_name() != path.file_name()
    };
    let mut found: Vec<PathBuf> = entries.filter(is_model).collect();
    found.sort();
    found.truncate(MAX_FILES);
    found
}
