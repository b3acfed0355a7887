//! ONNX Runtime itself: loaded and started once for the whole process.

use std::error::Error as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use ort::environment::Environment;
use ort::logging::LogLevel;

use super::library::{Located, locate};
use super::{RuntimeError, ffi};
use crate::Control;

/// The running ONNX Runtime. There is one a process, for as long as it lives.
#[derive(Debug)]
pub struct Runtime {
    pub(super) environment: Environment,
    library: PathBuf,
    version: String,
}

static STARTED: OnceLock<Runtime> = OnceLock::new();
static STARTING: Mutex<()> = Mutex::new(());

impl Runtime {
    /// Finds the library ([`super::ensure_library`]) and starts ONNX Runtime. After the first success every call returns
    /// the same one, whatever the setting: a process cannot change its library. A failed start may be tried again.
    pub fn start(setting: Option<&Path>, control: &Control) -> Result<&'static Self, RuntimeError> {
        if let Some(runtime) = STARTED.get() {
            return Ok(runtime);
        }
        let _one_at_a_time = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(runtime) = STARTED.get() {
            return Ok(runtime);
        }
        let runtime = Self::load(locate(setting, control)?)?;
        Ok(STARTED.get_or_init(|| runtime))
    }

    /// The runtime, if it was started.
    pub fn started() -> Option<&'static Self> {
        STARTED.get()
    }

    fn load(located: Located) -> Result<Self, RuntimeError> {
        let Located { path, named_by } = located;
        let builder = ort::init_from(&path).map_err(|error| RuntimeError::LibraryRefused {
            path: path.clone(),
            reason: load_reason(&error),
            named_by,
        })?;
        let environment = builder
            .with_name("nibble")
            .with_telemetry(false)
            .with_logger(Arc::new(log))
            .build()
            .map_err(|error| RuntimeError::Start { reason: error.message().to_owned() })?;
        environment.set_log_level(LogLevel::Warning);
        let version = ffi::version(&path).unwrap_or_else(|| "unknown".to_owned());
        tracing::debug!(%version, library = %path.display(), "ONNX Runtime started");
        Ok(Self { environment, library: path, version })
    }

    /// The library's version, e.g. `1.28.0`.
    pub fn version(&self) -> String {
        self.version.clone()
    }

    /// The library in use.
    pub fn library(&self) -> &Path {
        &self.library
    }

    /// Names of the execution providers the library has, e.g. `CPUExecutionProvider`.
    #[allow(clippy::unused_self)] // only a started runtime can be asked
    pub fn providers(&self) -> Vec<String> {
        ffi::providers()
    }
}

/// What the system's loader says; `ort` itself says only that loading failed.
fn load_reason(error: &ort::LoadDynamicError) -> String {
    match error {
        ort::LoadDynamicError::Dlopen { error, .. } => {
            error.source().map_or_else(|| error.to_string(), ToString::to_string)
        }
        other => other.to_string(),
    }
}

/// ONNX Runtime's own messages, which it would print in colour on stderr.
fn log(level: LogLevel, _category: &str, _id: &str, location: &str, message: &str) {
    match level {
        LogLevel::Fatal | LogLevel::Error => tracing::error!(target: "onnxruntime", location, "{message}"),
        LogLevel::Warning => tracing::warn!(target: "onnxruntime", location, "{message}"),
        LogLevel::Info => tracing::debug!(target: "onnxruntime", location, "{message}"),
        LogLevel::Verbose => tracing::trace!(target: "onnxruntime", location, "{message}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_once_and_knows_itself() {
        let runtime = Runtime::start(None, &Control::new()).expect("ONNX Runtime");
        assert!(runtime.version().starts_with("1."), "{}", runtime.version());
        assert!(runtime.library().is_file());
        assert!(runtime.providers().iter().any(|name| name == "CPUExecutionProvider"));
        let again = Runtime::start(Some(Path::new("/no/such/library")), &Control::new()).expect("the same");
        assert!(std::ptr::eq(runtime, again));
    }

    #[test]
    fn a_file_that_is_no_library_is_refused_with_the_loaders_reason() {
        let folder = tempfile::tempdir().expect("temp folder");
        let path = folder.path().join("libonnxruntime.so");
        std::fs::write(&path, "not a library").expect("write");
        // The process may have its runtime already, so ask the loader as `load` does.
        let Err(error) = (if STARTED.get().is_some() { return } else { ort::init_from(&path) }) else { return };
        let reason = load_reason(&error);
        assert!(!reason.is_empty() && !reason.ends_with("dlopen failed"), "{reason}");
    }
}
