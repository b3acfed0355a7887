//! Repairs in the window: previewed, accepted as one step, taken back, saved and opened.

use eframe::egui::accesskit::Role;
use eframe::egui::{Key, Modifiers};
use egui_kittest::Harness;
use egui_kittest::kittest::{NodeT, Queryable};
use nibble::window::App;

use crate::harness::{
    LAYER, choose, click, decibels, fill, folder, open, open_plan, predicted, preset, ready, sample, save_plan, steps,
    undo, until, wait_decibels, window,
};

/// The window with the digit classifier in 4-bit weights, its calibration data filled in, and one layer selected.
fn int4() -> Harness<'static, App> {
    let mut window = window();
    ready(&mut window);
    preset(&mut window, "int4-weights");
    fill(&mut window, "Calibration data", &sample("digits_cnn.calib.npz").display().to_string());
    click(&mut window, LAYER);
    click(&mut window, "Repair tab");
    window
}

/// Runs the method for the whole plan, waits for all that it finds, and accepts it.
fn accept(window: &mut Harness<'_, App>, method: &str) {
    click(window, "Repair tab");
    click(window, "Repair the whole plan");
    click(window, &format!("Method {method}"));
    click(window, "Start repair");
    whole(window);
    idle(window);
    click(window, "Accept the repair");
}

fn scaled(window: &Harness<'_, App>) -> usize {
    window.query_all_by_label_contains(" is scaled").count()
}

fn idle(window: &mut Harness<'_, App>) {
    until(window, "the end", |window| window.query_by_label("Cancel").is_none());
}

/// What the whole model does before and after, in dB.
fn whole(window: &mut Harness<'_, App>) -> (f64, f64) {
    until(window, "the whole model", |window| window.query_by_label_contains("Whole model: ").is_some());
    let text = window.get_by_label_contains("Whole model: ").value().expect("figures");
    let (before, after) = text.trim_start_matches("Whole model: ").split_once(" → ").expect("two");
    let db = |text: &str| text.trim_end_matches(" dB").parse().expect("dB");
    (db(before), db(after))
}

/// Layers whose pill in the table says that they were repaired by `word`.
fn pills(window: &Harness<'_, App>, word: &str) -> usize {
    window.query_all_by_label_contains(&format!("is repaired by {word}")).count()
}

#[test]
fn a_repair_is_previewed_accepted_and_taken_back() {
    let mut window = int4();
    click(&mut window, "Layer pointwise1");
    let nearest = wait_decibels(&mut window, "Weights error");
    click(&mut window, "Repair the whole plan");
    click(&mut window, "Method gptq");
    click(&mut window, "Start repair");
    let (before, after) = whole(&mut window);
    assert!(after > before + 2.0, "{before} → {after}");
    idle(&mut window);
    // A preview is no change.
    assert!(window.query_by_label_contains(", changed").is_none() && pills(&window, "gptq") == 0);
    let rows = window.query_all_by_label_contains("Gain of ").count();
    assert_eq!(rows, 6);
    click(&mut window, "Accept the repair");
    assert!(window.query_by_label_contains(", changed").is_some());
    assert_eq!(pills(&window, "gptq"), 6);
    until(&mut window, "the repaired histogram", |window| window.query_by_label("WEIGHTS REPAIRED BY GPTQ").is_some());
    until(&mut window, "the error of the repaired weights", |window| {
        decibels(window, "Weights error").is_some_and(|db| (db - nearest).abs() > 0.05)
    });
    undo(&mut window);
    assert!(window.query_by_label_contains(", changed").is_none(), "one step");
    assert_eq!(decibels(&window, "Weights error"), Some(nearest));
    assert_eq!(pills(&window, "gptq"), 0);
}

