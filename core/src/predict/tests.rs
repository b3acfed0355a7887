//! What running plans and single roundings teaches, on the bundled networks.

use std::path::Path;

use super::rounded::with_rounding;
use super::{
    GatherOptions, LearnOptions, Predictor, Reference, Sensitivity, gather, learn, predict, single_layer_plan,
};
use crate::Control;
use crate::calibrate::{CalibrateOptions, calibrate};
use crate::data::{DataOptions, DataSet, Sample};
use crate::error::OutputError;
use crate::export::{Pick, pick, roundings};
use crate::model::Model;
use crate::plan::{Plan, Rounding, Set, preset};
use crate::repair::{Job, RepairOptions, Split, repair_missing};
use crate::runtime::{Runtime, Session, SessionOptions, Source};
use crate::stats::Stats;
use crate::tensor::{Tensor, Values};

struct Case {
    model: Model,
    runtime: &'static Runtime,
    data: DataSet,
    samples: Vec<usize>,
    stats: Stats,
    control: Control,
}

impl Case {
    fn of(name: &str) -> Self {
        Self::on(name, 16)
    }

    /// The case with so many samples.
    fn on(name: &str, samples: usize) -> Self {
        let file = |end: &str| format!("{}/../sample-models/{name}.{end}", env!("CARGO_MANIFEST_DIR"));
        let control = Control::new();
        let model = Model::load(Path::new(&file("onnx")), &control).expect("model");
        let data = DataSet::open(&file("calib.npz"), &model.inputs, &DataOptions::default()).expect("data");
        let runtime = Runtime::start(None, &control).expect("runtime");
        let mut stats = Stats::new(model.file.sha256.as_str(), 0);
        let samples: Vec<usize> = (0..samples).collect();
        calibrate(&model, runtime, &data, &samples, &CalibrateOptions::default(), &mut stats, &control).expect("stats");
        Self { model, runtime, data, samples, stats, control }
    }

    fn gathered(&self) -> Sensitivity {
        let options = GatherOptions { samples: 16, ..GatherOptions::default() };
        let stats = Some(&self.stats);
        gather(&self.model, self.runtime, &self.data, &self.samples, stats, &options, &self.control).expect("slopes")
    }

    fn reference(&self, output: &str) -> Reference<'_> {
        Reference::new(&self.model, self.runtime, &self.data, &self.samples, output, 1, &self.control).expect("runs")
    }

    fn plan(&self, name: &str) -> Plan {
        self.model.preset_plan(preset(name).expect("preset")).expect("plan")
    }

    fn picks(&self, plan: &Plan) -> Vec<Pick> {
        let layers = self.model.layers.iter();
        layers.map(|layer| pick(&self.model, layer, plan.choice(&layer.name), Some(&self.stats))).collect()
    }
}

#[test]
fn a_rounded_input_is_what_feeding_rounded_values_gives() {
    let case = Case::of("digits_cnn");
    let rounded = roundings(&case.model, &case.picks(&case.plan("int8")), &case.stats);
    let input = case.model.inputs[0].name.as_str();
    let mut of_input =
        rounded.into_iter().find(|rounding| rounding.tensor == input).expect("the first layer reads the input");
    // Pixels lie on the grid of 8 bits: a wider step moves them.
    of_input.params.scale *= 5.37;
    let proto = with_rounding(&case.model, &of_input).expect("8 bits");
    let folder = case.model.file.folder();
    let options = SessionOptions::default();
    let mut patched =
        Session::open(case.runtime, Source::Proto { proto: &proto, folder: Some(folder) }, &options).expect("loads");
    let mut original = Session::open(case.runtime, Source::File(&case.model.file.path), &options).expect("loads");
    let sample = case.data.sample(0).expect("sample");
    let mut fed = sample.feeds[0].1.clone();
    let Values::F32(values) = &mut fed.values else { panic!("floats") };
    of_input.params.fake_slice(values);
    let by_feeding = Sample { feeds: vec![(input.to_owned(), fed)] };
    let run = |session: &mut Session, sample: &Sample| -> Tensor {
        session.run(sample, &case.control).expect("runs").remove(0).value.expect("a tensor")
    };
    let (expected, got) = (run(&mut original, &by_feeding), run(&mut patched, &sample));
    let untouched = run(&mut original, &sample);
    let mut error = OutputError::default();
    error.add(&expected, &got);
    assert!(error.sqnr().db().is_none_or(|db| db > 100.0), "{:?}", error.sqnr());
    let mut moved = OutputError::default();
    moved.add(&untouched, &got);
    assert!(moved.sqnr().db().is_some_and(|db| db < 90.0), "rounding changes something: {:?}", moved.sqnr());
}

