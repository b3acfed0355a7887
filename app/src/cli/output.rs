//! Whether a file can be written where it is to go: found out before the work, not after it.

use std::path::Path;

use nibble_core::Error;
use nibble_core::export::{ExportError, check_output, is_same, is_special};
use nibble_core::onnx::OnnxFile;

use super::failure::Failure;

/// Fails when `path` is a folder or a device, or lies in a folder that does not exist.
pub fn check(path: &Path) -> Result<(), Failure> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let place = path.display().to_string();
    if path.is_dir() {
        return Err(Failure::new("the output is a folder", place, "Name a file in it"));
    }
    if is_special(path) {
        return Err(Error::from(ExportError::NotAFile { place }).into());
    }
    if !folder.is_dir() {
        return Err(Failure::new(
            "the output's folder does not exist",
            place,
            "Make the folder first, or choose another",
        ));
    }
    Ok(())
}

/// As [`check`], and fails when `path` is the model itself, its external data, or one of the other files that the
/// command reads, each with the flag that names it.
pub fn check_apart(path: &Path, model: &OnnxFile, sources: &[(&str, Option<&Path>)]) -> Result<(), Failure> {
    check(path)?;
    check_output(model, path).map_err(Error::from)?;
    for (flag, source) in sources {
        if source.is_some_and(|source| is_same(path, source)) {
            let message = format!("the output is the file that {flag} names");
            return Err(Failure::new(message, path.display().to_string(), "Choose another name for the output"));
        }
    }
    Ok(())
}

/// The file of a data source or of labels: `FILE.npz:KEY` is a file too.
pub fn file_of(spec: &str) -> &Path {
    let path = Path::new(spec);
    match spec.rsplit_once(':') {
        Some((file, _)) if !path.exists() => Path::new(file),
        _ => path,
    }
}
