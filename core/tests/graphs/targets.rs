//! Every deployment target: a plan that conflicts with it, its way out, and the fixed file in ONNX Runtime.

use std::collections::BTreeSet;

use nibble_core::Control;
use nibble_core::error::{CompareOptions, Sqnr, compare};
use nibble_core::export::Form;
use nibble_core::onnx::OnnxFile;
use nibble_core::onnx::proto::TensorProto;
use nibble_core::onnx::proto::tensor_proto::DataType;
use nibble_core::plan::targets::{Level, conflicts};
use nibble_core::problem::Severity;
use nibble_core::runtime::Source;

use crate::harness::{Case, Net, Ran, operators, runtime};

/// Convolutions (one depthwise) with a residual sum, a product with a bias behind it, and one without.
fn network() -> Net {
    Net::new(17)
        .input("x", &[1, 4, 8, 8])
        .conv("x", "c", [4, 8], 1)
        .op("Relu", &["c"], "r", vec![])
        .conv("r", "d", [8, 8], 8)
        .op("Add", &["d", "r"], "s", vec![])
        .op("GlobalAveragePool", &["s"], "p", vec![])
        .op("Flatten", &["p"], "f", vec![])
        .weight("w", &[8, 16])
        .weight("b", &[16])
        .op("MatMul", &["f", "w"], "m", vec![])
        .op("Add", &["m", "b"], "a", vec![])
        .weight("v", &[16, 32])
        .op("MatMul", &["a", "v"], "y", vec![])
        .output("y")
}

/// The network, with an LSTM beside it, which no target but ONNX Runtime on a CPU takes.
fn with_lstm() -> Net {
    network()
        .input("seq", &[5, 1, 8])
        .weight("lw", &[1, 64, 8])
        .weight("lr", &[1, 64, 16])
        .node("LSTM", "lstm", &["seq", "lw", "lr"], &["h"], vec![nibble_core::onnx::build::attr_int("hidden_size", 16)])
        .output("h")
}

/// The rules that a case breaks for a target: by id, with the layer.
fn broken(case: &Case) -> BTreeSet<(String, String)> {
    let (model, plan) = case.plan();
    let found = conflicts(&model, &plan, None);
    for conflict in &found {
        let problem = &conflict.problem;
        assert_eq!(problem.place, conflict.layer);
        assert!(problem.why.contains(&conflict.source.section) && !problem.fix.is_empty(), "{problem:?}");
        let severity = if conflict.level == Level::Allowed { Severity::Warning } else { Severity::Note };
        assert_eq!(problem.severity, severity);
    }
    found.into_iter().map(|conflict| (conflict.rule.to_owned(), conflict.layer)).collect()
}

/// Runs the fixed plan, which must break nothing.
fn fixed(case: Case) -> Ran {
    let case = case.fix_target();
    assert_eq!(broken(&case), BTreeSet::new());
    case.run()
}

fn rules(broken: &BTreeSet<(String, String)>) -> Vec<&str> {
    let mut rules: Vec<&str> = broken.iter().map(|(rule, _)| rule.as_str()).collect();
    rules.dedup();
    rules
}

fn initializer<'r>(ran: &'r Ran, name: &str) -> Option<&'r TensorProto> {
    ran.quantized.graph().initializer.iter().find(|tensor| tensor.name() == name)
}

/// Element type and values of every zero point that a Q or DQ of the file reads.
fn zero_points(ran: &Ran) -> Vec<(DataType, Vec<f32>)> {
    let graph = ran.quantized.graph();
    let pairs = graph
        .node
        .iter()
        .filter(|node| node.op_type().ends_with("quantizeLinear") || node.op_type() == "QuantizeLinear");
    let tensors = pairs.map(|node| initializer(ran, &node.input[2]).expect("a constant zero point"));
    tensors
        .map(|tensor| {
            let kind = DataType::try_from(tensor.data_type()).expect("type");
            (kind, ran.quantized.read_f32(tensor).expect("values").into_owned())
        })
        .collect()
}

/// All integers of int8 weights in the file.
fn weights(ran: &Ran) -> Vec<f32> {
    let tensors = ran.quantized.graph().initializer.iter();
    let tensors = tensors.filter(|tensor| tensor.data_type() == DataType::Int8 as i32 && tensor.dims.len() > 1);
    tensors.flat_map(|tensor| ran.quantized.read_f32(tensor).expect("values").into_owned()).collect()
}