#[test]
fn slopes_that_are_wrong_are_found_and_put_right() {
    let case = Case::of("digits_cnn");
    let mut known = case.gathered();
    let weights = case.plan("int8-weights");
    let picks = known.picks(&case.model, &weights, Some(&case.stats));
    let noises = |known: &Sensitivity| -> Vec<f64> {
        let parts = known.parts(&case.model, &picks, Some(&case.stats));
        parts.sources.iter().map(|source| source.noise.total).collect()
    };
    let before = noises(&known);
    let wrong = case.model.layers.iter().find(|layer| layer.quantizable()).expect("a layer");
    known.scale_weights(wrong, 300.0);
    let reference = case.reference(&known.output);
    known.check(&case.model, &reference, Some(&case.stats), &case.control).expect("runs");
    known.measure_one_by_one(&case.model, &reference, Some(&case.stats), &case.control).expect("runs");
    assert!(known.notes.iter().any(|note| note.contains("one by one")), "{:?}", known.notes);
    for (before, after) in before.iter().zip(noises(&known)) {
        assert!((10.0 * (after / before).log10()).abs() < 4.0, "{before} {after}");
    }
    let prediction = predict(&known, &case.model, Some(&case.stats), &weights);
    let measured = reference.measure(&weights, Some(&case.stats), &case.control).expect("runs").db().expect("noise");
    assert!((prediction.sqnr_db.db().expect("known") - measured).abs() < 0.5, "{prediction:?} {measured}");
}

#[test]
fn slopes_say_nothing_of_repaired_weights() {
    let case = Case::of("digits_cnn");
    let stats = Some(&case.stats);
    let plan = case.plan("int4-weights");
    let mut asked = plan.clone();
    let names: Vec<&str> = case.model.layers.iter().map(|layer| layer.name.as_str()).collect();
    asked.set_layers(names, &Set { rounding: Some(Rounding::Gptq), ..Set::default() });
    let job = Job {
        model: &case.model,
        runtime: case.runtime,
        stats,
        plan: &asked,
        data: &case.data,
        split: &Split::of(&case.samples),
        options: &RepairOptions::default(),
    };
    let (repaired, layers) = repair_missing(&job, &case.control).expect("repairs");
    assert!(!layers.is_empty());
    let known =
        learn(&case.model, case.runtime, &case.data, &case.samples, stats, &LearnOptions::default(), &case.control);
    let known = known.expect("learnt");
    assert!(!predict(&known, &case.model, stats, &repaired).unknown.is_empty());
    let forecast = |plan: &Plan| {
        let (model, data) = (&case.model, &case.data);
        let run = super::Forecast::run(model, case.runtime, data, &case.samples, plan, stats, 64, 1, &case.control);
        run.expect("runs").expect("number")
    };
    let (nearest, repaired) = (forecast(&plan), forecast(&repaired));
    assert!(repaired.sqnr_db > nearest.sqnr_db + 1.0, "the repair helps: {repaired:?} {nearest:?}");
    assert!(repaired.low_db < repaired.sqnr_db && repaired.sqnr_db < repaired.high_db);
}

