//! Export: quantize, write beside the target, run in ONNX Runtime, measure, and only then move into place.

use std::collections::BTreeMap;

use nibble_core::error::{CompareOptions, InMemory, accumulated};
use nibble_core::export::{VerifyOptions, export as quantize, layer_pairs, ort_path, verify_and_write};
use nibble_core::plan::targets::SecondFile;
use nibble_core::runtime::Runtime;
use nibble_core::{Control, Error};

use super::data::Samples;
use super::{ExportRequest, Exported, Failure, Message};
use crate::blame::{Case, judge};
use crate::format;

/// Most samples that the error of every layer is measured with: all layers' outputs of two models are held at a time.
const LAYER_SAMPLES: usize = 16;

/// Exports, unless that would replace a file without having been told to.
pub fn export(request: &ExportRequest, runtime: &Runtime, control: &Control) -> Message {
    let also = request.plan.target().and_then(|target| target.also);
    let ort = also.and_then(|SecondFile::Ort| ort_path(&request.path).ok());
    if !request.overwrite && (request.path.exists() || ort.is_some_and(|path| path.exists())) {
        return Message::WouldOverwrite(request.path.clone());
    }
    Message::Exported(write(request, runtime, control).map(Box::new).map_err(Failure::from))
}

fn write(request: &ExportRequest, runtime: &Runtime, control: &Control) -> Result<Exported, Error> {
    let model = &request.model;
    let samples = Samples::open(model, &request.data)?;
    let export = quantize(model, request.stats.as_deref(), &request.plan, control)?;
    let proto = export.proto.clone();
    let compare = CompareOptions::default();
    let verify = VerifyOptions {
        data: samples.judged(),
        indices: &samples.evaluation,
        labels: samples.labels.as_deref(),
        compare: &compare,
    };
    let mut verified = verify_and_write(runtime, model, export, &request.path, verify, control)?;

    verified.problems.extend(samples.judged().problems().iter().cloned());
    let pairs = layer_pairs(model, &proto);
    let folder = Some(model.file.folder());
    let few = &samples.evaluation[..samples.evaluation.len().min(LAYER_SAMPLES)];
    let before = control.problems().len();
    let (original, quantized) = (InMemory { proto: &model.graph, folder }, InMemory { proto: &proto, folder });
    // The file is in place by now: what fails here costs the figures of the layers, not the export.
    let layers = match accumulated(runtime, original, quantized, &pairs, samples.judged(), few, 1, control) {
        Ok(layers) => layers,
        Err(Error::Cancelled) => Vec::new(),
        Err(error) => {
            if let Failure::Problem(problem) = Failure::from(error) {
                verified.problems.push(problem);
            }
            Vec::new()
        }
    };
    verified.problems.extend(control.problems().into_iter().skip(before));
    let accumulated: BTreeMap<String, f64> =
        layers.into_iter().map(|layer| (layer.name, format::decibels(layer.sqnr_db))).collect();
    let measured_on = format!("on {} of {}", format::samples(samples.evaluation.len()), samples.judged().describe());
    let case = Case {
        model,
        stats: request.stats.as_deref(),
        plan: &request.plan,
        quality: &verified.quality,
        accumulated: Some(&accumulated),
        runtime,
        data: samples.judged(),
        indices: &samples.evaluation,
        threads: 1,
    };
    let findings = judge(&case, control).unwrap_or_default();
    verified.problems.extend(findings.iter().map(|finding| finding.problem.clone()));
    Ok(Exported { plan: request.plan.clone(), verified, accumulated, findings, measured_on })
}
