//! The graph that ONNX Runtime really runs: an export is only as fast as what its nodes are fused to.

use std::collections::BTreeMap;

use crate::fixture::{Sample, runs_as};

fn fused(model: &str, preset: &str) -> BTreeMap<String, usize> {
    let folder = tempfile::tempdir().expect("folder");
    let sample = Sample::open(model);
    let path = folder.path().join("q.onnx");
    sample.write(&sample.plan(preset, &[]), &path, 4);
    runs_as(&path)
}

#[track_caller]
fn holds(found: &BTreeMap<String, usize>, expected: &[(&str, usize)]) {
    for &(op, count) in expected {
        assert_eq!(found.get(op).copied().unwrap_or(0), count, "{op}: {found:?}");
    }
}

/// No float kernel of a layer is left.
const NONE_LEFT: &[(&str, usize)] =
    &[("Conv", 0), ("FusedConv", 0), ("Gemm", 0), ("MatMul", 0), ("LSTM", 0), ("Cast", 0)];

#[test]
fn static_convolutions_run_on_integers() {
    for preset in ["int8", "int4-static"] {
        let found = fused("digits_cnn", preset);
        println!("{preset}: {found:?}");
        holds(&found, &[("QLinearConv", 5), ("QGemm", 1)]);
        holds(&found, NONE_LEFT);
    }
}

#[test]
fn dynamic_mode_runs_recurrent_layers_and_matrices_on_integers() {
    let found = fused("digits_lstm", "int8-dynamic");
    println!("{found:?}");
    holds(&found, &[("DynamicQuantizeLSTM", 1), ("DynamicQuantizeMatMul", 2)]);
    holds(&found, NONE_LEFT);
}

#[test]
fn static_matrices_run_on_integers() {
    let found = fused("digits_transformer", "int8");
    println!("{found:?}");
    assert!(found.contains_key("QLinearMatMul") || found.contains_key("MatMulIntegerToFloat"));
}

#[test]
fn stored_weights_are_floating_point_again_once_loaded() {
    for preset in ["int8-weights", "int4-weights", "float16-weights"] {
        let found = fused("digits_cnn", preset);
        println!("{preset}: {found:?}");
        holds(&found, &[("Cast", 0), ("Sub", 0), ("Mul", 0), ("DequantizeLinear", 0), ("Transpose", 0)]);
    }
}
