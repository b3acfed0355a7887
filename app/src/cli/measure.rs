//! `__measure`: what `bench` starts as a process of its own, to learn a model's peak memory.

use nibble_core::Error;
use nibble_core::bench::run_for_memory;
use nibble_core::data::DataSet;
use nibble_core::runtime::{Runtime, Session, SessionOptions, Source};
use serde_json::json;

use super::args::MeasureArgs;
use super::console::Console;
use super::failure::Failure;
use super::inputs;

/// Samples that are run: enough to see the peak.
const SAMPLES: usize = 4;

/// Runs the verb.
pub fn run(args: &MeasureArgs, console: &Console) -> Result<(), Failure> {
    let control = console.control();
    let runtime = Runtime::start(console.runtime(), control).map_err(Error::from)?;
    let threads = args.threads.threads;
    // Our own reader would touch every page of the file to hash it, which counts as memory; the runtime's does not.
    let options = SessionOptions { threads, ..SessionOptions::default() };
    let session = Session::open(runtime, Source::File(&args.model), &options).map_err(Error::from)?;
    let inputs = session.inputs().to_vec();
    drop(session);
    let set = DataSet::open(&args.data, &inputs, &inputs::options(&args.input)?).map_err(Error::from)?;
    let peak = run_for_memory(runtime, &args.model, &set, &set.limit(SAMPLES), threads, control)?;
    let json = json!({"peak_memory_bytes": peak});
    console.result(&json, &format!("{json}\n"))
}
