//! The columns: their titles, widths, and what each sorts by.

use std::cmp::Ordering;

use nibble_core::error::{Isolated, Sqnr};
use nibble_core::export::Pick;
use nibble_core::model::{Existing, Layer};
use nibble_core::plan::{Choice, Set};

use crate::document::Document;
use crate::format;
use crate::results::Value;

/// A column of the layer table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// Place in the model.
    Index,
    /// Name.
    Name,
    /// Operator.
    Op,
    /// Shape of the main weight.
    Shape,
    /// Number of weights.
    Parameters,
    /// Histogram of the weights.
    Weights,
    /// Weight precision.
    Precision,
    /// How the weights were repaired or scaled.
    Repair,
    /// Weight symmetry.
    Symmetry,
    /// Weight granularity.
    Granularity,
    /// How the weights are clipped.
    Clip,
    /// When activation ranges are found.
    Mode,
    /// Error of the weights.
    WeightSqnr,
    /// Error at the layer's own output, only this layer quantized.
    Isolated,
    /// Error at the layer's output with the whole plan in force.
    Accumulated,
    /// As isolated, with only the weights quantized.
    WeightsOnly,
    /// As isolated, with only the activations quantized.
    ActivationsOnly,
    /// Precision of the activations.
    Activation,
    /// How the activations are clipped.
    ActivationClip,
    /// How the exporter writes it, and what that is worth.
    Form,
    /// Bytes before and after.
    Size,
}

impl Column {
    /// Every column, from left to right.
    pub const ALL: &'static [Self] = &[
        Self::Index,
        Self::Name,
        Self::Op,
        Self::Shape,
        Self::Parameters,
        Self::Weights,
        Self::Precision,
        Self::Repair,
        Self::WeightSqnr,
        Self::Isolated,
        Self::Accumulated,
        Self::Form,
        Self::Size,
        Self::Granularity,
        Self::Symmetry,
        Self::Clip,
        Self::Mode,
        Self::Activation,
        Self::ActivationClip,
        Self::WeightsOnly,
        Self::ActivationsOnly,
    ];

    /// Title and what it means.
    pub fn title(self) -> (&'static str, &'static str) {
        match self {
            Self::Index => ("#", "Place in the model"),
            Self::Name => ("Name", "The node's name"),
            Self::Op => ("Op", "The operator"),
            Self::Shape => ("Shape", "Shape of the main weight"),
            Self::Parameters => ("Params", "Number of weights"),
            Self::Weights => ("Weights", "Histogram of the weights, logarithmic; sorts by the widest weight"),
            Self::Precision => ("Precision", "Precision of the weights"),
            Self::Repair => (
                "Repair",
                "How the integers were found, where they are others than the nearest; scaled: its ranges were divided anew before",
            ),
            Self::Symmetry => ("Symmetry", "Whether zero lies in the middle of the integer range"),
            Self::Granularity => ("Granularity", "Which weights share a scale"),
            Self::Clip => ("Clip", "How the range of the weights is found"),
            Self::Mode => ("Mode", "When the ranges of activations are found"),
            Self::WeightSqnr => ("Weight SQNR", "Signal to quantization noise of the weights themselves (predicted)"),
            Self::Isolated => (
                "Isolated",
                "Signal to quantization noise at the layer's own output, only this layer quantized (predicted; needs calibration)",
            ),
            Self::Accumulated => (
                "Accumulated",
                "Signal to quantization noise at the layer's output with the whole plan in force (measured after export)",
            ),
            Self::WeightsOnly => {
                ("Weights only", "Isolated error with only the weights quantized (predicted; needs calibration)")
            }
            Self::ActivationsOnly => (
                "Activations only",
                "Isolated error with only the activations quantized (predicted; needs calibration)",
            ),
            Self::Activation => ("Activations", "Precision of the activations that enter the layer"),
            Self::ActivationClip => ("Activation clip", "How the range of the activations is found"),
            Self::Form => (
                "Verdict · form",
                "What the form is expected to do (Compare measures it), and how the exporter writes it",
            ),
            Self::Size => ("Size", "Bytes of the weights before and after"),
        }
    }

    /// Width at first.
    pub fn width(self) -> f32 {
        match self {
            Self::Index => 34.0,
            Self::Op | Self::Parameters | Self::Weights => 60.0,
            Self::Shape => 104.0,
            Self::Precision => 72.0,
            Self::Repair => 78.0,
            Self::WeightSqnr | Self::Granularity | Self::Symmetry => 86.0,
            Self::Accumulated | Self::WeightsOnly | Self::Activation => 92.0,
            Self::ActivationsOnly | Self::ActivationClip => 108.0,
            Self::Clip | Self::Mode | Self::Isolated => 74.0,
            Self::Name => 168.0,
            Self::Form => 196.0,
            Self::Size => 132.0,
        }
    }
}

