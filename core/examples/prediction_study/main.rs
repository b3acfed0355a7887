//! Tries predictions against the truth: models really quantized, exported and run in ONNX Runtime.
//!
//! `cargo run --release -p nibble-core --example prediction_study -- [MODEL CALIBRATION EVALUATION]…`
//!
//! Each model comes with its calibration and its evaluation data; without arguments the two sample models are taken. Writes
//! `assets/docs/prediction-study.md` and prints each row as it is known.

mod case;
mod document;
mod mixed;
mod ranks;
mod single;

use std::error::Error;
use std::path::Path;

use nibble_core::runtime::Runtime;
use nibble_core::{Control, calibrate};

use case::Case;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.is_empty() {
        for name in ["digits_cnn", "digits_transformer"] {
            let file = |end: &str| format!("{}/../sample-models/{name}.{end}", env!("CARGO_MANIFEST_DIR"));
            arguments.extend(["onnx", "calib.npz", "eval.npz"].map(file));
        }
    }
    if !arguments.len().is_multiple_of(3) {
        return Err("give MODEL CALIBRATION EVALUATION for each model".into());
    }
    let control = Control::new();
    let runtime = Runtime::start(None, &control)?;
    let mut rows = Vec::new();
    for names in arguments.chunks(3) {
        let [model, calibration, evaluation] = names else { continue };
        let files = case::Files::open(Path::new(model), calibration, evaluation, &control)?;
        let mut stats = nibble_core::stats::Stats::new(files.model.file.sha256.as_str(), 0);
        let options = calibrate::CalibrateOptions { threads: 1 };
        let indices = files.calibration();
        calibrate::calibrate(&files.model, runtime, &files.data, &indices, &options, &mut stats, &control)?;
        let mut case = Case::learn(&files, runtime, &stats, &control)?;
        rows.extend(single::study(&case)?);
        rows.extend(mixed::study(&mut case)?);
        document::write(&rows)?;
    }
    Ok(())
}
