//! One cell: an operator under a scheme, exported, loaded, run, compared with our own arithmetic, and timed.

use std::error::Error;

use nibble_core::Control;
use nibble_core::bench::time_pair;
use nibble_core::calibrate::{CalibrateOptions, calibrate};
use nibble_core::data::{DataOptions, DataSet, Sample};
use nibble_core::export::{Export, Form, LayerOutcome, export};
use nibble_core::model::Model;
use nibble_core::onnx::{build, save};
use nibble_core::plan::{Plan, Rule, preset};
use nibble_core::quant::{QuantParams, activation_params_bits, clip_range, float16_round_trip, quantize_weight};
use nibble_core::runtime::{Level, Runtime, Session, SessionOptions, Source};
use nibble_core::stats::{Stats, TensorStats};
use nibble_core::tensor::{Tensor, Values};

use crate::operators::Operator;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The schemes: name, preset, what is set besides.
pub const SCHEMES: &[(&str, &str, &str)] = &[
    ("int8 static, a scale a channel", "int8", ""),
    ("int8 static, asymmetric", "int8", "symmetry=asymmetric"),
    ("int8 static, a scale a tensor", "int8", "granularity=per_tensor"),
    ("int8 dynamic", "int8-dynamic", ""),
    ("int8 weights", "int8-weights", ""),
    ("int4 static", "int4-static", ""),
    ("int4 weights, blocks of 32", "int4-weights", ""),
    ("int4 weights, blocks of 128", "int4-weights", "granularity=block:128"),
    ("int2 weights, blocks of 64", "int4-weights", "precision=int2,granularity=block:64"),
    ("int2 static", "int4-static", "precision=int2"),
    ("int8 weights, 16-bit activations", "tflite-16x8", ""),
    ("float16 weights", "float16-weights", ""),
    ("float16 throughout", "float16", ""),
];

/// What came of a cell.
pub struct Cell {
    pub outcome: LayerOutcome,
    /// Largest difference from our own arithmetic: in steps of the output's scale where the output is quantized.
    pub steps: Option<f64>,
    /// Otherwise relative to the largest output.
    pub relative: f64,
}

impl Cell {
    /// The difference as the document has it.
    pub fn difference(&self) -> String {
        match self.steps {
            _ if self.relative == 0.0 => "equal".to_owned(),
            Some(steps) => format!("{steps:.0} LSB"),
            None => format!("{:.0e}", self.relative),
        }
    }
}

/// A model with its export.
struct Exported {
    model: Model,
    stats: Stats,
    export: Export,
    samples: Vec<Sample>,
    _folder: tempfile::TempDir,
}

fn exported(runtime: &Runtime, operator: &Operator, depth: usize, scheme: (&str, &str, &str)) -> Result<Exported> {
    let control = Control::new();
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("model.onnx");
    save(&operator.model(depth), None, &path)?;
    let model = Model::load(&path, &control)?;
    let data = DataSet::open("random:3", &model.inputs, &DataOptions::default())?;
    let indices: Vec<usize> = (0..data.len()).collect();
    let mut stats = Stats::new(model.file.sha256.as_str(), 0);
    calibrate(&model, runtime, &data, &indices, &CalibrateOptions::default(), &mut stats, &control)?;
    let mut plan: Plan = model.preset_plan(preset(scheme.1)?)?;
    if !scheme.2.is_empty() {
        plan.push_rule(Rule { pattern: "*".parse()?, set: scheme.2.parse()? });
    }
    let export = export(&model, Some(&stats), &plan, &control)?;
    let samples = indices.iter().map(|&index| data.sample(index)).collect::<std::result::Result<_, _>>()?;
    Ok(Exported { model, stats, export, samples, _folder: folder })
}

/// Runs one cell; an error says why the file does not load or run.
pub fn cell(runtime: &Runtime, operator: &Operator, scheme: (&str, &str, &str)) -> Result<Cell> {
    let one = exported(runtime, operator, 1, scheme)?;
    let outcome = one.export.layers.first().ok_or("no layer")?.clone();
    let sample = one.samples.first().ok_or("no sample")?;
    let source = Source::Proto { proto: &one.export.proto, folder: None };
    let mut session = Session::open(runtime, source, &SessionOptions::default())?;
    let got = floats(&mut session, sample)?;
    let (expected, step) = reference(runtime, &one, &outcome, sample)?;
    let largest = expected.iter().fold(0.0_f64, |max, &value| max.max(f64::from(value).abs()));
    let off = got.iter().zip(&expected).fold(0.0_f64, |max, (&a, &b)| max.max((f64::from(a) - f64::from(b)).abs()));
    Ok(Cell { outcome, steps: step.map(|step| off / f64::from(step)), relative: off / largest.max(1e-30) })
}

