//! Predictions at the speed of a drag: everything that a changed plan leaves as it was is remembered.
//!
//! What a layer's weights do hangs on its own choice alone, what rounding an activation does on its parameters and readers
//! alone, so that both are looked up after the first time. The sums themselves are added up anew, in the order of
//! [`predict`](super::predict()): the result is the same to the last bit once nothing is estimated any more.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use super::anchor::Anchors;
use super::sample::LayerSample;
use super::sensitivity::WeightKey;
use super::{Noise, Parts, Prediction, Pricing, Sensitivity};
use crate::export::{Pick, bytes_around, pick, roundings_with, size_with};
use crate::model::graph::Links;
use crate::model::{Layer, Model};
use crate::plan::{Choice, Clip, Plan, Symmetry};
use crate::quant::{QuantParams, clip_range};
use crate::stats::{Stats, TensorStats};

/// Parameters of one activation, and estimates of one layer, that are remembered.
const MOST_PARAMS: usize = 48;
/// Weights that are looked at in one prediction (see [`LayerSample::looks`]): some milliseconds of a frame. What is left takes
/// the nearest known choice's noise until the next one.
const LOOKS: usize = 6_000_000;

/// What a plan is expected to do, and from what.
#[derive(Clone, Debug, PartialEq)]
pub struct Outlook {
    /// The figures.
    pub prediction: Prediction,
    /// The noise source by source.
    pub parts: Parts,
    /// Layers (as indices) whose weights' noise was estimated from a sample, with the choice to hand to [`Pricing::noise`].
    pub estimated: Vec<(usize, Choice)>,
    /// Whether ranges are still to be searched, or estimates to be made: ask again.
    pub unfinished: bool,
}

type RangeKey = (Clip, Symmetry, u32);
type Ranges = HashMap<String, Vec<(RangeKey, (f32, f32))>>;
type NoiseKey = (QuantParams, Option<Vec<usize>>);

/// Predicts one model's plans again and again, for one set of statistics.
pub struct Predictor {
    sensitivity: Sensitivity,
    samples: HashMap<String, LayerSample>,
    /// What the samples said, by layer.
    estimates: HashMap<String, Vec<(WeightKey, Noise)>>,
    links: Option<Links>,
    around: u64,
    /// What becomes of each layer, with statistics and without, which the size goes by.
    picks: Picked,
    sizes: Picked,
    ranges: RefCell<Ranges>,
    noises: HashMap<String, Vec<(NoiseKey, Noise)>>,
    anchors: Anchors,
}

impl Predictor {
    /// A predictor for `model` from what was learnt about it.
    pub fn new(model: &Model, sensitivity: Sensitivity) -> Self {
        Self {
            sensitivity,
            samples: HashMap::new(),
            estimates: HashMap::new(),
            links: model.graph.graph.as_ref().map(Links::of),
            around: bytes_around(model),
            picks: Picked::default(),
            sizes: Picked::default(),
            ranges: RefCell::default(),
            noises: HashMap::new(),
            anchors: Anchors::default(),
        }
    }

    /// What it goes by.
    pub fn sensitivity(&self) -> &Sensitivity {
        &self.sensitivity
    }

    /// Gives back what it goes by, with all that was covered.
    pub fn into_sensitivity(self) -> Sensitivity {
        self.sensitivity
    }

    /// Computes what `choices` do to the weights of `layer`, and keeps a sample of them for estimates of others.
    pub fn cover(&mut self, model: &Model, layer: &Layer, choices: &[Choice]) {
        self.sensitivity.cover(model, layer, choices);
        if !self.samples.contains_key(&layer.name)
            && let Some(pricing) = self.sensitivity.pricing(layer)
            && let Some(sample) = LayerSample::of(model, layer, &pricing)
        {
            self.samples.insert(layer.name.clone(), sample);
        }
        // What estimates are held to is known before they are asked for within a frame.
        if let (Some(sample), Some(known)) =
            (self.samples.get_mut(&layer.name), self.sensitivity.layers.get(&layer.name))
        {
            known.choices().for_each(|choice| _ = sample.remember(&choice));
        }
    }