#[test]
fn what_follows_an_accepted_repair_is_predicted_from_its_run() {
    let (mut window, _) = predicted();
    preset(&mut window, "int4-static");
    let nearest = wait_decibels(&mut window, "Predicted error of the output");
    accept(&mut window, "gptq");
    let (_, after) = whole(&mut window);
    let figure = |window: &Harness<'_, App>| decibels(window, "Predicted error of the output");
    until(&mut window, "the measured figure", |window| figure(window).is_some_and(|db| (db - after).abs() < 0.2));
    assert!(after > nearest, "{nearest} → {after}");

    // Layers that leave the repair move it in the same frame, and the others keep what they had.
    click(&mut window, "Layer pointwise1");
    window.key_press(Key::Num8);
    steps(&mut window);
    let finer = figure(&window).expect("predicted");
    assert!(finer > after + 0.3, "{after} → {finer}");
    undo(&mut window);
    click(&mut window, "Layer pointwise2");
    window.key_press(Key::Num2);
    steps(&mut window);
    let coarser = figure(&window).expect("predicted");
    assert!(coarser < after - 1.0, "{after} → {coarser}");
    undo(&mut window);
    assert!(figure(&window).is_some_and(|db| (db - after).abs() < 0.2));
}

#[test]
fn a_preview_waits_while_another_repair_is_tried() {
    let mut window = int4();
    click(&mut window, "Repair the whole plan");
    for method in ["gptq", "clip"] {
        click(&mut window, &format!("Method {method}"));
        click(&mut window, "Start repair");
        whole(&mut window);
        idle(&mut window);
    }
    let (_, clip) = whole(&mut window);
    click(&mut window, "Show again: Repair 6 layers by gptq");
    let (_, gptq) = whole(&mut window);
    assert!(gptq > clip + 1.0, "{clip} {gptq}");
    assert!(window.query_by_label("Show again: Repair 6 layers by clip").is_some());
    click(&mut window, "Accept the repair");
    assert_eq!(pills(&window, "gptq"), 6);
}

#[test]
fn a_preset_keeps_the_scalings_until_they_are_removed() {
    let (mut window, _) = predicted();
    accept(&mut window, "smoothquant");
    let before = scaled(&window);
    assert_eq!(before, 5);
    preset(&mut window, "int8-weights");
    assert_eq!(scaled(&window), before);
    preset(&mut window, "Remove the scalings");
    assert_eq!(scaled(&window), 0);
    undo(&mut window);
    assert_eq!(scaled(&window), before);
}

#[test]
fn a_discarded_repair_changes_nothing() {
    let mut window = int4();
    click(&mut window, "Method clip");
    click(&mut window, "Start repair");
    whole(&mut window);
    idle(&mut window);
    click(&mut window, "Discard the repair");
    assert!(window.query_by_label("Accept the repair").is_none());
    assert!(window.query_by_label_contains(", changed").is_none());
    undo(&mut window);
    // The one step there was is the preset.
    assert!(window.query_by_label_contains("Preset: int8").is_some());
}

#[test]
fn another_precision_rounds_to_nearest_and_undo_brings_the_repair_back() {
    let mut window = int4();
    click(&mut window, "Method gptq");
    click(&mut window, "Start repair");
    whole(&mut window);
    idle(&mut window);
    click(&mut window, "Accept the repair");
    let repaired = pills(&window, "gptq");
    assert!(repaired > 0);
    choose(&mut window, "Precision", "int8");
    assert_eq!(pills(&window, "gptq"), 0);
    undo(&mut window);
    assert_eq!(pills(&window, "gptq"), repaired);
    click(&mut window, "Round to nearest again");
    assert_eq!(pills(&window, "gptq"), 0);
}

