//! Widgets of our own. Each follows egui's grammar: size, allocate, interact, paint, return the response, and each
//! tells its name and value to screen readers and tests.

pub mod badge;
pub mod channel_strip;
pub mod clip_histogram;
pub mod field;
pub mod sparkline;
