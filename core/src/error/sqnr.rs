//! Signal-to-quantization-noise ratio.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// SQNR = 10·log10(Σx² / Σ(x − x̂)²) in dB over all finite values. In JSON: a number (to 0.01 dB), `"identical"` or
/// `null`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Sqnr {
    /// In dB; higher is better.
    Db(f64),
    /// Nothing differs.
    Identical,
    /// No signal, or new values that are not finite, or shapes that differ.
    #[default]
    Undefined,
}

impl Sqnr {
    /// From the sums Σx² and Σ(x − x̂)².
    pub fn from_sums(signal: f64, noise: f64) -> Self {
        if noise == 0.0 && signal.is_finite() {
            Self::Identical
        } else if signal == 0.0 || !signal.is_finite() || !noise.is_finite() {
            Self::Undefined
        } else {
            Self::Db(10.0 * (signal / noise).log10())
        }
    }

    /// In dB: `+∞` when identical, `None` when undefined. For sorting and limits.
    pub fn db(self) -> Option<f64> {
        match self {
            Self::Db(db) => Some(db),
            Self::Identical => Some(f64::INFINITY),
            Self::Undefined => None,
        }
    }
}

impl std::fmt::Display for Sqnr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Db(db) => write!(f, "{db:.1} dB"),
            Self::Identical => f.write_str("identical"),
            Self::Undefined => f.write_str("undefined"),
        }
    }
}

impl Serialize for Sqnr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Db(db) => serializer.serialize_f64((db * 100.0).round() / 100.0),
            Self::Identical => serializer.serialize_str("identical"),
            Self::Undefined => serializer.serialize_none(),
        }
    }
}

impl<'de> Deserialize<'de> for Sqnr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Db(f64),
            Word(String),
        }
        Ok(match Option::<Form>::deserialize(deserializer)? {
            None => Self::Undefined,
            Some(Form::Db(db)) => Self::Db(db),
            Some(Form::Word(word)) if word == "identical" => Self::Identical,
            Some(Form::Word(word)) => {
                return Err(serde::de::Error::custom(format!("an SQNR cannot be {word:?}")));
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_a_number_a_word_or_null() {
        for (sqnr, json) in [(Sqnr::Db(31.234), "31.23"), (Sqnr::Identical, "\"identical\""), (Sqnr::Undefined, "null")]
        {
            assert_eq!(serde_json::to_string(&sqnr).expect("json"), json);
            let back: Sqnr = serde_json::from_str(json).expect("back");
            assert!(matches!((sqnr, back), (Sqnr::Db(a), Sqnr::Db(b)) if (a - b).abs() < 0.01) || sqnr == back);
        }
        assert!(serde_json::from_str::<Sqnr>("\"fine\"").is_err());
    }

    #[test]
    fn sums_decide_which_of_the_three_it_is() {
        assert_eq!(Sqnr::from_sums(100.0, 1.0), Sqnr::Db(20.0));
        assert_eq!(Sqnr::from_sums(1.0, 0.0), Sqnr::Identical);
        assert_eq!(Sqnr::from_sums(0.0, 0.0), Sqnr::Identical);
        assert_eq!(Sqnr::from_sums(0.0, 1.0), Sqnr::Undefined);
        assert_eq!(Sqnr::from_sums(f64::INFINITY, 1.0), Sqnr::Undefined);
    }
}
