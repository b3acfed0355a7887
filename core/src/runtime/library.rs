//! Where the ONNX Runtime library is: named, beside the program, in the cache, or fetched.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::{RuntimeError, fetch, pinned};
use crate::Control;
use crate::onnx::hex;

/// The environment variable that names a library, as ONNX Runtime's other users have it.
pub const LIBRARY_VARIABLE: &str = "ORT_DYLIB_PATH";
/// The environment variable that moves Nibble's cache folder.
const CACHE_VARIABLE: &str = "NIBBLE_CACHE";

/// The path of an ONNX Runtime library: `setting`, else the environment variable `ORT_DYLIB_PATH`, else one beside the
/// executable, else the one in the per-user cache, fetched through pip when it is not there yet (progress "Fetching ONNX
/// Runtime"). A library that someone named is taken or refused, never replaced by another.
pub fn ensure_library(setting: Option<&Path>, control: &Control) -> Result<PathBuf, RuntimeError> {
    locate(setting, control).map(|found| found.path)
}

/// A library and who named it.
pub(super) struct Located {
    pub(super) path: PathBuf,
    pub(super) named_by: String,
}

/// What [`ensure_library`] is about to fetch, in one line for the person; `None` when it need not, or cannot.
pub fn to_fetch(setting: Option<&Path>) -> Option<String> {
    Places::of_this_process().search(setting).missing()
}

pub(super) fn locate(setting: Option<&Path>, control: &Control) -> Result<Located, RuntimeError> {
    Places::of_this_process().search(setting).run(control)
}

/// Where this process looks.
struct Places {
    variable: Option<PathBuf>,
    beside: Option<PathBuf>,
    cache: Option<PathBuf>,
}

impl Places {
    fn of_this_process() -> Self {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let user = || directories::ProjectDirs::from("", "", "nibble").map(|dirs| dirs.cache_dir().to_owned());
        Self {
            variable: variable(LIBRARY_VARIABLE),
            beside: std::env::current_exe().ok().and_then(|path| path.parent().map(Path::to_owned)),
            cache: variable(CACHE_VARIABLE).or_else(user),
        }
    }

    fn search<'a>(&'a self, setting: Option<&'a Path>) -> Search<'a> {
        let Self { variable, beside, cache } = self;
        Search { setting, variable: variable.as_deref(), beside: beside.as_deref(), cache: cache.as_deref() }
    }
}

#[derive(Clone, Copy)]
struct Search<'a> {
    setting: Option<&'a Path>,
    variable: Option<&'a Path>,
    beside: Option<&'a Path>,
    cache: Option<&'a Path>,
}

impl Search<'_> {
    fn missing(&self) -> Option<String> {
        let (cache, pin) = (self.cache?, pinned::pin()?);
        let named = self.setting.is_some() || self.variable.is_some();
        if named || self.library_beside().is_some() || fetch::cached(cache, pin).is_file() {
            return None;
        }
        let version = pinned::VERSION;
        let place = cache.display();
        Some(format!("Fetching ONNX Runtime {version} with pip, once (package onnxruntime, about 20 MB), into {place}"))
    }

    fn library_beside(&self) -> Option<PathBuf> {
        let folder = self.beside?;
        file_names().into_iter().map(|name| folder.join(name)).find(|path| path.is_file())
    }

    fn run(&self, control: &Control) -> Result<Located, RuntimeError> {
        if let Some(path) = self.setting {
            return named(path, "the path given with --runtime or in the settings");
        }
        if let Some(path) = self.variable {
            return named(path, &format!("the environment variable {LIBRARY_VARIABLE}"));
        }
        let mut tried = vec![format!("{LIBRARY_VARIABLE} is not set")];
        if let Some(folder) = self.beside {
            if let Some(path) = self.library_beside() {
                return Ok(Located { path, named_by: "the library beside the program".to_owned() });
            }
            tried.push(format!("no library beside the program in {}", folder.display()));
        }
        match (self.cache, pinned::pin()) {
            (None, _) => tried.push("this user has no cache folder".to_owned()),
            (_, None) => tried.push(format!(
                "there is no ONNX Runtime {} for {} on {}",
                pinned::VERSION,
                std::env::consts::OS,
                std::env::consts::ARCH
            )),
            (Some(cache), Some(pin)) => {
                if let Some(path) = fetch::cached_or_fetched(cache, pin, control, &mut tried)? {
                    return Ok(Located { path, named_by: "the library in Nibble's cache".to_owned() });
                }
            }
        }
        Err(RuntimeError::LibraryMissing { tried })
    }
}

