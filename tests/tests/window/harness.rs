//! The window driven as a person does it, by what controls are called.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use eframe::egui::accesskit::Role;
use eframe::egui::{Key, Modifiers, vec2};
use egui_kittest::Harness;
use egui_kittest::kittest::Queryable;
use nibble::settings::Settings;
use nibble::window::App;

pub const LAYER: &str = "Layer depthwise1";

pub fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../sample-models").join(name)
}

/// The window with the sample model, nothing saved, large enough that every column and control is in it.
pub fn window() -> Harness<'static, App> {
    open(sample("digits_cnn.onnx"), LAYER)
}

/// The window with the model at `path`, which has `layer`.
pub fn open(path: PathBuf, layer: &str) -> Harness<'static, App> {
    let mut window = Harness::builder()
        .with_size(vec2(2400.0, 1500.0))
        .allow_missing_glyphs()
        .build_eframe(|creation| App::new(&creation.egui_ctx, Some(path), Settings::default()));
    until(&mut window, "the model to open", |window| window.query_by_label(layer).is_some());
    window
}

/// A folder of this test alone.
pub fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("nibble-window-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("folder");
    folder
}

pub fn preset(window: &mut Harness<'_, App>, name: &str) {
    window.get_by_label_contains("Preset: ").click();
    steps(window);
    window.get_by_label_contains(name).click();
    steps(window);
}

/// Draws frames until `done`; jobs answer between them.
pub fn until(window: &mut Harness<'_, App>, what: &str, done: impl Fn(&Harness<'_, App>) -> bool) {
    let started = Instant::now();
    loop {
        window.step();
        if done(window) {
            return;
        }
        assert!(started.elapsed() < Duration::from_mins(2), "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn click(window: &mut Harness<'_, App>, label: &str) {
    window.get_by_label(label).click();
    steps(window);
}

pub fn choose(window: &mut Harness<'_, App>, combo: &str, entry: &str) {
    window.get_by_role_and_label(Role::ComboBox, combo).click();
    steps(window);
    window.get_by_role_and_label(Role::Button, entry).click();
    steps(window);
}

pub fn steps(window: &mut Harness<'_, App>) {
    for _ in 0..4 {
        window.step();
    }
}

pub fn fill(window: &mut Harness<'_, App>, field: &str, text: &str) {
    window.get_by_label(field).focus();
    steps(window);
    window.key_press_modifiers(Modifiers::COMMAND, Key::A);
    window.get_by_label(field).type_text(text);
    steps(window);
}

/// The figure in decibels that is spoken as `TITLE…: X dB`, once it is known.
pub fn decibels(window: &Harness<'_, App>, title: &str) -> Option<f64> {
    let spoken = window.query_by_label_contains(title)?.value()?;
    let figure = spoken.rsplit_once(": ")?.1;
    figure.split_once(" dB")?.0.parse().ok()
}

pub fn wait_decibels(window: &mut Harness<'_, App>, title: &str) -> f64 {
    until(window, title, |window| decibels(window, title).is_some());
    decibels(window, title).expect("known")
}

pub fn ready(window: &mut Harness<'_, App>) {
    until(window, "ONNX Runtime", |window| window.query_by_label_contains("ONNX Runtime 1.").is_some());
}

/// Undoes the last step.
pub fn undo(window: &mut Harness<'_, App>) {
    window.key_press_modifiers(Modifiers::COMMAND, Key::Z);
    steps(window);
}

/// Opens the plan at `path`.
pub fn open_plan(window: &mut Harness<'_, App>, path: &Path) {
    window.key_press_modifiers(Modifiers::COMMAND | Modifiers::SHIFT, Key::O);
    steps(window);
    fill(window, "Path", &path.display().to_string());
    click(window, "Open this path");
}

/// Saves the plan as `path`, and waits for it.
pub fn save_plan(window: &mut Harness<'_, App>, path: &Path) {
    window.key_press_modifiers(Modifiers::COMMAND | Modifiers::SHIFT, Key::S);
    steps(window);
    fill(window, "Path", &path.display().to_string());
    click(window, "Save this path");
    until(window, "the plan to be saved", |window| window.query_by_label("plan not saved").is_none());
}

/// The window with the sample calibrated, and the predicted error of its output.
pub fn predicted() -> (Harness<'static, App>, f64) {
    let mut window = window();
    ready(&mut window);
    fill(&mut window, "Calibration data", &sample("digits_cnn.calib.npz").display().to_string());
    click(&mut window, "Start calibration");
    let db = wait_decibels(&mut window, "Predicted error of the output");
    (window, db)
}
