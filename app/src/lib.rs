//! Nibble: the window, and every verb headless.

mod app;
mod blame;
pub mod cli;
mod command;
mod dialogs;
mod document;
mod edit;
mod format;
mod heat;
mod history;
mod jobs;
mod log;
mod repairs;
mod results;
mod selection;
pub mod settings;
mod theme;
mod views;
mod widgets;
pub mod window;
mod worker;
