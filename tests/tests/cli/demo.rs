//! `demo`, and what the program does without a display.

use crate::fixture::{Place, cnn};

#[test]
fn the_whole_job_on_the_bundled_sample() {
    let place = Place::new();
    let json = place.json(["demo"]);
    for field in
        ["size_bytes", "quality", "layers", "deployment", "problems", "models", "latency_ratio", "report", "output"]
    {
        assert!(!json[field].is_null(), "{field}");
    }
    assert!(json["quality"]["accuracy"]["quantized"].as_f64().is_some_and(|share| share > 0.96));
    let report = json["report"].as_str().expect("report");
    let measured =
        json["layers"].as_array().expect("layers").iter().filter(|layer| !layer["measured"].is_null()).count();
    assert_eq!(measured, 6, "the profiles of both models name every layer: {}", json["layer_times"]);
    let page = std::fs::read_to_string(place.path(report)).expect("page");
    assert!(page.contains("expected faster") && page.contains("Measured") && !page.contains("runs faster"));
    assert!(place.path(report).is_file() && place.path(json["output"].as_str().expect("output")).is_file());
}

#[test]
fn another_model_runs_on_random_inputs_and_says_so() {
    let place = Place::new();
    let model = cnn();
    let json = place.json(["demo".as_ref(), model.as_os_str()]);
    let notes = json["notes"].as_array().expect("notes");
    let said = notes.iter().filter(|note| note.to_string().contains("random")).count();
    assert_eq!(said, 1, "once is enough: {notes:?}");
    assert!(place.path("nibble-report/report.html").is_file());
}

#[test]
#[cfg(target_os = "linux")]
fn without_a_display_the_window_gives_way_to_the_demo() {
    for (place, reason) in [(Place::new(), "no display"), (Place::with_dead_display(), "cannot be opened")] {
        gives_way(&place, reason);
    }
}

#[cfg(target_os = "linux")]
fn gives_way(place: &Place, reason: &str) {
    let outcome = place.run::<&str>([]);
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert!(outcome.stderr.lines().next().is_some_and(|line| line.contains(reason)), "{}", outcome.stderr);
    assert!(outcome.stdout.contains("Original") && outcome.stdout.contains("Latency"), "{}", outcome.stdout);
    assert!(place.path("nibble-report/report.html").is_file());
}
