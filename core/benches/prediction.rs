//! An edit of 200 layers of a plan of 1,000, a manual clip that is being dragged among them: milliseconds until the new
//! prediction is there, against the 16 that a frame has. The thread's own time counts, and the wall's is beside it: on a
//! machine with other work the two differ by what that takes.
//!
//! The model is made here: a chain of 1,000 matrix products of 64 × 64 with Relu between them, one of them 1024 × 1024 wide,
//! whose clip is dragged. Its slopes are gathered in ONNX Runtime, which therefore has to be there.

#[path = "shared/cpu_time.rs"]
mod cpu_time;
#[path = "shared/thread_time.rs"]
mod thread_time;

use std::time::Instant;

use nibble_core::Control;
use nibble_core::calibrate::{CalibrateOptions, calibrate};
use nibble_core::data::{DataOptions, DataSet};
use nibble_core::model::Model;
use nibble_core::onnx::build::{node, tensor_f32, value_info_typed};
use nibble_core::onnx::proto::tensor_proto::DataType;
use nibble_core::onnx::proto::{GraphProto, ModelProto, OperatorSetIdProto};
use nibble_core::plan::auto::Market;
use nibble_core::plan::{Clip, Precision, Set, Symmetry, preset};
use nibble_core::predict::{GatherOptions, Predictor, gather, predict};
use nibble_core::runtime::Runtime;
use nibble_core::stats::Stats;
use prost::Message;

const LAYERS: usize = 1000;
const EDITED: usize = 200;
const RUNS: usize = 60;
/// Milliseconds of a frame.
const LIMIT: f64 = 16.0;
/// The layer whose clip is dragged.
const DRAGGED: usize = 500;

