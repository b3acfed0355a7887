//! Calibration of a tiny model in the runtime itself.

use std::collections::BTreeSet;

use ndarray_npy::WriteNpyExt as _;

use super::*;
use crate::data::DataOptions;
use crate::onnx::build::{attr_int, attr_ints, node, tensor_f16, tensor_f32, value_info_typed};
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

/// `x` [rows, 4] of any number of rows, by one weight, in float32 or with float16 between two casts.
fn matrix(folder: &std::path::Path, half: bool, weight: f32) -> Model {
    let values = [weight; 8];
    let halves = values.map(half::f16::from_f32);
    let (nodes, weight) = if half {
        let cast = |name: &str, from: &str, to: &str, data_type: DataType| {
            node("Cast", "", name, &[from], &[to], vec![attr_int("to", data_type as i64)])
        };
        let nodes = vec![
            cast("narrow", "x", "a", DataType::Float16),
            node("MatMul", "", "matmul", &["a", "w"], &["b"], vec![]),
            cast("widen", "b", "y", DataType::Float),
        ];
        (nodes, tensor_f16("w", &[4, 2], &halves))
    } else {
        (vec![node("MatMul", "", "matmul", &["x", "w"], &["y"], vec![])], tensor_f32("w", &[4, 2], &values))
    };
    let proto = ModelProto {
        ir_version: Some(8),
        opset_import: vec![OperatorSetIdProto { domain: Some(String::new()), version: Some(17) }],
        graph: Some(GraphProto {
            name: Some("g".to_owned()),
            node: nodes,
            initializer: vec![weight],
            input: vec![value_info_typed("x", DataType::Float, &[-1, 4])],
            output: vec![value_info_typed("y", DataType::Float, &[-1, 2])],
            ..Default::default()
        }),
        ..Default::default()
    };
    let path = folder.join("matrix.onnx");
    save(&proto, None, &path).expect("saved");
    Model::load(&path, &Control::new()).expect("loaded")
}

/// Statistics of a folder of samples with these numbers of rows; the values go on from sample to sample.
fn gathered(model: &Model, folder: &std::path::Path, rows: &[usize], order: &[usize], scale: f32) -> Stats {
    let data = folder.join(format!("{rows:?}"));
    std::fs::create_dir_all(&data).expect("folder");
    let mut next = 0;
    for (i, &rows) in rows.iter().enumerate() {
        let values = (next..next + 4 * rows).map(|i| (i as f32 * 0.37).sin() * scale).collect();
        next += 4 * rows;
        let array = ndarray::Array2::from_shape_vec((rows, 4), values).expect("shape");
        let file = std::fs::File::create(data.join(format!("{i}.npz"))).expect("file");
        let mut npz = zip::ZipWriter::new(file);
        let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
        npz.start_file("x.npy", stored).expect("entry");
        array.write_npy(&mut npz).expect("array");
        npz.finish().expect("written");
    }
    let set = DataSet::open(&data.to_string_lossy(), &model.inputs, &DataOptions::default()).expect("data");
    let runtime = Runtime::start(None, &Control::new()).expect("ONNX Runtime");
    let mut stats = Stats::new("", 3);
    let options = CalibrateOptions::default();
    calibrate(model, runtime, &set, order, &options, &mut stats, &Control::new()).expect("calibrated");
    stats
}

#[test]
fn batches_shapes_and_order_change_nothing() {
    let folder = tempfile::tempdir().expect("folder");
    let model = matrix(folder.path(), false, 0.7);
    let whole = gathered(&model, folder.path(), &[12], &[0], 2.0);
    for (rows, order) in [
        (&[1, 5, 2, 4][..], &[3, 0, 2, 1][..]),
        (&[6, 6], &[1, 0]),
        (&[1; 12], &[0, 11, 1, 10, 2, 9, 3, 8, 4, 7, 5, 6]),
    ] {
        let parts = gathered(&model, folder.path(), rows, order, 2.0);
        let (a, b) = (&whole.tensors["x"], &parts.tensors["x"]);
        assert_eq!((a.count, a.min, a.max, a.rank), (b.count, b.min, b.max, b.rank));
        assert!(a.histogram == b.histogram, "{rows:?}");
        let (a, b) = (&whole.tensors["y"], &parts.tensors["y"]);
        assert_eq!((a.count, a.rank), (b.count, b.rank));
        // The runtime itself sums in another order for another number of rows.
        assert!((a.max - b.max).abs() < 1e-5 && (a.sum_sq / b.sum_sq - 1.0).abs() < 1e-5, "{rows:?}");
    }
}

#[test]
fn half_precision_is_seen_and_what_overflows_it_is_counted() {
    let folder = tempfile::tempdir().expect("folder");
    let model = matrix(folder.path(), true, 0.5);
    let stats = gathered(&model, folder.path(), &[3], &[0], 2.0);
    let (a, b) = (&stats.tensors["a"], &stats.tensors["b"]);
    assert_eq!((a.count, b.count, a.non_finite + b.non_finite), (12, 6, 0));
    assert_eq!(half::f16::from_f32(a.max).to_f32(), a.max);
    assert_eq!(stats.rows["matmul"].width, 4);

    let folder = tempfile::tempdir().expect("folder");
    let model = matrix(folder.path(), true, 60_000.0);
    let stats = gathered(&model, folder.path(), &[3], &[0], 300.0);
    let seen = &stats.tensors["b"];
    assert!(seen.non_finite > 0 && seen.non_finite + seen.count == 6, "{} {}", seen.non_finite, seen.count);
    assert!(seen.count == 0 || seen.max.abs() <= 65_504.0);
}