#[test]
fn vnni_runs_eight_bits_and_calls_sixteen_a_simulation() {
    let case = || network().under("int8").target("onnxruntime-cpu-vnni").set("*", "activation=int16");
    assert_eq!(rules(&broken(&case())), ["int8-activations"]);
    fixed(case()).above(30.0).runs("QLinearConv", 2);
    // A plan that names no target is for this one.
    assert_eq!(broken(&network().under("int8")), BTreeSet::new());
    assert_eq!(rules(&broken(&network().under("float16"))), ["float32-compute"]);
}

#[test]
fn avx2_keeps_weights_to_seven_bits_under_every_form_with_integer_activations() {
    for preset in ["int8", "int8-dynamic"] {
        for symmetry in ["symmetric", "asymmetric"] {
            let set = format!("symmetry={symmetry},granularity=per_tensor");
            let case = || with_lstm().under(preset).target("onnxruntime-cpu-avx2").set("*", &set);
            let before = case().run();
            assert!(weights(&before).iter().any(|q| q.abs() > 64.0), "{preset}: the plain file uses 8 bits");
            assert_eq!(rules(&broken(&case())), ["seven-bit-weights"], "{preset}");
            let ran = fixed(case());
            ran.above(22.0);
            let least = if symmetry == "symmetric" { -63.0 } else { -64.0 };
            let seen = weights(&ran);
            // What is only stored is computed in floating point, and keeps its 8 bits.
            let all = ran.verified.layers.iter().all(|layer| layer.choice.reduce_range);
            assert_eq!(all, preset == "int8", "dynamic convolutions are only stored");
            if all {
                assert!(seen.iter().all(|q| (least..=63.0).contains(q)), "{preset} {symmetry}");
            }
            for layer in ran.verified.layers.iter().filter(|layer| layer.form != Form::FoldedWeights) {
                assert!(layer.choice.reduce_range, "{preset}: {}", layer.name);
            }
            assert!(seen.iter().any(|q| q.abs() > 60.0), "{preset}: all 7 bits are used");
        }
    }
}

#[test]
fn mobile_also_writes_a_file_in_ort_format_that_computes_the_same() {
    let case = || network().under("int4-weights").target("onnxruntime-mobile");
    assert_eq!(
        rules(&broken(&case())),
        ["opset", "operators", "types"]
            .map(|rule| rule)
            .into_iter()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect::<Vec<_>>()
    );
    let case = case().fix_target();
    // The operator set is no layer's business.
    assert_eq!(rules(&broken(&case)), ["opset"]);
    for ran in [case.run(), network().under("int8").target("onnxruntime-mobile").run()] {
        let ort = ran.verified.ort.as_ref().expect("a file in ORT format");
        assert_eq!(ort.output, ran.folder.path().join("quantized.ort"));
        assert_eq!(std::fs::metadata(&ort.output).expect("written").len(), ort.size_bytes);
        let bytes = std::fs::read(&ort.output).expect("file");
        assert_eq!(&bytes[4..8], b"ORTM");
        assert!(OnnxFile::load(&ort.output, &Control::new()).is_err(), "it is no ONNX file");
        let close = |sqnr: Sqnr| sqnr == Sqnr::Identical || sqnr.db().is_some_and(|db| db > 60.0);
        assert!(close(ort.sqnr_db), "{:?}", ort.sqnr_db);
        // Loaded from its place by a session of its own.
        let indices: Vec<usize> = (0..ran.data.len()).collect();
        let (onnx, ort) = (Source::File(&ran.verified.output), Source::File(&ort.output));
        let options = CompareOptions::default();
        let quality = compare(runtime(), onnx, ort, &ran.data, &indices, None, &options, &Control::new());
        assert!(close(quality.expect("runs").sqnr_db));
    }
    assert!(network().under("int8").run().verified.ort.is_none(), "only where the target asks for it");
}

