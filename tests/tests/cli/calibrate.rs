//! `calibrate`.

use crate::fixture::{Place, cnn, images, npz};

#[test]
fn statistics_are_saved_and_their_cost_is_told() {
    let place = Place::new();
    npz(&place.path("d.npz"), &[("image", images(9))]);
    let model = cnn();
    let model = model.to_string_lossy();
    let json = place.json(["calibrate", &model, "--data", "d.npz", "-o", "s.stats"]);
    assert_eq!(json["samples"], 9);
    assert!(json["tensors"].as_u64().is_some_and(|n| n >= 6));
    for field in ["seconds", "tapped_inference_seconds", "plain_inference_seconds"] {
        assert!(json[field].as_f64().is_some_and(|seconds| seconds > 0.0), "{field}");
    }
    assert!(json.get("peak_memory_bytes").is_some());
    assert_eq!(place.names(), ["d.npz", "s.stats"]);
}

#[test]
fn it_can_be_continued_and_counts_no_sample_twice() {
    let place = Place::new();
    npz(&place.path("d.npz"), &[("image", images(9))]);
    let model = cnn();
    let model = model.to_string_lossy();
    let first = place.json(["calibrate", &model, "--data", "d.npz", "--samples", "4", "-o", "s.stats"]);
    assert_eq!(first["samples"], 4);
    let more = place.json(["calibrate", &model, "--data", "d.npz", "--stats", "s.stats", "-o", "t.stats"]);
    assert_eq!(more["samples"], 9);
    place.json(["calibrate", &model, "--data", "d.npz", "-o", "u.stats"]);
    let read = |name: &str| std::fs::read(place.path(name)).expect("stats");
    assert!(read("t.stats") == read("u.stats"), "in two steps or in one, the statistics are the same");
}

#[test]
#[cfg(unix)]
fn ctrl_c_ends_it_with_130_and_keeps_whole_samples_only() {
    let place = Place::new();
    let model = cnn();
    let model = model.to_string_lossy();
    let (code, stdout) =
        place.interrupted(["calibrate", &model, "--data", "random:1000000", "-o", "s.stats", "--json"]);
    assert_eq!(code, Some(130));
    assert!(stdout.contains("\"error\""), "{stdout}");
    assert_eq!(place.names(), ["s.stats"]);
    let more = place.json(["quantize", &model, "--stats", "s.stats", "-o", "q.onnx"]);
    assert!(more["calibration"]["samples"].as_u64().is_some_and(|n| n > 0));
}
