//! Layers whose activations a static preset leaves in floating point, for what calibration saw: one range for the whole
//! input would cost too much, or the integer kernel would run longer than the float one.

mod outliers;
mod slow;

pub use outliers::LEAST_DB;

use super::{Activation, Mode, Plan, Set};
use crate::model::Model;
use crate::stats::Stats;
use crate::{Control, Error, Problem};

/// A layer that keeps its activations in floating point.
#[derive(Clone, Debug, PartialEq)]
pub struct Spared {
    /// The layer's name.
    pub layer: String,
    /// Why.
    pub cause: Cause,
    /// What changes for it.
    pub change: Set,
}

/// Why a layer is spared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cause {
    /// Its input has outliers: one 8-bit range for the whole tensor leaves too few steps for the rest.
    Outliers {
        /// SQNR at the layer's own output with only its input rounded, in dB.
        activations_db: f64,
    },
    /// Its integer kernel is expected to take longer than the float one, what it takes to get there and back included.
    SlowKernel {
        /// Expected microseconds on integers, one thread.
        integer_us: f64,
        /// Expected microseconds in floating point.
        float_us: f64,
    },
}

/// The layers of `plan` that are better spared.
pub fn spare(model: &Model, stats: &Stats, plan: &Plan, control: &Control) -> Result<Vec<Spared>, Error> {
    let mut found = outliers::outliers(model, stats, plan, control)?;
    found.extend(slow::slow(model, stats, plan));
    Ok(found)
}

/// Activations in floating point, weights as they are.
fn weights_only() -> Set {
    Set { mode: Some(Mode::WeightOnly), activation: Some(Activation::Float32), ..Set::default() }
}

/// Says which layers were spared and why.
pub fn said(spared: &[Spared]) -> Vec<Problem> {
    outliers::said(spared).into_iter().chain(slow::said(spared)).collect()
}

impl Plan {
    /// Leaves the activations of these layers in floating point. Rules of the plan, which a person wrote, win over it.
    pub fn spare(&mut self, spared: &[Spared]) {
        self.beneath_rules(spared.iter().map(|spared| (spared.layer.as_str(), spared.change)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Precision, Rule, preset};

    #[test]
    fn what_a_person_set_wins_over_sparing() {
        let mut plan = preset("int8").expect("preset").plan();
        let rule = Rule { pattern: "b".parse().expect("glob"), set: "mode=static".parse().expect("set") };
        plan.push_rule(rule);
        let spared = |layer: &str| Spared {
            layer: layer.to_owned(),
            cause: Cause::Outliers { activations_db: 12.0 },
            change: weights_only(),
        };
        plan.spare(&[spared("a"), spared("b")]);
        assert_eq!(plan.choice("a").mode, Mode::WeightOnly);
        assert_eq!(plan.choice("a").precision, Precision::Int8);
        assert!(plan.choice("b").is_static());
        assert!(plan.choice("c").is_static());
        assert_eq!(plan.rules.len(), 1);
    }
}
