//! What fine-tuning costs and gains: `cargo bench -p nibble-core --bench finetune [-- MODEL DATA PRESET STEPS]`, without arguments the
//! bundled samples in 2 and 4 bits.
//!
//! Per run: wall seconds a step (held-back looks included), the SQNR of the simulated model on samples held back before and
//! after, the best step, and the process's peak memory so far.

use std::path::{Path, PathBuf};
use std::time::Instant;

use nibble_core::bench::own_peak_memory_bytes;
use nibble_core::calibrate::{CalibrateOptions, calibrate};
use nibble_core::data::{DataOptions, DataSet};
use nibble_core::finetune::{FinetuneOptions, TrainingData, finetune};
use nibble_core::model::Model;
use nibble_core::plan::{Rule, preset};
use nibble_core::runtime::Runtime;
use nibble_core::stats::Stats;
use nibble_core::{Control, Error};

fn main() -> Result<(), Error> {
    let given: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    println!(
        "{:20} {:30} {:>6} {:>9} {:>17} {:>5} {:>8}",
        "model", "plan", "steps", "s a step", "held back", "best", "MB"
    );
    if let [model, data, preset, steps] = given.as_slice() {
        return measure(&PathBuf::from(model), data, preset, "", steps.parse().unwrap_or(20));
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sample-models");
    for (name, preset, set) in [
        ("digits_cnn", "int4-static", ""),
        ("digits_cnn", "int4-static", "precision=int2,granularity=per_channel"),
        ("digits_transformer", "int4-weights", "precision=int2"),
    ] {
        let data = folder.join(format!("{name}.calib.npz"));
        measure(&folder.join(format!("{name}.onnx")), &data.to_string_lossy(), preset, set, 100)?;
    }
    Ok(())
}

fn measure(path: &Path, data: &str, name: &str, set: &str, steps: usize) -> Result<(), Error> {
    let control = Control::new();
    let runtime = Runtime::start(None, &control)?;
    let model = Model::load(path, &control)?;
    let samples = DataSet::open(data, &model.inputs, &DataOptions::default())?;
    let indices: Vec<usize> = (0..samples.len()).collect();
    let mut stats = Stats::new(model.identity.as_str(), 0);
    calibrate(&model, runtime, &samples, &indices, &CalibrateOptions::default(), &mut stats, &control)?;
    let mut plan = model.preset_plan(preset(name)?)?;
    if !set.is_empty() {
        plan.push_rule(Rule { pattern: "*".parse()?, set: set.parse()? });
    }
    let options = FinetuneOptions { steps, ..FinetuneOptions::default() };
    let data = TrainingData { set: &samples, indices: &indices, labels: None };
    let start = Instant::now();
    let tuned = finetune(&model, runtime, Some(&stats), &plan, &data, &options, &control, &mut |_| {})?;
    let db = |db: Option<f64>| db.map_or_else(|| "–".to_owned(), |db| format!("{db:.2}"));
    println!(
        "{:20} {:30} {:6} {:9.3} {:>7} → {:>7} {:5} {:8.0}",
        path.file_stem().unwrap_or_default().to_string_lossy(),
        if set.is_empty() { name.to_owned() } else { format!("{name} {}", &set[..set.len().min(16)]) },
        tuned.steps,
        start.elapsed().as_secs_f64() / tuned.steps.max(1) as f64,
        db(tuned.before.sqnr_db),
        db(tuned.after.sqnr_db),
        tuned.best_step,
        own_peak_memory_bytes().unwrap_or(0) as f64 / 1e6,
    );
    Ok(())
}
