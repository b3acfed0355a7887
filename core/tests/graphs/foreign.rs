//! Models that somebody else quantized: recognised, and left as they are. The files are made by `foreign/make.py`.

use std::path::Path;

use nibble_core::Control;
use nibble_core::data::{DataOptions, DataSet};
use nibble_core::error::{Comparison, MatchedBy, compare_layers};
use nibble_core::export::Form;
use nibble_core::model::Model;
use nibble_core::onnx::proto::{NodeProto, TensorProto};

use crate::harness::{Case, Net, Ran, runtime};

fn path(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign").join(format!("{name}.onnx"))
}

/// What every layer of a file is quantized to, in its own words.
fn found(name: &str) -> Vec<String> {
    let model = Model::load(&path(name), &Control::new()).expect("opens");
    let word = |layer: &nibble_core::model::Layer| match &layer.existing {
        Some(existing) => {
            assert_eq!(layer.reason, format!("already quantized: {existing}"));
            assert!(!layer.quantizable() && layer.weight().is_some() && layer.parameters > 0);
            format!("{} {}: {existing}", layer.name, layer.op)
        }
        None => format!("{} {}", layer.name, layer.op),
    };
    model.layers.iter().map(word).collect()
}

fn run(name: &str, preset: &str) -> Ran {
    let folder = tempfile::tempdir().expect("folder");
    std::fs::copy(path(name), folder.path().join("model.onnx")).expect("copy");
    let case: Case = Net::new(17).under(preset);
    case.run_in(folder).unwrap_or_else(|error| panic!("{name} {preset}: {error}\n at {}", error.place()))
}

/// Asserts that every node of the file but those of `changed`, and every integer in it, is in the export as it was.
#[track_caller]
fn unchanged(ran: &Ran, changed: &[&str]) {
    let (before, after) = (ran.model.file.graph(), ran.quantized.graph());
    for node in &before.node {
        if changed.contains(&node.name()) || node.op_type() == "Constant" {
            continue;
        }
        let same = |other: &&NodeProto| {
            other.name() == node.name() && other.op_type() == node.op_type() && other.attribute == node.attribute
        };
        let found = after.node.iter().find(same);
        assert_eq!(found.map(|found| &found.input[..]), Some(&node.input[..]), "{}", node.name());
    }
    for tensor in before.initializer.iter().filter(|tensor| tensor.data_type() != 1) {
        let kept = |other: &&TensorProto| other.name() == tensor.name();
        let read = before.node.iter().any(|node| node.input.iter().any(|name| name == tensor.name()));
        assert!(!read || after.initializer.iter().find(kept) == Some(tensor), "{}", tensor.name());
    }
}

#[test]
fn onnx_runtimes_own_formats_are_recognised() {
    let channel = "int8 symmetric per_channel weights, uint8 activations";
    assert_eq!(
        found("cnn_qdq"),
        [
            &format!("conv1 Conv: {channel}"),
            &format!("depthwise Conv: {channel}"),
            "conv3 Conv",
            &format!("head Gemm: {channel}")
        ]
    );
    let tensor = "int8 symmetric per_tensor weights, int8 activations";
    assert_eq!(
        found("cnn_qdq_s8"),
        [
            &format!("conv1 Conv: {tensor}"),
            &format!("depthwise Conv: {tensor}"),
            "conv3 Conv",
            &format!("head Gemm: {tensor}")
        ]
    );
    assert_eq!(
        found("cnn_qoperator"),
        [
            &format!("conv1_quant QLinearConv: {channel}"),
            &format!("depthwise_quant QLinearConv: {channel}"),
            "conv3 Conv",
            &format!("head_Gemm QGemm: {channel}").replace("head_Gemm", "head_quant")
        ]
    );
    assert_eq!(
        found("mlp_nbits4"),
        [
            "embed Gather",
            "up_Q4 MatMulNBits: int4 symmetric block:32 weights, float32 activations",
            "down_Q4 MatMulNBits: int4 symmetric block:32 weights, float32 activations",
            "head MatMul"
        ]
    );
    let all = |name: &str| found(name).join("\n");
    assert!(all("mlp_nbits8").contains("MatMulNBits: uint8 asymmetric block:32 weights"), "{}", all("mlp_nbits8"));
    assert!(
        all("mlp_dynamic").contains("MatMulInteger: int8 symmetric per_tensor weights, dynamic uint8"),
        "{}",
        all("mlp_dynamic")
    );
    assert!(all("cnn_dynamic").contains("ConvInteger: int8 symmetric per_tensor"), "{}", all("cnn_dynamic"));
    assert!(
        all("mlp_qdq").contains("embed Gather: uint8 asymmetric per_tensor weights, float32"),
        "{}",
        all("mlp_qdq")
    );
}

