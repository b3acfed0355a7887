//! Convolutions whose integer kernel takes longer than the float one, with what their neighbours gain or lose counted.
//!
//! A convolution on integers is worth it when it saves more than the way there costs: its input has to be rounded where a
//! float operator makes it, its output turned back where one reads it. Both are estimated from shapes alone, with constants
//! fitted to the per-layer times of ONNX Runtime 1.28 with AVX-512 VNNI on one thread (what `nibble bench` lists by layer):
//! 146 convolutions of five nets, from 28 × 28 to 320 × 320 pixels. The nets' slow ones are found by it: the first
//! convolution on three or fewer channels (0.2 to 0.6 times the float kernel's speed) and depthwise ones whose channels are no
//! multiple of 16 (0.15 to 0.5 times).

use std::collections::HashSet;

use super::{Cause, Spared, weights_only};
use crate::Problem;
use crate::export::{self, Form};
use crate::model::graph::{Links, tail};
use crate::model::{Layer, Model};
use crate::onnx::proto::GraphProto;
use crate::operators;
use crate::plan::{Plan, Precision, Set};
use crate::problem::Severity;
use crate::stats::Stats;

/// Expected time of all convolutions in floating point, in µs, below which a model is left as it is: it runs in no time
/// either way, and the constants say little about such small layers.
const LEAST_US: f64 = 250.0;
/// A layer is spared when that saves this share of its own time on integers.
const LEAST_SHARE: f64 = 0.05;
/// ns a value: rounding a model's input, rounding what an operator made, turning back.
const QUANTIZE_INPUT: f64 = 0.42;
const QUANTIZE: f64 = 0.2;
const DEQUANTIZE: f64 = 0.15;
/// ns a value for changing between the blocked layout of float convolutions and the plain one, while the tensor fits the
/// second cache and beyond it.
const REORDER: f64 = 0.25;
const REORDER_LARGE: f64 = 0.8;
/// Bytes of that cache.
const CACHE: f64 = 2e6;
/// ns for running one more node.
const NODE: f64 = 2000.0;

/// One static convolution.
struct Conv<'a> {
    layer: &'a Layer,
    /// The tensor it makes, what is merged into it included.
    end: String,
    /// Values of its input and output in a sample.
    input: f64,
    output: f64,
    /// ns of the kernels.
    integer: f64,
    float: f64,
}

/// The convolutions of `plan` to be computed in floating point from stored integer weights.
pub(super) fn slow(model: &Model, stats: &Stats, plan: &Plan) -> Vec<Spared> {
    let Some(graph) = &model.graph.graph else { return Vec::new() };
    let links = Links::of(graph);
    let mut integer: HashSet<usize> = HashSet::new();
    let mut convs = Vec::new();
    for layer in model.layers.iter().filter(|layer| !layer.in_subgraph()) {
        let choice = plan.choice(&layer.name);
        if !choice.is_static() || export::pick(model, layer, choice, Some(stats)).form != Form::Qdq {
            continue;
        }
        integer.insert(layer.path.node);
        convs.extend(conv(layer, graph, &links, stats));
    }
    if convs.iter().map(|conv| conv.float).sum::<f64>() < LEAST_US * 1e3 {
        return Vec::new();
    }
    let all = model.parameters();
    let mut in_half = 0;
    let mut found = Vec::new();
    // What one layer loses may depend on whether the next has been spared: until nothing changes.
    for _ in 0..3 {
        let before = found.len();
        for conv in &convs {
            if !integer.contains(&conv.layer.path.node) {
                continue;
            }
            let on_integers = conv.on_integers(graph, &links, &integer);
            integer.remove(&conv.layer.path.node);
            let in_float = conv.in_float(graph, &links, &integer);
            if in_float <= on_integers - LEAST_SHARE * conv.integer {
                let cause = Cause::SlowKernel { integer_us: on_integers / 1e3, float_us: in_float / 1e3 };
                let change = change(conv.layer, all, &mut in_half);
                found.push(Spared { layer: conv.layer.name.clone(), cause, change });
            } else {
                integer.insert(conv.layer.path.node);
            }
        }
        if found.len() == before {
            break;
        }
    }
    found
}