fn model() -> ModelProto {
    let mut rng = fastrand::Rng::with_seed(1);
    let width = |at: usize| -> usize { if at == DRAGGED || at == DRAGGED + 1 { 1024 } else { 64 } };
    let (mut nodes, mut weights) = (Vec::new(), Vec::new());
    let mut last = "x".to_owned();
    for at in 0..LAYERS {
        let (rows, columns) = (width(at), width(at + 1));
        let spread = (6.0 / rows as f32).sqrt();
        let values: Vec<f32> = (0..rows * columns).map(|_| spread * (2.0 * rng.f32() - 1.0)).collect();
        let names = [format!("w{at}"), format!("m{at}"), format!("y{at}")];
        weights.push(tensor_f32(&names[0], &[rows as i64, columns as i64], &values));
        nodes.push(node("MatMul", "", &format!("layer{at}"), &[&last, &names[0]], &[&names[1]], vec![]));
        nodes.push(node("Relu", "", &format!("relu{at}"), &[&names[1]], &[&names[2]], vec![]));
        last.clone_from(&names[2]);
    }
    let port = |name: &str| value_info_typed(name, DataType::Float, &[4, 64]);
    ModelProto {
        ir_version: Some(10),
        opset_import: vec![OperatorSetIdProto { domain: None, version: Some(21) }],
        graph: Some(GraphProto {
            name: Some("chain".to_owned()),
            input: vec![port("x")],
            output: vec![port(&last)],
            node: nodes,
            initializer: weights,
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// The median and the greatest of `runs` measurements of `body`, in milliseconds.
fn timed(runs: usize, mut body: impl FnMut(usize)) -> Times {
    let (mut own, mut wall): (Vec<f64>, Vec<f64>) = (0..runs)
        .map(|run| {
            let (start, cpu) = (Instant::now(), thread_time::seconds());
            body(run);
            ((thread_time::seconds() - cpu) * 1e3, start.elapsed().as_secs_f64() * 1e3)
        })
        .unzip();
    own.sort_by(f64::total_cmp);
    wall.sort_by(f64::total_cmp);
    let [own, wall] = [own, wall].map(|times| [times[times.len() / 2], times[times.len() - 1]]);
    Times { own, wall }
}

/// Median and greatest: of the thread, and on the wall.
struct Times {
    own: [f64; 2],
    wall: [f64; 2],
}

impl std::fmt::Display for Times {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { own: [median, slowest], wall: [median_wall, slowest_wall] } = self;
        write!(f, "{median:.2} ms median, {slowest:.2} slowest (wall {median_wall:.2}, {slowest_wall:.2})")
    }
}

/// One kind of edit, again and again: what it does to the choices of some layers, by the number of the run.
struct Edit {
    what: &'static str,
    set: fn(usize) -> Set,
}

/// What is timed, each as if nothing like it had been asked before: every run edits other layers than the one before it, and
/// clips never stand twice in the same place.
const EDITS: [Edit; 4] = [
    Edit {
        what: "other widths",
        set: |run| Set {
            precision: Some(if run.is_multiple_of(2) { Precision::Int4 } else { Precision::Int8 }),
            clip: Some(Clip::MinMax),
            ..Set::default()
        },
    },
    Edit { what: "all clips dragged", set: |run| Set { clip: Some(by_hand(run, 0.2)), ..Set::default() } },
    Edit {
        what: "clips searched for",
        set: |run| Set {
            clip: Some(Clip::Mse),
            symmetry: Some(if run.is_multiple_of(2) { Symmetry::Asymmetric } else { Symmetry::Symmetric }),
            ..Set::default()
        },
    },
    Edit {
        what: "activations at other percentiles",
        set: |run| Set { activation_clip: Some(Clip::Percentile(99.0 + 0.01 * run as f32)), ..Set::default() },
    },
];

fn by_hand(run: usize, reach: f32) -> Clip {
    let reach = reach - 0.001 * run as f32;
    Clip::Manual { lo: -reach, hi: reach }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let control = Control::new();
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("chain.onnx");
    std::fs::write(&path, model().encode_to_vec())?;
    let model = Model::load(&path, &control)?;
    let data = DataSet::open("random:4", &model.inputs, &DataOptions::default())?;
    let runtime = Runtime::start(None, &control)?;
    let mut stats = Stats::new(model.file.sha256.as_str(), 0);
    calibrate(&model, runtime, &data, &[0, 1, 2, 3], &CalibrateOptions::default(), &mut stats, &control)?;
    let options = GatherOptions { samples: 4, ..GatherOptions::default() };
    let sensitivity = gather(&model, runtime, &data, &[0, 1, 2, 3], Some(&stats), &options, &control)?;
    let mut predictor = Predictor::new(&model, sensitivity);
    let start = cpu_time::seconds();
    Market::price(&model, &stats, &mut predictor, &control)?;
    println!("{LAYERS} layers priced once in {:.1} s of CPU", cpu_time::seconds() - start);

    let names: Vec<&str> = model.layers.iter().map(|layer| layer.name.as_str()).collect();
    let dragged = format!("layer{DRAGGED}");
    let mut plan = model.preset_plan(preset("int8")?)?;
    plan.set_layers([dragged.as_str()], &Set { precision: Some(Precision::Int4), ..Set::default() });
    predictor.predict(&model, Some(&stats), &plan, usize::MAX);
    println!("{EDITED} layers edited in each way, one clip dragged, {RUNS} times; limit {LIMIT} ms:");
    let mut slowest = 0.0_f64;
    for Edit { what, set } in EDITS {
        let mut estimated = 0;
        let times = timed(RUNS, |run| {
            let edited = names.iter().skip(run % 5).step_by(LAYERS / EDITED).copied();
            plan.set_layers(edited, &set(run));
            let clip = Some(by_hand(run, 0.08));
            plan.set_layers([dragged.as_str()], &Set { clip, ..Set::default() });
            let outlook = predictor.predict(&model, Some(&stats), &plan, 2);
            assert!(outlook.prediction.unknown.is_empty());
            estimated += outlook.estimated.len();
        });
        println!("  {what}: {times}; {estimated} noises estimated");
        slowest = slowest.max(times.own[1]);
    }
    println!("the slowest of all: {slowest:.2} ms, {:.2} of a frame; kept: {}", slowest / LIMIT, slowest <= LIMIT);
    let anew = timed(3, |_| _ = predict(predictor.sensitivity(), &model, Some(&stats), &plan));
    println!("the same without remembering anything: {anew}");
    let layer = model.layer(&dragged).ok_or("no layer")?;
    let pricing = predictor.pricing(layer).ok_or("nothing known")?;
    let choice = plan.choice(&dragged);
    let exact = timed(9, |_| _ = pricing.noise(&model, layer, &choice));
    println!("exact noise of the dragged layer ({} weights), in the background: {exact}", layer.parameters);
    Ok(())
}