#[test]
fn what_is_quantized_stays_and_what_is_not_is_quantized_beside_it() {
    for (name, layer, changed) in [
        ("cnn_qdq", "conv3", &["conv3"][..]),
        ("cnn_qdq_s8", "conv3", &["conv3"]),
        ("cnn_qoperator", "conv3", &["conv3"]),
        ("mlp_qdq", "head", &["head"]),
        ("mlp_dynamic", "head", &["head"]),
        ("mlp_nbits4", "head", &["head", "embed"]),
        ("mlp_nbits8", "head", &["head", "embed"]),
    ] {
        for preset in ["int8", "int8-dynamic", "int8-weights", "int4-weights", "float16-weights"] {
            println!("{name} {preset}");
            let ran = run(name, preset);
            ran.above(if preset.starts_with("int4") { 12.0 } else { 25.0 });
            let form = ran.verified.layers.iter().find(|outcome| outcome.name == layer).expect("layer").form;
            assert_ne!(form, Form::Float, "{name} {preset}\n{}", ran.describe());
            unchanged(&ran, changed);
        }
    }
    let ran = run("cnn_qdq", "int8");
    // Between the file's own pairs the layer needs no scale of its own for what it reads.
    ran.form("conv3", Form::Qdq).runs("QLinearConv", 3).problem("", "left as they are");
}

/// Two files compared layer by layer, on random inputs.
fn compared(original: &str, other: &Path) -> Comparison {
    let control = Control::new();
    let (a, b) = (Model::load(&path(original), &control).expect("opens"), Model::load(other, &control).expect("opens"));
    let data = DataSet::open("random:4", &a.inputs, &DataOptions::default()).expect("data");
    compare_layers(runtime(), &a, &b, &data, &[0, 1, 2, 3], 1, &control).expect("compared")
}

#[test]
fn a_pair_made_elsewhere_is_compared_layer_by_layer() {
    for (original, other, least, layers) in [
        ("cnn", "cnn_qdq", 8.0, 4),
        ("cnn", "cnn_qoperator", 8.0, 4),
        ("cnn", "cnn_dynamic", 38.0, 4),
        ("mlp", "mlp_qdq", 30.0, 4),
        ("mlp", "mlp_dynamic", 38.0, 3),
        ("mlp", "mlp_nbits8", 38.0, 4),
    ] {
        let compared = compared(original, &path(other));
        let found: Vec<_> = compared.layers.iter().map(|layer| (&layer.name, layer.sqnr_db)).collect();
        assert_eq!(found.len(), layers, "{other}: {found:?} {:?}", compared.unmatched);
        for layer in &compared.layers {
            let db = layer.sqnr_db.db().unwrap_or(if layer.name == "embed" { 99.0 } else { f64::NAN });
            assert!(
                db > least,
                "{other} {}: {db} dB, {} with {}",
                layer.name,
                layer.original_tensor,
                layer.other_tensor
            );
            assert!(!layer.other.is_empty(), "{other} {}: no partner", layer.name);
        }
    }
}

#[test]
fn layers_without_common_names_are_matched_by_their_order() {
    for file in ["cnn_qdq", "cnn_qoperator", "cnn_dynamic"] {
        let mut proto = Model::load(&path(file), &Control::new()).expect("opens").file.proto.clone();
        let graph = proto.graph.as_mut().expect("graph");
        let kept = ["x", "y"];
        let renamed = |name: &mut String| {
            if !name.is_empty() && !kept.contains(&name.as_str()) {
                *name = format!("other_{}", name.bytes().rev().map(char::from).collect::<String>());
            }
        };
        for node in &mut graph.node {
            node.name = None;
            node.input.iter_mut().chain(&mut node.output).for_each(renamed);
        }
        graph.initializer.iter_mut().filter_map(|tensor| tensor.name.as_mut()).for_each(renamed);
        graph.value_info.clear();
        let folder = tempfile::tempdir().expect("folder");
        let other = folder.path().join("renamed.onnx");
        nibble_core::onnx::save(&proto, None, &other).expect("saved");
        let (by_name, by_order) = (compared("cnn", &path(file)), compared("cnn", &other));
        for (known, found) in by_name.layers.iter().zip(&by_order.layers) {
            assert_eq!((&known.name, &known.other_op), (&found.name, &found.other_op), "{file}");
            let (known, db) = (known.sqnr_db.db().unwrap_or(f64::NAN), found.sqnr_db.db().unwrap_or(f64::NAN));
            assert!((known - db).abs() < 0.5, "{file} {}: {known} dB by name, {db} dB by order", found.name);
        }
        let by_order = by_order.layers.iter().filter(|layer| layer.matched_by == MatchedBy::Order).count();
        assert_eq!(by_order, 3, "{file}: all but the one that makes the output");
    }
}