#[test]
fn tensorrt_gets_signed_integers_with_zero_points_of_zero_and_float_biases() {
    let case =
        || with_lstm().under("int8").target("tensorrt").set("{c,d,m}", "symmetry=asymmetric").set("y", "mode=dynamic");
    let found = broken(&case());
    assert_eq!(rules(&found), ["explicit-quantization", "symmetric-activations", "symmetric-weights"]);
    // Without the way out it is written as chosen: signed, and not symmetric.
    let as_chosen = case().run();
    assert!(zero_points(&as_chosen).iter().any(|(_, values)| values.iter().any(|&z| z != 0.0)));
    let ran = fixed(case());
    ran.above(25.0);
    let all = zero_points(&ran);
    assert!(all.len() > 8, "{}", ran.describe());
    for (kind, values) in all {
        assert_eq!((kind, values.iter().all(|&z| z == 0.0)), (DataType::Int8, true), "{}", ran.describe());
    }
    assert!(
        ran.quantized.proto.opset_import.iter().all(|import| import.domain().is_empty()),
        "only standard operators"
    );
    assert!(!ran.quantized.graph().initializer.iter().any(|t| t.data_type() == DataType::Int32 as i32), "float biases");
    for layer in ran.verified.layers.iter().filter(|layer| layer.op != "LSTM") {
        assert_eq!(layer.form, Form::Qdq, "{}", layer.name);
    }
    // Nothing stands between a convolution and the Relu that belongs to it.
    let relu = ran.quantized.graph().node.iter().find(|node| node.op_type() == "Relu").expect("Relu");
    let maker = ran.quantized.graph().node.iter().find(|node| node.output.contains(&relu.input[0])).expect("maker");
    assert_eq!(maker.op_type(), "Conv");
}

#[test]
fn qnn_takes_static_layers_with_one_scale_for_a_matrix() {
    let case = || {
        network()
            .under("int8")
            .target("qnn")
            .set("c", "mode=weight_only")
            .set("d", "symmetry=asymmetric,granularity=per_tensor")
    };
    assert_eq!(rules(&broken(&case())), ["matmul-per-tensor", "quantized-only", "symmetric-weights"]);
    let ran = fixed(case());
    ran.above(25.0);
    for layer in &ran.verified.layers {
        let per_channel = layer.choice.granularity == nibble_core::plan::Granularity::PerChannel;
        assert_eq!((layer.form, per_channel), (Form::Qdq, layer.name == "c"), "{}", layer.name);
    }
    let free =
        Net::new(17).input("x", &[-1, 8]).weight("w", &[8, 8]).op("MatMul", &["x", "w"], "y", vec![]).output("y");
    let free = free.under("int8").target("qnn").fix_target();
    assert_eq!(broken(&free), BTreeSet::from([("fixed-shapes".to_owned(), String::new())]));
}

#[test]
fn tflite_has_signed_asymmetric_activations_and_int32_biases() {
    let net = || {
        network()
            .integers("ids", &[1, 4])
            .weight("table", &[128, 32])
            .op("Gather", &["table", "ids"], "e", vec![])
            .output("e")
    };
    let case = || {
        net()
            .under("int8")
            .target("tflite-int8-spec")
            .set("c", "granularity=per_tensor,symmetry=asymmetric")
            .set("y", "precision=int4")
    };
    let found = broken(&case());
    assert_eq!(rules(&found), ["conv-per-channel", "full-integer", "gather-per-tensor", "symmetric-weights"]);
    let ran = fixed(case());
    ran.above(20.0).runs("QGemm", 1);
    let all = zero_points(&ran);
    assert!(all.iter().all(|(kind, _)| matches!(kind, DataType::Int8 | DataType::Int32)), "{}", ran.describe());
    assert!(all.iter().any(|(kind, values)| *kind == DataType::Int8 && values[0] != 0.0), "asymmetric activations");
    assert!(all.iter().any(|(kind, values)| *kind == DataType::Int32 && values.iter().all(|&z| z == 0.0)), "biases");
    assert!(weights(&ran).iter().all(|q| q.abs() <= 127.0));
    assert!(operators(ran.quantized.graph()).contains_key("Gather"));
}

#[test]
fn signed_and_unsigned_activations_stand_for_the_same_numbers() {
    let unsigned = network().under("int8").run();
    let signed = network().under("int8").target("tflite-int8-spec").run();
    let scales = |ran: &Ran| -> Vec<u32> {
        let mut scales: Vec<u32> = ran
            .quantized
            .graph()
            .initializer
            .iter()
            .filter(|tensor| tensor.name().ends_with("_scale") && tensor.dims.is_empty())
            .map(|tensor| ran.quantized.read_f32(tensor).expect("scale")[0].to_bits())
            .collect();
        scales.sort_unstable();
        scales
    };
    assert_eq!(scales(&unsigned), scales(&signed));
    let (a, b) = (unsigned.quality().sqnr_db.db(), signed.quality().sqnr_db.db());
    assert!(a.zip(b).is_some_and(|(a, b)| (a - b).abs() < 1.0), "{a:?} {b:?}");
}
