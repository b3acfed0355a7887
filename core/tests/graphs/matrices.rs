//! MatMul and Gemm in all the ways that they are written.

use nibble_core::export::Form;
use nibble_core::onnx::build::{attr_float, attr_int};
use nibble_core::onnx::proto::AttributeProto;

use crate::harness::Net;

const ALL: &[(&str, f64)] = &[
    ("int8", 24.0),
    ("int8-dynamic", 24.0),
    ("int8-weights", 24.0),
    ("int4-weights", 14.0),
    ("int4-static", 12.0),
    ("float16-weights", 55.0),
];

fn gemm(transposed: bool, bias: Option<&[i64]>, mut attributes: Vec<AttributeProto>) -> Net {
    attributes.push(attr_int("transB", i64::from(transposed)));
    let mut net = Net::new(17).input("x", &[4, 48]);
    // Weights as large along either axis.
    let values: Vec<f32> = net.values(&[1, 48 * 24]).iter().map(|v| v * 5.0).collect();
    net = net.floats("w", if transposed { &[24, 48] } else { &[48, 24] }, &values);
    let mut inputs = vec!["x", "w"];
    if let Some(dims) = bias {
        let values: Vec<f32> = net.values(&[dims.iter().product::<i64>()]);
        net = net.floats("b", dims, &values);
        inputs.push("b");
    }
    net.op("Gemm", &inputs, "y", attributes).output("y")
}

#[test]
fn gemm_with_every_bias_and_factor() {
    for &(preset, least) in ALL {
        for transposed in [false, true] {
            for bias in [None, Some(&[24][..]), Some(&[1, 24]), Some(&[1]), Some(&[]), Some(&[4, 24]), Some(&[4, 1])] {
                for factors in [vec![], vec![attr_float("alpha", 0.5), attr_float("beta", 2.0)]] {
                    let label = format!("{preset} {transposed} {bias:?} {}", factors.len());
                    let ran = gemm(transposed, bias, factors).under(preset).run();
                    println!("{label}: {}", ran.quality().sqnr_db);
                    ran.above(least);
                }
            }
        }
    }
}

#[test]
fn a_bias_a_row_is_no_bias_a_column() {
    // As many rows as columns: the number of values does not tell them apart.
    let mut net = Net::new(17).input("x", &[8, 16]).weight("w", &[16, 8]);
    let values: Vec<f32> = (0..8).map(|row| row as f32 * 3.0).collect();
    net = net.floats("b", &[8, 1], &values).op("Gemm", &["x", "w", "b"], "y", vec![]).output("y");
    let proto = net.proto();
    for &(preset, least) in ALL {
        let net = Net::new(17);
        let mut case = net.under(preset);
        case.proto = proto.clone();
        case.run().above(least);
    }
}

#[test]
fn gemm_in_integers_really_is_one() {
    for transposed in [false, true] {
        let ran = gemm(transposed, Some(&[24]), vec![attr_float("alpha", 0.5)]).under("int8").run();
        ran.form("y", Form::Qdq).quiet().runs("QGemm", 1);
        gemm(transposed, None, vec![]).under("int8").run().runs("QGemm", 1);
        gemm(transposed, Some(&[24]), vec![]).under("int4-static").run().runs("QGemm", 1);
        gemm(transposed, Some(&[24]), vec![]).under("int8-dynamic").run().runs("DynamicQuantizeMatMul", 1);
        gemm(transposed, Some(&[24]), vec![]).under("int4-weights").run().runs("MatMulNBits", 1);
    }
}

#[test]
fn a_transposed_input_is_stored_only() {
    let net = Net::new(17).input("x", &[48, 4]).weight("w", &[48, 24]);
    let net = net.op("Gemm", &["x", "w"], "y", vec![attr_int("transA", 1)]).output("y");
    net.under("int8").run().above(30.0).form("y", Form::FoldedWeights).problem("y", "transposed input");
}

#[test]
fn matmul_of_two_dimensions_with_an_add_is_merged() {
    for swapped in [false, true] {
        let net = Net::new(17)
            .input("x", &[4, 48])
            .weight("w", &[48, 24])
            .op("MatMul", &["x", "w"], "m", vec![])
            .weight("b", &[24])
            .op("Add", if swapped { &["b", "m"] } else { &["m", "b"] }, "s", vec![])
            .op("Relu", &["s"], "r", vec![])
            .weight("v", &[24, 8])
            .op("MatMul", &["r", "v"], "n", vec![])
            .weight("c", &[8])
            .op("Add", &["n", "c"], "y", vec![])
            .output("y");
        let ran = net.under("int8").run();
        ran.above(24.0).quiet().runs("QGemm", 2).runs("Gemm", 0).runs("MatMul", 0);
    }
}

#[test]
fn matmul_of_other_ranks() {
    for (input, weight) in [
        (&[2, 5, 48][..], &[48, 24][..]),
        (&[2, 3, 5, 48], &[48, 24]),
        (&[48], &[48, 24]),
        (&[3, 4, 48], &[3, 48, 24]),
        (&[2, 3, 4, 48], &[3, 48, 24]),
    ] {
        for &(preset, least) in ALL {
            let net = Net::new(17)
                .input("x", input)
                .weight("w", weight)
                .op("MatMul", &["x", "w"], "m", vec![])
                .weight("b", &[24])
                .op("Add", &["m", "b"], "y", vec![])
                .output("y");
            println!("{input:?} {weight:?} {preset}");
            net.under(preset).run().above(least);
        }
    }
    let net = Net::new(17).input("x", &[3, 4, 48]).weight("w", &[3, 48, 24]).op("MatMul", &["x", "w"], "y", vec![]);
    let ran = net.output("y").under("int8").set("*", "granularity=per_tensor").run();
    ran.above(24.0).form("y", Form::Qdq);
}

#[test]
fn every_granularity_and_symmetry_runs() {
    for precision in ["int8", "int4"] {
        for mode in ["static", "dynamic", "weight_only"] {
            for granularity in ["per_tensor", "per_channel", "block:16", "block:64"] {
                for symmetry in ["symmetric", "asymmetric"] {
                    let net = Net::new(17)
                        .input("x", &[4, 40])
                        .weight("w", &[40, 24])
                        .op("MatMul", &["x", "w"], "a", vec![])
                        .weight("v", &[24, 7])
                        .op("MatMul", &["a", "v"], "y", vec![])
                        .output("y");
                    let set =
                        format!("precision={precision},mode={mode},granularity={granularity},symmetry={symmetry}");
                    println!("{set}");
                    net.under("int8").set("*", &set).run().above(if precision == "int8" { 22.0 } else { 9.0 });
                }
            }
        }
    }
}
