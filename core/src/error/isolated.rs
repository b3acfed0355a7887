//! Isolated error: at the layer's own output, with only this layer quantized, from kept rows of its input.

mod product;

use serde::{Deserialize, Serialize};

use self::product::{Product, energy};
use super::Sqnr;
use crate::model::{Layer, RowCut, Weight};
use crate::plan::{Choice, Precision};
use crate::quant::{
    WeightLayout, activation_params, activation_params_bits, clip_range, float16_round_trip, quantize_weight,
};
use crate::stats::{RowReservoir, TensorStats};

/// What one choice does to a layer's own output, each part by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Isolated {
    /// The weight itself against its rounded values; needs no calibration.
    pub weight_sqnr_db: Sqnr,
    /// The output with only the weights quantized.
    pub weights_db: Sqnr,
    /// The output with only the input quantized.
    pub activations_db: Sqnr,
    /// The output with both.
    pub both_db: Sqnr,
}

/// The isolated error of `choice` for the main weight of a layer. See [`Probe`] for many choices of one layer.
pub fn isolated(
    layer: &Layer,
    weights: &[f32],
    rows: Option<&RowReservoir>,
    input: Option<&TensorStats>,
    choice: &Choice,
) -> Isolated {
    Probe::new(layer, weights, rows, input).measure(choice)
}

/// A layer made ready for measuring many choices: what does not depend on them is computed once.
///
/// The output is y = Σ x·w, without bias and without what follows; a Conv's rows are patches of its input, and of
/// ConvTranspose, LSTM and GRU only the product with the input counts. A layer whose input is no numbers (Gather) has
/// its weight's own error.
pub struct Probe<'a> {
    layout: WeightLayout,
    weights: &'a [f32],
    main: Option<&'a Weight>,
    weight_energy: f64,
    input: Option<&'a TensorStats>,
    rows: Option<&'a RowReservoir>,
    /// How rows and weights meet, and Σy²; `None` when there are no rows that fit.
    product: Option<(Product, f64)>,
    looks_up: bool,
}

impl<'a> Probe<'a> {
    /// Takes the layer's main weight, the kept rows of its input and the statistics of its input; both may be missing
    /// before calibration.
    pub fn new(
        layer: &'a Layer,
        weights: &'a [f32],
        rows: Option<&'a RowReservoir>,
        input: Option<&'a TensorStats>,
    ) -> Self {
        let layout = layer.weight().map(|w| w.layout).filter(|layout| layout.len() == weights.len());
        let layout = layout.unwrap_or(WeightLayout { outer: 1, channels: weights.len(), inner: 1 });
        let product = rows.and_then(|rows| Product::new(layer, layout, rows.len(), rows.width).map(|p| (rows, p)));
        let product = product.map(|(rows, product)| {
            let [signal] = product.sum(|task| {
                let mut y = task.output();
                task.multiply(&rows.rows, weights, 0.0, &mut y);
                [energy(y.as_slice().unwrap_or_default())]
            });
            (product, signal)
        });
        let looks_up = layer.cut == RowCut::None;
        let (main, weight_energy) = (layer.weight(), energy(weights));
        Self { layout, weights, main, weight_energy, input, rows, product, looks_up }
    }

    /// Measures one choice. Static activations are quantized in their clip range, dynamic ones in the range of the whole
    /// input tensor of the sample that a row comes from. Undefined where rows or statistics are missing.
    pub fn measure(&self, choice: &Choice) -> Isolated {
        let change = self.rounded(choice).map(|rounded| difference(rounded, self.weights));
        let weight_noise = change.as_deref().map_or(0.0, energy);
        let weight_sqnr_db = Sqnr::from_sums(self.weight_energy, weight_noise);
        let unknown = Isolated { weight_sqnr_db, ..Isolated::default() };

        let Some(((product, signal), rows)) = self.product.zip(self.rows) else {
            if self.looks_up {
                return Isolated {
                    weights_db: weight_sqnr_db,
                    activations_db: Sqnr::Identical,
                    both_db: weight_sqnr_db,
                    ..unknown
                };
            }
            return unknown;
        };
        let quantized = choice.is_static() || choice.is_dynamic();
        let moved = if quantized { self.moved(rows, choice) } else { None };
        let [weights, activations, both] = product.sum(|task| {
            let (mut noise, mut energies) = (task.output(), [0.0; 3]);
            if let Some(change) = &change {
                task.multiply(&rows.rows, change, 0.0, &mut noise);
                energies[0] = energy(noise.as_slice().unwrap_or_default());
                energies[2] = energies[0];
            }
            if let Some(moved) = &moved {
                let mut own = task.output();
                task.multiply(moved, self.weights, 0.0, &mut own);
                energies[1] = energy(own.as_slice().unwrap_or_default());
                // x̂·ŵ − x·w = x·Δw + Δx·w + Δx·Δw
                noise += &own;
                if let Some(change) = &change {
                    task.multiply(moved, change, 1.0, &mut noise);
                }
                energies[2] = energy(noise.as_slice().unwrap_or_default());
            }
            energies
        });
        let weights_db = Sqnr::from_sums(signal, weights);
        if quantized && moved.is_none() {
            return Isolated { weights_db, ..unknown };
        }
        let (activations_db, both_db) = (Sqnr::from_sums(signal, activations), Sqnr::from_sums(signal, both));
        Isolated { weight_sqnr_db, weights_db, activations_db, both_db }
    }

