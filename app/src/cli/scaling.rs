//! The scaling methods of `--repair` and `repair --method`: the float model made easier to round before anything is.

use nibble_core::calibrate::CalibrateOptions;
use nibble_core::model::Model;
use nibble_core::plan::{Plan, spare};
use nibble_core::repair::{Calibration, Method, ScaleOptions, ScaledPlan, ScalingMethod, scale_plan};
use nibble_core::runtime::Runtime;
use nibble_core::stats::Stats;
use serde_json::{Value, json};

use super::args::PlanArgs;
use super::console::Console;
use super::failure::Failure;
use super::inputs::Samples;
use super::plan;
use crate::repairs::RepairMethod;

/// What `--repair` names: a scaling, a repair of rounding, or both joined by `+`, made in this order.
#[derive(Clone, Copy, Default)]
pub struct Words {
    pub scaling: Option<ScalingMethod>,
    pub method: Option<Method>,
}

impl Words {
    /// Reads them.
    pub fn of(text: &str) -> Result<Self, Failure> {
        let mut words = Self::default();
        for word in text.split('+') {
            match RepairMethod::of(word) {
                None => {
                    let hint = format!("Use one of: {}", RepairMethod::words());
                    return Err(Failure::usage(format!("{word:?} is no repair"), "--method", &hint));
                }
                Some(RepairMethod::Scaling(method)) if words.scaling.is_none() && words.method.is_none() => {
                    words.scaling = Some(method);
                }
                Some(RepairMethod::Rounding(method)) if words.method.is_none() => words.method = Some(method),
                Some(_) => {
                    let hint = "Name one scaling and one repair after it, such as smoothquant+gptq";
                    return Err(Failure::usage(format!("{text:?} cannot be done in a row"), "--repair", hint));
                }
            }
        }
        Ok(words)
    }

    /// Whether the scaling is found from statistics.
    pub fn learns(self) -> bool {
        self.scaling.is_some_and(|method| method != ScalingMethod::Equalisation)
    }
}

/// What a scaling works with.
pub struct Step<'a> {
    pub args: &'a PlanArgs,
    pub runtime: &'a Runtime,
    /// To calibrate the scaled model with.
    pub samples: Option<&'a Samples>,
    pub threads: usize,
    pub seed: u64,
}

impl Step<'_> {
    /// Puts the scalings that gain into the plan; returns the model with them, its own statistics where the plan needs
    /// some, and what the result says about it.
    pub fn run(
        &self,
        model: Model,
        plan: &mut Plan,
        stats: Option<Stats>,
        method: ScalingMethod,
        wanted: &dyn Fn(&str) -> bool,
        console: &Console,
    ) -> Result<(Model, Option<Stats>, Value), Failure> {
        let least_db = plan::spares(plan, self.args).then_some(spare::LEAST_DB);
        let options = ScaleOptions { method, wanted, least_db };
        let how = CalibrateOptions { threads: self.threads };
        let calibration = self.samples.map(|Samples { set, indices }| Calibration {
            runtime: self.runtime,
            data: set,
            indices,
            options: &how,
            seed: self.seed,
            always: false,
        });
        let (found, scaled) = scale_plan(&model, stats.as_ref(), plan, &options, calibration, console.control())?;
        let kept = found.blocks.iter().filter(|block| block.kept);
        let inserted = kept.clone().filter(|block| block.folded_into.is_none()).count();
        let gains: Vec<f64> = kept.filter_map(|block| Some(block.after_db? - block.before_db?)).collect();
        let gain = if gains.is_empty() {
            "judged by their weights alone".to_owned()
        } else {
            format!("{:.1} dB on average on rows held back", gains.iter().sum::<f64>() / gains.len() as f64)
        };
        let (all, count) = (found.blocks.len(), found.scalings.len());
        console.note(&match count {
            0 => format!("{method}: none of {all} blocks of layers gains from it"),
            _ => format!(
                "{method}: {count} of {all} blocks of layers scaled, {inserted} with a Mul of their own; {gain}"
            ),
        });
        let json = json!({"method": method, "blocks": found.blocks});
        let Some(ScaledPlan { plan: scaled, model, stats, unrepaired }) = scaled else {
            return Ok((model, stats, json));
        };
        *plan = scaled;
        if !unrepaired.is_empty() {
            console.note(&format!(
                "Repaired for the weights as they were, and rounded to nearest again: {}",
                unrepaired.join(", ")
            ));
        }
        Ok((model, stats, json))
    }
}
