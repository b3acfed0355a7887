//! Layers in the bodies of If, Loop and Scan.

use nibble_core::export::Form;
use nibble_core::onnx::build::{attr_graph, attr_int, node, value_info, value_info_typed};
use nibble_core::onnx::proto::tensor_proto::DataType;
use nibble_core::onnx::proto::{GraphProto, NodeProto, TensorProto, ValueInfoProto};

use crate::harness::Net;

fn body(
    name: &str,
    input: Vec<ValueInfoProto>,
    output: &[&str],
    initializer: Vec<TensorProto>,
    nodes: Vec<NodeProto>,
) -> GraphProto {
    GraphProto {
        name: Some(name.to_owned()),
        input,
        output: output.iter().map(|name| value_info(name)).collect(),
        initializer,
        node: nodes,
        ..GraphProto::default()
    }
}

fn matmul(net: &mut Net, prefix: &str, input: &str, output: &str) -> (TensorProto, NodeProto) {
    let values = net.values(&[16, 16]);
    let name = format!("{prefix}_w");
    let weight = nibble_core::onnx::build::tensor_f32(&name, &[16, 16], &values);
    (weight, node("MatMul", "", "inner", &[input, &name], &[output], vec![]))
}

const PRESETS: [(&str, Form, f64); 5] = [
    ("int8", Form::DynamicMatmul, 22.0),
    ("int8-dynamic", Form::DynamicMatmul, 22.0),
    ("int8-weights", Form::MatmulNbits, 22.0),
    ("int4-weights", Form::MatmulNbits, 12.0),
    ("float16-weights", Form::Float16Weights, 55.0),
];

#[test]
fn both_branches_of_an_if() {
    for (preset, form, least) in PRESETS {
        let mut net =
            Net::new(17).input("x", &[4, 16]).weight("outer", &[16, 16]).op("MatMul", &["x", "outer"], "a", vec![]);
        let (w, then) = matmul(&mut net, "then", "a", "then_y");
        let then = body("then", vec![], &["then_y"], vec![w], vec![then]);
        // The other branch reads the weight of the graph around it.
        let other = node("MatMul", "", "inner", &["a", "outer"], &["else_y"], vec![]);
        let other = body("else", vec![], &["else_y"], vec![], vec![other]);
        let net = net
            .op("ReduceSum", &["x"], "sum", vec![attr_int("keepdims", 0)])
            .floats("zero", &[], &[0.0])
            .op("Greater", &["sum", "zero"], "positive", vec![])
            .node(
                "If",
                "If_3",
                &["positive"],
                &["y"],
                vec![attr_graph("then_branch", then), attr_graph("else_branch", other)],
            )
            .output("y");
        let ran = net.under(preset).run();
        ran.above(least).form("If_3/then_branch/inner", form).form("If_3/else_branch/inner", form);
        if preset == "int8" {
            ran.problem("If_3/then_branch/inner", "body of If").form("a", Form::Qdq);
        }
    }
}

#[test]
fn the_body_of_a_loop() {
    for (preset, form, least) in PRESETS {
        let mut net = Net::new(17).input("x", &[4, 16]);
        let (w, inner) = matmul(&mut net, "loop", "state", "product");
        let nodes = vec![
            inner,
            node("Tanh", "", "tanh", &["product"], &["next"], vec![]),
            node("Identity", "", "go", &["condition"], &["condition_out"], vec![]),
        ];
        let inputs = vec![
            value_info_typed("iteration", DataType::Int64, &[]),
            value_info_typed("condition", DataType::Bool, &[]),
            value_info_typed("state", DataType::Float, &[4, 16]),
        ];
        let body = body("loop", inputs, &["condition_out", "next"], vec![w], nodes);
        let net = net.constant(nibble_core::onnx::build::tensor_i64("trips", &[], &[3])).node(
            "Loop",
            "loop",
            &["trips", "", "x"],
            &["y"],
            vec![attr_graph("body", body)],
        );
        net.output("y").under(preset).run().above(least - 3.0).form("loop/body/inner", form);
    }
}

#[test]
fn the_body_of_a_scan() {
    for (preset, form, least) in PRESETS {
        let mut net = Net::new(17).input("x", &[5, 1, 16]).input("h", &[1, 16]);
        let (w, inner) = matmul(&mut net, "scan", "step", "product");
        let nodes = vec![
            inner,
            node("Add", "", "add", &["product", "h_in"], &["sum"], vec![]),
            node("Tanh", "", "tanh", &["sum"], &["h_out"], vec![]),
            node("Identity", "", "copy", &["h_out"], &["out"], vec![]),
        ];
        let inputs = vec![
            value_info_typed("h_in", DataType::Float, &[1, 16]),
            value_info_typed("step", DataType::Float, &[1, 16]),
        ];
        let body = body("scan", inputs, &["h_out", "out"], vec![w], nodes);
        let net = net.node(
            "Scan",
            "scan",
            &["h", "x"],
            &["last", "all"],
            vec![attr_graph("body", body), attr_int("num_scan_inputs", 1)],
        );
        net.output("last").output("all").under(preset).run().above(least).form("scan/body/inner", form);
    }
}
