//! The command line: every verb headless, and the way into the window.
//!
//! Results go to stdout (`--json`: one object), progress and messages to stderr. Exit codes: 0 done, 1 failed, 2 wrong
//! usage, 130 cancelled.

#![allow(
    clippy::format_push_string,
    clippy::format_collect,
    reason = "texts for people are made once; `+=` reads better"
)]

mod args;
mod auto;
mod bench;
mod calibrate;
mod compare;
mod console;
mod demo;
mod evaluate;
mod failure;
mod finetune;
mod inputs;
mod inspect;
mod lab;
mod measure;
mod metric;
mod output;
pub(crate) mod plan;
mod quantize;
mod repair;
mod report;
pub mod sample;
mod scaling;
mod sensitivity;
mod table;
mod targets;

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use args::{Cli, DemoArgs, Verb};
use console::Console;
use failure::Failure;

use crate::settings::Settings;

/// Runs what the process's arguments ask for.
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    // Parsing fails before the flag itself is known, and scripts want their one object then too.
    let json = arguments.iter().any(|argument| argument == "--json");
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            // `nibble --help | head` closes the pipe early, which is no failure.
            let _ = write!(std::io::stdout(), "{}", error.render());
            return ExitCode::SUCCESS;
        }
        Err(error) => return misused(&error, &arguments).show(json),
    };
    let console = Console::new(cli.common.json, cli.common.runtime.clone());
    match run(cli, &console) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            console.finish();
            failure.show(json)
        }
    }
}

/// What is wrong with the command line. A mistyped verb looks to clap like a model with an argument too many.
fn misused(error: &clap::Error, arguments: &[OsString]) -> Failure {
    match arguments.get(1).map(|first| first.to_string_lossy()) {
        Some(first) if error.kind() == ErrorKind::UnknownArgument && is_no_verb(&first) => no_verb(&first),
        _ => Failure::usage_of(error),
    }
}

fn no_verb(word: &str) -> Failure {
    Failure::usage(format!("{word} is neither a verb nor a model"), word, format!("Verbs are {}", args::verbs()))
}

fn is_no_verb(word: &str) -> bool {
    let verbs = args::verbs();
    !word.starts_with('-') && !verbs.split(", ").chain(["help"]).any(|verb| verb == word) && !Path::new(word).exists()
}

fn run(cli: Cli, console: &Console) -> Result<(), Failure> {
    let Some(verb) = cli.verb else {
        return open_window(cli.model, console);
    };
    if let Some(model) = cli.model {
        let why = format!("{} stands before the verb", model.display());
        return Err(Failure::usage(why, "", "Write the verb first: `nibble VERB MODEL`"));
    }
    console.cancel_on_ctrl_c();
    let done = match &verb {
        Verb::Inspect(args) => inspect::run(args, console),
        Verb::Calibrate(args) => calibrate::run(args, console),
        Verb::Sensitivity(args) => sensitivity::run(args, console),
        Verb::Auto(args) => auto::run(args, console),
        Verb::Finetune(args) => finetune::run(args, console),
        Verb::Repair(args) => repair::run(args, console),
        Verb::Quantize(args) => quantize::run(args, console),
        Verb::Compare(args) => compare::run(args, console),
        Verb::Bench(args) => bench::run(args, console),
        Verb::Evaluate(args) => evaluate::run(args, console),
        Verb::Report(args) => report::run(args, console),
        Verb::Targets => targets::run(console),
        Verb::Demo(args) => demo::run(args, console),
        Verb::Measure(args) => measure::run(args, console),
    };
    done.map_err(|failure| failure.or_at(verb.model()))
}

/// Opens the window; where there is none to be had, does the whole job without one.
fn open_window(model: Option<PathBuf>, console: &Console) -> Result<(), Failure> {
    if let Some(model) = &model
        && let Err(source) = std::fs::metadata(model)
    {
        // No file has a name like this: it was meant as a verb.
        if model.extension().is_none() && model.components().count() == 1 {
            return Err(no_verb(&model.to_string_lossy()));
        }
        let hint = format!("Check the path; verbs are {}", args::verbs());
        return Err(Failure::new(format!("cannot open the model: {source}"), model.display().to_string(), hint));
    }
    let reason = if has_display() {
        match show_window(model.clone(), console)? {
            Ok(()) => return Ok(()),
            Err(reason) => reason,
        }
    } else {
        "There is no display".to_owned()
    };
    console.message(&format!("{reason}: doing the whole job without a window, as `nibble demo` does"));
    console.cancel_on_ctrl_c();
    demo::run(&DemoArgs { model, ..DemoArgs::default() }, console)
}

/// The window with `model`, or with the bundled sample and its data. The inner error says in one line why there is none.
fn show_window(model: Option<PathBuf>, console: &Console) -> Result<Result<(), String>, Failure> {
    let mut settings = Settings::load();
    if let Some(library) = console.runtime() {
        settings.library = Some(library.to_owned());
    }
    let model = match model {
        Some(model) => model,
        None => {
            let sample = sample::bundled()?;
            let files = [
                (&mut settings.data, &sample.data),
                (&mut settings.eval, &sample.eval),
                (&mut settings.labels, &sample.labels),
            ];
            for (known, file) in files {
                known.entry(sample.model.clone()).or_insert_with(|| file.display().to_string());
            }
            sample.model
        }
    };
    // The windowing library puts its own source file before its reason.
    let reason = |error: anyhow::Error| {
        let text = format!("{error:#}");
        let reason = text.lines().next().and_then(|line| line.rsplit(": ").next()).unwrap_or_default();
        format!("The window cannot be opened ({reason})")
    };
    Ok(crate::window::run(Some(model), settings).map_err(reason))
}

/// Only systems where a window needs a server can lack one that we know of.
fn has_display() -> bool {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    !cfg!(all(unix, not(target_os = "macos"))) || is_set("DISPLAY") || is_set("WAYLAND_DISPLAY")
}
