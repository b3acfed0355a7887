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
mod bench;
mod calibrate;
mod console;
mod demo;
mod evaluate;
mod failure;
mod inputs;
mod inspect;
mod measure;
mod output;
mod plan;
mod quantize;
mod report;
pub mod sample;
mod table;

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use args::{Cli, DemoArgs, Verb};
use console::Console;
use failure::Failure;

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
        Some(first) if error.kind() == ErrorKind::UnknownArgument && is_no_verb(&first) => Failure::usage(
            format!("{first} is neither a verb nor a model"),
            &*first,
            format!("Verbs are {}", args::verbs()),
        ),
        _ => Failure::usage_of(error),
    }
}

fn is_no_verb(word: &str) -> bool {
    !word.starts_with('-') && !args::verbs().split(", ").any(|verb| verb == word) && !Path::new(word).exists()
}

fn run(cli: Cli, console: &Console) -> Result<(), Failure> {
    let Some(verb) = cli.verb else {
        return headless(cli.model, console);
    };
    if let Some(model) = cli.model {
        let why = format!("{} stands before the verb", model.display());
        return Err(Failure::usage(why, "", "Write the verb first: `nibble VERB MODEL`"));
    }
    console.cancel_on_ctrl_c();
    match verb {
        Verb::Inspect(args) => inspect::run(&args, console),
        Verb::Calibrate(args) => calibrate::run(&args, console),
        Verb::Quantize(args) => quantize::run(&args, console),
        Verb::Bench(args) => bench::run(&args, console),
        Verb::Evaluate(args) => evaluate::run(&args, console),
        Verb::Report(args) => report::run(&args, console),
        Verb::Demo(args) => demo::run(&args, console),
        Verb::Measure(args) => measure::run(&args, console),
    }
}

/// Does the whole job without a window.
fn headless(model: Option<PathBuf>, console: &Console) -> Result<(), Failure> {
    if let Some(model) = &model
        && let Err(source) = std::fs::metadata(model)
    {
        let hint = format!("Check the path; verbs are {}", args::verbs());
        return Err(Failure::new(format!("cannot open the model: {source}"), model.display().to_string(), hint));
    }
    console.message("There is no display: doing the whole job without a window, as `nibble demo` does");
    console.cancel_on_ctrl_c();
    demo::run(&DemoArgs { model, ..DemoArgs::default() }, console)
}
