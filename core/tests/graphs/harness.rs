//! A model in a few lines, and what becomes of it under a plan.

use std::collections::BTreeMap;

use nibble_core::calibrate::{CalibrateOptions, calibrate};
use nibble_core::data::{DataOptions, DataSet};
use nibble_core::error::{CompareOptions, OutputError, Quality, Sqnr, compare};
use nibble_core::export::{Form, Verified, VerifyOptions, export, stored_plan, verify_and_write};
use nibble_core::model::Model;
use nibble_core::onnx::proto::tensor_proto::DataType;
use nibble_core::onnx::proto::{AttributeProto, GraphProto, ModelProto, OperatorSetIdProto, TensorProto};
use nibble_core::onnx::{OnnxFile, build, save};
use nibble_core::plan::{Plan, Rule, preset, targets};
use nibble_core::runtime::{Level, Runtime, Session, SessionOptions, Source};
use nibble_core::stats::Stats;
use nibble_core::{Control, Error};
use tempfile::TempDir;

/// Samples that calibrate and judge a case.
const SAMPLES: usize = 16;

/// A graph that grows line by line. Every random weight is scaled so that values keep their size from layer to layer.
pub struct Net {
    pub graph: GraphProto,
    pub opset: i64,
    pub ir: i64,
    rng: fastrand::Rng,
}

impl Net {
    pub fn new(opset: i64) -> Self {
        let graph = GraphProto { name: Some("g".to_owned()), ..GraphProto::default() };
        Self { graph, opset, ir: if opset >= 21 { 10 } else { 8 }, rng: fastrand::Rng::with_seed(7) }
    }

    /// A float input; −1 is a free dimension.
    pub fn input(mut self, name: &str, dims: &[i64]) -> Self {
        self.graph.input.push(build::value_info_typed(name, DataType::Float, dims));
        self
    }

    pub fn integers(mut self, name: &str, dims: &[i64]) -> Self {
        self.graph.input.push(build::value_info_typed(name, DataType::Int64, dims));
        self
    }

    pub fn output(mut self, name: &str) -> Self {
        self.graph.output.push(build::value_info(name));
        self
    }

    /// Random values, uniform around 0, that give a product over all but the first axis a spread of about 1.
    pub fn values(&mut self, dims: &[i64]) -> Vec<f32> {
        let count: i64 = dims.iter().product();
        let depth = (count / dims.first().copied().unwrap_or(1).max(1)).max(1);
        let size = (3.0 / depth as f32).sqrt();
        (0..count).map(|_| (self.rng.f32() * 2.0 - 1.0) * size).collect()
    }

    pub fn weight(mut self, name: &str, dims: &[i64]) -> Self {
        let values = self.values(dims);
        self.constant(build::tensor_f32(name, dims, &values))
    }

    pub fn constant(mut self, tensor: TensorProto) -> Self {
        self.graph.initializer.push(tensor);
        self
    }

    pub fn floats(self, name: &str, dims: &[i64], values: &[f32]) -> Self {
        self.constant(build::tensor_f32(name, dims, values))
    }

    pub fn ints(self, name: &str, values: &[i64]) -> Self {
        self.constant(build::tensor_i64(name, &[values.len() as i64], values))
    }

    /// A node named after its first output.
    pub fn op(self, op: &str, inputs: &[&str], output: &str, attributes: Vec<AttributeProto>) -> Self {
        self.node(op, output, inputs, &[output], attributes)
    }

    pub fn node(
        mut self,
        op: &str,
        name: &str,
        inputs: &[&str],
        outputs: &[&str],
        attributes: Vec<AttributeProto>,
    ) -> Self {
        self.graph.node.push(build::node(op, "", name, inputs, outputs, attributes));
        self
    }

    /// A Conv of a 3 × 3 kernel with padding, its weight and its bias.
    pub fn conv(self, input: &str, output: &str, channels: [i64; 2], group: i64) -> Self {
        let (w, b) = (format!("{output}_w"), format!("{output}_b"));
        self.weight(&w, &[channels[1], channels[0] / group, 3, 3]).weight(&b, &[channels[1]]).op(
            "Conv",
            &[input, &w, &b],
            output,
            vec![build::attr_ints("pads", &[1, 1, 1, 1]), build::attr_int("group", group)],
        )
    }

    pub fn proto(&self) -> ModelProto {
        ModelProto {
            ir_version: Some(self.ir),
            opset_import: vec![OperatorSetIdProto { domain: Some(String::new()), version: Some(self.opset) }],
            graph: Some(self.graph.clone()),
            ..ModelProto::default()
        }
    }

