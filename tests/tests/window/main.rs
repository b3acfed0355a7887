//! The window through its labels, as a person or a screen reader finds them: no pixels are compared.

mod harness;
mod lab;
mod repairs;

use eframe::egui::accesskit::Role;
use eframe::egui::{Key, Modifiers, vec2};
use egui_kittest::Harness;
use egui_kittest::kittest::{NodeT, Queryable};
use nibble::settings::Settings;
use nibble::window::App;

use self::harness::{
    LAYER, choose, click, decibels, fill, folder, open, predicted, preset, ready, sample, steps, until, wait_decibels,
    window,
};

#[test]
fn a_choice_changes_the_error_and_undo_takes_it_back() {
    let mut window = window();
    click(&mut window, LAYER);
    let int8 = wait_decibels(&mut window, "Weights error");
    choose(&mut window, "Precision", "int4");
    until(&mut window, "the int4 error", |window| decibels(window, "Weights error").is_some_and(|db| db < int8 - 10.0));
    assert!(window.query_by_label_contains("Preset: int8, changed").is_some());
    window.key_press_modifiers(Modifiers::COMMAND, Key::Z);
    steps(&mut window);
    assert_eq!(decibels(&window, "Weights error"), Some(int8));
    // The key does the same as the list.
    window.key_press(Key::Num4);
    steps(&mut window);
    assert!(wait_decibels(&mut window, "Weights error") < int8 - 10.0);
}

#[test]
fn every_layer_gets_its_weight_error_without_being_asked() {
    let mut window = window();
    until(&mut window, "all errors", |window| {
        let known = window.query_all_by_label_contains(" dB").count();
        known >= window.query_all_by_role(Role::Row).count()
    });
}

#[test]
fn the_table_sorts_and_filters() {
    let mut window = window();
    let order = |window: &Harness<'_, App>| -> Vec<String> {
        let mut rows: Vec<(f32, String)> = window
            .query_all_by_role(Role::Row)
            .map(|row| (row.rect().top(), row.accesskit_node().label().unwrap_or_default()))
            .collect();
        rows.sort_by(|a, b| a.0.total_cmp(&b.0));
        rows.into_iter().map(|(_, name)| name).collect()
    };
    let model = order(&window);
    click(&mut window, "Sort by Name");
    let ascending = order(&window);
    click(&mut window, "Sort by Name");
    let descending = order(&window);
    assert_ne!(ascending, model);
    assert_eq!(ascending.first(), descending.last());
    fill(&mut window, "Filter layers", "depthwise");
    let shown = order(&window);
    assert!(!shown.is_empty() && shown.iter().all(|name| name.contains("depthwise")), "{shown:?}");
    // Letters typed into a field are no commands.
    fill(&mut window, "Filter layers", "int8");
    assert!(window.query_by_label_contains("Preset: int8, changed").is_none());
}

#[test]
fn a_clip_handle_moves_the_error_and_reset_goes_back() {
    let mut window = window();
    click(&mut window, LAYER);
    let before = wait_decibels(&mut window, "Weights error");
    until(&mut window, "the histogram", |window| window.query_by_label("Weight clip high").is_some());
    window.get_by_label("Weight clip high").set_value_accesskit(0.05);
    steps(&mut window);
    let clipped = decibels(&window, "Weights error").expect("the error follows within the frame");
    assert!(clipped < before - 3.0, "{before} → {clipped}");
    click(&mut window, "Reset weight histogram");
    until(&mut window, "the method's error", |window| decibels(window, "Weights error") == Some(before));
    window.key_press_modifiers(Modifiers::COMMAND, Key::Z);
    window.key_press_modifiers(Modifiers::COMMAND, Key::Z);
    steps(&mut window);
    assert!(window.query_by_label_contains(", changed").is_none(), "one drag and one reset are two steps");
}

#[test]
fn what_a_layer_cannot_take_is_disabled() {
    let mut window = window();
    click(&mut window, LAYER);
    window.get_by_role_and_label(Role::ComboBox, "Mode").click();
    steps(&mut window);
    let dynamic = window.get_by_role_and_label(Role::Button, "dynamic");
    assert!(dynamic.accesskit_node().is_disabled(), "a convolution has no fast dynamic form");
}

