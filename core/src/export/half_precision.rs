//! The part of the main graph that is computed in half precision: the layers that are to be, and what lies between them.
//!
//! Every tensor keeps its name for its float32 values; the half-precision copy has a name of its own. Casts stand where
//! the two meet: at inputs and outputs of the model, and around operators that stay in float32.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::Error;
use crate::export::context::Context;
use crate::model::graph::{self, Links};
use crate::onnx::build;
use crate::onnx::proto::{GraphProto, NodeProto, tensor_proto::DataType};
use crate::operators::{has_half_precision, result_type};
use crate::quant::to_float16;
use crate::stats::Stats;

/// Float16's largest value.
const LARGEST: f32 = 65_504.0;
const FLOAT: i32 = DataType::Float as i32;

/// Casts into half precision, which go behind everything else that is put after a node.
#[derive(Default)]
pub struct Casts(Vec<(Option<usize>, NodeProto)>);

impl Casts {
    /// Puts them into the patch.
    pub fn write(self, context: &mut Context<'_>) {
        let graph = context.patch.graph(&[]);
        for (producer, cast) in self.0 {
            match producer {
                Some(producer) => graph.push_after(producer, cast),
                None => graph.push_front(cast),
            }
        }
    }
}

/// Converts the layers in [`Context::half_layers`] and what lies between them. `stats`, where there are any, keep
/// tensors beyond float16's range in float32.
pub fn write(context: &mut Context<'_>, stats: &Stats) -> Result<Casts, Error> {
    let Some(graph) = context.model.graph.graph.as_ref().filter(|_| !context.half_layers.is_empty()) else {
        return Ok(Casts::default());
    };
    let links = Links::of(graph);
    let types = element_types(graph);
    let is_float = |name: &str| types.get(name) == Some(&FLOAT);
    let region = region(context, graph, &links, &types, stats);
    let mut halves: BTreeMap<String, String> = BTreeMap::new();
    for output in region.iter().filter_map(|&at| graph.node.get(at)).flat_map(|node| &node.output) {
        if is_float(output) {
            halves.insert(output.clone(), context.patch.fresh(&format!("{output}_half")));
        }
    }
    let mut casts = Casts::default();
    for &at in &region {
        let Some(node) = graph.node.get(at) else { continue };
        for (slot, input) in node.input.iter().enumerate().filter(|(_, input)| is_float(input)) {
            let half = match halves.get(input) {
                Some(half) => half.clone(),
                None => {
                    let half = enter(context, graph, &links, input, &mut casts)?;
                    halves.insert(input.clone(), half.clone());
                    half
                }
            };
            context.patch.graph(&[]).set_input(at, slot, &half);
        }
        for output in node.output.iter().filter(|output| is_float(output)) {
            let Some(half) = halves.get(output) else { continue };
            let leaves = links.outputs.contains(output) || links.readers(output).iter().any(|at| !region.contains(at));
            let cast = leaves.then(|| cast(context, half, output, DataType::Float));
            let changes = context.patch.graph(&[]);
            changes.rename_output(at, output, half);
            if let Some(cast) = cast {
                changes.push_after(at, cast);
            }
        }
    }
    Ok(casts)
}

/// The half-precision copy of a tensor from outside: a constant is converted, anything else cast.
fn enter(
    context: &mut Context<'_>,
    graph: &GraphProto,
    links: &Links,
    name: &str,
    casts: &mut Casts,
) -> Result<String, Error> {
    let half = context.patch.fresh(&format!("{name}_half"));
    if let Some(tensor) = graph.initializer.iter().find(|tensor| tensor.name() == name) {
        let values = to_float16(&context.model.file.read_f32(tensor)?).values;
        context.patch.graph(&[]).push_initializer(build::tensor_f16(&half, &tensor.dims, &values));
    } else {
        let cast = cast(context, name, &half, DataType::Float16);
        casts.0.push((links.producer.get(name).copied(), cast));
    }
    Ok(half)
}

fn cast(context: &mut Context<'_>, from: &str, to: &str, data_type: DataType) -> NodeProto {
    let name = context.patch.fresh(&format!("{to}/Cast"));
    build::node("Cast", "", &name, &[from], &[to], vec![build::attr_int("to", data_type as i64)])
}

