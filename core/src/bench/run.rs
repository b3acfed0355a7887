//! The whole benchmark of a pair of model files.

use std::path::Path;

use super::memory::{MemoryProbe, peak_memory_of};
use super::profile::{by_op, profile};
use super::timing::time_pair;
use super::why::why_slower;
use super::{Bench, BenchModel, cpu_features};
use crate::data::DataSet;
use crate::error::{CompareOptions, compare};
use crate::onnx::OnnxFile;
use crate::problem::{Problem, Severity};
use crate::runtime::{Runtime, Session, SessionOptions, Source};
use crate::{Control, Error};

/// Samples that are timed in turn.
const TIMED_SAMPLES: usize = 4;
/// Nodes of each model that the result lists.
const LISTED_NODES: usize = 40;

/// How a pair is measured.
#[derive(Clone, Debug)]
pub struct BenchOptions {
    /// Threads of each session; 0 for all.
    pub threads: usize,
    /// About how long to time.
    pub seconds: f64,
    /// The output of SQNR and agreement; `None`: the first floating one.
    pub output: Option<String>,
    /// Measures peak memory in processes of its own; `None` leaves it out.
    pub memory: Option<MemoryProbe>,
}

impl Default for BenchOptions {
    fn default() -> Self {
        Self { threads: 1, seconds: 6.0, output: None, memory: None }
    }
}

/// Compares and times two models on the samples called `indices`. `labels` has one entry a row of the whole data. What
/// can fail by itself (profile, memory) becomes a problem of `control`, not an error.
#[allow(clippy::too_many_arguments)] // each is a thing of its own, and the call reads in this order
pub fn bench(
    runtime: &Runtime,
    original: &Path,
    quantized: &Path,
    data: &DataSet,
    indices: &[usize],
    labels: Option<&[i64]>,
    options: &BenchOptions,
    control: &Control,
) -> Result<Bench, Error> {
    let (a, b) = (Source::File(original), Source::File(quantized));
    let compared = CompareOptions { threads: options.threads, output: options.output.clone() };
    let quality = compare(runtime, a, b, data, indices, labels, &compared, control)?;
    let sizes = [original, quantized].map(|path| OnnxFile::load(path, control).map(|file| file.size_bytes));

    let session = SessionOptions { threads: options.threads, ..SessionOptions::default() };
    let open = || Ok([Session::open(runtime, a, &session)?, Session::open(runtime, b, &session)?]);
    let samples = indices.iter().take(TIMED_SAMPLES).map(|&index| data.sample(index)).collect::<Result<Vec<_>, _>>()?;
    let timing = time_pair(open, &samples, options.threads, options.seconds, control)?;

    let layers_of = |source, label| {
        let layers = profile(runtime, source, label, &samples, options.threads, control);
        or_problem(layers, "The time by layer is not measured", control).map(Option::unwrap_or_default)
    };
    let before = layers_of(a, "original")?;
    let after = layers_of(b, "quantized")?;

    let cpu_features = cpu_features();
    let latency_ratio = timing.ratio();
    let slower = why_slower(latency_ratio, &before, &after, &cpu_features);
    let mut models = Vec::with_capacity(2);
    for ((path, size), latency_ms) in [original, quantized].into_iter().zip(sizes).zip(timing.latencies()) {
        let peak_memory_bytes = match &options.memory {
            Some(probe) => {
                control.progress("Measuring memory", models.len() as u64, 2);
                let mut args = probe.args.clone();
                args.push(path.into());
                let peak = peak_memory_of(&probe.program, &args, control);
                or_problem(peak, "Peak memory is not measured", control)?.flatten()
            }
            None => None,
        };
        models.push(BenchModel { path: path.to_owned(), size_bytes: size?, latency_ms, peak_memory_bytes });
    }
    let mut layers: Vec<_> = before.iter().take(LISTED_NODES).chain(after.iter().take(LISTED_NODES)).cloned().collect();
    layers.sort_by(|a, b| b.time_ms.total_cmp(&a.time_ms));
    Ok(Bench {
        models,
        latency_ratio,
        agreement: quality.top1_agreement,
        sqnr_db: quality.sqnr_db,
        accuracy: quality.accuracy,
        cpu_features,
        layers,
        ops: by_op(&before, &after),
        nodes: before.into_iter().chain(after).collect(),
        slower,
        clock: timing.clock,
        rounds: timing.original_ms.len(),
        threads: options.threads,
        samples: indices.len(),
        quality,
    })
}