/// What changes for a layer of a model with `all` weights. Where they are a trifle, its weights stay in half precision: they
/// are computed with in floating point anyway, and the first layers, where errors are coherent and all that follows inherits
/// them, are the smallest. (effnet_lite0: two layers with 1152 of 4.6 million weights, 17.5 dB with int8 and 20.4 with float16.)
fn change(layer: &Layer, all: u64, in_half: &mut u64) -> Set {
    let own = layer.parameters;
    if own * 1000 <= all && (*in_half + own) * 500 <= all {
        *in_half += own;
        return Set { precision: Some(Precision::Float16), ..weights_only() };
    }
    weights_only()
}

/// What is known of a convolution's kernels; `None` for kinds that were not measured (groups that are not depthwise) and
/// other operators.
fn conv<'a>(layer: &'a Layer, graph: &GraphProto, links: &Links, stats: &Stats) -> Option<Conv<'a>> {
    let weight = layer.weight().filter(|_| layer.op == "Conv")?;
    let end = tail(graph, links, &layer.output).end;
    let samples = stats.samples().max(1) as f64;
    let values = |tensor: &str| Some(stats.tensors.get(tensor)?.count as f64 / samples);
    let (input, output) = (values(&layer.input)?, values(&end).or_else(|| values(&layer.output))?);
    let outputs = *weight.shape.first()? as f64;
    let inputs = *weight.shape.get(1)? as f64;
    let taps = weight.shape.get(2..)?.iter().product::<usize>() as f64;
    let positions = output / outputs.max(1.0);
    let products = inputs * taps * outputs;
    // ns at each position of the output.
    let (integer, float) = if layer.is_depthwise() {
        if layer.groups.is_multiple_of(16) {
            (6.0 + 0.035 * products, 0.035 * products)
        } else {
            (6.0 + 0.09 * products, 0.025 * products)
        }
    } else if layer.groups == 1 {
        let patch = if taps > 1.0 { 0.9 * taps } else { 0.0 };
        let narrow = inputs < 4.0;
        // Vectors hold 16 channels, however few there are.
        let products = inputs * taps * outputs.max(16.0);
        let integer = 2.0 + 0.06 * outputs + products / 300.0 + patch + if narrow { 12.0 } else { 0.0 };
        let float = products / if narrow { 55.0 } else { 95.0 };
        (integer, float)
    } else {
        return None;
    };
    let (integer, float) = (2.0 * NODE + positions * integer, NODE + positions * float);
    Some(Conv { layer, end, input, output, integer, float })
}

impl Conv<'_> {
    /// ns on integers, with rounding the input where nothing else needs it rounded and turning the output back.
    fn on_integers(&self, graph: &GraphProto, links: &Links, integer: &HashSet<usize>) -> f64 {
        let mut sum = self.integer;
        if is_float_conv(graph, links, integer, &self.layer.input) {
            sum += NODE + reorder(self.input);
        }
        if !made_integer(graph, links, integer, &self.layer.input) {
            let others = links
                .readers(&self.layer.input)
                .iter()
                .any(|&at| at != self.layer.path.node && reads_integers(graph, links, integer, at));
            if !others {
                let rate = if links.producer.contains_key(&self.layer.input) { QUANTIZE } else { QUANTIZE_INPUT };
                sum += NODE + rate * self.input;
            }
        }
        if self.has_float_reader(graph, links, integer) {
            sum += NODE + DEQUANTIZE * self.output;
        }
        sum
    }

    /// ns in floating point, with turning the input back and rounding the output for those that need it.
    fn in_float(&self, graph: &GraphProto, links: &Links, integer: &HashSet<usize>) -> f64 {
        let mut sum = self.float;
        if made_integer(graph, links, integer, &self.layer.input) {
            sum += 2.0 * NODE + DEQUANTIZE * self.input + reorder(self.input);
        } else if !is_float_conv(graph, links, integer, &self.layer.input)
            && links.producer.contains_key(&self.layer.input)
        {
            sum += NODE + reorder(self.input);
        }
        let integers = links.readers(&self.end).iter().any(|&at| reads_integers(graph, links, integer, at));
        if integers {
            sum += 2.0 * NODE + QUANTIZE * self.output;
        }
        let plain =
            |&at: &usize| graph.node.get(at).is_none_or(|node| node.op_type() != "Conv" || integer.contains(&at));
        if links.readers(&self.end).iter().any(plain) {
            sum += NODE + reorder(self.output);
        }
        sum
    }

    fn has_float_reader(&self, graph: &GraphProto, links: &Links, integer: &HashSet<usize>) -> bool {
        links.outputs.contains(&self.end)
            || links.readers(&self.end).iter().any(|&at| !reads_integers(graph, links, integer, at))
    }
}

