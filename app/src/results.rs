//! What is known about the open model besides its plan: computed in the background, remembered by layer and choice, so
//! that going back to an earlier choice costs nothing.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use nibble_core::error::Isolated;
use nibble_core::plan::{Activation, Choice, Clip, Granularity, Mode, Precision, Rounding, Symmetry};
use nibble_core::quant::WeightLayout;
use nibble_core::stats::TensorStats;

use crate::widgets::clip_histogram::Bin;

/// Most remembered errors; a drag makes many that are never asked for again.
const MAX_REMEMBERED: usize = 100_000;

/// Most weights kept for estimates within a frame.
pub const SAMPLE: usize = 1 << 14;

/// What one pass over a layer's weights finds.
pub struct WeightFacts {
    /// Moments and histogram.
    pub stats: TensorStats,
    /// The histogram for drawing.
    pub bins: Vec<Bin>,
    /// A coarse histogram for the table, 0..=1.
    pub spark: Vec<f32>,
    /// Some whole channels, at most [`SAMPLE`] weights: what an estimate within a frame is made from.
    pub sample: Vec<f32>,
    /// Layout of `sample`.
    pub sample_layout: WeightLayout,
    /// Least value of each output channel.
    pub channel_min: Vec<f32>,
    /// Greatest value of each output channel.
    pub channel_max: Vec<f32>,
}

/// The part of a choice that decides a layer's weight error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WeightKey {
    precision: Precision,
    symmetry: Symmetry,
    granularity: Granularity,
    clip: ClipKey,
    rounding: Rounding,
}

/// A whole choice as a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChoiceKey {
    weight: WeightKey,
    mode: Mode,
    activation: Activation,
    activation_symmetry: Symmetry,
    activation_clip: ClipKey,
}

type ClipKey = (u8, u32, u32);

fn clip_key(clip: Clip) -> ClipKey {
    match clip {
        Clip::MinMax => (0, 0, 0),
        Clip::Percentile(share) => (1, share.to_bits(), 0),
        Clip::Mse => (2, 0, 0),
        Clip::Entropy => (5, 0, 0),
        Clip::Manual { lo, hi } => (3, lo.to_bits(), hi.to_bits()),
        Clip::Trained => (4, 0, 0),
    }
}

impl From<&Choice> for WeightKey {
    fn from(choice: &Choice) -> Self {
        Self {
            precision: choice.precision,
            symmetry: choice.symmetry,
            granularity: choice.granularity,
            clip: clip_key(choice.clip),
            rounding: choice.rounding,
        }
    }
}

impl From<&Choice> for ChoiceKey {
    fn from(choice: &Choice) -> Self {
        Self {
            weight: choice.into(),
            mode: choice.mode,
            activation: choice.activation,
            activation_symmetry: choice.activation_symmetry,
            activation_clip: clip_key(choice.activation_clip),
        }
    }
}

/// A number that may not be there yet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<T> {
    /// Known.
    Known(T),
    /// Being computed.
    Pending,
    /// There is none.
    None,
}

impl<T: Copy> Value<T> {
    /// The value if it is known.
    pub fn known(self) -> Option<T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Pending | Self::None => None,
        }
    }

    /// Applies `change` to a known value.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Value<U> {
        match self {
            Self::Known(value) => Value::Known(change(value)),
            Self::Pending => Value::Pending,
            Self::None => Value::None,
        }
    }
}

/// A piece of background work.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Work {
    /// Histogram and channel ranges of a layer's weights.
    Facts {
        /// The layer.
        layer: usize,
    },
    /// Error of a layer's weights under a choice.
    WeightError {
        /// The layer.
        layer: usize,
        /// The choice.
        choice: Choice,
    },
    /// Error at the layer's own output under a choice.
    Isolated {
        /// The layer.
        layer: usize,
        /// The choice.
        choice: Choice,
    },
    /// The layer's weights as its repair rounds them.
    Rounded {
        /// The layer.
        layer: usize,
        /// The choice.
        choice: Choice,
    },
    /// What a choice for the layer's weights does to the model's output, where that was estimated.
    Noise {
        /// The layer.
        layer: usize,
        /// The choice.
        choice: Choice,
    },
}

impl Work {
    /// The layer.
    pub fn layer(&self) -> usize {
        self.slot().0
    }

    /// Whether both are the same kind of work for the same layer.
    pub fn same_slot(&self, other: &Self) -> bool {
        self.slot() == other.slot()
    }

