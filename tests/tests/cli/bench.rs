//! `bench` and `compare`.

use crate::fixture::{Place, cnn, images, npz, sample};

#[test]
fn two_models_side_by_side() {
    let place = Place::new();
    npz(&place.path("d.npz"), &[("image", images(6))]);
    let model = cnn();
    let model = model.to_string_lossy();
    place.json(["quantize", &model, "--data", "d.npz", "-o", "q.onnx"]);
    let json = place.json(["bench", &model, "q.onnx", "--data", "d.npz", "--seconds", "0.3"]);
    let models = json["models"].as_array().expect("models");
    assert_eq!(models.len(), 2);
    for side in models {
        assert!(side["path"].is_string() && side["size_bytes"].as_u64().is_some_and(|size| size > 0));
        for field in ["p50", "p95", "mean"] {
            assert!(side["latency_ms"][field].as_f64().is_some_and(|ms| ms > 0.0), "{field}");
        }
        if cfg!(target_os = "linux") {
            assert!(side["peak_memory_bytes"].as_u64().is_some_and(|bytes| bytes > 1 << 20));
        }
    }
    let ratio = |field: &str| json["latency_ratio"][field].as_f64().expect("ratio");
    assert!(ratio("low") <= ratio("p50") && ratio("p50") <= ratio("high"));
    assert!(json["agreement"].as_f64().is_some() && json["sqnr_db"].as_f64().is_some());
    for field in ["accuracy", "cpu_features", "layers", "problems"] {
        assert!(json.get(field).is_some(), "{field}");
    }
    assert_eq!(place.names(), ["d.npz", "q.onnx"]);
}

#[test]
fn a_model_beside_itself_is_identical() {
    let place = Place::new();
    let model = cnn();
    let model = model.to_string_lossy();
    let json = place.json(["bench", &model, &model, "--data", "random:2", "--seconds", "0.2"]);
    assert_eq!((&json["sqnr_db"], json["agreement"].as_f64()), (&"identical".into(), Some(1.0)));
    let outcome = place.run(["bench", &model, &model, "--data", "random:2", "--seconds", "0.2"]);
    assert!(outcome.stdout.lines().all(|line| line.chars().count() <= 140), "{}", outcome.stdout);
    assert!(
        outcome.stdout.contains("\n\nOperator") && outcome.stdout.contains("median of pairs"),
        "{}",
        outcome.stdout
    );
}

#[test]
fn what_cannot_be_compared_is_named() {
    let place = Place::new();
    let model = cnn();
    let model = model.to_string_lossy();
    assert!(place.fails(1, ["bench", &model, "nowhere.onnx"]).contains("nowhere.onnx"));
    let other = sample("digits_lstm.onnx");
    let error = place.fails(1, ["bench", &*model, &*other.to_string_lossy()]);
    assert!(error.contains("image") && error.contains("rows"), "{error}");
    assert!(place.fails(2, ["bench", &model, &model, "--labels", "l.npy"]).contains("--data"));
}

#[test]
fn two_models_layer_by_layer() {
    let place = Place::new();
    npz(&place.path("d.npz"), &[("image", images(6))]);
    let model = cnn();
    let model = model.to_string_lossy();
    place.json(["quantize", &model, "--data", "d.npz", "-o", "q.onnx"]);
    let json = place.json(["compare", &model, "q.onnx", "--data", "d.npz"]);
    let layers = json["layers"].as_array().expect("layers");
    let expected = place.json(["inspect", &model])["layers"].as_array().map_or(0, Vec::len);
    assert_eq!(layers.len(), expected, "{json}");
    for layer in layers {
        assert!(layer["sqnr_db"].as_f64().is_some_and(|db| db > 15.0), "{layer}");
        assert_eq!((&layer["matched_by"], &layer["other"]), (&"tensor".into(), &layer["name"]));
        assert!(layer["quantized"].as_str().is_some_and(|words| words.contains("int8")), "{layer}");
    }
    assert!(json["unmatched"].as_array().is_some_and(Vec::is_empty));
    assert!(json["quality"]["sqnr_db"].as_f64().is_some());
    let same = place.json(["compare", &*model, &*model, "--data", "d.npz"]);
    // The two run at different levels of rewriting, so that the last places of floats may differ.
    let exact = |layer: &serde_json::Value| layer["sqnr_db"] == "identical" || layer["sqnr_db"].as_f64() > Some(100.0);
    assert!(same["layers"].as_array().is_some_and(|all| all.iter().all(exact)), "{same}");
    let other = sample("digits_lstm.onnx");
    assert!(place.fails(1, ["compare", &*model, &*other.to_string_lossy()]).contains("rows"));
}
