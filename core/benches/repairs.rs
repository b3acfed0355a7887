//! Time and memory of repairs beside rounding to nearest: `cargo bench -p nibble-core --bench repairs [-- MODEL DATA PRESET [one]]`.
//!
//! With a model: every repair of one pass and refit on all its layers, judged on the quarter of the samples held back, with processor
//! time (running the model included), the slowest layer by itself, and the process's peak memory meanwhile; then every layer by
//! itself, by each method, from a model held open, as the window previews it: seconds by the clock. With `one` this part alone.
//!
//! Two synthetic sets of layers: those of one block of a small encoder (int4, blocks of 32, asymmetric) and some of a
//! convolution net, depthwise ones among them (int4 by channel, symmetric). Processor time of all threads where the system
//! tells it; memory is what the inputs' moments and factors take, which is all that repairs hold beside the weights.

#[path = "shared/cpu_time.rs"]
mod cpu_time;

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use nibble_core::bench::own_peak_memory_bytes;
use nibble_core::calibrate::{CalibrateOptions, calibrate};
use nibble_core::data::{DataOptions, DataSet};
use nibble_core::model::Model;
use nibble_core::plan::{Choice, Granularity, Precision, Rounding, Symmetry, preset};
use nibble_core::predict::Reference;
use nibble_core::quant::{WeightLayout, quantize_weight};
use nibble_core::repair::refit::sequence;
use nibble_core::repair::{
    Inputs, Job, Method, Moments, Range, RepairOptions, RowsOf, Split, Task, Workbench, algorithm, judges, repairable,
};
use nibble_core::runtime::Runtime;
use nibble_core::stats::{RowKey, Stats};
use nibble_core::{Control, Error};

use self::cpu_time::seconds;

/// Columns, rows, groups.
type Shape = (usize, usize, usize);

/// Sums of uniform numbers: bell-shaped, deterministic.
fn bell(seed: u64, count: usize) -> Vec<f32> {
    let uniform = |i: u64| (RowKey::new(seed, 2, 3, i).0 >> 40) as f32 / 8_388_608.0 - 1.0;
    (0..count as u64).map(|i| (0..4).map(|j| uniform(4 * i + j)).sum()).collect()
}

struct Layer {
    shape: Shape,
    weights: Vec<f32>,
    inputs: Vec<Inputs>,
}

fn main() -> Result<(), Error> {
    let given: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    match given.as_slice() {
        [model, data, preset] => return measure_model(Path::new(model), data, preset, true),
        [model, data, preset, one] if one == "one" => return measure_model(Path::new(model), data, preset, false),
        _ => {}
    }
    synthetic();
    Ok(())
}

fn measure_model(path: &Path, data: &str, name: &str, all: bool) -> Result<(), Error> {
    let control = Control::new();
    let runtime = Runtime::start(None, &control)?;
    let model = Model::load(path, &control)?;
    let samples = DataSet::open(data, &model.inputs, &DataOptions::default())?;
    let indices: Vec<usize> = (0..samples.len()).collect();
    let plan = model.preset_plan(preset(name)?)?;
    let mut stats = Stats::new(model.identity.as_str(), 0);
    calibrate(&model, runtime, &samples, &indices, &CalibrateOptions::default(), &mut stats, &control)?;
    let (options, split) = (RepairOptions::default(), Split::of(&indices));
    let job = Job {
        model: &model,
        runtime,
        stats: Some(&stats),
        plan: &plan,
        data: &samples,
        split: &split,
        options: &options,
    };
    let layers = repairable(&job, |_| true);
    if !all {
        return one_by_one(&job, &layers, &control);
    }
    let reference =
        Reference::new(&model, runtime, &samples, &judges(&split), model.judged_output(), options.threads, &control)?;
    let nearest = reference.measure(&plan, Some(&stats), &control)?;
    println!(
        "{}, {name}: {} layers, {} samples, {nearest} rounded to nearest",
        path.display(),
        layers.len(),
        samples.len()
    );
    let all = [Rounding::Clip, Rounding::Bias, Rounding::Hqq, Rounding::Descent, Rounding::Gptq, Rounding::AdaRound];
    for method in all.into_iter().chain([Rounding::Refit]) {
        forget_peak();
        let start = seconds();
        let repaired = if method == Rounding::Refit {
            sequence(&job, &layers, &control)?
        } else {
            let wishes: Vec<_> = layers.iter().map(|&at| (at, method)).collect();
            job.one_pass(&wishes, &control)?
        };
        let took = seconds() - start;
        let mut plan = plan.clone();
        for layer in &repaired {
            layer.put(&mut plan);
        }
        println!(
            "  {:8} {took:8.1} s of processors, slowest layer {:6.2} s, {}, {:.0} MB",
            method.word(),
            repaired.iter().map(|layer| layer.seconds).fold(0.0, f64::max),
            reference.measure(&plan, Some(&stats), &control)?,
            own_peak_memory_bytes().unwrap_or(0) as f64 / 1e6,
        );
    }
    one_by_one(&job, &layers, &control)
}

