//! Scalings: the function stays, and rounding it costs less.

use nibble_core::calibrate::{CalibrateOptions, calibrate};
use nibble_core::data::{DataOptions, DataSet};
use nibble_core::error::{CompareOptions, Quality, compare};
use nibble_core::export::{VerifyOptions, export, stored_plan, verify_and_write};
use nibble_core::model::Model;
use nibble_core::onnx::{OnnxFile, build, save};
use nibble_core::plan::{Plan, preset};
use nibble_core::repair::{ScaleOptions, Scaled, Scaling, ScalingMethod, scale};
use nibble_core::runtime::Source;
use nibble_core::stats::Stats;
use nibble_core::{Control, Error};
use tempfile::TempDir;

use crate::harness::{Net, runtime};

const SAMPLES: usize = 16;

struct Opened {
    model: Model,
    data: DataSet,
    folder: TempDir,
}

fn open(net: &Net) -> Opened {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("model.onnx");
    save(&net.proto(), None, &path).expect("saved");
    let model = Model::load(&path, &Control::new()).expect("loads");
    let data = DataSet::open(&format!("random:{SAMPLES}"), &model.inputs, &DataOptions::default()).expect("data");
    Opened { model, data, folder }
}

impl Opened {
    fn stats(&self, model: &Model) -> Stats {
        let mut stats = Stats::new(model.identity.as_str(), 0);
        let indices: Vec<usize> = (0..SAMPLES).collect();
        let options = CalibrateOptions::default();
        calibrate(model, runtime(), &self.data, &indices, &options, &mut stats, &Control::new()).expect("calibrates");
        stats
    }

    /// Factors from 1/8 to 8, all different.
    fn plan(&self, preset_name: &str, tensor: &str, channels: usize, folded: bool) -> Plan {
        let mut plan = self.model.preset_plan(preset(preset_name).expect("preset")).expect("plan");
        let factor = |k: usize| 2.0_f32.powf((k * 7 % 13) as f32 / 2.0 - 3.0);
        plan.scalings.push(Scaling {
            tensor: tensor.to_owned(),
            factors: (0..channels).map(factor).collect(),
            folded_into: folded.then(|| "x".to_owned()),
            method: ScalingMethod::Smoothquant,
            alpha: None,
        });
        plan
    }

    /// The scaled graph against the file, in dB.
    fn difference(&self, scaled: &Model) -> f64 {
        let prepared = Source::Proto { proto: &scaled.graph, folder: Some(scaled.file.folder()) };
        let indices: Vec<usize> = (0..SAMPLES).collect();
        let original = Source::File(&self.model.file.path);
        let options = CompareOptions::default();
        let quality = compare(runtime(), original, prepared, &self.data, &indices, None, &options, &Control::new());
        let quality = quality.expect("the scaled graph runs");
        quality.outputs.iter().map(|output| output.sqnr_db.db().unwrap_or(f64::INFINITY)).fold(f64::INFINITY, f64::min)
    }

    fn quality(&self, plan: &Plan) -> Quality {
        let scaled = self.model.scaled(plan).expect("scales");
        let stats = self.stats(&scaled);
        let export = export(&self.model, Some(&stats), plan, &Control::new()).expect("exports");
        let indices: Vec<usize> = (0..SAMPLES).collect();
        let compare = CompareOptions::default();
        let options = VerifyOptions { data: &self.data, indices: &indices, labels: None, compare: &compare };
        let path = self.folder.path().join("quantized.onnx");
        verify_and_write(runtime(), &scaled, export, &path, options, &Control::new()).expect("runs").quality
    }
}

/// The function stays to 100 dB, weights and graph do not, and the export runs.
#[track_caller]
fn keeps_the_function(net: &Net, tensor: &str, channels: usize, folded: bool) -> Model {
    let opened = open(net);
    let plan = opened.plan("int8", tensor, channels, folded);
    let scaled = opened.model.scaled(&plan).expect("scales").into_owned();
    let db = opened.difference(&scaled);
    assert!(db >= 100.0, "{db} dB");
    assert_ne!(scaled.identity, opened.model.identity);
    let nodes = |model: &Model| model.graph.graph.as_ref().map_or(0, |graph| graph.node.len());
    assert_eq!(nodes(&scaled), nodes(&opened.model) + usize::from(!folded));
    let names = |model: &Model| model.layers.iter().map(|layer| layer.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&scaled), names(&opened.model));
    // The layers are where they say, with their own inputs.
    for layer in &scaled.layers {
        let node = scaled.graph.graph.as_ref().and_then(|graph| graph.node.get(layer.path.node)).expect("node");
        assert_eq!((node.op_type(), node.input.first()), (layer.op.as_str(), Some(&layer.input)));
        assert!(scaled.weight(layer, layer.weight().expect("weight")).is_ok());
    }
    let changed = scaled.layers.iter().zip(&opened.model.layers).filter(|(a, b)| {
        let values =
            |model: &Model, layer| model.weight(layer, layer.weight().expect("weight")).expect("values").into_owned();
        values(&scaled, a) != values(&opened.model, b)
    });
    assert!(changed.count() > 0);
    assert!(opened.quality(&plan).sqnr_db.db().is_some_and(|db| db > 5.0));
    scaled
}

