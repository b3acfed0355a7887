//! How a verb fails: message, where, hint and exit code, for people and for scripts.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use serde_json::json;

/// Exit code of a verb that failed.
const FAILED: u8 = 1;
/// Exit code of wrong usage.
const USAGE: u8 = 2;
/// Exit code after Ctrl-C: 128 + SIGINT, as shells count.
const CANCELLED: u8 = 130;

/// Why nothing came of it.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    message: String,
    place: String,
    hint: String,
}

impl Failure {
    /// The verb was used rightly, and failed.
    pub fn new(message: impl Into<String>, place: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { code: FAILED, message: message.into(), place: place.into(), hint: hint.into() }
    }

    /// The command line itself is wrong.
    pub fn usage(message: impl Into<String>, place: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { code: USAGE, ..Self::new(message, place, hint) }
    }

    /// The same failure, blamed on the command line.
    pub fn into_usage(self) -> Self {
        Self { code: USAGE, ..self }
    }

    /// The same failure with a place, where it had none.
    pub fn or_at(self, place: Option<&Path>) -> Self {
        match place {
            Some(path) if self.code == FAILED && self.place.is_empty() => {
                Self { place: path.display().to_string(), ..self }
            }
            _ => self,
        }
    }

    /// What clap found wrong: its first line is the message, a tip or the usage the hint.
    pub fn usage_of(error: &clap::Error) -> Self {
        let text = error.render().to_string();
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let mut message = lines.next().unwrap_or_default().trim_start_matches("error: ").to_owned();
        let mut hints = Vec::new();
        for line in lines {
            if let Some(tip) = line.strip_prefix("tip: ") {
                hints.push(tip.to_owned());
            } else if line.starts_with("Usage:") {
                hints.push(line.to_owned());
            } else if !line.starts_with("For more information") {
                message = format!("{message} {line}");
            }
        }
        hints.push("`nibble --help` lists the verbs".to_owned());
        Self::usage(message, "", hints.join("; "))
    }

    /// Prints the failure and gives the exit code.
    pub fn show(&self, json: bool) -> ExitCode {
        if json {
            let error = json!({"error": {"message": self.message, "where": self.place, "hint": self.hint}});
            let _ = writeln!(std::io::stdout(), "{error}");
        }
        let mut text = format!("Error: {}\n", self.message);
        if !self.place.is_empty() {
            text += &format!("Where: {}\n", self.place);
        }
        if !self.hint.is_empty() {
            text += &format!("Hint:  {}\n", self.hint);
        }
        let _ = std::io::stderr().write_all(text.as_bytes());
        ExitCode::from(self.code)
    }
}

impl From<nibble_core::Error> for Failure {
    fn from(error: nibble_core::Error) -> Self {
        let code = if matches!(error, nibble_core::Error::Cancelled) { CANCELLED } else { FAILED };
        Self { code, message: error.to_string(), place: error.place(), hint: error.hint() }
    }
}
