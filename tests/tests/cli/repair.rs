//! `repair`, and `quantize` with what it found.

use serde_json::Value;

use crate::fixture::{Place, cnn, sample};

/// Repaired in one pass by `method`, into `p.json`.
fn repaired(place: &Place, method: &str) -> Value {
    let (model, data) = (cnn(), sample("digits_cnn.calib.npz"));
    let (model, data) = (model.to_string_lossy(), data.to_string_lossy());
    let line = ["repair", &model, "--data", &data, "--preset", "int4-static", "--method", method, "-o", "p.json"];
    place.json(line)
}

fn quantized(place: &Place, plan: &[&str]) -> Value {
    let [model, data, eval, labels] =
        [cnn(), sample("digits_cnn.calib.npz"), sample("digits_cnn.eval.npz"), sample("digits_cnn.labels.npy")];
    let [model, data, eval, labels] = [&model, &data, &eval, &labels].map(|path| path.to_string_lossy());
    let mut line = vec!["quantize", &model, "--data", &data, "--eval", &eval, "--labels", &labels, "-o", "q.onnx"];
    line.extend(plan);
    place.json(line)
}

#[test]
fn the_gain_on_samples_held_back_is_the_gain_on_others() {
    let place = Place::new();
    let nearest = quantized(&place, &["--preset", "int4-static", "--repair", "none"]);
    let json = repaired(&place, "refit");
    let held = &json["held_back"];
    let db = |value: &Value| value.as_f64().expect("dB");
    let promised = db(&held["after_sqnr_db"]) - db(&held["before_sqnr_db"]);
    let result = quantized(&place, &["--plan", "p.json"]);
    let gained = db(&result["quality"]["sqnr_db"]) - db(&nearest["quality"]["sqnr_db"]);
    assert!(promised > 8.0 && (promised - gained).abs() < 1.0, "{promised} promised, {gained} gained");
    let interval = &held["gain_interval_db"];
    assert!(db(&interval[0]) < gained && gained < db(&interval[1]) && db(&held["gain_db"]) > 8.0, "{held}");
    let accuracy = &result["quality"]["accuracy"];
    assert!(db(&accuracy["quantized"]) > db(&accuracy["original"]) - 0.005, "{accuracy}");
    for layer in json["layers"].as_array().expect("layers") {
        assert!(db(&layer["after_sqnr_db"]) > db(&layer["before_sqnr_db"]), "{layer}");
        assert_eq!(layer["method"], "refit");
    }
    assert_eq!((&held["samples"], &held["folds"]), (&256.into(), &4.into()));
    assert_eq!(json["calibration"]["samples"], 256);
}

#[test]
fn what_a_time_limit_leaves_out_is_said() {
    let place = Place::new();
    let (model, data) = (cnn(), sample("digits_cnn.calib.npz"));
    let (model, data) = (model.to_string_lossy(), data.to_string_lossy());
    let line = ["repair", &model, "--data", &data, "--preset", "int4-static", "--seconds", "0.001", "-o", "p.json"];
    let json = place.json(line.into_iter().chain(["--method", "refit"]));
    let layers = json["layers"].as_array().expect("layers");
    // A fast machine may get through the first.
    assert!(layers.len() > 3 && layers.iter().skip(2).all(|layer| layer["method"] == "gptq"), "{layers:?}");
    assert!(json["problems"].to_string().contains("time that repairs may take"), "{}", json["problems"]);
    assert_eq!(json["held_back"]["folds"], 1);
}

#[test]
fn seven_bits_are_repaired_in_seven_bits() {
    let place = Place::new();
    let set = ["--preset", "int8", "--set", "*", "reduce_range=true"];
    let nearest = quantized(&place, &set);
    let result = quantized(&place, &[set.as_slice(), &["--repair", "gptq"]].concat());
    let choices = result["layers"].as_array().expect("layers").iter().map(|layer| &layer["choice"]);
    let repaired = choices.filter(|choice| choice["rounding"] == "gptq" && choice["reduce_range"] == true).count();
    assert!(repaired > 2, "{}", result["layers"]);
    assert!(!result["problems"].to_string().contains("rounded to nearest"), "{}", result["problems"]);
    let db = |json: &Value| json["quality"]["sqnr_db"].as_f64().expect("dB");
    assert!(db(&result) > db(&nearest) + 1.0, "{} {}", db(&result), db(&nearest));
}

