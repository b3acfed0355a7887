//! Real runs of tiny hand-built models.

use super::*;
use crate::onnx::build::{attr_graph, attr_int, node, tensor_f32, tensor_i64, value_info, value_info_typed};
use crate::onnx::proto::tensor_proto::DataType;
use crate::onnx::proto::{
    GraphProto, NodeProto, OperatorSetIdProto, TensorProto, TypeProto, ValueInfoProto, type_proto,
};
use crate::runtime::tapped;
use crate::tensor::{Tensor, Values};

fn runtime() -> &'static Runtime {
    Runtime::start(None, &Control::new()).expect("ONNX Runtime")
}

fn model(
    nodes: Vec<NodeProto>,
    initializer: Vec<TensorProto>,
    input: Vec<ValueInfoProto>,
    output: Vec<ValueInfoProto>,
) -> ModelProto {
    ModelProto {
        ir_version: Some(8),
        opset_import: vec![OperatorSetIdProto { domain: Some(String::new()), version: Some(17) }],
        graph: Some(GraphProto {
            node: nodes,
            name: Some("g".to_owned()),
            initializer,
            input,
            output,
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn float(name: &str, dims: &[i64]) -> ValueInfoProto {
    value_info_typed(name, DataType::Float, dims)
}

/// y = relu(x + w), x of shape [any, 2].
fn add_relu() -> ModelProto {
    model(
        vec![node("Add", "", "add", &["x", "w"], &["sum"], vec![]), node("Relu", "", "relu", &["sum"], &["y"], vec![])],
        vec![tensor_f32("w", &[2], &[1.0, -5.0])],
        vec![float("x", &[-1, 2])],
        vec![float("y", &[-1, 2])],
    )
}

fn open(proto: &ModelProto) -> Session {
    let options = SessionOptions { level: Level::Disable, ..Default::default() };
    Session::open(runtime(), Source::Proto { proto, folder: None }, &options).expect("opens")
}

fn x(shape: &[usize], values: &[f32]) -> Sample {
    Sample { feeds: vec![("x".to_owned(), Tensor::from_f32(shape.to_vec(), values.to_vec()))] }
}

#[test]
fn runs_and_shows_taps_in_order() {
    let mut session = open(&tapped(&add_relu(), &["sum".to_owned()]));
    assert_eq!(session.inputs()[0].shape_text(), "[?, 2]");
    assert_eq!(session.outputs().iter().map(|port| port.name.as_str()).collect::<Vec<_>>(), ["y", "sum"]);
    assert_eq!(session.outputs()[1].element_type, "float32");
    let outputs = session.run(&x(&[2, 2], &[1.0, 2.0, 3.0, 7.0]), &Control::new()).expect("runs");
    let expected = |name: &str, values: &[f32]| Output {
        name: name.to_owned(),
        value: Some(Tensor::from_f32(vec![2, 2], values.to_vec())),
    };
    assert_eq!(outputs, [expected("y", &[2.0, 0.0, 4.0, 2.0]), expected("sum", &[2.0, -3.0, 4.0, 2.0])]);
    assert!(session.last_run() > Duration::ZERO);
}

#[test]
fn the_file_and_the_message_give_the_same() {
    let folder = tempfile::tempdir().expect("temp folder");
    let path = folder.path().join("m.onnx");
    crate::onnx::save(&add_relu(), None, &path).expect("saved");
    let mut from_file = Session::open(runtime(), Source::File(&path), &SessionOptions::default()).expect("opens");
    let sample = x(&[1, 2], &[1.0, 9.0]);
    let control = Control::new();
    assert_eq!(
        from_file.run(&sample, &control).expect("runs"),
        open(&add_relu()).run(&sample, &control).expect("runs")
    );
    let missing = folder.path().join("no.onnx");
    let error = Session::open(runtime(), Source::File(&missing), &SessionOptions::default()).expect_err("missing");
    assert_eq!(error.place(), missing.display().to_string());
}

#[test]
fn wrong_samples_are_refused_before_the_run() {
    let mut session = open(&add_relu());
    let mut refused = |sample: &Sample| session.run(sample, &Control::new()).expect_err("refused");
    assert!(matches!(refused(&x(&[1, 3], &[0.0; 3])), RuntimeError::InputShape { .. }));
    assert!(matches!(refused(&Sample { feeds: vec![] }), RuntimeError::InputMissing { .. }));
    let integers = Tensor { shape: vec![1, 2], values: Values::I64(vec![1, 2]) };
    let integers = Sample { feeds: vec![("x".to_owned(), integers)] };
    assert!(matches!(refused(&integers), RuntimeError::InputType { .. }));
}

#[test]
fn every_element_type_goes_in_and_comes_out() {
    let samples = [
        (DataType::Float, Values::F32(vec![1.5, -2.0])),
        (DataType::Double, Values::F64(vec![1.5, -2.0])),
        (DataType::Float16, Values::F16(vec![half::f16::ONE, half::f16::NEG_ONE])),
        (DataType::Bfloat16, Values::Bf16(vec![half::bf16::ONE, half::bf16::NEG_ONE])),
        (DataType::Int8, Values::I8(vec![1, -2])),
        (DataType::Int16, Values::I16(vec![1, -2])),
        (DataType::Int32, Values::I32(vec![1, -2])),
        (DataType::Int64, Values::I64(vec![1, -2])),
        (DataType::Uint8, Values::U8(vec![1, 255])),
        (DataType::Uint16, Values::U16(vec![1, 65535])),
        (DataType::Uint32, Values::U32(vec![1, u32::MAX])),
        (DataType::Uint64, Values::U64(vec![1, u64::MAX])),
        (DataType::Bool, Values::Bool(vec![true, false])),
        (DataType::String, Values::Text(vec!["a".to_owned(), "ü b".to_owned()])),
    ];
    for (data_type, values) in samples {
        let port = |name| value_info_typed(name, data_type, &[2]);
        let identity = vec![node("Identity", "", "", &["x"], &["y"], vec![])];
        let mut session = open(&model(identity, vec![], vec![port("x")], vec![port("y")]));
        let tensor = Tensor { shape: vec![2], values };
        let sample = Sample { feeds: vec![("x".to_owned(), tensor.clone())] };
        let outputs = session.run(&sample, &Control::new()).expect("runs");
        assert_eq!(outputs[0].value.as_ref(), Some(&tensor));
    }
}

#[test]
fn scalars_and_empty_tensors_are_tensors() {
    let mut session = open(&model(
        vec![node("Neg", "", "", &["x"], &["y"], vec![])],
        vec![],
        vec![float("x", &[])],
        vec![float("y", &[])],
    ));
    let outputs = session.run(&x(&[], &[3.0]), &Control::new()).expect("runs");
    assert_eq!(outputs[0].value, Some(Tensor::from_f32(vec![], vec![-3.0])));
    let outputs = open(&add_relu()).run(&x(&[0, 2], &[]), &Control::new()).expect("runs");
    assert_eq!(outputs[0].value, Some(Tensor::from_f32(vec![0, 2], vec![])));
}

#[test]
fn an_input_with_a_default_may_be_left_out_or_given() {
    let mut proto = add_relu();
    if let Some(graph) = proto.graph.as_mut() {
        graph.input.push(float("w", &[2]));
    }
    let mut session = open(&proto);
    assert_eq!(session.inputs().len(), 1);
    let first = |outputs: Vec<Output>| outputs.into_iter().next().and_then(|output| output.value);
    let mut sample = x(&[1, 2], &[1.0, 1.0]);
    let outputs = session.run(&sample, &Control::new()).expect("runs");
    assert_eq!(first(outputs), Some(Tensor::from_f32(vec![1, 2], vec![2.0, 0.0])));
    sample.feeds.push(("w".to_owned(), Tensor::from_f32(vec![2], vec![10.0, 20.0])));
    let outputs = session.run(&sample, &Control::new()).expect("runs");
    assert_eq!(first(outputs), Some(Tensor::from_f32(vec![1, 2], vec![11.0, 21.0])));
}

#[test]
fn a_sequence_comes_element_by_element() {
    let sequence = |name: &str| ValueInfoProto {
        r#type: Some(TypeProto {
            denotation: None,
            value: Some(type_proto::Value::SequenceType(Box::new(type_proto::Sequence {
                elem_type: float("x", &[1, 2]).r#type.map(Box::new),
            }))),
        }),
        ..value_info(name)
    };
    let split = vec![node("SplitToSequence", "", "", &["x"], &["y"], vec![attr_int("axis", 0)])];
    let mut session = open(&model(split, vec![], vec![float("x", &[2, 2])], vec![sequence("y")]));
    assert_eq!(session.outputs()[0].element_type, "sequence");
    let outputs = session.run(&x(&[2, 2], &[1.0, 2.0, 3.0, 4.0]), &Control::new()).expect("runs");
    let names: Vec<_> = outputs.iter().map(|output| output.name.as_str()).collect();
    assert_eq!(names, ["y[0]", "y[1]"]);
    assert_eq!(outputs[1].value, Some(Tensor::from_f32(vec![1, 2], vec![3.0, 4.0])));
}

#[test]
fn an_optional_is_no_tensor() {
    let optional = ValueInfoProto {
        r#type: Some(TypeProto {
            denotation: None,
            value: Some(type_proto::Value::OptionalType(Box::new(type_proto::Optional {
                elem_type: float("x", &[2]).r#type.map(Box::new),
            }))),
        }),
        ..value_info("o")
    };
    let mut attribute = crate::onnx::build::attr_int("type", 0);
    attribute.i = None;
    attribute.r#type = Some(crate::onnx::proto::attribute_proto::AttributeType::TypeProto as i32);
    attribute.tp = float("x", &[2]).r#type;
    let nodes =
        vec![node("Optional", "", "", &[""; 0], &["o"], vec![attribute]), node("Relu", "", "", &["x"], &["y"], vec![])];
    let mut session = open(&model(nodes, vec![], vec![float("x", &[2])], vec![optional, float("y", &[2])]));
    let outputs = session.run(&x(&[2], &[1.0, -1.0]), &Control::new()).expect("runs");
    assert_eq!(outputs[0], Output { name: "o".to_owned(), value: None });
    assert_eq!(outputs[1].value, Some(Tensor::from_f32(vec![2], vec![1.0, 0.0])));
}

