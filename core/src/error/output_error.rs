//! Running error sums of one output over all samples, in double precision.

use half::{bf16, f16};
use serde::{Deserialize, Serialize};

use super::Sqnr;
use super::metric::Divergence;
use crate::runtime::View;
use crate::tensor::{Tensor, Values};

/// Error sums of one output over the samples added so far. Values that are not finite in either model are counted and
/// kept out of the sums, never skipped in silence.
#[derive(Clone, Debug)]
pub struct OutputError {
    signal: f64,
    noise: f64,
    dot: f64,
    other: f64,
    max_error: f64,
    values: u64,
    non_finite: u64,
    original_non_finite: u64,
    new_non_finite: u64,
    samples: u64,
    agree: u64,
    class_like: bool,
    divergence: Option<Divergence>,
    problem: Option<String>,
}

/// The figures of one output.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OutputQuality {
    /// The output's name.
    pub name: String,
    /// SQNR over all samples.
    pub sqnr_db: Sqnr,
    /// Cosine of the angle between all original and all quantized values, in −1..=1; `None` without signal.
    #[serde(serialize_with = "six_digits")]
    pub cosine: Option<f64>,
    /// Largest absolute difference.
    pub max_abs_error: f64,
    /// Number of values compared.
    pub values: u64,
    /// Values of the quantized model that are NaN or infinite.
    pub non_finite: u64,
    /// Values of the original that are.
    pub original_non_finite: u64,
    /// Share of samples whose largest class is the same; only for outputs `[1, C]` with C > 1.
    pub top1_agreement: Option<f64>,
    /// Mean Kullback–Leibler divergence over the last axis that is wider than 1, in nats; `None` where the output gives no
    /// classes.
    #[serde(default)]
    pub kl: Option<f64>,
    /// Why the figures are missing, e.g. shapes that differ.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl Default for OutputError {
    fn default() -> Self {
        Self {
            signal: 0.0,
            noise: 0.0,
            dot: 0.0,
            other: 0.0,
            max_error: 0.0,
            values: 0,
            non_finite: 0,
            original_non_finite: 0,
            new_non_finite: 0,
            samples: 0,
            agree: 0,
            class_like: true,
            divergence: None,
            problem: None,
        }
    }
}

impl OutputError {
    /// Σy² and Σ(y − ŷ)² so far; `None` where [`Self::report`] would have no SQNR for shapes or new values that are not finite.
    pub fn sums(&self) -> Option<(f64, f64)> {
        (self.problem.is_none() && self.new_non_finite == 0).then_some((self.signal, self.noise))
    }

    /// For an output of the whole model, where the divergence of class distributions is wanted too.
    pub fn at_output() -> Self {
        Self { divergence: Some(Divergence::default()), ..Self::default() }
    }

    /// Adds one sample: the original's output and the quantized model's. Text has no error and becomes a problem.
    pub fn add(&mut self, original: &Tensor, quantized: &Tensor) {
        macro_rules! with {
            ($values:expr, $name:ident, $then:expr) => {
                match $values {
                    Values::F32($name) => $then,
                    Values::F64($name) => $then,
                    Values::F16($name) => $then,
                    Values::Bf16($name) => $then,
                    Values::I8($name) => $then,
                    Values::I16($name) => $then,
                    Values::I32($name) => $then,
                    Values::I64($name) => $then,
                    Values::U8($name) => $then,
                    Values::U16($name) => $then,
                    Values::U32($name) => $then,
                    Values::U64($name) => $then,
                    Values::Bool($name) => $then,
                    Values::Text(_) => self.fail("text cannot be compared by value"),
                }
            };
        }
        let (from, to) = (&original.shape, &quantized.shape);
        with!(&original.values, y, with!(&quantized.values, x, self.add_values(from, y, to, x)));
    }

    /// Adds one sample whose quantized side is still ONNX Runtime's memory.
    pub fn add_view(&mut self, original: &Tensor, quantized: &View<'_>) {
        if let (Values::F32(y), View::F32 { values: x, .. }) = (&original.values, quantized) {
            self.add_values(&original.shape, y, &quantized.shape().unwrap_or_default(), x);
        } else {
            match quantized.to_tensor() {
                Some(tensor) => self.add(original, &tensor),
                None => self.fail("the quantized model gives no tensor"),
            }
        }
    }

