//! What happened, in order, for whoever wants to read it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Most lines kept.
const MAX_LINES: usize = 2000;

/// One line of the log.
#[derive(Clone, Debug)]
pub struct Line {
    /// Time since the window opened.
    pub at: Duration,
    /// What happened.
    pub text: String,
    /// Whether it went wrong.
    pub is_error: bool,
}

/// The log of this window.
#[derive(Debug)]
pub struct Log {
    started: Instant,
    lines: VecDeque<Line>,
}

impl Default for Log {
    fn default() -> Self {
        Self { started: Instant::now(), lines: VecDeque::new() }
    }
}

impl Log {
    /// Adds a line.
    pub fn add(&mut self, text: impl Into<String>) {
        self.push(text.into(), false);
    }

    /// Adds a line about something that went wrong.
    pub fn error(&mut self, text: impl Into<String>) {
        self.push(text.into(), true);
    }

    /// The lines, the oldest first.
    pub fn lines(&self) -> &VecDeque<Line> {
        &self.lines
    }

    fn push(&mut self, text: String, is_error: bool) {
        if self.lines.len() == MAX_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(Line { at: self.started.elapsed(), text, is_error });
    }
}
