//! Where a verb's words go: results to stdout, progress and messages to stderr.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use nibble_core::runtime::{Runtime, to_fetch};
use nibble_core::{Control, Error, Problem, problem::Severity};
use serde_json::Value;

use super::failure::Failure;

/// What every verb needs besides its arguments.
pub struct Console {
    /// Whether stdout takes one JSON object instead of text for people.
    json: bool,
    runtime: Option<PathBuf>,
    control: Control,
    bar: Mutex<Option<Bar>>,
    notes: Mutex<Vec<String>>,
}

struct Bar {
    drawn: ProgressBar,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Console {
    /// A console; a progress bar runs while stderr is a terminal.
    pub fn new(json: bool, runtime: Option<PathBuf>) -> Self {
        let control = Control::new();
        let bar = std::io::stderr().is_terminal().then(|| Bar::start(control.clone()));
        Self { json, runtime, control, bar: Mutex::new(bar), notes: Mutex::default() }
    }

    /// The job's control.
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// The library that `--runtime` names.
    pub fn runtime(&self) -> Option<&Path> {
        self.runtime.as_deref()
    }

    /// Starts ONNX Runtime; when it has to be fetched first, says so before anybody wonders what takes so long.
    pub fn start_runtime(&self) -> Result<&'static Runtime, Failure> {
        if let Some(what) = to_fetch(self.runtime()) {
            self.message(&what);
        }
        Ok(Runtime::start(self.runtime(), &self.control).map_err(Error::from)?)
    }

    /// Ctrl-C cancels the job, a second one ends the process at once.
    pub fn cancel_on_ctrl_c(&self) {
        let control = self.control.clone();
        let handler = move || {
            if control.is_cancelled() {
                std::process::exit(130);
            }
            control.cancel();
        };
        // Without a handler the system's own remains, which ends the process at once; temporary files may stay then.
        if let Err(error) = ctrlc::set_handler(handler) {
            tracing::warn!("no Ctrl-C handler: {error}");
        }
    }

    /// A line for the person, on stderr, above the progress bar where one is drawn.
    pub fn message(&self, text: &str) {
        match &*self.bar.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(bar) => bar.drawn.suspend(|| line(text)),
            None => line(text),
        }
    }

    /// Something that changes how the result must be read: on stderr now, and in the result's `notes`.
    pub fn note(&self, text: &str) {
        self.message(&format!("Note: {text}"));
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).push(text.to_owned());
    }

    /// The notes so far.
    pub fn notes(&self) -> Vec<String> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// `problems` and those that the job reported, each once.
    pub fn problems_with(&self, problems: &[Problem]) -> Vec<Problem> {
        let mut all = problems.to_vec();
        for problem in self.control.problems() {
            if !all.contains(&problem) {
                all.push(problem);
            }
        }
        all
    }

    /// Ends the progress bar and prints the result: `json`, or `text` for people.
    pub fn result(&self, json: &Value, text: &str) -> Result<(), Failure> {
        self.finish();
        let text = if self.json { format!("{json}\n") } else { text.to_owned() };
        let mut stdout = std::io::stdout().lock();
        match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            // `nibble … | head` is no failure of ours.
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                Err(Failure::new(format!("cannot print the result: {error}"), "stdout", "Check where stdout goes"))
            }
            _ => Ok(()),
        }
    }

    /// Stops the progress bar, if one runs.
    pub fn finish(&self) {
        if let Some(bar) = self.bar.lock().unwrap_or_else(PoisonError::into_inner).take() {
            bar.stop.store(true, Ordering::SeqCst);
            let _ = bar.thread.join();
        }
    }
}

/// One line on stderr; a closed stderr is nobody's failure.
fn line(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

impl Bar {
    /// Draws the control's progress until told to stop.
    fn start(control: Control) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let drawn = ProgressBar::no_length();
        let bar = drawn.clone();
        let thread = std::thread::spawn(move || {
            let known = ProgressStyle::with_template("{msg} [{bar:30}] {pos}/{len} {eta}");
            let unknown = ProgressStyle::with_template("{spinner} {msg}");
            let (Ok(known), Ok(unknown)) = (known, unknown) else { return };
            while !flag.load(Ordering::SeqCst) {
                if let Some(progress) = control.current_progress() {
                    bar.set_style(if progress.total > 0 { known.clone() } else { unknown.clone() });
                    bar.set_message(progress.label);
                    if progress.total > 0 {
                        bar.set_length(progress.total);
                        bar.set_position(progress.done);
                    }
                    bar.tick();
                }
                std::thread::sleep(Duration::from_millis(80));
            }
            bar.finish_and_clear();
        });
        Self { drawn, stop, thread }
    }
}

/// A paragraph in lines of at most 100 characters, the further ones indented.
pub fn wrapped(text: &str) -> String {
    const WIDTH: usize = 100;
    let mut out = String::new();
    let mut length = 0;
    for word in text.split_whitespace() {
        let count = word.chars().count();
        if length > 0 && length + 1 + count > WIDTH {
            out += "\n  ";
            length = 2;
        } else if length > 0 {
            out += " ";
            length += 1;
        }
        out += word;
        length += count;
    }
    out + "\n"
}

/// Problems as text, the worst first; those that differ only in their place stand together. Empty when there are none.
pub fn problems_text(problems: &[Problem]) -> String {
    const SHOWN: usize = 6;
    let mut groups: Vec<(&Problem, Vec<&str>)> = Vec::new();
    for problem in problems {
        let alike = |(known, _): &&mut (&Problem, Vec<&str>)| {
            (known.severity, &known.what, &known.why, &known.fix)
                == (problem.severity, &problem.what, &problem.why, &problem.fix)
        };
        match groups.iter_mut().find(alike) {
            Some((_, places)) => places.push(&problem.place),
            None => groups.push((problem, vec![&problem.place])),
        }
    }
    groups.sort_by_key(|(problem, _)| std::cmp::Reverse(problem.severity));
    let mut out = String::new();
    for (problem, places) in groups {
        let word = match problem.severity {
            Severity::Note => "Note",
            Severity::Warning => "Warning",
            Severity::Serious => "Serious",
        };
        let mut names: Vec<_> = places.iter().filter(|place| !place.is_empty()).take(SHOWN).copied().collect();
        let more = format!("{} more", places.len().saturating_sub(SHOWN));
        if places.len() > SHOWN {
            names.push(&more);
        }
        let places = if names.is_empty() { String::new() } else { format!(" ({})", names.join(", ")) };
        out += &format!("\n{word}: {}{places}\n  {}\n  Fix: {}\n", problem.what, problem.why, problem.fix);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_are_wrapped_between_words() {
        let text = wrapped(&"word ".repeat(60));
        assert!(text.lines().count() == 4 && text.lines().all(|line| line.len() <= 100), "{text}");
        assert_eq!(text.split_whitespace().count(), 60);
        assert_eq!(wrapped("short"), "short\n");
    }

    #[test]
    fn problems_that_differ_only_in_their_place_stand_together_and_the_worst_come_first() {
        let problem = |severity, place: &str| Problem::new(severity, "what", place, "why", "fix");
        let mut problems: Vec<_> = (0..9).map(|i| problem(Severity::Note, &format!("layer{i}"))).collect();
        problems.push(problem(Severity::Serious, ""));
        let text = problems_text(&problems);
        assert!(text.starts_with("\nSerious: what\n"), "{text}");
        assert!(text.contains("Note: what (layer0, layer1, layer2, layer3, layer4, layer5, 3 more)"), "{text}");
        assert_eq!(problems_text(&[]), "");
    }
}
