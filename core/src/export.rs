//! Plan → quantized model: a patch collected layer by layer, then applied. One file an export form.

mod activations;
mod boundaries;
mod bounds;
mod context;
mod deployment;
mod foreign;
mod forms;
mod half_precision;
mod matrix;
mod ort_format;
mod output_path;
mod pairs;
mod patch;
mod pick;
mod raise;
mod roundings;
mod size;
mod stored;

mod verify;

use std::collections::BTreeMap;
use std::rc::Rc;

use serde::{Deserialize, Serialize};

pub use deployment::{Deployment, Stored, stored_plan};
pub use foreign::{needs_calibration, needs_statistics};
pub(crate) use forms::qdq::add_of;
pub use forms::{Form, Verdict};
pub use ort_format::{OrtFile, ort_path};
pub use output_path::{check_output, is_same, is_special};
pub use pairs::layer_pairs;
pub use pick::{MANY_ROWS, Pick, pick, rows};
pub(crate) use roundings::roundings_with;
pub use roundings::{Rounding, roundings};
pub(crate) use size::{bytes_around, size_with};
pub use size::{layer_bytes, predicted_size, weight_bytes};
pub use verify::{Sizes, Verified, VerifyOptions, verify_and_write};

use crate::export::activations::{Quantized, StaticLayer, Statics};
use crate::export::context::Context;
use crate::export::foreign::Foreign;
use crate::export::forms::qdq;
use crate::model::graph::{Links, tail};
use crate::model::{Layer, Model};
use crate::onnx::proto::ModelProto;
use crate::plan::targets::SecondFile;
use crate::plan::{self, Choice, Plan};
use crate::problem::Severity;
use crate::stats::Stats;
use crate::{Control, Error, Problem};

/// Why an export was refused.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The plan leaves every layer in floating point.
    #[error("nothing was quantized: {why}")]
    Nothing {
        /// The model.
        place: String,
        /// Why no layer could be, or was asked to be.
        why: String,
    },
    /// The plan has static layers and there are no statistics.
    #[error("{count} layers are to be static, and there are no calibration statistics")]
    NoStatistics {
        /// How many.
        count: usize,
        /// The first of them.
        place: String,
    },
    /// The statistics belong to another model.
    #[error("the statistics were gathered on another model")]
    OtherStatistics {
        /// SHA-256 that the statistics carry.
        place: String,
    },
    /// The written model did not load or run.
    #[error("the quantized model does not run in ONNX Runtime, so it was not kept: {why}")]
    DoesNotRun {
        /// The output.
        place: String,
        /// ONNX Runtime's message.
        why: String,
    },
    /// The output would overwrite the model it is made from.
    #[error("the output is {what}")]
    Overwrites {
        /// The path.
        place: String,
        /// What stands there, e.g. "the model itself".
        what: &'static str,
    },
    /// The output is a device, a pipe or the like, which a rename would replace by a file.
    #[error("the output is no file that could be replaced")]
    NotAFile {
        /// The path.
        place: String,
    },
}

impl ExportError {
    /// The file or layer concerned.
    pub fn place(&self) -> String {
        match self {
            Self::Nothing { place, .. }
            | Self::NoStatistics { place, .. }
            | Self::OtherStatistics { place }
            | Self::DoesNotRun { place, .. }
            | Self::Overwrites { place, .. }
            | Self::NotAFile { place } => place.clone(),
        }
    }

    /// What to do next.
    pub fn hint(&self) -> String {
        match self {
            Self::Nothing { .. } => "Choose a preset such as int8, or set a precision for some layers",
            Self::NoStatistics { .. } => {
                "Calibrate first (give --data or --stats), or choose int8-dynamic or int8-weights"
            }
            Self::OtherStatistics { .. } => {
                "Calibrate this model, scaled as the plan says; or open the model the statistics belong to"
            }
            Self::DoesNotRun { .. } => {
                "Keep the layer named in the message in float32, and report the message: this is a defect in Nibble"
            }
            Self::Overwrites { .. } => "Choose another name; the original is never overwritten",
            Self::NotAFile { .. } => "Name a new file, or an existing one to replace",
        }
        .to_owned()
    }
}

/// What became of one layer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LayerOutcome {
    /// Its name.
    pub name: String,
    /// Its operator.
    pub op: String,
    /// The choice in force: what was asked for, or the nearest that the form allows.
    pub choice: Choice,
    /// How it was written.
    pub form: Form,
    /// What that does.
    pub verdict: Verdict,
    /// Why.
    pub reason: String,
    /// Bytes of its weights in the original file.
    pub bytes_before: u64,
    /// Bytes of its weights in the quantized file, scales included.
    pub bytes_after: u64,
}

/// A quantized model, not yet written.
pub struct Export {
    /// The model.
    pub proto: ModelProto,
    /// What became of each layer, in the model's order.
    pub layers: Vec<LayerOutcome>,
    /// What degraded or was left in floating point, and why.
    pub problems: Vec<Problem>,
    /// What it takes to run it.
    pub deployment: Deployment,
    /// A second file to write for the plan's target.
    pub also: Option<SecondFile>,
}

