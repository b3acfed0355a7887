//! The same program as `nibble`, where end-to-end tests can find it.

use std::process::ExitCode;

#[allow(unsafe_code)]
fn main() -> ExitCode {
    // Safety: the first statement of the program, so that no other thread can be reading the environment. Newer ONNX
    // Runtime libraries, which a person may bring along, report usage unless this is set before they are loaded.
    unsafe { std::env::set_var("ORT_DISABLE_TELEMETRY", "1") }
    nibble::cli::main()
}