/// A run of a repaired plan says what it gave, and edits go on from there: another layer's weights add up, and a layer
/// rounded to nearest again is known too.
#[test]
fn a_run_of_a_repaired_plan_anchors_what_follows() {
    let case = Case::of("digits_cnn");
    let stats = Some(&case.stats);
    let mut asked = case.plan("int4-static");
    let names: Vec<&str> = case.model.layers.iter().map(|layer| layer.name.as_str()).collect();
    asked.set_layers(names.iter().copied().skip(1), &Set { rounding: Some(Rounding::Gptq), ..Set::default() });
    let job = Job {
        model: &case.model,
        runtime: case.runtime,
        stats,
        plan: &asked,
        data: &case.data,
        split: &Split::of(&case.samples),
        options: &RepairOptions::default(),
    };
    let (repaired, _) = repair_missing(&job, &case.control).expect("repairs");
    let reference = case.reference(&case.gathered().output);
    let measured = |plan: &Plan| reference.measure(plan, stats, &case.control).expect("runs").db().expect("noise");
    let mut known = case.gathered();
    known.check(&case.model, &reference, stats, &case.control).expect("runs");
    let mut predictor = Predictor::new(&case.model, known);
    let mut predicted = |plan: &Plan, anchored: Option<f64>| {
        if let Some(db) = anchored {
            predictor.anchor(&case.model, stats, plan, db);
        }
        for layer in &case.model.layers {
            let honoured = pick(&case.model, layer, plan.choice(&layer.name), stats).choice;
            predictor.cover(&case.model, layer, &[honoured]);
        }
        let outlook = predictor.predict(&case.model, stats, plan, usize::MAX);
        outlook.prediction.sqnr_db.db().filter(|_| outlook.prediction.unknown.is_empty())
    };
    assert_eq!(predicted(&repaired, None), None, "nothing is known of repairs");
    let at = measured(&repaired);
    let anchored = predicted(&repaired, Some(at)).expect("known");
    assert!((anchored - at).abs() < 0.05, "{anchored} {at}");

    let mut exact = repaired.clone();
    exact.set_layers([names[0]], &Set { precision: Some(crate::plan::Precision::Float32), ..Set::default() });
    let (more, run) = (predicted(&exact, None).expect("known"), measured(&exact));
    assert!(more > anchored && (more - run).abs() < 1.5, "{anchored} → {more}, {run} measured");

    let mut nearest = repaired.clone();
    nearest.set_layers(names.iter().copied(), &Set { rounding: Some(Rounding::Nearest), ..Set::default() });
    let mut half = repaired.clone();
    half.set_layers(names.iter().copied().take(4), &Set { rounding: Some(Rounding::Nearest), ..Set::default() });
    let (half, none) = (predicted(&half, None).expect("known"), predicted(&nearest, None).expect("known"));
    assert!(none < half && half < anchored, "{none} < {half} < {anchored}");
}

/// Divergences of single layers, to second order, against those that the runtime gives.
#[test]
fn the_divergence_of_single_layers_is_predicted() {
    // A divergence comes from the few samples that lie between classes, so that it takes many of them.
    let case = Case::on("digits_cnn", 128);
    let stats = Some(&case.stats);
    let options = GatherOptions { samples: 128, divergence: true, ..GatherOptions::default() };
    let (model, data) = (&case.model, &case.data);
    let mut known = gather(model, case.runtime, data, &case.samples, stats, &options, &case.control).expect("slopes");
    assert!(case.gathered().divergence.is_none(), "only where it is asked for");
    let reference = case.reference(&known.output);
    let mut ratios = Vec::new();
    for name in ["int8-weights", "int4-weights", "int8"] {
        let plan = case.plan(name);
        for layer in model.layers.iter().filter(|layer| layer.quantizable()) {
            let single = single_layer_plan(model, layer, &plan.choice(&layer.name));
            let picks = known.picks(model, &single, stats);
            let diverging = known.divergence.as_deref().expect("classes");
            let parts = diverging.parts(model, &picks, stats);
            let measured = reference.outcome(&single, stats, &case.control).expect("runs").kl.expect("classes");
            assert!(parts.unknown.is_empty());
            if parts.total(None) > 0.0 {
                ratios.push(10.0 * (parts.total(None) / measured).log10());
            }
        }
    }
    let mean = ratios.iter().sum::<f64>() / ratios.len() as f64;
    let spread = (ratios.iter().map(|ratio| (ratio - mean).powi(2)).sum::<f64>() / ratios.len() as f64).sqrt();
    assert!(ratios.len() >= 15 && mean.abs() < 1.5 && spread < 3.5, "{mean} ± {spread} dB of {ratios:?}");
}
