//! `targets`: where a model can be deployed, what each target demands, and where that is written. Needs no model.

use nibble_core::plan::targets::{self, Level, Source, Target};
use serde_json::json;

use super::console::Console;
use super::failure::Failure;
use super::table::Table;

/// Runs the verb.
pub fn run(console: &Console) -> Result<(), Failure> {
    let all = targets::all();
    let text: Vec<String> = all.iter().map(to_text).collect();
    console.result(&json!({"targets": all}), &text.join("\n"))
}

fn to_text(target: &Target) -> String {
    let default = targets::target("").is_ok_and(|default| default.name == target.name);
    let mut out = format!("{}{}  {}\n", target.name, if default { " (default)" } else { "" }, target.title);
    out +=
        &format!("{}.\n{}: {}\n", target.about, if target.run.here { "Run here" } else { "Not run" }, target.run.how);
    let mut table = Table::new(&["", "Rule", "Source"], &[]);
    let written = |source: &Source| format!("{}: {}", source.title, source.section);
    for rule in &target.rules {
        table.row([word(rule.level).to_owned(), rule.says.clone(), written(&rule.source)]);
    }
    for rule in &target.needs {
        table.row([word(rule.level).to_owned(), rule.says.clone(), written(&rule.source)]);
    }
    table.row(["written".to_owned(), target.writes.because.clone(), written(&target.writes.source)]);
    out + &table.to_string()
}

fn word(level: Level) -> &'static str {
    match level {
        Level::Allowed => "must",
        Level::Fast => "fast",
    }
}
