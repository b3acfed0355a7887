//! The nearest plan that a target takes.

use super::conflicts;
use crate::model::Model;
use crate::plan::Plan;
use crate::stats::Stats;

/// Rounds of fixing: a way out of one rule may run into another, which the next round mends.
const ROUNDS: usize = 4;

/// Takes every way out there is of the conflicts between `plan` and its target, and returns how many layers changed. What no
/// choice mends stays a conflict.
pub fn fix(plan: &mut Plan, model: &Model, stats: Option<&Stats>) -> usize {
    let before = plan.clone();
    for _ in 0..ROUNDS {
        let mut changed = false;
        for conflict in conflicts(model, plan, stats) {
            let Some(set) = conflict.set else { continue };
            plan.set_layers([conflict.layer.as_str()], &set);
            changed = true;
        }
        if !changed {
            break;
        }
    }
    model.layers.iter().filter(|layer| before.choice(&layer.name) != plan.choice(&layer.name)).count()
}
