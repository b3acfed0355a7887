//! `quantize`.

use serde_json::Value;

use crate::fixture::{Place, cnn, images, npz, sample};

fn layers(json: &Value) -> &Vec<Value> {
    json["layers"].as_array().expect("layers")
}

#[test]
fn int8_on_real_data_with_all_its_figures() {
    let place = Place::new();
    let [model, data, eval, labels] =
        [cnn(), sample("digits_cnn.calib.npz"), sample("digits_cnn.eval.npz"), sample("digits_cnn.labels.npy")];
    let mut line: Vec<&std::ffi::OsStr> =
        vec!["quantize".as_ref(), model.as_os_str(), "--data".as_ref(), data.as_os_str()];
    line.extend(["--eval".as_ref(), eval.as_os_str(), "--labels".as_ref(), labels.as_os_str()]);
    line.extend(["-o", "q.onnx"].map(AsRef::<std::ffi::OsStr>::as_ref));
    let json = place.json(line);
    let size = std::fs::metadata(place.path("q.onnx")).expect("written").len();
    assert_eq!(json["output"], "q.onnx");
    assert_eq!(json["size_bytes"]["quantized"].as_u64(), Some(size));
    assert!(json["size_bytes"]["original"].as_u64().is_some_and(|original| original > size));
    let quality = &json["quality"];
    assert!(quality["sqnr_db"].as_f64().is_some_and(|db| db > 15.0), "{quality}");
    assert!(quality["cosine"].as_f64().is_some_and(|cosine| cosine > 0.98), "{quality}");
    assert!(quality["top1_agreement"].as_f64().is_some_and(|share| share > 0.97), "{quality}");
    assert_eq!((&quality["output"], quality["non_finite"].as_u64()), (&"logits".into(), Some(0)));
    let accuracy = |side: &str| quality["accuracy"][side].as_f64().expect("accuracy");
    assert!((accuracy("original") - 0.97993).abs() < 1e-4 && accuracy("quantized") > 0.96, "{quality}");
    for layer in layers(&json) {
        for field in ["name", "choice", "form", "verdict", "reason"] {
            assert!(layer.get(field).is_some(), "{field}");
        }
    }
    for field in ["opset", "ir_version", "domains", "runtime", "session_options"] {
        assert!(json["deployment"].get(field).is_some(), "{field}");
    }
    assert!(json.get("predicted_sqnr_db").is_some() && json["problems"].is_array());
    assert_eq!(json["evaluation"]["held_back"], false);
    assert_eq!(place.names(), ["q.onnx"]);
}

#[test]
fn without_eval_a_third_is_held_back_and_the_output_says_so() {
    let place = Place::new();
    npz(&place.path("d.npz"), &[("image", images(12))]);
    let model = cnn();
    let model = model.to_string_lossy();
    let json = place.json(["quantize", &model, "--data", "d.npz", "-o", "q.onnx"]);
    assert_eq!(json["calibration"]["samples"], 8);
    assert_eq!((&json["evaluation"]["samples"], &json["evaluation"]["held_back"]), (&4.into(), &true.into()));
    let outcome = place.run(["quantize", &model, "--data", "d.npz", "-o", "q.onnx"]);
    assert!(outcome.stderr.contains("held back") && outcome.stdout.contains("Size"), "{}", outcome.stderr);
}

#[test]
fn presets_without_calibration_need_no_data_and_warn_loudly() {
    let place = Place::new();
    let model = cnn();
    let model = model.to_string_lossy();
    for preset in ["int8-weights", "int4-weights", "int8-dynamic", "float16-weights"] {
        let json = place.json(["quantize", &model, "--preset", preset, "-o", "q.onnx"]);
        assert!(json["notes"].to_string().contains("random"), "{preset}: {}", json["notes"]);
        assert_eq!(json["evaluation"]["samples"], 8);
        assert!(json["quality"]["sqnr_db"].as_f64().is_some_and(|db| db > 5.0), "{preset}: {}", json["quality"]);
        assert!(layers(&json).iter().any(|layer| !layer["form"].is_null()), "{preset}");
    }
}

