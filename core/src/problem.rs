//! What degraded without failing: shown to the person, never only logged.

use serde::{Deserialize, Serialize};

/// How much a problem matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing; nothing is worse for it.
    Note,
    /// The result is worse than asked for.
    Warning,
    /// The result should not be used as it is.
    Serious,
}

/// One problem: what, where, why, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// How much it matters.
    pub severity: Severity,
    /// What happened, one sentence without a full stop.
    pub what: String,
    /// The layer, tensor or file concerned; a layer's name here lets the window select it.
    #[serde(rename = "where")]
    pub place: String,
    /// The rule or cause behind it.
    pub why: String,
    /// What to do.
    pub fix: String,
}

impl Problem {
    /// A problem of the given severity.
    pub fn new(
        severity: Severity,
        what: impl Into<String>,
        place: impl Into<String>,
        why: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self { severity, what: what.into(), place: place.into(), why: why.into(), fix: fix.into() }
    }
}
