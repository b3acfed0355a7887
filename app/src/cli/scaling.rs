//! The scaling methods of `--repair` and `repair --method`: the float model made easier to round before anything is.

use nibble_core::model::Model;
use nibble_core::plan::{Plan, spare};
use nibble_core::repair::{Method, ScaleOptions, ScalingMethod, scale};
use nibble_core::runtime::Runtime;
use nibble_core::stats::Stats;
use serde_json::{Value, json};

use super::args::PlanArgs;
use super::console::Console;
use super::failure::Failure;
use super::inputs::Samples;
use super::{calibrate, plan, repair};

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
            match word.parse::<ScalingMethod>() {
                Ok(method) if words.scaling.is_none() && words.method.is_none() => words.scaling = Some(method),
                Err(_) if words.method.is_none() => words.method = Some(repair::method(word)?),
                _ => {
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
        let found = scale(&model, stats.as_ref(), plan, &options, console.control())?;
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
        if count == 0 {
            return Ok((model, stats, json));
        }
        plan.adopt(&found);
        let model = model.scaled(plan)?.into_owned();
        let stats = match self.samples {
            Some(samples) if plan::needs_calibration(plan, &model) => {
                let mut stats = Stats::new(model.identity.as_str(), self.seed);
                calibrate::gather(&model, self.runtime, samples, self.threads, &mut stats, console)?;
                Some(stats)
            }
            _ => None,
        };
        Ok((model, stats, json))
    }
}
