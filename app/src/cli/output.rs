//! Whether a file can be written where it is to go: found out before the work, not after it.

use std::path::Path;

use nibble_core::Error;
use nibble_core::export::ExportError;

use super::failure::Failure;

/// Fails when `path` is a folder, or lies in one that does not exist.
pub fn check(path: &Path) -> Result<(), Failure> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let place = path.display().to_string();
    if path.is_dir() {
        return Err(Failure::new("the output is a folder", place, "Name a file in it"));
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

/// As [`check`], and fails when `path` is the model itself.
pub fn check_model(path: &Path, model: &Path) -> Result<(), Failure> {
    check(path)?;
    let same = model.canonicalize().ok().zip(path.canonicalize().ok()).is_some_and(|(model, path)| model == path);
    if same {
        return Err(Error::from(ExportError::Overwrites { place: path.display().to_string() }).into());
    }
    Ok(())
}
