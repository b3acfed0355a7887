//! `auto` under every budget, and metrics that the person chooses.

use std::ffi::OsString;

use serde_json::Value;

use crate::fixture::{Place, cnn, sample};

fn line(verb: &str, name: &str, more: &[&str]) -> Vec<OsString> {
    let [model, data, eval] = ["onnx", "calib.npz", "eval.npz"].map(|end| sample(&format!("{name}.{end}")));
    let mut line: Vec<OsString> = vec![verb.into(), model.into(), "--data".into(), data.into()];
    line.extend(["--eval".into(), eval.into()]);
    line.extend(more.iter().map(Into::into));
    line
}

fn labels(name: &str) -> String {
    sample(&format!("{name}.labels.npy")).display().to_string()
}

fn number(json: &Value, pointer: &str) -> f64 {
    json.pointer(pointer).and_then(Value::as_f64).unwrap_or_else(|| panic!("{pointer} in {json}"))
}

#[test]
fn a_bounded_drop_of_accuracy_holds_when_it_is_measured_again() {
    let place = Place::new();
    let labels = labels("digits_cnn");
    let more = ["--labels", &labels, "--max-drop", "1", "--samples", "64", "-o", "plan.json"];
    let json = place.json(line("auto", "digits_cnn", &more));
    assert_eq!(json["measured"]["metric"]["name"], "accuracy");
    assert!(number(&json, "/measured/metric/drop") <= 1.0, "{}", json["measured"]);
    assert!(json["evaluations"].as_u64().is_some_and(|count| count <= 12));
    // The other half, which the search has not seen, holds it too.
    assert!(number(&json, "/measured/unseen/drop") <= 1.0 && number(&json, "/measured/unseen/samples") >= 40.0);
    let more = ["--labels", &labels, "--plan", "plan.json", "--samples", "64", "-o", "q.onnx"];
    let again = place.json(line("quantize", "digits_cnn", &more));
    let drop = number(&again, "/quality/accuracy/original") - number(&again, "/quality/accuracy/quantized");
    assert!(drop <= 0.01 + 1e-9, "{drop}");
    assert_eq!(
        (&again["metric"]["name"], number(&again, "/metric/value")),
        (&"accuracy".into(), number(&again, "/quality/accuracy/quantized"))
    );
}

#[test]
fn what_cannot_be_kept_is_said_and_no_plan_is_written() {
    let place = Place::new();
    let error =
        place.fails(1, line("auto", "digits_cnn", &["--max-latency", "0.01", "--samples", "32", "-o", "p.json"]));
    assert!(error.contains("--max-latency") && error.contains("the fastest measured"), "{error}");
    let more = ["--max-drop", "0", "--metric", "kl", "--samples", "32", "--max-size", "15%", "-o", "p.json"];
    let error = place.fails(1, line("auto", "digits_cnn", &more));
    assert!(error.contains("--max-drop") || error.contains("all of them"), "{error}");
    assert!(place.names().is_empty(), "{:?}", place.names());
    let error = place.fails(2, line("auto", "digits_cnn", &["-o", "p.json"]));
    assert!(error.contains("no budget"), "{error}");
}

#[test]
fn budgets_hold_together_and_points_have_latencies() {
    let place = Place::new();
    let more = ["--max-size", "60%", "--max-latency", "50", "--samples", "64", "-o", "plan.json"];
    let json = place.json(line("auto", "digits_cnn", &more));
    let original = std::fs::metadata(cnn()).expect("model").len() as f64;
    assert!(number(&json, "/predicted/size_bytes") <= 0.6 * original);
    assert!(number(&json, "/measured/latency_ratio/p50") <= 50.0);
    let pareto = json["pareto"].as_array().expect("pareto");
    for point in pareto {
        assert!(point["latency_ratio"].as_f64().is_some_and(|ratio| ratio > 0.0), "{point}");
        let measured = point["measured_sqnr_db"].as_f64();
        assert_eq!(measured.is_some(), point["measured_latency_ratio"]["p50"].is_number(), "{point}");
    }
    // The most exact plan of those that fit was chosen.
    let chosen = number(&json, "/measured/sqnr_db");
    let fits = |point: &&Value| point["size_bytes"].as_f64().is_some_and(|size| size <= 0.6 * original);
    assert!(pareto.iter().filter(fits).filter_map(|p| p["measured_sqnr_db"].as_f64()).all(|db| db <= chosen));
}