/// The nodes to convert: the layers, and whatever can be converted and hangs together with them.
fn region(
    context: &Context<'_>,
    graph: &GraphProto,
    links: &Links,
    types: &HashMap<&str, i32>,
    stats: &Stats,
) -> BTreeSet<usize> {
    let taken = taken(context);
    let others: BTreeSet<usize> =
        context.model.layers.iter().filter(|l| !l.in_subgraph()).map(|l| l.path.node).collect();
    let joins = |at: usize| {
        !taken.contains(&at)
            && !others.contains(&at)
            && graph.node.get(at).is_some_and(|node| {
                convertible(node, types, stats) && node.input.iter().all(|name| fits(context, graph, name, types))
            })
    };
    // A layer that holds a type which cannot be told stays out too.
    let layers = context.half_layers.iter().copied();
    let mut region: BTreeSet<usize> =
        layers.filter(|&at| graph.node.get(at).is_some_and(|node| convertible(node, types, stats))).collect();
    let mut open: Vec<usize> = region.iter().copied().collect();
    while let Some(at) = open.pop() {
        let Some(node) = graph.node.get(at) else { continue };
        let is_float = |name: &&String| types.get(name.as_str()) == Some(&FLOAT);
        let before = node.input.iter().filter(is_float).filter_map(|name| links.producer.get(name).copied());
        let after = node.output.iter().filter(is_float).flat_map(|name| links.readers(name).iter().copied());
        for next in before.chain(after) {
            if !region.contains(&next) && joins(next) {
                region.insert(next);
                open.push(next);
            }
        }
    }
    region
}

/// Nodes that integer kernels have use for: what they merge, and what carries integers.
fn taken(context: &Context<'_>) -> BTreeSet<usize> {
    let Some(statics) = &context.statics else { return BTreeSet::new() };
    let mut taken: BTreeSet<usize> = statics.activations.passing.keys().copied().collect();
    for tail in statics.layers.iter().map(|layer| &layer.tail).chain(statics.activations.passing.values()) {
        taken.extend(tail.activation);
        taken.extend(statics.links.producer.get(&tail.raw));
    }
    taken
}

/// Whether the operator exists in half precision, all types are known, and no value seen is beyond float16.
fn convertible(node: &NodeProto, types: &HashMap<&str, i32>, stats: &Stats) -> bool {
    let known = |name: &String| name.is_empty() || types.contains_key(name.as_str());
    let float = |name: &String| types.get(name.as_str()) == Some(&FLOAT);
    let small = |name: &String| {
        stats.tensors.get(name).is_none_or(|seen| seen.count == 0 || seen.max <= LARGEST && seen.min >= -LARGEST)
    };
    has_half_precision(node)
        && graph::bodies(node).next().is_none()
        && node.input.iter().all(known)
        && node.input.iter().any(float)
        && node.output.iter().filter(|name| !name.is_empty()).all(float)
        && node.input.iter().chain(&node.output).all(small)
}

/// Whether a constant survives: no value becomes infinite, and none that is not 0 becomes 0 (an epsilon would).
fn fits(context: &Context<'_>, graph: &GraphProto, name: &str, types: &HashMap<&str, i32>) -> bool {
    if types.get(name) != Some(&FLOAT) {
        return true;
    }
    let Some(tensor) = graph.initializer.iter().find(|tensor| tensor.name() == name) else { return true };
    let Ok(values) = context.model.file.read_f32(tensor) else { return false };
    let half = to_float16(&values);
    // Of a long constant a few vanish without harm; an epsilon stands alone.
    let vanishing = values.len() <= 16
        && values.iter().zip(&half.values).any(|(&value, half)| value != 0.0 && half.to_f32() == 0.0);
    half.saturated == 0 && !vanishing
}

/// Element types of the tensors of a graph, as far as they can be told.
fn element_types(graph: &GraphProto) -> HashMap<&str, i32> {
    let mut types: HashMap<&str, i32> = HashMap::new();
    for port in graph.input.iter().chain(&graph.value_info).chain(&graph.output) {
        if let Some(data_type) = crate::onnx::element_type(port) {
            types.insert(port.name(), data_type);
        }
    }
    for tensor in &graph.initializer {
        types.insert(tensor.name(), tensor.data_type());
    }
    for node in &graph.node {
        for (at, output) in node.output.iter().enumerate().filter(|(_, output)| !output.is_empty()) {
            let input = |slot: usize| types.get(node.input.get(slot)?.as_str()).copied();
            if let Some(data_type) = result_type(node, at, input) {
                types.entry(output).or_insert(data_type);
            }
        }
    }
    types
}