    /// Adds one sample from plain slices with their shapes.
    pub fn add_values<Y: Number, X: Number>(
        &mut self,
        original_shape: &[usize],
        original: &[Y],
        quantized_shape: &[usize],
        quantized: &[X],
    ) {
        if original_shape != quantized_shape || original.len() != quantized.len() {
            self.fail(&format!("shape differs: original {original_shape:?}, quantized {quantized_shape:?}"));
            return;
        }
        self.samples += 1;
        if matches!(original_shape, [1, classes] if *classes > 1) {
            self.agree += u64::from(argmax(original) == argmax(quantized));
        } else {
            self.class_like = false;
        }
        if let Some(divergence) = &mut self.divergence {
            divergence.add(original_shape, original.iter().map(|y| y.to_f64()), quantized.iter().map(|x| x.to_f64()));
        }
        self.values += original.len() as u64;
        for (y, x) in original.iter().zip(quantized) {
            let (y, x) = (y.to_f64(), x.to_f64());
            if y.is_finite() && x.is_finite() {
                let difference = x - y;
                self.signal += y * y;
                self.other += x * x;
                self.dot += x * y;
                self.noise += difference * difference;
                self.max_error = self.max_error.max(difference.abs());
            } else {
                self.original_non_finite += u64::from(!y.is_finite());
                self.non_finite += u64::from(!x.is_finite());
                self.new_non_finite += u64::from(y.is_finite());
            }
        }
    }

    /// Notes that this sample could not be compared; the figures become undefined.
    pub fn fail(&mut self, why: &str) {
        self.samples += 1;
        self.problem = Some(why.to_owned());
    }

    /// SQNR so far: undefined after a problem, with a non-finite value where the original has a finite one, without signal
    /// to set the noise against, or when the original has no finite value at all.
    pub fn sqnr(&self) -> Sqnr {
        let nothing_left = self.values > 0 && self.original_non_finite == self.values;
        if self.problem.is_some() || self.new_non_finite > 0 || nothing_left {
            Sqnr::Undefined
        } else {
            Sqnr::from_sums(self.signal, self.noise)
        }
    }

    /// Σ (x − x̂)² so far, over values that are finite in both models.
    pub fn noise(&self) -> f64 {
        self.noise
    }

    /// Cosine similarity so far; `None` without signal on either side.
    pub fn cosine(&self) -> Option<f64> {
        let product = self.signal * self.other;
        (self.problem.is_none() && product > 0.0).then(|| self.dot / product.sqrt())
    }

    /// Non-finite values that only the quantized model has.
    pub fn new_non_finite(&self) -> u64 {
        self.new_non_finite
    }

    /// Whether anything differs at all.
    pub fn moved(&self) -> bool {
        self.problem.is_some() || self.noise > 0.0 || self.new_non_finite > 0
    }

    /// Number of samples added.
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// All figures under the output's name.
    pub fn report(&self, name: &str) -> OutputQuality {
        let fine = self.problem.is_none();
        OutputQuality {
            name: name.to_owned(),
            sqnr_db: self.sqnr(),
            cosine: self.cosine(),
            max_abs_error: self.max_error,
            values: self.values,
            non_finite: self.non_finite,
            original_non_finite: self.original_non_finite,
            top1_agreement: (fine && self.class_like && self.samples > 0)
                .then(|| self.agree as f64 / self.samples as f64),
            kl: self.divergence.filter(|_| fine).and_then(|divergence| divergence.mean()),
            problem: self.problem.clone(),
        }
    }
}

/// A number that becomes `f64` (64-bit integers beyond 2⁵³ are rounded).
pub trait Number: Copy {
    /// The value in double precision.
    fn to_f64(self) -> f64;
}

macro_rules! number {
    ($($type:ty),*) => {
        $(impl Number for $type {
            fn to_f64(self) -> f64 {
                self.into()
            }
        })*
    };
}
number!(f32, f64, f16, bf16, i8, i16, i32, u8, u16, u32);

impl Number for i64 {
    fn to_f64(self) -> f64 {
        self as f64
    }
}

impl Number for u64 {
    fn to_f64(self) -> f64 {
        self as f64
    }
}

impl Number for bool {
    fn to_f64(self) -> f64 {
        f64::from(u8::from(self))
    }
}

/// Index of the largest value: the first of equals, and the first NaN when there is one (as numpy's `argmax`); `None`
/// when empty.
pub fn argmax<T: Number>(values: &[T]) -> Option<usize> {
    let mut best: Option<(usize, f64)> = None;
    for (index, value) in values.iter().enumerate() {
        let value = value.to_f64();
        if value.is_nan() {
            return Some(index);
        }
        if best.is_none_or(|(_, top)| value > top) {
            best = Some((index, value));
        }
    }
    best.map(|(index, _)| index)
}