#[test]
fn the_metric_in_front_is_chosen_or_asked_for() {
    let place = Place::new();
    let quantize = |metric: &[&str]| {
        let more = [&["--samples", "32", "--preset", "int8-weights", "-o", "q.onnx"], metric].concat();
        place.json(line("quantize", "digits_cnn", &more))["metric"].clone()
    };
    let chosen = quantize(&[]);
    assert_eq!(chosen["name"], "kl");
    assert!(chosen["reason"].as_str().is_some_and(|reason| reason.contains("scores of classes")), "{chosen}");
    assert!(number(&chosen, "/value") > 0.0);
    assert!((0.9..=1.0).contains(&number(&quantize(&["--metric", "agreement"]), "/value")));
    let missing = quantize(&["--metric", "accuracy"]);
    assert!(missing["value"].is_null() && missing["problem"].as_str().is_some_and(|why| why.contains("labels")));
    let q = place.path("q.onnx").display().to_string();
    let model = cnn().display().to_string();
    let eval = sample("digits_cnn.eval.npz").display().to_string();
    let bench = place.json(["bench", &model, &q, "--data", &eval, "--seconds", "0.2", "--metric", "cosine"]);
    assert!(number(&bench, "/metric/value") > 0.99, "{}", bench["metric"]);
    let error = place.fails(2, ["evaluate", &model, "--eval", &eval, "--metric", "kl"]);
    assert!(error.contains("one model only"), "{error}");
    place.fails(2, ["evaluate", &model, "--eval", &eval, "--metric", "auc"]);
}

#[cfg(unix)]
mod own {
    use super::*;

    /// Prints the number of arrays whose names it finds in the archive.
    const COUNT: &str = r#"sh -c 'echo scoring; grep -ac "logits.npy" "$0"'"#;

    fn evaluate(place: &Place, command: &str) -> Vec<OsString> {
        let eval = sample("digits_cnn.eval.npz");
        let _ = place;
        vec!["evaluate".into(), cnn().into(), "--eval".into(), eval.into(), "--metric-command".into(), command.into()]
    }

    #[test]
    fn a_program_judges_evaluate_quantize_and_auto() {
        let place = Place::new();
        let json = place.json(evaluate(&place, COUNT));
        assert!(number(&json, "/metric/value") >= 1.0 && json["accuracy"].is_null(), "{json}");
        let more = ["--samples", "32", "--metric-command", COUNT, "-o", "q.onnx"];
        let json = place.json(line("quantize", "digits_cnn", &more));
        assert_eq!(json["metric"]["name"], "command");
        assert!(number(&json, "/metric/value") >= 1.0);
        // A constant score drops by nothing, so that the smallest plan that was run is the answer.
        let constant = ["--samples", "32", "--metric-command", "sh -c 'echo 7'", "--max-drop", "0.5", "-o", "p.json"];
        let json = place.json(line("auto", "digits_cnn", &constant));
        assert_eq!((number(&json, "/measured/metric/value"), number(&json, "/measured/metric/drop")), (7.0, 0.0));
        let measured = |point: &&Value| !point["measured_sqnr_db"].is_null();
        let pareto = json["pareto"].as_array().expect("pareto");
        let least = pareto.iter().filter(measured).filter_map(|point| point["size_bytes"].as_u64()).min();
        assert_eq!(json["predicted"]["size_bytes"].as_u64(), least);
    }

    #[test]
    fn a_program_that_fails_says_how() {
        let place = Place::new();
        for (command, expected) in [
            ("no-such-program-anywhere x", "was not found (no-such-program-anywhere)"),
            ("sh -c 'echo missing labels >&2; exit 3'", "exit code 3"),
            ("sh -c 'echo all is well'", "no number on its last line"),
            ("sh -c 'true'", "printed no number"),
            ("sh -c 'echo nan'", "not finite"),
            ("sh 'unclosed", "not closed"),
        ] {
            let error = place.fails(1, evaluate(&place, command));
            assert!(error.contains(expected), "{command}: {error}");
        }
        let error = place.fails(1, evaluate(&place, "sh -c 'echo missing labels >&2; exit 3'"));
        assert!(error.contains("It said: missing labels"), "{error}");
    }
}
