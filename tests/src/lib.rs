//! End-to-end tests of Nibble live in this package's `[[test]]` entries.
