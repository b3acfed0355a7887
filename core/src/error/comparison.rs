//! Two files layer by layer: an original beside what somebody else made of it.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use super::pairing::{MatchedBy, pair_layers};
use super::{InMemory, LayerError, LayerPair, Sqnr, accumulated};
use crate::data::DataSet;
use crate::model::Model;
use crate::onnx::build;
use crate::onnx::proto::{ModelProto, NodeProto, TensorProto, tensor_proto::DataType};
use crate::runtime::Runtime;
use crate::{Control, Error};

/// One layer in both files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ComparedLayer {
    /// Its name in the original.
    pub name: String,
    /// Its operator there.
    pub op: String,
    /// Its name in the other file; empty where only what it makes was found.
    pub other: String,
    /// Its operator there.
    pub other_op: String,
    /// What the other file has quantized it to, in words; empty when to nothing.
    pub quantized: String,
    /// What told that they are the same.
    pub matched_by: MatchedBy,
    /// Tensor compared, in the original.
    pub original_tensor: String,
    /// Tensor compared, in the other file.
    pub other_tensor: String,
    /// Error accumulated up to its output, over all samples.
    pub sqnr_db: Sqnr,
    /// Cosine similarity.
    pub cosine: Option<f64>,
    /// Largest absolute difference.
    pub max_abs_error: f64,
}

/// What two files have in common.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Layers found in both, in the original's order.
    pub layers: Vec<ComparedLayer>,
    /// Layers of the original without a partner.
    pub unmatched: Vec<String>,
    /// Layers of the other file without a partner.
    pub unmatched_other: Vec<String>,
}

/// Compares what the layers of two models make of the samples called `indices`. Integer results of the other model are
/// compared after they were turned back into floating point. Where the order told which layers are the same, the closest
/// of the tensors around them count: one file may have merged what the other has not.
pub fn compare_layers(
    runtime: &Runtime,
    original: &Model,
    other: &Model,
    data: &DataSet,
    indices: &[usize],
    threads: usize,
    control: &Control,
) -> Result<Comparison, Error> {
    let matches = pair_layers(original, other);
    let (proto, known) = observable(&other.file.proto);
    let own: HashSet<&str> = tensors(&original.graph).collect();
    let floating = floating(&proto);
    let mut pairs = Vec::new();
    for found in &matches {
        for (a, b) in &found.candidates {
            let b = known.get(b.as_str()).map_or(b.as_str(), String::as_str);
            let exists = own.contains(a.as_str()) && floating.contains(b);
            let pair = LayerPair { layer: found.layer.to_string(), original: a.clone(), quantized: b.to_owned() };
            if exists && !pairs.contains(&pair) {
                pairs.push(pair);
            }
        }
    }
    let before = InMemory { proto: &original.graph, folder: Some(original.file.folder()) };
    let after = InMemory { proto: &proto, folder: Some(other.file.folder()) };
    let errors = accumulated(runtime, before, after, &pairs, data, indices, threads, control)?;
    let mut best: HashMap<&str, (&LayerPair, LayerError)> = HashMap::new();
    for (pair, error) in pairs.iter().zip(errors) {
        let better = best.get(pair.layer.as_str()).is_none_or(|(_, known)| rank(&error) > rank(known));
        if better {
            best.insert(&pair.layer, (pair, error));
        }
    }
    let mut comparison = Comparison::default();
    let mut partners = HashSet::new();
    for found in &matches {
        let Some(layer) = original.layers.get(found.layer) else { continue };
        let partner = found.other.and_then(|at| other.layers.get(at));
        partners.extend(found.other);
        let Some((pair, error)) = best.get(found.layer.to_string().as_str()) else { continue };
        let existing = partner.and_then(|layer| layer.existing.as_ref()).map(ToString::to_string);
        comparison.layers.push(ComparedLayer {
            name: layer.name.clone(),
            op: layer.op.clone(),
            other: partner.map(|layer| layer.name.clone()).unwrap_or_default(),
            other_op: partner.map(|layer| layer.op.clone()).unwrap_or_default(),
            quantized: existing.unwrap_or_default(),
            matched_by: found.matched_by,
            original_tensor: pair.original.clone(),
            other_tensor: pair.quantized.clone(),
            sqnr_db: error.sqnr_db,
            cosine: error.cosine,
            max_abs_error: error.max_abs_error,
        });
    }
    let compared: HashSet<&str> = comparison.layers.iter().map(|layer| layer.name.as_str()).collect();
    let names = original.layers.iter().map(|layer| &layer.name);
    comparison.unmatched = names.filter(|name| !compared.contains(name.as_str())).cloned().collect();
    let others = other.layers.iter().enumerate().filter(|(at, _)| !partners.contains(at));
    comparison.unmatched_other = others.map(|(_, layer)| layer.name.clone()).collect();
    Ok(comparison)
}

/// How close two tensors are: what is identical first, what cannot be compared last.
fn rank(error: &LayerError) -> f64 {
    match error.sqnr_db {
        Sqnr::Identical => f64::INFINITY,
        Sqnr::Undefined => f64::NEG_INFINITY,
        Sqnr::Db(db) => db,
    }
}

fn tensors(proto: &ModelProto) -> impl Iterator<Item = &str> {
    proto.graph.iter().flat_map(|graph| &graph.node).flat_map(|node| node.output.iter().map(String::as_str))
}

/// Names of what the operators of a model make, integers left out.
fn floating(proto: &ModelProto) -> HashSet<&str> {
    let Some(graph) = &proto.graph else { return HashSet::new() };
    let integers: HashSet<&str> = graph
        .initializer
        .iter()
        .filter(|tensor| tensor.data_type() != DataType::Float as i32)
        .map(TensorProto::name)
        .collect();
    let is_float = |node: &&NodeProto| match node.op_type() {
        "QuantizeLinear" | "DynamicQuantizeLinear" | "ConvInteger" | "MatMulInteger" => false,
        "Gather" => node.input.first().is_none_or(|table| !integers.contains(table.as_str())),
        op => !op.starts_with("QLinear") && (op != "QGemm" || output_scale(node).is_none()),
    };
    graph.node.iter().filter(is_float).flat_map(|node| node.output.iter().map(String::as_str)).collect()
}

/// The model with a DequantizeLinear behind every operator that makes integers, and the name of what each makes of them.
fn observable(proto: &ModelProto) -> (ModelProto, HashMap<String, String>) {
    let mut proto = proto.clone();
    let mut known = HashMap::new();
    let Some(graph) = proto.graph.as_mut() else { return (proto, known) };
    let mut made = Vec::new();
    for node in &graph.node {
        let Some((scale, zero_point)) = output_scale(node) else { continue };
        let Some(integers) = node.output.first() else { continue };
        let result = format!("{integers}/dequantized");
        let inputs = [integers, scale, zero_point];
        made.push(build::node("DequantizeLinear", "", &result, &inputs, &[&result], Vec::new()));
        known.insert(integers.clone(), result);
    }
    graph.node.append(&mut made);
    (proto, known)
}

/// Scale and zero point of what an operator on integers makes.
fn output_scale(node: &NodeProto) -> Option<(&String, &String)> {
    let at = match node.op_type() {
        "QLinearConv" | "QLinearMatMul" | "QLinearAdd" | "QLinearMul" => 6,
        "QGemm" => 7,
        _ => return None,
    };
    let (scale, zero_point) = (node.input.get(at)?, node.input.get(at + 1)?);
    (!scale.is_empty() && !zero_point.is_empty()).then_some((scale, zero_point))
}
