//! The effects that `sample-models/README.md` promises, measured by Nibble on all evaluation samples.

use crate::fixture::{MODELS, Sample, folder, runtime};
use nibble_core::Control;
use nibble_core::error::{CompareOptions, compare};
use nibble_core::runtime::Source;

/// Asserts that `better` beats `worse` (SQNR in dB, accuracy in percent) by 3 dB or 2 points.
#[track_caller]
fn rescues(what: &str, worse: (f64, f64), better: (f64, f64)) {
    println!("{what}: {:.2} dB, {:.2} % → {:.2} dB, {:.2} %", worse.0, worse.1, better.0, better.1);
    assert!(better.0 - worse.0 >= 3.0 || better.1 - worse.1 >= 2.0, "{what}: {worse:?} → {better:?}");
}

#[test]
fn the_originals_are_as_accurate_as_said() {
    let said: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder().join("models.json")).expect("models.json")).expect("JSON");
    for (name, said) in MODELS.iter().zip(said["models"].as_array().expect("models")) {
        assert_eq!(said["file"], format!("{name}.onnx"));
        let sample = Sample::open(name);
        let source = Source::File(&sample.model.file.path);
        let indices: Vec<usize> = (0..sample.data.len()).collect();
        let (options, labels) = (CompareOptions::default(), Some(sample.labels.as_slice()));
        let quality = compare(runtime(), source, source, &sample.data, &indices, labels, &options, &Control::new());
        let accuracy = quality.expect("runs").accuracy.expect("labels").original;
        let expected = said["fp32_accuracy"].as_f64().expect("number");
        // Two images either way: processors round differently.
        assert!((accuracy - expected).abs() < 2.0 / 1744.0, "{name}: {accuracy} and not {expected}");
        assert_eq!(said["evaluation_samples"].as_u64(), Some(indices.len() as u64));
        assert_eq!(said["calibration_samples"].as_u64(), Some(sample.stats.samples() as u64));
    }
}

#[test]
fn one_scale_a_channel_rescues_the_convolutional_network() {
    let sample = Sample::open("digits_cnn");
    let per_channel = sample.quality("int8", &[]);
    rescues("per channel", sample.quality("int8", &["granularity=per_tensor"]), per_channel);
    assert!((per_channel.1 - 97.993).abs() <= 0.5, "within half a point of float32: {per_channel:?}");
}

#[test]
fn clipping_rescues_the_transformer() {
    let sample = Sample::open("digits_transformer");
    let minmax = sample.quality("int8", &["activation_clip=minmax"]);
    rescues("percentile", minmax, sample.quality("int8", &["activation_clip=percentile:99.99"]));
    rescues("mse", minmax, sample.quality("int8", &["activation_clip=mse"]));
}

#[test]
fn dynamic_ranges_rescue_the_recurrent_network() {
    let sample = Sample::open("digits_lstm");
    rescues("dynamic", sample.quality("int8", &[]), sample.quality("int8-dynamic", &[]));
}