/// Every layer by itself, each method after the other.
fn one_by_one(job: &Job<'_>, layers: &[usize], control: &Control) -> Result<(), Error> {
    let one = |method| Method::One(method);
    let methods = [Rounding::Clip, Rounding::Bias, Rounding::Hqq, Rounding::Descent, Rounding::Gptq].map(one);
    for method in methods.into_iter().chain([Method::Best]) {
        forget_peak();
        let start = Instant::now();
        let mut bench = Workbench::open(job, control)?;
        let (opened, processors) = (start.elapsed().as_secs_f64(), seconds());
        let (mut times, mut first, mut samples, mut most) = (Vec::new(), None, (0, 0), 0.0_f64);
        for &layer in layers {
            let start = seconds();
            if let Some(done) = bench.repair(job, layer, method, control)? {
                first = first.or(Some((done.seconds, done.learnt_from + done.judged_on)));
                samples = (done.learnt_from + done.judged_on, done.run_on);
                times.push(done.seconds);
                most = most.max(seconds() - start);
            }
        }
        let count = times.len();
        times.sort_by(f64::total_cmp);
        let (first, from) = first.unwrap_or_default();
        println!(
            "  one layer by {:8} first {first:.2} s from {from} samples, median {:.2} s, slowest {:.2} s of {count} layers, \
             from {} samples and {} through the model in the end; {:.2} s of processors each, {most:.2} s at most; opening {opened:.2} s, {:.0} MB, \
             rows {:.0} MB",
            method.word(),
            times.get(count / 2).copied().unwrap_or_default(),
            times.last().copied().unwrap_or_default(),
            samples.0,
            samples.1,
            (seconds() - processors) / count.max(1) as f64,
            own_peak_memory_bytes().unwrap_or(0) as f64 / 1e6,
            bench.bytes() as f64 / 1e6,
        );
    }
    Ok(())
}

/// Makes the system measure the peak memory from here on, where it can.
fn forget_peak() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

fn synthetic() {
    let encoder: &[Shape] =
        &[(384, 384, 1), (384, 384, 1), (384, 384, 1), (384, 384, 1), (384, 1536, 1), (1536, 384, 1)];
    let convolutions: &[Shape] = &[(27, 32, 1), (9, 1, 96), (25, 1, 240), (96, 24, 1), (240, 80, 1), (576, 64, 1)];
    let by_block = Choice {
        precision: Precision::Int4,
        symmetry: Symmetry::Asymmetric,
        granularity: Granularity::Block(32),
        ..Choice::FLOAT
    };
    let by_channel = Choice { symmetry: Symmetry::Symmetric, granularity: Granularity::PerChannel, ..by_block };
    for (name, shapes, choice) in [("encoder", encoder, by_block), ("convolutions", convolutions, by_channel)] {
        measure(name, shapes, &choice);
    }
}

/// What a first look at one layer costs, from as many rows as calibration keeps: the moments, the factor and GPTQ.
fn first_look((columns, outputs, groups): Shape, choice: &Choice) -> f64 {
    let rows = nibble_core::limits::RESERVOIR_ROWS;
    let (x, weights) = (bell(5, rows * columns), bell(99, columns * outputs));
    let span = if let Granularity::Block(size) = choice.granularity { size as usize } else { columns };
    let start = seconds();
    for _ in 0..groups {
        let mut moments = Moments::new(columns, false);
        moments.add(RowsOf { values: &x, stride: columns, offset: 0 }, None);
        let inputs = Inputs::new(moments.hessian(false), moments.rows);
        let range = Range::new(choice, None);
        let task =
            Task { weights: &weights, columns, span, inputs: Some(&inputs), range, fixed: None, polish_until: None };
        black_box(algorithm(Rounding::Gptq).map(|gptq| gptq.round(&task)));
    }
    seconds() - start
}

fn measure(name: &str, shapes: &[Shape], choice: &Choice) {
    let start = seconds();
    let (mut rows, mut bytes) = (0, 0);
    let layers: Vec<Layer> = shapes
        .iter()
        .enumerate()
        .map(|(at, &(columns, outputs, groups))| {
            let x = bell(at as u64, 2048 * columns);
            let inputs = (0..groups).map(|_| {
                let mut moments = Moments::new(columns, false);
                moments.add(RowsOf { values: &x, stride: columns, offset: 0 }, None);
                Inputs::new(moments.hessian(false), moments.rows)
            });
            let inputs: Vec<Inputs> = inputs.collect();
            rows += 2048 * groups;
            // Sums and means in float64, the factor in float32.
            bytes += groups * columns * columns * (8 + 8 + 4);
            Layer { shape: (columns, outputs, groups), weights: bell(99, columns * outputs * groups), inputs }
        })
        .collect();
    println!("{name}: {} layers", layers.len());
    for &shape in shapes {
        println!("  first look at {shape:?}    {:9.1} ms", first_look(shape, choice) * 1e3);
    }
    println!("  moments of {rows} rows    {:9.1} ms, {:.1} MB", (seconds() - start) * 1e3, bytes as f64 / 1e6);
    let start = seconds();
    for Layer { shape: (columns, outputs, groups), weights, .. } in &layers {
        let layout = WeightLayout { outer: 1, channels: outputs * groups, inner: *columns };
        black_box(quantize_weight(weights, layout, choice));
    }
    let nearest = seconds() - start;
    println!("  nearest               {:9.1} ms", nearest * 1e3);
    for method in [Rounding::Clip, Rounding::Hqq, Rounding::Descent, Rounding::Gptq, Rounding::AdaRound] {
        let Some(algorithm) = algorithm(method) else { continue };
        let start = seconds();
        for Layer { shape: (columns, outputs, _), weights, inputs } in &layers {
            let span = if let Granularity::Block(size) = choice.granularity { size as usize } else { *columns };
            for (weights, inputs) in weights.chunks(columns * outputs).zip(inputs) {
                let range = Range::new(choice, None);
                let task = Task {
                    weights,
                    columns: *columns,
                    span,
                    inputs: Some(inputs),
                    range,
                    fixed: None,
                    polish_until: None,
                };
                black_box(algorithm.round(&task));
            }
        }
        let took = seconds() - start;
        println!("  {:21} {:9.1} ms, {:.1} times nearest", method.word(), took * 1e3, took / nearest);
    }
}
