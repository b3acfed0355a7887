//! Old and new operator sets.

use nibble_core::export::Form;
use nibble_core::onnx::build::attr_int;

use crate::harness::{Net, Ran};

fn net(opset: i64) -> Net {
    Net::new(opset)
        .input("x", &[1, 4, 8, 8])
        .conv("x", "c", [4, 8], 1)
        .op("Relu", &["c"], "r", vec![])
        .op("GlobalAveragePool", &["r"], "p", vec![])
        .op("Flatten", &["p"], "f", vec![attr_int("axis", 1)])
        .weight("w", &[8, 6])
        .op("MatMul", &["f", "w"], "y", vec![])
        .output("y")
}

fn domains(ran: &Ran) -> Vec<String> {
    let mut domains: Vec<String> = ran
        .quantized
        .graph()
        .node
        .iter()
        .filter(|node| node.op_type().ends_with("uantizeLinear"))
        .map(|node| node.domain().to_owned())
        .collect();
    domains.sort();
    domains.dedup();
    domains
}

#[test]
fn scales_a_channel_load_at_any_operator_set() {
    for opset in [7, 8, 9, 10, 11, 12, 13, 15, 18, 21] {
        let ran = net(opset).under("int8").run();
        ran.above(25.0).quiet().form("c", Form::Qdq).form("y", Form::Qdq).runs("QLinearConv", 1).runs("Conv", 0);
        assert_eq!(domains(&ran), [if opset < 13 { "com.microsoft" } else { "" }], "opset {opset}");
        assert_eq!(ran.verified.deployment.domains.contains_key("com.microsoft"), opset < 13);
        // QLinearConv came with 10; from there on the operator set stays.
        assert_eq!(ran.verified.deployment.opset, opset.max(10));
        assert_eq!(ran.quantized.proto.opset_import[0].version, Some(opset.max(10)));
    }
}

#[test]
fn four_bits_at_every_operator_set() {
    for opset in [7, 9, 10] {
        let ran = net(opset).under("int4-static").run();
        ran.above(20.0).form("c", Form::Qdq).problem("c", "int8 is used");
    }
    for opset in [11, 12, 13, 17, 21] {
        for symmetry in ["symmetric", "asymmetric"] {
            let set = format!("symmetry={symmetry}");
            let ran = net(opset).under("int4-static").set("*", &set).run();
            ran.above(10.0).form("c", Form::Int4CastQdq).runs("QLinearConv", 1).runs("Cast", 0);
            net(opset).under("int4-weights").set("*", &set).run().above(10.0).form("c", Form::FoldedWeights).quiet();
        }
        assert_eq!(net(opset).under("int4-static").run().verified.deployment.ir_version >= 10, opset >= 21);
    }
    let ran = net(21).under("int4-static").run();
    let int4 = ran.quantized.graph().initializer.iter().filter(|tensor| tensor.data_type() == 22).count();
    assert_eq!(int4, 2, "4-bit tensors as the standard has them");
}

#[test]
fn operators_that_changed_before_ten_are_rewritten() {
    use nibble_core::onnx::build::{attr_ints, attr_string};
    use nibble_core::onnx::proto::AttributeProto;
    use nibble_core::onnx::proto::attribute_proto::AttributeType;
    let scales = AttributeProto {
        name: Some("scales".to_owned()),
        r#type: Some(AttributeType::Floats as i32),
        floats: vec![1.0, 1.0, 2.0, 2.0],
        ..AttributeProto::default()
    };
    for mode in ["nearest", "linear"] {
        let net = Net::new(8)
            .input("x", &[1, 4, 8, 8])
            .conv("x", "c", [4, 8], 1)
            .op(
                "Slice",
                &["c"],
                "s",
                vec![attr_ints("starts", &[1, 2]), attr_ints("ends", &[8, -1]), attr_ints("axes", &[2, 3])],
            )
            .op("Upsample", &["s"], "u", vec![attr_string("mode", mode), scales.clone()])
            .conv("u", "d", [8, 8], 1)
            .op("Slice", &["d"], "e", vec![attr_ints("starts", &[0, 1]), attr_ints("ends", &[1, 5])])
            .node("TopK", "top", &["e"], &["v", "i"], vec![attr_int("k", 3)])
            .op("Dropout", &["v"], "y", vec![])
            .output("y");
        net.under("int8").run().above(20.0).runs("QLinearConv", 2);
    }
}

#[test]
fn models_that_cannot_be_raised_are_stored() {
    // The mask of this Dropout would change its type.
    let net = Net::new(8)
        .input("x", &[1, 4, 8, 8])
        .conv("x", "c", [4, 8], 1)
        .node("Dropout", "drop", &["c"], &["d", "mask"], vec![])
        .ints("s", &[8, 64])
        .op("Reshape", &["d", "s"], "f", vec![])
        .weight("w", &[64, 6])
        .op("MatMul", &["f", "w"], "y", vec![])
        .output("y")
        .output("mask");
    let ran = net.under("int8").run();
    ran.form("c", Form::FoldedWeights).problem("c", "operator set 8 has no integer kernels");
    ran.form("y", Form::DynamicMatmul).problem("y", "operator set 8");
    assert_eq!(ran.verified.deployment.opset, 8);
}

#[test]
fn older_operators_than_the_runtime_has_are_left_alone() {
    let net = Net::new(6).input("x", &[1, 4, 8, 8]).conv("x", "c", [4, 8], 1).op("Relu", &["c"], "y", vec![]);
    let net = net.output("y").proto();
    for preset in nibble_core::plan::PRESETS {
        let mut case = Net::new(6).under(preset.name);
        case.proto = net.clone();
        let error = case.try_run().err().expect("nothing");
        assert!(error.to_string().contains("from set 7 on"), "{error}");
    }
}

#[test]
fn presets_at_old_operator_sets() {
    for opset in [7, 9, 11, 12] {
        for preset in ["int8-dynamic", "int8-weights", "int4-weights", "float16-weights"] {
            println!("{opset} {preset}");
            net(opset).under(preset).run().above(10.0);
        }
    }
}

#[test]
fn free_dimensions() {
    let net = Net::new(17)
        .input("x", &[-1, -1, 16])
        .weight("w", &[16, 8])
        .op("MatMul", &["x", "w"], "m", vec![])
        .weight("b", &[8])
        .op("Add", &["m", "b"], "y", vec![])
        .output("y");
    let ran = net.under("int8").shape("x", &[2, 5, 16]).run();
    ran.above(25.0).quiet();
    // Another length than the one calibrated with.
    use nibble_core::runtime::{Session, SessionOptions, Source};
    use nibble_core::{Control, data::Sample, tensor::Tensor};
    let options = SessionOptions::default();
    let mut session =
        Session::open(crate::harness::runtime(), Source::File(&ran.verified.output), &options).expect("opens");
    let x = Tensor::from_f32(vec![1, 3, 16], vec![0.5; 48]);
    let outputs = session.run(&Sample { feeds: vec![("x".to_owned(), x)] }, &Control::new()).expect("runs");
    assert_eq!(outputs[0].value.as_ref().map(|tensor| tensor.shape.clone()), Some(vec![1, 3, 8]));
}