#[test]
fn set_changes_single_layers_and_a_plan_file_says_the_same() {
    let place = Place::new();
    let model = cnn();
    let model = model.to_string_lossy();
    let json = place.json([
        "quantize",
        &model,
        "--preset",
        "int8-weights",
        "--set",
        "head",
        "precision=float32",
        "--set",
        "re:^conv",
        "symmetry=asymmetric",
        "-o",
        "q.onnx",
    ]);
    let choice = |name: &str| &layers(&json).iter().find(|layer| layer["name"] == name).expect("layer")["choice"];
    assert_eq!(choice("head")["precision"], "float32");
    assert_eq!(choice("conv1")["symmetry"], "asymmetric");
    assert_eq!(choice("pointwise1")["symmetry"], "symmetric");
    let idle =
        place.json(["quantize", &model, "--preset", "int8-weights", "--set", "zz*", "precision=int4", "-o", "q.onnx"]);
    assert!(idle["problems"].to_string().contains("zz*"));
}

#[test]
fn saved_statistics_replace_calibration_and_give_the_same_model() {
    let place = Place::new();
    npz(&place.path("d.npz"), &[("image", images(9))]);
    npz(&place.path("e.npz"), &[("image", images(5))]);
    let model = cnn();
    let model = model.to_string_lossy();
    place.json(["calibrate", &model, "--data", "d.npz", "-o", "s.stats"]);
    place.json(["quantize", &model, "--stats", "s.stats", "--eval", "e.npz", "-o", "a.onnx"]);
    place.json(["quantize", &model, "--data", "d.npz", "--eval", "e.npz", "-o", "b.onnx"]);
    let read = |name: &str| std::fs::read(place.path(name)).expect("model");
    assert!(read("a.onnx") == read("b.onnx"), "the same plan and the same statistics give the same bytes");
    let other = sample("digits_lstm.onnx");
    let line = ["quantize", &*other.to_string_lossy(), "--stats", "s.stats", "-o", "c.onnx"].map(str::to_owned);
    assert!(place.fails(1, line).contains("s.stats"));
}

#[test]
#[cfg(unix)]
fn ctrl_c_leaves_nothing_behind() {
    let place = Place::new();
    let model = cnn();
    let model = model.to_string_lossy();
    let (code, _) = place.interrupted(["quantize", &model, "--data", "random:1000000", "-o", "q.onnx"]);
    assert_eq!(code, Some(130));
    assert_eq!(place.names().len(), 0);
}

#[test]
fn data_may_be_a_folder_of_samples_and_labels_a_key() {
    let place = Place::new();
    std::fs::create_dir(place.path("d")).expect("folder");
    for i in 0..4 {
        npz(&place.path(&format!("d/{i:03}.npz")), &[("image", images(1))]);
    }
    let labels = ndarray::ArrayD::from_shape_vec(vec![5], vec![0.0, 1.0, 2.0, 3.0, 4.0]).expect("shape");
    npz(&place.path("e.npz"), &[("image", images(5)), ("label", labels)]);
    let model = cnn();
    let model = model.to_string_lossy();
    let line = ["quantize", &model, "--data", "d", "--eval", "e.npz", "--labels", "label", "-o", "q.onnx"];
    let json = place.json(line);
    assert_eq!((&json["calibration"]["samples"], &json["evaluation"]["samples"]), (&4.into(), &5.into()));
    assert!(json["quality"]["accuracy"]["original"].is_f64(), "{}", json["quality"]);
}

