//! The state of training on disk, so that a run which was killed goes on where it was: a safetensors file, written in full
//! beside its place and renamed.

use std::collections::HashMap;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use super::latent::Kept;
use super::learner::{Learner, Snapshot};
use super::{FinetuneError, Point};
use crate::limits;
use crate::plan::storage;

/// Key of the header's entry.
const KEY: &str = "nibble-finetune";
const VERSION: u32 = 2;

/// What is not a tensor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Version of this format.
    pub version: u32,
    /// What the state belongs to: model, plan, data and options.
    pub fingerprint: String,
    /// Steps taken.
    pub step: usize,
    /// The step of the best state.
    pub best_step: usize,
    /// The share of the learning rate that is in force.
    pub share: f32,
    /// The step from which on it is.
    pub restarted: usize,
    /// Every step at which held-back samples were run, the first and the best among them.
    pub curve: Vec<Point>,
}

impl Progress {
    /// Nothing done yet.
    pub fn new(fingerprint: String) -> Self {
        Self { version: VERSION, fingerprint, step: 0, best_step: 0, share: 1.0, restarted: 0, curve: Vec::new() }
    }
}

/// Writes where training stands and its best state.
pub fn save(
    path: &Path,
    progress: &Progress,
    learners: &mut [Learner],
    best: &[Snapshot],
) -> Result<(), FinetuneError> {
    let refused = |why: String| FinetuneError::State { path: path.to_owned(), why };
    let mut tensors: Vec<(String, Vec<u8>)> = Vec::new();
    let bytes = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    for (at, (learner, best)) in learners.iter_mut().zip(best).enumerate() {
        for (which, kept) in [("now", &learner.keep()), ("best", best)] {
            tensors.push((format!("{at}:{which}:values"), bytes(&kept.weight.values)));
            tensors.push((format!("{at}:{which}:scales"), bytes(&kept.weight.scales)));
            if let Some(bias) = &kept.bias {
                tensors.push((format!("{at}:{which}:bias"), bytes(bias)));
            }
        }
        for (number, adam) in learner.moments().into_iter().enumerate() {
            tensors.push((format!("{at}:first:{number}"), bytes(&adam.first)));
            tensors.push((format!("{at}:second:{number}"), bytes(&adam.second)));
        }
    }
    let header = serde_json::to_string(progress).map_err(|error| refused(error.to_string()))?;
    let views = tensors.iter().map(|(name, bytes)| {
        TensorView::new(Dtype::F32, vec![bytes.len() / 4], bytes).map(|view| (name.as_str(), view))
    });
    let views: Vec<_> = views.collect::<Result<_, _>>().map_err(|error| refused(error.to_string()))?;
    let file = safetensors::serialize(views, Some(HashMap::from([(KEY.to_owned(), header)])));
    let file = file.map_err(|error| refused(error.to_string()))?;
    storage::write(path, &file).map_err(|error| refused(error.to_string()))
}

/// Puts `learners` where the file at `path` left them and returns how far that was, with the best state. `None`, with
/// `learners` to be made anew, when there is no such file or it belongs to something else.
pub fn load(path: &Path, fingerprint: &str, learners: &mut [Learner]) -> Option<(Progress, Vec<Snapshot>)> {
    if std::fs::metadata(path).ok()?.len() > limits::MAX_REPAIR_BYTES {
        return None;
    }
    let bytes = std::fs::read(path).ok()?;
    let (_, metadata) = SafeTensors::read_metadata(&bytes).ok()?;
    let file = SafeTensors::deserialize(&bytes).ok()?;
    let progress: Progress = serde_json::from_str(metadata.metadata().as_ref()?.get(KEY)?).ok()?;
    if progress.version != VERSION || progress.fingerprint != fingerprint || progress.curve.is_empty() {
        return None;
    }
    let floats = |name: String| -> Option<Vec<f32>> {
        let view = file.tensor(&name).ok().filter(|view| view.dtype() == Dtype::F32)?;
        let (whole, _) = view.data().as_chunks::<4>();
        let values: Vec<f32> = whole.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        values.iter().all(|value| value.is_finite()).then_some(values)
    };
    let mut best = Vec::new();
    for (at, learner) in learners.iter_mut().enumerate() {
        let kept = |which: &str| {
            let part = |part: &str| floats(format!("{at}:{which}:{part}"));
            Some(Snapshot { weight: Kept { values: part("values")?, scales: part("scales")? }, bias: part("bias") })
        };
        // The best state has to fit too.
        let (now, of_best) = (kept("now")?, kept("best")?);
        if !learner.restore(&of_best) || !learner.restore(&now) {
            return None;
        }
        best.push(of_best);
        for (number, adam) in learner.moments().into_iter().enumerate() {
            let first = floats(format!("{at}:first:{number}")).filter(|first| first.len() == adam.first.len())?;
            let second = floats(format!("{at}:second:{number}")).filter(|second| second.len() == adam.second.len())?;
            (adam.first, adam.second) = (first, second);
        }
    }
    Some((progress, best))
}