/// Cancelling stops everything; any other failure of a part becomes a problem.
fn or_problem<T>(result: Result<T, Error>, what: &str, control: &Control) -> Result<Option<T>, Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Error::Cancelled) => Err(Error::Cancelled),
        Err(error) => {
            control.problem(Problem::new(Severity::Note, what, error.place(), error.to_string(), error.hint()));
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::DataOptions;
    use crate::error::Sqnr;
    use crate::onnx::build::{node, tensor_f32, value_info_typed};
    use crate::onnx::proto::tensor_proto::DataType;
    use crate::onnx::proto::{GraphProto, ModelProto, OperatorSetIdProto};

    /// y = x · w with w of shape [64, 64]; the second form does it eight times over.
    fn save(folder: &Path, name: &str, times: usize) -> std::path::PathBuf {
        let float = |name: &str| value_info_typed(name, DataType::Float, &[-1, 64]);
        let identity: Vec<f32> = (0..64 * 64).map(|i| if i % 65 == 0 { 1.0 } else { 0.0 }).collect();
        let tensor = |i: usize| match i {
            0 => "x".to_owned(),
            i if i == times => "y".to_owned(),
            i => format!("t{i}"),
        };
        let product =
            |i: usize| node("MatMul", "", &format!("m{i}"), &[tensor(i), "w".to_owned()], &[tensor(i + 1)], vec![]);
        let graph = GraphProto {
            name: Some("g".to_owned()),
            node: (0..times).map(product).collect(),
            initializer: vec![tensor_f32("w", &[64, 64], &identity)],
            input: vec![float("x")],
            output: vec![float("y")],
            ..Default::default()
        };
        let proto = ModelProto {
            ir_version: Some(8),
            opset_import: vec![OperatorSetIdProto { domain: Some(String::new()), version: Some(17) }],
            graph: Some(graph),
            ..Default::default()
        };
        let path = folder.join(name);
        crate::onnx::save(&proto, None, &path).expect("save");
        path
    }

    #[test]
    fn a_pair_is_timed_and_the_slower_one_explained() {
        let folder = tempfile::tempdir().expect("folder");
        let (fast, slow) = (save(folder.path(), "fast.onnx", 1), save(folder.path(), "slow.onnx", 8));
        let control = Control::new();
        let runtime = Runtime::start(None, &control).expect("ONNX Runtime");
        let session = Session::open(runtime, Source::File(&fast), &SessionOptions::default()).expect("open");
        let data = DataSet::open("random:3", session.inputs(), &DataOptions::default()).expect("data");
        let options = BenchOptions { seconds: 0.1, ..BenchOptions::default() };
        let bench = bench(runtime, &fast, &slow, &data, &[0, 1, 2], None, &options, &control).expect("bench");
        assert_eq!((bench.sqnr_db, bench.agreement, bench.samples), (Sqnr::Identical, Some(1.0), 3));
        assert!(bench.rounds >= 9 && bench.latency_ratio.p50 > 1.0, "{:?}", bench.latency_ratio);
        assert!(bench.models.iter().all(|model| model.size_bytes > 16000 && model.latency_ms.p50 > 0.0));
        assert!(bench.slower.iter().any(|reason| reason.starts_with("Matrix products")), "{:?}", bench.slower);
        assert_eq!(bench.layers.iter().filter(|layer| layer.model == "quantized").count(), 8);
        let json = serde_json::to_value(&bench).expect("json");
        for field in ["models", "latency_ratio", "agreement", "sqnr_db", "accuracy", "cpu_features", "layers"] {
            assert!(json.get(field).is_some(), "{field}");
        }
        for field in ["path", "size_bytes", "latency_ms", "peak_memory_bytes"] {
            assert!(json["models"][0].get(field).is_some(), "{field}");
        }
    }
}