#[test]
fn a_plan_gives_the_same_integers_every_time_and_none_without_its_weights() {
    let place = Place::new();
    repaired(&place, "gptq");
    let bytes = || {
        let result = quantized(&place, &["--plan", "p.json"]);
        assert!(!result["problems"].to_string().contains("no repair"), "{}", result["problems"]);
        std::fs::read(place.path("q.onnx")).expect("written")
    };
    assert_eq!(bytes(), bytes());
    std::fs::remove_file(place.path("p.safetensors")).expect("removed");
    let model = cnn();
    let outcome = place.run(["quantize", &model.to_string_lossy(), "--plan", "p.json", "-o", "q.onnx"]);
    assert!(outcome.code != 0 && outcome.stderr.contains("p.safetensors"), "{}", outcome.stderr);
}

#[test]
fn rounding_set_for_a_layer_repairs_that_layer_on_the_way() {
    let place = Place::new();
    let line = ["--preset", "int4-static", "--set", "conv*", "rounding=descent"];
    let result = quantized(&place, &line);
    let layers = result["repair"]["layers"].as_array().expect("layers");
    assert!(!layers.is_empty() && layers.iter().all(|layer| layer["method"] == "descent"), "{layers:?}");
    let choice = |name: &str| {
        let layers = result["layers"].as_array().expect("layers");
        layers.iter().find(|layer| layer["name"] == name).expect("layer")["choice"]["rounding"].clone()
    };
    assert_eq!((choice("conv1"), choice("head")), ("descent".into(), "nearest".into()));
}

#[test]
fn presets_of_4_bits_repair_themselves_where_there_are_samples() {
    let place = Place::new();
    for preset in ["int4-static", "int4-weights"] {
        let result = quantized(&place, &["--preset", preset]);
        let plain = quantized(&place, &["--preset", preset, "--repair", "none"]);
        let db = |json: &Value| json["quality"]["sqnr_db"].as_f64().expect("dB");
        assert!(db(&result) > db(&plain) + 3.0, "{preset}: {} against {}", db(&result), db(&plain));
        let forecast = &result["repair"]["held_back"]["after_sqnr_db"];
        assert!(forecast.is_number() && plain["repair"].is_null(), "{result}");
        assert_eq!(&result["predicted_sqnr_db"], forecast);
        assert!((db(&result) - forecast.as_f64().expect("dB")).abs() < 1.5, "{preset}: {forecast}, {}", db(&result));
        let layers = result["layers"].as_array().expect("layers");
        let blocks =
            |op: &str| layers.iter().find(|layer| layer["op"] == op).expect("layer")["choice"]["granularity"].clone();
        let given = if preset == "int4-static" { ["per_channel"; 2] } else { ["block:32", "block:128"] };
        assert_eq!([blocks("Conv"), blocks("Gemm")], given.map(Value::from), "{preset}");
    }
}

#[test]
fn matrices_of_4_bits_take_the_faster_kernel_where_it_costs_little() {
    let place = Place::new();
    let [model, data, eval] =
        ["digits_transformer.onnx", "digits_transformer.calib.npz", "digits_transformer.eval.npz"].map(sample);
    let [model, data, eval] = [&model, &data, &eval].map(|path| path.to_string_lossy());
    let line = |more: &[&'static str]| {
        let mut line = vec!["quantize", &model, "--data", &data, "--eval", &eval, "-o", "q.onnx"];
        line.extend(["--preset", "int4-weights"]);
        line.extend(more);
        let json = place.json(line);
        let layers = json["layers"].as_array().expect("layers").iter();
        let fast = layers.filter(|layer| layer["form"] == "dynamic_matmul");
        let names: Vec<String> = fast.filter_map(|layer| Some(layer["name"].as_str()?.to_owned())).collect();
        (json, names)
    };
    // Which rows calibration keeps depends on the file's place, and so does a layer near the limit. The last matrix reads one
    // row a run, for which blocks are faster.
    let (json, fast) = line(&[]);
    assert!(fast.len() >= 9 && fast.iter().any(|name| name.starts_with("encoder0")), "{fast:?}");
    assert_eq!(json["layers"][13]["form"], "matmul_nbits");
    let said = json["problems"].as_array().expect("problems").iter().any(|problem| {
        problem["what"].as_str().is_some_and(|what| what.contains("matrices of 4-bit weights run on the faster"))
    });
    assert!(said, "{}", json["problems"]);
    assert!(json["quality"]["sqnr_db"].as_f64().expect("dB") > 21.0, "{}", json["quality"]);
    // What a person sets stays so, and without repairs nothing is learnt from the samples.
    let (_, fast) = line(&["--set", "encoder0*", "mode=weight_only,activation=float32,granularity=block:32"]);
    assert!(!fast.is_empty() && !fast.iter().any(|name| name.starts_with("encoder0")), "{fast:?}");
    assert!(line(&["--repair", "none"]).1.is_empty());
}

