//! Nibble: the window, and every verb headless.

pub mod cli;