#[test]
fn calibration_shows_the_data_first_and_then_the_error_at_the_layers_output() {
    let mut window = window();
    ready(&mut window);
    click(&mut window, LAYER);
    fill(&mut window, "Calibration data", &sample("digits_cnn.calib.npz").display().to_string());
    click(&mut window, "Preview");
    until(&mut window, "the preview", |window| window.query_by_label("Sample 1").is_some());
    click(&mut window, "Start calibration");
    let isolated = wait_decibels(&mut window, "Isolated error");
    assert!(isolated.is_finite());
    assert!(window.query_by_label("Activation clip high").is_some());
}

#[test]
fn a_cancelled_calibration_keeps_what_it_has() {
    let mut window = window();
    ready(&mut window);
    click(&mut window, LAYER);
    click(&mut window, "Random numbers");
    window.get_by_label("Number of samples").set_value_accesskit(500_000.0);
    steps(&mut window);
    click(&mut window, "Start calibration");
    until(&mut window, "some samples", |window| {
        window.query_by_label_contains("Calibrating ").is_some_and(|label| {
            let text = label.accesskit_node().value().or_else(|| label.accesskit_node().label()).unwrap_or_default();
            !text.contains(" 0/")
        })
    });
    // Figures are there while it runs, not only at its end.
    wait_decibels(&mut window, "Isolated error");
    assert!(window.query_by_label("Cancel").is_some());
    click(&mut window, "Cancel");
    until(&mut window, "the cancel", |window| window.query_by_label("Cancel").is_none());
    until(&mut window, "what was gathered", |window| window.query_by_label_contains("activations observed").is_some());
}

#[test]
fn what_a_plan_does_is_predicted_after_every_edit() {
    let (mut window, before) = predicted();
    click(&mut window, LAYER);
    window.key_press(Key::Num4);
    until(&mut window, "a worse prediction", |window| {
        decibels(window, "Predicted error of the output").is_some_and(|db| db < before - 3.0)
    });
    window.key_press_modifiers(Modifiers::COMMAND, Key::Z);
    until(&mut window, "the first prediction", |window| {
        decibels(window, "Predicted error of the output").is_some_and(|db| (db - before).abs() < 0.05)
    });

    click(&mut window, "Sensitivity tab");
    assert!(window.query_by_label_contains("depthwise1 as int8 per_tensor symmetric · static int8").is_some());
    click(&mut window, "Pareto tab");
    click(&mut window, "Smallest with at least this");
    let promised = window.get_by_label_contains("of the original)").value().expect("figures");
    let promised: f64 = promised.rsplit_once(", ").expect("figure").1.trim_end_matches(" dB").parse().expect("number");
    assert!(promised >= 30.0, "{promised}");
    click(&mut window, "Open this plan");
    until(&mut window, "the plan of the point", |window| {
        decibels(window, "Predicted error of the output").is_some_and(|db| (db - promised).abs() < 0.1)
    });
    window.key_press_modifiers(Modifiers::COMMAND, Key::Z);
    until(&mut window, "the plan before", |window| {
        decibels(window, "Predicted error of the output").is_some_and(|db| (db - before).abs() < 0.05)
    });
}

#[test]
fn a_cell_of_the_heat_table_selects_its_layer_and_enter_chooses_it() {
    let (mut window, before) = predicted();
    // What the preset spares by itself is no change of anybody's.
    assert!(window.query_by_label_contains(", changed").is_none());
    assert!(window.query_by_label("plan not saved").is_none());
    click(&mut window, "Sensitivity tab");
    assert!(window.query_by_label_contains("Noise: weights rounded").is_some());
    assert!(window.query_by_label_contains("Weights error").is_none(), "nothing is selected");
    // A classifier's cells are divergences, unless asked otherwise.
    let unit = |window: &Harness<'_, App>| {
        let cell = window.query_all_by_label_contains("depthwise1 as int4").next().expect("a candidate");
        cell.accesskit_node().label().and_then(|label| Some(label.rsplit_once(' ')?.1.to_owned())).expect("a unit")
    };
    assert_eq!(unit(&window), "nats");
    click(&mut window, "Cells: SQNR");
    assert_eq!(unit(&window), "dB");
    window.query_all_by_label_contains("depthwise1 as int4").next().expect("a candidate").click();
    steps(&mut window);
    wait_decibels(&mut window, "Weights error");
    window.key_press(Key::Enter);
    until(&mut window, "the choice", |window| {
        decibels(window, "Predicted error of the output").is_some_and(|db| db < before - 1.0)
    });
    window.key_press_modifiers(Modifiers::COMMAND, Key::Z);
    steps(&mut window);
    assert_eq!(decibels(&window, "Predicted error of the output"), Some(before), "one step back, in the same frame");
}

