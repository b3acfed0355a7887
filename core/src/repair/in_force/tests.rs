use super::*;
use crate::Control;
use crate::onnx::build::{node, tensor_f32, value_info};
use crate::onnx::proto::{GraphProto, ModelProto, OperatorSetIdProto};
use crate::plan::preset;
use crate::quant::QuantizedWeight;

/// Two Conv without and with a bias (which a third reads too), and a MatMul with an Add.
pub fn model(folder: &std::path::Path) -> Model {
    let values = |count: usize| (0..count).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect::<Vec<_>>();
    let graph = GraphProto {
        node: vec![
            node("Conv", "", "bare", &["x", "w1"], &["a"], vec![]),
            node("Conv", "", "biased", &["a", "w2", "b2"], &["b"], vec![]),
            node("Conv", "", "sharing", &["a", "w3", "b2"], &["c"], vec![]),
            node("MatMul", "", "matmul", &["v", "w4"], &["m"], vec![]),
            node("Add", "", "add", &["m", "b4"], &["y"], vec![]),
        ],
        initializer: vec![
            tensor_f32("w1", &[4, 3, 3, 3], &values(108)),
            tensor_f32("w2", &[4, 4, 3, 3], &values(144)),
            tensor_f32("w3", &[4, 4, 3, 3], &values(144)),
            tensor_f32("b2", &[4], &[1.0, 2.0, 3.0, 4.0]),
            tensor_f32("w4", &[32, 4], &values(128)),
            tensor_f32("b4", &[4], &[5.0, 6.0, 7.0, 8.0]),
        ],
        input: vec![value_info("x"), value_info("v")],
        output: vec![value_info("b"), value_info("c"), value_info("y")],
        ..Default::default()
    };
    let opset_import = vec![OperatorSetIdProto { version: Some(21), ..Default::default() }];
    let proto = ModelProto { ir_version: Some(10), graph: Some(graph), opset_import, ..Default::default() };
    let path = folder.join("m.onnx");
    std::fs::write(&path, prost::Message::encode_to_vec(&proto)).expect("model");
    Model::load(&path, &Control::new()).expect("loads")
}

pub fn plan(model: &Model, names: &[&str]) -> Plan {
    let mut plan = model.preset_plan(preset("int8-weights").expect("preset")).expect("plan");
    for name in names {
        let layer = model.layer(name).expect("layer");
        let asked = Choice { rounding: Rounding::Gptq, ..plan.choice(name) };
        plan.set_layer(name, asked);
        let choice = pick(model, layer, asked, None).choice;
        let values = model.weight(layer, &layer.weights[0]).expect("values");
        let mut weight: QuantizedWeight = layer.weights[0].quantize(&values, &choice);
        weight.values.iter_mut().for_each(|q| *q = q.wrapping_neg().max(-127));
        let repair = LayerRepair {
            method: Rounding::Gptq,
            precision: choice.precision,
            symmetry: choice.symmetry,
            granularity: choice.granularity,
            weights: vec![weight],
            bias: Some(vec![0.5, 0.25, 0.125, 9.0]),
            data_free: false,
            levels: None,
            held_back: None,
        };
        plan.repairs.insert((*name).to_owned(), Arc::new(repair));
    }
    plan
}

fn bias(model: &Model, name: &str) -> Vec<f32> {
    BiasSlot::of(model, model.layer(name).expect("layer")).expect("reads").expect("a slot").values
}

#[test]
fn nothing_in_force_borrows_and_a_repair_replaces_integers_and_bias_of_its_layer_alone() {
    let folder = tempfile::tempdir().expect("folder");
    let model = model(folder.path());
    assert!(matches!(model.repaired(&plan(&model, &[])).expect("model"), Cow::Borrowed(_)));
    let plan = plan(&model, &["bare", "biased", "matmul"]);
    let repaired = model.repaired(&plan).expect("model");
    for name in ["bare", "biased", "matmul"] {
        assert_eq!(bias(&repaired, name), [0.5, 0.25, 0.125, 9.0], "{name}");
        let layer = repaired.layer(name).expect("layer");
        let choice = pick(&repaired, layer, plan.choice(name), None).choice;
        let values = model.weight(layer, &layer.weights[0]).expect("values");
        assert_eq!(layer.weights[0].quantize(&values, &choice), plan.repairs[name].weights[0]);
        assert!(layer.weights[0].sqnr(&values, &choice) < 0.0);
    }
    assert_eq!(bias(&repaired, "sharing"), [1.0, 2.0, 3.0, 4.0]);
    assert_eq!(bias(&model, "biased"), [1.0, 2.0, 3.0, 4.0]);
    // Once more on the repaired model: the same.
    assert_eq!(bias(&repaired.repaired(&plan).expect("model"), "biased"), [0.5, 0.25, 0.125, 9.0]);
}

