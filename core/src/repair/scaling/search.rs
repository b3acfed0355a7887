//! Finds scalings block by block: the layers that a tensor enters, or that a sum ties to it.
//!
//! Factors are judged by the error of these layers' outputs on rows of calibration with inputs and weights rounded as the
//! plan says, relative to the signal and summed over the layers. A third of the rows is held back: a scaling is kept for its
//! gain there. Input ranges are those of all samples, since they set the scale that would be exported.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::block::Block;
use super::constants::Main;
use super::reach::Reach;
use super::smooth::Ranges;
use super::{Scaling, ScalingMethod, awq, equalise};
use crate::model::Model;
use crate::plan::{Clip, Plan, SCALINGS_LEFT_OUT, Set};
use crate::stats::{ChannelAxis, Stats};
use crate::{Control, Error};

/// Least gain in dB on rows held back for which the graph is changed.
const LEAST_GAIN_DB: f64 = 0.25;

/// A block of layers and what scaling does to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScaledBlock {
    /// The tensor that is divided.
    pub tensor: String,
    /// The layers whose weights are multiplied.
    pub layers: Vec<String>,
    /// What 1/s goes into; `None` where a Mul is inserted, which costs one pass over the tensor at each run.
    pub folded_into: Option<String>,
    /// Share of the activations' range that moves into the weights.
    pub alpha: Option<f32>,
    /// SQNR of the block's outputs on rows held back, without the scaling; `None` where nothing is known of its inputs.
    pub before_db: Option<f64>,
    /// The same with it.
    pub after_db: Option<f64>,
    /// Whether it gains enough to be kept.
    pub kept: bool,
}

/// What is searched.
#[derive(Clone, Copy)]
pub struct ScaleOptions<'a> {
    /// By which formula.
    pub method: ScalingMethod,
    /// Whether a layer of this name is meant; a block is scaled when one of its layers is.
    pub wanted: &'a dyn Fn(&str) -> bool,
    /// A block that stays below this SQNR in dB even when scaled is left as it is: for plans whose layers then go without
    /// rounded inputs ([`Plan::spare`]), since weights that have taken on the activations' range round worse.
    pub least_db: Option<f64>,
}

/// Scalings that were found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scaled {
    /// Those that are kept, in the order in which they are to be made; to be added to the plan's.
    pub scalings: Vec<Scaling>,
    /// Every block that was tried.
    pub blocks: Vec<ScaledBlock>,
}

/// Searches scalings for the layers of `plan`. `model` has the scalings that the plan
/// has already, and `stats` were gathered on it; equalisation does without. Statistics do not fit the scaled model
/// afterwards: calibrate again.
pub fn scale(
    model: &Model,
    stats: Option<&Stats>,
    plan: &Plan,
    options: &ScaleOptions<'_>,
    control: &Control,
) -> Result<Scaled, Error> {
    let ScaleOptions { method, wanted, least_db } = *options;
    let scaled = model.scaled(plan)?;
    let model = &*scaled;
    let none = Stats::default();
    let stats = stats.unwrap_or(&none);
    let concerns = |model: &Model, reach: &Reach| {
        reach
            .layers
            .iter()
            .filter_map(|(index, _)| model.layers.get(*index))
            .any(|layer| method.fits(&plan.choice(&layer.name)) && wanted(&layer.name))
    };
    let mut tensors: Vec<String> = Vec::new();
    for layer in model.layers.iter().filter(|layer| layer.quantizable() && !layer.in_subgraph()) {
        if !tensors.contains(&layer.input) {
            tensors.push(layer.input.clone());
        }
    }
    let known = match method {
        ScalingMethod::Equalisation => equalise::equalised(model, &tensors, &concerns, control)?,
        ScalingMethod::Smoothquant | ScalingMethod::Awq => Vec::new(),
    };
    let mut working = model.clone();
    let mut found = Scaled::default();
    let mut covered = BTreeSet::new();
    for (done, tensor) in tensors.iter().enumerate() {
        control.check()?;
        control.progress("Scaling", done as u64, tensors.len() as u64);
        let Some(main) = Main::of(&working).filter(|_| !covered.contains(tensor)) else { continue };
        let folded = Reach::folded(&main, tensor);
        // A Mul behind an integer kernel would take the tensor out of its chain: convolutions scale for free or not at all.
        let inserted = || Reach::inserted(&main, tensor).filter(|reach| reach.shape.axis == ChannelAxis::Last);
        let reach = if method == ScalingMethod::Equalisation { folded } else { folded.or_else(inserted) };
        let Some(reach) = reach.filter(|reach| concerns(&working, reach)) else { continue };
        covered.extend(reach.tensors.iter().cloned());
        let block = Block::new(&main, &reach, plan, stats)?;
        let best = match method {
            ScalingMethod::Equalisation => {
                known.iter().find(|known| known.tensor == *tensor).map(|known| (None, known.factors.clone()))
            }
            ScalingMethod::Smoothquant => {
                let ranges = Ranges::of(&block.trials, reach.shape.channels);
                block.best(&|alpha| ranges.factors(alpha), control)?
            }
            ScalingMethod::Awq => {
                let magnitudes = awq::magnitudes(&block.trials, reach.shape.channels);
                block.best(&|alpha| awq::factors(&magnitudes, alpha), control)?
            }
        };
        let Some((alpha, factors)) = best else { continue };
        let (before, after) = (block.decibels(None), block.decibels(Some(&factors)));
        let kept = match (before, after) {
            (Some(before), Some(after)) => {
                after >= before + LEAST_GAIN_DB && least_db.is_none_or(|least| after >= least)
            }
            // Without data equalisation stands on the weights alone.
            _ => method == ScalingMethod::Equalisation,
        };
        found.blocks.push(ScaledBlock {
            tensor: tensor.clone(),
            layers: block.names(),
            folded_into: reach.folded_into.clone(),
            alpha,
            before_db: before,
            after_db: after,
            kept,
        });
        let folded_into = reach.folded_into.clone();
        drop(block);
        drop(main);
        if kept {
            let scaling = Scaling { tensor: tensor.clone(), factors, folded_into, method, alpha };
            working.scale(&scaling)?;
            found.scalings.push(scaling);
        }
    }
    control.progress("Scaling", tensors.len() as u64, tensors.len() as u64);
    Ok(found)
}

impl Plan {
    /// Takes over the scalings that are kept. Inputs that SmoothQuant evened out take their whole range: its factors make the
    /// largest values of all channels alike, and a clip would cut them all. Rules of the plan, which a person wrote, win.
    pub fn adopt(&mut self, found: &Scaled) {
        self.scalings.extend(found.scalings.iter().cloned());
        self.unknown.remove(SCALINGS_LEFT_OUT);
        let smooth = |tensor: &str| {
            let its = found.scalings.iter().find(|scaling| scaling.tensor == tensor);
            its.is_some_and(|scaling| scaling.method == ScalingMethod::Smoothquant)
        };
        let blocks = found.blocks.iter().filter(|block| block.kept && smooth(&block.tensor));
        let names: Vec<&str> = blocks.flat_map(|block| &block.layers).map(String::as_str).collect();
        let rules = std::mem::take(&mut self.rules);
        self.set_layers(names, &Set { activation_clip: Some(Clip::MinMax), ..Set::default() });
        for rule in rules {
            self.push_rule(rule);
        }
    }
}
