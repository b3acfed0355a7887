//! The plan: a default choice, rules by pattern, choices by layer name; versioned JSON.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Choice, Pattern, Set};
use crate::repair::{LayerRepair, Scaling};
use crate::{Problem, problem::Severity};

/// Why a plan, pattern or `KEY=VALUE` was refused.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// A word that the key does not take.
    #[error("{key} cannot be {value:?}; allowed: {allowed}")]
    Value {
        /// The key.
        key: String,
        /// What was given.
        value: String,
        /// What it takes.
        allowed: String,
    },
    /// `--set` names a key that does not exist.
    #[error("unknown key {key:?}")]
    Key {
        /// What was given.
        key: String,
    },
    /// `--set` gives a key two values at once.
    #[error("{key} is given twice")]
    Repeated {
        /// The key.
        key: String,
    },
    /// A glob or regex that cannot be compiled.
    #[error("bad pattern {pattern:?}: {why}")]
    Pattern {
        /// What was given.
        pattern: String,
        /// The compiler's reason.
        why: String,
    },
    /// A preset name that does not exist.
    #[error("unknown preset {name:?}")]
    Preset {
        /// What was given.
        name: String,
    },
    /// A target name that does not exist.
    #[error("unknown target {name:?}")]
    Target {
        /// What was given.
        name: String,
    },
    /// The plan file is not a plan.
    #[error("not a plan: {why}")]
    Format {
        /// The file.
        path: PathBuf,
        /// The reader's reason.
        why: String,
    },
    /// A scaling of the plan does not fit the model.
    #[error("the plan's scaling does not fit this model: {why}")]
    Scaling {
        /// The tensor that it divides.
        tensor: String,
        /// What does not fit.
        why: String,
    },
    /// The file of repaired weights that a plan refers to is missing, or not what the plan refers to.
    #[error("the plan's repaired weights cannot be used: {why}")]
    Tensors {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

impl PlanError {
    /// The pattern or file concerned.
    pub fn place(&self) -> String {
        match self {
            Self::Value { key, .. } | Self::Key { key } | Self::Repeated { key } => key.clone(),
            Self::Pattern { pattern, .. } => pattern.clone(),
            Self::Preset { name } | Self::Target { name } => name.clone(),
            Self::Scaling { tensor, .. } => tensor.clone(),
            Self::Format { path, .. } | Self::Tensors { path, .. } => path.display().to_string(),
        }
    }

    /// What to do next.
    pub fn hint(&self) -> String {
        match self {
            Self::Value { allowed, .. } => format!("Use one of: {allowed}"),
            Self::Key { .. } => format!("Keys are {}", super::set::KEYS.join(", ")),
            Self::Repeated { .. } => "Give each key once; a later --set changes what an earlier one set".to_owned(),
            Self::Pattern { .. } => "Write a glob such as 'encoder*', or a regex after 're:'".to_owned(),
            Self::Preset { .. } => {
                let names: Vec<_> = super::PRESETS.iter().map(|p| p.name).collect();
                format!("Presets are {}", names.join(", "))
            }
            Self::Target { .. } => {
                let names: Vec<_> = super::targets::all().iter().map(|target| target.name.as_str()).collect();
                format!("Targets are {}", names.join(", "))
            }
            Self::Format { .. } => "Use a plan that Nibble saved, or start from a preset".to_owned(),
            Self::Scaling { .. } => {
                "Open the model that the plan was made for, or remove `repairs` from the plan and scale again".to_owned()
            }
            Self::Tensors { .. } => {
                "Keep the .safetensors file beside the plan as it was saved; without it, remove `repairs` from the plan and repair again"
                    .to_owned()
            }
        }
    }
}

/// Keys set for all layers whose name matches a pattern.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    /// Which layers.
    pub pattern: Pattern,
    /// What is set.
    pub set: Set,
}

/// Choices for all layers. Later rules win over earlier ones; `layers` win over rules.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Version of this format.
    pub version: u32,
    /// SHA-256 of the model file the plan was made for, in hex; empty when for any model.
    #[serde(default)]
    pub model_sha256: String,
    /// Name of the preset it started from.
    #[serde(default)]
    pub preset: String,
    /// Name of the deployment target; empty for the default one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub target: String,
    /// Choice of every layer that nothing else names.
    pub default: Choice,
    /// Changes by pattern, in order.
    #[serde(default)]
    pub rules: Vec<Rule>,
    /// Choices by layer name.
    #[serde(default)]
    pub layers: BTreeMap<String, Choice>,
    /// Repaired integers by layer name; see [`crate::repair`]. They are in force where the choice's `rounding` names them.
    #[serde(skip)]
    pub repairs: BTreeMap<String, Arc<LayerRepair>>,
    /// Function-preserving changes of the float graph, made before anything is rounded.
    #[serde(skip)]
    pub scalings: Vec<Scaling>,
    /// Where [`Self::save`] has put `repairs` and `scalings`; empty in memory, since they are here.
    #[serde(rename = "repairs", default, skip_serializing_if = "Option::is_none")]
    pub(super) tensors: Option<TensorsFile>,
    /// Fields written by a newer version, kept as they are.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

/// A file of tensors beside the plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TensorsFile {
    /// Its name, without a folder.
    pub(super) file: String,
    /// Its SHA-256, in hex.
    pub(super) sha256: String,
}

/// Key under which the plan in an exported file's metadata says how many scalings it had: their factors are not there.
pub(crate) const SCALINGS_LEFT_OUT: &str = "scalings_left_out";

/// Version of the plan format written by this build.
const VERSION: u32 = 1;

