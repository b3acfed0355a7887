//! What calibration says against static ranges: inputs with outliers, where one 8-bit range for the whole tensor leaves too
//! few steps for the rest.

use rayon::prelude::*;

use super::{Cause, Spared, weights_only};
use crate::error::Probe;
use crate::export::{self, Form};
use crate::model::{Layer, Model};
use crate::plan::{Plan, Precision};
use crate::problem::Severity;
use crate::stats::Stats;
use crate::{Control, Error, Problem};

/// Below this SQNR in dB at a layer's own output, from rounding its input alone, its input is spared. Measured on a sentence
/// encoder with GELU: five of 36 matrix products lie below; with them spared the output gains 2 dB and the model keeps most of
/// its speed. In convolution nets without such inputs nothing lies below.
pub const LEAST_DB: f64 = 26.0;

/// The layers of `plan` whose static input would cost too much, of those for which ONNX Runtime has a kernel that rounds
/// row by row and block by block instead (MatMulNBits). The weights' precision does not change by it.
pub(super) fn outliers(model: &Model, stats: &Stats, plan: &Plan, control: &Control) -> Result<Vec<Spared>, Error> {
    let find = |layer: &Layer| -> Result<Option<Spared>, Error> {
        control.check()?;
        let choice = plan.choice(&layer.name);
        if !choice.is_static() || choice.precision != Precision::Int8 || !layer.quantizable() {
            return Ok(None);
        }
        let mut spared = choice;
        weights_only().apply(&mut spared);
        if export::pick(model, layer, choice, Some(stats)).form != Form::Qdq
            || export::pick(model, layer, spared, Some(stats)).form != Form::MatmulNbits
        {
            return Ok(None);
        }
        let (Some(weight), Some(rows)) = (layer.weight(), stats.rows.get(&layer.name)) else { return Ok(None) };
        let values = model.weight(layer, weight)?;
        let probe = Probe::new(layer, &values, Some(rows), stats.tensors.get(&layer.input));
        let db = probe.measure(&choice).activations_db.db();
        let cause = |activations_db| Cause::Outliers { activations_db };
        Ok(db.filter(|&db| db < LEAST_DB).map(|db| Spared {
            layer: layer.name.clone(),
            cause: cause(db),
            change: weights_only(),
        }))
    };
    let found: Result<Vec<_>, Error> = model.layers.par_iter().map(find).collect();
    Ok(found?.into_iter().flatten().collect())
}

/// Says which of `spared` have outliers; `None` when none has.
pub(super) fn said(spared: &[Spared]) -> Option<Problem> {
    let outliers: Vec<(&str, f64)> = spared
        .iter()
        .filter_map(|spared| match spared.cause {
            Cause::Outliers { activations_db } => Some((spared.layer.as_str(), activations_db)),
            Cause::SlowKernel { .. } => None,
        })
        .collect();
    let (worst, _) = outliers.iter().min_by(|a, b| a.1.total_cmp(&b.1))?;
    let named: Vec<String> = outliers.iter().map(|(layer, db)| format!("{layer} {db:.1} dB")).collect();
    Some(Problem::new(
        Severity::Note,
        match outliers.as_slice() {
            [_] => "The input of a layer has outliers and is left in floating point".to_owned(),
            _ => format!("The inputs of {} layers have outliers and are left in floating point", outliers.len()),
        },
        *worst,
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

    #[test]
    fn the_worst_layer_is_named() {
        let outlier = |layer: &str, activations_db| Spared {
            layer: layer.to_owned(),
            cause: Cause::Outliers { activations_db },
            change: weights_only(),
        };
        assert!(said(&[]).is_none());
        let problem = said(&[outlier("a", 20.0), outlier("b", 10.0)]).expect("problem");
        assert_eq!(problem.place, "b");
        assert!(problem.what.contains("2 layers"), "{}", problem.what);
    }
}
