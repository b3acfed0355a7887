//! What `ort` has no safe function for: two questions to the library, and stopping a run of chosen outputs.

#![allow(unsafe_code)]

use std::ffi::{CStr, c_char};
use std::path::Path;

use ort::session::{HasSelectedOutputs, OutputSelector, RunOptions};
use ort::sys::OrtApiBase;

/// The version that the library at `path` gives itself, e.g. `1.28.0`.
///
/// Call it only for a library that `ort` has loaded and accepted: then the loader hands out the same one again.
pub(super) fn version(path: &Path) -> Option<String> {
    // SAFETY: the library is loaded already, so no foreign initialiser runs. `OrtGetApiBase` has had this signature since
    // ONNX Runtime 1.0, and both it and the version string are static in the library, which stays loaded for ever.
    unsafe {
        let library = libloading::Library::new(path).ok()?;
        let base: libloading::Symbol<'_, unsafe extern "C" fn() -> *const OrtApiBase> =
            library.get(b"OrtGetApiBase").ok()?;
        let text = (base().as_ref()?.GetVersionString)();
        (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
    }
}

/// Names of the execution providers that the library was built with, the preferred first.
///
/// Call it only after `ort` has loaded the library.
pub(super) fn providers() -> Vec<String> {
    let mut names: *mut *mut c_char = std::ptr::null_mut();
    let mut count = 0;
    let mut providers = Vec::new();
    // SAFETY: on success `names` points at `count` strings that stay valid until they are released below; on failure it
    // stays null and the status is freed by `result_from_status`.
    unsafe {
        let status = (ort::api().GetAvailableProviders)(&raw mut names, &raw mut count);
        if ort::Error::result_from_status(status).is_err() || names.is_null() {
            return providers;
        }
        for index in 0..usize::try_from(count).unwrap_or(0) {
            let name = *names.add(index);
            if !name.is_null() {
                providers.push(CStr::from_ptr(name).to_string_lossy().into_owned());
            }
        }
        let status = (ort::api().ReleaseAvailableProviders)(names, count);
        let _ = ort::Error::result_from_status(status);
    }
    providers
}

/// Options of one run with chosen outputs, that another thread may terminate.
pub(super) struct StoppableOptions(RunOptions<HasSelectedOutputs>);

// SAFETY: `ort` keeps options with chosen outputs off other threads because outputs may be preallocated in them. `new`
// preallocates none and nothing can add one later; what remains is ONNX Runtime's own options, which `ort` does let
// other threads share and terminate.
unsafe impl Sync for StoppableOptions {}

impl StoppableOptions {
    /// Options for all outputs but those named.
    pub(super) fn new<'a>(without: impl Iterator<Item = &'a str>) -> ort::Result<Self> {
        let outputs = without.fold(OutputSelector::default(), OutputSelector::without);
        Ok(Self(RunOptions::new()?.with_outputs(outputs)))
    }

    /// The options, for the run itself.
    pub(super) fn get(&self) -> &RunOptions<HasSelectedOutputs> {
        &self.0
    }

    /// Stops the run at its next node.
    pub(super) fn terminate(&self) {
        // It fails only where ONNX Runtime is unusable altogether, and then the run fails too.
        let _ = self.0.terminate();
    }
}
