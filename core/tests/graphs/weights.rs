//! Where a file may keep a weight, and which weights cannot be quantized.

use nibble_core::export::Form;
use nibble_core::onnx::build::{attr_int, attr_ints, attr_tensor, node, tensor_f16, tensor_f32, tensor_i64};
use nibble_core::onnx::proto::attribute_proto::AttributeType;
use nibble_core::onnx::proto::tensor_proto::DataType;
use nibble_core::onnx::proto::{AttributeProto, TensorProto};

use crate::harness::Net;

/// x → MatMul(`w` [16, 8]) → y, where `make` brings `w` about.
fn net(make: impl FnOnce(Net) -> Net) -> Net {
    make(Net::new(17).input("x", &[4, 16])).op("MatMul", &["x", "w"], "y", vec![]).output("y")
}

#[test]
fn behind_operators_that_move_it() {
    type Make = fn(Net) -> Net;
    let made: [(&str, Make); 9] = [
        ("identity", |n| n.weight("v", &[16, 8]).op("Identity", &["v"], "w", vec![])),
        ("two identities", |n| {
            n.weight("u", &[16, 8]).op("Identity", &["u"], "v", vec![]).op("Identity", &["v"], "w", vec![])
        }),
        ("reshape", |n| n.weight("v", &[128]).ints("s", &[-1, 8]).op("Reshape", &["v", "s"], "w", vec![])),
        ("reshape that allows zeros and has none", |n| {
            let attributes = vec![attr_int("allowzero", 1)];
            n.weight("v", &[128]).ints("s", &[-1, 8]).op("Reshape", &["v", "s"], "w", attributes)
        }),
        ("transpose", |n| n.weight("v", &[8, 16]).op("Transpose", &["v"], "w", vec![attr_ints("perm", &[1, 0])])),
        ("squeeze", |n| n.weight("v", &[1, 16, 8]).ints("s", &[0]).op("Squeeze", &["v", "s"], "w", vec![])),
        ("unsqueeze", |n| {
            n.weight("v", &[16, 8]).ints("s", &[0]).op("Unsqueeze", &["v", "s"], "u", vec![]).ints("t", &[0]).op(
                "Squeeze",
                &["u", "t"],
                "w",
                vec![],
            )
        }),
        ("slice", |n| {
            n.weight("v", &[16, 12]).ints("s", &[4]).ints("e", &[12]).ints("a", &[1]).op(
                "Slice",
                &["v", "s", "e", "a"],
                "w",
                vec![],
            )
        }),
        ("concat", |n| {
            n.weight("u", &[10, 8]).weight("v", &[6, 8]).op("Concat", &["u", "v"], "w", vec![attr_int("axis", 0)])
        }),
    ];
    for (name, make) in made {
        println!("{name}");
        net(make).under("int8").run().above(28.0).quiet().form("y", Form::Qdq);
    }
}

#[test]
fn in_constant_nodes_and_typed_fields() {
    let constant = |mut n: Net| {
        let values = n.values(&[16, 8]);
        let value = tensor_f32("", &[16, 8], &values);
        n.op("Constant", &[], "w", vec![attr_tensor("value", value)])
    };
    net(constant).under("int8").run().above(28.0).quiet().form("y", Form::Qdq);
    let plain_numbers = |mut n: Net| {
        let floats = n.values(&[16, 8]);
        let attribute = AttributeProto {
            name: Some("value_floats".to_owned()),
            r#type: Some(AttributeType::Floats as i32),
            floats,
            ..AttributeProto::default()
        };
        n.op("Constant", &[], "v", vec![attribute]).ints("s", &[16, 8]).op("Reshape", &["v", "s"], "w", vec![])
    };
    net(plain_numbers).under("int8").run().above(28.0).quiet().form("y", Form::Qdq);
    let typed = |mut n: Net| {
        let float_data = n.values(&[16, 8]);
        n.constant(TensorProto {
            dims: vec![16, 8],
            data_type: Some(DataType::Float as i32),
            float_data,
            name: Some("w".to_owned()),
            ..TensorProto::default()
        })
    };
    net(typed).under("int4-weights").run().above(15.0).quiet().form("y", Form::MatmulNbits);
}