/// What a column sorts by. What is not known sorts last, whichever way.
#[derive(Clone, Debug, PartialEq)]
pub enum SortKey {
    /// A number.
    Number(f64),
    /// A text, compared naturally: `layer.9` before `layer.10`.
    Text(String),
    /// Not known.
    Unknown,
}

impl SortKey {
    /// Compares two keys.
    pub fn compare(&self, other: &Self, descending: bool) -> Ordering {
        let order = match (self, other) {
            (Self::Unknown, Self::Unknown) => return Ordering::Equal,
            (Self::Unknown, _) => return Ordering::Greater,
            (_, Self::Unknown) => return Ordering::Less,
            (Self::Number(a), Self::Number(b)) => a.total_cmp(b),
            (Self::Text(a), Self::Text(b)) => natural(a, b),
            (Self::Number(_), Self::Text(_)) => Ordering::Less,
            (Self::Text(_), Self::Number(_)) => Ordering::Greater,
        };
        if descending { order.reverse() } else { order }
    }
}

/// Compares texts, runs of digits by their value.
fn natural(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a, b);
    loop {
        let (Some(x), Some(y)) = (a.chars().next(), b.chars().next()) else {
            return a.len().cmp(&b.len());
        };
        if x.is_ascii_digit() && y.is_ascii_digit() {
            let digits = |text: &str| text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let ((m, rest_a), (n, rest_b)) = (a.split_at(digits(a)), b.split_at(digits(b)));
            let (m, n) = (m.trim_start_matches('0'), n.trim_start_matches('0'));
            let order = m.len().cmp(&n.len()).then_with(|| m.cmp(n));
            if order != Ordering::Equal {
                return order;
            }
            (a, b) = (rest_a, rest_b);
        } else {
            if x != y {
                return x.cmp(&y);
            }
            (a, b) = (&a[x.len_utf8()..], &b[y.len_utf8()..]);
        }
    }
}

/// What the table shows of one layer.
pub struct Row<'a> {
    /// The open model.
    pub document: &'a Document,
    /// Index of the layer.
    pub index: usize,
    /// The layer.
    pub layer: &'a Layer,
    /// The choice asked for.
    pub choice: Choice,
    /// What the exporter makes of it.
    pub pick: &'a Pick,
}

impl<'a> Row<'a> {
    /// The row of a layer.
    pub fn new(document: &'a Document, index: usize) -> Option<Self> {
        let layer = document.model.layers.get(index)?;
        Some(Self { document, index, layer, choice: document.asked(index), pick: document.pick(index)? })
    }

    /// Whether every word occurs in the name, the operator or the choice.
    pub fn fits(&self, words: &[&str]) -> bool {
        words.is_empty() || {
            let text = format!(
                "{} {} {} {} {} {} {} {}",
                self.layer.name,
                self.layer.op,
                self.choice.precision,
                self.choice.symmetry,
                self.choice.granularity,
                self.choice.clip,
                self.choice.mode,
                self.repair_word()
            )
            .to_lowercase();
            words.iter().all(|word| text.contains(word))
        }
    }

    /// What was done to its weights before they are rounded, or in place of that; empty where nothing was.
    pub fn repair_word(&self) -> String {
        let rounding = self.document.repair(self.index).map(|repair| repair.method.word());
        let scaled = self.document.is_scaled(self.index).then_some("scaled");
        scaled.into_iter().chain(rounding).collect::<Vec<_>>().join(" ")
    }

    /// Whether the file brings scales for its weights.
    pub fn has_grid(&self) -> bool {
        self.layer.weights.iter().any(|weight| weight.grid.is_some())
    }

    /// What the file has quantized already and stays as it is.
    pub fn existing(&self) -> Option<&Existing> {
        self.layer.existing.as_ref().filter(|_| !self.layer.quantizable())
    }

    /// Error of the weights.
    pub fn weight_sqnr(&self) -> Value<f64> {
        if self.layer.quantizable() {
            self.document.results.weight_error(self.index, &self.pick.choice)
        } else {
            Value::None
        }
    }

