//! `evaluate`.

use crate::fixture::{Place, cnn, sample};

#[test]
fn accuracy_on_labelled_data() {
    let place = Place::new();
    let [model, eval, labels] = [cnn(), sample("digits_cnn.eval.npz"), sample("digits_cnn.labels.npy")];
    let line: [&std::ffi::OsStr; 6] = [
        "evaluate".as_ref(),
        model.as_os_str(),
        "--eval".as_ref(),
        eval.as_os_str(),
        "--labels".as_ref(),
        labels.as_os_str(),
    ];
    let json = place.json(line);
    assert_eq!(json["samples"], 1744);
    assert!(json["accuracy"].as_f64().is_some_and(|share| (share - 0.97993).abs() < 1e-4), "{json}");
    let few = place.json(line.into_iter().chain(["--samples".as_ref(), "100".as_ref()]));
    assert_eq!(few["samples"], 100);
}