#[test]
fn nothing_to_quantize_is_an_error_and_statistics_leave_their_samples_out() {
    let place = Place::new();
    npz(&place.path("d.npz"), &[("image", images(9))]);
    let model = cnn();
    let model = model.to_string_lossy();
    place.json(["calibrate", &model, "--data", "d.npz", "--samples", "4", "-o", "s.stats"]);
    let json = place.json(["quantize", &model, "--stats", "s.stats", "--data", "d.npz", "-o", "q.onnx"]);
    assert_eq!(json["evaluation"]["samples"], 5, "the four that calibration saw do not judge");
    let error = place.fails(1, ["quantize", "q.onnx", "--preset", "int8-weights", "-o", "again.onnx"]);
    assert!(error.contains("nothing was quantized"), "{error}");
}

#[test]
fn inputs_with_outliers_are_spared_unless_a_person_says_static() {
    let place = Place::new();
    let file = |kind: &str| sample(&format!("digits_transformer.{kind}")).to_string_lossy().into_owned();
    let (model, data, eval) = (file("onnx"), file("calib.npz"), file("eval.npz"));
    let line = ["quantize", &model, "--data", &data, "--eval", &eval, "-o", "q.onnx"];
    let form = |json: &Value| {
        let layer = layers(json).iter().find(|layer| layer["name"] == "encoder1.ffn.fc2").expect("layer");
        (layer["form"].clone(), layer["choice"]["precision"].clone())
    };
    let spared = place.json(line);
    assert_eq!(form(&spared), ("matmul_nbits".into(), "int8".into()));
    let said = |json: &Value| json["problems"].to_string().contains("outliers");
    assert!(said(&spared), "{}", spared["problems"]);
    let kept = place.json(line.iter().copied().chain(["--set", "encoder1.ffn.fc2", "mode=static"]));
    assert_eq!(form(&kept), ("qdq".into(), "int8".into()));
    assert!(!said(&kept), "{}", kept["problems"]);
    let db = |json: &Value| json["quality"]["sqnr_db"].as_f64().expect("a number");
    assert!(db(&spared) > db(&kept) + 3.0, "{} {}", db(&spared), db(&kept));
}

/// The sample whose normalized inputs differ from channel to channel: every scaling that is kept gains on rows held back, and
/// the model as a whole does not lose.
#[test]
fn smoothquant_says_what_it_scaled_and_what_that_gains() {
    let place = Place::new();
    let [model, data, eval] =
        ["digits_transformer.onnx", "digits_transformer.calib.npz", "digits_transformer.eval.npz"].map(sample);
    let quantize = |more: &[&str]| {
        let mut line: Vec<&std::ffi::OsStr> = vec!["quantize".as_ref(), model.as_os_str()];
        line.extend(["--data".as_ref(), data.as_os_str(), "--eval".as_ref(), eval.as_os_str()]);
        line.extend(["-o", "q.onnx"].iter().chain(more).map(AsRef::<std::ffi::OsStr>::as_ref));
        place.json(line)
    };
    let plain = quantize(&[]);
    assert_eq!(plain["scaling"], Value::Null);
    let json = quantize(&["--repair", "smoothquant"]);
    assert_eq!(json["scaling"]["method"], "smoothquant");
    let blocks = json["scaling"]["blocks"].as_array().expect("blocks");
    let kept: Vec<&Value> = blocks.iter().filter(|block| block["kept"] == true).collect();
    assert!(!kept.is_empty(), "{blocks:#?}");
    for block in kept {
        assert!(block["after_db"].as_f64() > block["before_db"].as_f64(), "{block}");
        assert!(block["alpha"].as_f64().is_some_and(|alpha| (0.0..=1.0).contains(&alpha)), "{block}");
    }
    let db = |json: &Value| json["quality"]["sqnr_db"].as_f64().expect("dB");
    assert!(db(&json) > db(&plain), "{} → {}", db(&plain), db(&json));
    assert!(json["notes"].to_string().contains("rows held back"), "{}", json["notes"]);
    let outcome = place.run(["quantize", &model.to_string_lossy(), "-o", "q.onnx", "--repair", "magic"]);
    assert_eq!(outcome.code, 2, "{}", outcome.stderr);
}
