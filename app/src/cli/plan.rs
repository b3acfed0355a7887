//! The plan that `--plan`, `--preset` and `--set` describe.

use std::path::Path;

use nibble_core::export::Stored;
use nibble_core::model::Model;
use nibble_core::plan::{self, Plan, Rounding, Rule, hurry, spare, targets};
use nibble_core::stats::Stats;
use nibble_core::{Control, Error};

use super::args::PlanArgs;
use super::failure::Failure;

/// The preset when neither `--plan` nor `--preset` is given.
const DEFAULT: &str = "int8";

/// Reads the plan.
pub fn of(args: &PlanArgs, model: &Model) -> Result<Plan, Failure> {
    read(args, model, false)
}

/// The same for whoever then repairs what a preset wants repaired, if it wants that ([`rounding`]).
pub fn with_data(args: &PlanArgs, model: &Model) -> Result<Plan, Failure> {
    read(args, model, true)
}

fn read(args: &PlanArgs, model: &Model, with_data: bool) -> Result<Plan, Failure> {
    let wrong = |error: plan::PlanError| Failure::from(nibble_core::Error::from(error)).into_usage();
    let mut plan = match &args.plan {
        Some(path) => load(path)?,
        None => {
            let preset = plan::preset(args.preset.as_deref().unwrap_or(DEFAULT)).map_err(wrong)?;
            if with_data { model.preset_plan_with_data(preset)? } else { model.preset_plan(preset)? }
        }
    };
    for pair in args.set.chunks_exact(2) {
        if let [pattern, set] = pair {
            plan.push_rule(Rule { pattern: pattern.parse().map_err(wrong)?, set: set.parse().map_err(wrong)? });
        }
    }
    if let Some(name) = &args.target {
        plan.target.clone_from(&targets::target(name).map_err(wrong)?.name);
    }
    fix_target(&mut plan, args, model, None);
    plan.model_sha256.clone_from(&model.file.sha256);
    Ok(plan)
}

/// Whether [`spare`] does anything.
pub fn spares(plan: &Plan, args: &PlanArgs) -> bool {
    args.plan.is_none() && plan::preset(&plan.preset).is_ok_and(|preset| preset.spares)
}

/// The repair by which a preset makes use of data.
pub fn rounding(plan: &Plan, args: &PlanArgs) -> Option<Rounding> {
    let preset = plan::preset(&plan.preset).ok().filter(|_| args.plan.is_none())?;
    Some(preset.with_data?.rounding)
}

/// Whether [`hurry`] does anything.
pub fn hurries(plan: &Plan, args: &PlanArgs) -> bool {
    args.plan.is_none()
        && plan::preset(&plan.preset).is_ok_and(|preset| preset.with_data.is_some_and(|data| data.hurries))
}

/// Moves matrices to a faster kernel where calibration says that this costs little, where the plan is a preset that does so,
/// and says which.
pub fn hurry(plan: &mut Plan, args: &PlanArgs, model: &Model, stats: &Stats, control: &Control) -> Result<(), Error> {
    if !hurries(plan, args) {
        return Ok(());
    }
    let mut found = hurry::hurry(model, stats, plan, control)?;
    plan.hurry(&found);
    // What the person set otherwise stays so.
    found.retain(|hurried| plan.choice(&hurried.layer).is_dynamic());
    if let Some(problem) = hurry::said(&found) {
        control.problem(problem);
    }
    Ok(())
}

/// Makes the plan one that its target takes, where the person asked for that.
fn fix_target(plan: &mut Plan, args: &PlanArgs, model: &Model, stats: Option<&Stats>) {
    if args.fix_target {
        targets::fix(plan, model, stats);
    }
}

/// Leaves activations in floating point where calibration says that this is better and the target takes it, where the plan is
/// a preset that does so, and says which.
pub fn spare(plan: &mut Plan, args: &PlanArgs, model: &Model, stats: &Stats, control: &Control) -> Result<(), Error> {
    if !spares(plan, args) {
        fix_target(plan, args, model, Some(stats));
        return Ok(());
    }
    let mut found = spare::spare(model, stats, plan, control)?;
    found.retain(|spared| targets::takes_spared(plan, model, spared, Some(stats)));
    plan.spare(&found);
    // What the person set to static stays so.
    found.retain(|spared| !plan.choice(&spared.layer).is_static());
    for problem in spare::said(&found) {
        control.problem(problem);
    }
    // Calibration may have shown a layer to be without values, which a target then takes in another form only.
    fix_target(plan, args, model, Some(stats));
    Ok(())
}

/// Reads a plan file, or the plan that an exported model carries.
pub fn load(path: &Path) -> Result<Plan, Error> {
    if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("onnx")) {
        let why = "the model carries no plan: it was not exported by Nibble, or its metadata were removed since";
        let none = || plan::PlanError::Format { path: path.to_owned(), why: why.to_owned() };
        return Ok(Stored::in_file(path).ok_or_else(none)?.plan);
    }
    Plan::load(path)
}
