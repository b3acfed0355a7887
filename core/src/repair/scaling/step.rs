//! A scaling put into a plan, with the model and the statistics that the plan then belongs to.

use super::search::{ScaleOptions, Scaled, scale};
use crate::calibrate::{CalibrateOptions, calibrate};
use crate::data::DataSet;
use crate::export::needs_calibration;
use crate::model::Model;
use crate::plan::{Plan, Rounding};
use crate::runtime::Runtime;
use crate::stats::Stats;
use crate::{Control, Error};

/// The samples that the scaled model is calibrated with.
#[derive(Clone, Copy)]
pub struct Calibration<'a> {
    /// What runs it.
    pub runtime: &'a Runtime,
    /// The samples.
    pub data: &'a DataSet,
    /// Which of them.
    pub indices: &'a [usize],
    /// How.
    pub options: &'a CalibrateOptions,
    /// Which rows are kept.
    pub seed: u64,
    /// Whether it is calibrated even where the plan needs no ranges of activations.
    pub always: bool,
}

/// A plan with scalings that gain.
#[derive(Clone)]
pub struct ScaledPlan {
    /// The plan.
    pub plan: Plan,
    /// The model with the plan's scalings.
    pub model: Model,
    /// Its statistics, where the plan needs some and there are samples.
    pub stats: Option<Stats>,
    /// Layers whose repairs were for other weights, and that are rounded to nearest again.
    pub unrepaired: Vec<String>,
}

/// Searches scalings for the layers of `plan` ([`scale`]); where some gain, puts them into it, scales the model, and calibrates
/// it where the plan is static or that is asked for. Repairs are relative to the scaled model: those of layers whose weights change are dropped.
pub fn scale_plan(
    model: &Model,
    stats: Option<&Stats>,
    plan: &Plan,
    options: &ScaleOptions<'_>,
    calibration: Option<Calibration<'_>>,
    control: &Control,
) -> Result<(Scaled, Option<ScaledPlan>), Error> {
    let found = scale(model, stats, plan, options, control)?;
    if found.scalings.is_empty() {
        return Ok((found, None));
    }
    let mut plan = plan.clone();
    plan.adopt(&found);
    let scaled = model.scaled(&plan)?.into_owned();
    let unrepaired = drop_repairs(&mut plan, model, &scaled)?;
    let stats = match calibration {
        Some(Calibration { runtime, data, indices, options, seed, always })
            if always || needs_calibration(&plan, &scaled) =>
        {
            let mut stats = Stats::new(scaled.identity.as_str(), seed);
            calibrate(&scaled, runtime, data, indices, options, &mut stats, control)?;
            Some(stats)
        }
        _ => None,
    };
    Ok((found, Some(ScaledPlan { plan, model: scaled, stats, unrepaired })))
}

/// Rounds layers to nearest whose weights differ between the two models.
fn drop_repairs(plan: &mut Plan, before: &Model, after: &Model) -> Result<Vec<String>, Error> {
    let mut dropped = Vec::new();
    for (old, new) in before.layers.iter().zip(&after.layers) {
        let mut choice = plan.choice(&old.name);
        if choice.rounding == Rounding::Nearest {
            continue;
        }
        let mut differs = false;
        for (its, scaled) in old.weights.iter().zip(&new.weights) {
            differs |= before.weight(old, its)? != after.weight(new, scaled)?;
        }
        if differs {
            choice.rounding = Rounding::Nearest;
            plan.set_layer(&old.name, choice);
            plan.repairs.remove(&old.name);
            dropped.push(old.name.clone());
        }
    }
    Ok(dropped)
}