#[test]
fn shared_by_two_layers() {
    for (preset, least) in [("int8", 25.0), ("int8-weights", 25.0), ("int4-static", 10.0), ("float16-weights", 55.0)] {
        let net = Net::new(17)
            .input("x", &[1, 8, 8, 8])
            .weight("w", &[8, 8, 3, 3])
            .op("Conv", &["x", "w"], "a", vec![])
            .op("Conv", &["a", "w"], "y", vec![])
            .output("y");
        let ran = net.under(preset).run();
        ran.above(least);
        assert!(ran.quantized.size_bytes < 12_000 && preset != "int8" || ran.quantized.size_bytes < 6_000, "once only");
    }
    // With different choices it is there twice, each as chosen.
    let net = Net::new(17)
        .input("x", &[1, 8, 8, 8])
        .weight("w", &[8, 8, 3, 3])
        .op("Conv", &["x", "w"], "a", vec![])
        .op("Conv", &["a", "w"], "y", vec![])
        .output("y");
    net.under("int8").set("y", "precision=float32").run().above(28.0).form("a", Form::Qdq).form("y", Form::Float);
}

#[test]
fn an_embedding_tied_to_the_last_matrix() {
    for (preset, least) in [("int8", 20.0), ("int8-dynamic", 20.0), ("int4-weights", 15.0), ("float16-weights", 50.0)] {
        let net = Net::new(17)
            .integers("ids", &[1, 6])
            .weight("table", &[128, 32])
            .op("Gather", &["table", "ids"], "e", vec![])
            .op("Transpose", &["table"], "head", vec![attr_ints("perm", &[1, 0])])
            .op("MatMul", &["e", "head"], "y", vec![])
            .output("y")
            .output("e");
        let ran = net.under(preset).run();
        ran.above(least);
        // Rows that are looked up and columns that are multiplied by are the same integers, stored once.
        if let Some(kernel) = [("int8", "QLinearMatMul"), ("int8-dynamic", "DynamicQuantizeMatMul")]
            .iter()
            .find_map(|&(name, kernel)| (name == preset).then_some(kernel))
        {
            let large =
                ran.quantized.graph().initializer.iter().filter(|tensor| tensor.dims.iter().product::<i64>() >= 4096);
            assert_eq!(large.count(), 1, "{preset}: {}", ran.describe());
            let all = ran.runs_as();
            assert!(all.contains_key(kernel) || all.contains_key("MatMulIntegerToFloat"), "{preset}: {all:?}");
            assert!(!all.contains_key("Transpose"), "{preset}: {all:?}");
        }
    }
}

#[test]
fn tables_of_any_width() {
    for width in [32, 33, 48, 100] {
        for set in ["precision=int8", "precision=int8,granularity=per_tensor,symmetry=asymmetric", "precision=int4"] {
            let net = Net::new(17).integers("ids", &[2, 5]).weight("table", &[128, width]);
            let net = net.op("Gather", &["table", "ids"], "y", vec![]).output("y");
            println!("{width} {set}");
            let ran = net.under("int8-weights").set("*", set).run();
            ran.above(if set.contains("int8") { 30.0 } else { 15.0 }).form("y", Form::QuantizedGather);
            if width == 33 && set.ends_with("int4") {
                ran.problem("y", "even width");
            }
        }
    }
    let net = Net::new(17).integers("id", &[]).weight("table", &[128, 32]);
    net.op("Gather", &["table", "id"], "y", vec![]).output("y").under("int8").run().above(30.0);
}

