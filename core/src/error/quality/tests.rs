//! Choosing and converting, and real runs of tiny hand-built pairs through every measurement of `error`.

use super::*;
use crate::data::DataOptions;
use crate::error::{InMemory, LayerPair, accumulated, evaluate};
use crate::onnx::build::{node, tensor_f32, value_info_typed};
use crate::onnx::proto::tensor_proto::DataType;
use crate::onnx::proto::{GraphProto, ModelProto, OperatorSetIdProto};
use crate::tensor::Values;

fn port(name: &str, element_type: &str) -> Port {
    Port {
        name: name.to_owned(),
        element_type: element_type.to_owned(),
        shape: Vec::new(),
        has_shape: false,
        table_rows: None,
    }
}

#[test]
fn the_first_floating_output_speaks_unless_another_is_chosen() {
    let ports = [port("id", "int64"), port("logits", "float16"), port("map", "float32")];
    assert_eq!(scalar_output(&ports, &ports, None).expect("first"), "logits");
    assert_eq!(scalar_output(&ports, &ports, Some("map")).expect("chosen"), "map");
    assert_eq!(scalar_output(&ports[..1], &ports[..1], None).expect("only"), "id");
    assert!(scalar_output(&ports, &ports, Some("maps")).expect_err("unknown").hint().contains("map"));
    let error = scalar_output(&ports, &ports[..2], None).expect_err("differ");
    assert!(error.to_string().contains("quantized id, logits"), "{error}");
}

#[test]
fn samples_take_the_types_of_the_other_model() {
    let sample = Sample { feeds: vec![("x".to_owned(), Tensor::from_f32(vec![1], vec![0.5]))] };
    assert!(converted(&sample, &[port("x", "float32")]).is_none());
    let half = converted(&sample, &[port("x", "float16")]).expect("converted");
    assert_eq!(half.feeds[0].1.values, Values::F16(vec![half::f16::from_f32(0.5)]));
}

#[test]
fn json_has_the_fields_of_the_command_line() {
    let json = serde_json::to_value(Quality { cosine: Some(0.9999999), ..Quality::default() }).expect("json");
    for field in ["sqnr_db", "output", "cosine", "top1_agreement", "non_finite", "accuracy", "outputs"] {
        assert!(json.get(field).is_some(), "{field}");
    }
    assert_eq!(json["cosine"], 1.0);
    assert!(json["sqnr_db"].is_null());
}

fn runtime() -> &'static Runtime {
    Runtime::start(None, &Control::new()).expect("ONNX Runtime")
}

/// logits = relu(x + w), x of shape [any, 2].
fn model(w: [f32; 2]) -> ModelProto {
    let float = |name: &str| value_info_typed(name, DataType::Float, &[-1, 2]);
    let graph = GraphProto {
        name: Some("g".to_owned()),
        node: vec![
            node("Add", "", "add", &["x", "w"], &["sum"], vec![]),
            node("Relu", "", "relu", &["sum"], &["logits"], vec![]),
        ],
        initializer: vec![tensor_f32("w", &[2], &w)],
        input: vec![float("x")],
        output: vec![float("logits")],
        ..Default::default()
    };
    ModelProto {
        ir_version: Some(8),
        opset_import: vec![OperatorSetIdProto { domain: Some(String::new()), version: Some(17) }],
        graph: Some(graph),
        ..Default::default()
    }
}

fn source(proto: &ModelProto) -> Source<'_> {
    Source::Proto { proto, folder: None }
}

/// Four samples; the model with w = 0 answers 0, 1, 1, 0.
fn data(folder: &std::path::Path) -> DataSet {
    let path = folder.join("x.npy");
    let x = ndarray::array![[3.0_f32, 1.0], [1.0, 2.0], [0.0, 4.0], [2.0, 1.5]];
    ndarray_npy::write_npy(&path, &x).expect("write");
    let port = Port {
        has_shape: true,
        shape: vec![crate::port::Dim::Symbol("n".to_owned()), crate::port::Dim::Fixed(2)],
        ..port("x", "float32")
    };
    DataSet::open(&path.display().to_string(), &[port], &DataOptions::default()).expect("open")
}

