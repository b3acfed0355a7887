//! Schemes beyond int8: half precision throughout, 16-bit activations, 2-bit weights.

use nibble_core::export::{Form, Verdict};
use nibble_core::onnx::build::{attr_float, attr_ints};
use nibble_core::onnx::proto::tensor_proto::DataType;
use nibble_core::onnx::proto::{NodeProto, TensorProto};

use crate::harness::{Net, Ran, operators};

/// Two convolutions with a residual sum, a mean, and a Gemm.
fn network(opset: i64) -> Net {
    Net::new(opset)
        .input("x", &[1, 4, 8, 8])
        .conv("x", "c", [4, 8], 1)
        .op("Relu", &["c"], "r", vec![])
        .conv("r", "d", [8, 8], 1)
        .op("Add", &["d", "r"], "s", vec![])
        .op("GlobalAveragePool", &["s"], "p", vec![])
        .op("Flatten", &["p"], "f", vec![])
        .weight("w", &[8, 5])
        .op("Gemm", &["f", "w"], "y", vec![])
        .output("y")
}

fn node<'r>(ran: &'r Ran, op: &str) -> &'r NodeProto {
    ran.quantized.graph().node.iter().find(|node| node.op_type() == op).expect(op)
}

#[test]
fn float16_reaches_the_whole_graph_and_leaves_its_ends() {
    for opset in [11, 13, 17, 21] {
        let ran = network(opset).under("float16").run();
        ran.above(50.0).quiet();
        // One Cast behind the input, one before the output, and nothing in between.
        assert_eq!(operators(ran.quantized.graph())["Cast"], 2, "{}", ran.describe());
        let halves = |tensor: &TensorProto| tensor.data_type() == DataType::Float16 as i32;
        let weights = ran.quantized.graph().initializer.iter().filter(|tensor| tensor.dims.len() > 1);
        assert!(weights.clone().count() == 3 && weights.into_iter().all(halves), "{}", ran.describe());
        for layer in &ran.verified.layers {
            assert_eq!((layer.form, layer.verdict), (Form::Float16, Verdict::SmallerOnly), "{}", layer.name);
        }
    }
}

#[test]
fn what_half_precision_cannot_hold_stays_in_float32() {
    // An epsilon that would become 0, a square that could leave the range, a weight beyond it, an operator of integers.
    let net = Net::new(17)
        .input("x", &[4, 16])
        .weight("w", &[16, 16])
        .op("MatMul", &["x", "w"], "a", vec![])
        .op("Pow", &["a", "two"], "q", vec![])
        .floats("two", &[], &[2.0])
        .floats("eps", &[], &[1e-9])
        .op("Add", &["q", "eps"], "e", vec![])
        .op("Sqrt", &["e"], "v", vec![])
        .op("Div", &["a", "v"], "n", vec![])
        .op("ArgMax", &["n"], "i", vec![])
        .op("Cast", &["i"], "g", vec![nibble_core::onnx::build::attr_int("to", 1)])
        .weight("big", &[16, 8])
        .op("MatMul", &["n", "big"], "y", vec![]);
    let mut net = net.output("y").output("g");
    let big = net.graph.initializer.iter_mut().find(|tensor| tensor.name() == "big").expect("weight");
    let mut bytes = big.raw_data.clone().expect("raw").to_vec();
    bytes[..4].copy_from_slice(&1e6f32.to_le_bytes());
    big.raw_data = Some(bytes.into());
    let ran = net.under("float16").run();
    ran.problem("y", "beyond float16");
    let sqnr = ran.quality().outputs[0].sqnr_db.db().expect("finite");
    assert!(sqnr > 30.0, "{sqnr}\n{}", ran.describe());
    let float = |op: &str| node(&ran, op).input.iter().all(|name| !name.ends_with("_half"));
    assert!(float("Pow") && float("Add"), "{}", ran.describe());
}

#[test]
fn half_precision_and_integers_share_a_graph() {
    let ran = network(17).under("float16").set("d", "precision=int8,mode=static").run();
    ran.form("c", Form::Float16).form("d", Form::Qdq).above(25.0).runs("QLinearConv", 1);
    let ran = network(17).under("int8").set("d", "precision=float16,activation=float16").run();
    ran.form("d", Form::Float16).above(25.0);
}

