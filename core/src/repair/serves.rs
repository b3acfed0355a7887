//! Whether a method can do anything for some layers of a plan, told before it runs.

use super::bias_slot::BiasSlot;
use super::job::{integer_choice, tap, untapped};
use super::{Method, ScalingMethod};
use crate::export::Pick;
use crate::model::{Layer, Model};
use crate::plan::{Choice, Granularity, Rounding};

/// A layer, and what the exporter makes of its choice.
pub type Picked<'a> = (&'a Layer, &'a Pick);

const NONE: &str = "None of these layers has integer weights in the plan: choose int8, int4 or int2 first";

impl Method {
    /// Why this repair would do nothing for any of the layers; empty where it helps one at least.
    pub fn refusal<'a>(self, model: &Model, layers: impl Iterator<Item = Picked<'a>>) -> String {
        let mut why = NONE.to_owned();
        for (layer, pick) in layers {
            let Some(choice) = integer_choice(pick) else { continue };
            match self.hindrance(model, layer, &choice) {
                Some(hindrance) => why = hindrance,
                None => return String::new(),
            }
        }
        why
    }

    fn hindrance(self, model: &Model, layer: &Layer, choice: &Choice) -> Option<String> {
        match self {
            Self::One(Rounding::Hqq) => (choice.granularity == Granularity::PerTensor)
                .then(|| "hqq fits a scale for every channel or block, and per_tensor has one for all".to_owned()),
            // Without rows the search goes by the weights alone; one scale for all is the whole range then.
            Self::Best | Self::One(Rounding::Clip) if choice.granularity != Granularity::PerTensor => None,
            Self::One(Rounding::Nearest | Rounding::Finetuned) => Some(format!("{} is no repair", self.word())),
            Self::One(Rounding::Bias) if tap(model, layer, choice).is_some() => {
                let place = layer.op != "ConvTranspose" && BiasSlot::of(model, layer).is_ok_and(|slot| slot.is_some());
                (!place).then(|| format!("{}: there is no bias to correct, and no place for one", layer.name))
            }
            Self::Best | Self::One(_) => match tap(model, layer, choice) {
                Some(_) => None,
                None => Some(format!("{}: {}", layer.name, lower(&untapped(layer)))),
            },
        }
    }
}

impl ScalingMethod {
    /// Why this scaling would do nothing for any of the layers; empty where it may help one. Whether the tensors that enter
    /// them can be divided is found out by [`super::scale`] alone.
    pub fn refusal<'a>(self, layers: impl Iterator<Item = Picked<'a>>) -> String {
        let mut why = NONE;
        for (layer, pick) in layers {
            let Some(choice) = integer_choice(pick) else { continue };
            if layer.in_subgraph() {
                why = "Layers in bodies of If, Loop and Scan are not scaled";
            } else if self.fits(&choice) {
                return String::new();
            } else {
                why = match self {
                    Self::Awq => {
                        "awq is for weights alone, and these layers round their activations: smoothquant is for those"
                    }
                    Self::Smoothquant | Self::Equalisation => {
                        "smoothquant is for rounded activations, and these layers leave them in floating point: awq is for those"
                    }
                };
            }
        }
        why.to_owned()
    }

    /// Whether it is for layers with this choice.
    pub(super) fn fits(self, choice: &Choice) -> bool {
        let rounds_input = choice.is_static() || choice.is_dynamic();
        match self {
            Self::Smoothquant => rounds_input,
            Self::Awq => choice.is_integer() && !rounds_input,
            Self::Equalisation => choice.is_integer(),
        }
    }
}

fn lower(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::pick;
    use crate::plan::{Plan, preset};
    use crate::repair::in_force::tests::model;

    #[test]
    fn what_serves_no_layer_says_why() {
        let folder = tempfile::tempdir().expect("folder");
        let model = model(folder.path());
        let picks = |plan: &Plan| -> Vec<Pick> {
            model.layers.iter().map(|layer| pick(&model, layer, plan.choice(&layer.name), None)).collect()
        };
        let weights = preset("int8-weights").expect("preset").plan();
        let integer = picks(&weights);
        let per_tensor = Choice { granularity: Granularity::PerTensor, ..weights.default };
        let (per_tensor, float) = (picks(&Plan::uniform(per_tensor)), picks(&Plan::uniform(Choice::FLOAT)));
        let refusal = |method: Method, picks: &[Pick]| method.refusal(&model, model.layers.iter().zip(picks));
        for method in [Method::Best, Method::One(Rounding::Gptq), Method::One(Rounding::Bias)] {
            assert_eq!(refusal(method, &integer), "");
            assert!(refusal(method, &float).contains("integer weights"));
        }
        assert_eq!(refusal(Method::One(Rounding::Hqq), &integer), "");
        assert!(refusal(Method::One(Rounding::Hqq), &per_tensor).contains("per_tensor"));
        assert!(refusal(Method::One(Rounding::Nearest), &integer).contains("no repair"));

        let refusal = |method: ScalingMethod, picks: &[Pick]| method.refusal(model.layers.iter().zip(picks));
        assert_eq!(refusal(ScalingMethod::Awq, &integer), "");
        assert!(refusal(ScalingMethod::Smoothquant, &integer).contains("awq is for those"));
        assert!(refusal(ScalingMethod::Equalisation, &float).contains("integer weights"));
    }
}
