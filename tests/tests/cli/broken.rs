//! Bad input: every failure has exit code 1, a message, a place and a hint, and leaves nothing behind.

use nibble_core::onnx::proto::StringStringEntryProto;

use crate::fixture::{Place, changed, cnn, images, npz, sample};

#[test]
fn files_that_are_no_models() {
    let place = Place::new();
    let whole = std::fs::read(cnn()).expect("model");
    let files: [(&str, &[u8]); 4] = [
        ("empty.onnx", b""),
        ("text.onnx", b"hello, world"),
        ("half.onnx", &whole[..whole.len() / 2]),
        ("zip.onnx", b"PK\x03\x04"),
    ];
    for (name, bytes) in files {
        std::fs::write(place.path(name), bytes).expect("write");
        assert!(place.fails(1, ["inspect", name]).contains(name), "{name}");
        assert!(
            place.fails(1, ["quantize", name, "--preset", "int8-weights", "-o", "q.onnx"]).contains(name),
            "{name}"
        );
    }
    assert!(place.fails(1, ["inspect", "."]).contains('.'));
    assert_eq!(place.names().len(), files.len());
}

#[test]
fn a_model_that_the_runtime_refuses_is_not_blamed_on_the_export() {
    let place = Place::new();
    changed(&place.path("m.onnx"), |model| {
        let node = model.graph.as_mut().expect("graph").node.last_mut().expect("node");
        node.op_type = Some("NoSuchOperator".to_owned());
    });
    let error = place.fails(1, ["quantize", "m.onnx", "--preset", "int8-weights", "-o", "q.onnx"]);
    assert!(error.contains("NoSuchOperator") && error.contains("m.onnx") && !error.contains("defect"), "{error}");
    let error = place.fails(1, ["calibrate", "m.onnx", "--data", "random:2", "-o", "s.stats"]);
    assert!(error.contains("NoSuchOperator") && error.contains("m.onnx"), "{error}");
    assert_eq!(place.names(), ["m.onnx"]);
}

#[test]
fn external_data_that_are_missing() {
    let place = Place::new();
    changed(&place.path("m.onnx"), |model| {
        let tensor = &mut model.graph.as_mut().expect("graph").initializer[0];
        tensor.raw_data = None;
        tensor.float_data.clear();
        tensor.data_location = Some(1);
        let entry = |key: &str, value: &str| StringStringEntryProto {
            key: Some(key.to_owned()),
            value: Some(value.to_owned()),
        };
        tensor.external_data = vec![entry("location", "weights.bin"), entry("offset", "0")];
    });
    let error = place.fails(1, ["quantize", "m.onnx", "--preset", "int8-weights", "-o", "q.onnx"]);
    assert!(error.contains("weights.bin"), "{error}");
    assert_eq!(place.names(), ["m.onnx"]);
}

#[test]
fn data_that_do_not_fit_the_model() {
    let place = Place::new();
    let model = cnn();
    let model = model.to_string_lossy();
    let mut nan = images(3);
    nan[[1, 0, 2, 2]] = f32::NAN;
    let cases = [
        ("names.npz", vec![("picture", images(3)), ("other", images(3))], "picture"),
        ("shape.npz", vec![("image", images(4).into_shape_with_order(vec![2, 2, 28, 28]).expect("shape"))], "image"),
        ("nan.npz", vec![("image", nan)], "NaN"),
        ("none.npz", vec![("image", images(0))], "none.npz"),
        ("empty.npz", vec![], "empty.npz"),
    ];
    for (name, arrays, word) in &cases {
        npz(&place.path(name), arrays);
        for verb in [
            vec!["calibrate", &*model, "--data", name, "-o", "s.stats"],
            vec!["quantize", &*model, "--data", name, "-o", "q.onnx"],
            vec!["bench", &*model, &*model, "--data", name],
        ] {
            let error = place.fails(1, &verb);
            assert!(error.contains(word), "{verb:?}: {error}");
        }
    }
    std::fs::write(place.path("text.npz"), "no archive").expect("write");
    assert!(place.fails(1, ["quantize", &model, "--data", "text.npz", "-o", "q.onnx"]).contains("text.npz"));
    assert!(place.fails(1, ["quantize", &model, "--data", "nowhere.npz", "-o", "q.onnx"]).contains("nowhere.npz"));
    assert_eq!(place.names().len(), cases.len() + 1);
}

#[test]
fn labels_of_another_length() {
    let place = Place::new();
    let model = cnn();
    let labels = sample("digits_cnn.labels.npy");
    npz(&place.path("d.npz"), &[("image", images(6))]);
    for verb in ["evaluate", "quantize"] {
        let mut line: Vec<std::ffi::OsString> =
            vec![verb.into(), model.clone().into(), "--eval".into(), "d.npz".into()];
        line.extend(["--labels".into(), labels.clone().into()]);
        if verb == "quantize" {
            line.extend(["--preset", "int8-weights", "-o", "q.onnx"].map(Into::into));
        }
        let error = place.fails(1, line);
        assert!(error.contains("1744") && error.contains('6'), "{error}");
    }
    assert_eq!(place.names(), ["d.npz"]);
}