#[track_caller]
fn cannot_be_folded(net: &Net, tensor: &str, channels: usize) {
    let opened = open(net);
    let plan = opened.plan("int8", tensor, channels, true);
    assert!(matches!(opened.model.scaled(&plan), Err(Error::Plan(_))));
}

fn normalised(opset: i64) -> Net {
    Net::new(opset)
        .input("x", &[1, 5, 16])
        .weight("g", &[16])
        .weight("b", &[16])
        .op("LayerNormalization", &["x", "g", "b"], "n", Vec::new())
        .weight("wq", &[16, 8])
        .op("MatMul", &["n", "wq"], "q", Vec::new())
        .output("q")
}

#[test]
fn siblings_share_factors_that_go_into_their_layer_normalization() {
    let net = normalised(17).weight("wk", &[16, 8]).op("MatMul", &["n", "wk"], "k", Vec::new()).output("k");
    keeps_the_function(&net, "n", 16, true);
}

#[test]
fn a_residual_reader_takes_the_mul_for_the_layers_alone() {
    let net = normalised(17).op("Tanh", &["n"], "t", Vec::new()).output("t");
    cannot_be_folded(&net, "n", 16);
    let scaled = keeps_the_function(&net, "n", 16, false);
    assert_eq!(scaled.layers[0].input, "n_scaled");
}

/// Before operator set 17 a normalization is nine operators; its last Mul and Add are constants.
#[test]
fn a_normalization_in_pieces_is_folded_into_as_well() {
    let net = Net::new(13)
        .input("x", &[1, 5, 16])
        .op("ReduceMean", &["x"], "m", vec![build::attr_ints("axes", &[-1])])
        .op("Sub", &["x", "m"], "d", Vec::new())
        .op("Mul", &["d", "d"], "dd", Vec::new())
        .op("ReduceMean", &["dd"], "v", vec![build::attr_ints("axes", &[-1])])
        .floats("eps", &[], &[1e-5])
        .op("Add", &["v", "eps"], "ve", Vec::new())
        .op("Sqrt", &["ve"], "s", Vec::new())
        .op("Div", &["d", "s"], "u", Vec::new())
        .weight("g", &[16])
        .weight("b", &[16])
        .op("Mul", &["u", "g"], "ug", Vec::new())
        .op("Add", &["ug", "b"], "n", Vec::new())
        .weight("w", &[8, 16])
        .floats("two", &[], &[2.0])
        .op("Mul", &["n", "two"], "n2", Vec::new())
        .op("Reshape", &["n2", "rows"], "r", Vec::new())
        .ints("rows", &[5, 16])
        .op("Gemm", &["r", "w"], "y", vec![build::attr_int("transB", 1)])
        .weight("w2", &[16, 8])
        .op("MatMul", &["n", "w2"], "z", Vec::new())
        .output("y")
        .output("z");
    // A Reshape stands between it and one of its readers.
    cannot_be_folded(&net, "n", 16);
    keeps_the_function(&net, "n", 16, false);
    let mut alone = net;
    alone.graph.node.retain(|node| !["n2", "r", "y"].contains(&node.output[0].as_str()));
    alone.graph.output.retain(|output| output.name() == "z");
    keeps_the_function(&alone, "n", 16, true);
}

#[test]
fn convolutions_scale_through_what_is_homogeneous() {
    let net = Net::new(13)
        .input("x", &[1, 3, 8, 8])
        .conv("x", "a", [3, 8], 1)
        .op("Relu", &["a"], "ra", Vec::new())
        .conv("ra", "b", [8, 8], 8)
        .op("LeakyRelu", &["b"], "rb", Vec::new())
        .op("AveragePool", &["rb"], "p", vec![build::attr_ints("kernel_shape", &[2, 2])])
        .conv("p", "c", [8, 12], 4)
        .output("c");
    keeps_the_function(&net, "ra", 8, true);
    keeps_the_function(&net, "p", 8, true);
}