#[test]
fn fewer_levels_and_words_that_are_no_repair() {
    let place = Place::new();
    let full = quantized(&place, &["--preset", "int4-static", "--repair", "gptq"]);
    let three = quantized(&place, &["--preset", "int4-static", "--repair", "gptq", "--repair-levels", "8"]);
    let db = |json: &Value| json["quality"]["sqnr_db"].as_f64().expect("dB");
    assert!(db(&three) < db(&full) - 2.0 && db(&three) > 5.0, "{} {}", db(&three), db(&full));
    let model = cnn();
    let outcome =
        place.run(["repair", &model.to_string_lossy(), "--data", "random:4", "--method", "magic", "-o", "p.json"]);
    assert!(outcome.code == 2 && outcome.stderr.contains("gptq"), "{}", outcome.stderr);
}

#[test]
fn a_layer_repaired_at_once_gains_what_it_says() {
    let place = Place::new();
    let (model, data) = (cnn(), sample("digits_cnn.calib.npz"));
    let (model, data) = (model.to_string_lossy(), data.to_string_lossy());
    let line = ["repair", &model, "--data", &data, "--preset", "int4-weights", "--at-once", "-o", "p.json"];
    let run = |more: &[&str]| place.json(line.into_iter().chain(more.iter().copied()));
    let json = run(&["--layer", "pointwise2", "--method", "gptq"]);
    let [layer] = json["layers"].as_array().expect("layers").as_slice() else { panic!("{json}") };
    let db = |value: &Value| value.as_f64().expect("dB");
    let gain = db(&layer["after_sqnr_db"]) - db(&layer["before_sqnr_db"]);
    assert!(gain > 1.0 && (gain - db(&layer["gain_db"])).abs() < 0.05, "{layer}");
    let [low, high] = [0, 1].map(|end| db(&layer["gain_interval_db"][end]));
    assert!(low <= gain + 0.05 && gain - 0.05 <= high && high - low < 6.0, "{layer}");
    assert!(layer["learnt_from"].as_u64() > Some(5) && layer["judged_on"].as_u64() > Some(1), "{layer}");

    let output = &layer["output"];
    assert!(db(&output["after_sqnr_db"]) > db(&output["before_sqnr_db"]), "{output}");

    let all = run(&["--method", "best"]);
    assert_eq!(all["layers"].as_array().map(Vec::len), Some(6), "{all}");
    let nothing = run(&["--method", "refit"]);
    assert_eq!(nothing["layers"].as_array().map(Vec::len), Some(0), "refit looks at more than one layer");
    assert!(nothing["notes"].to_string().contains("refit does nothing"), "{}", nothing["notes"]);
}

#[test]
fn a_plan_saved_on_the_way_gives_the_same_file_without_repairing_again() {
    let place = Place::new();
    let first = quantized(&place, &["--preset", "int4-static", "--repair", "gptq", "--save-plan", "p.json"]);
    let bytes = std::fs::read(place.path("q.onnx")).expect("file");
    let again = quantized(&place, &["--plan", "p.json"]);
    assert!(first["repair"]["layers"].as_array().is_some_and(|layers| layers.len() == 6), "{}", first["repair"]);
    assert!(again["repair"].is_null(), "nothing was missing: {}", again["repair"]);
    assert!(std::fs::read(place.path("q.onnx")).expect("file") == bytes, "other bytes");
}