    /// Under a preset.
    pub fn under(self, name: &str) -> Case {
        Case {
            proto: self.proto(),
            preset: name.to_owned(),
            sets: Vec::new(),
            shapes: BTreeMap::new(),
            target: "",
            fixes: false,
        }
    }
}

/// A model and what to do with it.
pub struct Case {
    pub proto: ModelProto,
    preset: String,
    sets: Vec<Rule>,
    shapes: BTreeMap<String, Vec<usize>>,
    target: &'static str,
    fixes: bool,
}

impl Case {
    pub fn set(mut self, pattern: &str, set: &str) -> Self {
        self.sets.push(Rule { pattern: pattern.parse().expect("pattern"), set: set.parse().expect("set") });
        self
    }

    pub fn shape(mut self, input: &str, dims: &[usize]) -> Self {
        self.shapes.insert(input.to_owned(), dims.to_vec());
        self
    }

    pub fn target(self, target: &'static str) -> Self {
        Self { target, ..self }
    }

    /// Takes every way out of conflicts with the target.
    pub fn fix_target(self) -> Self {
        Self { fixes: true, ..self }
    }

    /// The model and the plan.
    pub fn plan(&self) -> (Model, Plan) {
        let folder = tempfile::tempdir().expect("temp folder");
        let path = folder.path().join("model.onnx");
        save(&self.proto, None, &path).expect("saved");
        let model = Model::load(&path, &Control::new()).expect("loads");
        let plan = self.plan_for(&model).expect("plan");
        (model, plan)
    }

    fn plan_for(&self, model: &Model) -> Result<Plan, Error> {
        let mut plan = model.preset_plan(preset(&self.preset)?)?;
        plan.target = self.target.to_owned();
        for rule in &self.sets {
            plan.push_rule(rule.clone());
        }
        if self.fixes {
            targets::fix(&mut plan, model, None);
        }
        Ok(plan)
    }

    pub fn run(self) -> Ran {
        match self.try_run() {
            Ok(ran) => ran,
            Err(error) => panic!("{error}\n  at {}\n  hint: {}", error.place(), error.hint()),
        }
    }

    pub fn try_run(self) -> Result<Ran, Error> {
        let folder = tempfile::tempdir().expect("temp folder");
        save(&self.proto, None, &folder.path().join("model.onnx"))?;
        self.run_in(folder)
    }

    /// Runs on `model.onnx` of this folder, written by the caller.
    pub fn run_in(self, folder: TempDir) -> Result<Ran, Error> {
        let control = Control::new();
        let runtime = runtime();
        let model = Model::load(&folder.path().join("model.onnx"), &control)?;
        let plan = self.plan_for(&model)?;
        let options = DataOptions { shapes: self.shapes, ..DataOptions::default() };
        let data = DataSet::open(&format!("random:{SAMPLES}"), &model.inputs, &options)?;
        let indices: Vec<usize> = (0..SAMPLES).collect();
        prepared_is_the_same(runtime, &model, &data, &indices);

        let mut stats = Stats::new(model.file.sha256.as_str(), 0);
        calibrate(&model, runtime, &data, &indices, &CalibrateOptions::default(), &mut stats, &control)?;
        let export = export(&model, Some(&stats), &plan, &control)?;
        assert_eq!(export.problems.len(), unique(&export.problems), "no problem twice: {:#?}", export.problems);
        let path = folder.path().join("quantized.onnx");
        let compare = CompareOptions::default();
        let verify = VerifyOptions { data: &data, indices: &indices, labels: None, compare: &compare };
        let verified = verify_and_write(runtime, &model, export, &path, verify, &control)?;
        let quantized = OnnxFile::load(&path, &control)?;
        assert_eq!(stored_plan(&quantized.proto).map(|plan| plan.layers), Some(plan.layers.clone()));
        Ok(Ran { verified, quantized, model, data, folder })
    }
}

fn unique(problems: &[nibble_core::Problem]) -> usize {
    let texts: std::collections::BTreeSet<_> = problems.iter().map(|problem| format!("{problem:?}")).collect();
    texts.len()
}

pub fn runtime() -> &'static Runtime {
    Runtime::start(None, &Control::new()).expect("ONNX Runtime")
}

/// The prepared graph, on which everything else rests, computes what the file does.
fn prepared_is_the_same(runtime: &Runtime, model: &Model, data: &DataSet, indices: &[usize]) {
    let prepared = Source::Proto { proto: &model.graph, folder: Some(model.file.folder()) };
    let original = Source::File(&model.file.path);
    if model.file.graph().node.iter().any(|node| node.op_type() == "DequantizeLinear") {
        return same_as_written(runtime, original, prepared, data, indices);
    }
    let options = CompareOptions::default();
    let quality = compare(runtime, original, prepared, data, indices, None, &options, &Control::new());
    for output in quality.expect("the prepared graph runs").outputs {
        let db = output.sqnr_db.db();
        let same = output.sqnr_db == Sqnr::Undefined && output.problem.is_none() || db.is_some_and(|db| db > 90.0);
        assert!(same, "prepared graph differs in {}: {:?} {:?}", output.name, output.sqnr_db, output.problem);
    }
}