    /// Which kind of work for which layer: one of each is in flight at most, so that the latest edit wins.
    fn slot(&self) -> (usize, u8) {
        match *self {
            Self::Facts { layer } => (layer, 0),
            Self::WeightError { layer, .. } => (layer, 1),
            Self::Isolated { layer, .. } => (layer, 2),
            Self::Noise { layer, .. } => (layer, 3),
            Self::Rounded { layer, .. } => (layer, 4),
        }
    }
}

/// Background results by layer and choice.
#[derive(Default)]
pub struct Results {
    facts: HashMap<usize, Arc<WeightFacts>>,
    weight_errors: HashMap<(usize, WeightKey), f64>,
    /// Of repaired layers alone.
    rounded: HashMap<(usize, WeightKey), Arc<TensorStats>>,
    /// With the number of the statistics each was found with.
    isolated: HashMap<(usize, ChoiceKey), (Isolated, u64)>,
    /// With the number of the statistics that each was handed.
    in_flight: HashMap<(usize, u8), u64>,
    failed: HashSet<(usize, u8)>,
    version: u64,
    /// Number of the statistics in force.
    stats: u64,
}

impl Results {
    /// Grows with every new result: what depends on them compares it.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Number of jobs handed out and not yet answered.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// What is known about a layer's weights.
    pub fn facts(&self, layer: usize) -> Option<&Arc<WeightFacts>> {
        self.facts.get(&layer)
    }

    /// Signal-to-quantization-noise ratio of a layer's weights in dB; infinite when they are left as they are.
    pub fn weight_error(&self, layer: usize, choice: &Choice) -> Value<f64> {
        if choice.precision == Precision::Float32 {
            return Value::Known(f64::INFINITY);
        }
        match self.weight_errors.get(&(layer, choice.into())) {
            Some(value) => Value::Known(*value),
            None if self.failed.contains(&(layer, 1)) => Value::None,
            None => Value::Pending,
        }
    }

    /// A layer's weights as its repair rounds them, once that is known.
    pub fn rounded(&self, layer: usize, choice: &Choice) -> Option<&Arc<TensorStats>> {
        self.rounded.get(&(layer, choice.into()))
    }

    /// Error at the layer's own output; `Pending` also before calibration.
    pub fn isolated(&self, layer: usize, choice: &Choice) -> Value<&Isolated> {
        match self.isolated.get(&(layer, choice.into())) {
            Some((value, _)) => Value::Known(value),
            None if self.failed.contains(&(layer, 2)) => Value::None,
            None => Value::Pending,
        }
    }

    /// Whether this work still has to be done and is not in flight.
    pub fn wants(&self, work: &Work) -> bool {
        let slot = work.slot();
        if self.in_flight.contains_key(&slot) || self.failed.contains(&slot) {
            return false;
        }
        match work {
            Work::Facts { layer } => !self.facts.contains_key(layer),
            Work::WeightError { layer, choice } => {
                choice.precision != Precision::Float32 && !self.weight_errors.contains_key(&(*layer, choice.into()))
            }
            Work::Isolated { layer, choice } => {
                self.isolated.get(&(*layer, choice.into())).is_none_or(|(_, stats)| *stats != self.stats)
            }
            Work::Rounded { layer, choice } => !self.rounded.contains_key(&(*layer, choice.into())),
            // Only what is not known is asked for; what comes of it is kept by what asked.
            Work::Noise { .. } => true,
        }
    }

    /// Notes that the work was handed out.
    pub fn begin(&mut self, work: &Work) {
        self.in_flight.insert(work.slot(), self.stats);
    }

    /// Takes the facts of a layer.
    pub fn put_facts(&mut self, layer: usize, facts: WeightFacts) {
        self.end(&Work::Facts { layer });
        self.facts.insert(layer, Arc::new(facts));
    }

    /// Takes the error of a layer's weights.
    pub fn put_weight_error(&mut self, layer: usize, choice: &Choice, db: f64) {
        self.end(&Work::WeightError { layer, choice: *choice });
        if self.weight_errors.len() >= MAX_REMEMBERED {
            self.weight_errors.clear();
        }
        self.weight_errors.insert((layer, choice.into()), db);
    }