#[test]
fn residual_sums_are_divided_as_one() {
    let net = Net::new(13)
        .input("x", &[1, 3, 8, 8])
        .conv("x", "a", [3, 8], 1)
        .conv("a", "b", [8, 8], 1)
        .op("Relu", &["b"], "rb", Vec::new())
        .conv("rb", "c", [8, 8], 1)
        .op("Add", &["a", "c"], "s", Vec::new())
        .weight("shift", &[8, 1, 1])
        .op("Add", &["s", "shift"], "t", Vec::new())
        .conv("t", "y", [8, 4], 1)
        .output("y");
    keeps_the_function(&net, "a", 8, true);
    keeps_the_function(&net, "t", 8, true);
}

#[test]
fn an_upper_bound_is_in_the_way() {
    let net = Net::new(13)
        .input("x", &[1, 3, 8, 8])
        .conv("x", "a", [3, 8], 1)
        .floats("lo", &[], &[0.0])
        .floats("hi", &[], &[6.0])
        .op("Clip", &["a", "lo", "hi"], "ra", Vec::new())
        .conv("ra", "b", [8, 4], 1)
        .output("b");
    cannot_be_folded(&net, "ra", 8);
}

#[test]
fn what_others_share_stays_theirs() {
    // One weight for two products, one bias of a single value, and an output that is read as it is.
    let net = Net::new(17)
        .input("x", &[4, 16])
        .weight("w", &[16, 16])
        .floats("b", &[1], &[0.25])
        .op("MatMul", &["x", "w"], "a", Vec::new())
        .op("Add", &["a", "b"], "ab", Vec::new())
        .op("Relu", &["ab"], "r", Vec::new())
        .op("MatMul", &["r", "w"], "y", Vec::new())
        .op("Add", &["x", "b"], "z", Vec::new())
        .output("y")
        .output("z");
    keeps_the_function(&net, "r", 16, true);
    let transposed = Net::new(17)
        .input("x", &[4, 16])
        .weight("u", &[12, 16])
        .floats("c", &[1], &[0.5])
        .op("Gemm", &["x", "u", "c"], "a", vec![build::attr_int("transB", 1), build::attr_float("beta", 0.5)])
        .op("Relu", &["a"], "r", Vec::new())
        .weight("v", &[12, 6])
        .op("Gemm", &["r", "v"], "y", Vec::new())
        .output("y");
    keeps_the_function(&transposed, "r", 12, true);
}

/// One channel is fifty times the others, and its weights are small: what SmoothQuant is for.
fn outliers() -> Net {
    let gains: Vec<f32> = (0..64).map(|k| if k == 5 { 50.0 } else { 1.0 }).collect();
    let net = Net::new(17)
        .input("x", &[1, 24, 64])
        .floats("g", &[64], &gains)
        .op("LayerNormalization", &["x", "g"], "n", Vec::new())
        .weight("w", &[64, 48]);
    let mut net = net.op("MatMul", &["n", "w"], "y", Vec::new()).output("y");
    let weights = net.values(&[64, 48]);
    let weights: Vec<f32> = weights.iter().enumerate().map(|(i, w)| if i / 48 == 5 { w / 50.0 } else { *w }).collect();
    net.graph.initializer.retain(|tensor| tensor.name() != "w");
    net.floats("w", &[64, 48], &weights)
}

fn searched(opened: &Opened, stats: Option<&Stats>, plan: &Plan, method: ScalingMethod) -> Scaled {
    let options = ScaleOptions { method, wanted: &|_| true, least_db: None };
    scale(&opened.model, stats, plan, &options, &Control::new()).expect("searches")
}

fn found(opened: &Opened, plan: &Plan, method: ScalingMethod) -> Scaled {
    let stats = opened.stats(&opened.model);
    searched(opened, Some(&stats), plan, method)
}