    /// Σy² of every kept row, as it is; `None` without rows that fit.
    pub fn row_signals(&self) -> Option<Vec<f64>> {
        let ((product, _), rows) = self.product.zip(self.rows)?;
        Some(product.row_energies(|task| {
            let mut y = task.output();
            task.multiply(&rows.rows, self.weights, 0.0, &mut y);
            y
        }))
    }

    /// Σ(ŷ − y)² of every kept row, with what `choice` quantizes quantized; `None` without rows and statistics.
    pub fn row_noises(&self, choice: &Choice) -> Option<Vec<f64>> {
        let ((product, _), rows) = self.product.zip(self.rows)?;
        let change = self.rounded(choice).map(|rounded| difference(rounded, self.weights));
        let quantized = choice.is_static() || choice.is_dynamic();
        let moved = if quantized { Some(self.moved(rows, choice)?) } else { None };
        Some(product.row_energies(|task| {
            let mut noise = task.output();
            if let Some(change) = &change {
                task.multiply(&rows.rows, change, 0.0, &mut noise);
            }
            if let Some(moved) = &moved {
                task.multiply(moved, self.weights, 1.0, &mut noise);
                if let Some(change) = &change {
                    task.multiply(moved, change, 1.0, &mut noise);
                }
            }
            noise
        }))
    }

    /// The weights as `choice` rounds them; `None` where it leaves them as they are.
    fn rounded(&self, choice: &Choice) -> Option<Vec<f32>> {
        match choice.precision {
            Precision::Float32 => None,
            Precision::Float16 => Some(float16_round_trip(self.weights)),
            _ if let Some(repaired) = self.main.and_then(|main| main.repaired(choice)) => Some(repaired.dequantize()),
            // What was trained lies on its own grid already.
            _ if self.main.is_some_and(|main| main.kept_grid(choice).is_some()) => None,
            _ => Some(quantize_weight(self.weights, self.layout, choice).dequantize()),
        }
    }

    /// x̂ − x of every row; `None` when the statistics of the input are missing.
    fn moved(&self, rows: &RowReservoir, choice: &Choice) -> Option<Vec<f32>> {
        let symmetry = choice.activation_symmetry;
        let mut moved = rows.rows.clone();
        if choice.is_static() {
            let bits = choice.activation.bits();
            let (lo, hi) = clip_range(self.input?, choice.activation_clip, symmetry, bits);
            activation_params_bits(lo, hi, symmetry, bits).fake_slice(&mut moved);
        } else {
            for (row, &(lo, hi)) in moved.chunks_mut(rows.width.max(1)).zip(&rows.ranges) {
                activation_params(lo, hi, symmetry).fake_slice(row);
            }
        }
        Some(difference(moved, &rows.rows))
    }
}

