//! Deployment targets, as data: what each allows, what is fast on it, and how the exporter writes for it. One JSON file a
//! target in `assets/targets`, every rule with the target's own documentation as its source.

mod check;
mod fix;

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

pub use check::{Conflict, check_layer, check_model, conflicts, takes_changed, takes_spared};
pub use fix::fix;

use super::{Activation, Plan, PlanError, Precision, Symmetry};
use crate::export::{Form, Pick};

/// A place where a quantized model is to run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// Name on the command line and in plans.
    pub name: String,
    /// What people call it.
    pub title: String,
    /// A few lines about it.
    pub about: String,
    /// Whether exports for it were run, and how.
    pub run: Run,
    /// How the exporter writes for it.
    pub writes: Style,
    /// A second file that is written for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub also: Option<SecondFile>,
    /// What it demands of layers.
    pub rules: Vec<Rule>,
    /// What it demands of the whole model.
    pub needs: Vec<ModelRule>,
}

/// Whether exports for a target were run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    /// Whether they are, or were, on the machine of whoever wrote or runs Nibble.
    pub here: bool,
    /// How, or "rules only, not run" and why.
    pub how: String,
}

/// How static layers are written. The values are the same whatever the type: a signed zero point is an unsigned one less 128.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Style {
    /// Type of 8-bit activations.
    pub activations: ActivationType,
    /// Symmetry of activations that no layer's choice decides.
    pub undecided: Symmetry,
    /// Type of biases.
    pub bias: BiasType,
    /// Why.
    pub because: String,
    /// Where that is written.
    pub source: Source,
}

/// How 8-bit activations are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActivationType {
    /// 0..255.
    Uint8,
    /// −128..127.
    Int8,
}

/// How biases of static layers are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BiasType {
    /// As int32 behind a DequantizeLinear.
    Int32,
    /// As they are.
    Float32,
}

/// A second file beside the ONNX file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecondFile {
    /// In ORT format, `NAME.ort`.
    Ort,
}

/// Where a rule is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Title of the page.
    pub title: String,
    /// Section of it.
    pub section: String,
    /// Address.
    pub url: String,
}

/// What breaking a rule means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// The target does not take it.
    Allowed,
    /// The target takes it, and gains nothing by it.
    Fast,
}

/// A demand on layers: whatever fits `when` has to fit `allow`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Short name, unique in the target.
    pub id: String,
    /// What breaking it means.
    pub level: Level,
    /// The rule, one sentence.
    pub says: String,
    /// Where that is written.
    pub source: Source,
    /// Layers that it is about; all without any terms.
    pub when: Terms,
    /// What they have to be like.
    pub allow: Terms,
    /// Ways out as `--set` takes them; the first that helps is offered.
    pub fix: Vec<String>,
}

/// A demand on the whole model, which no choice can meet.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelRule {
    /// Short name, unique in the target.
    pub id: String,
    /// What breaking it means.
    pub level: Level,
    /// The rule, one sentence.
    pub says: String,
    /// Where that is written.
    pub source: Source,
    /// What is needed.
    pub need: Need,
    /// What to do, for people.
    pub fix: String,
}

/// What a model needs to be like.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Need {
    /// An operator set of at least this version.
    OpsetAtLeast(i64),
    /// An operator set within these, both included.
    OpsetBetween(i64, i64),
    /// No symbolic dimension among its inputs.
    FixedShapes,
    /// None of these operators.
    NoOperators(Vec<String>),
}

/// Properties of a layer as it would be written. An absent term fits everything.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs)]
pub struct Terms {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub op: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub form: Option<Vec<Form>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub precision: Option<Vec<Precision>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub symmetry: Option<Vec<Symmetry>>,
    /// `per_tensor`, `per_channel`, `block:N`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub granularity: Option<Vec<super::Granularity>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub activation: Option<Vec<Activation>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub activation_symmetry: Option<Vec<Symmetry>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reduce_range: Option<bool>,
}

impl Terms {
    /// Whether a layer of this operator, written so, has all these properties.
    pub fn fit(&self, op: &str, pick: &Pick) -> bool {
        fn among<T: PartialEq>(list: Option<&Vec<T>>, value: &T) -> bool {
            list.is_none_or(|list| list.contains(value))
        }
        let choice = &pick.choice;
        self.op.as_ref().is_none_or(|ops| ops.iter().any(|known| known == op))
            && among(self.form.as_ref(), &pick.form)
            && among(self.precision.as_ref(), &choice.precision)
            && among(self.symmetry.as_ref(), &choice.symmetry)
            && among(self.granularity.as_ref(), &choice.granularity)
            && among(self.activation.as_ref(), &choice.activation)
            && among(self.activation_symmetry.as_ref(), &choice.activation_symmetry)
            && self.reduce_range.is_none_or(|wanted| wanted == choice.reduce_range)
    }
}

/// The files, the default target first.
const FILES: [&str; 6] = [
    include_str!("../../../assets/targets/onnxruntime-cpu-vnni.json"),
    include_str!("../../../assets/targets/onnxruntime-cpu-avx2.json"),
    include_str!("../../../assets/targets/onnxruntime-mobile.json"),
    include_str!("../../../assets/targets/tensorrt.json"),
    include_str!("../../../assets/targets/qnn.json"),
    include_str!("../../../assets/targets/tflite-int8-spec.json"),
];

// The files are data of this program; a test parses them all.
static TARGETS: LazyLock<Vec<Target>> =
    LazyLock::new(|| FILES.iter().filter_map(|file| serde_json::from_str(file).ok()).collect());

/// Every target, the default one first.
pub fn all() -> &'static [Target] {
    &TARGETS
}

/// The target of this name; an empty one is the default.
pub fn target(name: &str) -> Result<&'static Target, PlanError> {
    let found = if name.is_empty() { all().first() } else { all().iter().find(|target| target.name == name) };
    found.ok_or_else(|| PlanError::Target { name: name.to_owned() })
}

impl Plan {
    /// The target that it is for; the default one where it names none, or one that this build does not know (which
    /// [`Plan::problems`] tells).
    pub fn target(&self) -> Option<&'static Target> {
        target(&self.target).or_else(|_| target("")).ok()
    }
}

#[cfg(test)]
mod tests;
