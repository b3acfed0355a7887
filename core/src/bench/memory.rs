//! Peak memory of running one model: measured in a process of its own, since a process's peak never goes down again.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::BenchError;
use crate::data::DataSet;
use crate::runtime::{Runtime, Session, SessionOptions, Source};
use crate::{Control, Error, child};

/// The program that opens and runs one model and prints `{"peak_memory_bytes": N}`.
#[derive(Clone, Debug)]
pub struct MemoryProbe {
    /// The program, usually this one.
    pub program: PathBuf,
    /// Its arguments; the model's path is appended.
    pub args: Vec<OsString>,
}

/// Peak memory of this process so far in bytes: `VmHWM` on Linux, `getrusage` on macOS, `None` elsewhere.
pub fn own_peak_memory_bytes() -> Option<u64> {
    #[cfg(target_os = "linux")]
    {
        high_water_mark(&std::fs::read_to_string("/proc/self/status").ok()?)
    }
    #[cfg(target_os = "macos")]
    {
        macos::peak()
    }
    #[cfg(not(any(target_os = "linux", target_os = "macos")))]
    {
        None
    }
}

#[cfg(any(target_os = "linux", test))]
fn high_water_mark(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(target_os = "macos")]
#[allow(unsafe_code)]
mod macos {
    /// `ru_maxrss`, which macOS gives in bytes.
    pub fn peak() -> Option<u64> {
        let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
        // SAFETY: `usage` is valid for writes of one `rusage`, which is all that getrusage writes; all zeros is a valid
        // `rusage`.
        let usage = unsafe {
            if libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) != 0 {
                return None;
            }
            usage.assume_init()
        };
        u64::try_from(usage.ru_maxrss).ok()
    }
}

/// What the child process does: opens the model, runs the samples called `indices`, and returns its own peak memory.
pub fn run_for_memory(
    runtime: &Runtime,
    model: &Path,
    data: &DataSet,
    indices: &[usize],
    threads: usize,
    control: &Control,
) -> Result<Option<u64>, Error> {
    let options = SessionOptions { threads, ..SessionOptions::default() };
    let mut session = Session::open(runtime, Source::File(model), &options)?;
    for &index in indices {
        control.check()?;
        session.visit(&data.sample(index)?, control, &mut |_, _| {})?;
    }
    Ok(own_peak_memory_bytes())
}

/// Runs `program` with `args` and returns the `peak_memory_bytes` of the JSON object that it prints; `None` where it
/// prints `null`. Cancelling `control` ends the child.
pub fn peak_memory_of(program: &Path, args: &[OsString], control: &Control) -> Result<Option<u64>, Error> {
    let fail = |why: String| BenchError::Child { program: program.to_owned(), why };
    let io = |error: std::io::Error| fail(error.to_string());
    // Files, not pipes: a child that prints much would wait for ever on a full pipe.
    let (mut out, mut err) = (tempfile::tempfile().map_err(io)?, tempfile::tempfile().map_err(io)?);
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(out.try_clone().map_err(io)?)
        .stderr(err.try_clone().map_err(io)?)
        .spawn()
        .map_err(io)?;
    let Some(status) = child::wait(&mut child, control).map_err(io)? else { return Err(Error::Cancelled) };
    let printed = child::text(&mut out).map_err(io)?;
    if !status.success() {
        let said = child::text(&mut err).map_err(io)?;
        let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
        return Err(fail(format!("{status}: {last}")).into());
    }
    let json: Option<serde_json::Value> = serde_json::from_str(printed.trim()).ok();
    match json.as_ref().and_then(|json| json.get("peak_memory_bytes")) {
        Some(serde_json::Value::Null) => Ok(None),
        Some(value) if value.is_u64() => Ok(value.as_u64()),
        _ => Err(fail("it printed no peak_memory_bytes".to_owned()).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_high_water_mark_is_read_in_bytes() {
        assert_eq!(high_water_mark("VmPeak:\t 9 kB\nVmHWM:\t   12345 kB\n"), Some(12345 * 1024));
        assert_eq!(high_water_mark("VmPeak: 9 kB"), None);
        #[cfg(target_os = "linux")]
        assert!(own_peak_memory_bytes().is_some_and(|bytes| bytes > 1 << 20));
    }

    #[cfg(unix)]
    #[test]
    fn a_child_prints_its_peak_or_its_reason() {
        let shell = |script: &str| peak_memory_of(Path::new("/bin/sh"), &["-c".into(), script.into()], &Control::new());
        assert_eq!(shell("echo '{\"peak_memory_bytes\": 42}'").expect("peak"), Some(42));
        assert_eq!(shell("echo '{\"peak_memory_bytes\": null}'").expect("null"), None);
        let error = shell("echo out of memory >&2; exit 3").expect_err("failed");
        assert!(error.to_string().contains("out of memory") && error.place() == "/bin/sh", "{error}");
        assert!(shell("echo nothing").is_err());
        let control = Control::new();
        control.cancel();
        let sleeper = peak_memory_of(Path::new("/bin/sh"), &["-c".into(), "sleep 60".into()], &control);
        assert!(matches!(sleeper, Err(Error::Cancelled)));
    }
}
