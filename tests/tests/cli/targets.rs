//! `targets`, and `quantize --target`.

use serde_json::Value;

use crate::fixture::{Place, cnn, images, npz};

const NAMES: [&str; 6] =
    ["onnxruntime-cpu-vnni", "onnxruntime-cpu-avx2", "onnxruntime-mobile", "tensorrt", "qnn", "tflite-int8-spec"];

/// The bundled classifier with random pictures, quantized with these further arguments.
fn quantize(place: &Place, more: &[&str]) -> Value {
    npz(&place.path("d.npz"), &[("image", images(12))]);
    let model = cnn();
    let model = model.to_string_lossy();
    let mut line = vec!["quantize", &*model, "--data", "d.npz", "-o", "q.onnx"];
    line.extend(more);
    place.json(line)
}

fn conflicts(json: &Value) -> &Vec<Value> {
    json["conflicts"].as_array().expect("conflicts")
}

#[test]
fn the_list_has_every_target_with_rules_and_sources() {
    let place = Place::new();
    let json = place.json(["targets"]);
    let all = json["targets"].as_array().expect("targets");
    assert_eq!(all.iter().map(|target| target["name"].as_str().expect("name")).collect::<Vec<_>>(), NAMES);
    for target in all {
        for rule in target["rules"].as_array().expect("rules") {
            assert!(rule["source"]["section"].is_string() && rule["says"].is_string(), "{rule}");
        }
        assert!(target["run"]["here"].is_boolean());
    }
    let text = place.run(["targets"]).stdout;
    assert!(NAMES.iter().all(|name| text.contains(name)), "{text}");
    assert!(text.contains("rules only, not run") && text.contains("(default)"), "{text}");
}

#[test]
fn conflicts_are_loud_and_go_away_when_asked_to() {
    let place = Place::new();
    let json = quantize(&place, &["--target", "tensorrt"]);
    assert_eq!(json["target"], "tensorrt");
    assert!(!conflicts(&json).is_empty());
    for conflict in conflicts(&json) {
        let place = conflict["layer"].as_str().filter(|layer| !layer.is_empty()).expect("a layer");
        let problems = json["problems"].as_array().expect("problems");
        let said = |problem: &&Value| {
            problem["where"] == place
                && problem["severity"] == "warning"
                && problem["why"].as_str().is_some_and(|why| why.contains("TensorRT"))
        };
        assert!(problems.iter().any(|problem| said(&problem)), "{conflict}");
    }
    // The nearest plan breaks no rule, and remembers where it is for.
    let json = quantize(&place, &["--target", "tensorrt", "--fix-target"]);
    assert_eq!(conflicts(&json).len(), 0, "{}", json["conflicts"]);
    assert!(json["quality"]["sqnr_db"].as_f64().is_some_and(|db| db > 15.0), "{}", json["quality"]);
    for layer in json["layers"].as_array().expect("layers").iter().filter(|layer| layer["form"] == "qdq") {
        assert_eq!(layer["choice"]["activation_symmetry"], "symmetric", "{layer}");
    }
    std::fs::rename(place.path("q.onnx"), place.path("first.onnx")).expect("renamed");
    let again = quantize(&place, &["--plan", "first.onnx"]);
    assert_eq!((&again["target"], conflicts(&again).len()), (&"tensorrt".into(), 0));
    let default = quantize(&place, &[]);
    assert_eq!((&default["target"], conflicts(&default).len(), &default["ort"]), (&NAMES[0].into(), 0, &Value::Null));
}

#[test]
fn an_unknown_target_is_wrong_usage_and_the_names_are_told() {
    let place = Place::new();
    npz(&place.path("d.npz"), &[("image", images(4))]);
    let model = cnn();
    let model = model.to_string_lossy();
    let outcome = place.run(["quantize", &model, "--data", "d.npz", "-o", "q.onnx", "--target", "toaster"]);
    assert_eq!(outcome.code, 2);
    assert!(NAMES.iter().all(|name| outcome.stderr.contains(name)), "{}", outcome.stderr);
    assert_eq!(place.names(), ["d.npz"]);
}

#[test]
fn mobile_gets_a_second_file_which_replaces_nothing_that_is_read() {
    let place = Place::new();
    let json = quantize(&place, &["--target", "onnxruntime-mobile"]);
    assert_eq!(json["ort"]["output"], "q.ort");
    let size = std::fs::metadata(place.path("q.ort")).expect("written").len();
    assert_eq!(json["ort"]["size_bytes"].as_u64(), Some(size));
    let same = &json["ort"]["sqnr_db"];
    assert!(same == "identical" || same.as_f64().is_some_and(|db| db > 60.0), "{same}");
    let model = cnn();
    let model = model.to_string_lossy();
    for output in ["q.ort", "d.onnx"] {
        std::fs::rename(place.path("d.npz"), place.path("d.ort")).ok();
        std::fs::copy(place.path("d.ort"), place.path("d.npz")).expect("data");
        let data = if output == "d.onnx" { "d.ort" } else { "d.npz" };
        let outcome = place.run(["quantize", &model, "--data", data, "--target", "onnxruntime-mobile", "-o", output]);
        assert_eq!(outcome.code, 1, "{output}: {}", outcome.stderr);
    }
}
