//! Going back through the graph on a few samples, and adding up what comes out.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use ndarray::ArrayD;
use rayon::prelude::*;

use super::layers::{LayerSums, TensorSums};
use super::sensitivity::{LayerSensitivity, Sensitivity, Unknown};
use super::weighting::Weighting;
use crate::autodiff::{Event, Program, Refused, Tracer, Value, Values};
use crate::calibrate::Taps;
use crate::data::DataSet;
use crate::model::{Layer, Model};
use crate::runtime::Runtime;
use crate::stats::Stats;
use crate::{Control, Error};

/// How much is gone through.
#[derive(Clone, Debug)]
pub struct GatherOptions {
    /// Most samples; they are spread over those given.
    pub samples: usize,
    /// Random weightings of the output a sample. An output with no more elements than this is weighted exactly.
    pub projections: usize,
    /// About this many multiplications at most, over all samples; at least `LEAST_SAMPLES` are taken all the same.
    pub budget: f64,
    /// Threads of the runtime.
    pub threads: usize,
    /// Seed of the weightings.
    pub seed: u64,
    /// The output; `None` for the first floating one.
    pub output: Option<String>,
    /// Whether the divergence of class distributions is learnt too ([`Sensitivity::divergence`]), in the same pass over the
    /// samples.
    pub divergence: bool,
}

impl Default for GatherOptions {
    fn default() -> Self {
        Self { samples: 64, projections: 2, budget: 2.2e10, threads: 1, seed: 0, output: None, divergence: false }
    }
}

/// Samples taken whatever they cost; half of them where a single one costs more than the budget.
pub const LEAST_SAMPLES: usize = 4;
/// What adding up the squared slope of one weight costs, in multiplications: with few rows it is bound by memory.
const TOUCH: f64 = 32.0;

/// Attempts at finding a way that rules can go: each refused node costs one.
const ATTEMPTS: usize = 16;

/// Learns how far the weights and activations of `model` move its output on samples called `indices`. `stats` set the
/// ranges over which activations are seen; without them only weights and what kernels round by themselves are learnt.
/// Layers that gradients do not reach are in [`Sensitivity::unknown`].
pub fn gather(
    model: &Model,
    runtime: &Runtime,
    data: &DataSet,
    indices: &[usize],
    stats: Option<&Stats>,
    options: &GatherOptions,
    control: &Control,
) -> Result<Sensitivity, Error> {
    let output = match &options.output {
        Some(name) => name.clone(),
        None => model.judged_output().to_owned(),
    };
    let (sources, watched) = sources(model);
    let mut refused: BTreeMap<usize, String> = BTreeMap::new();
    for _ in 0..ATTEMPTS {
        let program = Program::new(model, &output, &sources, &refused)?;
        let pass = Pass { model, program: &program, watched: &watched, stats, options };
        match pass.run(runtime, data, indices, control)? {
            Ok(sensitivity) => return Ok(sensitivity),
            Err(Refused { node, why }) => refused.insert(node, why),
        };
    }
    let mut nothing = Sensitivity { model_sha256: model.identity.clone(), output, ..Sensitivity::default() };
    let unknown = |layer: &Layer| Unknown { layer: layer.name.clone(), why: "too many operators refuse".to_owned() };
    nothing.unknown = model.layers.iter().filter(|layer| layer.quantizable()).map(unknown).collect();
    Ok(nothing)
}

/// Everything whose gradient is wanted, and the activations among it.
fn sources(model: &Model) -> (BTreeSet<String>, BTreeSet<String>) {
    let taps = Taps::of(model);
    let mut watched: BTreeSet<String> = taps.observed.into_iter().chain(taps.aliases.into_keys()).collect();
    let mut sources = watched.clone();
    for layer in model.layers.iter().filter(|layer| layer.quantizable() && !layer.in_subgraph()) {
        sources.extend(layer.weights.iter().filter(|weight| weight.depth == 0).map(|weight| weight.tensor.clone()));
        watched.extend([layer.input.clone(), layer.output.clone()]);
    }
    (sources, watched)
}

struct Pass<'a> {
    model: &'a Model,
    program: &'a Program<'a>,
    watched: &'a BTreeSet<String>,
    stats: Option<&'a Stats>,
    options: &'a GatherOptions,
}

/// What is being added up.
struct Sums<'a> {
    /// By node and input.
    layers: HashMap<(usize, usize), Mutex<LayerSums>>,
    tensors: HashMap<&'a str, Mutex<TensorSums>>,
}