    /// What it takes to compute the exact noise of a layer's weights elsewhere; see [`Self::learn`].
    pub fn pricing(&self, layer: &Layer) -> Option<Pricing> {
        self.sensitivity.pricing(layer)
    }

    /// Takes the noise of a layer's weights in place of an estimate.
    pub fn learn(&mut self, layer: &str, choice: &Choice, noise: Noise) {
        self.sensitivity.learn(layer, choice, noise);
    }

    /// Takes the SQNR in dB that a run gave of a plan with repaired weights: from it follows what these add in this plan and
    /// in others.
    pub fn anchor(&mut self, model: &Model, stats: Option<&Stats>, plan: &Plan, measured_db: f64) {
        let Ok(repaired) = model.repaired(plan) else { return };
        let links = repaired.graph.graph.as_ref().map(Links::of);
        let each = repaired.layers.iter();
        let picks: Vec<Pick> = each.map(|layer| pick(&repaired, layer, plan.choice(&layer.name), stats)).collect();
        let parts = self.outlook(&repaired, stats, &picks, links.as_ref(), 0, usize::MAX).parts;
        self.anchors.add(&mut self.sensitivity, &repaired, &picks, parts, measured_db);
    }

    /// Forgets what runs of plans said of repaired weights: the repairs are others now.
    pub fn forget_anchors(&mut self) {
        self.anchors = Anchors::default();
    }

    /// What `plan` is expected to do. At most `searches` ranges that are not known yet are searched for; for others the whole
    /// range stands in.
    pub fn predict(&mut self, model: &Model, stats: Option<&Stats>, plan: &Plan, searches: usize) -> Outlook {
        let repaired = model.repaired(plan);
        match repaired {
            // Repairs change layers and biases: nothing of the model's own may stand in for them.
            Ok(std::borrow::Cow::Owned(repaired)) => {
                let links = repaired.graph.graph.as_ref().map(Links::of);
                let all = |stats| -> Vec<Pick> {
                    let each = repaired.layers.iter();
                    each.map(|layer| pick(&repaired, layer, plan.choice(&layer.name), stats)).collect()
                };
                let size = size_with(&repaired, bytes_around(&repaired), &all(None), links.as_ref());
                let picks = all(stats);
                let mut outlook = self.outlook(&repaired, stats, &picks, links.as_ref(), size, searches);
                self.anchors.put(&repaired, &picks, &mut outlook.parts);
                outlook.prediction = self.sensitivity.prediction(&outlook.parts, size);
                outlook
            }
            _ => {
                self.picks.update(model, plan, stats);
                self.sizes.update(model, plan, None);
                let size = size_with(model, self.around, &self.sizes.picks, self.links.as_ref());
                let (links, picks) = (self.links.take(), std::mem::take(&mut self.picks));
                let outlook = self.outlook(model, stats, &picks.picks, links.as_ref(), size, searches);
                (self.links, self.picks) = (links, picks);
                outlook
            }
        }
    }

    /// Divergence of class distributions that `picks` (one a layer) are expected to make, in nats; `None` where that was not
    /// learnt or something is not known.
    pub fn divergence(&self, model: &Model, stats: Option<&Stats>, picks: &[Pick]) -> Option<f64> {
        let known = self.sensitivity.divergence.as_deref()?;
        let weights = &mut |layer: &Layer, choice: &Choice| known.weight_noise(&layer.name, choice);
        let mut parts = known.layer_parts(model, picks, weights);
        if let (Some(stats), Some(links)) = (stats, &self.links) {
            let (left, unfinished) = (Cell::new(usize::MAX), Cell::new(false));
            let find = |name: &str, observed: &TensorStats, clip: Clip, symmetry: Symmetry, bits: u32| {
                self.range(name, observed, (clip, symmetry, bits), &left, &unfinished)
            };
            for rounding in roundings_with(model, links, picks, stats, &find) {
                let tensor = known.tensors.get(&rounding.tensor);
                let noise = tensor.map(|tensor| tensor.noise(&rounding.params, rounding.readers.as_deref()));
                parts.add_rounding(&rounding, noise, &known.together);
            }
        }
        parts.unknown.is_empty().then(|| parts.total(None))
    }