impl Plan {
    /// A plan that gives every layer `default`.
    pub fn uniform(default: Choice) -> Self {
        Self {
            version: VERSION,
            model_sha256: String::new(),
            preset: String::new(),
            target: String::new(),
            default,
            rules: Vec::new(),
            layers: BTreeMap::new(),
            repairs: BTreeMap::new(),
            scalings: Vec::new(),
            tensors: None,
            unknown: Map::new(),
        }
    }

    /// The choice in force for the layer `name`.
    pub fn choice(&self, name: &str) -> Choice {
        if let Some(choice) = self.layers.get(name) {
            return *choice;
        }
        let mut choice = self.default;
        for rule in &self.rules {
            if rule.pattern.matches(name) {
                rule.set.apply(&mut choice);
            }
        }
        choice
    }

    /// Sets the choice of one layer.
    pub fn set_layer(&mut self, name: &str, choice: Choice) {
        self.layers.insert(name.to_owned(), choice);
    }

    /// Applies `set` to every layer in `names` on top of what is in force for it.
    pub fn set_layers<'a>(&mut self, names: impl IntoIterator<Item = &'a str>, set: &Set) {
        for name in names {
            let mut choice = self.choice(name);
            set.apply(&mut choice);
            self.layers.insert(name.to_owned(), choice);
        }
    }

    /// Applies changes to layers by name beneath the rules, which a person wrote and which win.
    pub(crate) fn beneath_rules<'a>(&mut self, changes: impl IntoIterator<Item = (&'a str, Set)>) {
        let rules = std::mem::take(&mut self.rules);
        for (layer, change) in changes {
            self.set_layers([layer], &change);
        }
        for rule in rules {
            self.push_rule(rule);
        }
    }

    /// Appends a rule; it also overrides choices already made by name for the layers it matches.
    pub fn push_rule(&mut self, rule: Rule) {
        for (name, choice) in &mut self.layers {
            if rule.pattern.matches(name) {
                rule.set.apply(choice);
            }
        }
        self.rules.push(rule);
    }

    /// Reads a plan from JSON bytes, without the tensors that it refers to; the message says what is wrong.
    pub fn from_json(text: &[u8]) -> Result<Self, String> {
        let plan: Self = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        if plan.version > VERSION {
            return Err(format!("it has version {}, this build reads up to {VERSION}", plan.version));
        }
        Ok(plan)
    }

    /// The plan as indented JSON, without its repairs and scalings (see [`Self::save`]).
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// Whether it comes from an exported file and had scalings, whose factors are not there.
    pub fn lacks_scalings(&self) -> bool {
        self.unknown.contains_key(SCALINGS_LEFT_OUT)
    }

    /// Layers and rules of the plan that the model with these layer names does not have.
    pub fn problems(&self, layer_names: &[&str]) -> Vec<Problem> {
        let missing = self.layers.keys().filter(|name| !layer_names.contains(&name.as_str())).map(|name| {
            Problem::new(
                Severity::Warning,
                "The plan names a layer that the model does not have",
                name.as_str(),
                "The plan was made for another model, or the layer was renamed",
                "Remove the entry, or open the model that the plan was made for",
            )
        });
        let idle = self.rules.iter().filter(|rule| !layer_names.iter().any(|name| rule.pattern.matches(name)));
        let idle = idle.map(|rule| {
            Problem::new(
                Severity::Warning,
                "A pattern matches no layer",
                rule.pattern.to_string(),
                "No layer name fits the pattern",
                "List the names with `nibble inspect`, and quote the pattern in the shell",
            )
        });
        let unknown = super::targets::target(&self.target).err().map(|error| {
            Problem::new(
                Severity::Warning,
                format!("The plan is for an {error}"),
                self.target.as_str(),
                "It may come from a newer version; it is taken as one for the default target",
                error.hint(),
            )
        });
        let left_out = self.unknown.get(SCALINGS_LEFT_OUT).map(|count| {
            Problem::new(
                Severity::Warning,
                "The plan's scalings are missing",
                "",
                format!("It comes from an exported file, which does not carry the factors of its {count} scalings"),
                "Scale again with --repair, or use the plan file that the export was made with",
            )
        });
        missing.chain(idle).chain(unknown).chain(left_out).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Precision, preset};

    #[test]
    fn later_rules_win_and_names_win_over_rules() {
        let mut plan = preset("int8").expect("preset").plan();
        plan.push_rule(Rule { pattern: "enc*".parse().expect("glob"), set: "precision=int4".parse().expect("set") });
        plan.push_rule(Rule {
            pattern: "re:^enc1".parse().expect("regex"),
            set: "precision=float32".parse().expect("set"),
        });
        assert_eq!(plan.choice("enc0").precision, Precision::Int4);
        assert_eq!(plan.choice("enc1").precision, Precision::Float32);
        assert_eq!(plan.choice("dec").precision, Precision::Int8);
        plan.set_layer("enc1", plan.default);
        assert_eq!(plan.choice("enc1").precision, Precision::Int8);
    }

    #[test]
    fn unknown_fields_are_kept_and_newer_versions_refused() {
        let mut json: Value = serde_json::from_str(&preset("int8").expect("preset").plan().to_json()).expect("json");
        json["from_the_future"] = Value::from(7);
        let plan = Plan::from_json(json.to_string().as_bytes()).expect("plan");
        assert!(plan.to_json().contains("from_the_future"));
        json["version"] = Value::from(99);
        assert!(Plan::from_json(json.to_string().as_bytes()).unwrap_err().contains("99"));
    }

    #[test]
    fn what_fits_no_layer_is_a_problem() {
        let mut plan = preset("int8").expect("preset").plan();
        plan.set_layer("gone", plan.default);
        plan.push_rule(Rule { pattern: "x*".parse().expect("glob"), set: "mode=dynamic".parse().expect("set") });
        assert_eq!(plan.problems(&["conv1"]).len(), 2);
    }
}
