//! Training of the bundled samples, through ONNX Runtime.

use std::path::Path;

use super::learner::Learner;
use super::simulate::Simulation;
use super::start::Start;
use super::*;
use crate::calibrate::{CalibrateOptions, calibrate};
use crate::data::{DataOptions, Sample};
use crate::error::{CompareOptions, Sqnr};
use crate::export::export;
use crate::model::Model;
use crate::onnx::proto::TensorProto;
use crate::plan::{Rule, preset};
use crate::runtime::{Level, Runtime, Session, SessionOptions, Source, tapped};
use crate::stats::Stats;
use crate::tensor::Values;
use crate::{Control, Error};

struct Bench {
    model: Model,
    data: DataSet,
    labels: Vec<i64>,
    stats: Stats,
    runtime: &'static Runtime,
}

fn bench(name: &str) -> Bench {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sample-models");
    let file = |end: &str| folder.join(format!("{name}.{end}")).display().to_string();
    let control = Control::new();
    let model = Model::load(Path::new(&file("onnx")), &control).expect("loads");
    let data = DataSet::open(&file("eval.npz"), &model.inputs, &DataOptions::default()).expect("opens");
    let labels = data.labels(&file("labels.npy")).expect("labels");
    let runtime = Runtime::start(None, &control).expect("ONNX Runtime");
    let mut stats = Stats::new(model.file.sha256.as_str(), 0);
    let indices: Vec<usize> = (0..48).collect();
    calibrate(&model, runtime, &data, &indices, &CalibrateOptions::default(), &mut stats, &control)
        .expect("calibrated");
    Bench { model, data, labels, stats, runtime }
}

impl Bench {
    fn plan(&self, name: &str, set: &str) -> Plan {
        let mut plan = self.model.preset_plan(preset(name).expect("preset")).expect("plan");
        if !set.is_empty() {
            plan.push_rule(Rule { pattern: "*".parse().expect("glob"), set: set.parse().expect("set") });
        }
        plan
    }

    fn train(&self, plan: &Plan, options: &FinetuneOptions, with_labels: bool) -> Result<Finetuned, Error> {
        self.train_watched(plan, options, with_labels, &Control::new(), &mut |_| {})
    }

    fn train_watched(
        &self,
        plan: &Plan,
        options: &FinetuneOptions,
        with_labels: bool,
        control: &Control,
        watch: &mut dyn FnMut(&Point),
    ) -> Result<Finetuned, Error> {
        let indices: Vec<usize> = (0..200).collect();
        let labels = with_labels.then_some(self.labels.as_slice());
        let data = TrainingData { set: &self.data, indices: &indices, labels };
        finetune(&self.model, self.runtime, Some(&self.stats), plan, &data, options, control, watch)
    }

    fn sqnr(&self, plan: &Plan) -> f64 {
        let indices: Vec<usize> = (200..260).collect();
        let options = CompareOptions::default();
        let quality = measure(
            &self.model,
            self.runtime,
            Some(&self.stats),
            plan,
            &self.data,
            &indices,
            None,
            &options,
            &Control::new(),
        );
        match quality.expect("measured").sqnr_db {
            Sqnr::Db(db) => db,
            other => panic!("{other:?}"),
        }
    }
}

fn short(steps: usize) -> FinetuneOptions {
    FinetuneOptions { steps, batch: 32, learning_rate: 1.5e-2, ..FinetuneOptions::default() }
}

fn floats(values: &Values) -> Vec<f32> {
    values.to_f32().unwrap_or_default()
}

