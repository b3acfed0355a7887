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

#[test]
fn the_lab_names_the_sample_that_sets_the_ranges_and_leave_out_takes_it_away() {
    let place = Place::new();
    let mut data = images(24);
    data.index_axis_mut(ndarray::Axis(0), 9).mapv_inplace(|x| x * 8.0);
    npz(&place.path("d.npz"), &[("image", data)]);
    let model = cnn();
    let model = model.to_string_lossy();
    let json = place.json(["calibrate", &model, "--data", "d.npz", "-o", "s.stats"]);
    let lab = &json["lab"];
    assert_eq!((&lab["samples"], &lab["seen"], &lab["enough"]), (&24.into(), &24.into(), &serde_json::Value::Null));
    let outliers = lab["outliers"].as_array().expect("outliers");
    assert_eq!((outliers.len(), &outliers[0]["sample"], &outliers[0]["name"]), (1, &9.into(), &"sample 9".into()));
    assert!(outliers[0]["tensors"][0]["factor"].as_f64().is_some_and(|factor| factor > 2.0));
    let image =
        lab["tensors"].as_array().into_iter().flatten().find(|tensor| tensor["name"] == "image").expect("input");
    assert_eq!((&image["min"], &image["max"]["sample"]), (&serde_json::Value::Null, &9.into()));
    let sizes: Vec<u64> = lab["curve"].as_array().into_iter().flatten().filter_map(|p| p["samples"].as_u64()).collect();
    assert_eq!(sizes, [1, 2, 4, 8, 16, 24]);

    let without = place.json(["calibrate", &model, "--data", "d.npz", "--leave-out", "9", "-o", "t.stats"]);
    assert_eq!((&without["samples"], &without["lab"]["outliers"]), (&23.into(), &serde_json::json!([])));
    let said = place.fails(2, ["calibrate", &model, "--data", "d.npz", "--leave-out", "24", "-o", "u.stats"]);
    assert!(said.contains("there is no sample 24"), "{said}");
}
