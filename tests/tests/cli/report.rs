//! `report`.

use crate::fixture::Place;

const BENCH: &str = r#"{"models": [{"path": "a.onnx", "size_bytes": 4000, "latency_ms": {"p50": 2.0, "p95": 3.0, "mean": 2.1}},
    {"path": "b.onnx", "size_bytes": 1000, "latency_ms": {"p50": 1.0, "p95": 1.5, "mean": 1.1}}],
    "latency_ratio": {"p50": 0.5, "low": 0.45, "high": 0.55}, "sqnr_db": 31.5, "agreement": 1.0}"#;

#[test]
fn saved_results_become_a_page_and_tables() {
    let place = Place::new();
    std::fs::write(place.path("bench.json"), BENCH).expect("write");
    let json = place.json(["report", "bench.json", "-o", "out"]);
    let files: Vec<_> = json["files"].as_array().expect("files").iter().filter_map(|f| f.as_str()).collect();
    assert_eq!(files.len(), 2);
    assert!(files.iter().all(|file| place.path(file).is_file()), "{files:?}");
    let page = std::fs::read_to_string(place.path("out/report.html")).expect("page");
    assert!(page.contains("0.50 (0.45 to 0.55), faster") && page.contains("31.50 dB"));
}

#[test]
fn what_is_no_result_is_refused_and_nothing_is_written() {
    let place = Place::new();
    std::fs::write(place.path("bad.json"), "{\"half\":").expect("write");
    assert!(place.fails(1, ["report", "bad.json", "-o", "out"]).contains("bad.json"));
    assert!(place.fails(1, ["report", "none.json", "-o", "out"]).contains("none.json"));
    assert_eq!(place.names(), ["bad.json"]);
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let place = Place::new();
    std::fs::write(place.path("bench.json"), BENCH).expect("write");
    std::fs::write(place.path("file"), "").expect("write");
    assert!(place.fails(1, ["report", "bench.json", "-o", "file/out"]).contains("file"));
}
