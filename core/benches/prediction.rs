//! An edit of 200 layers of a plan of 1,000, a manual clip that is being dragged among them: milliseconds until the new
//! prediction is there, against the 16 that a frame has.
//!
//! The model is made here: a chain of 1,000 matrix products of 64 × 64 with Relu between them, one of them 1024 × 1024 wide,
//! whose clip is dragged. Its slopes are gathered in ONNX Runtime, which therefore has to be there.

#[path = "shared/cpu_time.rs"]
mod cpu_time;

use std::time::Instant;

use nibble_core::Control;
use nibble_core::calibrate::{CalibrateOptions, calibrate};
use nibble_core::data::{DataOptions, DataSet};
use nibble_core::model::Model;
use nibble_core::onnx::build::{node, tensor_f32, value_info_typed};
use nibble_core::onnx::proto::tensor_proto::DataType;
use nibble_core::onnx::proto::{GraphProto, ModelProto, OperatorSetIdProto};
use nibble_core::plan::auto::Market;
use nibble_core::plan::{Clip, Precision, Set, preset};
use nibble_core::predict::{GatherOptions, Predictor, gather, predict};
use nibble_core::runtime::Runtime;
use nibble_core::stats::Stats;
use prost::Message;

const LAYERS: usize = 1000;
const EDITED: usize = 200;
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

/// Median and greatest of `runs` measurements in milliseconds of CPU time and on the wall.
fn timed(runs: usize, mut body: impl FnMut(usize)) -> (f64, f64) {
    let mut times: Vec<f64> = (0..runs)
        .map(|run| {
            let start = Instant::now();
            body(run);
            start.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    (times[times.len() / 2], times[times.len() - 1])
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
    let mut estimated = 0;
    let (median, most) = timed(60, |run| {
        let precision = if run % 2 == 0 { Precision::Int4 } else { Precision::Int8 };
        let edited = names.iter().skip(run % 5).step_by(LAYERS / EDITED).copied();
        plan.set_layers(edited, &Set { precision: Some(precision), clip: Some(Clip::MinMax), ..Set::default() });
        let reach = 0.08 - 0.001 * run as f32;
        let clip = Some(Clip::Manual { lo: -reach, hi: reach });
        plan.set_layers([dragged.as_str()], &Set { clip, ..Set::default() });
        let outlook = predictor.predict(&model, Some(&stats), &plan, 2);
        assert!(outlook.prediction.unknown.is_empty());
        estimated += outlook.estimated.len();
    });
    println!(
        "{EDITED} layers edited, one clip dragged: {median:.2} ms (median of 60), {most:.2} ms (slowest); \
         {:.2} of the {LIMIT} ms of a frame, {:.2} the slowest; {estimated} noises estimated",
        median / LIMIT,
        most / LIMIT
    );
    let (anew, _) = timed(3, |_| _ = predict(predictor.sensitivity(), &model, Some(&stats), &plan));
    println!("the same without remembering anything: {anew:.1} ms, {:.1} times as long", anew / median);
    let layer = model.layer(&dragged).ok_or("no layer")?;
    let pricing = predictor.pricing(layer).ok_or("nothing known")?;
    let choice = plan.choice(&dragged);
    let (exact, _) = timed(9, |_| _ = pricing.noise(&model, layer, &choice));
    println!("exact noise of the dragged layer ({} weights), in the background: {exact:.2} ms", layer.parameters);
    Ok(())
}
