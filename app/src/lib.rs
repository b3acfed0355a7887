//! Nibble: the window, and every verb headless.
