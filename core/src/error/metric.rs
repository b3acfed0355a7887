//! The metric that a quantized model is judged by: one figure in front, chosen from the outputs or by the person.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{OutputQuality, Sqnr};
use crate::model::Model;
use crate::onnx::proto::NodeProto;
use crate::port::Port;

/// What the figure in front is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Signal to quantization noise in dB.
    Sqnr,
    /// Mean Kullback–Leibler divergence of the quantized class distribution from the original's, in nats.
    Kl,
    /// Cosine of the angle between all original and all quantized values.
    Cosine,
    /// Share of samples whose largest class is the same.
    Agreement,
    /// Share of samples whose largest class is the label.
    Accuracy,
}

impl Metric {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Sqnr, Self::Kl, Self::Cosine, Self::Agreement, Self::Accuracy];

    /// As it is written on the command line and in results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sqnr => "sqnr",
            Self::Kl => "kl",
            Self::Cosine => "cosine",
            Self::Agreement => "agreement",
            Self::Accuracy => "accuracy",
        }
    }

    /// How much better `value` is than `other`: positive where it is better.
    pub fn gain(self, value: f64, other: f64) -> f64 {
        if self == Self::Kl { other - value } else { value - other }
    }

    /// How far `value` has fallen from the best there is, in the unit of a budget: percentage points of cosine and
    /// agreement, and of accuracy against `original`; nats of divergence. `None` for decibels, which have no best.
    pub fn drop(self, value: f64, original: f64) -> Option<f64> {
        match self {
            Self::Sqnr => None,
            Self::Kl => Some(value),
            Self::Cosine | Self::Agreement => Some(100.0 * (1.0 - value)),
            Self::Accuracy => Some(100.0 * (original - value)),
        }
    }

    /// The figure of one output; `accuracy` is the quantized model's. Infinite for an SQNR without any noise. The error
    /// says why there is none.
    pub fn of(self, output: &OutputQuality, accuracy: Option<f64>) -> Result<f64, String> {
        if let Some(problem) = &output.problem {
            return Err(problem.clone());
        }
        let classes = || format!("{} does not give one score a class for each sample", output.name);
        match self {
            Self::Sqnr => match output.sqnr_db {
                Sqnr::Db(db) => Ok(db),
                Sqnr::Identical => Ok(f64::INFINITY),
                Sqnr::Undefined => Err("there are new values that are not finite, or no signal".to_owned()),
            },
            Self::Kl => output.kl.ok_or_else(classes),
            Self::Cosine => output.cosine.ok_or_else(|| format!("{} is zero", output.name)),
            Self::Agreement => output.top1_agreement.ok_or_else(classes),
            Self::Accuracy => {
                accuracy.ok_or_else(|| "accuracy needs labels, and an output that gives classes".to_owned())
            }
        }
    }

    /// What noise of this SQNR, independent of the signal, leaves of the metric; `None` where that does not say it.
    /// cos = 1/√(1 + noise/signal).
    pub fn from_sqnr(self, sqnr: Sqnr) -> Option<f64> {
        let db = sqnr.db()?;
        match self {
            Self::Sqnr => Some(db).filter(|db| db.is_finite()),
            Self::Cosine => Some(1.0 / (1.0 + 10_f64.powf(-db / 10.0)).sqrt()),
            Self::Kl | Self::Agreement | Self::Accuracy => None,
        }
    }

    /// The metric that fits what `output` is, with the reason: accuracy where there are labels, divergence for classes,
    /// cosine for embeddings, else SQNR.
    pub fn suited(model: &Model, output: &str, labelled: bool) -> (Self, String) {
        if labelled {
            return (Self::Accuracy, "there are labels".to_owned());
        }
        let port = model.outputs.iter().find(|port| port.name == output);
        let rank = port.map_or(0, |port: &Port| port.shape.len());
        let embeds = output.to_lowercase().contains("embed");
        match maker(model, output).map(NodeProto::op_type) {
            Some("LpNormalization" | "LayerNormalization" | "ReduceMean" | "ReduceL2" | "Div") => {
                (Self::Cosine, format!("{output} ends in a normalization, as embeddings do"))
            }
            _ if embeds => (Self::Cosine, format!("{output} is called an embedding")),
            Some("Softmax" | "LogSoftmax") if rank <= 3 => {
                (Self::Kl, format!("{output} is a distribution over classes"))
            }
            Some("Gemm" | "MatMul" | "Add") if rank == 2 => {
                (Self::Kl, format!("{output} looks like scores of classes"))
            }
            _ => (Self::Sqnr, format!("nothing shows what {output} stands for")),
        }
    }
}

impl FromStr for Metric {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|metric| metric.name() == text);
        found.ok_or_else(|| format!("allowed are {}", Self::ALL.map(Self::name).join(", ")))
    }
}

/// The node that computes `output`, behind nodes that only pass values on.
fn maker<'a>(model: &'a Model, output: &str) -> Option<&'a NodeProto> {
    let graph = model.graph.graph.as_ref()?;
    let mut name = output;
    for _ in 0..graph.node.len() {
        let node = graph.node.iter().find(|node| node.output.iter().any(|output| output == name))?;
        match node.op_type() {
            "Identity" | "Cast" | "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" => name = node.input.first()?,
            _ => return Some(node),
        }
    }
    None
}