fn named(path: &Path, named_by: &str) -> Result<Located, RuntimeError> {
    // Absolute, since loaders look for bare names elsewhere and may find a stale library there.
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let refuse = |reason: &str| RuntimeError::LibraryRefused {
        path: path.clone(),
        reason: format!("{named_by} names {reason}"),
        named_by: named_by.to_owned(),
    };
    match std::fs::metadata(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(refuse("a file that does not exist")),
        Err(error) => Err(refuse(&format!("a file that cannot be read: {error}"))),
        Ok(metadata) if metadata.is_dir() => Err(refuse("a folder, not the library file itself")),
        Ok(_) => Ok(Located { path, named_by: named_by.to_owned() }),
    }
}

/// What the library is called on this system.
fn file_names() -> Vec<String> {
    if cfg!(windows) {
        vec!["onnxruntime.dll".to_owned()]
    } else if cfg!(target_os = "macos") {
        vec![format!("libonnxruntime.{}.dylib", pinned::VERSION), "libonnxruntime.dylib".to_owned()]
    } else {
        vec![format!("libonnxruntime.so.{}", pinned::VERSION), "libonnxruntime.so".to_owned()]
    }
}

/// SHA-256 of a file, in lowercase hex.
pub(super) fn sha256(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        hasher.update(buffer.get(..count).unwrap_or_default());
    }
    Ok(hex(&hasher.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_library_is_taken_or_refused_never_replaced() {
        let folder = tempfile::tempdir().expect("temp folder");
        let file = folder.path().join("lib");
        std::fs::write(&file, "x").expect("write");
        let none = Search { setting: None, variable: None, beside: None, cache: None };
        let control = Control::new();
        let found = Search { setting: Some(&file), ..none }.run(&control).expect("taken");
        assert_eq!(found.path, file);
        let missing = folder.path().join("missing");
        let refused = Search { setting: Some(&missing), variable: Some(&file), ..none }.run(&control);
        assert!(matches!(refused, Err(RuntimeError::LibraryRefused { .. })));
        let refused = Search { variable: Some(folder.path()), ..none }.run(&control).map(|found| found.path);
        let error = refused.expect_err("a folder");
        assert!(error.to_string().contains("a folder"), "{error}");
        assert!(error.hint().contains("ORT_DYLIB_PATH"), "{}", error.hint());
    }

    #[test]
    fn beside_the_program_comes_before_the_cache() {
        let folder = tempfile::tempdir().expect("temp folder");
        let file = folder.path().join(file_names().pop().expect("a name"));
        std::fs::write(&file, "x").expect("write");
        let search = Search { setting: None, variable: None, beside: Some(folder.path()), cache: None };
        assert_eq!(search.run(&Control::new()).expect("found").path, file);
    }

    #[test]
    fn what_will_be_fetched_is_said_unless_it_is_there() {
        let Some(pin) = pinned::pin() else { return };
        let folder = tempfile::tempdir().expect("temp folder");
        let search = Search { setting: None, variable: None, beside: None, cache: Some(folder.path()) };
        let said = search.missing().expect("nothing is there");
        assert!(said.contains("package onnxruntime") && said.contains(pinned::VERSION), "{said}");
        assert_eq!(Search { variable: Some(folder.path()), ..search }.missing(), None);
        let library = fetch::cached(folder.path(), pin);
        std::fs::create_dir_all(library.parent().expect("folder")).expect("folder");
        std::fs::write(&library, "x").expect("write");
        assert_eq!(search.missing(), None);
    }

    #[test]
    fn what_was_tried_is_listed() {
        let folder = tempfile::tempdir().expect("temp folder");
        let search = Search { setting: None, variable: None, beside: Some(folder.path()), cache: None };
        let error = search.run(&Control::new()).map(|found| found.path).expect_err("nothing there");
        let text = error.to_string();
        for part in ["ORT_DYLIB_PATH is not set", "beside the program", "no cache folder"] {
            assert!(text.contains(part), "{text}");
        }
        assert!(error.hint().contains("pip"));
    }
}
