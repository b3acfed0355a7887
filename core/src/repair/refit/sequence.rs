//! Layer by layer in the model's order, each from what it meets once those before it are rounded.

use super::super::collect::{Drifted, Tap};
use super::super::job::{Job, RepairedLayer};
use crate::export::{export, pick, roundings};
use crate::model::Layer;
use crate::onnx::proto::ModelProto;
use crate::operators;
use crate::plan::{Choice, Plan, Rounding};
use crate::quant::QuantParams;
use crate::{Control, Error};

/// Layers that the same tensor enters: they are refitted together.
struct Step<'a> {
    tap: Option<Tap>,
    layers: Vec<(&'a Layer, Choice, Rounding)>,
}

/// Refits the layers called `indices`, whatever their order, and gives what is done when the deadline comes.
pub fn sequence(job: &Job<'_>, indices: &[usize], control: &Control) -> Result<Vec<RepairedLayer>, Error> {
    let session = job.session();
    let feed = job.feed(&session);
    let mut steps: Vec<Step<'_>> = Vec::new();
    let mut layers: Vec<&Layer> = indices.iter().filter_map(|&at| job.model.layers.get(at)).collect();
    layers.sort_by_key(|layer| (layer.in_subgraph(), layer.path.node));
    let rounded = input_roundings(job);
    for layer in layers {
        let Some(choice) = job.choice(layer) else { continue };
        let tap = job.tap(layer, &choice).map(|tap| Tap { rounding: rounded(layer), ..tap });
        match steps.iter_mut().find(|step| step.tap.is_some() && step.tap == tap) {
            Some(step) => step.layers.push((layer, choice, Rounding::Refit)),
            None => steps.push(Step { tap, layers: vec![(layer, choice, Rounding::Refit)] }),
        }
    }
    // So far: as the plan says, but what is not refitted yet in floating point.
    let mut so_far = job.plan.clone();
    for (layer, ..) in steps.iter().flat_map(|step| &step.layers) {
        so_far.set_layer(&layer.name, Choice::FLOAT);
    }
    let mut out: Vec<RepairedLayer> = Vec::new();
    let total = steps.len();
    for (at, step) in steps.iter().enumerate() {
        control.check()?;
        if job.options.is_over() {
            break;
        }
        let label = format!("Refitting layers, step {} of {total}", at + 1);
        let collected = match &step.tap {
            Some(tap) => {
                let proto = quantized_so_far(job, &so_far, control)?;
                let drifted = proto.as_ref().and_then(|proto| {
                    let tensors = vec![input_in(proto, step.layers.first()?.0)?];
                    Some(Drifted { proto, tensors })
                });
                let collected =
                    feed.collect(&job.model.graph, drifted.as_ref(), std::slice::from_ref(tap), &label, control)?;
                collected.into_iter().next().flatten()
            }
            None => None,
        };
        for repaired in job.layers(&step.layers, collected.as_ref(), control)? {
            so_far.set_layer(&repaired.name, job.plan.choice(&repaired.name));
            repaired.put(&mut so_far);
            out.push(repaired);
        }
    }
    Ok(out)
}

/// How the plan's export rounds what enters a layer with calibrated parameters.
fn input_roundings(job: &Job<'_>) -> impl Fn(&Layer) -> Option<QuantParams> {
    let picks: Vec<_> =
        job.model.layers.iter().map(|layer| pick(job.model, layer, job.plan.choice(&layer.name), job.stats)).collect();
    let all = job.stats.map(|stats| roundings(job.model, &picks, stats)).unwrap_or_default();
    move |layer| {
        let reads = |rounding: &&crate::export::Rounding| {
            rounding.tensor == layer.input
                && rounding.readers.as_ref().is_none_or(|readers| readers.contains(&layer.path.node))
        };
        all.iter().find(reads).map(|rounding| rounding.params)
    }
}

/// The export of `plan`; `None` while it quantizes nothing.
fn quantized_so_far(job: &Job<'_>, plan: &Plan, control: &Control) -> Result<Option<ModelProto>, Error> {
    let is_float = |layer: &Layer| plan.choice(&layer.name) == Choice::FLOAT || job.choice(layer).is_none();
    if job.model.layers.iter().all(is_float) {
        return Ok(None);
    }
    Ok(Some(export(job.model, job.stats, plan, control)?.proto))
}

/// What `layer`, in floating point still, reads in a partly quantized model.
fn input_in(proto: &ModelProto, layer: &Layer) -> Option<String> {
    let graph = proto.graph.as_ref()?;
    let input = operators::weighted(&layer.op, "")?.activation;
    let makes = |output: &String| *output == layer.output;
    let node = graph.node.iter().find(|node| node.op_type() == layer.op && node.output.iter().any(makes));
    let node =
        node.or_else(|| graph.node.iter().find(|node| node.name() == layer.name && node.op_type() == layer.op))?;
    node.input.get(input).cloned()
}