/// Quantizes `model` as `plan` says, with the plan's repairs. `stats` are needed as soon as a layer is static.
pub fn export(model: &Model, stats: Option<&Stats>, plan: &Plan, control: &Control) -> Result<Export, Error> {
    let repaired = model.repaired(plan)?;
    let model = &*repaired;
    if let Some(stats) = stats
        && stats.model_sha256 != model.identity
    {
        return Err(ExportError::OtherStatistics { place: stats.model_sha256.clone() }.into());
    }
    let names: Vec<&str> = model.layers.iter().map(|layer| layer.name.as_str()).collect();
    let target = plan.target();
    let mut context = Context::new(model, target.map(|target| &target.writes));
    context.problems = plan.problems(&names);
    let mut picks = Vec::new();
    for layer in &model.layers {
        let mut pick = pick(model, layer, plan.choice(&layer.name), stats);
        if pick.form != Form::Float && !finite(model, layer)? {
            pick = Pick {
                form: Form::Float,
                choice: Choice::FLOAT,
                verdict: Verdict::Unchanged,
                reason: "its weights hold NaN or infinities".to_owned(),
                departure: String::new(),
            };
        }
        let is_half = matches!(pick.form, Form::Float16Weights | Form::Float16);
        let overflowing = if is_half { beyond_float16(model, layer)? } else { 0 };
        if overflowing > 0 {
            pick = Pick {
                form: Form::Float,
                choice: Choice::FLOAT,
                verdict: Verdict::Unchanged,
                reason: format!("{overflowing} of its weights are beyond float16's largest value, 65 504"),
                departure: String::new(),
            };
        }
        if pick.form != Form::Float {
            let missing;
            (pick.choice, missing) = layer.without_missing_repair(pick.choice);
            context.problems.extend(missing.map(|rounding| not_repaired(layer, rounding)));
        }
        picks.push(pick);
    }
    let with_picks = model.layers.iter().zip(&picks);
    let unknown: Vec<&Layer> =
        with_picks.filter(|(layer, pick)| needs_statistics(model, layer, pick)).map(|(layer, _)| layer).collect();
    let stats = match stats {
        None if !unknown.is_empty() => {
            let place = unknown.first().map(|layer| layer.name.clone()).unwrap_or_default();
            return Err(ExportError::NoStatistics { count: unknown.len(), place }.into());
        }
        None => &Stats::default(),
        Some(stats) => stats,
    };
    if picks.iter().all(|pick| pick.form == Form::Float) {
        let why = nothing(model, &picks);
        return Err(ExportError::Nothing { place: model.file.path.display().to_string(), why }.into());
    }
    write(&mut context, &picks, stats, control)?;
    for (layer, pick) in model.layers.iter().zip(&picks) {
        describe(&mut context.problems, layer, pick);
    }
    let (microsoft, int4) = (context.uses_microsoft, context.patch.uses_int4);
    let Context { patch, problems, .. } = context;
    let mut proto = model.graph.clone();
    patch.apply(&mut proto);
    foreign::drop_pairs(&mut proto, model);
    let mut opset = model.opset;
    if picks.iter().any(|pick| pick.form.writer().runs_on_integers()) {
        raise::raise(&mut proto, opset);
        opset = opset.max(raise::INTEGER_OPSET);
    }
    let deployment = deployment::stamp(&mut proto, model, opset, plan, microsoft, int4);
    let layers = model
        .layers
        .iter()
        .zip(&picks)
        .map(|(layer, pick)| LayerOutcome {
            name: layer.name.clone(),
            op: layer.op.clone(),
            choice: pick.choice,
            form: pick.form,
            verdict: pick.verdict,
            reason: if pick.departure.is_empty() {
                pick.reason.clone()
            } else {
                format!("{}; {}", pick.reason, pick.departure)
            },
            bytes_before: layer.weights.iter().map(|weight| weight.size_bytes).sum(),
            bytes_after: layer.weights.iter().map(|weight| size::weight_bytes(weight, pick)).sum(),
        })
        .collect();
    Ok(Export { proto, layers, problems, deployment, also: target.and_then(|target| target.also) })
}

