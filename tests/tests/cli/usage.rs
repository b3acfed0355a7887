//! How the program is called, rightly and wrongly.

use crate::fixture::{Place, cnn};

#[test]
fn help_and_version_are_no_failures() {
    let place = Place::new();
    for flag in ["--help", "--version", "help"] {
        let outcome = place.run([flag]);
        assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""), "{flag}");
        assert!(outcome.stdout.contains("nibble") || outcome.stdout.contains("Nibble"));
    }
    let help = place.run(["--help"]).stdout;
    for verb in ["inspect", "calibrate", "quantize", "bench", "evaluate", "report", "demo"] {
        assert!(help.contains(verb), "{verb}");
        let help = place.run([verb, "--help"]);
        assert!(help.code == 0 && help.stdout.contains("--json") && help.stdout.contains("Usage"), "{verb}");
    }
    assert!(!help.contains("__measure"));
    let help = place.run(["help", "quantize"]);
    assert!(help.code == 0 && help.stdout.contains("--preset") && help.stderr.is_empty(), "{}", help.stderr);
}

#[test]
fn wrong_usage_is_told_apart_from_failure() {
    let place = Place::new();
    let model = cnn();
    let model = model.to_string_lossy();
    assert!(place.fails(2, ["inspect"]).contains("MODEL"));
    assert!(place.fails(2, ["inspect", &model, "--wrong"]).contains("--wrong"));
    assert!(place.fails(2, ["calibrate", &model, "-o", "s.stats"]).contains("--data"));
    assert!(place.fails(2, [&*model, "inspect", &model]).contains("before the verb"));
    assert!(place.fails(2, ["quantze", &model]).contains("quantze is neither a verb nor a model"));
    assert!(place.fails(2, ["frobnicate"]).contains("neither a verb nor a model"));
    assert!(place.fails(1, ["nowhere.onnx"]).contains("nowhere.onnx"));
    assert!(place.fails(2, ["quantize", &model, "-o", "q.onnx", "--set", "conv*"]).contains("--set"));
    for seconds in ["nan", "inf", "0", "-1"] {
        assert!(place.fails(2, ["bench", &model, &model, "--seconds", seconds]).contains("--seconds"), "{seconds}");
    }
    assert_eq!(place.names().len(), 0);
}

#[test]
fn json_may_be_asked_for_twice() {
    let place = Place::new();
    let model = cnn();
    assert!(place.json(["inspect", "--json", &model.to_string_lossy()])["model"].is_object());
}

#[test]
fn an_error_for_people_has_message_place_and_hint_on_lines_of_their_own() {
    let place = Place::new();
    let outcome = place.run(["inspect", "nowhere.onnx"]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (1, ""));
    let lines: Vec<_> = outcome.stderr.lines().collect();
    assert!(lines[0].starts_with("Error: ") && lines[1].starts_with("Where: ") && lines[2].starts_with("Hint:  "));
    assert!(lines[1].contains("nowhere.onnx"));
}

#[test]
fn a_fetch_of_the_runtime_is_announced_before_it_begins() {
    let place = Place::new();
    let model = cnn();
    let outcome = place.run_without_runtime(["bench", &model.to_string_lossy(), &model.to_string_lossy()]);
    assert_eq!(outcome.code, 1, "{}", outcome.stderr);
    let at = |text: &str| outcome.stderr.find(text).unwrap_or_else(|| panic!("no {text:?}: {}", outcome.stderr));
    assert!(at("Fetching ONNX Runtime") < at("Error: "));
    assert!(outcome.stderr.contains("package onnxruntime"));
}
