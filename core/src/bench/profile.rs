//! Time of every node, as ONNX Runtime's own profiler sees it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::time::Instant;

use serde::Deserialize;

use super::{BenchError, LayerTime, OpTime};
use crate::data::Sample;
use crate::error::converted;
use crate::runtime::{Runtime, Session, SessionOptions, Source};
use crate::{Control, Error};

/// Most runs profiled, and the time after which no further one is begun.
const RUNS: usize = 12;
const SECONDS: f64 = 2.0;
/// Their bodies' nodes are in the profile too; counting both would count twice.
const CONTROL_FLOW: [&str; 3] = ["If", "Loop", "Scan"];

/// Profiles `model` (called `label` in the result) on `samples` in turn: the median time of each node of the optimised
/// graph, longest first. Nodes that run other nodes (`If`, `Loop`, `Scan`) are left out for their bodies.
pub fn profile(
    runtime: &Runtime,
    model: Source<'_>,
    label: &str,
    samples: &[Sample],
    threads: usize,
    control: &Control,
) -> Result<Vec<LayerTime>, Error> {
    let fail = |why: std::io::Error| BenchError::Profile { path: std::env::temp_dir(), why: why.to_string() };
    let folder = tempfile::tempdir().map_err(fail)?;
    let options = SessionOptions { threads, profile: Some(folder.path().join("profile")), ..SessionOptions::default() };
    let mut session = Session::open(runtime, model, &options)?;
    let began = Instant::now();
    let mut runs = 0;
    let samples: Vec<Sample> =
        samples.iter().map(|sample| converted(sample, session.inputs()).unwrap_or_else(|| sample.clone())).collect();
    for sample in samples.iter().cycle().take(if samples.is_empty() { 0 } else { RUNS }) {
        control.check()?;
        control.progress("Profiling", runs as u64, RUNS as u64);
        session.visit(sample, control, &mut |_, _| {})?;
        runs += 1;
        if runs > 2 && began.elapsed().as_secs_f64() > SECONDS {
            break;
        }
    }
    if runs == 0 {
        return Err(BenchError::NoSamples.into());
    }
    let path = session.end_profiling()?;
    Ok(read(&path, label, runs)?)
}

#[derive(Deserialize)]
struct Event {
    #[serde(default)]
    cat: String,
    #[serde(default)]
    name: String,
    /// Microseconds.
    #[serde(default)]
    dur: f64,
    #[serde(default)]
    args: BTreeMap<String, serde_json::Value>,
}

fn read(path: &Path, label: &str, runs: usize) -> Result<Vec<LayerTime>, BenchError> {
    let fail = |why: String| BenchError::Profile { path: path.to_owned(), why };
    let file = File::open(path).map_err(|error| fail(error.to_string()))?;
    let events: Vec<Event> = serde_json::from_reader(BufReader::new(file)).map_err(|error| fail(error.to_string()))?;
    Ok(times(events, label, runs))
}

fn times(events: Vec<Event>, label: &str, runs: usize) -> Vec<LayerTime> {
    let mut nodes: BTreeMap<(String, String), Vec<f64>> = BTreeMap::new();
    for event in events.into_iter().filter(|event| event.cat == "Node") {
        let op = event.args.get("op_name").and_then(|op| op.as_str()).unwrap_or_default();
        if let Some(name) = event.name.strip_suffix("_kernel_time")
            && !CONTROL_FLOW.contains(&op)
        {
            nodes.entry((name.to_owned(), op.to_owned())).or_default().push(event.dur);
        }
    }
    let mut layers: Vec<LayerTime> = nodes
        .into_iter()
        .map(|((name, op), mut times)| {
            times.sort_unstable_by(f64::total_cmp);
            let median = times.get(times.len() / 2).copied().unwrap_or_default();
            // In a loop a node runs several times a run; a node in a branch not always taken, less often.
            let per_run = times.len() as f64 / runs.max(1) as f64;
            LayerTime { model: label.to_owned(), name, op, time_ms: (median * per_run * 10.0).round() / 1e4 }
        })
        .collect();
    layers.sort_by(|a, b| b.time_ms.total_cmp(&a.time_ms));
    layers
}

/// Time by operator of both models, the longest first.
pub fn by_op(original: &[LayerTime], quantized: &[LayerTime]) -> Vec<OpTime> {
    let mut ops: BTreeMap<&str, OpTime> = BTreeMap::new();
    for (is_original, layer) in original.iter().map(|l| (true, l)).chain(quantized.iter().map(|l| (false, l))) {
        let entry = ops.entry(&layer.op).or_insert_with(|| OpTime {
            op: layer.op.clone(),
            original_nodes: 0,
            original_ms: 0.0,
            quantized_nodes: 0,
            quantized_ms: 0.0,
        });
        let (nodes, ms) = if is_original {
            (&mut entry.original_nodes, &mut entry.original_ms)
        } else {
            (&mut entry.quantized_nodes, &mut entry.quantized_ms)
        };
        *nodes += 1;
        *ms += layer.time_ms;
        // The profiler counts whole microseconds.
        *ms = (*ms * 1e4).round() / 1e4;
    }
    let mut ops: Vec<_> = ops.into_values().collect();
    ops.sort_by(|a, b| (b.original_ms + b.quantized_ms).total_cmp(&(a.original_ms + a.quantized_ms)));
    ops
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_by_node_without_control_flow() {
        let event = |name: &str, op: &str, dur: f64| {
            format!(r#"{{"cat":"Node","name":"{name}_kernel_time","dur":{dur},"args":{{"op_name":"{op}"}}}}"#)
        };
        let text = format!(
            r#"[{{"cat":"Session","name":"model_run","dur":9}},{},{},{},{},{},{{"cat":"Node","name":"a_fence_before","dur":5}}]"#,
            event("a", "Conv", 9000.0),
            event("a", "Conv", 1000.0),
            event("a", "Conv", 1100.0),
            event("b", "If", 5000.0),
            event("c", "Relu", 30.0),
        );
        let events: Vec<Event> = serde_json::from_str(&text).expect("events");
        let layers = times(events, "original", 3);
        let found: Vec<_> = layers.iter().map(|l| (l.name.as_str(), l.op.as_str(), l.time_ms)).collect();
        assert_eq!(found, [("a", "Conv", 1.1), ("c", "Relu", 0.01)]);
        let ops = by_op(&layers, &layers[..1]);
        assert_eq!((ops[0].op.as_str(), ops[0].original_nodes, ops[0].quantized_ms), ("Conv", 1, 1.1));
        assert_eq!((ops[1].quantized_nodes, ops[1].quantized_ms), (0, 0.0));
    }
}
