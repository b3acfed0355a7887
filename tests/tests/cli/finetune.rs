//! `finetune`, killed and taken up again.

use serde_json::Value;

use crate::fixture::{Place, cnn, sample};

/// The verb on 2-bit weights, of which much is to be had; `steps` decide how long it takes.
fn line(steps: &str) -> Vec<String> {
    let [model, data, eval] = [cnn(), sample("digits_cnn.calib.npz"), sample("digits_cnn.eval.npz")];
    let [model, data, eval] = [&model, &data, &eval].map(|path| path.to_string_lossy().into_owned());
    let set = ["--preset", "int4-static", "--set", "*", "precision=int2,granularity=per_channel"];
    let rest = ["--steps", steps, "--batch", "32", "-o", "t.json"];
    ["finetune", &model, "--data", &data, "--eval", &eval]
        .iter()
        .chain(&set)
        .chain(&rest)
        .map(|&s| s.to_owned())
        .collect()
}

fn db(value: &Value) -> f64 {
    value.as_f64().expect("dB")
}

#[test]
fn training_gains_on_samples_it_has_not_seen() {
    let place = Place::new();
    let json = place.json(line("60"));
    let (before, after) = (db(&json["before"]["sqnr_db"]), db(&json["after"]["sqnr_db"]));
    assert!(after > before + 4.0, "{before} dB → {after} dB");
    assert_eq!((&json["steps"]["taken"], &json["steps"]["resumed"]), (&60.into(), &false.into()));
    assert_eq!(json["evaluation"]["held_back"], false);
    assert_eq!(place.names(), ["t.json", "t.safetensors"]);
}

#[test]
fn training_goes_on_from_repairs_and_keeps_what_is_better() {
    let place = Place::new();
    let two_bits = line("40");
    let set = two_bits.iter().position(|word| word == "--set").expect("--set");
    let four_bits: Vec<String> = two_bits
        .iter()
        .enumerate()
        .filter(|(at, _)| !(set..set + 3).contains(at))
        .map(|(_, word)| word.clone())
        .collect();
    let json = place.json(four_bits.iter().map(String::as_str).chain(["--repair", "refit"]));
    let loss = |of: &str| db(&json[of]["held_back"]["loss"]);
    assert!(loss("after") <= loss("before"), "{} {}", loss("before"), loss("after"));
    let (before, after) = (db(&json["before"]["sqnr_db"]), db(&json["after"]["sqnr_db"]));
    assert!(before > 20.0 && after > before - 0.3, "{before} dB → {after} dB");
    let words = place.fails(2, four_bits.iter().map(String::as_str).chain(["--repair", "awq"]));
    assert!(words.contains("scales nothing"), "{words}");
}

/// A process that is killed (SIGKILL on Unix, which it cannot see coming) leaves a state that the same command goes on from, to
/// the same plan as one that nobody killed.
#[test]
fn a_killed_process_is_taken_up_where_it_was() {
    let (killed, whole) = (Place::new(), Place::new());
    let mut child = killed.start(line("120"));
    let started = std::time::Instant::now();
    while !killed.path("t.finetune-state").exists() {
        assert!(child.try_wait().expect("waits").is_none(), "it ended before it saved its state");
        assert!(started.elapsed().as_secs() < 300, "no state is saved");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    child.kill().expect("killed");
    assert!(!child.wait().expect("ends").success());
    assert!(!killed.path("t.json").exists(), "no plan before the end");
    let resumed = killed.json(line("120"));
    let whole_json = whole.json(line("120"));
    let steps = &resumed["steps"];
    assert_eq!((&steps["resumed"], &steps["taken"]), (&true.into(), &whole_json["steps"]["taken"]), "{steps}");
    let loss = |of: &str| db(&resumed[of]["held_back"]["loss"]);
    assert!(loss("after") < loss("before"), "{} {}", loss("before"), loss("after"));
    assert_eq!(resumed["after"]["sqnr_db"], whole_json["after"]["sqnr_db"]);
    let weights = |place: &Place| std::fs::read(place.path("t.safetensors")).expect("written");
    assert!(weights(&killed) == weights(&whole), "other weights than without the kill");
    assert!(!killed.path("t.finetune-state").exists(), "a finished run leaves no state");
}
