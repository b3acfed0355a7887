//! The repairs that can be asked for by a word, on the command line and in the window alike.

use std::fmt;

use nibble_core::plan::Rounding;
use nibble_core::repair::{Method, ScalingMethod};

/// A repair: of rounding, or a scaling that comes before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RepairMethod {
    /// Better integers.
    Rounding(Method),
    /// Another division of ranges between activations and weights.
    Scaling(ScalingMethod),
    /// Those that the plan asks for and does not have, each by its own method: no method to choose.
    Missing,
}

impl RepairMethod {
    /// Every method, in the order lists show them.
    pub const ALL: &'static [Self] = &[
        Self::Rounding(Method::Best),
        Self::Rounding(Method::One(Rounding::Gptq)),
        Self::Rounding(Method::One(Rounding::Refit)),
        Self::Rounding(Method::One(Rounding::Descent)),
        Self::Rounding(Method::One(Rounding::AdaRound)),
        Self::Rounding(Method::One(Rounding::Clip)),
        Self::Rounding(Method::One(Rounding::Bias)),
        Self::Rounding(Method::One(Rounding::Hqq)),
        Self::Scaling(ScalingMethod::Smoothquant),
        Self::Scaling(ScalingMethod::Awq),
        Self::Scaling(ScalingMethod::Equalisation),
    ];

    /// The method with this word.
    pub fn of(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|method| method.word() == word)
    }

    /// Its word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Rounding(method) => method.word(),
            Self::Scaling(method) => method.word(),
            Self::Missing => "the plan's own methods",
        }
    }

    /// What the command is called that runs it, and what it does, in a line.
    pub const fn title_and_about(self) -> (&'static str, &'static str) {
        match self {
            Self::Rounding(Method::Best) => {
                ("Repair: best of all methods", "each layer's best of all, kept where the whole model gains")
            }
            Self::Rounding(Method::One(rounding)) => match rounding {
                Rounding::Gptq => {
                    ("Repair by gptq", "column by column, each making up for the errors before it; corrects the bias")
                }
                Rounding::Refit => {
                    ("Repair by refit", "layer by layer, each fitted to what it really meets; a pass a layer")
                }
                Rounding::Descent => ("Repair by descent", "moves single integers as long as the output gets closer"),
                Rounding::AdaRound => (
                    "Repair by adaround",
                    "learns for each weight whether it goes up or down; takes many times as long",
                ),
                Rounding::Clip => ("Repair by clip", "searches each scale's range, weighed by what enters"),
                Rounding::Bias => ("Repair by bias", "rounds to nearest, takes the mean error out of the bias"),
                Rounding::Hqq => ("Repair by hqq", "scales and zero points fitted to the weights alone, without data"),
                Rounding::Nearest => ("Round to nearest", "each weight to its nearest integer"),
                Rounding::Finetuned => ("Fine-tune", "by training"),
            },
            Self::Missing => {
                ("Make missing repairs", "Repairs that the plan asks for and does not have, as one from an export")
            }
            Self::Scaling(method) => match method {
                ScalingMethod::Smoothquant => {
                    ("Scale by smoothquant", "moves outliers of rounded activations into the weights")
                }
                ScalingMethod::Awq => ("Scale by awq", "protects the weights that meet large activations"),
                ScalingMethod::Equalisation => {
                    ("Scale by equalisation", "evens out the weights of two layers in a row, without data")
                }
            },
        }
    }

    /// Whether it looks at no data.
    pub const fn is_data_free(self) -> bool {
        matches!(self, Self::Rounding(Method::One(Rounding::Hqq)) | Self::Scaling(ScalingMethod::Equalisation))
    }

    /// Whether it goes on until its time is up.
    pub const fn takes_seconds(self) -> bool {
        matches!(self, Self::Rounding(Method::Best | Method::One(Rounding::Refit)))
    }

    /// All words, for hints.
    pub fn words() -> String {
        Self::ALL.iter().map(|method| method.word()).collect::<Vec<_>>().join(", ")
    }
}

impl fmt::Display for RepairMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_told_apart() {
        for method in RepairMethod::ALL {
            assert_eq!(RepairMethod::of(method.word()), Some(*method));
        }
        assert_eq!(RepairMethod::of("nearest"), None);
    }
}