/// Latency of the export over that of the original, three layers in a row where they can be.
pub fn latency_ratio(runtime: &Runtime, operator: &Operator, scheme: (&str, &str, &str)) -> Result<f64> {
    let many = exported(runtime, operator, operator.depth, scheme)?;
    let open = |proto| Session::open(runtime, Source::Proto { proto, folder: None }, &SessionOptions::default());
    let both = || Ok([open(&many.model.file.proto)?, open(&many.export.proto)?]);
    Ok(time_pair(both, &many.samples, 1, 0.25, &Control::new())?.ratio().p50)
}

/// What our own arithmetic gives: weights and activations rounded here, the plain float operator between; and the step
/// of the output where that is quantized.
fn reference(
    runtime: &Runtime,
    one: &Exported,
    outcome: &LayerOutcome,
    sample: &Sample,
) -> Result<(Vec<f32>, Option<f32>)> {
    let layer = one.model.layers.first().ok_or("no layer")?;
    let mut proto = one.model.graph.clone();
    let graph = proto.graph.as_mut().ok_or("no graph")?;
    for weight in &layer.weights {
        let values = one.model.weight(layer, weight)?;
        let rounded = match outcome.form {
            Form::Float => continue,
            Form::Float16 | Form::Float16Weights => float16_round_trip(&values),
            _ => quantize_weight(&values, weight.layout, &outcome.choice).dequantize(),
        };
        let tensor = graph.initializer.iter_mut().find(|t| t.name() == weight.tensor).ok_or("no weight")?;
        *tensor = build::tensor_f32(&weight.tensor, &tensor.dims, &rounded);
    }
    let choice = &outcome.choice;
    let params = |stats: &TensorStats| -> QuantParams {
        let bits = choice.activation.bits();
        let (lo, hi) = clip_range(stats, choice.activation_clip, choice.activation_symmetry, bits);
        activation_params_bits(lo, hi, choice.activation_symmetry, bits)
    };
    let mut sample = sample.clone();
    for (name, tensor) in &mut sample.feeds {
        let Values::F32(values) = &mut tensor.values else { continue };
        match outcome.form {
            Form::Qdq | Form::Int4CastQdq | Form::Int2CastQdq | Form::Int16Activations => {
                params(one.stats.tensors.get(name).ok_or("not observed")?).fake_slice(values);
            }
            Form::DynamicMatmul | Form::DynamicLstm => {
                let (lo, hi) = values.iter().fold((0.0_f32, 0.0_f32), |(lo, hi), &x| (lo.min(x), hi.max(x)));
                activation_params_bits(lo, hi, nibble_core::plan::Symmetry::Asymmetric, 8).fake_slice(values);
            }
            Form::MatmulNbits => {
                let block = match choice.granularity {
                    nibble_core::plan::Granularity::Block(size) => size as usize,
                    _ => 128,
                };
                let depth = layer.weight().map_or(1, |weight| weight.layout.depth());
                for group in values.chunks_mut(depth).flat_map(|row| row.chunks_mut(block)) {
                    let scale = group.iter().fold(0.0_f32, |max, x| max.max(x.abs())) / 127.0;
                    let scale = if scale > 0.0 { scale } else { 1.0 };
                    for x in group {
                        *x = (*x / scale).round_ties_even() * scale;
                    }
                }
            }
            Form::Float16 => *values = float16_round_trip(values),
            _ => {}
        }
    }
    let plain = SessionOptions { level: Level::Disable, ..SessionOptions::default() };
    let mut session = Session::open(runtime, Source::Proto { proto: &proto, folder: None }, &plain)?;
    let mut output = floats(&mut session, &sample)?;
    let is_static = matches!(outcome.form, Form::Qdq | Form::Int4CastQdq | Form::Int2CastQdq);
    if is_static && layer.op == "Conv" {
        let params = params(one.stats.tensors.get(&layer.observed).ok_or("not observed")?);
        params.fake_slice(&mut output);
        return Ok((output, Some(params.scale)));
    }
    if outcome.form == Form::Float16 {
        output = float16_round_trip(&output);
    }
    Ok((output, None))
}

fn floats(session: &mut Session, sample: &Sample) -> Result<Vec<f32>> {
    let output = session.run(sample, &Control::new())?.into_iter().next().and_then(|output| output.value);
    match output {
        Some(Tensor { values: Values::F32(values), .. }) => Ok(values),
        _ => Err("the output is not float32".into()),
    }
}
