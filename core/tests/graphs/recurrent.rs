//! LSTM and GRU.

use nibble_core::export::Form;
use nibble_core::onnx::build::{attr_int, attr_string};

use crate::harness::Net;

/// A layer of 12 hidden units over 5 steps of 10 values, with all optional inputs that `states` asks for.
fn net(op: &str, directions: i64, states: bool) -> Net {
    let gates = if op == "LSTM" { 4 } else { 3 };
    let direction = if directions == 2 { "bidirectional" } else { "forward" };
    let mut net = Net::new(17)
        .input("x", &[5, 1, 10])
        .weight("w", &[directions, gates * 12, 10])
        .weight("r", &[directions, gates * 12, 12])
        .weight("b", &[directions, 2 * gates * 12]);
    let mut inputs = vec!["x", "w", "r", "b", ""];
    if states {
        net = net.input("h", &[directions, 1, 12]);
        inputs.push("h");
        if op == "LSTM" {
            net = net.input("c", &[directions, 1, 12]);
            inputs.push("c");
        }
    }
    let attributes = vec![attr_int("hidden_size", 12), attr_string("direction", direction)];
    let outputs: &[&str] = if op == "LSTM" { &["y", "y_h", "y_c"] } else { &["y", "y_h"] };
    net = net.node(op, "cell", &inputs, outputs, attributes);
    for output in outputs {
        net = net.output(output);
    }
    net
}

#[test]
fn lstm_in_both_directions_with_and_without_states() {
    for directions in [1, 2] {
        for states in [false, true] {
            for (set, form, least) in [
                ("mode=dynamic", Form::DynamicLstm, 22.0),
                ("mode=dynamic,granularity=per_tensor", Form::DynamicLstm, 22.0),
                ("mode=dynamic,symmetry=asymmetric", Form::DynamicLstm, 22.0),
                ("mode=weight_only", Form::FoldedWeights, 28.0),
                ("mode=weight_only,precision=int4,granularity=block:16", Form::FoldedWeights, 12.0),
                ("precision=float16", Form::Float16Weights, 55.0),
            ] {
                println!("{directions} {states} {set}");
                net("LSTM", directions, states)
                    .under("int8-weights")
                    .set("*", set)
                    .run()
                    .above(least)
                    .form("cell", form);
            }
        }
    }
    let ran = net("LSTM", 1, false).under("int8-dynamic").set("*", "symmetry=asymmetric").run();
    ran.problem("cell", "symmetric instead of asymmetric");
    net("LSTM", 2, true).under("int8").run().runs("DynamicQuantizeLSTM", 1).runs("LSTM", 0);
}

#[test]
fn gru_is_stored_and_says_so() {
    for directions in [1, 2] {
        for states in [false, true] {
            let ran = net("GRU", directions, states).under("int8-dynamic").run();
            ran.above(28.0).form("cell", Form::FoldedWeights).problem("cell", "GRU").runs("GRU", 1).runs("Mul", 0);
            net("GRU", directions, states).under("int4-weights").run().above(12.0);
        }
    }
}

#[test]
fn a_recurrence_that_is_computed_is_left_alone() {
    let net = Net::new(17)
        .input("x", &[5, 1, 10])
        .input("r", &[1, 48, 12])
        .weight("w", &[1, 48, 10])
        .node("LSTM", "cell", &["x", "w", "r"], &["y"], vec![attr_int("hidden_size", 12)])
        .ints("s", &[5, 12])
        .op("Reshape", &["y", "s"], "f", vec![])
        .weight("v", &[12, 4])
        .op("MatMul", &["f", "v"], "z", vec![])
        .output("z");
    net.under("int8-dynamic").run().above(25.0).form("cell", Form::Float).problem("cell", "not constant");
}