#[test]
fn smoothing_gains_what_it_says() {
    let opened = open(&outliers());
    let mut plan = opened.model.preset_plan(preset("int8").expect("preset")).expect("plan");
    plan.push_rule(nibble_core::plan::Rule {
        pattern: "*".parse().expect("glob"),
        set: "activation_clip=minmax".parse().expect("set"),
    });
    let before = opened.quality(&plan).sqnr_db.db().expect("dB");
    let scaled = found(&opened, &plan, ScalingMethod::Smoothquant);
    let [block] = scaled.blocks.as_slice() else { panic!("{:?}", scaled.blocks) };
    assert_eq!((block.kept, block.folded_into.as_deref()), (true, Some("n")));
    plan.adopt(&scaled);
    let after = opened.quality(&plan).sqnr_db.db().expect("dB");
    let promised = block.after_db.expect("dB") - block.before_db.expect("dB");
    assert!(after - before > 10.0, "{before} → {after}");
    assert!((after - before - promised).abs() < 1.0, "{before} → {after}, promised {promised}");
    // Nothing is left to gain.
    let stats = opened.stats(&opened.model.scaled(&plan).expect("scales"));
    assert_eq!(searched(&opened, Some(&stats), &plan, ScalingMethod::Smoothquant).scalings, []);
}

#[test]
fn statistics_of_the_unscaled_model_are_refused() {
    let opened = open(&outliers());
    let mut plan = opened.model.preset_plan(preset("int8").expect("preset")).expect("plan");
    let stats = opened.stats(&opened.model);
    plan.adopt(&found(&opened, &plan, ScalingMethod::Smoothquant));
    assert!(export(&opened.model, Some(&stats), &plan, &Control::new()).is_err());
    let path = opened.folder.path().join("plan.json");
    plan.save(&path).expect("saved");
    let loaded = Plan::load(&path).expect("loads");
    assert!(opened.quality(&loaded).sqnr_db.db().is_some());
    let exported = OnnxFile::load(opened.folder.path().join("quantized.onnx"), &Control::new()).expect("loads");
    let restored = stored_plan(&exported.proto).expect("plan");
    let problems = restored.problems(&["y"]);
    assert!(problems.iter().any(|problem| problem.what.contains("scalings are missing")), "{problems:?}");
    let identity = |plan: &Plan| opened.model.scaled(plan).expect("scales").identity.clone();
    assert_eq!(identity(&loaded), identity(&plan));
}

#[test]
fn weights_alone_are_scaled_by_awq() {
    let opened = open(&outliers());
    let mut plan = opened.model.preset_plan(preset("int4-weights").expect("preset")).expect("plan");
    let before = opened.quality(&plan).sqnr_db.db().expect("dB");
    let scaled = found(&opened, &plan, ScalingMethod::Awq);
    plan.adopt(&scaled);
    let after = opened.quality(&plan).sqnr_db.db().expect("dB");
    assert!(scaled.scalings.len() == 1 && after > before + 0.2, "{before} → {after}: {:?}", scaled.blocks);
}

/// Equalisation needs no data, and mends weights that share one scale.
#[test]
fn equalisation_evens_out_two_convolutions() {
    let mut net = Net::new(13).input("x", &[1, 3, 8, 8]);
    let first: Vec<f32> =
        net.values(&[16, 27]).iter().enumerate().map(|(i, w)| w * 4.0_f32.powi((i / 27 % 8) as i32 - 4)).collect();
    let second: Vec<f32> =
        net.values(&[4, 16]).iter().enumerate().map(|(i, w)| w / 4.0_f32.powi((i % 16 % 8) as i32 - 4)).collect();
    let net = net
        .floats("w1", &[16, 3, 3, 3], &first)
        .op("Conv", &["x", "w1"], "a", vec![build::attr_ints("pads", &[1, 1, 1, 1])])
        .op("Relu", &["a"], "r", Vec::new())
        .floats("w2", &[4, 16, 1, 1], &second)
        .op("Conv", &["r", "w2"], "y", Vec::new())
        .output("y");
    let opened = open(&net);
    let mut plan = opened.model.preset_plan(preset("int8").expect("preset")).expect("plan");
    plan.push_rule(nibble_core::plan::Rule {
        pattern: "*".parse().expect("glob"),
        set: "granularity=per_tensor".parse().expect("set"),
    });
    let before = opened.quality(&plan).sqnr_db.db().expect("dB");
    let blind = searched(&opened, None, &plan, ScalingMethod::Equalisation);
    assert_eq!(blind.blocks.iter().map(|block| (block.kept, block.before_db)).collect::<Vec<_>>(), [(true, None)]);
    plan.adopt(&blind);
    let after = opened.quality(&plan).sqnr_db.db().expect("dB");
    assert!(after > before + 10.0, "{before} → {after}");
}
