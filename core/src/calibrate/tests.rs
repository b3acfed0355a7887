//! Calibration of a tiny model in the runtime itself.

use std::collections::BTreeSet;

use super::*;
use crate::data::DataOptions;
use crate::onnx::build::{attr_ints, node, tensor_f32, value_info_typed};
use crate::onnx::proto::tensor_proto::DataType;
use crate::onnx::proto::{GraphProto, ModelProto, OperatorSetIdProto};
use crate::onnx::save;
use crate::runtime::Level;
use crate::stats::TensorStats;

/// A Conv with Relu, both tapped, then a MatMul along the last axis; `x` is [1, 2, 5, 4].
fn model(folder: &std::path::Path) -> Model {
    let weight = |count: usize| -> Vec<f32> { (0..count).map(|i| (i as f32 * 0.7).sin()).collect() };
    let graph = GraphProto {
        name: Some("g".to_owned()),
        node: vec![
            node("Conv", "", "conv", &["x", "w"], &["c"], vec![attr_ints("pads", &[1, 1, 1, 1])]),
            node("Relu", "", "relu", &["c"], &["r"], vec![]),
            node("MatMul", "", "matmul", &["r", "m"], &["y"], vec![]),
        ],
        initializer: vec![tensor_f32("w", &[3, 2, 3, 3], &weight(54)), tensor_f32("m", &[4, 6], &weight(24))],
        input: vec![value_info_typed("x", DataType::Float, &[1, 2, 5, 4])],
        output: vec![value_info_typed("y", DataType::Float, &[1, 3, 5, 6])],
        ..Default::default()
    };
    let proto = ModelProto {
        ir_version: Some(8),
        opset_import: vec![OperatorSetIdProto { domain: Some(String::new()), version: Some(17) }],
        graph: Some(graph),
        ..Default::default()
    };
    let path = folder.join("tiny.onnx");
    save(&proto, None, &path).expect("saved");
    Model::load(&path, &Control::new()).expect("loaded")
}

struct Setting {
    folder: tempfile::TempDir,
    model: Model,
    data: DataSet,
    runtime: &'static Runtime,
}

fn setting() -> Setting {
    let folder = tempfile::tempdir().expect("folder");
    let model = model(folder.path());
    let data = DataSet::open("random:12", &model.inputs, &DataOptions::default()).expect("data");
    let runtime = Runtime::start(None, &Control::new()).expect("ONNX Runtime");
    Setting { folder, model, data, runtime }
}

impl Setting {
    fn run(&self, indices: &[usize], stats: &mut Stats, control: &Control) -> Result<CalibrateTimes, Error> {
        calibrate(&self.model, self.runtime, &self.data, indices, &CalibrateOptions::default(), stats, control)
    }
}

#[test]
fn what_is_seen_is_what_the_runtime_computes() {
    let setting = setting();
    let mut stats = Stats::new("", 3);
    let times = setting.run(&[0, 1, 2], &mut stats, &Control::new()).expect("calibrated");
    assert_eq!((times.samples, stats.samples()), (3, 3));
    assert_eq!(stats.model_sha256, setting.model.file.sha256);
    assert!(times.tapped_inference_seconds <= times.seconds);

    let taps = Taps::of(&setting.model);
    let names: Vec<String> = taps.observed.iter().cloned().collect();
    let proto = tapped(&setting.model.graph, &names);
    let options = SessionOptions { level: Level::Disable, ..SessionOptions::default() };
    let mut session =
        Session::open(setting.runtime, Source::Proto { proto: &proto, folder: None }, &options).expect("opens");
    let mut expected: std::collections::BTreeMap<String, TensorStats> = std::collections::BTreeMap::new();
    for index in 0..3 {
        let sample = setting.data.sample(index).expect("sample");
        for output in session.run(&sample, &Control::new()).expect("runs") {
            let tensor = output.value.expect("tensor");
            let seen = expected.entry(output.name).or_default();
            seen.rank = Some(tensor.shape.len() as u32);
            seen.observe(&tensor.values.to_f32().expect("numbers"));
        }
    }
    // What leaves the convolution is what leaves the Relu merged into it.
    assert_eq!(taps.aliases, [("c".to_owned(), "r".to_owned())].into());
    assert!(stats.tensors["c"].histogram == stats.tensors["r"].histogram);
    assert_eq!(stats.tensors.keys().map(String::as_str).collect::<BTreeSet<_>>(), taps.names());
    for (name, expected) in &expected {
        let seen = &stats.tensors[name];
        // Fused operators round in another order, so values may cross the edge of a bin.
        assert_eq!((seen.count, seen.rank, seen.non_finite), (expected.count, expected.rank, 0), "{name}");
        let size = expected.max.max(-expected.min);
        assert!((seen.min - expected.min).abs() <= 1e-5 * size && (seen.max - expected.max).abs() <= 1e-5 * size);
        assert!((seen.sum_sq / expected.sum_sq - 1.0).abs() < 1e-5, "{name}");
        let moved: u64 =
            seen.histogram.counts.iter().zip(&expected.histogram.counts).map(|(a, b)| a.abs_diff(*b)).sum();
        assert!(moved <= 2 + expected.count / 100, "{name}: {moved} of {}", expected.count);
    }
    assert_eq!(stats.rows["conv"].width, 18);
    assert_eq!(stats.rows["matmul"].width, 4);
    assert_eq!(stats.rows["matmul"].len(), 3 * 15);
    let (lo, hi) = stats.rows["matmul"].ranges[0];
    assert!(lo >= 0.0 && hi <= stats.tensors["r"].max);
}

#[test]
fn going_on_later_is_the_same_as_all_at_once_in_any_order() {
    let setting = setting();
    let mut whole = Stats::new("", 3);
    setting.run(&(0..12).collect::<Vec<_>>(), &mut whole, &Control::new()).expect("calibrated");
    let mut parts = Stats::new("", 3);
    setting.run(&[11, 3, 4], &mut parts, &Control::new()).expect("calibrated");
    let path = setting.folder.path().join("half.stats");
    parts.save(&path).expect("saved");
    let mut parts = Stats::load(&path).expect("loaded");
    let times = setting.run(&(0..12).collect::<Vec<_>>(), &mut parts, &Control::new()).expect("calibrated");
    assert_eq!(times.samples, 9, "the three of before are skipped");
    assert_eq!((parts.samples(), &parts.rows), (12, &whole.rows));
    for (name, seen) in &whole.tensors {
        assert_eq!(parts.tensors[name].histogram, seen.histogram, "{name}");
        assert_eq!((parts.tensors[name].min, parts.tensors[name].max), (seen.min, seen.max));
    }
}

#[test]
fn a_cancelled_calibration_keeps_whole_samples() {
    let setting = setting();
    let control = Control::new();
    let mut stats = Stats::new("", 3);
    setting.run(&[0, 1], &mut stats, &control).expect("calibrated");
    let before = stats.clone();
    control.cancel();
    assert!(matches!(setting.run(&[2, 3], &mut stats, &control), Err(Error::Cancelled)));
    assert_eq!(stats, before);
}

#[test]
fn statistics_of_another_model_are_refused() {
    let setting = setting();
    let mut stats = Stats::new("another", 3);
    assert!(matches!(setting.run(&[0], &mut stats, &Control::new()), Err(Error::Stats(StatsError::OtherModel { .. }))));
}
