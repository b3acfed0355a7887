//! The same model in ORT format, which reduced builds of ONNX Runtime for phones read.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use crate::error::{Sqnr, compare};
use crate::export::{ExportError, VerifyOptions, is_same, is_special};
use crate::problem::Severity;
use crate::runtime::{Level, Runtime, Session, SessionOptions, Source};
use crate::{Control, Error, Problem};

/// Below this SQNR against the ONNX file, in dB, the difference is more than a float operator computed in another order.
const SAME_DB: f64 = 40.0;

/// A file in ORT format that was written.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OrtFile {
    /// Where it is.
    pub output: PathBuf,
    /// Its size.
    pub size_bytes: u64,
    /// How far its outputs are from the ONNX file's, on the same samples.
    pub sqnr_db: Sqnr,
}

/// A file in ORT format that was written and run, not yet in its place.
pub(super) struct StagedOrt {
    // Removed with what is left in it.
    _folder: TempDir,
    path: PathBuf,
    pub file: OrtFile,
}

/// Where the ORT file beside `onnx` goes. Refused where that is the output itself or no file.
pub fn ort_path(onnx: &Path) -> Result<PathBuf, ExportError> {
    let path = onnx.with_extension("ort");
    let place = path.display().to_string();
    if path == onnx || is_same(&path, onnx) {
        return Err(ExportError::Overwrites { place, what: "the ONNX file that it is made from" });
    }
    if is_special(&path) || path.is_dir() {
        return Err(ExportError::NotAFile { place });
    }
    Ok(path)
}

/// Lets ONNX Runtime write the model at `staged` in ORT format for `path`, runs that, and compares it with `staged`.
///
/// The graph is optimised as far as every processor understands: fused to integer kernels, in no layout of this one.
pub(super) fn stage(
    runtime: &Runtime,
    staged: &Path,
    path: &Path,
    options: VerifyOptions<'_>,
    control: &Control,
) -> Result<StagedOrt, Error> {
    control.progress("Writing in ORT format", 0, 1);
    let fail = |why: String| Error::from(ExportError::DoesNotRun { place: path.display().to_string(), why });
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = tempfile::Builder::new().prefix(".nibble-").tempdir_in(parent).map_err(|source| Error::Io {
        action: "write the model in ORT format",
        path: path.to_owned(),
        source,
    })?;
    let written = folder.path().join("model.ort");
    let mut session = SessionOptions {
        level: Level::Extended,
        threads: options.compare.threads,
        optimized_model: Some(written.clone()),
        ..SessionOptions::default()
    };
    session.config.push(("session.save_model_format".to_owned(), "ORT".to_owned()));
    drop(
        Session::open_with(runtime, Source::File(staged), &session, control)
            .map_err(|error| fail(error.to_string()))?,
    );
    control.check()?;
    let size_bytes = std::fs::metadata(&written).map_err(|error| fail(error.to_string()))?.len();
    let quality = compare(
        runtime,
        Source::File(staged),
        Source::File(&written),
        options.data,
        options.indices,
        None,
        options.compare,
        control,
    );
    let sqnr_db = match quality {
        Ok(quality) => quality.sqnr_db,
        Err(Error::Cancelled) => return Err(Error::Cancelled),
        Err(error) => return Err(fail(error.to_string())),
    };
    Ok(StagedOrt { _folder: folder, path: written, file: OrtFile { output: path.to_owned(), size_bytes, sqnr_db } })
}

impl StagedOrt {
    /// Moves the file into its place.
    pub(super) fn commit(self) -> Result<OrtFile, Error> {
        let Self { _folder, path, file } = self;
        std::fs::File::open(&path)
            .and_then(|written| written.sync_all())
            .and_then(|()| std::fs::rename(&path, &file.output))
            .map_err(|source| Error::Io {
                action: "move the model in ORT format into its place",
                path: file.output.clone(),
                source,
            })?;
        Ok(file)
    }
}

impl OrtFile {
    /// Says that it computes something else than the ONNX file; `None` where it does not.
    pub(super) fn problem(&self) -> Option<Problem> {
        let difference = match self.sqnr_db {
            Sqnr::Identical => return None,
            Sqnr::Db(db) if db >= SAME_DB => return None,
            Sqnr::Db(db) => format!("its SQNR against the ONNX file is {db:.1} dB"),
            Sqnr::Undefined => "it gives values that are not finite where the ONNX file does not".to_owned(),
        };
        Some(Problem::new(
            Severity::Warning,
            "The file in ORT format does not compute what the ONNX file does",
            self.output.display().to_string(),
            format!("{difference}; it was optimised before it was saved"),
            "Use the ONNX file, or another choice for the layers with integer kernels",
        ))
    }
}