impl Pass<'_> {
    fn run(
        &self,
        runtime: &Runtime,
        data: &DataSet,
        indices: &[usize],
        control: &Control,
    ) -> Result<Result<Sensitivity, Refused>, Error> {
        let mut sums = self.sums();
        let mut sums_of_divergence = self.options.divergence.then(|| self.sums());
        let (mut signal, mut projections) = (0.0, 0);
        let mut chosen: Vec<usize> = indices.to_vec();
        let mut done = 0;
        let mut fits_classes = true;
        if !self.program.taps().is_empty() && !chosen.is_empty() {
            let mut tracer = Tracer::new(self.model, self.program, runtime, self.options.threads)?;
            let mut at = 0;
            while at < chosen.len() {
                control.check()?;
                control.progress("Learning what matters", at as u64, chosen.len() as u64);
                let values = tracer.trace(&data.sample(chosen[at])?, control)?;
                let Some(y) = values.get(&self.program.output) else { break };
                let Ok(floats) = y.floats() else { break };
                if at == 0 {
                    let count = self.count(&values, y.len());
                    chosen = spread(indices, count);
                    self.prepare(&mut sums, &values);
                    if let Some(sums) = &mut sums_of_divergence {
                        self.prepare(sums, &values);
                    }
                }
                signal += floats.iter().map(|&y| f64::from(y) * f64::from(y)).sum::<f64>();
                let seeds = self.seeds(y, at);
                projections = seeds.len();
                let mut drawn: Vec<_> = seeds.into_iter().map(|(seed, weight)| (seed, weight, &sums)).collect();
                if let Some(of_divergence) = &sums_of_divergence {
                    match self.draws(y, floats, Weighting::Divergence, at) {
                        Some(seeds) => drawn.extend(seeds.into_iter().map(|(seed, w)| (seed, w, of_divergence))),
                        None => fits_classes = false,
                    }
                }
                let passed = drawn.into_par_iter().try_for_each(|(seed, weight, sums)| {
                    self.program.backward(&values, seed, self.watched, &mut |event| sums.add(&event, weight))
                });
                if let Err(refused) = passed {
                    return Ok(Err(refused));
                }
                at += 1;
                done = at;
            }
            control.progress("Learning what matters", chosen.len() as u64, chosen.len() as u64);
        }
        let mut known = self.finish(sums, signal, projections, done);
        match sums_of_divergence {
            Some(sums) if fits_classes && done > 0 => {
                known.divergence = Some(Box::new(self.finish(sums, 0.0, projections, done)));
            }
            Some(_) => known.notes.push(format!("{} gives no classes, so that nothing diverges", known.output)),
            None => {}
        }
        Ok(Ok(known))
    }

    /// How many samples the budget allows.
    fn count(&self, values: &Values, outputs: usize) -> usize {
        let projections = self.options.projections.max(1).min(outputs.max(1));
        let weights: usize = self.model.layers.iter().flat_map(|layer| &layer.weights).map(|w| w.layout.len()).sum();
        let cost = (self.program.multiplications(values) + TOUCH * weights as f64) * projections as f64;
        let affordable = (self.options.budget / cost.max(1.0)) as usize;
        let least = if affordable == 0 { LEAST_SAMPLES / 2 } else { LEAST_SAMPLES };
        affordable.clamp(least, self.options.samples.max(least))
    }

    /// Weightings of the output's elements with how much each counts: every element by itself when they are few, otherwise
    /// random signs.
    fn seeds(&self, y: &Value<'_>, sample: usize) -> Vec<(ArrayD<f32>, f64)> {
        let count = y.len();
        let shaped = |values: Vec<f32>| ArrayD::from_shape_vec(y.shape.clone(), values).ok();
        if count <= self.options.projections {
            let each = |at: usize| (0..count).map(|i| if i == at { 1.0 } else { 0.0 }).collect();
            return (0..count).filter_map(|at| shaped(each(at)).map(|seed| (seed, 1.0))).collect();
        }
        self.draws(y, &vec![0.0; count], Weighting::Squares, sample).unwrap_or_default()
    }

    /// Random weightings of the output's elements, whose values are `floats`, with how much each counts; `None` where the
    /// output does not fit what is asked for.
    fn draws(
        &self,
        y: &Value<'_>,
        floats: &[f32],
        weighting: Weighting,
        sample: usize,
    ) -> Option<Vec<(ArrayD<f32>, f64)>> {
        let projections = self.options.projections.max(1);
        let draw = |at: usize| {
            let seed = self.options.seed ^ ((sample * projections + at + 1) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let values = weighting.draw(floats, &y.shape, &mut fastrand::Rng::with_seed(seed))?;
            Some((ArrayD::from_shape_vec(y.shape.clone(), values).ok()?, 1.0 / projections as f64))
        };
        (0..projections).map(draw).collect()
    }

    fn sums(&self) -> Sums<'_> {
        let mut layers = HashMap::new();
        for layer in self.model.layers.iter().filter(|layer| layer.quantizable() && !layer.in_subgraph()) {
            for weight in &layer.weights {
                if self.program.is_complete(&layer.output) {
                    let sums = LayerSums { importance: vec![0.0; weight.layout.len()] };
                    layers.insert((layer.path.node, weight.input), Mutex::new(sums));
                }
            }
        }
        Sums { layers, tensors: HashMap::new() }
    }

    /// Makes room for the activations, now that their sizes are known.
    fn prepare<'s>(&'s self, sums: &mut Sums<'s>, values: &Values) {
        let mut readers: HashMap<&str, BTreeSet<usize>> = HashMap::new();
        let mut by_kernels: BTreeSet<&str> = BTreeSet::new();
        for layer in self.model.layers.iter().filter(|layer| layer.quantizable() && !layer.in_subgraph()) {
            readers.entry(&layer.input).or_default().insert(layer.path.node);
            if !matches!(layer.op.as_str(), "Conv" | "ConvTranspose") {
                by_kernels.insert(&layer.input);
            }
        }
        for name in self.watched {
            if !values.contains_key(name) || !self.program.is_complete(name) {
                continue;
            }
            let range = self.stats.and_then(|stats| stats.tensors.get(name)).map(crate::stats::TensorStats::range);
            let layers = readers.get(name.as_str()).cloned().unwrap_or_default();
            sums.tensors.insert(name, Mutex::new(TensorSums::new(range, layers, by_kernels.contains(name.as_str()))));
        }
    }

    fn finish(&self, sums: Sums<'_>, signal: f64, projections: usize, samples: usize) -> Sensitivity {
        let factor = 1.0 / samples.max(1) as f64;
        let mut out = Sensitivity {
            model_sha256: self.model.identity.clone(),
            output: self.program.output.clone(),
            samples,
            projections,
            signal: signal * factor,
            ..Sensitivity::default()
        };
        let mut importance: HashMap<(usize, usize), Vec<f32>> = HashMap::new();
        for (key, layer) in sums.layers {
            let mut values = layer.into_inner().unwrap_or_else(PoisonError::into_inner).importance;
            for value in &mut values {
                *value *= factor as f32;
            }
            importance.insert(key, values);
        }
        for layer in self.model.layers.iter().filter(|layer| layer.quantizable()) {
            let keys = layer.weights.iter().map(|weight| (layer.path.node, weight.input));
            let known = !layer.in_subgraph() && samples > 0 && keys.clone().all(|key| importance.contains_key(&key));
            if !known {
                out.unknown.push(Unknown { layer: layer.name.clone(), why: self.why(layer) });
                continue;
            }
            out.layers.insert(layer.name.clone(), LayerSensitivity::default());
            for (at, key) in keys.enumerate() {
                if let Some(values) = importance.remove(&key) {
                    out.importance.insert((layer.name.clone(), at), Arc::new(values));
                }
            }
        }
        for (name, tensor) in sums.tensors {
            let tensor = tensor.into_inner().unwrap_or_else(PoisonError::into_inner);
            out.tensors.insert(name.to_owned(), tensor.finish(factor));
        }
        for blocked in &self.program.blocked {
            out.notes.push(format!("Gradients cannot pass {} (node {}): {}", blocked.op, blocked.node, blocked.why));
        }
        out
    }

    fn why(&self, layer: &Layer) -> String {
        if layer.in_subgraph() {
            return "it lies in a body of If, Loop or Scan, which gradients do not enter".to_owned();
        }
        let ops: BTreeSet<&str> = self.program.blocked.iter().map(|blocked| blocked.op.as_str()).collect();
        if ops.is_empty() {
            return "the output does not depend on it".to_owned();
        }
        format!("gradients cannot pass {}", ops.into_iter().collect::<Vec<_>>().join(", "))
    }
}