/// A loop that runs for hours: cancelling must end it.
#[test]
fn cancel_stops_a_run() {
    let body = GraphProto {
        name: Some("body".to_owned()),
        node: vec![
            node("Identity", "", "", &["go"], &["go_on"], vec![]),
            node("Add", "", "", &["state", "x"], &["next"], vec![]),
        ],
        input: vec![
            value_info_typed("i", DataType::Int64, &[]),
            value_info_typed("go", DataType::Bool, &[]),
            float("state", &[2]),
        ],
        output: vec![value_info_typed("go_on", DataType::Bool, &[]), float("next", &[2])],
        ..Default::default()
    };
    let nodes = vec![node("Loop", "", "loop", &["count", "", "x"], &["y"], vec![attr_graph("body", body)])];
    let count = tensor_i64("count", &[], &[i64::MAX]);
    let mut session = open(&model(nodes, vec![count], vec![float("x", &[2])], vec![float("y", &[2])]));
    let control = Control::new();
    let canceller = control.clone();
    let thread = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        canceller.cancel();
        Instant::now()
    });
    let result = session.run(&x(&[2], &[1.0, 1.0]), &control);
    let returned = Instant::now();
    assert!(matches!(result, Err(RuntimeError::Cancelled)), "{result:?}");
    let cancelled = thread.join().expect("thread");
    assert!(returned.saturating_duration_since(cancelled) < Duration::from_secs(2));
    // Cancelled from the start: no run at all.
    assert!(matches!(session.run(&x(&[2], &[1.0, 1.0]), &control), Err(RuntimeError::Cancelled)));
}

