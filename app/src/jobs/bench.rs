//! The side-by-side comparison: both models in turn, in one run.

use std::ffi::OsString;

use nibble_core::bench::{BenchOptions, MemoryProbe, bench as measure, measured_layers, settle};
use nibble_core::export::Verdict;
use nibble_core::model::Model;
use nibble_core::runtime::Runtime;
use nibble_core::{Control, Error};

use super::data::Samples;
use super::{Benched, Exported, Failure, Message};
use crate::views::calibrate::DataRequest;

/// Times the original and the export.
pub fn bench(model: &Model, exported: &Exported, data: &DataRequest, runtime: &Runtime, control: &Control) -> Message {
    let run = || -> Result<Box<Benched>, Error> {
        let samples = Samples::open(model, data)?;
        let options = BenchOptions { memory: probe(data, runtime), ..BenchOptions::default() };
        let bench = measure(
            runtime,
            &model.file.path,
            &exported.verified.output,
            samples.judged(),
            &samples.evaluation,
            samples.labels.as_deref(),
            &options,
            control,
        )?;
        let expected = exported.verified.layers.iter().filter(|layer| layer.verdict == Verdict::Faster);
        let settled = settle(expected.map(|layer| layer.name.as_str()), &measured_layers(model, &bench.nodes));
        Ok(Box::new(Benched { plan: exported.plan.clone(), bench, settled, problems: control.problems() }))
    };
    Message::Benched(run().map_err(Failure::from))
}

/// This program again, as the command line's hidden verb that runs one model and says what memory it took.
fn probe(data: &DataRequest, runtime: &Runtime) -> Option<MemoryProbe> {
    let mut args: Vec<OsString> = vec!["__measure".into(), "--json".into(), "--runtime".into()];
    args.push(runtime.library().into());
    args.extend(["--data".into(), data.eval.as_deref().unwrap_or(&data.spec).into()]);
    args.extend(["--seed".into(), data.options.seed.to_string().into()]);
    for (name, dims) in &data.options.shapes {
        let dims: Vec<String> = dims.iter().map(ToString::to_string).collect();
        args.extend(["--shape".into(), format!("{name}={}", dims.join("x")).into()]);
    }
    let image = data.options.image.to_string();
    if !image.is_empty() {
        args.extend(["--image".into(), image.into()]);
    }
    Some(MemoryProbe { program: std::env::current_exe().ok()?, args })
}
