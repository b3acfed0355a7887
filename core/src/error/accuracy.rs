//! Task accuracy of classifiers: the largest class against the label.

use serde::{Deserialize, Serialize};

use super::MeasureError;
use super::output_error::argmax;
use crate::data::DataSet;
use crate::runtime::{Output, Runtime, Session, SessionOptions, Source};
use crate::tensor::Tensor;
use crate::{Control, Error};

/// How often a model is right.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Accuracy {
    /// Share of right answers, in 0..=1.
    pub accuracy: f64,
    /// Number of answers.
    pub samples: usize,
    /// Number of right ones.
    pub correct: usize,
}

/// Runs the samples called `indices` and scores the first floating output that gives one score a class: `[1, C]` by its
/// largest value, `[1, 1]` by a threshold of 0.5. `labels` has one entry a row of the whole data, not of
/// `indices`; `threads` is the session's, 0 for all cores.
pub fn evaluate(
    runtime: &Runtime,
    model: Source<'_>,
    data: &DataSet,
    indices: &[usize],
    labels: &[i64],
    threads: usize,
    control: &Control,
) -> Result<Accuracy, Error> {
    let options = SessionOptions { threads, ..SessionOptions::default() };
    let mut session = Session::open(runtime, model, &options)?;
    let mut score = Score::new(data, labels)?;
    for (done, &index) in indices.iter().enumerate() {
        control.check()?;
        control.progress("Evaluating", done as u64, indices.len() as u64);
        let outputs = session.run(&data.sample(index)?, control)?;
        let output = score.choose(&outputs)?;
        let tensor = outputs.iter().find(|o| o.name == output).and_then(|o| o.value.as_ref());
        score.add(Side::Original, index, tensor)?;
    }
    score.accuracy(Side::Original).ok_or_else(|| MeasureError::NoSamples.into())
}

/// Which of the two models answered.
#[derive(Clone, Copy, Debug)]
pub(super) enum Side {
    /// The original.
    Original,
    /// The quantized model.
    Quantized,
}

/// Right answers so far, of one model or of two on the same samples.
#[derive(Debug)]
pub(super) struct Score<'a> {
    labels: &'a [i64],
    batch: usize,
    output: Option<String>,
    correct: [usize; 2],
    answers: [usize; 2],
}

impl<'a> Score<'a> {
    /// No answers yet. There must be one label a row of the data.
    pub fn new(data: &DataSet, labels: &'a [i64]) -> Result<Self, MeasureError> {
        if labels.len() != data.rows() {
            return Err(MeasureError::Labels { labels: labels.len(), samples: data.rows() });
        }
        Ok(Self::with_batch(data.batch(), labels))
    }

    fn with_batch(batch: usize, labels: &'a [i64]) -> Self {
        Self { labels, batch, output: None, correct: [0; 2], answers: [0; 2] }
    }

    /// Name of the output that is scored: settled by the first outputs seen.
    pub fn choose(&mut self, outputs: &[Output]) -> Result<String, MeasureError> {
        if let Some(name) = &self.output {
            return Ok(name.clone());
        }
        let floats = |o: &&Output| o.value.as_ref().is_some_and(|tensor| tensor.values.is_float());
        let fits = |o: &&Output| o.value.as_ref().is_some_and(|tensor| classes(&tensor.shape, self.batch).is_some());
        match outputs.iter().filter(floats).find(fits) {
            Some(output) => {
                self.output = Some(output.name.clone());
                Ok(output.name.clone())
            }
            None => Err(MeasureError::NotClasses { found: shapes(outputs) }),
        }
    }