#[test]
fn a_saved_plan_brings_its_repairs_back() {
    let folder = folder("repaired");
    let (model, plan) = (folder.join("digits.onnx"), folder.join("p.json"));
    std::fs::copy(sample("digits_cnn.onnx"), &model).expect("copied");
    let mut window = int4();
    click(&mut window, "Method hqq");
    click(&mut window, "Start repair");
    whole(&mut window);
    idle(&mut window);
    assert!(window.query_all_by_label("no data").count() > 0, "named so");
    click(&mut window, "Accept the repair");
    let error = wait_decibels(&mut window, "Weights error");
    save_plan(&mut window, &plan);
    assert!(folder.join("p.safetensors").exists());
    drop(window);

    let mut window = open(model, LAYER);
    open_plan(&mut window, &plan);
    until(&mut window, "the plan", |window| window.query_by_label_contains("Preset: int4-weights").is_some());
    click(&mut window, LAYER);
    assert!(pills(&window, "hqq") > 0);
    until(&mut window, "the same error", |window| decibels(window, "Weights error") == Some(error));
    std::fs::remove_dir_all(folder).expect("removed");
}

#[test]
fn a_method_that_serves_nothing_says_why() {
    let mut window = int4();
    click(&mut window, "Method smoothquant");
    assert!(window.get_by_label("Start repair").accesskit_node().is_disabled());
    assert!(window.query_all_by_label_contains("smoothquant is for rounded activations").count() > 0);
    choose(&mut window, "Precision", "float32");
    click(&mut window, "Method gptq");
    assert!(window.query_all_by_label_contains("None of these layers has integer weights").count() > 0);
    // The palette knows it too.
    window.key_press_modifiers(Modifiers::COMMAND, Key::P);
    steps(&mut window);
    window.get_by_label("Palette").type_text("repair by gptq");
    steps(&mut window);
    assert!(window.get_by_label("Do: Repair by gptq").accesskit_node().is_disabled());
}

#[test]
fn a_cancelled_repair_is_acknowledged_in_the_next_frame_and_changes_nothing() {
    let mut window = int4();
    click(&mut window, "Repair the whole plan");
    click(&mut window, "Method best");
    click(&mut window, "Start repair");
    until(&mut window, "the job", |window| window.query_by_label("Cancel").is_some());
    window.get_by_label("Cancel").click();
    window.step();
    window.step();
    assert!(
        window.query_by_label_contains("Cancelling: Repairing").is_some() || window.query_by_label("Cancel").is_none()
    );
    idle(&mut window);
    assert!(window.query_by_label_contains(", changed").is_none());
    // And it can be begun again.
    assert!(!window.get_by_label("Start repair").accesskit_node().is_disabled());
}

#[test]
fn a_scaling_takes_the_statistics_with_it_and_undo_brings_them_back() {
    let folder = folder("scaled");
    let (mut window, plain) = predicted();
    click(&mut window, LAYER);
    let isolated = wait_decibels(&mut window, "Isolated error");
    accept(&mut window, "smoothquant");
    assert_eq!(scaled(&window), 5);
    // Errors and prediction are those of the scaled model, without another calibration asked for.
    let better = |window: &Harness<'_, App>| decibels(window, "Isolated error").is_some_and(|db| db > isolated + 5.0);
    until(&mut window, "the isolated error of the scaled layer", better);
    let predicted_db = |window: &Harness<'_, App>| decibels(window, "Predicted error of the output");
    until(&mut window, "its prediction", |window| predicted_db(window).is_some_and(|db| db > plain + 2.0));

    // The plan is static, and the export is the scaled one.
    click(&mut window, "Export tab");
    fill(&mut window, "Export path", &folder.join("out.onnx").display().to_string());
    click(&mut window, "Export and verify");
    let measured = wait_decibels(&mut window, "Measured SQNR");
    assert!(measured > 33.0, "{measured}");
    idle(&mut window);
    // Integers on top of it are for the scaled weights.
    accept(&mut window, "descent");
    assert_eq!(pills(&window, "descent"), 6);
    save_plan(&mut window, &folder.join("p.json"));

    undo(&mut window);
    undo(&mut window);
    assert_eq!((scaled(&window), pills(&window, "descent")), (0, 0));
    assert_eq!(decibels(&window, "Isolated error"), Some(isolated), "as it was, at once");
    until(&mut window, "the first prediction", |window| predicted_db(window) == Some(plain));

    // Another window has not seen the scaled model: it calibrates by itself.
    drop(window);
    let (mut window, _) = predicted();
    click(&mut window, LAYER);
    open_plan(&mut window, &folder.join("p.json"));
    until(&mut window, "the scaled plan", |window| scaled(window) == 5);
    until(&mut window, "its statistics", |window| {
        window.query_by_label("Cancel").is_none() && decibels(window, "Isolated error").is_some_and(|db| db > isolated)
    });
    assert_eq!(pills(&window, "descent"), 6);
    click(&mut window, "Export tab");
    fill(&mut window, "Export path", &folder.join("again.onnx").display().to_string());
    click(&mut window, "Export and verify");
    assert!(wait_decibels(&mut window, "Measured SQNR") > 30.0);
    std::fs::remove_dir_all(folder).expect("removed");
}