    /// Takes a layer's repaired weights.
    pub fn put_rounded(&mut self, layer: usize, choice: &Choice, stats: TensorStats) {
        self.end(&Work::Rounded { layer, choice: *choice });
        self.rounded.insert((layer, choice.into()), Arc::new(stats));
    }

    /// Takes the error at a layer's own output.
    pub fn put_isolated(&mut self, layer: usize, choice: &Choice, isolated: Isolated) {
        let stats = self.end(&Work::Isolated { layer, choice: *choice });
        if self.isolated.len() >= MAX_REMEMBERED {
            self.isolated.clear();
        }
        self.isolated.insert((layer, choice.into()), (isolated, stats));
    }

    /// Notes that the noise of a choice was found.
    pub fn put_noise(&mut self, layer: usize, choice: &Choice) {
        self.end(&Work::Noise { layer, choice: *choice });
    }

    /// Notes that the work failed; it is not tried again for this layer.
    pub fn fail(&mut self, work: &Work) {
        self.end(work);
        self.failed.insert(work.slot());
    }

    /// Forgets the errors of a layer whose weights are other ones under the same choice.
    pub fn forget_errors(&mut self, layer: usize) {
        self.weight_errors.retain(|(known, _), _| *known != layer);
        self.rounded.retain(|(known, _), _| *known != layer);
        self.isolated.retain(|(known, _), _| *known != layer);
        self.version += 1;
    }

    /// Forgets the errors of repaired layers: the same word stands for other integers now.
    pub fn forget_repaired(&mut self) {
        let is_repaired = |key: &WeightKey| key.rounding != Rounding::Nearest;
        self.weight_errors.retain(|(_, key), _| !is_repaired(key));
        self.rounded.clear();
        self.isolated.retain(|(_, key), _| !is_repaired(&key.weight));
        self.version += 1;
    }

    /// Marks what was found with the statistics until now as due to be found anew.
    pub fn renew_isolated(&mut self) {
        self.stats += 1;
        self.failed.retain(|slot| slot.1 != 2);
        self.version += 1;
    }

    /// Notes that the work is done; returns the number of the statistics it was handed.
    fn end(&mut self, work: &Work) -> u64 {
        self.version += 1;
        self.in_flight.remove(&work.slot()).unwrap_or(self.stats)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_stands_until_new_statistics_give_another() {
        let mut results = Results::default();
        let choice = Choice { precision: Precision::Int8, ..Choice::FLOAT };
        let work = Work::Isolated { layer: 0, choice };
        results.begin(&work);
        // Statistics that arrive while it is computed make its result an old one at once.
        results.renew_isolated();
        results.put_isolated(0, &choice, Isolated::default());
        assert!(results.isolated(0, &choice).known().is_some() && results.wants(&work));
        results.begin(&work);
        results.put_isolated(0, &choice, Isolated::default());
        assert!(!results.wants(&work));
    }

    #[test]
    fn errors_of_repaired_layers_are_forgotten_alone() {
        let mut results = Results::default();
        let nearest = Choice { precision: Precision::Int8, ..Choice::FLOAT };
        let repaired = Choice { rounding: Rounding::Gptq, ..nearest };
        results.put_weight_error(0, &nearest, 40.0);
        results.put_weight_error(0, &repaired, 44.0);
        results.put_isolated(0, &repaired, Isolated::default());
        results.forget_repaired();
        assert_eq!(results.weight_error(0, &nearest), Value::Known(40.0));
        assert_eq!(results.weight_error(0, &repaired), Value::Pending);
        assert!(results.isolated(0, &repaired).known().is_none());
    }

    #[test]
    fn the_latest_choice_of_a_layer_waits_for_the_one_in_flight() {
        let mut results = Results::default();
        let first = Choice { precision: Precision::Int8, ..Choice::FLOAT };
        let second = Choice { precision: Precision::Int4, ..Choice::FLOAT };
        let work = Work::WeightError { layer: 3, choice: first };
        assert!(results.wants(&work));
        results.begin(&work);
        assert!(!results.wants(&Work::WeightError { layer: 3, choice: second }));
        results.put_weight_error(3, &first, 40.0);
        assert_eq!(results.weight_error(3, &first), Value::Known(40.0));
        assert_eq!(results.weight_error(3, &second), Value::Pending);
        assert!(results.wants(&Work::WeightError { layer: 3, choice: second }));
        assert_eq!(results.weight_error(3, &Choice::FLOAT), Value::Known(f64::INFINITY));
    }
}
