//! A metric of the person's own: a program that reads outputs from an `.npz` and prints a number.

mod outputs;

use std::process::{Command, Stdio};

use self::outputs::Outputs;
use super::MeasureError;
use crate::data::DataSet;
use crate::runtime::{Runtime, Source};
use crate::{Control, Error, child};

/// Lines of stderr that a failure repeats.
const TAIL: usize = 4;

/// A command with what it is told besides a model's outputs. Larger numbers count as better.
pub struct OwnMetric<'a> {
    words: Vec<String>,
    text: String,
    data: &'a DataSet,
    indices: &'a [usize],
    labels: Option<Vec<i64>>,
    original: Option<Outputs>,
    threads: usize,
}

impl<'a> OwnMetric<'a> {
    /// `command` is split at spaces, as a shell does with quotes and backslashes, and run without a shell. `labels` has one
    /// entry a row of the whole data, not of `indices`.
    pub fn new(
        command: &str,
        data: &'a DataSet,
        indices: &'a [usize],
        labels: Option<&[i64]>,
        threads: usize,
    ) -> Result<Self, MeasureError> {
        let words = words(command).map_err(|why| failed(command, why, ""))?;
        let batch = data.batch();
        let labels = labels.map(|labels| {
            indices.iter().flat_map(|index| labels.iter().skip(index * batch).take(batch)).copied().collect()
        });
        Ok(Self { words, text: command.to_owned(), data, indices, labels, original: None, threads })
    }

    /// Keeps the outputs of the original, so that the command sees them as `original/NAME`, and scores them.
    pub fn keep_original(&mut self, runtime: &Runtime, original: Source<'_>, control: &Control) -> Result<f64, Error> {
        let outputs = Outputs::collect(runtime, original, self.data, self.indices, self.threads, control)?;
        self.original = Some(outputs);
        // A command that compares with the original does so here too, with the original itself.
        self.score(runtime, original, control)
    }

    /// Runs a model on the samples and the command on its outputs.
    pub fn score(&mut self, runtime: &Runtime, model: Source<'_>, control: &Control) -> Result<f64, Error> {
        let mut outputs = Outputs::collect(runtime, model, self.data, self.indices, self.threads, control)?;
        self.judge(&mut outputs, control)
    }

    fn judge(&mut self, outputs: &mut Outputs, control: &Control) -> Result<f64, Error> {
        let io = |error: std::io::Error| Error::Io {
            action: "make room for outputs",
            path: std::env::temp_dir(),
            source: error,
        };
        let folder = tempfile::tempdir().map_err(io)?;
        let path = folder.path().join("outputs.npz");
        outputs.write(self.original.as_mut(), self.labels.as_deref(), &path)?;
        control.progress("Running the metric command", 0, 0);
        let (program, arguments) = self.words.split_first().ok_or_else(|| failed(&self.text, "is empty".into(), ""))?;
        // Files, not pipes: a child that prints much would wait for ever on a full pipe.
        let (mut out, mut err) = (tempfile::tempfile().map_err(io)?, tempfile::tempfile().map_err(io)?);
        let child = Command::new(program)
            .args(arguments)
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(out.try_clone().map_err(io)?)
            .stderr(err.try_clone().map_err(io)?)
            .spawn();
        let mut child = child.map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => failed(&self.text, format!("was not found ({program})"), ""),
            _ => failed(&self.text, format!("does not start ({error})"), ""),
        })?;
        let Some(status) = child::wait(&mut child, control).map_err(io)? else { return Err(Error::Cancelled) };
        let said = tail(&child::text(&mut err).map_err(io)?);
        if !status.success() {
            let why = match status.code() {
                Some(code) => format!("ended with exit code {code}"),
                None => format!("was ended ({status})"),
            };
            return Err(failed(&self.text, why, &said).into());
        }
        let printed = child::text(&mut out).map_err(io)?;
        let last = printed.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default().trim();
        match last.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(number),
            Ok(_) => Err(failed(&self.text, format!("printed {last}, which is not finite"), &said).into()),
            Err(_) if last.is_empty() => Err(failed(&self.text, "printed no number".to_owned(), &said).into()),
            Err(_) => {
                let shown: String = last.chars().take(80).collect();
                Err(failed(&self.text, format!("printed no number on its last line, but {shown:?}"), &said).into())
            }
        }
    }
}

fn failed(command: &str, why: String, said: &str) -> MeasureError {
    MeasureError::Command { command: command.to_owned(), why, said: said.to_owned() }
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(TAIL)..].join(" | ")
}

/// The words of a command line: split at spaces outside quotes; a backslash keeps the next character where it is a space, a
/// quote or a backslash, so that paths of Windows stay whole.
fn words(command: &str) -> Result<Vec<String>, String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut characters = command.chars().peekable();
    while let Some(c) = characters.next() {
        let special = characters.peek().is_some_and(|next| [' ', '"', '\'', '\\'].contains(next));
        match (c, quote) {
            ('\\', None | Some('"')) if special => word.get_or_insert_default().extend(characters.next()),
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, Some(open)) if c == open => quote = None,
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err("has a quote that is not closed".to_owned());
    }
    words.extend(word);
    if words.is_empty() { Err("is empty".to_owned()) } else { Ok(words) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_split_as_a_shell_does() {
        let split = |text: &str| words(text).expect("words");
        assert_eq!(split("python3 score.py"), ["python3", "score.py"]);
        assert_eq!(split(r#"py "a b" 'c "d' e\ f """#), ["py", "a b", "c \"d", "e f", ""]);
        assert_eq!(split(r"C:\tools\score.exe x"), [r"C:\tools\score.exe", "x"]);
        assert!(words("a 'b").is_err() && words("  ").is_err());
    }

    #[test]
    fn the_end_of_what_was_said_is_kept() {
        assert_eq!(tail("a\n\nb\nc\nd\ne\n"), "b | c | d | e");
        assert_eq!(tail(""), "");
    }
}