#[test]
fn a_small_table_is_left_alone_and_says_why() {
    let net = Net::new(17).integers("ids", &[1, 4]).weight("table", &[128, 4]);
    let net =
        net.op("Gather", &["table", "ids"], "e", vec![]).weight("w", &[4, 8]).op("MatMul", &["e", "w"], "y", vec![]);
    net.output("y").under("int8-weights").run().above(30.0).form("e", Form::Float).problem("e", "too small");
}

#[test]
fn weights_that_are_no_numbers_stay_in_float() {
    let mut net = net(|n| n.weight("w", &[16, 8])).weight("v", &[8, 8]).op("MatMul", &["y", "v"], "z", vec![]);
    net = net.floats("bad", &[16, 2], &[f32::NAN; 32]).op("MatMul", &["x", "bad"], "n", vec![]).output("z");
    let ran = net.under("int8").run();
    ran.above(25.0).form("n", Form::Float).form("y", Form::Qdq).problem("n", "NaN");
}

#[test]
fn half_precision_weights_are_stored_smaller() {
    let f16 = |n: &mut Net, name: &str, dims: &[i64]| {
        let values: Vec<half::f16> = n.values(dims).into_iter().map(half::f16::from_f32).collect();
        tensor_f16(name, dims, &values)
    };
    let mut n = Net::new(17);
    n.graph.input.push(nibble_core::onnx::build::value_info_typed("x", DataType::Float16, &[4, 16]));
    let (w, v) = (f16(&mut n, "w", &[16, 8]), f16(&mut n, "v", &[8, 8]));
    let n = n.constant(w).constant(v).op("MatMul", &["x", "w"], "a", vec![]).op("MatMul", &["a", "v"], "y", vec![]);
    let proto = n.output("y").proto();
    for preset in ["int8", "int8-dynamic", "int8-weights", "int4-weights"] {
        let mut case = Net::new(17).under(preset);
        case.proto = proto.clone();
        case.run().above(if preset.starts_with("int8") { 28.0 } else { 15.0 }).form("a", Form::FoldedWeights);
    }
    let mut case = Net::new(17).under("float16-weights");
    case.proto = proto;
    let error = case.try_run().err().expect("nothing to do");
    assert!(error.to_string().contains("half precision already"), "{error}");
}

#[test]
fn an_unused_weight_is_dropped_and_a_listed_one_is_none_of_the_inputs() {
    let mut n = net(|n| n.weight("w", &[16, 8])).weight("unused", &[64, 64]);
    n.ir = 3;
    for (name, dims) in [("w", &[16, 8][..]), ("unused", &[64, 64])] {
        n.graph.input.push(nibble_core::onnx::build::value_info_typed(name, DataType::Float, dims));
    }
    let ran = n.under("int8").run();
    ran.above(28.0).form("y", Form::Qdq);
    assert_eq!(ran.model.inputs.len(), 1);
    assert!(ran.quantized.size_bytes < 4_000, "{}", ran.quantized.size_bytes);
}

#[test]
fn already_quantized_weights_are_left_alone() {
    let n = Net::new(17)
        .input("x", &[4, 16])
        .constant(nibble_core::onnx::build::tensor_i8("q", &[16, 8], &[3; 128]))
        .floats("s", &[], &[0.01])
        .constant(nibble_core::onnx::build::tensor_i8("z", &[], &[0]));
    let n = n.op("DequantizeLinear", &["q", "s", "z"], "w", vec![]).op("MatMul", &["x", "w"], "a", vec![]);
    let error = n.op("Relu", &["a"], "y", vec![]).output("y").under("int8").try_run().err().expect("nothing");
    assert!(error.to_string().contains("nothing was quantized") && error.to_string().contains("already"), "{error}");

    let n = Net::new(17)
        .input("x", &[4, 16])
        .constant(nibble_core::onnx::build::tensor_i8("q", &[16, 8], &[3; 128]))
        .floats("s", &[], &[0.01])
        .op("DequantizeLinear", &["q", "s"], "w", vec![])
        .op("MatMul", &["x", "w"], "a", vec![])
        .weight("v", &[8, 8])
        .op("MatMul", &["a", "v"], "y", vec![])
        .output("y");
    n.under("int8").run().above(25.0).problem("DequantizeLinear", "already quantized").form("y", Form::Qdq);
}