/// Cosines are written to six digits: the seventh is rounding noise of single precision.
#[allow(clippy::ref_option)] // serde hands a field over by reference
pub(super) fn six_digits<S: serde::Serializer>(cosine: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    match cosine {
        Some(value) => serializer.serialize_some(&((value * 1e6).round() / 1e6)),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn numbers(values: &Value) -> Vec<f32> {
        let number = |value: &Value| match value {
            Value::String(text) => text.parse().expect("nan or inf"),
            value => value.as_f64().expect("number") as f32,
        };
        values.as_array().expect("list").iter().map(number).collect()
    }

    /// Figures from numpy; `testdata/metrics.py` made them.
    #[test]
    fn figures_are_those_of_numpy() {
        let cases: Value = serde_json::from_str(include_str!("../../testdata/metrics.json")).expect("json");
        for case in cases.as_array().expect("list") {
            let name = case["name"].as_str().expect("name");
            let mut error = OutputError::default();
            for sample in case["samples"].as_array().expect("list") {
                let shape: Vec<usize> = serde_json::from_value(sample["shape"].clone()).expect("shape");
                let tensor = |key: &str| Tensor::from_f32(shape.clone(), numbers(&sample[key]));
                error.add(&tensor("original"), &tensor("quantized"));
            }
            let report = error.report(name);
            let near = |ours: Option<f64>, theirs: &Value| match (ours, theirs.as_f64()) {
                (Some(a), Some(b)) => (a - b).abs() <= 1e-9 * b.abs().max(1.0),
                (a, b) => a == b,
            };
            match &case["sqnr_db"] {
                Value::Null => assert_eq!(report.sqnr_db, Sqnr::Undefined, "{name}"),
                Value::String(_) => assert_eq!(report.sqnr_db, Sqnr::Identical, "{name}"),
                db => assert!(near(report.sqnr_db.db(), db), "{name}: {:?} {db}", report.sqnr_db),
            }
            assert!(near(report.cosine, &case["cosine"]), "{name}: {:?}", report.cosine);
            assert!(near(report.top1_agreement, &case["top1_agreement"]), "{name}: {:?}", report.top1_agreement);
            assert!(near(Some(report.max_abs_error), &case["max_abs_error"]), "{name}");
            assert_eq!(report.values, case["values"].as_u64().expect("count"), "{name}");
            assert_eq!(report.non_finite, case["non_finite"].as_u64().expect("count"), "{name}");
            assert_eq!(report.original_non_finite, case["original_non_finite"].as_u64().expect("count"), "{name}");
        }
    }

    #[test]
    fn a_nan_that_moved_is_a_new_one() {
        let tensor = |values: &[f32]| Tensor::from_f32(vec![values.len()], values.to_vec());
        let mut error = OutputError::default();
        error.add(&tensor(&[1.0, f32::NAN, 2.0]), &tensor(&[1.0, 0.5, f32::INFINITY]));
        assert_eq!((error.sqnr(), error.new_non_finite()), (Sqnr::Undefined, 1));
        let mut error = OutputError::default();
        error.add(&tensor(&[f32::NAN; 2]), &tensor(&[f32::NAN; 2]));
        assert_eq!((error.sqnr(), error.new_non_finite()), (Sqnr::Undefined, 0));
    }

    #[test]
    fn other_types_and_other_shapes() {
        let mut error = OutputError::default();
        let half = |x: f32| Values::F16(vec![f16::from_f32(x); 2]);
        error.add(&Tensor { shape: vec![2], values: half(1.0) }, &Tensor { shape: vec![2], values: half(1.5) });
        error.add(&Tensor { shape: vec![1], values: Values::I64(vec![3]) }, &Tensor::from_f32(vec![1], vec![3.0]));
        assert_eq!(error.report("y").max_abs_error, 0.5);
        assert!(matches!(error.sqnr(), Sqnr::Db(_)));
        error.add(&Tensor::from_f32(vec![2, 1], vec![0.0; 2]), &Tensor::from_f32(vec![1, 2], vec![0.0; 2]));
        let report = error.report("y");
        assert_eq!((report.sqnr_db, report.cosine, report.top1_agreement), (Sqnr::Undefined, None, None));
        assert!(report.problem.expect("problem").contains("[2, 1]"));
    }
}