fn reorder(values: f64) -> f64 {
    values * if values * 4.0 <= CACHE { REORDER } else { REORDER_LARGE }
}

/// Steps that integers are followed through operators that carry them.
const FAR: usize = 16;

/// Whether an integer kernel makes this tensor, be it through operators that carry integers.
fn made_integer(graph: &GraphProto, links: &Links, integer: &HashSet<usize>, tensor: &str) -> bool {
    let mut open = vec![(tensor, 0)];
    while let Some((tensor, far)) = open.pop() {
        let Some((at, node)) = links.producer.get(tensor).and_then(|&at| Some((at, graph.node.get(at)?))) else {
            continue;
        };
        if integer.contains(&at) {
            return true;
        }
        let carries = operators::pass_through(node.op_type(), node.domain()).is_some()
            || operators::is_merged_activation(node.op_type(), node.domain());
        if carries && far < FAR {
            let count = operators::data_inputs(node.op_type(), node.input.len());
            open.extend(node.input.iter().take(count).map(|input| (input.as_str(), far + 1)));
        }
    }
    false
}

/// Whether the node at `at` wants its input as integers: an integer kernel, or an operator that carries them to one.
fn reads_integers(graph: &GraphProto, links: &Links, integer: &HashSet<usize>, at: usize) -> bool {
    let mut open = vec![(at, 0)];
    while let Some((at, far)) = open.pop() {
        if integer.contains(&at) {
            return true;
        }
        let Some(node) = graph.node.get(at) else { continue };
        if operators::pass_through(node.op_type(), node.domain()).is_some() && far < FAR {
            let readers = node.output.iter().flat_map(|output| links.readers(output));
            open.extend(readers.map(|&at| (at, far + 1)));
        }
    }
    false
}

/// Whether a convolution that stays in floating point makes this tensor, so that its layout needs no change.
fn is_float_conv(graph: &GraphProto, links: &Links, integer: &HashSet<usize>, tensor: &str) -> bool {
    let mut tensor = tensor;
    for _ in 0..2 {
        let Some((at, node)) = links.producer.get(tensor).and_then(|&at| Some((at, graph.node.get(at)?))) else {
            break;
        };
        if node.op_type() == "Conv" {
            return !integer.contains(&at);
        }
        match node.input.first() {
            Some(input) if operators::is_merged_activation(node.op_type(), node.domain()) => tensor = input,
            _ => break,
        }
    }
    false
}