#[test]
fn models_that_onnx_runtime_refuses_come_with_its_message() {
    let nodes = vec![node("NoSuchOperator", "", "n", &["x"], &["y"], vec![])];
    let proto = model(nodes, vec![], vec![float("x", &[2])], vec![float("y", &[2])]);
    let source = Source::Proto { proto: &proto, folder: None };
    let error = Session::open(runtime(), source, &SessionOptions::default()).expect_err("refused");
    assert!(error.to_string().contains("NoSuchOperator"), "{error}");
    assert!(error.hint().contains("newer"), "{}", error.hint());
}

#[test]
fn a_run_that_fails_comes_with_the_message() {
    let nodes = vec![node("Reshape", "", "reshape", &["x", "shape"], &["y"], vec![])];
    let shape = tensor_i64("shape", &[1], &[3]);
    let mut session = open(&model(nodes, vec![shape], vec![float("x", &[-1])], vec![value_info("y")]));
    let error = session.run(&x(&[2], &[0.0; 2]), &Control::new()).expect_err("fails");
    assert!(matches!(&error, RuntimeError::Run { reason } if reason.contains("reshape")), "{error}");
}

#[test]
fn external_data_are_found_by_file_and_by_folder() {
    let folder = tempfile::tempdir().expect("temp folder");
    let path = folder.path().join("m.onnx");
    std::fs::write(folder.path().join("w.bin"), [1f32.to_le_bytes(), (-5f32).to_le_bytes()].concat()).expect("data");
    let mut proto = add_relu();
    if let Some(tensor) = proto.graph.as_mut().and_then(|graph| graph.initializer.first_mut()) {
        crate::onnx::point_at(tensor, "w.bin", 0, 8);
    }
    std::fs::write(&path, proto.encode_to_vec()).expect("model");
    let sample = x(&[1, 2], &[1.0, 9.0]);
    let expected = open(&add_relu()).run(&sample, &Control::new()).expect("runs");
    let options = SessionOptions::default();
    for source in [Source::File(&path), Source::Proto { proto: &proto, folder: Some(folder.path()) }] {
        let mut session = Session::open(runtime(), source, &options).expect("opens");
        assert_eq!(session.run(&sample, &Control::new()).expect("runs"), expected);
    }
    let staged =
        crate::onnx::Staged::write(&proto, Some(folder.path()), &folder.path().join("out.onnx")).expect("staged");
    let mut session = Session::open(runtime(), Source::File(staged.path()), &options).expect("opens");
    assert_eq!(session.run(&sample, &Control::new()).expect("runs"), expected);
}

#[test]
fn a_profile_is_written_where_asked() {
    let folder = tempfile::tempdir().expect("temp folder");
    let optimized = folder.path().join("optimized.onnx");
    let options = SessionOptions {
        profile: Some(folder.path().join("profile")),
        optimized_model: Some(optimized.clone()),
        ..Default::default()
    };
    let proto = add_relu();
    let source = Source::Proto { proto: &proto, folder: None };
    let mut session = Session::open(runtime(), source, &options).expect("opens");
    session.run(&x(&[1, 2], &[0.0; 2]), &Control::new()).expect("runs");
    let profile = session.end_profiling().expect("written");
    assert!(std::fs::read_to_string(profile).expect("profile").contains("kernel_time"));
    assert!(optimized.is_file());
    assert!(matches!(open(&proto).end_profiling(), Err(RuntimeError::Profile { .. })));
}
