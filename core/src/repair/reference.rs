//! Repairs against the papers' own formulae in numpy (`fixtures/reference.py`), and against rounding to nearest.

use serde::Deserialize;

use super::algorithm::{Inputs, Repair, Task};
use super::clip::{ClipSearch, to_nearest};
use super::descent::{Descent, descend};
use super::gptq::{Gptq, column_by_column};
use super::hqq::Hqq;
use super::{Moments, Range, Rounded, RowsOf, refit};
use crate::plan::{Choice, Precision, Symmetry};
use crate::quant::QuantParams;

#[derive(Deserialize)]
struct Case {
    columns: usize,
    x: Vec<f32>,
    x_hat: Vec<f32>,
    weights: Vec<f32>,
    scales: Vec<f32>,
    zero_points: Vec<i32>,
    gptq: Vec<i8>,
    descent: Vec<i8>,
    refit: Vec<f32>,
}

fn cases() -> Vec<Case> {
    serde_json::from_str(include_str!("fixtures/reference.json")).expect("fixture")
}

fn moments(x: &[f32], columns: usize, float: Option<&[f32]>) -> Moments {
    let of = |values| RowsOf { values, stride: columns, offset: 0 };
    let mut moments = Moments::new(columns, float.is_some());
    moments.add(of(x), float.map(of));
    moments
}

fn range(symmetry: Symmetry) -> Range {
    Range::new(&Choice { precision: Precision::Int4, symmetry, ..Choice::FLOAT }, None)
}

impl Case {
    fn fixed(&self) -> Vec<QuantParams> {
        let one = |(&scale, &zero_point)| QuantParams { scale, zero_point, qmin: -8, qmax: 7 };
        self.scales.iter().zip(&self.zero_points).map(one).collect()
    }
}

fn differing(a: &[i8], b: &[i8]) -> usize {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).filter(|(a, b)| a != b).count()
}

#[test]
fn integers_are_those_of_the_papers() {
    for case in cases() {
        let columns = case.columns;
        let inputs = Inputs::new(moments(&case.x, columns, None).hessian(false), f64::INFINITY);
        let task = Task {
            weights: &case.weights,
            columns,
            span: columns,
            inputs: Some(&inputs),
            range: range(Symmetry::Asymmetric),
            fixed: Some(case.fixed()),
            polish_until: None,
        };
        let gptq = column_by_column(&task, &inputs).expect("a factor");
        assert_eq!(differing(&gptq.integers, &case.gptq), 0, "{columns} columns");
        let start = to_nearest(&task, &vec![1.0; columns]);
        let got = descend(&task, start, &inputs.hessian.to_f32());
        assert_eq!(differing(&got.integers, &case.descent), 0, "{columns} columns");
        let refitted =
            refit::refit(&moments(&case.x_hat, columns, Some(&case.x)), &case.weights, false).expect("drift");
        let worst = refitted.iter().zip(&case.refit).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-4, "{columns} columns: {worst}");
    }
}

/// tr(ΔW·H·ΔWᵀ) on correlated inputs: what each repair leaves of the error of the clip search, in blocks and by channel.
#[test]
fn repairs_leave_less_error_than_rounding_to_nearest() {
    let (columns, rows, samples) = (192, 48, 2000);
    let mut rng = fastrand::Rng::with_seed(5);
    let mut normal = || (0..4).map(|_| rng.f32() - 0.5).sum::<f32>();
    let mix: Vec<f32> = (0..columns * 24).map(|_| normal()).collect();
    let mut x = Vec::new();
    for _ in 0..samples {
        let hidden: Vec<f32> = (0..24).map(|_| normal()).collect();
        let value = |c: usize| hidden.iter().enumerate().map(|(h, v)| v * mix[c * 24 + h]).sum::<f32>();
        let row: Vec<f32> = (0..columns).map(value).collect();
        x.extend(row.into_iter().map(|v| v + 0.3 * normal()));
    }
    let weights: Vec<f32> = (0..rows * columns).map(|_| normal()).collect();
    let moments = moments(&x, columns, None);
    let inputs = Inputs::new(moments.hessian(false), moments.rows);
    for span in [32, columns] {
        for symmetry in [Symmetry::Symmetric, Symmetry::Asymmetric] {
            let task = Task {
                weights: &weights,
                columns,
                span,
                inputs: Some(&inputs),
                range: range(symmetry),
                fixed: None,
                polish_until: None,
            };
            let db = |rounded: &Rounded| {
                let (signal, noise) = moments.signal_and_noise(&weights, &rounded.dequantize(columns, span), None);
                10.0 * (signal / noise).log10()
            };
            let nearest = db(&ClipSearch.round(&task));
            let raw = db(&column_by_column(&task, &inputs).expect("a factor"));
            let (gptq, descent) = (db(&Gptq.round(&task)), db(&Descent.round(&task)));
            assert!(gptq > raw + 0.2, "span {span} {symmetry}: polishing {raw} {gptq}");
            assert!(gptq > nearest + 5.0, "span {span} {symmetry}: {nearest} {gptq}");
            assert!(descent > nearest + 3.0, "span {span} {symmetry}: {nearest} {descent}");
            let hqq = db(&Hqq.round(&task));
            assert!((hqq - nearest).abs() < 2.0, "span {span} {symmetry}: {nearest} {hqq}");
        }
    }
}