#[test]
fn places_that_cannot_be_written_to() {
    let place = Place::new();
    let model = cnn();
    let model = model.to_string_lossy();
    npz(&place.path("d.npz"), &[("image", images(6))]);
    std::fs::create_dir(place.path("folder")).expect("folder");
    for output in ["nowhere/q.onnx", "folder"] {
        let error = place.fails(1, ["quantize", &model, "--data", "d.npz", "-o", output]);
        assert!(error.contains(output), "{error}");
        let error = place.fails(1, ["calibrate", &model, "--data", "d.npz", "-o", output]);
        assert!(error.contains(output), "{error}");
    }
    assert_eq!(place.names(), ["d.npz", "folder"]);
    assert_eq!(std::fs::read_dir(place.path("folder")).expect("folder").count(), 0);
}

#[test]
fn an_output_that_would_destroy_an_input() {
    let place = Place::new();
    std::fs::copy(cnn(), place.path("m.onnx")).expect("model");
    npz(&place.path("d.npz"), &[("image", images(6))]);
    npz(&place.path("e.npz"), &[("image", images(3)), ("truth", ndarray::ArrayD::zeros(vec![3]))]);
    let before = |name: &str| std::fs::read(place.path(name)).expect("input");
    let all = ["m.onnx", "d.npz", "e.npz"].map(before);
    let quantize = ["quantize", "m.onnx", "--data", "d.npz", "--eval", "e.npz", "--labels", "e.npz:truth", "-o"];
    for output in ["m.onnx", "d.npz", "./e.npz"] {
        let error = place.fails(1, quantize.iter().chain(&[output]));
        assert!(error.contains(output), "{error}");
    }
    for output in ["m.onnx", "d.npz"] {
        let error = place.fails(1, ["calibrate", "m.onnx", "--data", "d.npz", "-o", output]);
        assert!(error.contains(output), "{error}");
    }
    assert_eq!(all, ["m.onnx", "d.npz", "e.npz"].map(before));
    assert_eq!(place.names(), ["d.npz", "e.npz", "m.onnx"]);
    let outcome = place.json(quantize.iter().chain(&["q.onnx"]));
    assert!(outcome["quality"]["accuracy"]["original"].is_number(), "{outcome}");
}

#[cfg(unix)]
#[test]
fn a_pipe_is_no_place_for_a_model() {
    let place = Place::new();
    let made = std::process::Command::new("mkfifo").arg(place.path("pipe")).status().expect("mkfifo");
    assert!(made.success());
    let model = cnn();
    let model = model.to_string_lossy();
    for verb in [vec!["quantize", "--preset", "int8-weights"], vec!["calibrate", "--data", "random:2"]] {
        let error = place.fails(1, verb.iter().copied().chain([&*model, "-o", "pipe"]));
        assert!(error.contains("no file"), "{error}");
    }
    use std::os::unix::fs::FileTypeExt;
    assert!(std::fs::metadata(place.path("pipe")).expect("still there").file_type().is_fifo());
}

#[test]
fn a_failed_run_leaves_the_old_output_alone() {
    let place = Place::new();
    let model = cnn();
    let model = model.to_string_lossy();
    std::fs::write(place.path("q.onnx"), "precious").expect("write");
    place.fails(1, ["quantize", &model, "--data", "nowhere.npz", "-o", "q.onnx"]);
    let nothing = ["quantize", &model, "--preset", "int8-weights", "--set", "*", "precision=float32", "-o", "q.onnx"];
    let error = place.fails(1, nothing);
    assert!(error.contains("nothing was quantized"), "{error}");
    assert_eq!(std::fs::read(place.path("q.onnx")).expect("old"), b"precious");
}

#[test]
fn a_runtime_that_cannot_be_loaded_says_what_to_do() {
    let place = Place::new();
    let model = cnn();
    let model = model.to_string_lossy();
    std::fs::write(place.path("lib.so"), "no library").expect("write");
    let error = place.fails(1, ["quantize", &model, "--preset", "int8-weights", "-o", "q.onnx", "--runtime", "lib.so"]);
    assert!(error.contains("lib.so"), "{error}");
    assert_eq!(place.names(), ["lib.so"]);
}

#[test]
fn words_that_do_not_exist_are_wrong_usage() {
    let place = Place::new();
    let model = cnn();
    let model = model.to_string_lossy();
    let base = ["quantize", &*model, "-o", "q.onnx"];
    let cases = [
        (vec!["--preset", "int3"], "int3"),
        (vec!["--preset", "int8-weights", "--set", "*", "bits=3"], "bits"),
        (vec!["--preset", "int8-weights", "--set", "*", "precision=int5"], "int5"),
        (vec!["--preset", "int8-weights", "--set", "re:(", "precision=int8"], "re:("),
        (vec!["--preset", "int8-weights", "--shape", "image"], "image"),
        (vec!["--preset", "int8-weights", "--set", "*", ""], "key"),
        (vec!["--preset", "int8-weights", "--set", "*", "precision=int8,precision=int4"], "twice"),
        (vec!["--preset", "int8-weights", "--shape", "picture=1,1,28,28"], "picture"),
        (vec!["--preset", "int8-weights", "--threads", "100000"], "1024"),
        (vec!["--preset", "int8-weights", "--samples", "-1"], "-1"),
        (vec!["--preset", "int8-weights", "--image", "size=big"], "size"),
        (vec!["--preset", "int8-weights", "--labels", "l.npy"], "labels"),
        (vec!["--preset", "int8"], "--data"),
    ];
    for (rest, word) in cases {
        let error = place.fails(2, base.iter().chain(&rest));
        assert!(error.contains(word), "{error}");
    }
    assert_eq!(place.names().len(), 0);
}