#[test]
fn the_export_holds_the_repaired_integers() {
    let folder = tempfile::tempdir().expect("folder");
    let model = model(folder.path());
    let plan = plan(&model, &["biased"]);
    let export = crate::export::export(&model, None, &plan, &Control::new()).expect("exports");
    assert!(export.problems.iter().all(|problem| !problem.what.contains("nearest")), "{:?}", export.problems);
    let integers: Vec<u8> = plan.repairs["biased"].weights[0].values.iter().map(|q| q.cast_unsigned()).collect();
    let graph = export.proto.graph.expect("graph");
    assert!(graph.initializer.iter().any(|tensor| tensor.raw_data.as_deref() == Some(&integers[..])));
}

#[test]
fn a_repair_for_another_grid_is_not_in_force_and_the_export_says_so() {
    let folder = tempfile::tempdir().expect("folder");
    let model = model(folder.path());
    let mut plan = plan(&model, &["biased"]);
    let asked = Choice { precision: crate::plan::Precision::Int4, ..plan.choice("biased") };
    plan.set_layer("biased", asked);
    assert!(matches!(model.repaired(&plan).expect("model"), Cow::Borrowed(_)));
    let export = crate::export::export(&model, None, &plan, &Control::new()).expect("exports");
    assert!(export.problems.iter().any(|problem| problem.place == "biased" && problem.what.contains("no repair")));
    let outcome = export.layers.iter().find(|layer| layer.name == "biased").expect("layer");
    assert_eq!(outcome.choice.rounding, Rounding::Nearest);
}

/// Two products with the same matrix, repaired alike or differently.
#[test]
fn a_weight_that_layers_share_is_stored_once_where_its_repairs_are_equal() {
    let folder = tempfile::tempdir().expect("folder");
    let weights: Vec<f32> = (0..128).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect();
    let graph = GraphProto {
        node: vec![
            node("MatMul", "", "one", &["x", "w"], &["a"], vec![]),
            node("MatMul", "", "two", &["a", "w"], &["y"], vec![]),
        ],
        initializer: vec![tensor_f32("w", &[8, 16], &weights)],
        input: vec![value_info("x")],
        output: vec![value_info("y")],
        ..Default::default()
    };
    let opset_import = vec![OperatorSetIdProto { version: Some(21), ..Default::default() }];
    let proto = ModelProto { ir_version: Some(10), graph: Some(graph), opset_import, ..Default::default() };
    let path = folder.path().join("m.onnx");
    std::fs::write(&path, prost::Message::encode_to_vec(&proto)).expect("model");
    let model = Model::load(&path, &Control::new()).expect("loads");
    let copies = |plan: &Plan| {
        let proto = crate::export::export(&model, None, plan, &Control::new()).expect("exports").proto;
        let graph = proto.graph.expect("graph");
        // However the form lays them out, 128 integers take as many bytes at least, and scales take 64.
        graph.initializer.iter().filter(|tensor| tensor.raw_data.as_ref().is_some_and(|raw| raw.len() >= 128)).count()
    };
    // Each repair has memory of its own.
    let mut plan = plan(&model, &["one", "two"]);
    assert_eq!(plan.repairs["one"], plan.repairs["two"]);
    assert_eq!(copies(&plan), 1);
    let mut other = (*plan.repairs["two"]).clone();
    other.weights[0].values[3] ^= 1;
    plan.repairs.insert("two".to_owned(), Arc::new(other));
    assert_eq!(copies(&plan), 2);
}
