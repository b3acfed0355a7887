//! What becomes layers only once it is rewritten: model-local functions, Einsum, normalizations behind a Gemm.

use nibble_core::export::Form;
use nibble_core::model::Model;
use nibble_core::onnx::build::{
    attr_float, attr_graph, attr_int, attr_string, attr_tensor, node, tensor_f32, value_info,
};
use nibble_core::onnx::proto::{AttributeProto, FunctionProto, GraphProto, OperatorSetIdProto};

use crate::harness::{Case, Net};

fn opset(domain: &str, version: i64) -> OperatorSetIdProto {
    OperatorSetIdProto { domain: Some(domain.to_owned()), version: Some(version) }
}

/// `y = LeakyRelu(x · w + b)`, the slope an attribute of the call.
fn linear() -> FunctionProto {
    let slope = AttributeProto { ref_attr_name: Some("slope".to_owned()), ..attr_float("alpha", 0.0) };
    FunctionProto {
        name: Some("Linear".to_owned()),
        domain: Some("own".to_owned()),
        input: ["x", "w", "b"].map(str::to_owned).to_vec(),
        output: vec!["y".to_owned()],
        attribute: vec!["slope".to_owned()],
        node: vec![
            node("MatMul", "", "product", &["x", "w"], &["m"], vec![]),
            node("Add", "", "", &["m", "b"], &["a"], vec![]),
            node("LeakyRelu", "", "", &["a"], &["y"], vec![AttributeProto { f: None, ..slope }]),
        ],
        opset_import: vec![opset("", 17)],
        ..FunctionProto::default()
    }
}

/// Two calls of it within a function of their own, one in each branch of an If, and one in the graph.
fn calls(functions: Vec<FunctionProto>) -> Case {
    let call = |name: &str, input: &str, weight: &str, output: &str| {
        node("Linear", "own", name, &[input, weight, "b"], &[output], vec![attr_float("slope", 0.25)])
    };
    let branch = |name: &str, weight: &str| GraphProto {
        name: Some(name.to_owned()),
        output: vec![value_info(&format!("{name}_y"))],
        node: vec![call("inner", "a", weight, &format!("{name}_y"))],
        ..GraphProto::default()
    };
    let net = Net::new(17).input("x", &[4, 16]).weight("w0", &[16, 16]).weight("w1", &[16, 16]).weight("w2", &[16, 16]);
    let mut net = net.weight("b", &[16]).floats("zero", &[], &[0.0]);
    net.graph.node.push(call("first", "x", "w0", "a"));
    let mut net = net.op("ReduceSum", &["x"], "sum", vec![attr_int("keepdims", 0)]);
    net = net.op("Greater", &["sum", "zero"], "positive", vec![]).node(
        "If",
        "if",
        &["positive"],
        &["c"],
        vec![attr_graph("then_branch", branch("then", "w1")), attr_graph("else_branch", branch("else", "w2"))],
    );
    net.graph.node.push(node("Twice", "own", "twice", &["c", "w1", "w2", "b"], &["y"], vec![]));
    let mut case = net.output("y").under("int8");
    case.proto.opset_import.push(opset("own", 1));
    case.proto.functions = functions;
    case
}

fn twice() -> FunctionProto {
    let call = |input: &str, weight: &str, output: &str| {
        node("Linear", "own", "", &[input, weight, "b"], &[output], vec![attr_float("slope", 0.5)])
    };
    FunctionProto {
        name: Some("Twice".to_owned()),
        domain: Some("own".to_owned()),
        input: ["x", "v", "w", "b"].map(str::to_owned).to_vec(),
        output: vec!["y".to_owned()],
        node: vec![call("x", "v", "m"), call("m", "w", "y")],
        opset_import: vec![opset("", 17), opset("own", 1)],
        ..FunctionProto::default()
    }
}

#[test]
fn functions_are_put_where_they_are_called() {
    let ran = calls(vec![linear(), twice()]).run();
    ran.above(22.0).form("first/product", Form::Qdq).form("if/then_branch/inner/product", Form::DynamicMatmul);
    let layers = ran.verified.layers.iter().filter(|layer| layer.form != Form::Float).count();
    assert_eq!(layers, 5, "{}", ran.describe());
}

#[test]
fn functions_that_call_themselves_or_speak_of_other_versions_stay() {
    let mut other = linear();
    other.opset_import = vec![opset("", 13)];
    let mut circle = twice();
    for inner in &mut circle.node {
        inner.op_type = Some("Twice".to_owned());
        inner.input.push("b".to_owned());
    }
    for functions in [vec![other, twice()], vec![linear(), circle]] {
        let folder = tempfile::tempdir().expect("temp folder");
        let path = folder.path().join("model.onnx");
        nibble_core::onnx::save(&calls(functions).proto, None, &path).expect("saved");
        let model = Model::load(&path, &nibble_core::Control::new()).expect("loaded");
        assert!(!model.graph.functions.is_empty());
    }
}