fn write(context: &mut Context<'_>, picks: &[Pick], stats: &Stats, control: &Control) -> Result<(), Error> {
    let model = context.model;
    let Some(graph) = &model.graph.graph else { return Ok(()) };
    let links = Links::of(graph);
    let foreign = Foreign::of(model, &links, picks, &mut context.problems);
    let mut layers = Vec::new();
    let (mut rounded, mut rounds) = (BTreeMap::new(), BTreeMap::new());
    for (layer, pick) in model.layers.iter().zip(picks) {
        if pick.form.writer().runs_on_integers() {
            layers.push(static_layer(graph, &links, layer, pick, &foreign, stats));
        } else if pick.form.needs_statistics()
            && let Some(observed) = stats.tensors.get(&layer.input)
        {
            let input = foreign.input(layer);
            let params = activations::params(&layer.input, &pick.choice, observed, &activations::find_range);
            let producer = links.producer.get(input).copied();
            let entry = Quantized { params, producer, for_all: false, before: None, existing: false };
            rounded.entry(input.to_owned()).or_insert(entry);
            rounds.insert(layer.path.node, input.to_owned());
        }
        foreign.redirect(context, layer, pick);
    }
    let find = &activations::find_range;
    let activations = activations::decide(model, graph, &links, &layers, &foreign, stats, context.style, find);
    context.statics = Some(Rc::new(Statics { links, layers, activations, rounded, rounds }));
    // What needs statistics comes last: its pairs go around what the others have put in place.
    let (first, last): (Vec<_>, Vec<_>) =
        model.layers.iter().zip(picks).partition(|(_, pick)| !pick.form.needs_statistics());
    let total = model.layers.len() as u64;
    let mut written = 0;
    for (layer, pick) in first.into_iter().chain(last) {
        pick.form.writer().write(context, layer, &pick.choice)?;
        if pick.form != Form::Float {
            control.progress("Quantizing weights", written, total);
            written += 1;
            control.check()?;
        }
    }
    let casts = half_precision::write(context, stats)?;
    boundaries::write(context);
    casts.write(context);
    for (layer, pick) in model.layers.iter().zip(picks) {
        if pick.form.writer().stays_float() {
            boundaries::guard_float(context, layer);
        }
    }
    Ok(())
}

fn static_layer(
    graph: &crate::onnx::proto::GraphProto,
    links: &Links,
    layer: &Layer,
    pick: &Pick,
    foreign: &Foreign<'_>,
    stats: &Stats,
) -> StaticLayer {
    // A 2-D MatMul and the Add behind it become one Gemm (see `qdq`); with more dimensions the runtime merges them itself.
    let is_matrix = stats.tensors.get(&layer.input).is_some_and(|tensor| tensor.rank == Some(2));
    let added = if layer.op == "MatMul" && is_matrix { qdq::add_of(graph, links, layer) } else { None };
    let raw =
        added.and_then(|(at, _)| graph.node.get(at)?.output.first().cloned()).unwrap_or_else(|| layer.output.clone());
    StaticLayer {
        node: layer.path.node,
        input: foreign.input(layer).to_owned(),
        tail: tail(graph, links, &raw),
        needs_output: layer.op == "Conv",
        choice: pick.choice,
    }
}

/// Whether all weights of the layer are finite.
fn finite(model: &Model, layer: &Layer) -> Result<bool, Error> {
    for weight in &layer.weights {
        if !model.weight(layer, weight)?.iter().all(|value| value.is_finite()) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// How many float32 weights of the layer float16 cannot hold.
fn beyond_float16(model: &Model, layer: &Layer) -> Result<usize, Error> {
    let mut count = 0;
    for weight in layer.weights.iter().filter(|weight| weight.is_f32) {
        count += crate::quant::to_float16(&model.weight(layer, weight)?).saturated;
    }
    Ok(count)
}

/// Says that a layer is rounded to nearest for want of its repair.
fn not_repaired(layer: &Layer, rounding: plan::Rounding) -> Problem {
    Problem::new(
        Severity::Warning,
        "Rounded to nearest: the plan has no repair for this choice",
        layer.name.as_str(),
        format!(
            "`rounding` is {rounding}, and no integers made so for its precision, symmetry and granularity are there"
        ),
        "Repair the layer (`nibble repair`, or quantize with --repair), or set `rounding` to nearest",
    )
}

/// Says what was left in floating point, and where a choice could not be honoured.
fn describe(problems: &mut Vec<Problem>, layer: &Layer, pick: &Pick) {
    if pick.form == Form::Float {
        let asked = pick.reason.contains("as chosen");
        problems.push(Problem::new(
            if asked || layer.parameters < 1024 { Severity::Note } else { Severity::Warning },
            "Left in floating point",
            layer.name.as_str(),
            pick.reason.as_str(),
            if asked {
                "Choose a precision for it to change that"
            } else {
                "Nothing: the rest of the model is quantized"
            },
        ));
    } else if !pick.departure.is_empty() {
        problems.push(Problem::new(
            Severity::Note,
            "The choice could not be honoured as it is",
            layer.name.as_str(),
            format!("{}; {}", pick.reason, pick.departure),
            format!("Choose {} for it to make the plan say what is written", pick.choice.mode),
        ));
    }
}

fn nothing(model: &Model, picks: &[Pick]) -> String {
    if model.layers.is_empty() {
        return match model.problems.iter().find(|problem| problem.what.contains("already quantized")) {
            Some(_) => "the model is already quantized and has no layer with floating-point weights".to_owned(),
            None => "the model has no layer with constant weights".to_owned(),
        };
    }
    let mut reasons: Vec<&str> = picks.iter().map(|pick| pick.reason.as_str()).collect();
    reasons.sort_unstable();
    reasons.dedup();
    format!("{} layers, left because: {}", picks.len(), reasons.join("; "))
}
