//! What statistics cost: `cargo bench -p nibble-core --bench calibration [-- MODEL DATA]…`, without arguments the bundled
//! samples.
//!
//! Three runs of the same samples take turns in one process: the model as people run it, the tapped model with nobody
//! looking, and calibration with histograms of every value; each reads its samples itself. Prints processor time of all threads a sample (wall time where
//! the system does not tell it), the median over rounds, and the ratios.

#[path = "shared/cpu_time.rs"]
mod cpu_time;

use std::path::{Path, PathBuf};

use nibble_core::calibrate::{CalibrateOptions, Calibrator, Taps, session_options};
use nibble_core::data::{DataOptions, DataSet};
use nibble_core::model::Model;
use nibble_core::runtime::{Runtime, Session, SessionOptions, Source, tapped};
use nibble_core::stats::Stats;
use nibble_core::{Control, Error};

use self::cpu_time::seconds;

/// Rounds over the samples.
const ROUNDS: usize = 7;
/// Samples of a round.
const SAMPLES: usize = 32;

fn main() -> Result<(), Error> {
    let given: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    println!(
        "{:20} {:>9} {:>9} {:>9} {:>10} {:>9}",
        "ms a sample", "plain", "tapped", "calibrate", "to tapped", "to plain"
    );
    if given.is_empty() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sample-models");
        for name in ["digits_cnn", "digits_transformer", "digits_lstm"] {
            let data = folder.join(format!("{name}.calib.npz"));
            measure(&folder.join(format!("{name}.onnx")), &data.to_string_lossy())?;
        }
    }
    for pair in given.chunks_exact(2) {
        measure(&PathBuf::from(&pair[0]), &pair[1])?;
    }
    Ok(())
}

fn measure(path: &Path, data: &str) -> Result<(), Error> {
    let control = Control::new();
    let runtime = Runtime::start(None, &control)?;
    let model = Model::load(path, &control)?;
    let set = DataSet::open(data, &model.inputs, &DataOptions::default())?;
    let taps = Taps::of(&model);
    let mut plain = Session::open(runtime, Source::File(path), &SessionOptions::default())?;
    let proto = tapped(&model.graph, &taps.handed_out);
    let options = session_options(&model, &CalibrateOptions::default());
    let source = Source::Proto { proto: &proto, folder: Some(model.file.folder()) };
    let mut silent = Session::open(runtime, source, &options)?;
    let mut calibrator = Calibrator::open(&model, runtime, &CalibrateOptions::default(), &control)?;

    let count = set.len().min(SAMPLES);
    let mut rounds: [Vec<f64>; 3] = Default::default();
    let mut values = 0;
    for round in 0..=ROUNDS {
        let mut stats = Stats::new(model.file.sha256.as_str(), 0);
        let mut spent = [0.0; 3];
        for index in 0..count {
            let start = seconds();
            plain.visit(&set.sample(index)?, &control, &mut |_, _| {})?;
            let plain_end = seconds();
            silent.visit(&set.sample(index)?, &control, &mut |_, _| {})?;
            let silent_end = seconds();
            calibrator.add(&set, index, &mut stats, &control)?;
            let end = seconds();
            for (sum, part) in spent.iter_mut().zip([plain_end - start, silent_end - plain_end, end - silent_end]) {
                *sum += part * 1e3 / count as f64;
            }
        }
        values = stats.tensors.values().map(|tensor| tensor.count).sum::<u64>() / count as u64;
        // The first round warms up.
        if round > 0 {
            rounds.iter_mut().zip(spent).for_each(|(all, spent)| all.push(spent));
        }
    }
    let [plain, silent, full] = rounds.map(|mut all| {
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    });
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    println!(
        "{name:20} {plain:9.3} {silent:9.3} {full:9.3} {:10.2} {:9.2}   {} of {} taps counted, {:.2} million values",
        full / silent,
        full / plain,
        taps.observed.len(),
        taps.names().len(),
        values as f64 / 1e6,
    );
    Ok(())
}