/// What the simulated graph is fed with is, bit for bit, what ONNX Runtime makes of the exported integers, scales and
/// biases; and both give the same outputs.
fn check_simulation(bench: &Bench, plan: &Plan, exact_db: f64) {
    let control = Control::new();
    let start = Start::new(&bench.model, Some(&bench.stats), plan).expect("start");
    let names: Vec<String> = start.candidates.iter().map(|c| bench.model.layers[c.layer].name.clone()).collect();
    let made: Vec<_> = start.candidates.iter().map(|c| (c.weight.clone(), c.bias.clone())).collect();
    let plan = start.plan(plan, &names, &made);
    let repaired = bench.model.repaired(&plan).expect("repaired");
    let exported = export(&bench.model, Some(&bench.stats), &plan, &control).expect("exported");
    let wanted: Vec<usize> = start.candidates.iter().map(|candidate| candidate.layer).collect();
    let simulation = Simulation::new(&repaired, &exported, &wanted).expect("simulated");
    assert_eq!(simulation.parts.len(), wanted.len(), "every candidate is fed");
    let learners: Vec<Learner> = simulation
        .parts
        .iter()
        .enumerate()
        .map(|(at, part)| {
            let candidate = &start.candidates[at];
            Learner::new(at, candidate, part, candidate.weight.clone(), false)
        })
        .collect();
    let feeds: Vec<_> = learners.iter().flat_map(Learner::feeds).collect();
    // What the exported file's nodes read in the place of each feed.
    let export_graph = exported.proto.graph.as_ref().expect("graph");
    let graph = simulation.proto.graph.as_ref().expect("graph");
    let mut pairs: Vec<(String, String)> = Vec::new();
    for node in &graph.node {
        for (slot, input) in
            node.input.iter().enumerate().filter(|(_, name)| feeds.iter().any(|(feed, _)| feed == *name))
        {
            let twin = export_graph.node.iter().find(|twin| {
                twin.output == node.output && twin.op_type() == node.op_type() && twin.input.len() == node.input.len()
            });
            pairs.extend(twin.map(|twin| (input.clone(), twin.input[slot].clone())));
        }
    }
    let taps: Vec<String> = pairs.iter().map(|(_, tensor)| tensor.clone()).collect();
    let stored: Vec<&str> = export_graph.initializer.iter().map(TensorProto::name).collect();
    let taps: Vec<String> = taps.into_iter().filter(|name| !stored.contains(&name.as_str())).collect();
    let proto = tapped(&exported.proto, &taps);
    let options = SessionOptions { level: Level::Disable, ..SessionOptions::default() };
    let mut plain =
        Session::open(bench.runtime, Source::Proto { proto: &proto, folder: None }, &options).expect("opens");
    let source = Source::Proto { proto: &simulation.proto, folder: None };
    let mut simulated = Session::open(bench.runtime, source, &options).expect("opens");
    let (mut signal, mut noise) = (0.0, 0.0);
    for index in 0..8 {
        let sample = bench.data.sample(index).expect("sample");
        let outputs = plain.run(&sample, &control).expect("runs");
        let mut fed = Sample { feeds: feeds.clone() };
        fed.feeds.extend(sample.feeds);
        let ours = simulated.run(&fed, &control).expect("runs");
        for tap in &taps {
            let output = outputs.iter().find(|output| output.name == *tap).expect("tapped");
            let (input, _) = pairs.iter().find(|(_, tensor)| tensor == tap).expect("pair");
            let (_, feed) = feeds.iter().find(|(name, _)| name == input).expect("feed");
            assert_eq!(output.value.as_ref().map(|tensor| floats(&tensor.values)), Some(floats(&feed.values)), "{tap}");
        }
        let (y, t) = (ours[0].value.as_ref().expect("y"), outputs[0].value.as_ref().expect("t"));
        for (y, t) in floats(&y.values).iter().zip(floats(&t.values)) {
            signal += f64::from(t).powi(2);
            noise += (f64::from(*y) - f64::from(t)).powi(2);
        }
    }
    let db = 10.0 * (signal / noise).log10();
    assert!(noise == 0.0 || db > exact_db, "{db} dB");
}

#[test]
fn what_is_simulated_is_what_is_exported() {
    let bench = bench("digits_cnn");
    // Static: equal to the last bit of the output.
    for (name, set) in [("int8", ""), ("int4-static", ""), ("int4-static", "precision=int2,clip=mse")] {
        check_simulation(&bench, &bench.plan(name, set), f64::INFINITY);
    }
    check_simulation(&bench, &bench.plan("int8-dynamic", ""), 60.0);
    // MatMulNBits rounds its activations by itself, about 45 dB.
    check_simulation(&bench, &bench.plan("int8-weights", ""), 40.0);
    let bench = self::bench("digits_transformer");
    check_simulation(&bench, &bench.plan("int8", ""), f64::INFINITY);
    check_simulation(&bench, &bench.plan("int8-dynamic", ""), 50.0);
    check_simulation(&bench, &bench.plan("int4-weights", ""), 40.0);
}