/// Says which of `spared` have slow kernels; `None` when none has.
pub(super) fn said(spared: &[Spared]) -> Option<Problem> {
    let slow: Vec<(&str, f64, f64)> = spared
        .iter()
        .filter_map(|spared| match spared.cause {
            Cause::SlowKernel { integer_us, float_us } => Some((spared.layer.as_str(), integer_us, float_us)),
            Cause::Outliers { .. } => None,
        })
        .collect();
    let (worst, ..) = slow.iter().max_by(|a, b| (a.1 - a.2).total_cmp(&(b.1 - b.2)))?;
    let named: Vec<String> = slow
        .iter()
        .map(|(layer, integer, float)| format!("{layer} {integer:.0} µs, in floating point {float:.0}"))
        .collect();
    Some(Problem::new(
        Severity::Note,
        match slow.as_slice() {
            [_] => "A convolution is computed in floating point: its integer kernel would be slower".to_owned(),
            _ => format!(
                "{} convolutions are computed in floating point: their integer kernels would be slower",
                slow.len()
            ),
        },
        *worst,
        format!(
            "Few channels, or a number of them that is no multiple of 16, keep ONNX Runtime's integer kernel from its speed; \
             expected times with what it takes to round and turn back: {}. Their weights are stored as integers all the same, \
             or in half precision where they are a trifle",
            named.join("; ")
        ),
        "Set their mode to static where the target has no floating point",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Control;
    use crate::onnx::build;
    use crate::onnx::proto::{ModelProto, OperatorSetIdProto, TensorProto};
    use crate::plan::preset;
    use crate::stats::TensorStats;
    use prost::Message;

    /// Convolutions in a row, with a Relu behind each: (outputs, inputs a group, taps a side, groups); and statistics of
    /// one sample of `side` × `side` positions in every tensor but the first, which has twice that a side.
    fn net(convs: &[(i64, i64, i64, i64)], side: u64) -> (Model, Stats) {
        let mut nodes = Vec::new();
        let mut initializers: Vec<TensorProto> = Vec::new();
        let mut stats = Stats::default();
        let mut see = |name: String, channels: i64| {
            let count = side * side * channels as u64 * if name == "x0" { 4 } else { 1 };
            stats.tensors.insert(name, TensorStats { count, min: 0.0, max: 1.0, ..TensorStats::default() });
        };
        see("x0".to_owned(), convs.first().map_or(1, |conv| conv.1 * conv.3));
        for (i, &(outputs, inputs, taps, groups)) in convs.iter().enumerate() {
            let (input, raw, output, weight) =
                (format!("x{i}"), format!("y{i}"), format!("x{}", i + 1), format!("w{i}"));
            let shape = [outputs, inputs, taps, taps];
            let values: Vec<f32> = (0..shape.iter().product::<i64>()).map(|i| (i % 7) as f32 - 3.0).collect();
            initializers.push(build::tensor_f32(&weight, &shape, &values));
            let attributes = vec![build::attr_int("group", groups)];
            nodes.push(build::node("Conv", "", &format!("conv{i}"), &[&input, &weight], &[&raw], attributes));
            nodes.push(build::node("Relu", "", &format!("relu{i}"), &[&raw], &[&output], Vec::new()));
            see(raw, outputs);
            see(output, outputs);
        }
        let graph = GraphProto {
            node: nodes,
            initializer: initializers,
            input: vec![build::value_info("x0")],
            output: vec![build::value_info(&format!("x{}", convs.len()))],
            ..GraphProto::default()
        };
        let opset = OperatorSetIdProto { version: Some(17), ..OperatorSetIdProto::default() };
        let proto =
            ModelProto { ir_version: Some(8), graph: Some(graph), opset_import: vec![opset], ..ModelProto::default() };
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("net.onnx");
        std::fs::write(&path, proto.encode_to_vec()).expect("write");
        (Model::load(&path, &Control::new()).expect("model"), stats)
    }

    fn names(convs: &[(i64, i64, i64, i64)], side: u64) -> Vec<String> {
        let (model, stats) = net(convs, side);
        let plan = model.preset_plan(preset("int8").expect("preset")).expect("plan");
        slow(&model, &stats, &plan).into_iter().map(|spared| spared.layer).collect()
    }

    #[test]
    fn a_first_convolution_on_three_channels_is_spared_while_its_output_is_small() {
        let rest = (64, 32, 3, 1);
        assert_eq!(names(&[(32, 3, 3, 1), rest], 112), ["conv0"]);
        // Measured: 0.385 of the time on integers, 0.405 spared, where changing the layout of the output costs most.
        assert!(names(&[(32, 3, 3, 1), rest], 160).is_empty());
        assert!(names(&[(32, 16, 3, 1), rest], 112).is_empty());
    }

    #[test]
    fn depthwise_convolutions_with_odd_channels_are_spared_and_small_models_left_alone() {
        let net = |channels| [(channels, 256, 1, 1), (channels, 1, 5, channels), (256, channels, 1, 1)];
        assert!(names(&net(200), 28).contains(&"conv1".to_owned()));
        assert!(!names(&net(192), 28).contains(&"conv1".to_owned()));
        assert!(names(&net(200), 4).is_empty());
    }
}