#[test]
fn a_dragged_clip_moves_the_prediction_in_the_same_frame() {
    let (mut window, before) = predicted();
    click(&mut window, LAYER);
    until(&mut window, "the histogram", |window| window.query_by_label("Weight clip high").is_some());
    window.get_by_label("Weight clip high").set_value_accesskit(0.05);
    window.step();
    window.step();
    let spoken = window.get_by_label_contains("Predicted error of the output").value().expect("figure");
    let at_once: f64 = spoken
        .rsplit_once(": ")
        .and_then(|(_, figure)| figure.trim_start_matches("about ").split_once(" dB")?.0.parse().ok())
        .expect("decibels");
    assert!(at_once < before - 3.0, "{before} → {at_once}");
    let exact = wait_decibels(&mut window, "Predicted error of the output");
    // The frame's figure comes from a sample of the weights and says "about"; a clip that wrecks the layer is the worst case.
    assert!((exact - at_once).abs() < 1.5, "{at_once} was estimated, {exact} is it");
}

#[test]
fn a_file_of_another_tool_is_compared_layer_by_layer() {
    let folder = folder("other");
    let path = folder.join("out.onnx");
    let mut window = window();
    ready(&mut window);
    preset(&mut window, "int8-weights");
    click(&mut window, "Export tab");
    fill(&mut window, "Export path", &path.display().to_string());
    click(&mut window, "Export and verify");
    let measured = wait_decibels(&mut window, "Measured SQNR");
    until(&mut window, "the end", |window| window.query_by_label("Cancel").is_none());
    click(&mut window, "Compare tab");
    click(&mut window, "Open a quantized file to compare…");
    fill(&mut window, "Path", &path.display().to_string());
    click(&mut window, "Compare this path");
    let other = wait_decibels(&mut window, "SQNR of the other file");
    assert!((other - measured).abs() < 3.0, "{other} {measured}");
    click(&mut window, "Compared layer depthwise1");
    wait_decibels(&mut window, "Weights error");
    std::fs::remove_dir_all(folder).expect("removed");
}

#[test]
fn an_export_is_verified_and_asks_before_it_overwrites() {
    let folder = folder("export");
    let path = folder.join("out.onnx");
    let mut window = window();
    ready(&mut window);
    click(&mut window, "Export tab");
    assert!(window.get_by_label("Export and verify").accesskit_node().is_disabled(), "static layers want calibration");
    preset(&mut window, "int8-weights");
    fill(&mut window, "Export path", &path.display().to_string());
    click(&mut window, "Export and verify");
    let measured = wait_decibels(&mut window, "Measured SQNR");
    assert!(measured > 10.0 && path.exists());
    assert!(window.query_by_label("Copy the lines").is_some());
    let written = std::fs::read(&path).expect("written");
    click(&mut window, "Export and verify");
    until(&mut window, "the question", |window| window.query_by_label("Keep it").is_some());
    click(&mut window, "Keep it");
    assert!(window.query_by_label("Keep it").is_none());
    assert_eq!(std::fs::read(&path).expect("there"), written);
    std::fs::remove_dir_all(folder).expect("removed");
}