    /// Forgets what the divergence needs; what was priced stays where it is.
    pub fn forget_divergence(&mut self) {
        self.sensitivity.divergence = None;
    }

    /// The noise of `picks` (one a layer) source by source, with every range searched for.
    pub fn parts(&mut self, model: &Model, stats: Option<&Stats>, picks: &[Pick]) -> Parts {
        let links = self.links.take();
        let outlook = self.outlook(model, stats, picks, links.as_ref(), 0, usize::MAX);
        self.links = links;
        outlook.parts
    }

    fn outlook(
        &mut self,
        model: &Model,
        stats: Option<&Stats>,
        picks: &[Pick],
        links: Option<&Links>,
        size_bytes: u64,
        searches: usize,
    ) -> Outlook {
        let mut estimated: Vec<(String, Choice)> = Vec::new();
        let (left, unfinished) = (Cell::new(searches), Cell::new(false));
        let mut looks = LOOKS;
        let (sensitivity, samples, estimates) = (&self.sensitivity, &mut self.samples, &mut self.estimates);
        let mut parts = sensitivity.layer_parts(model, picks, &mut |layer, choice| {
            sensitivity.weight_noise(&layer.name, choice).or_else(|| {
                let sample = samples.get_mut(&layer.name)?;
                estimated.push((layer.name.clone(), *choice));
                let key = WeightKey::of(choice);
                let known = estimates.entry(layer.name.clone()).or_default();
                if let Some((_, estimate)) = known.iter().find(|(known, _)| *known == key) {
                    return Some(*estimate);
                }
                let like = sensitivity.like(&layer.name, choice);
                let cost = sample.looks(choice, like.as_ref().map(|(like, _)| like));
                if let (true, Some((like, noise))) = (cost > looks && looks < LOOKS, &like) {
                    unfinished.set(true);
                    // Half the levels are twice the step, and four times the noise; a half has 11 bits of mantissa.
                    let bits = |choice: &Choice| f64::from(choice.precision.bits().min(11));
                    return Some(*noise * 4_f64.powf(bits(like) - bits(choice)));
                }
                looks = looks.saturating_sub(cost);
                let estimate = sample.estimate(choice, like.as_ref());
                if known.len() >= MOST_PARAMS {
                    known.remove(0);
                }
                known.push((key, estimate));
                Some(estimate)
            })
        });
        if let (Some(stats), Some(links)) = (stats, links) {
            let find = |name: &str, observed: &TensorStats, clip: Clip, symmetry: Symmetry, bits: u32| {
                self.range(name, observed, (clip, symmetry, bits), &left, &unfinished)
            };
            for rounding in roundings_with(model, links, picks, stats, &find) {
                let noise = remembered(&mut self.noises, &self.sensitivity, &rounding);
                parts.add_rounding(&rounding, noise, &self.sensitivity.together);
            }
        }
        let named = model.layers.iter().enumerate().filter(|_| !estimated.is_empty());
        let places: HashMap<&str, usize> = named.map(|(at, layer)| (layer.name.as_str(), at)).collect();
        let place = |(name, choice): (String, Choice)| Some((*places.get(name.as_str())?, choice));
        Outlook {
            prediction: self.sensitivity.prediction(&parts, size_bytes),
            parts,
            estimated: estimated.into_iter().filter_map(place).collect(),
            unfinished: unfinished.get(),
        }
    }

    /// The range of a tensor, searched for once.
    fn range(
        &self,
        name: &str,
        observed: &TensorStats,
        key: RangeKey,
        left: &Cell<usize>,
        unfinished: &Cell<bool>,
    ) -> (f32, f32) {
        let (clip, symmetry, bits) = key;
        if matches!(clip, Clip::MinMax | Clip::Manual { .. }) {
            return clip_range(observed, clip, symmetry, bits);
        }
        let known =
            |ranges: &Ranges| ranges.get(name)?.iter().find(|(known, _)| *known == key).map(|(_, range)| *range);
        if let Some(range) = known(&self.ranges.borrow()) {
            return range;
        }
        if left.get() == 0 {
            unfinished.set(true);
            return observed.range();
        }
        left.set(left.get() - 1);
        let range = clip_range(observed, clip, symmetry, bits);
        self.ranges.borrow_mut().entry(name.to_owned()).or_default().push((key, range));
        range
    }
}