#[test]
fn einsums_with_a_weight_are_products() {
    // The equation, the activation's shape, the weight's, and whether the weight comes first.
    let cases: [(&str, &[i64], &[i64], bool); 7] = [
        ("bi,ij->bj", &[4, 16], &[16, 12], false),
        ("b i, j i -> b j", &[4, 16], &[12, 16], false),
        ("...i,ij->...j", &[2, 3, 16], &[16, 12], false),
        ("ji,bsi->bsj", &[2, 3, 16], &[12, 16], true),
        ("bsd,dhk->bshk", &[2, 3, 16], &[16, 4, 5], false),
        ("bshk,hkd->bsd", &[2, 3, 4, 5], &[4, 5, 16], false),
        ("bshk,dkh->bsd", &[2, 3, 4, 5], &[16, 5, 4], false),
    ];
    for (equation, input, weight, weight_first) in cases {
        for preset in ["int8", "int8-weights"] {
            let mut net = Net::new(17).input("x", input);
            let values: Vec<f32> = net.values(&[1, weight.iter().product()]).iter().map(|v| v * 3.0).collect();
            let inputs = if weight_first { ["w", "x"] } else { ["x", "w"] };
            let net = net.floats("w", weight, &values);
            let ran =
                net.op("Einsum", &inputs, "y", vec![attr_string("equation", equation)]).output("y").under(preset).run();
            println!("{equation} {preset}: {}", ran.quality().sqnr_db);
            ran.above(25.0).runs("Einsum", 0);
        }
    }
    // A sum over no common axis, a batch in the weight: no product of a matrix.
    for (equation, weight) in [("bi,bij->bj", &[4_i64, 16, 12][..]), ("bi,jk->bijk", &[3, 5])] {
        let net = Net::new(17).input("x", &[4, 16]).weight("w", weight);
        let net = net.op("Einsum", &["x", "w"], "e", vec![attr_string("equation", equation)]).weight("v", &[4, 8]);
        let net = net.op("ReduceSum", &["x"], "s", vec![]).op("Add", &["e", "s"], "y", vec![]).output("y");
        let folder = tempfile::tempdir().expect("temp folder");
        let path = folder.path().join("model.onnx");
        nibble_core::onnx::save(&net.proto(), None, &path).expect("saved");
        let model = Model::load(&path, &nibble_core::Control::new()).expect("loaded");
        let nodes = &model.graph.graph.as_ref().expect("graph").node;
        assert!(nodes.iter().any(|node| node.op_type() == "Einsum"), "{equation}");
    }
}

#[test]
fn a_normalization_and_a_factor_behind_a_gemm() {
    for transposed in [false, true] {
        for bias in [None, Some(&[24_i64][..]), Some(&[1, 24]), Some(&[1])] {
            let mut net = Net::new(17).input("x", &[4, 48]);
            net = net.weight("w", if transposed { &[24, 48] } else { &[48, 24] });
            let mut inputs = vec!["x", "w"];
            if let Some(dims) = bias {
                net = net.weight("b", dims);
                inputs.push("b");
            }
            let variance: Vec<f32> = (1..=24).map(|i| i as f32 / 8.0).collect();
            let net = net
                .op("Gemm", &inputs, "g", vec![attr_int("transB", i64::from(transposed))])
                .weight("gamma", &[24])
                .weight("beta", &[24])
                .weight("mean", &[24])
                .floats("variance", &[24], &variance)
                .op("BatchNormalization", &["g", "gamma", "beta", "mean", "variance"], "n", vec![])
                .weight("factor", &[1, 24])
                .op("Mul", &["n", "factor"], "m", vec![])
                .weight("v", &[24, 8])
                .op("MatMul", &["m", "v"], "y", vec![])
                .output("y");
            net.under("int8").run().above(22.0).runs("BatchNormalization", 0).runs("Mul", 0);
        }
    }
}

#[test]
fn a_bias_a_row_behind_a_gemm_is_not_folded() {
    let net = Net::new(17).input("x", &[8, 16]).weight("w", &[16, 8]).weight("b", &[8, 1]);
    let net = net.op("Gemm", &["x", "w", "b"], "g", vec![]).weight("factor", &[8]);
    net.op("Mul", &["g", "factor"], "y", vec![]).output("y").under("int8").run().above(20.0).runs("Mul", 1);
}

#[test]
fn weights_within_a_function_are_found() {
    let mut net = Net::new(17).input("x", &[4, 16]);
    let values = net.values(&[16, 16]);
    let constant = attr_tensor("value", tensor_f32("", &[16, 16], &values));
    let function = FunctionProto {
        name: Some("Fixed".to_owned()),
        domain: Some("own".to_owned()),
        input: vec!["x".to_owned()],
        output: vec!["y".to_owned()],
        node: vec![
            node("Constant", "", "", &[] as &[&str], &["w"], vec![constant]),
            node("MatMul", "", "product", &["x", "w"], &["y"], vec![]),
        ],
        opset_import: vec![opset("", 17)],
        ..FunctionProto::default()
    };
    net.graph.node.push(node("Fixed", "own", "call", &["x"], &["y"], vec![]));
    let mut case = net.output("y").under("int8-weights");
    case.proto.opset_import.push(opset("own", 1));
    case.proto.functions = vec![function];
    case.run().above(25.0).form("call/product", Form::MatmulNbits);
}