/// Mean divergence of class distributions so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Divergence {
    sum: f64,
    rows: u64,
    unfit: bool,
}

impl Divergence {
    /// Adds one sample of scores or probabilities in `f64`. Outputs that give no classes end the sum.
    pub(super) fn add(
        &mut self,
        shape: &[usize],
        original: impl Iterator<Item = f64>,
        quantized: impl Iterator<Item = f64>,
    ) {
        let Some(classes) = class_count(shape) else {
            self.unfit = true;
            return;
        };
        let (original, quantized): (Vec<f64>, Vec<f64>) = (original.collect(), quantized.collect());
        for (y, x) in original.chunks_exact(classes).zip(quantized.chunks_exact(classes)) {
            let divergence = divergence(y, x);
            self.unfit |= !divergence.is_finite();
            self.sum += divergence;
            self.rows += 1;
        }
    }

    /// In nats; `None` where the output does not fit.
    pub(super) fn mean(&self) -> Option<f64> {
        (!self.unfit && self.rows > 0).then(|| self.sum / self.rows as f64)
    }
}

/// Classes of `[N, C]` and `[N, T, C]`, also with axes of 1 behind; `None` for pictures and single numbers.
pub(crate) fn class_count(shape: &[usize]) -> Option<usize> {
    let end = shape.iter().rposition(|&size| size != 1)? + 1;
    let last = shape.get(end - 1).copied()?;
    (matches!(end, 2 | 3) && last > 1).then_some(last)
}

/// Whether a row of classes is a distribution and not scores.
pub(crate) fn is_distribution(row: &[f64]) -> bool {
    (row.iter().sum::<f64>() - 1.0).abs() < 1e-3 && row.iter().all(|&p| p >= 0.0)
}

/// Σ p·ln(p/q), where p and q are the rows themselves if the original's is a distribution, else their softmax.
fn divergence(original: &[f64], quantized: &[f64]) -> f64 {
    /// Least probability that counts as possible, so that a zero of the quantized model is no infinite error.
    const LEAST: f64 = 1e-12;
    let is_distribution = is_distribution(original);
    let logs = |row: &[f64]| -> Vec<f64> {
        if is_distribution {
            let sum: f64 = row.iter().map(|&p| p.max(LEAST)).sum();
            return row.iter().map(|&p| (p.max(LEAST) / sum).ln()).collect();
        }
        let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total = row.iter().map(|&x| (x - largest).exp()).sum::<f64>().ln() + largest;
        row.iter().map(|&x| x - total).collect()
    };
    let (p, q) = (logs(original), logs(quantized));
    p.iter().zip(&q).map(|(&p, &q)| p.exp() * (p - q)).sum::<f64>().max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean(shape: &[usize], y: &[f64], x: &[f64]) -> Option<f64> {
        let mut sum = Divergence::default();
        sum.add(shape, y.iter().copied(), x.iter().copied());
        sum.mean()
    }

    /// Against numpy, `(p * log(p / q)).sum()`: `kl(softmax([1, 2, 3]), softmax([1.5, 2, 2]))` and `kl([.2, .8], [.5, .5])`.
    #[test]
    fn divergence_of_scores_and_of_probabilities() {
        let scores = mean(&[1, 3], &[1.0, 2.0, 3.0], &[1.5, 2.0, 2.0]).expect("scores");
        assert!((scores - 0.17063979269228483).abs() < 1e-9, "{scores}");
        let probabilities = mean(&[1, 2], &[0.2, 0.8], &[0.5, 0.5]).expect("probabilities");
        assert!((probabilities - 0.19274475702175753).abs() < 1e-9, "{probabilities}");
        assert_eq!(mean(&[1, 2], &[0.2, 0.8], &[0.2, 0.8]), Some(0.0));
        assert!(mean(&[1, 2], &[1.0, 0.0], &[0.0, 1.0]).is_some_and(f64::is_finite));
    }

    #[test]
    fn pictures_and_single_numbers_have_no_classes() {
        assert_eq!(mean(&[1, 1], &[0.2], &[0.3]), None);
        assert_eq!(mean(&[1, 1, 2, 2], &[0.2; 4], &[0.3; 4]), None);
        assert_eq!(class_count(&[1, 5, 1, 1]), Some(5));
        assert_eq!(class_count(&[1, 9, 7]), Some(7));
    }

    #[test]
    fn drops_are_in_points() {
        assert_eq!(Metric::Accuracy.drop(0.9, 0.95).map(f64::round), Some(5.0));
        assert_eq!(Metric::Agreement.drop(0.75, 1.0), Some(25.0));
        assert_eq!(Metric::Sqnr.drop(20.0, 1.0), None);
        assert!(Metric::Kl.gain(0.1, 0.2) > 0.0 && Metric::Cosine.gain(0.1, 0.2) < 0.0);
        assert!("auc".parse::<Metric>().is_err_and(|why| why.contains("agreement")));
    }
}
