//! What it takes to run the export, and the facts written into its metadata.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

use crate::export::context::MICROSOFT;
use crate::model::Model;
use crate::onnx;
use crate::onnx::proto::{ModelProto, OperatorSetIdProto, StringStringEntryProto};
use crate::plan::{Plan, SCALINGS_LEFT_OUT};

/// What it takes to run a quantized model.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Deployment {
    /// Version of the standard operators.
    pub opset: i64,
    /// Version of the file format.
    pub ir_version: i64,
    /// Operator domains with their versions; the standard one is `ai.onnx`.
    pub domains: BTreeMap<String, i64>,
    /// The runtime that it was verified in.
    pub runtime: String,
    /// Session options it was verified with; empty when the defaults do.
    pub session_options: BTreeMap<String, String>,
    /// Lines of Python that load it.
    pub snippet: String,
}

/// Key of the plan in a file's metadata.
const PLAN: &str = "nibble.plan";
/// Key of the version that wrote it.
const VERSION: &str = "nibble.version";
/// Lowest file format with 4-bit tensors.
const INT4_IR: i64 = 10;

/// Writes operator domains, file format and metadata into `proto`, which is of operator set `opset`, and returns the facts.
pub fn stamp(
    proto: &mut ModelProto,
    model: &Model,
    opset: i64,
    plan: &Plan,
    microsoft: bool,
    int4: bool,
) -> Deployment {
    if microsoft && !proto.opset_import.iter().any(|import| import.domain() == MICROSOFT) {
        proto.opset_import.push(OperatorSetIdProto { domain: Some(MICROSOFT.to_owned()), version: Some(1) });
    }
    if int4 {
        proto.ir_version = Some(proto.ir_version().max(INT4_IR));
    }
    let mut plan = plan.clone();
    plan.model_sha256.clone_from(&model.file.sha256);
    if !plan.scalings.is_empty() {
        plan.unknown.insert(SCALINGS_LEFT_OUT.to_owned(), plan.scalings.len().into());
    }
    let facts = [
        (VERSION, env!("CARGO_PKG_VERSION").to_owned()),
        ("nibble.source_sha256", model.file.sha256.clone()),
        (PLAN, plan.to_json()),
    ];
    for (key, value) in facts {
        proto.metadata_props.retain(|entry| entry.key() != key);
        proto.metadata_props.push(StringStringEntryProto { key: Some(key.to_owned()), value: Some(value) });
    }
    let domains = proto
        .opset_import
        .iter()
        .map(|import| {
            let domain = if import.domain().is_empty() { "ai.onnx" } else { import.domain() };
            (domain.to_owned(), import.version())
        })
        .collect();
    Deployment {
        opset,
        ir_version: proto.ir_version(),
        domains,
        runtime: String::new(),
        session_options: BTreeMap::new(),
        snippet: String::new(),
    }
}

impl Deployment {
    /// Adds what is known once the file was verified.
    pub fn verified(&mut self, runtime: &str, file_name: &str) {
        self.runtime = format!("onnxruntime {runtime}");
        self.snippet = format!(
            "import onnxruntime as ort  # {runtime} or newer\nsession = ort.InferenceSession({file_name:?}, providers=[\"CPUExecutionProvider\"])"
        );
    }
}

/// What a file exported by Nibble says about where it comes from.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// The plan it was made with; its `model_sha256` names the original.
    pub plan: Plan,
    /// Version of Nibble that wrote it.
    pub version: String,
}

impl Stored {
    /// What the file at `path` carries, without reading the model itself; `None` when it was not exported by Nibble or
    /// cannot be read.
    pub fn in_file(path: &Path) -> Option<Self> {
        let metadata = onnx::metadata(path).ok()?;
        let plan = Plan::from_json(metadata.get(PLAN)?.as_bytes()).ok()?;
        Some(Self { plan, version: metadata.get(VERSION).cloned().unwrap_or_default() })
    }
}

/// The plan that a file exported by Nibble carries; `None` when it carries none.
pub fn stored_plan(proto: &ModelProto) -> Option<Plan> {
    let entry = proto.metadata_props.iter().find(|entry| entry.key() == PLAN)?;
    Plan::from_json(entry.value().as_bytes()).ok()
}
