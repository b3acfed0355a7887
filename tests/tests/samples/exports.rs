//! Every preset on every sample model: forms, sizes, names and shapes, the same bytes twice, the plan in the file.

use std::collections::BTreeMap;

use nibble_core::Control;
use nibble_core::export::{Form, predicted_size, stored_plan};
use nibble_core::onnx::OnnxFile;
use nibble_core::plan::{PRESETS, Precision};
use nibble_core::runtime::{Session, SessionOptions, Source};
use prost::Message;

use crate::fixture::{MODELS, Sample, runtime};

/// The words for the forms of a model's layers with their numbers, as `qdq 8, float 1`.
fn forms(layers: &[nibble_core::export::LayerOutcome]) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for layer in layers {
        let word = serde_json::to_value(layer.form).expect("word");
        *counts.entry(format!("{} {}", layer.op, word.as_str().unwrap_or_default())).or_default() += 1;
    }
    counts.iter().map(|(form, count)| format!("{count} {form}")).collect::<Vec<_>>().join(", ")
}

/// The forms that each preset gives each model.
const FORMS: &[(&str, &str, &str)] = &[
    ("digits_cnn", "int8", "5 Conv qdq, 1 Gemm qdq"),
    ("digits_cnn", "int8-dynamic", "5 Conv folded_weights, 1 Gemm dynamic_matmul"),
    ("digits_cnn", "int8-weights", "5 Conv folded_weights, 1 Gemm matmul_nbits"),
    ("digits_cnn", "int4-weights", "5 Conv folded_weights, 1 Gemm matmul_nbits"),
    ("digits_cnn", "int4-static", "5 Conv int4_cast_qdq, 1 Gemm int4_cast_qdq"),
    ("digits_cnn", "float16-weights", "5 Conv float16_weights, 1 Gemm float16_weights"),
    ("digits_cnn", "float16", "5 Conv float16, 1 Gemm float16"),
    ("digits_cnn", "tflite-dynamic", "5 Conv folded_weights, 1 Gemm dynamic_matmul"),
    ("digits_cnn", "tflite-float16", "5 Conv float16_weights, 1 Gemm float16_weights"),
    ("digits_cnn", "tflite-int8", "5 Conv qdq, 1 Gemm qdq"),
    ("digits_cnn", "tflite-16x8", "5 Conv int16_activations, 1 Gemm int16_activations"),
    ("digits_cnn", "pytorch-dynamic", "5 Conv float, 1 Gemm dynamic_matmul"),
    ("digits_cnn", "pytorch-static", "5 Conv qdq, 1 Gemm qdq"),
    ("digits_cnn", "pytorch-weight-only", "5 Conv float, 1 Gemm matmul_nbits"),
    ("digits_transformer", "int8", "1 Gemm qdq, 13 MatMul qdq"),
    ("digits_transformer", "int8-dynamic", "1 Gemm dynamic_matmul, 13 MatMul dynamic_matmul"),
    ("digits_transformer", "int8-weights", "1 Gemm matmul_nbits, 13 MatMul matmul_nbits"),
    ("digits_transformer", "int4-weights", "1 Gemm matmul_nbits, 13 MatMul matmul_nbits"),
    ("digits_transformer", "int4-static", "1 Gemm int4_cast_qdq, 13 MatMul int4_cast_qdq"),
    ("digits_transformer", "float16-weights", "1 Gemm float16_weights, 13 MatMul float16_weights"),
    ("digits_transformer", "float16", "1 Gemm float16, 13 MatMul float16"),
    ("digits_transformer", "tflite-dynamic", "1 Gemm dynamic_matmul, 13 MatMul dynamic_matmul"),
    ("digits_transformer", "tflite-float16", "1 Gemm float16_weights, 13 MatMul float16_weights"),
    ("digits_transformer", "tflite-int8", "1 Gemm qdq, 13 MatMul qdq"),
    ("digits_transformer", "tflite-16x8", "1 Gemm int16_activations, 13 MatMul int16_activations"),
    ("digits_transformer", "pytorch-dynamic", "1 Gemm dynamic_matmul, 13 MatMul dynamic_matmul"),
    ("digits_transformer", "pytorch-static", "1 Gemm qdq, 13 MatMul qdq"),
    ("digits_transformer", "pytorch-weight-only", "1 Gemm matmul_nbits, 13 MatMul matmul_nbits"),
    ("digits_lstm", "int8", "1 Gemm qdq, 1 LSTM dynamic_lstm, 1 MatMul qdq"),
    ("digits_lstm", "int8-dynamic", "1 Gemm dynamic_matmul, 1 LSTM dynamic_lstm, 1 MatMul dynamic_matmul"),
    ("digits_lstm", "int8-weights", "1 Gemm matmul_nbits, 1 LSTM folded_weights, 1 MatMul matmul_nbits"),
    ("digits_lstm", "int4-weights", "1 Gemm matmul_nbits, 1 LSTM folded_weights, 1 MatMul matmul_nbits"),
    ("digits_lstm", "int4-static", "1 Gemm int4_cast_qdq, 1 LSTM folded_weights, 1 MatMul int4_cast_qdq"),
    ("digits_lstm", "float16-weights", "1 Gemm float16_weights, 1 LSTM float16_weights, 1 MatMul float16_weights"),
    ("digits_lstm", "float16", "1 Gemm float16, 1 LSTM float16, 1 MatMul float16"),
    ("digits_lstm", "tflite-dynamic", "1 Gemm dynamic_matmul, 1 LSTM dynamic_lstm, 1 MatMul dynamic_matmul"),
    ("digits_lstm", "tflite-float16", "1 Gemm float16_weights, 1 LSTM float16_weights, 1 MatMul float16_weights"),
    ("digits_lstm", "tflite-int8", "1 Gemm qdq, 1 LSTM dynamic_lstm, 1 MatMul qdq"),
    ("digits_lstm", "tflite-16x8", "1 Gemm int16_activations, 1 LSTM int16_activations, 1 MatMul int16_activations"),
    ("digits_lstm", "pytorch-dynamic", "1 Gemm dynamic_matmul, 1 LSTM dynamic_lstm, 1 MatMul dynamic_matmul"),
    ("digits_lstm", "pytorch-static", "1 Gemm qdq, 1 LSTM dynamic_lstm, 1 MatMul qdq"),
    ("digits_lstm", "pytorch-weight-only", "1 Gemm matmul_nbits, 1 LSTM float, 1 MatMul matmul_nbits"),
];

