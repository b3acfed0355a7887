//! `sensitivity`, and the prediction that `quantize` records.

use crate::fixture::{Place, cnn, sample};

#[test]
fn every_candidate_of_every_layer_has_its_figures() {
    let place = Place::new();
    let [model, data] = [cnn(), sample("digits_cnn.calib.npz")];
    let line: [&std::ffi::OsStr; 6] = [
        "sensitivity".as_ref(),
        model.as_os_str(),
        "--data".as_ref(),
        data.as_os_str(),
        "--samples".as_ref(),
        "32".as_ref(),
    ];
    let json = place.json(line);
    assert_eq!((&json["metric"], &json["output"]), (&"sqnr_db".into(), &"logits".into()));
    let layers = json["layers"].as_array().expect("layers");
    assert_eq!(layers.len(), 6);
    for layer in layers {
        assert_eq!(layer["known_by"], "gradients");
        let candidates = layer["candidates"].as_array().expect("candidates");
        let of = |precision: &str, part: &str| {
            let fits = |row: &&serde_json::Value| row["choice"]["precision"] == precision && row["part"] == part;
            candidates.iter().find(fits).and_then(|row| row["predicted_output_sqnr_db"].as_f64()).expect(part)
        };
        assert!(candidates.len() >= 8, "{}", candidates.len());
        assert!(of("int8", "weights") > of("int4", "weights") + 10.0, "{layer}");
        assert!(
            of("int8", "both") < of("int8", "weights") && of("int8", "both") < of("int8", "activations"),
            "{layer}"
        );
        let sizes: Vec<u64> = candidates.iter().filter_map(|row| row["size_bytes"].as_u64()).collect();
        assert!(sizes.iter().min() < sizes.iter().max(), "{layer}");
    }
}

#[test]
fn divergences_are_predicted_and_measured() {
    let place = Place::new();
    let [model, data] = [cnn(), sample("digits_cnn.calib.npz")];
    let (model, data) = (model.to_string_lossy(), data.to_string_lossy());
    let line = ["sensitivity", &model, "--data", &data, "--samples", "128", "--metric", "kl", "--measure"];
    let json = place.json(line);
    assert_eq!(json["metric"], "kl");
    let rows =
        json["layers"].as_array().into_iter().flatten().filter_map(|layer| layer["candidates"].as_array()).flatten();
    let figures = rows.filter_map(|row| Some((row["predicted_output"].as_f64()?, row["measured_output"].as_f64()?)));
    let ratios: Vec<f64> = figures.map(|(predicted, measured)| (predicted / measured).log10().abs()).collect();
    let near = ratios.iter().filter(|ratio| **ratio < 0.5).count();
    assert!(ratios.len() > 60 && near * 10 > ratios.len() * 8, "{near} of {} within a factor of 3", ratios.len());
}

#[test]
fn quantize_says_before_what_it_measures_after() {
    let cases = [
        ("digits_cnn", &["int8", "int8-weights", "int8-dynamic", "int4-weights", "int4-static"][..]),
        ("digits_transformer", &["int8", "int8-weights", "int8-dynamic", "int4-weights", "int4-static"]),
        // What gradients cannot pass is run like all else.
        ("digits_lstm", &["int8", "int8-weights", "int4-weights"]),
    ];
    for (name, preset) in cases.into_iter().flat_map(|(name, presets)| presets.iter().map(move |preset| (name, preset)))
    {
        let json = quantized(name, preset);
        let (predicted, measured) = (json["predicted_sqnr_db"].as_f64(), json["quality"]["sqnr_db"].as_f64());
        let (predicted, measured) = (predicted.expect("predicted"), measured.expect("measured"));
        let bound = |at: usize| json["predicted_interval_db"][at].as_f64().expect("bound");
        assert!(bound(0) < predicted && predicted < bound(1), "{json}");
        let near = (predicted - measured).abs() < 1.0 || (bound(0)..=bound(1)).contains(&measured);
        assert!(near, "{name} {preset}: {predicted} predicted, {measured} measured");
        assert!(json["predicted_from"]["samples"].as_u64() > Some(0), "{json}");
    }
}

fn quantized(name: &str, preset: &str) -> serde_json::Value {
    let place = Place::new();
    let output = place.path("q.onnx");
    let [model, data, eval] = ["onnx", "calib.npz", "eval.npz"].map(|end| sample(&format!("{name}.{end}")));
    let line: [&std::ffi::OsStr; 12] = [
        "quantize".as_ref(),
        model.as_os_str(),
        "--data".as_ref(),
        data.as_os_str(),
        "--eval".as_ref(),
        eval.as_os_str(),
        "--preset".as_ref(),
        preset.as_ref(),
        "--repair".as_ref(),
        "none".as_ref(),
        "-o".as_ref(),
        output.as_os_str(),
    ];
    place.json(line)
}

#[test]
fn a_plan_is_found_and_keeps_its_promise() {
    let place = Place::new();
    let output = place.path("plan.json");
    let [model, data, eval] = ["onnx", "calib.npz", "eval.npz"].map(|end| sample(&format!("digits_cnn.{end}")));
    let line: [&std::ffi::OsStr; 12] = [
        "auto".as_ref(),
        model.as_os_str(),
        "--data".as_ref(),
        data.as_os_str(),
        "--eval".as_ref(),
        eval.as_os_str(),
        "--samples".as_ref(),
        "64".as_ref(),
        "--min-sqnr".as_ref(),
        "25".as_ref(),
        "-o".as_ref(),
        output.as_os_str(),
    ];
    let json = place.json(line);
    assert!(json["measured"]["sqnr_db"].as_f64().is_some_and(|db| db >= 25.0), "{}", json["measured"]);
    assert!(json["evaluations"].as_u64().is_some_and(|count| count <= 12), "{}", json["evaluations"]);
    let pareto = json["pareto"].as_array().expect("pareto");
    let size = json["predicted"]["size_bytes"].as_u64().expect("size");
    for point in pareto.iter().filter(|point| point["measured_sqnr_db"].as_f64().is_some_and(|db| db >= 25.0)) {
        assert!(point["size_bytes"].as_u64().is_some_and(|other| other >= size), "{point}");
    }
    // The plan is one that `quantize` takes.
    let [plan, out] = [output.clone(), place.path("q.onnx")];
    let again: [&std::ffi::OsStr; 10] = [
        "quantize".as_ref(),
        model.as_os_str(),
        "--data".as_ref(),
        data.as_os_str(),
        "--eval".as_ref(),
        eval.as_os_str(),
        "--plan".as_ref(),
        plan.as_os_str(),
        "-o".as_ref(),
        out.as_os_str(),
    ];
    assert!(place.json(again)["quality"]["sqnr_db"].as_f64().is_some_and(|db| db > 23.0));
}
