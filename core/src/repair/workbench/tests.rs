//! Previews of one layer against the export of the same integers, run on the same samples.

use std::path::Path;

use super::*;
use crate::calibrate::{CalibrateOptions, calibrate};
use crate::data::{DataOptions, DataSet};
use crate::model::Model;
use crate::plan::preset;
use crate::predict::{Reference, single_layer_plan};
use crate::repair::RepairOptions;
use crate::runtime::Runtime;
use crate::stats::Stats;

#[test]
fn what_it_says_of_the_output_is_what_an_export_of_the_layer_alone_does() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sample-models");
    let control = Control::new();
    let model = Model::load(&folder.join("digits_cnn.onnx"), &control).expect("loads");
    let spec = folder.join("digits_cnn.calib.npz").display().to_string();
    let data = DataSet::open(&spec, &model.inputs, &DataOptions::default()).expect("opens");
    let runtime = Runtime::start(None, &control).expect("ONNX Runtime");
    let plan = model.preset_plan(preset("int4-weights").expect("preset")).expect("plan");
    let indices: Vec<usize> = (0..40).collect();
    let mut stats = Stats::new(model.identity.as_str(), 0);
    calibrate(&model, runtime, &data, &indices[..4], &CalibrateOptions::default(), &mut stats, &control)
        .expect("calibrated");
    let (split, options) = (Split::of(&indices), RepairOptions::default());
    let job =
        Job { model: &model, runtime, stats: Some(&stats), plan: &plan, data: &data, split: &split, options: &options };
    let mut bench = Workbench::open(&job, &control).expect("opens");
    for (index, layer) in model.layers.iter().enumerate() {
        let method = Method::One(Rounding::Gptq);
        let done = bench.repair(&job, index, method, &control).expect("repairs").expect("a repair");
        let choice = job.choice(layer).expect("integers");
        let mut alone = single_layer_plan(&model, layer, &choice);
        let judges = &split.held_back[..done.run_on];
        let reference = Reference::new(&model, runtime, &data, judges, "logits", 1, &control).expect("runs");
        let (before, after, _) = done.whole.expect("the whole model");
        let nearest = reference.measure(&alone, None, &control).expect("runs");
        done.layer.put(&mut alone);
        let repaired = reference.measure(&alone, None, &control).expect("runs");
        for (said, is) in [(before, nearest), (after, repaired)] {
            let (said, is) = (said.db().expect("dB"), is.db().expect("dB"));
            // The kernel for 4-bit matrices rounds its inputs too.
            let limit = if layer.op == "Gemm" { 0.5 } else { 0.05 };
            assert!((said - is).abs() < limit, "{}: {said} for {is}", layer.name);
        }
        let held = done.layer.repair.held_back.expect("judged");
        assert!(held.after_db > held.before_db, "{}: {held:?}", layer.name);
        let own = done.own.expect("a gain");
        assert!((own.db - (held.after_db - held.before_db)).abs() < 0.05, "{own:?} {held:?}");
    }
    assert!(bench.fits(&job) && bench.bytes() > 0 && bench.bytes() < 8 << 20, "{}", bench.bytes());
    let others = Split::of(&indices[..20]);
    assert!(!bench.fits(&Job { split: &others, ..job }));
    let refit = bench.repair(&job, 1, Method::One(Rounding::Refit), &control).expect("no failure");
    assert!(refit.is_none(), "it goes through the whole model");
    // Interval and figures of the layer itself do not depend on the model around it: one without data is judged too.
    let hqq = bench.repair(&job, 2, Method::One(Rounding::Hqq), &control).expect("repairs").expect("a repair");
    assert!(hqq.layer.repair.data_free && hqq.own.is_some() && hqq.learnt_from == 0);
}