impl Sums<'_> {
    fn add(&self, event: &Event<'_>, weight: f64) {
        match event {
            Event::Constant { node, input, gradient } => {
                if let Some(layer) = self.layers.get(&(*node, *input)) {
                    layer.lock().unwrap_or_else(PoisonError::into_inner).add(gradient, weight as f32);
                }
            }
            Event::Activation { tensor, value, edges } => {
                if let Some(tensor) = self.tensors.get(tensor) {
                    tensor.lock().unwrap_or_else(PoisonError::into_inner).add(value, edges, weight);
                }
            }
        }
    }
}

/// `count` of `indices`, spread over them: one from each of as many equal stretches, at a place that the seed decides, since
/// samples often come in turns (class by class) that even steps would hit at the same place every time.
pub(super) fn spread(indices: &[usize], count: usize) -> Vec<usize> {
    let count = count.min(indices.len());
    let mut rng = fastrand::Rng::with_seed(count as u64);
    let place = |i: usize| i * indices.len() / count;
    (0..count).filter_map(|i| indices.get(rng.usize(place(i)..place(i + 1))).copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_that_come_in_turns_are_all_met() {
        let indices: Vec<usize> = (0..64).collect();
        let chosen = spread(&indices, 16);
        assert!(chosen.windows(2).all(|pair| pair[0] < pair[1]) && chosen.len() == 16);
        let turns: BTreeSet<usize> = chosen.iter().map(|index| index % 4).collect();
        assert_eq!(turns.len(), 4, "{chosen:?}");
        assert_eq!(spread(&indices, 100), indices);
        assert!(spread(&[], 3).is_empty());
    }
}
