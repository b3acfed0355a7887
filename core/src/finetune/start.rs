//! Where training starts: the plan with every layer that could be trained as a repair, its integers still those that the plan
//! gives.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Untrained;
use crate::Error;
use crate::export::{Form, pick};
use crate::model::{Layer, Model};
use crate::plan::{Choice, Clip, Plan, Precision, Rounding};
use crate::quant::{QuantizedWeight, quantize_weight};
use crate::repair::{BiasSlot, LayerRepair};
use crate::stats::Stats;

/// A layer to train.
pub struct Candidate {
    /// Index of the layer.
    pub layer: usize,
    /// Its choice as the form honours it.
    pub choice: Choice,
    /// Its integers.
    pub weight: QuantizedWeight,
    /// Integers on scales with less squared error, where the plan asks for the whole range.
    pub tighter: Option<QuantizedWeight>,
    /// The values behind the integers, where they were rounded to nearest.
    pub float: Option<Vec<f32>>,
    /// Its bias.
    pub bias: Option<Vec<f32>>,
    /// Integers used, where fewer than the bits hold.
    pub levels: Option<u32>,
}

impl Candidate {
    /// Gives the layer called `name` these integers in `plan`.
    pub fn put(&self, plan: &mut Plan, name: &str, weight: QuantizedWeight, bias: Option<Vec<f32>>) {
        let repair = LayerRepair {
            method: Rounding::Finetuned,
            precision: self.choice.precision,
            symmetry: self.choice.symmetry,
            granularity: self.choice.granularity,
            weights: vec![weight],
            bias,
            data_free: false,
            levels: self.levels,
            held_back: None,
        };
        plan.set_layer(name, Choice { rounding: Rounding::Finetuned, ..self.choice });
        plan.repairs.insert(name.to_owned(), Arc::new(repair));
    }
}

/// The layers to train, and those that are not.
pub struct Start {
    /// In the model's order.
    pub candidates: Vec<Candidate>,
    /// With the reason.
    pub untrained: Vec<Untrained>,
}

impl Start {
    /// What `plan` leaves to train.
    pub fn new(model: &Model, stats: Option<&Stats>, plan: &Plan) -> Result<Self, Error> {
        let repaired = model.repaired(plan)?;
        let mut readers: BTreeMap<&str, usize> = BTreeMap::new();
        for weight in repaired.layers.iter().flat_map(|layer| &layer.weights) {
            *readers.entry(&weight.tensor).or_default() += 1;
        }
        let mut start = Self { candidates: Vec::new(), untrained: Vec::new() };
        for (at, layer) in repaired.layers.iter().enumerate() {
            let asked = plan.choice(&layer.name);
            let honoured = pick(&repaired, layer, asked, stats);
            if !honoured.choice.is_integer() || honoured.form == Form::Float {
                continue;
            }
            let (choice, _) = layer.without_missing_repair(honoured.choice);
            let shared = layer.weights.iter().any(|weight| readers.get(weight.tensor.as_str()).is_some_and(|&n| n > 1));
            match refusal(layer, honoured.form, shared) {
                Some(why) => start.untrained.push(Untrained { layer: layer.name.clone(), why: why.to_owned() }),
                None => start.candidates.extend(candidate(&repaired, at, layer, choice)?),
            }
        }
        Ok(start)
    }

    /// `plan` with these layers as repairs: `weights` and `biases` one a candidate.
    pub fn plan(&self, plan: &Plan, names: &[String], made: &[(QuantizedWeight, Option<Vec<f32>>)]) -> Plan {
        let mut plan = plan.clone();
        for ((candidate, name), (weight, bias)) in self.candidates.iter().zip(names).zip(made) {
            candidate.put(&mut plan, name, weight.clone(), bias.clone());
        }
        plan
    }
}

/// Why a layer cannot be trained, whatever gradients reach.
fn refusal(layer: &Layer, form: Form, is_shared: bool) -> Option<&'static str> {
    let trains = matches!(layer.op.as_str(), "Conv" | "ConvTranspose" | "Gemm" | "MatMul" | "Gather");
    let floats = layer.weights.iter().all(|weight| weight.is_f32);
    match form {
        _ if layer.in_subgraph() => Some("it lies in a body of If, Loop or Scan"),
        _ if !trains || layer.weights.len() != 1 => Some("its operator has no backward here"),
        _ if !floats => Some("its weights are in half or double precision"),
        _ if is_shared => Some("another layer reads the same weight"),
        Form::FoldedWeights
        | Form::Qdq
        | Form::Int4CastQdq
        | Form::Int2CastQdq
        | Form::Int16Activations
        | Form::MatmulNbits
        | Form::DynamicMatmul
        | Form::QuantizedGather => None,
        _ => Some("its form is not simulated"),
    }
}

fn candidate(model: &Model, at: usize, layer: &Layer, choice: Choice) -> Result<Option<Candidate>, Error> {
    let Some(weight) = layer.weight() else { return Ok(None) };
    let values = model.weight(layer, weight)?;
    if values.len() != weight.layout.len() || !values.iter().all(|value| value.is_finite()) {
        return Ok(None);
    }
    let repair = layer.repair(&choice);
    let quantized = weight.quantize(&values, &choice);
    let is_wide = repair.is_none() && choice.clip == Clip::MinMax && choice.precision.bits() < 8;
    let tighter = is_wide.then(|| quantize_weight(&values, weight.layout, &Choice { clip: Clip::Mse, ..choice }));
    // 7 of 8 bits: what is in use stays the limit.
    let reduced = (choice.reduce_range && choice.precision == Precision::Int8).then_some(128);
    Ok(Some(Candidate {
        layer: at,
        choice,
        weight: quantized,
        tighter: tighter.filter(|_| weight.kept_grid(&choice).is_none()),
        float: repair.is_none().then(|| values.into_owned()),
        bias: BiasSlot::of(model, layer)?.map(|slot| slot.values),
        levels: repair.and_then(|repair| repair.levels).or(reduced),
    }))
}