#[test]
fn repairs_of_layers_that_are_scaled_later_are_dropped_with_a_note() {
    let mut window = int4();
    accept(&mut window, "gptq");
    assert_eq!(pills(&window, "gptq"), 6);
    accept(&mut window, "equalisation");
    let (kept, divided) = (pills(&window, "gptq"), scaled(&window));
    assert!(divided > 0 && kept + divided <= 6, "{kept} kept, {divided} scaled");
    assert!(window.query_all_by_label_contains("does not fit the scaled weights").count() > 0);
    undo(&mut window);
    assert_eq!((pills(&window, "gptq"), scaled(&window)), (6, 0));
}

#[test]
fn repairs_that_an_exported_plan_names_are_made_again() {
    let folder = folder("missing");
    let (model, export) = (folder.join("digits.onnx"), folder.join("out.onnx"));
    std::fs::copy(sample("digits_cnn.onnx"), &model).expect("copied");
    let mut window = int4();
    accept(&mut window, "gptq");
    click(&mut window, "Export tab");
    fill(&mut window, "Export path", &export.display().to_string());
    click(&mut window, "Export and verify");
    wait_decibels(&mut window, "Measured SQNR");
    drop(window);

    let mut window = open(model, LAYER);
    ready(&mut window);
    until(&mut window, "the offer", |window| window.query_by_label("Restore this plan").is_some());
    click(&mut window, "Restore this plan");
    let missing = |window: &Harness<'_, App>| window.query_all_by_label_contains("lacks its repair by gptq").count();
    assert_eq!((missing(&window), pills(&window, "gptq")), (6, 0));
    fill(&mut window, "Calibration data", &sample("digits_cnn.calib.npz").display().to_string());
    click(&mut window, "Repair tab");
    click(&mut window, "Make missing repairs");
    let (before, after) = whole(&mut window);
    assert!(after > before + 2.0, "{before} → {after}");
    idle(&mut window);
    click(&mut window, "Accept the repair");
    assert_eq!((missing(&window), pills(&window, "gptq")), (0, 6));
    undo(&mut window);
    assert_eq!(missing(&window), 6);
    std::fs::remove_dir_all(folder).expect("removed");
}

#[test]
fn a_layer_changed_while_a_repair_waits_stays_as_it_was_changed() {
    let mut window = int4();
    click(&mut window, "Repair the whole plan");
    click(&mut window, "Method descent");
    click(&mut window, "Start repair");
    whole(&mut window);
    idle(&mut window);
    choose(&mut window, "Precision", "int8");
    click(&mut window, "Accept the repair");
    assert_eq!(pills(&window, "descent"), 5);
    assert_eq!(window.get_by_role_and_label(Role::ComboBox, "Precision").value().as_deref(), Some("int8"));
    undo(&mut window);
    assert_eq!(pills(&window, "descent"), 0);
}