#[test]
fn an_export_gives_its_plan_back() {
    let folder = folder("plan");
    let (original, export) = (folder.join("digits.onnx"), folder.join("out.onnx"));
    std::fs::copy(sample("digits_cnn.onnx"), &original).expect("copied");
    let mut window = open(original.clone(), LAYER);
    ready(&mut window);
    preset(&mut window, "int8-weights");
    click(&mut window, LAYER);
    choose(&mut window, "Precision", "int4");
    click(&mut window, "Export tab");
    fill(&mut window, "Export path", &export.display().to_string());
    click(&mut window, "Export and verify");
    wait_decibels(&mut window, "Measured SQNR");
    drop(window);

    let restored =
        |window: &Harness<'_, App>| window.query_by_label_contains("Preset: int8-weights, changed").is_some();
    let mut window = open(original, LAYER);
    assert!(!restored(&window));
    until(&mut window, "the offer", |window| window.query_by_label("Restore this plan").is_some());
    click(&mut window, "Restore this plan");
    assert!(restored(&window) && window.query_by_label("plan not saved").is_none());
    click(&mut window, LAYER);
    assert_eq!(window.get_by_role_and_label(Role::ComboBox, "Precision").value().as_deref(), Some("int4"));

    let mut window = Harness::builder()
        .with_size(vec2(2400.0, 1500.0))
        .allow_missing_glyphs()
        .build_eframe(|creation| App::new(&creation.egui_ctx, Some(export), Settings::default()));
    until(&mut window, "the offer", |window| window.query_by_label("Open the original with this plan").is_some());
    click(&mut window, "Open the original with this plan");
    until(&mut window, "the original with the plan", restored);
    std::fs::remove_dir_all(folder).expect("removed");
}

#[test]
fn a_poor_export_names_the_layer_to_blame_and_a_way_out() {
    let folder = folder("blame");
    let mut window = open(sample("digits_lstm.onnx"), "Layer projection");
    ready(&mut window);
    fill(&mut window, "Calibration data", &sample("digits_lstm.calib.npz").display().to_string());
    fill(&mut window, "Evaluation data", &sample("digits_lstm.eval.npz").display().to_string());
    click(&mut window, "Start calibration");
    until(&mut window, "calibration", |window| window.query_by_label_contains("activations observed").is_some());
    click(&mut window, "Export tab");
    fill(&mut window, "Export path", &folder.join("out.onnx").display().to_string());
    click(&mut window, "Export and verify");
    let poor = wait_decibels(&mut window, "Measured SQNR");
    assert!(poor < 20.0);
    assert!(window.query_by_label_contains("The quantized model is poor").is_some());
    click(&mut window, "Choose dynamic mode for projection");
    assert_eq!(window.get_by_role_and_label(Role::ComboBox, "Mode").value().as_deref(), Some("dynamic"));
    click(&mut window, "Export and verify");
    until(&mut window, "the question", |window| window.query_by_label("Replace").is_some());
    click(&mut window, "Replace");
    until(&mut window, "a better one", |window| {
        decibels(window, "Measured SQNR").is_some_and(|better| better > poor + 20.0)
    });
    std::fs::remove_dir_all(folder).expect("removed");
}

#[test]
fn a_range_is_typed_and_undone_in_one_step() {
    let mut window = window();
    click(&mut window, LAYER);
    let before = wait_decibels(&mut window, "Weights error");
    window.get_by_label("Weight range to").click();
    steps(&mut window);
    window.key_press_modifiers(Modifiers::COMMAND, Key::A);
    window.get_by_label("Weight range to").type_text("5");
    steps(&mut window);
    window.key_press(Key::Enter);
    steps(&mut window);
    let typed = decibels(&window, "Weights error").expect("the error follows within the frame");
    assert!(typed < before - 3.0, "{before} → {typed}");
    assert_eq!(
        window.get_by_label("Weight clip low").accesskit_node().numeric_value(),
        Some(-5.0),
        "it stays symmetric"
    );
    window.key_press_modifiers(Modifiers::COMMAND, Key::Z);
    steps(&mut window);
    assert!(window.query_by_label_contains(", changed").is_none());
}

#[test]
fn the_palette_does_what_is_typed_and_help_lists_the_keys() {
    let mut window = window();
    window.key_press_modifiers(Modifiers::COMMAND, Key::P);
    steps(&mut window);
    window.get_by_label("Palette").type_text("layer pointwise2");
    steps(&mut window);
    window.key_press(Key::Enter);
    steps(&mut window);
    assert!(window.query_by_label("Palette").is_none());
    wait_decibels(&mut window, "Weights error");
    assert!(window.query_all_by_label("pointwise2").count() >= 1, "the inspector shows it");
    window.key_press_modifiers(Modifiers::COMMAND, Key::P);
    steps(&mut window);
    window.get_by_label("Palette").type_text("preset int4-weights");
    steps(&mut window);
    window.key_press(Key::Enter);
    steps(&mut window);
    assert!(window.query_by_label_contains("Preset: int4-weights").is_some());
    window.key_press(Key::F1);
    steps(&mut window);
    assert!(window.query_by_label("Keys and gestures").is_some());
    window.key_press(Key::Escape);
    steps(&mut window);
    assert!(window.query_by_label("Keys and gestures").is_none());
}