/// `values − from`, element by element.
fn difference(mut values: Vec<f32>, from: &[f32]) -> Vec<f32> {
    values.iter_mut().zip(from).for_each(|(value, &from)| *value -= from);
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{NodePath, Window};
    use crate::plan::{Activation, Clip, Granularity, Mode, Symmetry};
    use crate::stats::RowKey;

    const INT8: Choice = Choice {
        precision: Precision::Int4,
        mode: Mode::Static,
        activation: Activation::Int8,
        granularity: Granularity::PerChannel,
        clip: Clip::MinMax,
        ..Choice::FLOAT
    };

    fn layer(op: &str, shape: &[usize], axis: usize, groups: usize, cut: RowCut) -> Layer {
        let weight = Weight {
            role: "weight",
            tensor: "w".to_owned(),
            input: 1,
            depth: 0,
            shape: shape.to_vec(),
            layout: WeightLayout::along(shape, axis).expect("axis"),
            is_f32: true,
            size_bytes: 0,
            grid: None,
            repaired: None,
        };
        Layer {
            name: "layer".to_owned(),
            op: op.to_owned(),
            path: NodePath { bodies: Vec::new(), node: 0 },
            weights: vec![weight],
            input: "x".to_owned(),
            output: "y".to_owned(),
            observed: "y".to_owned(),
            bias: None,
            groups,
            cut,
            parameters: 0,
            reason: String::new(),
            existing: None,
            scaled: false,
        }
    }

    fn noise(seed: u64, count: usize) -> Vec<f32> {
        (0..count as u64).map(|i| (RowKey::new(seed, 0, 0, i).0 >> 40) as f32 / 8_388_608.0 - 1.0).collect()
    }

    fn rows(width: usize) -> (RowReservoir, TensorStats) {
        let (mut rows, mut stats) = (RowReservoir::new(width), TensorStats::default());
        for i in 0..20 {
            let row = noise(100 + i, width);
            let range = stats.observe(&row);
            rows.offer(RowKey(i), range, &row);
        }
        (rows, stats)
    }

    /// The output in f64 by the definition: `at(group, channel, k)` is the flat index of a weight.
    fn reference(
        x: &[f32],
        w: &[f32],
        g: usize,
        c: usize,
        d: usize,
        at: impl Fn(usize, usize, usize) -> usize,
    ) -> Vec<f64> {
        let row = |x: &[f32]| -> Vec<f64> {
            let one = |i: usize| {
                let (group, channel) = (i / c, i % c);
                (0..d).map(|k| f64::from(x[group * d + k]) * f64::from(w[at(group, channel, k)])).sum()
            };
            (0..g * c).map(one).collect()
        };
        x.chunks(g * d).flat_map(row).collect()
    }

    /// Every form against the definition, weights, activations and both.
    #[test]
    fn noise_is_the_difference_of_outputs() {
        let patches = || {
            RowCut::Patches(Window {
                kernel: vec![3],
                strides: vec![1],
                dilations: vec![1],
                pads: vec![0; 2],
                same: None,
            })
        };
        type At = fn(usize, usize, usize) -> usize;
        let cases: [(Layer, usize, usize, usize, At); 6] = [
            (layer("MatMul", &[40, 150], 1, 1, RowCut::LastAxis), 1, 150, 40, |_, c, k| k * 150 + c),
            (layer("Gemm", &[7, 40], 0, 1, RowCut::LastAxis), 1, 7, 40, |_, c, k| c * 40 + k),
            (layer("Conv", &[6, 4, 3], 0, 2, patches()), 2, 3, 12, |g, c, k| (g * 3 + c) * 12 + k),
            (layer("Conv", &[5, 1, 3], 0, 5, patches()), 5, 1, 3, |g, _, k| g * 3 + k),
            (layer("ConvTranspose", &[6, 4, 3], 1, 2, RowCut::ChannelAxis), 2, 12, 3, |g, c, k| (g * 3 + k) * 12 + c),
            (layer("LSTM", &[2, 8, 10], 1, 1, RowCut::LastAxis), 1, 16, 10, |_, c, k| c * 10 + k),
        ];
        for (layer, groups, channels, depth, at) in cases {
            let layout = layer.weights[0].layout;
            let w = noise(1, layout.len());
            let (rows, stats) = rows(groups * depth);
            let w_hat = quantize_weight(&w, layout, &INT8).dequantize();
            let (lo, hi) = stats.range();
            let mut x_hat = rows.rows.clone();
            activation_params(lo, hi, Symmetry::Asymmetric).fake_slice(&mut x_hat);
            let run = |x: &[f32], w: &[f32]| reference(x, w, groups, channels, depth, at);
            let y = run(&rows.rows, &w);
            let db = |other: Vec<f64>| {
                let noise: f64 = y.iter().zip(&other).map(|(a, b)| (a - b) * (a - b)).sum();
                10.0 * (y.iter().map(|a| a * a).sum::<f64>() / noise).log10()
            };
            let expected = [db(run(&rows.rows, &w_hat)), db(run(&x_hat, &w)), db(run(&x_hat, &w_hat))];
            let got = isolated(&layer, &w, Some(&rows), Some(&stats), &INT8);
            let got = [got.weights_db, got.activations_db, got.both_db].map(|sqnr| sqnr.db().expect("defined"));
            for (got, expected) in got.iter().zip(expected) {
                assert!((got - expected).abs() < 1e-3, "{} {got} {expected}", layer.op);
            }
        }
    }

    #[test]
    fn what_is_not_quantized_is_identical_and_what_is_not_known_undefined() {
        let layer = layer("MatMul", &[40, 3], 1, 1, RowCut::LastAxis);
        let w = noise(1, 120);
        let (rows, stats) = rows(40);
        let weight_only = Choice { mode: Mode::WeightOnly, ..INT8 };
        let got = isolated(&layer, &w, Some(&rows), None, &weight_only);
        assert_eq!((got.activations_db, got.both_db), (Sqnr::Identical, got.weights_db));
        let float = isolated(&layer, &w, Some(&rows), Some(&stats), &Choice::FLOAT);
        assert_eq!(float.both_db, Sqnr::Identical);
        let blind = isolated(&layer, &w, None, None, &INT8);
        assert!(matches!((blind.weight_sqnr_db, blind.both_db), (Sqnr::Db(_), Sqnr::Undefined)));
        let uncalibrated = isolated(&layer, &w, Some(&rows), None, &INT8);
        assert!(matches!((uncalibrated.weights_db, uncalibrated.activations_db), (Sqnr::Db(_), Sqnr::Undefined)));
        let dynamic = isolated(&layer, &w, Some(&rows), None, &Choice { mode: Mode::Dynamic, ..INT8 });
        assert!(matches!(dynamic.both_db, Sqnr::Db(_)));
    }

    #[test]
    fn an_embedding_has_the_error_of_its_weight() {
        let layer = layer("Gather", &[50, 8], 0, 1, RowCut::None);
        let got = isolated(&layer, &noise(1, 400), None, None, &INT8);
        assert_eq!((got.weights_db, got.activations_db), (got.weight_sqnr_db, Sqnr::Identical));
    }
}