#[test]
fn activations_of_16_bits_lose_nothing_that_8_bit_weights_do_not() {
    for opset in [11, 17, 21] {
        let exact = network(opset).under("int8-weights").run();
        let ran = network(opset).under("tflite-16x8").run();
        ran.quiet();
        for layer in &ran.verified.layers {
            assert_eq!(
                (layer.form, layer.verdict),
                (Form::Int16Activations, Verdict::SimulationOnly),
                "{}",
                layer.name
            );
        }
        let db = |ran: &Ran| ran.quality().outputs[0].sqnr_db.db().expect("finite");
        // As exact as float activations (the Gemm of `exact` rounds its own to 8 bits): no kernel rounds them to 8 bits on the way, and no option is needed for that.
        assert!(db(&ran) > db(&exact) - 0.5, "{} {}\n{:?}", db(&ran), db(&exact), ran.runs_as());
        for op in ["MatMulNBits", "QLinearConv", "QGemm"] {
            ran.runs(op, 0);
        }
        assert!(ran.verified.deployment.session_options.is_empty());
    }
}

#[test]
fn a_layer_of_16_bits_between_integer_layers_is_not_quantized_further() {
    let ran = network(17).under("int8").set("d", "activation=int16").run();
    ran.form("d", Form::Int16Activations).runs("QLinearConv", 1);
    crate::neighbours::float_by_simulation(&ran);
    network(17).under("int8-dynamic").set("*", "activation=int16").run().problem("y", "8 bits only");
}

#[test]
fn weights_of_2_bits_in_every_form() {
    for opset in [11, 21] {
        let ran = network(opset).under("int4-static").set("*", "precision=int2").run();
        ran.form("c", Form::Int2CastQdq).form("y", Form::Int2CastQdq).runs("QLinearConv", 2);
        let ran = network(opset).under("int8-weights").set("*", "precision=int2").run();
        ran.form("c", Form::FoldedWeights).form("y", Form::MatmulNbits).runs("MatMulNBits", 1);
        same_as_integers(&ran, "c");
        let net = Net::new(opset).input("x", &[3, 64]).weight("w", &[64, 24]).op("MatMul", &["x", "w"], "y", vec![]);
        let ran = net.output("y").under("int4-weights").set("*", "precision=int2,granularity=block:16").run();
        ran.form("y", Form::MatmulNbits).problem("y", "block:32").above(3.0);
        let net = Net::new(opset).input("x", &[3, 64]).weight("w", &[64, 24]).op("MatMul", &["x", "w"], "y", vec![]);
        net.output("y").under("int8-dynamic").set("*", "precision=int2").run().runs("DynamicQuantizeMatMul", 1);
    }
    let net = Net::new(17)
        .input("x", &[2, 3, 9, 9])
        .conv("x", "c", [3, 5], 1)
        .op("LeakyRelu", &["c"], "y", vec![attr_float("alpha", 0.1)])
        .output("y");
    // 135 weights: the last byte is not full.
    net.under("int8-weights").set("*", "precision=int2,granularity=block:16").run().above(2.0);
}

/// The stored weights, unpacked by the runtime, are the integers times their scales.
fn same_as_integers(ran: &Ran, layer: &str) {
    let layer = ran.model.layer(layer).expect("layer");
    let weight = layer.weight().expect("weight");
    let choice = ran.verified.layers.iter().find(|outcome| outcome.name == layer.name).expect("outcome").choice;
    let values = ran.model.weight(layer, weight).expect("values");
    let expected = nibble_core::quant::quantize_weight(&values, weight.layout, &choice).dequantize();
    let conv = node(ran, "Conv");
    let mut proto = ran.quantized.proto.clone();
    let graph = proto.graph.as_mut().expect("graph");
    graph.output = vec![nibble_core::onnx::build::value_info(&conv.input[1])];
    use nibble_core::runtime::{Session, SessionOptions, Source};
    let source = Source::Proto { proto: &proto, folder: None };
    let mut session = Session::open(crate::harness::runtime(), source, &SessionOptions::default()).expect("opens");
    let sample = ran.data.sample(0).expect("sample");
    let output = session.run(&sample, &nibble_core::Control::new()).expect("runs").remove(0);
    match output.value.expect("tensor").values {
        nibble_core::tensor::Values::F32(values) => assert_eq!(values, expected),
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_preset_runs() {
    for preset in nibble_core::plan::PRESETS {
        for net in [network(13), network(21)] {
            net.under(preset.name).run().above(if preset.name.contains("int4") { 5.0 } else { 20.0 });
        }
    }
    let pool = vec![attr_ints("kernel_shape", &[2, 2])];
    let net = network(17).op("MaxPool", &["s"], "z", pool).output("z");
    net.under("float16").run().above(50.0);
}