#[test]
fn a_target_turns_conflicts_into_problems_that_one_click_fixes() {
    let mut window = window();
    let target = |window: &mut Harness<'_, App>, name: &str| {
        window.get_by_label_contains("Target: ").click();
        steps(window);
        window.get_by_label_contains(&format!("{name}\n")).click();
        steps(window);
    };
    assert!(window.query_by_label("Target: onnxruntime-cpu-vnni").is_some(), "the default");
    target(&mut window, "tensorrt");
    let conflicts = |window: &Harness<'_, App>| -> usize {
        let label = window.get_by_label_contains("Target: ").accesskit_node().label().unwrap_or_default();
        label.split_once(", ").and_then(|(_, rest)| rest.split(' ').next()?.parse().ok()).unwrap_or(0)
    };
    let all = conflicts(&window);
    assert!(all > 2, "activations of the preset int8 are asymmetric");
    click(&mut window, "Problems tab");
    assert!(window.query_all_by_label_contains("TensorRT does not take it").count() > 0);
    // One layer: one step.
    let fix = "Fix depthwise1: Set activation_symmetry=symmetric for it";
    click(&mut window, fix);
    assert_eq!(conflicts(&window), all - 1);
    assert!(window.query_by_label(fix).is_none());
    window.key_press_modifiers(Modifiers::COMMAND, Key::Z);
    steps(&mut window);
    assert_eq!(conflicts(&window), all);
    // All of them: one step too.
    click(&mut window, "Fix all for this target");
    assert!(window.query_by_label("Target: tensorrt").is_some() && window.query_by_label(fix).is_none());
    window.key_press_modifiers(Modifiers::COMMAND, Key::Z);
    steps(&mut window);
    assert_eq!(conflicts(&window), all);
    // A preset keeps the target, and undo takes the choice of a target back as well.
    preset(&mut window, "int8-weights");
    assert!(window.query_by_label_contains("Target: tensorrt").is_some());
    for _ in 0..2 {
        window.key_press_modifiers(Modifiers::COMMAND, Key::Z);
        steps(&mut window);
    }
    assert!(window.query_by_label("Target: onnxruntime-cpu-vnni").is_some());
}

#[test]
fn the_error_bars_begin_with_the_worst_layer() {
    let mut window = window();
    click(&mut window, "Errors tab");
    click(&mut window, "Bars of weights");
    until(&mut window, "all bars", |window| window.query_all_by_label_contains("Error of ").count() == 6);
    let bars = |window: &Harness<'_, App>| -> Vec<(f32, f64)> {
        let figure = |name: String| name.rsplit_once(": ")?.1.split_once(" dB")?.0.parse().ok();
        let bars = window.query_all_by_label_contains("Error of ");
        bars.filter_map(|bar| Some((bar.rect().top(), figure(bar.accesskit_node().label()?)?))).collect()
    };
    let mut shown = bars(&window);
    shown.sort_by(|a, b| a.0.total_cmp(&b.0));
    assert!(shown.len() == 6 && shown.is_sorted_by(|a, b| a.1 <= b.1), "{shown:?}");
    window.get_by_label_contains("Error of head").click();
    steps(&mut window);
    assert!(window.query_by_label_contains("Weights error").is_some(), "the layer is selected");
}

#[test]
fn nothing_overlaps_in_a_narrow_window() {
    for size in [vec2(1024.0, 700.0), vec2(820.0, 560.0)] {
        let mut window = window();
        window.set_size(size);
        steps(&mut window);
        click(&mut window, LAYER);
        let filter = window.get_by_label("Filter layers").rect();
        for word in ["int8", "int4", "int2", "float16", "float32"] {
            let button = window.get_by_label(&format!("Selection to {word}")).rect();
            assert!(button.left() >= filter.right(), "{word} at {size}: {button} over {filter}");
        }
        let preview = window.get_by_label("WHAT THE MODEL GETS").rect();
        assert!(preview.left() < window.get_by_label("INSPECTOR").rect().left(), "the preview is in sight at {size}");
    }
}
