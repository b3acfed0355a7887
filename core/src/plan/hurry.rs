//! Matrices of 4-bit weights that a preset moves to the faster integer kernel, where calibration shows that this costs little.
//!
//! MatMulNBits unpacks its blocks on every run. That pays for a row or a few; for the many rows of a sentence or a picture's
//! patches it takes as long as the float kernel, while DynamicQuantizeMatMul on the same 4-bit weights takes less than half.
//! The price is one scale a column instead of one a block, and one range for the whole input instead of one for each block of
//! each row. On a sentence encoder (MiniLM) that is 0.4 to 1.6 dB at the outputs of the attention's matrices, 1.2 to 2.2 where
//! the hidden layers widen and 3.5 to 5.6 where they narrow, whose inputs have outliers.

use rayon::prelude::*;

use super::targets::takes_changed;
use super::{Activation, Granularity, Mode, Plan, Precision, Set};
use crate::error::Probe;
use crate::export::{self, Form, MANY_ROWS, rows};
use crate::model::{Layer, Model};
use crate::problem::Severity;
use crate::stats::Stats;
use crate::{Control, Error, Problem};

/// A layer may lose so much at its own output, in dB.
pub const MOST_LOSS_DB: f64 = 1.5;

/// A layer that runs faster for a little of its accuracy.
#[derive(Clone, Debug, PartialEq)]
pub struct Hurried {
    /// The layer's name.
    pub layer: String,
    /// SQNR at its own output before and after, in dB, weights rounded to nearest.
    pub before_db: f64,
    /// See [`Self::before_db`].
    pub after_db: f64,
}

/// What changes for such a layer.
fn change() -> Set {
    Set {
        mode: Some(Mode::Dynamic),
        activation: Some(Activation::Int8),
        granularity: Some(Granularity::PerChannel),
        ..Set::default()
    }
}

/// The layers of `plan` with 4-bit weights in blocks and many rows a run that lose at most [`MOST_LOSS_DB`] by the faster
/// kernel, where the plan's target takes it.
pub fn hurry(model: &Model, stats: &Stats, plan: &Plan, control: &Control) -> Result<Vec<Hurried>, Error> {
    let find = |layer: &Layer| -> Result<Option<Hurried>, Error> {
        control.check()?;
        let slow = plan.choice(&layer.name);
        let mut fast = slow;
        change().apply(&mut fast);
        if slow.precision != Precision::Int4
            || !layer.quantizable()
            || rows(layer, stats).is_none_or(|rows| rows < MANY_ROWS)
            || export::pick(model, layer, slow, Some(stats)).form != Form::MatmulNbits
            || export::pick(model, layer, fast, Some(stats)).form != Form::DynamicMatmul
            || !takes_changed(plan, model, &layer.name, &change(), Some(stats))
        {
            return Ok(None);
        }
        let (Some(weight), Some(rows)) = (layer.weight(), stats.rows.get(&layer.name)) else { return Ok(None) };
        let values = model.weight(layer, weight)?;
        let probe = Probe::new(layer, &values, Some(rows), stats.tensors.get(&layer.input));
        let before = probe.measure(&slow).both_db.db();
        let after = probe.measure(&fast).both_db.db();
        Ok(before
            .zip(after)
            .filter(|(before, after)| before - after <= MOST_LOSS_DB)
            .map(|(before_db, after_db)| Hurried { layer: layer.name.clone(), before_db, after_db }))
    };
    let found: Result<Vec<_>, Error> = model.layers.par_iter().map(find).collect();
    Ok(found?.into_iter().flatten().collect())
}

impl Plan {
    /// Moves these layers to the faster kernel. Rules of the plan, which a person wrote, win over it.
    pub fn hurry(&mut self, hurried: &[Hurried]) {
        self.beneath_rules(hurried.iter().map(|hurried| (hurried.layer.as_str(), change())));
    }
}

/// Says which layers were moved and what they lose; `None` without any.
pub fn said(hurried: &[Hurried]) -> Option<Problem> {
    let loss = |hurried: &Hurried| hurried.before_db - hurried.after_db;
    let worst = hurried.iter().max_by(|a, b| loss(a).total_cmp(&loss(b)))?;
    let named: Vec<String> = hurried
        .iter()
        .map(|hurried| format!("{} {:.1} → {:.1} dB", hurried.layer, hurried.before_db, hurried.after_db))
        .collect();
    Some(Problem::new(
        Severity::Note,
        match hurried {
            [_] => "A matrix of 4-bit weights runs on the faster integer kernel".to_owned(),
            _ => format!("{} matrices of 4-bit weights run on the faster integer kernel", hurried.len()),
        },
        worst.layer.as_str(),
        format!(
            "Blocks of 4-bit weights are unpacked on every run, which does not pay for the many rows seen here; with one scale \
             a column, and the input rounded to int8 while running, they take less than half of the time and lose at most \
             {MOST_LOSS_DB} dB at the layer's output, before any repair ({})",
            named.join(", ")
        ),
        "Set their mode to weight_only and their granularity to blocks where accuracy matters more",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Rule, preset};

    fn hurried(layer: &str, after_db: f64) -> Hurried {
        Hurried { layer: layer.to_owned(), before_db: 20.0, after_db }
    }

    #[test]
    fn what_a_person_set_wins_over_speed() {
        let mut plan = preset("int4-weights").expect("preset").plan();
        let rule = Rule { pattern: "b".parse().expect("glob"), set: "mode=weight_only".parse().expect("set") };
        plan.push_rule(rule);
        plan.hurry(&[hurried("a", 19.0), hurried("b", 19.0)]);
        let choice = plan.choice("a");
        assert!(choice.is_dynamic() && choice.precision == Precision::Int4);
        assert_eq!(
            (choice.granularity, plan.choice("c").granularity),
            (Granularity::PerChannel, Granularity::Block(32))
        );
        assert_eq!(plan.choice("b").mode, Mode::WeightOnly);
    }

    #[test]
    fn the_layer_that_loses_most_is_named() {
        assert!(said(&[]).is_none());
        let problem = said(&[hurried("a", 19.5), hurried("b", 18.7)]).expect("problem");
        assert_eq!(problem.place, "b");
        assert!(problem.what.contains("2 matrices") && problem.why.contains("b 20.0 → 18.7 dB"), "{}", problem.why);
    }
}