#[test]
fn a_pair_is_compared_and_scored() {
    let folder = tempfile::tempdir().expect("folder");
    let (data, control) = (data(folder.path()), Control::new());
    let (original, quantized) = (model([0.0, 0.0]), model([0.0, 1.0]));
    let run = |quantized: &ModelProto, labels: Option<&[i64]>| {
        compare(
            runtime(),
            source(&original),
            source(quantized),
            &data,
            &[0, 1, 2, 3],
            labels,
            &CompareOptions::default(),
            &control,
        )
    };
    let quality = run(&quantized, Some(&[0, 1, 1, 0])).expect("compared");
    // Σx² = 9 + 1 + 1 + 4 + 0 + 16 + 4 + 2.25 = 37.25; Σ(x − x̂)² = 4.
    assert!((quality.sqnr_db.db().expect("dB") - 10.0 * (37.25_f64 / 4.0).log10()).abs() < 1e-6);
    assert_eq!((quality.output.as_str(), quality.top1_agreement), ("logits", Some(0.75)));
    assert_eq!(quality.accuracy, Some(AccuracyPair { original: 1.0, quantized: 0.75 }));
    assert_eq!((quality.max_abs_error, quality.non_finite, quality.samples), (1.0, 0, 4));
    assert!(control.problems().is_empty());

    let same = run(&original, None).expect("compared");
    assert_eq!((same.sqnr_db, same.accuracy), (Sqnr::Identical, None));

    let broken = run(&model([f32::NAN, 0.0]), None).expect("compared");
    assert_eq!((broken.sqnr_db, broken.non_finite), (Sqnr::Undefined, 4));
    assert_eq!(control.problems()[0].severity, Severity::Serious);

    assert!(run(&quantized, Some(&[0])).expect_err("labels").to_string().contains("1 labels for 4"));
    control.cancel();
    assert!(matches!(run(&quantized, None), Err(Error::Cancelled)));
}

#[test]
fn accuracy_counts_the_samples_asked_for() {
    let folder = tempfile::tempdir().expect("folder");
    let (data, control) = (data(folder.path()), Control::new());
    let accuracy = evaluate(runtime(), source(&model([0.0, 0.0])), &data, &[1, 3], &[9, 1, 9, 1], 1, &control);
    let accuracy = accuracy.expect("evaluated");
    assert_eq!((accuracy.correct, accuracy.samples, accuracy.accuracy), (1, 2, 0.5));
}

#[test]
fn the_error_accumulates_layer_by_layer() {
    let folder = tempfile::tempdir().expect("folder");
    let (data, control) = (data(folder.path()), Control::new());
    let (original, quantized) = (model([0.0, 0.0]), model([-1.0, 0.0]));
    let pair = |layer: &str, tensor: &str| LayerPair {
        layer: layer.to_owned(),
        original: tensor.to_owned(),
        quantized: tensor.to_owned(),
    };
    let pairs = [pair("add", "sum"), pair("relu", "logits")];
    let memory = |proto| InMemory { proto, folder: None };
    let layers = accumulated(runtime(), memory(&original), memory(&quantized), &pairs, &data, &[0, 2], 1, &control)
        .expect("run");
    // Samples [3, 1] and [0, 4]: the sum is off by 1 in both, after the Relu in the first only.
    let db = |noise: f64| 10.0 * (26.0 / noise).log10();
    let found: Vec<_> = layers.iter().map(|layer| (layer.name.as_str(), layer.sqnr_db.db().expect("dB"))).collect();
    assert_eq!(found[0].0, "add");
    assert!((found[0].1 - db(2.0)).abs() < 1e-6 && (found[1].1 - db(1.0)).abs() < 1e-6, "{found:?}");
}

#[test]
fn an_original_that_draws_random_numbers_is_named() {
    let float = |name: &str| value_info_typed(name, DataType::Float, &[-1, 2]);
    let mut restless = model([1.0, 2.0]);
    if let Some(graph) = restless.graph.as_mut() {
        let random = node("RandomNormalLike", "", "random", &["x"], &["r"], vec![]);
        graph.node = vec![random, node("Add", "", "add", &["x", "r"], &["logits"], vec![])];
        graph.initializer.clear();
        graph.output = vec![float("logits")];
    }
    for (proto, count) in [(restless, 1), (model([1.0, 2.0]), 0)] {
        let session = Session::open(runtime(), source(&proto), &SessionOptions::default()).expect("opens");
        let data = DataSet::open("random:2", session.inputs(), &DataOptions::default()).expect("data");
        let control = Control::new();
        let options = CompareOptions::default();
        compare(runtime(), source(&proto), source(&proto), &data, &[0, 1], None, &options, &control).expect("compared");
        let said = control.problems().into_iter().filter(|problem| problem.what.contains("each time")).count();
        assert_eq!(said, count);
    }
}
