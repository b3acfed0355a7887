//! A sample model with its data, calibrated once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use nibble_core::Control;
use nibble_core::calibrate::{CalibrateOptions, calibrate};
use nibble_core::data::{DataOptions, DataSet};
use nibble_core::error::CompareOptions;
use nibble_core::export::{Export, Verified, VerifyOptions, export, verify_and_write};
use nibble_core::model::Model;
use nibble_core::onnx::OnnxFile;
use nibble_core::onnx::proto::GraphProto;
use nibble_core::plan::{Plan, Rule, preset};
use nibble_core::runtime::{Runtime, Session, SessionOptions, Source};
use nibble_core::stats::Stats;

/// The sample models.
pub const MODELS: [&str; 3] = ["digits_cnn", "digits_transformer", "digits_lstm"];

/// A model, its evaluation data and the statistics of its calibration data.
pub struct Sample {
    pub model: Model,
    pub data: DataSet,
    pub labels: Vec<i64>,
    pub stats: Stats,
}

pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../sample-models")
}

pub fn runtime() -> &'static Runtime {
    Runtime::start(None, &Control::new()).expect("ONNX Runtime")
}

impl Sample {
    pub fn open(name: &str) -> Self {
        let control = Control::new();
        let file = |end: &str| folder().join(format!("{name}.{end}")).display().to_string();
        let model = Model::load(Path::new(&file("onnx")), &control).expect("model");
        let open = |end: &str| DataSet::open(&file(end), &model.inputs, &DataOptions::default()).expect("data");
        let (calibration, data) = (open("calib.npz"), open("eval.npz"));
        let labels = data.labels(&file("labels.npy")).expect("labels");
        let mut stats = Stats::new(model.file.sha256.as_str(), 0);
        let indices: Vec<usize> = (0..calibration.len()).collect();
        let options = CalibrateOptions::default();
        calibrate(&model, runtime(), &calibration, &indices, &options, &mut stats, &control).expect("calibrates");
        Self { model, data, labels, stats }
    }

    /// The preset's plan, with `sets` for all layers on top.
    pub fn plan(&self, name: &str, sets: &[&str]) -> Plan {
        let mut plan = self.model.preset_plan(preset(name).expect("preset")).expect("plan");
        for set in sets {
            plan.push_rule(Rule { pattern: "*".parse().expect("glob"), set: set.parse().expect("set") });
        }
        plan
    }

    pub fn export(&self, plan: &Plan) -> Export {
        export(&self.model, Some(&self.stats), plan, &Control::new()).expect("exports")
    }

    /// Exports and judges on the first `samples` evaluation samples.
    pub fn write(&self, plan: &Plan, path: &Path, samples: usize) -> Verified {
        let indices: Vec<usize> = (0..samples.min(self.data.len())).collect();
        let compare = CompareOptions::default();
        let options =
            VerifyOptions { data: &self.data, indices: &indices, labels: Some(&self.labels), compare: &compare };
        let export = self.export(plan);
        verify_and_write(runtime(), &self.model, export, path, options, &Control::new()).expect("runs")
    }

    /// SQNR in dB and accuracy in percent on all evaluation samples.
    pub fn quality(&self, preset: &str, sets: &[&str]) -> (f64, f64) {
        let folder = tempfile::tempdir().expect("folder");
        let plan = self.plan(preset, sets);
        let quality = self.write(&plan, &folder.path().join("q.onnx"), usize::MAX).quality;
        let accuracy = quality.accuracy.expect("labels");
        (quality.sqnr_db.db().expect("defined"), accuracy.quantized * 100.0)
    }
}

/// How often the graph that ONNX Runtime makes of a model has each operator.
pub fn runs_as(path: &Path) -> BTreeMap<String, usize> {
    let optimized = path.with_extension("optimized.onnx");
    let options = SessionOptions { optimized_model: Some(optimized.clone()), ..SessionOptions::default() };
    Session::open(runtime(), Source::File(path), &options).expect("opens");
    operators(OnnxFile::load(&optimized, &Control::new()).expect("optimised model").graph())
}

/// Operators of a graph with their numbers.
pub fn operators(graph: &GraphProto) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for node in &graph.node {
        *counts.entry(node.op_type().to_owned()).or_default() += 1;
    }
    counts
}
