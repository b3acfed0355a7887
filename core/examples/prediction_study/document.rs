//! The document that the study writes.

use std::error::Error;
use std::path::Path;

use super::ranks::Row;

const ABOUT: &str = "# Predictions against the truth

Written by `cargo run --release -p nibble-core --example prediction_study -- [MODEL CALIBRATION EVALUATION]…`; without
arguments it takes the two sample models.

The truth is the SQNR of the model's output when the plan is exported and run in ONNX Runtime, on 16 to 128 evaluation
samples (the more the smaller the model) that nothing else has seen. What is predicted was learnt from at most 64 calibration samples, as the command `auto`
learns it. *Bias* is the mean of predicted − measured, *rmse* the root of the mean square of it, both in dB with
nothing taken out.

- **One layer**: a single layer quantized, all others left alone; 48 pairs of a layer and a candidate for each width, evenly
  spread over both. The prediction is the sum of noise powers, with no offset.
- **Mixed**: every layer at random among its candidates of 4 or of 8 bits, all files within 5 % of the same size. *The first
  plans* are 8 that are predicted after uniform plans have been run on calibration samples; they teach the offset. *After
  these* are 40 more. Each prediction was written down before its plan was run. The interval is the one that is shown
  with a prediction.
- **What can be known at all**: the same 40 plans run on calibration samples (no prediction from these samples can be much better), and what the
  even evaluation samples say of the odd ones: where the halves disagree, the truth itself is uncertain by that much.

| model | what | pairs or plans | Spearman | bias, dB | rmse, dB | within ±1 dB | inside the interval |
|---|---|---|---|---|---|---|---|
";

/// Writes all rows known so far.
pub fn write(rows: &[Row]) -> Result<(), Box<dyn Error>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/docs/prediction-study.md");
    let lines: String = rows.iter().map(|row| row.line() + "\n").collect();
    Ok(std::fs::write(path, format!("{ABOUT}{lines}"))?)
}