#[test]
fn every_preset_on_every_model() {
    let folder = tempfile::tempdir().expect("folder");
    let mut table = String::new();
    let mut wrong = Vec::new();
    for name in MODELS {
        let sample = Sample::open(name);
        for preset in PRESETS {
            let label = format!("{name} {}", preset.name);
            let plan = sample.plan(preset.name, &[]);
            let path = folder.path().join(format!("{name}.{}.onnx", preset.name));
            let verified = sample.write(&plan, &path, 24);
            let found = forms(&verified.layers);
            table += &format!("    (\"{name}\", \"{}\", \"{found}\"),\n", preset.name);
            if !FORMS.contains(&(name, preset.name, &found)) {
                wrong.push(format!("{label}: {found}"));
            }

            let size = std::fs::metadata(&path).expect("written").len();
            assert_eq!(size, verified.size_bytes.quantized, "{label}");
            let predicted = predicted_size(&sample.model, &plan);
            let off = (predicted as f64 / size as f64 - 1.0) * 100.0;
            println!(
                "{label}: {size} bytes ({:.2}), predicted {off:+.1} %, {}",
                size as f64 / verified.size_bytes.original as f64,
                verified.quality.sqnr_db
            );
            if off.abs() > 10.0 {
                wrong.push(format!("{label}: {predicted} bytes predicted, {size} written"));
            }

            // Weights: at least 95 % of those that can be quantized are in the chosen precision.
            let (mut chosen, mut all) = (0, 0);
            for (outcome, layer) in verified.layers.iter().zip(&sample.model.layers) {
                // Presets after other tools leave in floating point what those tools leave.
                if layer.quantizable() && plan.choice(&layer.name).precision != Precision::Float32 {
                    all += outcome.bytes_before;
                    let as_chosen =
                        outcome.form != Form::Float && outcome.choice.precision == plan.choice(&layer.name).precision;
                    chosen += if as_chosen { outcome.bytes_before } else { 0 };
                }
            }
            assert!(chosen * 100 >= all * 95, "{label}: {chosen} of {all} bytes");

            // The same bytes again, and the plan in them.
            let bytes = std::fs::read(&path).expect("file");
            assert!(sample.export(&plan).proto.encode_to_vec() == bytes, "{label}: two exports differ");
            let file = OnnxFile::load(&path, &Control::new()).expect("opens");
            assert_eq!(stored_plan(&file.proto), Some(plan), "{label}");

            // Names, types and shapes of inputs and outputs are those of the original.
            let options = SessionOptions::default();
            let open = |path| Session::open(runtime(), Source::File(path), &options).expect("opens");
            let (original, quantized) = (open(&sample.model.file.path), open(&path));
            assert_eq!(original.inputs(), quantized.inputs(), "{label}");
            assert_eq!(original.outputs(), quantized.outputs(), "{label}");
            for output in &verified.quality.outputs {
                assert!(output.problem.is_none() && output.non_finite == 0, "{label}: {output:?}");
            }
        }
    }
    assert!(wrong.is_empty(), "{}\nForms now:\n{table}", wrong.join("\n"));
}
