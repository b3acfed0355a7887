//! Error at every layer's output with the whole plan in force: original and quantized model run side by side, both
//! tapped.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::output_error::six_digits;
use super::{MeasureError, OutputError, Sqnr};
use crate::data::DataSet;
use crate::onnx::proto::ModelProto;
use crate::problem::{Problem, Severity};
use crate::runtime::{Level, Runtime, Session, SessionOptions, Source, tapped};
use crate::{Control, Error};

/// One layer and the tensors that hold its output in the two models.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerPair {
    /// The layer's name.
    pub layer: String,
    /// The tensor in the original.
    pub original: String,
    /// The tensor in the quantized model, in float: after a `DequantizeLinear` where there is one, so that looking at
    /// it does not keep the layer's integer kernel from being used.
    pub quantized: String,
}

/// Error accumulated up to one layer's output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerError {
    /// The layer's name.
    pub name: String,
    /// SQNR over all samples.
    pub sqnr_db: Sqnr,
    /// Cosine similarity over all samples.
    #[serde(serialize_with = "six_digits")]
    pub cosine: Option<f64>,
    /// Largest absolute difference.
    pub max_abs_error: f64,
}

/// A model in memory and the folder its external data lie in.
#[derive(Clone, Copy, Debug)]
pub struct InMemory<'a> {
    /// The model.
    pub proto: &'a ModelProto,
    /// Folder of its external data.
    pub folder: Option<&'a Path>,
}

/// The error at each pair's tensors over the samples called `indices`, in the order of `pairs`. The original is run
/// with rewrites that keep its tensors, the quantized model with all, so that the real kernels run wherever a tap does
/// not keep them from being fused. What one sample's taps hold is in memory at a time. A pair without a tensor in
/// either model is left out with a problem.
#[allow(clippy::too_many_arguments)] // each is a thing of its own, and the call reads in this order
pub fn accumulated(
    runtime: &Runtime,
    original: InMemory<'_>,
    quantized: InMemory<'_>,
    pairs: &[LayerPair],
    data: &DataSet,
    indices: &[usize],
    threads: usize,
    control: &Control,
) -> Result<Vec<LayerError>, Error> {
    if indices.is_empty() {
        return Err(MeasureError::NoSamples.into());
    }
    let pairs = existing(pairs, original.proto, quantized.proto, control);
    let open = |model: InMemory<'_>, names: Vec<String>, options: SessionOptions| {
        let proto = tapped(model.proto, &names);
        Session::open(runtime, Source::Proto { proto: &proto, folder: model.folder }, &options)
    };
    let integers = SessionOptions { level: Level::All, threads, ..SessionOptions::default() };
    let mut float =
        open(original, pairs.iter().map(|pair| pair.original.clone()).collect(), SessionOptions::observing(threads))?;
    let mut integer = open(quantized, pairs.iter().map(|pair| pair.quantized.clone()).collect(), integers)?;
    let mut errors = vec![OutputError::default(); pairs.len()];
    for (done, &index) in indices.iter().enumerate() {
        control.check()?;
        control.progress("Measuring layers", done as u64, indices.len() as u64);
        let sample = data.sample(index)?;
        let expected = float.run(&sample, control)?;
        integer.visit(&sample, control, &mut |name, view| {
            for (pair, error) in pairs.iter().zip(&mut errors).filter(|(pair, _)| pair.quantized == name) {
                match expected.iter().find(|output| output.name == pair.original).and_then(|o| o.value.as_ref()) {
                    Some(reference) => error.add_view(reference, &view),
                    None => error.fail("the original gives no tensor"),
                }
            }
        })?;
    }
    control.progress("Measuring layers", indices.len() as u64, indices.len() as u64);
    let rows = pairs.iter().zip(&errors).map(|(pair, error)| {
        let report = error.report(&pair.layer);
        LayerError {
            name: report.name,
            sqnr_db: report.sqnr_db,
            cosine: report.cosine,
            max_abs_error: report.max_abs_error,
        }
    });
    Ok(rows.collect())
}

/// The pairs whose tensors both main graphs have; ONNX Runtime would refuse the whole model for one that is missing.
fn existing(pairs: &[LayerPair], original: &ModelProto, quantized: &ModelProto, control: &Control) -> Vec<LayerPair> {
    let (original, quantized) = (tensors(original), tensors(quantized));
    let (found, missing): (Vec<_>, Vec<_>) = pairs
        .iter()
        .cloned()
        .partition(|pair| original.contains(&*pair.original) && quantized.contains(&*pair.quantized));
    for pair in missing {
        control.problem(Problem::new(
            Severity::Note,
            "The accumulated error of this layer is not measured",
            pair.layer,
            format!("Its output, {} and {}, is not in the main graph of both models", pair.original, pair.quantized),
            "Judge it by its isolated error",
        ));
    }
    found
}

fn tensors(proto: &ModelProto) -> std::collections::HashSet<&str> {
    let nodes = proto.graph.iter().flat_map(|graph| &graph.node);
    nodes.flat_map(|node| node.output.iter().map(String::as_str)).filter(|name| !name.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::proto::{GraphProto, NodeProto};

    fn model(outputs: &[&str]) -> ModelProto {
        let node = |name: &&str| NodeProto { output: vec![(*name).to_owned()], ..Default::default() };
        let graph = GraphProto { node: outputs.iter().map(node).collect(), ..Default::default() };
        ModelProto { graph: Some(graph), ..Default::default() }
    }

    #[test]
    fn pairs_without_tensors_become_notes() {
        let pair = |layer: &str, original: &str, quantized: &str| LayerPair {
            layer: layer.to_owned(),
            original: original.to_owned(),
            quantized: quantized.to_owned(),
        };
        let control = Control::new();
        let pairs = [pair("a", "x", "x_dq"), pair("b", "y", "gone"), pair("c", "", "x_dq")];
        let kept = existing(&pairs, &model(&["x", "y", ""]), &model(&["x_dq", "y"]), &control);
        assert_eq!(kept, pairs[..1]);
        let places: Vec<_> = control.problems().into_iter().map(|problem| problem.place).collect();
        assert_eq!(places, ["b", "c"]);
    }
}