/// What becomes of each layer for the choice last asked for.
#[derive(Default)]
struct Picked {
    asked: Vec<Choice>,
    picks: Vec<Pick>,
}

impl Picked {
    /// Looks at the layers whose choice changed.
    fn update(&mut self, model: &Model, plan: &Plan, stats: Option<&Stats>) {
        if self.picks.len() != model.layers.len() {
            *self = Self::default();
        }
        for (at, layer) in model.layers.iter().enumerate() {
            let asked = plan.choice(&layer.name);
            match (self.asked.get_mut(at), self.picks.get_mut(at)) {
                (Some(known), Some(_)) if *known == asked => {}
                (Some(known), Some(slot)) => (*known, *slot) = (asked, pick(model, layer, asked, stats)),
                _ => {
                    self.asked.push(asked);
                    self.picks.push(pick(model, layer, asked, stats));
                }
            }
        }
    }
}

/// What rounding an activation does, computed once for its parameters and readers.
fn remembered(
    noises: &mut HashMap<String, Vec<(NoiseKey, Noise)>>,
    sensitivity: &Sensitivity,
    rounding: &crate::export::Rounding,
) -> Option<Noise> {
    let tensor = sensitivity.tensors.get(&rounding.tensor)?;
    if !noises.contains_key(&rounding.tensor) {
        noises.insert(rounding.tensor.clone(), Vec::new());
    }
    let known = noises.get_mut(&rounding.tensor)?;
    let same = |(key, _): &&(NoiseKey, Noise)| key.0 == rounding.params && key.1 == rounding.readers;
    if let Some((_, noise)) = known.iter().find(same) {
        return Some(*noise);
    }
    let noise = tensor.noise(&rounding.params, rounding.readers.as_deref());
    if known.len() >= MOST_PARAMS {
        known.remove(0);
    }
    known.push(((rounding.params, rounding.readers.clone()), noise));
    Some(noise)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Control;
    use crate::calibrate::{CalibrateOptions, calibrate};
    use crate::data::{DataOptions, DataSet};
    use crate::plan::{Activation, Granularity, Mode, Precision, Set, preset};
    use crate::predict::{GatherOptions, candidates, gather, predict};
    use crate::runtime::Runtime;

    fn known(name: &str) -> (Model, Stats, Sensitivity) {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../sample-models");
        let control = Control::new();
        let model = Model::load(&folder.join(format!("{name}.onnx")), &control).expect("model");
        let data = folder.join(format!("{name}.calib.npz"));
        let data = DataSet::open(data.to_str().expect("path"), &model.inputs, &DataOptions::default()).expect("data");
        let runtime = Runtime::start(None, &control).expect("runtime");
        let mut stats = Stats::new(model.file.sha256.as_str(), 0);
        let samples: Vec<usize> = (0..16).collect();
        calibrate(&model, runtime, &data, &samples, &CalibrateOptions::default(), &mut stats, &control).expect("stats");
        let options = GatherOptions { samples: 8, ..GatherOptions::default() };
        let sensitivity = gather(&model, runtime, &data, &samples, Some(&stats), &options, &control).expect("learnt");
        (model, stats, sensitivity)
    }

    fn any<T: Copy>(rng: &mut fastrand::Rng, from: &[T]) -> T {
        from[rng.usize(..from.len())]
    }

    fn edit(rng: &mut fastrand::Rng) -> Set {
        let clip = Clip::Manual { lo: -rng.f32(), hi: rng.f32() };
        Set {
            precision: Some(any(rng, &[Precision::Int8, Precision::Int4, Precision::Int2, Precision::Float32])),
            symmetry: Some(any(rng, Symmetry::ALL)),
            granularity: Some(any(rng, &[Granularity::PerTensor, Granularity::PerChannel, Granularity::Block(32)])),
            clip: Some(any(rng, &[Clip::MinMax, Clip::Mse, clip])),
            mode: Some(any(rng, Mode::ALL)),
            activation: Some(any(rng, &[Activation::Int8, Activation::Float32])),
            activation_clip: Some(any(rng, &[Clip::MinMax, Clip::Mse, Clip::Percentile(99.0), clip])),
            ..Set::default()
        }
    }

    #[test]
    fn what_is_remembered_changes_no_prediction() {
        for name in ["digits_cnn", "digits_transformer"] {
            let (model, stats, mut sensitivity) = known(name);
            let mut predictor = Predictor::new(&model, sensitivity.clone());
            let mut plan = model.preset_plan(preset("int8").expect("preset")).expect("plan");
            let mut rng = fastrand::Rng::with_seed(4);
            let mut estimates = 0;
            for _ in 0..60 {
                let layer = &model.layers[rng.usize(..model.layers.len())];
                plan.set_layers([layer.name.as_str()], &edit(&mut rng));
                for layer in &model.layers {
                    let honoured = pick(&model, layer, plan.choice(&layer.name), Some(&stats)).choice;
                    sensitivity.cover(&model, layer, &[honoured]);
                }
                let expected = predict(&sensitivity, &model, Some(&stats), &plan);
                let before = predictor.predict(&model, Some(&stats), &plan, 1);
                estimates += before.estimated.len();
                for (at, choice) in before.estimated {
                    let layer = &model.layers[at];
                    let noise = predictor.pricing(layer).and_then(|pricing| pricing.noise(&model, layer, &choice));
                    predictor.learn(&layer.name, &choice, noise.expect("readable"));
                }
                for layer in &model.layers {
                    let honoured = pick(&model, layer, plan.choice(&layer.name), Some(&stats)).choice;
                    predictor.cover(&model, layer, &[honoured]);
                }
                let outlook = predictor.predict(&model, Some(&stats), &plan, usize::MAX);
                assert!(outlook.estimated.is_empty() && !outlook.unfinished);
                assert_eq!(outlook.prediction, expected);
            }
            assert!(estimates > 0, "some were estimated first");
        }
    }

    #[test]
    fn an_estimate_is_close_and_the_causes_add_up() {
        let (model, stats, sensitivity) = known("digits_cnn");
        let mut predictor = Predictor::new(&model, sensitivity);
        for layer in &model.layers {
            let choices: Vec<Choice> =
                candidates(&model, layer, Some(&stats)).into_iter().map(|pick| pick.choice).collect();
            predictor.cover(&model, layer, &choices);
        }
        let mut plan = model.preset_plan(preset("int4-static").expect("preset")).expect("plan");
        let layer = model.layers.iter().max_by_key(|layer| layer.parameters).expect("layers");
        for share in [1.0, 0.5, 0.1] {
            let clip = Some(Clip::Manual { lo: -share, hi: share });
            plan.set_layers([layer.name.as_str()], &Set { clip, ..Set::default() });
            let guess = predictor.predict(&model, Some(&stats), &plan, usize::MAX);
            let [(at, choice)] = guess.estimated[..] else { panic!("one is estimated: {:?}", guess.estimated) };
            let exact = predictor.pricing(layer).and_then(|p| p.noise(&model, layer, &choice)).expect("readable");
            predictor.learn(&model.layers[at].name, &choice, exact);
            let outlook = predictor.predict(&model, Some(&stats), &plan, usize::MAX);
            let db = |outlook: &Outlook| outlook.prediction.sqnr_db.db().expect("known");
            assert!((db(&guess) - db(&outlook)).abs() < 1.0, "{share}: {} {}", db(&guess), db(&outlook));
            let causes: f64 = outlook.parts.sources.iter().map(|s| s.noise.rounded() + s.noise.clipped).sum();
            assert!((causes / outlook.parts.total(None) - 1.0).abs() < 1e-9);
            let own =
                outlook.parts.sources.iter().find(|s| s.part == crate::predict::Part::Weights && s.name == layer.name);
            let clipped = own.expect("quantized").noise.clipped;
            assert!(share > 0.2 || clipped > 0.0, "{share}: {clipped}");
        }
    }
}
