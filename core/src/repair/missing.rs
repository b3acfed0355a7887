//! Repairs that a plan's choices ask for and its file does not bring.

use super::job::{Job, RepairedLayer};
use super::refit::sequence;
use crate::plan::{Plan, Rounding};
use crate::{Control, Error};

/// Layers whose `rounding` names a repair that the plan does not have, by index; fine-tuning is no repair of this kind.
pub fn missing(job: &Job<'_>) -> Result<Vec<(usize, Rounding)>, Error> {
    let repaired = job.model.repaired(job.plan)?;
    let layers = repaired.layers.iter().enumerate();
    let wish = |(at, layer): (usize, &crate::model::Layer)| {
        let rounding = job.plan.choice(&layer.name).rounding;
        let choice = crate::plan::Choice { rounding, ..job.choice(layer)? };
        let can = !matches!(rounding, Rounding::Nearest | Rounding::Finetuned);
        (can && layer.repair(&choice).is_none()).then_some((at, rounding))
    };
    Ok(layers.filter_map(wish).collect())
}

/// The plan with its missing repairs made: each by itself first, then those that refit, from what they meet then.
pub fn repair_missing(job: &Job<'_>, control: &Control) -> Result<(Plan, Vec<RepairedLayer>), Error> {
    let (refits, alone): (Vec<_>, Vec<_>) =
        missing(job)?.into_iter().partition(|(_, rounding)| *rounding == Rounding::Refit);
    let mut plan = job.plan.clone();
    let mut done = job.one_pass(&alone, control)?;
    for layer in &done {
        layer.put(&mut plan);
    }
    if !refits.is_empty() {
        let indices: Vec<usize> = refits.into_iter().map(|(at, _)| at).collect();
        let refitted = sequence(&Job { plan: &plan.clone(), ..*job }, &indices, control)?;
        for layer in &refitted {
            layer.put(&mut plan);
        }
        done.extend(refitted);
    }
    Ok((plan, done))
}