#[test]
fn nothing_to_quantize_says_why() {
    let n = Net::new(17).input("x", &[4, 16]).op("Relu", &["x"], "y", vec![]).output("y");
    let error = n.under("int8-weights").try_run().err().expect("nothing");
    assert!(error.to_string().contains("no layer with constant weights"), "{error}");
    let n = net(|n| n.weight("w", &[16, 8]));
    let error = n.under("int8").set("*", "precision=float32").try_run().err().expect("nothing");
    assert!(error.to_string().contains("as chosen") && !error.hint().is_empty(), "{error}");
}

#[test]
fn layers_without_a_name_of_their_own() {
    let mut n = net(|n| n.weight("w", &[16, 8])).weight("v", &[8, 8]);
    n.graph.node.push(node("MatMul", "", "", &["y", "v"], &["a"], vec![]));
    n.graph.node.push(node("MatMul", "", "", &["a", "v"], &["b"], vec![]));
    n.graph.output.clear();
    let n = n.output("b");
    // ONNX Runtime refuses repeated names; such a file can still be looked at.
    let mut repeated = n.proto();
    for node in &mut repeated.graph.as_mut().expect("graph").node {
        node.name = Some("twice".to_owned());
    }
    let ran = n.under("int8").set("MatMul#1", "precision=float32").run();
    ran.above(20.0).form("y", Form::Qdq).form("MatMul#1", Form::Float).form("MatMul#2", Form::Qdq);

    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("repeated.onnx");
    nibble_core::onnx::save(&repeated, None, &path).expect("saved");
    let model = nibble_core::model::Model::load(&path, &nibble_core::Control::new()).expect("opens");
    let names: Vec<&str> = model.layers.iter().map(|layer| layer.name.as_str()).collect();
    assert_eq!(names, ["MatMul#0", "MatMul#1", "MatMul#2"]);
}

#[test]
fn integer_constants_are_not_weights() {
    let n = Net::new(17)
        .input("x", &[4, 16])
        .constant(tensor_i64("rows", &[2], &[0, 2]))
        .op("Gather", &["x", "rows"], "g", vec![])
        .weight("w", &[16, 8])
        .op("MatMul", &["g", "w"], "y", vec![])
        .output("y");
    let ran = n.under("int8").run();
    ran.above(28.0);
    assert_eq!(ran.verified.layers.len(), 1);
}

#[test]
fn beyond_float16_a_layer_stays_float32_and_says_so() {
    let huge = |mut n: Net| {
        let mut values = n.values(&[16, 8]);
        values[3] = 1e6;
        n.floats("w", &[16, 8], &values)
    };
    let error = net(huge).under("float16-weights").try_run().err().expect("the only layer does not fit");
    assert!(error.to_string().contains("1 of its weights are beyond float16"), "{error}");
    let both = net(huge).weight("v", &[8, 8]).op("MatMul", &["y", "v"], "z", vec![]).output("z");
    both.under("float16-weights").run().form("y", Form::Float).form("z", Form::Float16Weights);
}

#[test]
fn names_with_line_breaks_in_them() {
    let n = Net::new(17).input("x", &[4, 16]).weight("w\n1", &[16, 8]);
    let n = n.op("MatMul", &["x", "w\n1"], "y", vec![]).output("y");
    for (preset, form) in
        [("int8-dynamic", Form::DynamicMatmul), ("int8-weights", Form::MatmulNbits), ("int8", Form::Qdq)]
    {
        let mut case = Net::new(17).under(preset);
        case.proto = n.proto();
        case.run().above(28.0).form("y", form);
    }
}
