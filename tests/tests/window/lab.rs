//! The calibration lab.

use egui_kittest::kittest::{NodeT as _, Queryable as _};

use crate::harness::{click, predicted, undo, until};

/// What follows `Leave out ` in the name of the first such button that can be pressed.
fn first_sample(window: &egui_kittest::Harness<'_, nibble::window::App>) -> Option<String> {
    let button =
        window.query_all_by_label_contains("Leave out ").find(|button| !button.accesskit_node().is_disabled())?;
    Some(button.accesskit_node().label()?.trim_start_matches("Leave out ").to_owned())
}

#[test]
fn a_sample_is_left_out_with_one_click_and_taken_in_again_by_undo() {
    let (mut window, _) = predicted();
    assert!(window.query_by_label_contains("128 samples of").is_some());
    click(&mut window, "Lab tab");
    until(&mut window, "the lab", |window| first_sample(window).is_some());
    let verdict = window.get_by_label_contains("of those of all 128 samples").value().unwrap_or_default();
    assert!(verdict.starts_with("Calibration: "), "{verdict}");

    let name = first_sample(&window).expect("a sample");
    click(&mut window, &format!("Ranges set by {name}"));
    assert!(window.query_by_label("All ranges").is_some());
    click(&mut window, &format!("Leave out {name}"));
    until(&mut window, "calibration without it", |window| {
        window.query_by_label_contains("of those of all 127 samples").is_some() && first_sample(window).is_some()
    });
    assert!(window.query_by_label(&format!("Leave out {name}")).is_none(), "it sets nothing any more");
    assert!(window.query_by_label(&format!("Take in {name} again")).is_some());
    click(&mut window, "Calibrate tab");
    assert!(window.query_by_label_contains("127 samples of").is_some());

    undo(&mut window);
    until(&mut window, "calibration with it", |window| window.query_by_label_contains("128 samples of").is_some());
    click(&mut window, "Lab tab");
    until(&mut window, "the lab as before", |window| window.query_by_label(&format!("Leave out {name}")).is_some());
    assert!(window.query_by_label(&format!("Take in {name} again")).is_none());
}

#[test]
fn a_tensor_of_the_lab_leads_to_the_layers_that_read_it() {
    let (mut window, _) = predicted();
    click(&mut window, "Lab tab");
    until(&mut window, "the lab", |window| window.query_by_label("Range of depthwise1.relu").is_some());
    assert!(window.query_by_label_contains("Weights error").is_none(), "nothing is selected");
    click(&mut window, "Range of depthwise1.relu");
    until(&mut window, "its layer", |window| window.query_by_label("Activation clip high").is_some());
    assert!(window.query_by_label("All tensors").is_some());
    assert!(window.query_all_by_label("pointwise1").count() > 1, "in the table and in the inspector");
}