/// As [`prepared_is_the_same`], without rewrites: those quantize float weights between a file's own pairs once more.
fn same_as_written(runtime: &Runtime, original: Source<'_>, prepared: Source<'_>, data: &DataSet, indices: &[usize]) {
    let options = SessionOptions { level: Level::Disable, ..SessionOptions::default() };
    let open = |source| Session::open(runtime, source, &options).expect("opens");
    let (mut original, mut prepared) = (open(original), open(prepared));
    let mut errors: BTreeMap<String, OutputError> = BTreeMap::new();
    for &index in indices {
        let sample = data.sample(index).expect("sample");
        let expected = original.run(&sample, &Control::new()).expect("runs");
        for (expected, found) in expected.into_iter().zip(prepared.run(&sample, &Control::new()).expect("runs")) {
            let (Some(a), Some(b)) = (&expected.value, &found.value) else { continue };
            errors.entry(expected.name).or_default().add(a, b);
        }
    }
    for (name, error) in errors {
        // What rounds differently in the last place may end a step away.
        assert!(error.sqnr().db().unwrap_or(0.0) > 60.0, "prepared graph differs in {name}: {:?}", error.sqnr());
    }
}

/// What became of a case. The folder lives as long.
pub struct Ran {
    pub verified: Verified,
    pub quantized: OnnxFile,
    pub model: Model,
    pub data: DataSet,
    pub folder: TempDir,
}

impl Ran {
    /// Asserts that every output is at least this close to the original, in dB.
    #[track_caller]
    pub fn above(&self, least: f64) -> &Self {
        for output in &self.quality().outputs {
            let db = output.sqnr_db.db().unwrap_or(f64::NAN);
            assert!(db >= least, "{}: {db} dB {:?}\n{}", output.name, output.problem, self.describe());
        }
        self
    }

    /// Asserts the form of a layer.
    #[track_caller]
    pub fn form(&self, layer: &str, form: Form) -> &Self {
        let outcome = self.verified.layers.iter().find(|outcome| outcome.name == layer);
        assert_eq!(outcome.map(|outcome| outcome.form), Some(form), "{layer}\n{}", self.describe());
        self
    }

    /// Asserts that a problem about `place` says `text`.
    #[track_caller]
    pub fn problem(&self, place: &str, text: &str) -> &Self {
        let said = self.verified.problems.iter().chain(&self.model.problems);
        let mut said = said.filter(|problem| problem.place.contains(place));
        assert!(
            said.any(|problem| format!("{} {}", problem.what, problem.why).contains(text)),
            "{place}: {text}?\n{}",
            self.describe()
        );
        self
    }

    /// Asserts that nothing is worse than asked for.
    #[track_caller]
    pub fn quiet(&self) -> &Self {
        assert!(self.verified.problems.is_empty(), "{}", self.describe());
        self
    }

    /// How often the graph that ONNX Runtime makes of the export has each operator, bodies left out.
    pub fn runs_as(&self) -> BTreeMap<String, usize> {
        let path = self.folder.path().join("optimized.onnx");
        let options = SessionOptions { optimized_model: Some(path.clone()), ..SessionOptions::default() };
        Session::open(runtime(), Source::File(&self.verified.output), &options).expect("opens");
        operators(OnnxFile::load(&path, &Control::new()).expect("optimised model").graph())
    }

    /// Asserts how often an operator is in the graph that runs.
    #[track_caller]
    pub fn runs(&self, op: &str, count: usize) -> &Self {
        let all = self.runs_as();
        assert_eq!(all.get(op).copied().unwrap_or(0), count, "{op}: {all:?}\n{}", self.describe());
        self
    }

    pub fn quality(&self) -> &Quality {
        &self.verified.quality
    }

    pub fn describe(&self) -> String {
        let mut text = String::new();
        for layer in &self.verified.layers {
            text += &format!("  {} {:?} {:?}: {}\n", layer.name, layer.form, layer.verdict, layer.reason);
        }
        for problem in &self.verified.problems {
            text += &format!("  ! {} [{}] {}\n", problem.what, problem.place, problem.why);
        }
        text + &format!("  {:?}", operators(self.quantized.graph()))
    }
}

/// Operators of a graph with their numbers.
pub fn operators(graph: &GraphProto) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for node in &graph.node {
        *counts.entry(node.op_type().to_owned()).or_default() += 1;
    }
    counts
}
