//! Where a plan and its target part.

use serde::Serialize;

use super::{Level, ModelRule, Need, Rule, Source, Target};
use crate::Problem;
use crate::export::{Form, Pick, pick};
use crate::model::{Layer, Model};
use crate::onnx::proto::{AttributeProto, GraphProto};
use crate::plan::spare::Spared;
use crate::plan::{Choice, Plan, Set};
use crate::port::Dim;
use crate::problem::Severity;
use crate::stats::Stats;

/// A rule that a layer, or the model, breaks.
#[derive(Clone, Debug, Serialize)]
pub struct Conflict {
    /// The rule's short name.
    pub rule: &'static str,
    /// What breaking it means.
    pub level: Level,
    /// The layer; empty where it is the whole model.
    pub layer: String,
    /// Where the rule is written.
    pub source: &'static Source,
    /// What to set for the layer; `None` where no choice helps.
    pub set: Option<Set>,
    /// It, for people.
    #[serde(skip)]
    pub problem: Problem,
}

/// Everything in which `plan` and its target part: the model first, then layer by layer. Without `stats` static layers are
/// judged as if calibration had seen everything.
pub fn conflicts(model: &Model, plan: &Plan, stats: Option<&Stats>) -> Vec<Conflict> {
    let Some(target) = plan.target() else { return Vec::new() };
    let mut found = check_model(target, model);
    for layer in model.layers.iter().filter(|layer| layer.quantizable()) {
        let asked = plan.choice(&layer.name);
        found.extend(check_layer(target, model, layer, asked, &pick(model, layer, asked, stats), stats));
    }
    found
}

/// Whether the target takes a layer under this choice: it breaks no rule that forbids anything.
fn takes(target: &'static Target, model: &Model, layer: &Layer, choice: Choice, stats: Option<&Stats>) -> bool {
    let picked = pick(model, layer, choice, stats);
    !target.rules.iter().any(|rule| rule.level == Level::Allowed && breaks(rule, layer, &picked))
}

/// Whether the plan's target takes a layer with its activations left in floating point.
pub fn takes_spared(plan: &Plan, model: &Model, spared: &Spared, stats: Option<&Stats>) -> bool {
    takes_changed(plan, model, &spared.layer, &spared.change, stats)
}

/// Whether the plan's target takes a layer with this change.
pub fn takes_changed(plan: &Plan, model: &Model, layer: &str, change: &Set, stats: Option<&Stats>) -> bool {
    let Some((target, layer)) = plan.target().zip(model.layer(layer)) else { return true };
    let mut choice = plan.choice(&layer.name);
    change.apply(&mut choice);
    takes(target, model, layer, choice, stats)
}

/// The rules that a layer breaks as it would be written: `picked` for the choice `asked`. A layer left in floating point
/// breaks none.
pub fn check_layer(
    target: &'static Target,
    model: &Model,
    layer: &Layer,
    asked: Choice,
    picked: &Pick,
    stats: Option<&Stats>,
) -> Vec<Conflict> {
    let broken = target.rules.iter().filter(|rule| breaks(rule, layer, picked));
    broken
        .map(|rule| {
            let way_out = rule.fix.iter().find_map(|text| {
                let set: Set = text.parse().ok()?;
                let mut choice = asked;
                set.apply(&mut choice);
                let mended = pick(model, layer, choice, stats);
                (!breaks(rule, layer, &mended)).then_some((set, text.as_str()))
            });
            let fix = way_out.map_or_else(
                || "Leave the layer in float32, or choose another target".to_owned(),
                |(_, text)| format!("Set {text} for it"),
            );
            let problem = problem(target, rule.level, &rule.says, &rule.source, &layer.name, &fix);
            let set = way_out.map(|(set, _)| set);
            Conflict {
                rule: &rule.id,
                level: rule.level,
                layer: layer.name.clone(),
                source: &rule.source,
                set,
                problem,
            }
        })
        .collect()
}

fn breaks(rule: &Rule, layer: &Layer, pick: &Pick) -> bool {
    pick.form != Form::Float && rule.when.fit(&layer.op, pick) && !rule.allow.fit(&layer.op, pick)
}

/// What of the whole model the target does not take, whatever the plan.
pub fn check_model(target: &'static Target, model: &Model) -> Vec<Conflict> {
    let broken = target.needs.iter().filter(|rule| !has(model, &rule.need));
    broken
        .map(|rule: &'static ModelRule| Conflict {
            rule: &rule.id,
            level: rule.level,
            layer: String::new(),
            source: &rule.source,
            set: None,
            problem: problem(target, rule.level, &rule.says, &rule.source, "", &rule.fix),
        })
        .collect()
}

fn problem(target: &Target, level: Level, says: &str, source: &Source, place: &str, fix: &str) -> Problem {
    let (severity, what) = match level {
        Level::Allowed => (Severity::Warning, format!("{} does not take it", target.title)),
        Level::Fast => (Severity::Note, format!("Not fast on {}", target.title)),
    };
    Problem::new(severity, what, place, format!("{says} ({}: {})", source.title, source.section), fix)
}

fn has(model: &Model, need: &Need) -> bool {
    match need {
        Need::OpsetAtLeast(least) => model.opset >= *least,
        Need::OpsetBetween(least, most) => (*least..=*most).contains(&model.opset),
        Need::FixedShapes => {
            model.inputs.iter().all(|port| port.has_shape && port.shape.iter().all(|dim| matches!(dim, Dim::Fixed(_))))
        }
        Need::NoOperators(ops) => model.file.proto.graph.as_ref().is_none_or(|graph| !any(graph, ops)),
    }
}

/// Whether the graph, or a body in it, has one of these operators.
fn any(graph: &GraphProto, ops: &[String]) -> bool {
    let bodies = |attribute: &AttributeProto| attribute.g.iter().chain(&attribute.graphs).any(|body| any(body, ops));
    graph.node.iter().any(|node| ops.iter().any(|op| op == node.op_type()) || node.attribute.iter().any(bodies))
}
