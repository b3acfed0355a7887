//! The plan that `--plan`, `--preset` and `--set` describe.

use nibble_core::export;
use nibble_core::model::Model;
use nibble_core::plan::{self, Plan, Rule};

use super::args::PlanArgs;
use super::failure::Failure;

/// The preset when neither `--plan` nor `--preset` is given.
const DEFAULT: &str = "int8";

/// Reads the plan.
pub fn of(args: &PlanArgs, model: &Model) -> Result<Plan, Failure> {
    let wrong = |error: plan::PlanError| Failure::from(nibble_core::Error::from(error)).into_usage();
    let mut plan = match &args.plan {
        Some(path) => Plan::load(path)?,
        None => model.preset_plan(plan::preset(args.preset.as_deref().unwrap_or(DEFAULT)).map_err(wrong)?)?,
    };
    for pair in args.set.chunks_exact(2) {
        if let [pattern, set] = pair {
            plan.push_rule(Rule { pattern: pattern.parse().map_err(wrong)?, set: set.parse().map_err(wrong)? });
        }
    }
    plan.model_sha256.clone_from(&model.file.sha256);
    Ok(plan)
}

/// Whether any layer will be written with ranges of its activations, which only data can tell.
pub fn needs_calibration(plan: &Plan, model: &Model) -> bool {
    model.layers.iter().any(|layer| {
        let form = export::pick(model, layer, plan.choice(&layer.name), None).form;
        form.needs_statistics()
    })
}