    /// Error at the layer's own output; none before calibration.
    pub fn isolated(&self) -> Value<f64> {
        self.isolated_part(|isolated| isolated.both_db)
    }

    /// As [`Row::isolated`] for one part of it.
    pub fn isolated_part(&self, part: impl FnOnce(&Isolated) -> Sqnr) -> Value<f64> {
        if self.document.stats.is_none() || !self.layer.quantizable() {
            return Value::None;
        }
        self.document.results.isolated(self.index, &self.pick.choice).map(|isolated| format::decibels(part(isolated)))
    }

    /// Measured error at the layer's output, and whether the plan has changed since.
    pub fn accumulated(&self) -> Option<(f64, bool)> {
        let exported = self.document.exported.as_ref()?;
        let db = exported.accumulated.get(&self.layer.name)?;
        Some((*db, *exported.plan != **self.document.plan()))
    }

    /// Why `set` would not be honoured; empty when it would.
    pub fn refusal(&self, set: &Set) -> String {
        self.document.refusal(self.index, set)
    }

    /// What `column` sorts by.
    pub fn sort_key(&self, column: Column) -> SortKey {
        let number = |value: Value<f64>| match value.known() {
            Some(db) if !db.is_nan() => SortKey::Number(db),
            _ => SortKey::Unknown,
        };
        let able = self.layer.quantizable();
        let word = |text: String| if able { SortKey::Text(text) } else { SortKey::Unknown };
        match column {
            Column::Index => SortKey::Number(self.index as f64),
            Column::Name => SortKey::Text(self.layer.name.clone()),
            Column::Op => SortKey::Text(self.layer.op.clone()),
            Column::Shape => SortKey::Text(self.layer.weight().map(|w| format::shape(&w.shape)).unwrap_or_default()),
            Column::Parameters => SortKey::Number(self.layer.parameters as f64),
            Column::Weights => self.document.results.facts(self.index).map_or(SortKey::Unknown, |facts| {
                SortKey::Number(f64::from(facts.stats.max.abs().max(facts.stats.min.abs())))
            }),
            Column::Precision => match self.existing() {
                Some(existing) => SortKey::Text(existing.weights.clone()),
                None => word(format!("{:02}", self.choice.precision.bits())),
            },
            Column::Repair => match self.repair_word() {
                word if word.is_empty() => SortKey::Unknown,
                word => SortKey::Text(word),
            },
            Column::Symmetry => match self.existing() {
                Some(existing) => SortKey::Text(existing.symmetry.to_string()),
                None => word(self.choice.symmetry.to_string()),
            },
            Column::Granularity => match self.existing() {
                Some(existing) => SortKey::Text(existing.granularity.to_string()),
                None => word(self.choice.granularity.to_string()),
            },
            Column::Clip => word(self.choice.clip.to_string()),
            Column::Mode => word(self.choice.mode.to_string()),
            Column::WeightSqnr => number(self.weight_sqnr()),
            Column::Isolated => number(self.isolated()),
            Column::WeightsOnly => number(self.isolated_part(|isolated| isolated.weights_db)),
            Column::ActivationsOnly => number(self.isolated_part(|isolated| isolated.activations_db)),
            Column::Activation => word(self.choice.activation.to_string()),
            Column::ActivationClip => word(self.choice.activation_clip.to_string()),
            Column::Accumulated => self.accumulated().map_or(SortKey::Unknown, |(db, _)| SortKey::Number(db)),
            Column::Form => {
                SortKey::Text(format!("{}{}", format::verdict(self.pick.verdict), format::form(self.pick.form)))
            }
            Column::Size => SortKey::Number(self.document.layer_bytes(self.index).1 as f64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_names_sort_by_value() {
        assert_eq!(natural("layer.9/x", "layer.10/x"), Ordering::Less);
        assert_eq!(natural("a", "a1"), Ordering::Less);
        assert_eq!(natural("a007", "a7"), Ordering::Equal);
        assert_eq!(natural("Ä2", "Ä10"), Ordering::Less);
    }

    #[test]
    fn what_is_unknown_comes_last_both_ways() {
        for descending in [false, true] {
            assert_eq!(SortKey::Unknown.compare(&SortKey::Number(1.0), descending), Ordering::Greater);
        }
        assert_eq!(SortKey::Number(1.0).compare(&SortKey::Number(2.0), true), Ordering::Greater);
    }
}
