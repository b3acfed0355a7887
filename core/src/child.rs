//! Programs run beside this one: waiting for their end, and reading the files that they print into (pipes would fill up).

use std::fs::File;
use std::io::{Read, Seek};
use std::process::{Child, ExitStatus};
use std::time::Duration;

use crate::Control;

/// Most bytes read of what a child printed.
const MOST: u64 = 1 << 20;

/// Waits for the end of `child`; `None` when `control` was cancelled, which ends it.
pub(crate) fn wait(child: &mut Child, control: &Control) -> std::io::Result<Option<ExitStatus>> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if control.is_cancelled() {
            // It may have ended by itself in between; either way it is gone after the wait.
            let _ = child.kill();
            let _ = child.wait();
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The first megabyte of what a child printed.
pub(crate) fn text(file: &mut File) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.take(MOST).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
