//! What calibration says against static ranges: inputs with outliers, where one 8-bit range for the whole tensor leaves too
//! few steps for the rest.

use rayon::prelude::*;

use super::{Activation, Mode, Plan, Precision, Set};
use crate::error::Probe;
use crate::export::{self, Form};
use crate::model::{Layer, Model};
use crate::problem::Severity;
use crate::stats::Stats;
use crate::{Control, Error, Problem};

/// Below this SQNR in dB at a layer's own output, from rounding its input alone, its input is spared. Measured on a sentence
/// encoder with GELU: five of 36 matrix products lie below; with them spared the output gains 2 dB and the model keeps most of
/// its speed. In convolution nets without such inputs nothing lies below.
const LEAST_DB: f64 = 26.0;

/// A layer whose input has outliers.
#[derive(Clone, Debug, PartialEq)]
pub struct Outlier {
    /// The layer's name.
    pub layer: String,
    /// SQNR at the layer's own output with only its input rounded, in dB.
    pub activations_db: f64,
}

/// The layers of `plan` whose static input would cost too much, of those for which ONNX Runtime has a kernel that rounds
/// row by row and block by block instead (MatMulNBits). The weights' precision does not change by it.
pub fn outliers(model: &Model, stats: &Stats, plan: &Plan, control: &Control) -> Result<Vec<Outlier>, Error> {
    let find = |layer: &Layer| -> Result<Option<Outlier>, Error> {
        control.check()?;
        let choice = plan.choice(&layer.name);
        if !choice.is_static() || choice.precision != Precision::Int8 || !layer.quantizable() {
            return Ok(None);
        }
        let mut spared = choice;
        spare().apply(&mut spared);
        if export::pick(model, layer, choice, Some(stats)).form != Form::Qdq
            || export::pick(model, layer, spared, Some(stats)).form != Form::MatmulNbits
        {
            return Ok(None);
        }
        let (Some(weight), Some(rows)) = (layer.weight(), stats.rows.get(&layer.name)) else { return Ok(None) };
        let values = model.weight(layer, weight)?;
        let probe = Probe::new(layer, &values, Some(rows), stats.tensors.get(&layer.input));
        let db = probe.measure(&choice).activations_db.db();
        Ok(db.filter(|&db| db < LEAST_DB).map(|activations_db| Outlier { layer: layer.name.clone(), activations_db }))
    };
    let found: Result<Vec<_>, Error> = model.layers.par_iter().map(find).collect();
    Ok(found?.into_iter().flatten().collect())
}

/// What changes for a layer that is spared.
pub fn spare() -> Set {
    Set { mode: Some(Mode::WeightOnly), activation: Some(Activation::Float32), ..Set::default() }
}

impl Plan {
    /// Leaves the inputs of these layers in floating point. Rules of the plan, which a person wrote, win over it.
    pub fn spare_outliers(&mut self, outliers: &[Outlier]) {
        let rules = std::mem::take(&mut self.rules);
        self.set_layers(outliers.iter().map(|outlier| outlier.layer.as_str()), &spare());
        for rule in rules {
            self.push_rule(rule);
        }
    }
}

/// Says which layers were spared and why; `None` when none was.
pub fn spared(outliers: &[Outlier]) -> Option<Problem> {
    let worst = outliers.iter().min_by(|a, b| a.activations_db.total_cmp(&b.activations_db))?;
    let named: Vec<String> = outliers.iter().map(|o| format!("{} {:.1} dB", o.layer, o.activations_db)).collect();
    Some(Problem::new(
        Severity::Note,
        match outliers {
            [_] => "The input of a layer has outliers and is left in floating point".to_owned(),
            _ => format!("The inputs of {} layers have outliers and are left in floating point", outliers.len()),
        },
        worst.layer.as_str(),
        format!(
            "One 8-bit range for the whole input would leave less than {LEAST_DB} dB at the layer's output ({}); the kernel \
             with 8-bit weights rounds row by row instead",
            named.join(", ")
        ),
        "Set their mode to static where speed matters more",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Rule, preset};

    #[test]
    fn what_a_person_set_wins_over_sparing() {
        let mut plan = preset("int8").expect("preset").plan();
        let rule = Rule { pattern: "b".parse().expect("glob"), set: "mode=static".parse().expect("set") };
        plan.push_rule(rule);
        let outlier = |layer: &str| Outlier { layer: layer.to_owned(), activations_db: 12.0 };
        plan.spare_outliers(&[outlier("a"), outlier("b")]);
        assert_eq!(plan.choice("a").mode, Mode::WeightOnly);
        assert_eq!(plan.choice("a").precision, Precision::Int8);
        assert!(plan.choice("b").is_static());
        assert!(plan.choice("c").is_static());
        assert_eq!(plan.rules.len(), 1);
    }

    #[test]
    fn the_worst_layer_is_named() {
        let outlier = |layer: &str, activations_db| Outlier { layer: layer.to_owned(), activations_db };
        assert!(spared(&[]).is_none());
        let problem = spared(&[outlier("a", 20.0), outlier("b", 10.0)]).expect("problem");
        assert_eq!(problem.place, "b");
        assert!(problem.what.contains("2 layers"), "{}", problem.what);
    }
}
