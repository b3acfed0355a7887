//! `--set PATTERN KEY=VALUE,…`: which layers, and what changes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Activation, Choice, Clip, Granularity, Mode, PlanError, Precision, Rounding, Symmetry};

/// The keys that `--set` takes.
pub(super) const KEYS: &[&str] = &[
    "precision",
    "symmetry",
    "granularity",
    "clip",
    "mode",
    "activation",
    "activation_symmetry",
    "activation_clip",
    "rounding",
    "reduce_range",
];

/// Changes to a choice; `None` leaves the field as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Set {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision: Option<Precision>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub symmetry: Option<Symmetry>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub granularity: Option<Granularity>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip: Option<Clip>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activation: Option<Activation>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activation_symmetry: Option<Symmetry>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activation_clip: Option<Clip>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rounding: Option<Rounding>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reduce_range: Option<bool>,
}

impl Set {
    /// Changes `choice` in place. Choosing a quantized mode turns activation quantization on, unless it is set too. A repair
    /// belongs to the precision, range, symmetry, granularity and clip it was made for: another one of these puts `rounding` back
    /// to `nearest`, unless it is set too.
    pub fn apply(&self, choice: &mut Choice) {
        let before = *choice;
        let put = |slot: &mut Choice| {
            slot.precision = self.precision.unwrap_or(slot.precision);
            slot.symmetry = self.symmetry.unwrap_or(slot.symmetry);
            slot.granularity = self.granularity.unwrap_or(slot.granularity);
            slot.clip = self.clip.unwrap_or(slot.clip);
            slot.activation_symmetry = self.activation_symmetry.unwrap_or(slot.activation_symmetry);
            slot.activation_clip = self.activation_clip.unwrap_or(slot.activation_clip);
            slot.rounding = self.rounding.unwrap_or(slot.rounding);
            slot.reduce_range = self.reduce_range.unwrap_or(slot.reduce_range);
        };
        put(choice);
        if let Some(mode) = self.mode {
            choice.mode = mode;
            choice.activation = if mode == Mode::WeightOnly { Activation::Float32 } else { Activation::Int8 };
        }
        choice.activation = self.activation.unwrap_or(choice.activation);
        let grid = |choice: &Choice| {
            (choice.precision, choice.symmetry, choice.granularity, choice.clip, choice.weight_bits())
        };
        if self.rounding.is_none() && grid(&before) != grid(choice) {
            choice.rounding = Rounding::Nearest;
        }
    }
}

impl FromStr for Set {
    type Err = PlanError;

    /// Reads `KEY=VALUE[,KEY=VALUE…]`.
    fn from_str(text: &str) -> Result<Self, PlanError> {
        let mut set = Self::default();
        let mut seen: Vec<&str> = Vec::new();
        for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').ok_or_else(|| PlanError::Key { key: pair.to_owned() })?;
            let (key, value) = (key.trim(), value.trim());
            if seen.contains(&key) {
                return Err(PlanError::Repeated { key: key.to_owned() });
            }
            seen.push(key);
            match key {
                "precision" => set.precision = Some(value.parse()?),
                "symmetry" => set.symmetry = Some(value.parse()?),
                "granularity" => set.granularity = Some(value.parse()?),
                "clip" => set.clip = Some(value.parse()?),
                "mode" => set.mode = Some(value.parse()?),
                "activation" => set.activation = Some(value.parse()?),
                "activation_symmetry" => set.activation_symmetry = Some(value.parse()?),
                "activation_clip" => set.activation_clip = Some(value.parse()?),
                "rounding" => set.rounding = Some(value.parse()?),
                "reduce_range" => set.reduce_range = Some(truth(key, value)?),
                key => return Err(PlanError::Key { key: key.to_owned() }),
            }
        }
        if seen.is_empty() { Err(PlanError::Key { key: text.to_owned() }) } else { Ok(set) }
    }
}

fn truth(key: &str, value: &str) -> Result<bool, PlanError> {
    value.parse().map_err(|_| PlanError::Value {
        key: key.to_owned(),
        value: value.to_owned(),
        allowed: "true, false".to_owned(),
    })
}

/// A glob over layer names, or a regular expression after `re:`.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: String,
    matcher: Matcher,
}

#[derive(Clone, Debug)]
enum Matcher {
    Glob(globset::GlobMatcher),
    Regex(regex::Regex),
}

impl Pattern {
    /// Whether the layer name fits. The literal text always fits itself, so that names with `[` need no escaping.
    pub fn matches(&self, name: &str) -> bool {
        name == self.text
            || match &self.matcher {
                Matcher::Glob(glob) => glob.is_match(name),
                Matcher::Regex(regex) => regex.is_match(name),
            }
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Pattern {
    type Err = PlanError;
    fn from_str(text: &str) -> Result<Self, PlanError> {
        let bad = |why: String| PlanError::Pattern { pattern: text.to_owned(), why };
        let matcher = match text.strip_prefix("re:") {
            Some(regex) => Matcher::Regex(regex::Regex::new(regex).map_err(|error| bad(error.to_string()))?),
            None => Matcher::Glob(
                globset::Glob::new(text).map_err(|error| bad(error.kind().to_string()))?.compile_matcher(),
            ),
        };
        Ok(Self { text: text.to_owned(), matcher })
    }
}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_cross_slashes_and_regexes_work() {
        let glob: Pattern = "/encoder/*".parse().expect("glob");
        assert!(glob.matches("/encoder/layer.0/MatMul") && !glob.matches("/decoder/x"));
        let regex: Pattern = r"re:layer\.\d+$".parse().expect("regex");
        assert!(regex.matches("a/layer.12") && !regex.matches("a/layer.12/b"));
        let literal: Pattern = "a[0]".parse().expect("literal");
        assert!(literal.matches("a[0]"));
    }

    #[test]
    fn a_mode_switches_activations_unless_they_are_set() {
        let mut choice = Choice::FLOAT;
        "precision=int8,mode=dynamic".parse::<Set>().expect("set").apply(&mut choice);
        assert!(choice.is_dynamic());
        "mode=static,activation=float32".parse::<Set>().expect("set").apply(&mut choice);
        assert!(!choice.is_static());
    }

    #[test]
    fn another_grid_puts_rounding_back_to_nearest() {
        let mut choice = Choice { rounding: Rounding::Gptq, precision: Precision::Int4, ..Choice::FLOAT };
        "activation_clip=mse,precision=int4".parse::<Set>().expect("set").apply(&mut choice);
        assert_eq!(choice.rounding, Rounding::Gptq);
        "granularity=block:32".parse::<Set>().expect("set").apply(&mut choice);
        assert_eq!(choice.rounding, Rounding::Nearest);
        "precision=int8,rounding=hqq".parse::<Set>().expect("set").apply(&mut choice);
        assert_eq!(choice.rounding, Rounding::Hqq);
    }

    #[test]
    fn unknown_keys_and_values_are_refused_by_name() {
        assert!("bits=3".parse::<Set>().unwrap_err().to_string().contains("bits"));
        assert!("".parse::<Set>().is_err() && " , ".parse::<Set>().is_err());
        assert!("clip=mse,clip=minmax".parse::<Set>().unwrap_err().to_string().contains("clip is given twice"));
        assert!("reduce_range=7".parse::<Set>().unwrap_err().to_string().contains("true, false"));
        assert!("precision=int5".parse::<Set>().unwrap_err().to_string().contains("int5"));
    }
}
