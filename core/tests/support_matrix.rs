//! The support matrix in `assets/docs` says what a run says: a sample of its cells is run again (results, no times).

#[path = "../examples/support_matrix/cells.rs"]
#[allow(dead_code)]
mod cells;
#[path = "../examples/support_matrix/operators.rs"]
#[allow(dead_code)]
mod operators;

use nibble_core::Control;
use nibble_core::runtime::Runtime;

const DOCUMENT: &str = include_str!("../../assets/docs/support-matrix.md");

/// A cell that the document has, column by column.
fn row<'d>(operator: &str, scheme: &str) -> Vec<&'d str> {
    let section = DOCUMENT.split("\n## ").find(|section| section.lines().next() == Some(operator)).expect(operator);
    let line = section.lines().find(|line| line.starts_with(&format!("| {scheme} |"))).expect(scheme);
    line.split('|').map(str::trim).collect()
}

/// An upper bound of a difference as the document writes it.
fn bound(difference: &str) -> f64 {
    match difference.strip_suffix(" LSB") {
        // The runtime's fused kernels round once where our arithmetic rounds twice: a step on other processors too.
        Some(steps) => steps.parse::<f64>().expect("steps") + 1.0,
        None if difference == "equal" => 1e-6,
        None => difference.parse::<f64>().expect("number") * 2.0 + 1e-6,
    }
}

#[test]
fn a_sample_of_the_cells_says_the_same() {
    let runtime = Runtime::start(None, &Control::new()).expect("ONNX Runtime");
    let operators = operators::operators();
    // Other cells on other days, the same ones within a day: a failure can be run again.
    let day = std::time::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_secs() / 86_400);
    let mut rng = fastrand::Rng::with_seed(day);
    for _ in 0..24 {
        let operator = &operators[rng.usize(..operators.len())];
        let scheme = cells::SCHEMES[rng.usize(..cells::SCHEMES.len())];
        let place = format!("day {day}, {}, {}", operator.name, scheme.0);
        let documented = row(operator.name, scheme.0);
        match cells::cell(runtime, operator, scheme) {
            Ok(cell) => {
                assert_eq!(documented[2], format!("`{}`", cell.outcome.form), "{place}");
                assert_eq!(documented[3], format!("{:?}", cell.outcome.verdict), "{place}");
                let difference = if documented[4].ends_with("LSB") { cell.steps } else { Some(cell.relative) };
                let difference = difference.expect("an output in steps");
                assert!(difference <= bound(documented[4]), "{place}: {difference}, documented {}", documented[4]);
            }
            Err(error) => assert_eq!(documented[3], "refused", "{place}: {error}"),
        }
    }
}
