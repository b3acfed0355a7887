//! What a repair changed, against rounding to nearest under the same choice.

use super::{BiasSlot, LayerRepair};
use crate::Error;
use crate::model::{Layer, Model, Weight};
use crate::plan::{Choice, Rounding};

/// Differences of a repaired layer to the one rounded to nearest.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Difference {
    /// Share of the integers that are others, 0 to 1.
    pub integers: f64,
    /// The least and the greatest of the new scales divided by the old ones; `None` where all are the same.
    pub scales: Option<(f32, f32)>,
    /// Largest change of the bias, relative to the largest absolute value of the layer's bias or, where that is 0, as it is;
    /// `None` where the bias stays.
    pub bias: Option<f32>,
}

impl LayerRepair {
    /// What it changes in `layer` of `model` (with the plan's scalings, without its repairs), whose choice as the form
    /// honours it is `choice`.
    pub fn difference(&self, model: &Model, layer: &Layer, choice: &Choice) -> Result<Difference, Error> {
        let nearest = Choice { rounding: Rounding::Nearest, ..*choice };
        let (mut moved, mut all) = (0_usize, 0_usize);
        let mut range: Option<(f32, f32)> = None;
        for (weight, repaired) in layer.weights.iter().zip(&self.weights) {
            let values = model.weight(layer, weight)?;
            let plain = Weight { repaired: None, ..weight.clone() }.quantize(&values, &nearest);
            all += plain.values.len();
            moved += plain.values.iter().zip(&repaired.values).filter(|(old, new)| old != new).count();
            for ratio in repaired.scales.iter().zip(&plain.scales).map(|(new, old)| new / old) {
                let (low, high) = range.unwrap_or((ratio, ratio));
                range = Some((low.min(ratio), high.max(ratio)));
            }
        }
        let bias = match (&self.bias, BiasSlot::of(model, layer)?) {
            (Some(new), Some(slot)) => {
                let change = new.iter().zip(&slot.values).map(|(new, old)| (new - old).abs()).fold(0.0, f32::max);
                let size = slot.values.iter().map(|value| value.abs()).fold(0.0, f32::max);
                Some(if size > 0.0 { change / size } else { change })
            }
            _ => None,
        };
        let scales = range.filter(|&(low, high)| low != 1.0 || high != 1.0);
        Ok(Difference { integers: moved as f64 / all.max(1) as f64, scales, bias })
    }
}

#[cfg(test)]
mod tests {
    use crate::export::pick;
    use crate::repair::in_force::tests::{model, plan};

    #[test]
    fn integers_scales_and_bias_are_told_apart() {
        let folder = tempfile::tempdir().expect("folder");
        let model = model(folder.path());
        let plan = plan(&model, &["biased"]);
        let layer = model.layer("biased").expect("layer");
        let choice = pick(&model, layer, plan.choice("biased"), None).choice;
        let difference = plan.repairs["biased"].difference(&model, layer, &choice).expect("difference");
        // All integers change their sign, scales stay, and of the bias 1, 2, 3, 4 the last becomes 9.
        assert!(difference.integers > 0.95 && difference.scales.is_none(), "{difference:?}");
        assert_eq!(difference.bias, Some(1.25));
        let mut other = (*plan.repairs["biased"]).clone();
        other.weights[0].scales[1] *= 2.0;
        other.bias = None;
        let difference = other.difference(&model, layer, &choice).expect("difference");
        assert_eq!((difference.scales, difference.bias), (Some((1.0, 2.0)), None));
    }
}