    /// Adds the answers of one sample.
    pub fn add(&mut self, side: Side, index: usize, tensor: Option<&Tensor>) -> Result<(), MeasureError> {
        let name = self.output.clone().unwrap_or_default();
        let refuse = |found: String| MeasureError::NotClasses { found };
        let tensor = tensor.ok_or_else(|| refuse(format!("{name} is missing in sample {index}")))?;
        let unfit = || refuse(format!("{name} has shape {:?} in sample {index}", tensor.shape));
        let classes = classes(&tensor.shape, self.batch).ok_or_else(unfit)?;
        let values = tensor.values.to_f32().ok_or_else(unfit)?;
        for (row, scores) in values.chunks_exact(classes).enumerate() {
            let sample = index * self.batch + row;
            let label = self
                .labels
                .get(sample)
                .copied()
                .ok_or(MeasureError::Labels { labels: self.labels.len(), samples: sample + 1 })?;
            let answer = match scores {
                [score] => usize::from(*score > 0.5),
                scores => argmax(scores).unwrap_or_default(),
            };
            let choices = classes.max(2);
            if !usize::try_from(label).is_ok_and(|label| label < choices) {
                return Err(MeasureError::Label { label, sample, output: name, classes: choices });
            }
            let side = side as usize;
            if let (Some(answers), Some(correct)) = (self.answers.get_mut(side), self.correct.get_mut(side)) {
                *answers += 1;
                *correct += usize::from(answer as i64 == label);
            }
        }
        Ok(())
    }

    /// Share of right answers; `None` before the first.
    pub fn accuracy(&self, side: Side) -> Option<Accuracy> {
        let (samples, correct) = (*self.answers.get(side as usize)?, *self.correct.get(side as usize)?);
        (samples > 0).then(|| Accuracy { accuracy: correct as f64 / samples as f64, samples, correct })
    }
}

/// Classes of an output `[batch, C]`, also with axes of 1 around C; `None` for anything else, such as `[1, T, C]`.
fn classes(shape: &[usize], batch: usize) -> Option<usize> {
    let (first, rest) = shape.split_first()?;
    let wide = rest.iter().filter(|&&size| size != 1).count();
    let count = rest.iter().product();
    (*first == batch && wide <= 1 && count > 0).then_some(count)
}

fn shapes(outputs: &[Output]) -> String {
    let shape = |output: &Output| match &output.value {
        Some(tensor) => format!("{} is {} {:?}", output.name, tensor.values.type_name(), tensor.shape),
        None => format!("{} is no tensor", output.name),
    };
    outputs.iter().map(shape).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Values;

    fn output(name: &str, shape: &[usize], values: &[f32]) -> Output {
        Output { name: name.to_owned(), value: Some(Tensor::from_f32(shape.to_vec(), values.to_vec())) }
    }

    fn right(batch: usize, labels: &[i64], outputs: &[Output]) -> Result<usize, MeasureError> {
        let mut score = Score::with_batch(batch, labels);
        let name = score.choose(outputs)?;
        score.add(Side::Original, 0, outputs.iter().find(|o| o.name == name).and_then(|o| o.value.as_ref()))?;
        Ok(score.accuracy(Side::Original).map_or(0, |accuracy| accuracy.correct))
    }

    #[test]
    fn argmax_threshold_and_batches() {
        assert_eq!(right(1, &[2], &[output("y", &[1, 3], &[0.1, 0.2, 0.7])]).expect("class"), 1);
        assert_eq!(right(1, &[1], &[output("y", &[1, 3, 1, 1], &[0.1, 0.2, 0.7])]).expect("pooled map"), 0);
        assert_eq!(right(1, &[1], &[output("y", &[1, 1], &[0.6])]).expect("binary"), 1);
        assert_eq!(right(1, &[0], &[output("y", &[1, 1], &[0.6])]).expect("binary"), 0);
        assert_eq!(right(2, &[0, 1], &[output("y", &[2, 2], &[0.9, 0.1, 0.2, 0.8])]).expect("batch"), 2);
    }

    #[test]
    fn the_first_floating_output_that_gives_classes_counts() {
        let ids =
            Output { name: "id".to_owned(), value: Some(Tensor { shape: vec![1], values: Values::I64(vec![0]) }) };
        let outputs = [ids, output("hidden", &[1, 4, 2], &[0.0; 8]), output("logits", &[1, 2], &[0.0, 1.0])];
        assert_eq!(right(1, &[1], &outputs).expect("logits"), 1);
        let error = right(1, &[1], &outputs[..2]).expect_err("none");
        assert!(error.to_string().contains("hidden is float32 [1, 4, 2]"), "{error}");
    }

    #[test]
    fn labels_that_are_no_class_are_refused() {
        for label in [3, -1] {
            let error = right(1, &[label], &[output("y", &[1, 3], &[0.1, 0.2, 0.7])]).expect_err("label");
            assert!(error.hint().contains("from 0"), "{error}");
        }
        assert!(right(1, &[2], &[output("y", &[1, 1], &[0.6])]).is_err());
    }
}
