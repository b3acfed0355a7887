//! Opens the window.

use std::path::PathBuf;

use anyhow::anyhow;
use eframe::egui::ViewportBuilder;

pub use crate::app::App;
use crate::settings::Settings;

/// Opens the window, with `model` if given, and returns when it is closed. Fails where there is no display.
pub fn run(model: Option<PathBuf>, settings: Settings) -> anyhow::Result<()> {
    let options = eframe::NativeOptions {
        viewport: ViewportBuilder::default()
            .with_title("Nibble")
            .with_app_id("nibble")
            .with_inner_size([1440.0, 900.0])
            .with_min_inner_size([960.0, 600.0])
            .with_drag_and_drop(true),
        renderer: eframe::Renderer::Glow,
        centered: true,
        ..eframe::NativeOptions::default()
    };
    let create = move |creation: &eframe::CreationContext<'_>| -> Result<Box<dyn eframe::App>, Box<dyn std::error::Error + Send + Sync>> {
        creation.egui_ctx.options_mut(|options| options.zoom_with_keyboard = true);
        Ok(Box::new(App::new(&creation.egui_ctx, model, settings)))
    };
    eframe::run_native("nibble", options, Box::new(create)).map_err(|error| anyhow!("cannot open a window: {error}"))
}
