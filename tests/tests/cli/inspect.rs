//! `inspect`.

use crate::fixture::{Place, cnn, sample};

#[test]
fn the_model_its_ports_and_its_layers() {
    let place = Place::new();
    let json = place.json(["inspect".as_ref(), cnn().as_os_str()]);
    let model = &json["model"];
    assert_eq!(model["size_bytes"].as_u64(), std::fs::metadata(cnn()).ok().map(|m| m.len()));
    for field in ["opset", "ir_version", "nodes", "parameters"] {
        assert!(model[field].as_u64().is_some_and(|n| n > 0), "{field}");
    }
    assert_eq!((&json["inputs"][0]["name"], &json["outputs"][0]["name"]), (&"image".into(), &"logits".into()));
    let layers = json["layers"].as_array().expect("layers");
    assert!(layers.len() >= 4);
    for layer in layers {
        for field in ["name", "op", "weight", "shape", "parameters", "quantizable", "reason"] {
            assert!(layer.get(field).is_some(), "{field}");
        }
    }
    assert!(json["problems"].is_array());
}

#[test]
fn no_runtime_is_needed() {
    let place = Place::new();
    for name in ["digits_lstm.onnx", "digits_transformer.onnx"] {
        let json = place.json(["inspect", &sample(name).to_string_lossy(), "--runtime", "/nowhere/libonnxruntime.so"]);
        assert!(json["layers"].as_array().is_some_and(|layers| !layers.is_empty()), "{name}");
    }
}

#[test]
fn people_get_aligned_columns() {
    let place = Place::new();
    let outcome = place.run(["inspect".as_ref(), cnn().as_os_str()]);
    assert!(outcome.stdout.contains("Layer") && outcome.stdout.contains("can be quantized"));
    assert!(outcome.stdout.lines().all(|line| line.trim_end() == line));
}