#[test]
fn two_bits_are_worth_training_and_the_gain_holds_on_other_samples() {
    let bench = bench("digits_cnn");
    let plan = bench.plan("int4-static", "precision=int2,granularity=per_channel");
    let tuned = bench.train(&plan, &short(120), false).expect("trained");
    assert_eq!((tuned.loss, tuned.ended, tuned.untrained.len()), (Loss::Distance, Ended::Finished, 0));
    assert!(
        tuned.trained.len() >= 4 && tuned.after.loss < tuned.before.loss * 0.3,
        "{:?} {:?}",
        tuned.before,
        tuned.after
    );
    let (before, after) = (bench.sqnr(&plan), bench.sqnr(&tuned.plan));
    assert!(after > before + 4.0, "{before} dB → {after} dB");
    // What held-back samples promised is what the exported file does.
    let promised = tuned.after.sqnr_db.expect("figure");
    assert!((after - promised).abs() < 2.0, "{promised} dB → {after} dB");
    let again = bench.train(&plan, &short(120), false).expect("trained");
    assert!(again.plan == tuned.plan, "the same seed gives the same plan");
}

#[test]
fn training_without_gain_leaves_the_plan_alone() {
    let bench = bench("digits_cnn");
    let plan = bench.plan("int8", "");
    let wild = FinetuneOptions { learning_rate: 3.0, ..short(30) };
    let tuned = bench.train(&plan, &wild, false).expect("trained");
    assert!(tuned.after.loss <= tuned.before.loss);
    assert!(tuned.after.loss < tuned.before.loss || tuned.plan == plan);
}

#[test]
fn labels_train_too_and_other_outputs_are_refused() {
    let bench = bench("digits_cnn");
    let plan = bench.plan("int4-static", "precision=int2,granularity=per_channel");
    let tuned = bench.train(&plan, &short(60), true).expect("trained");
    assert_eq!(tuned.loss, Loss::CrossEntropy);
    let (before, after) = (tuned.before.accuracy.expect("labels"), tuned.after.accuracy.expect("labels"));
    assert!(tuned.after.loss < tuned.before.loss && after > before, "{before} → {after}");
    let options = FinetuneOptions { loss: Some(Loss::CrossEntropy), ..short(2) };
    let error = bench.train(&plan, &options, false).err().expect("no labels").to_string();
    assert!(error.contains("takes labels"), "{error}");
}

#[test]
fn a_killed_run_resumes_to_the_same_end() {
    let bench = bench("digits_cnn");
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("plan.state");
    let plan = bench.plan("int4-static", "precision=int2,granularity=per_channel");
    let options = FinetuneOptions { state: Some(path.clone()), ..short(50) };
    let control = Control::new();
    let stop = &mut |point: &Point| {
        if point.step == 31 {
            control.cancel();
        }
    };
    let stopped = bench.train_watched(&plan, &options, false, &control, stop).expect("stopped");
    assert_eq!((stopped.ended, stopped.steps, stopped.resumed), (Ended::Cancelled, 31, false));
    assert!(stopped.after.loss < stopped.before.loss && path.exists());
    // Another plan does not take the state for its own, and leaves none behind.
    let copy = folder.path().join("copy.state");
    std::fs::copy(&path, &copy).expect("copied");
    let other = bench.train(&bench.plan("int8", ""), &FinetuneOptions { state: Some(copy.clone()), ..short(2) }, false);
    assert!(!other.expect("trained").resumed && !copy.exists());
    let resumed = bench.train(&plan, &options, false).expect("trained");
    assert!(resumed.resumed && resumed.steps == 50 && resumed.after.loss <= stopped.after.loss);
    let whole = bench.train(&plan, &short(50), false).expect("trained");
    assert!(whole.plan == resumed.plan, "as if nothing had happened");
    assert!(!path.exists(), "a finished run leaves no state");
    std::fs::write(&path, b"not a state").expect("written");
    assert!(!bench.train(&plan, &FinetuneOptions { state: Some(path), ..short(1) }, false).expect("trained").resumed);
}

#[test]
fn matrices_in_blocks_and_recurrent_layers() {
    let bench = bench("digits_transformer");
    let plan = bench.plan("int4-weights", "precision=int2");
    let tuned = bench.train(&plan, &short(40), false).expect("trained");
    assert!(tuned.after.loss < tuned.before.loss, "{:?} {:?}", tuned.before, tuned.after);
    let bench = self::bench("digits_lstm");
    let plan = bench.plan("int4-weights", "");
    let tuned = bench.train(&plan, &short(10), false).expect("trained");
    assert!(tuned.untrained.iter().any(|layer| layer.why.contains("no backward")), "{:?}", tuned.untrained);
    assert!(!tuned.trained.is_empty() && tuned.after.loss <= tuned.before.loss);
}
