//! `report`: an HTML page and CSV tables from saved results.

use nibble_core::report::{self, Saved};
use serde_json::json;

use super::args::ReportArgs;
use super::console::Console;
use super::failure::Failure;

/// Runs the verb.
pub fn run(args: &ReportArgs, console: &Console) -> Result<(), Failure> {
    let results = args.results.iter().map(|path| Saved::load(path)).collect::<Result<Vec<_>, _>>()?;
    let files = report::write(&results, &args.output)?;
    let text: String = files.iter().map(|file| format!("{}\n", file.display())).collect();
    console.result(&json!({"files": files}), &text)
}
