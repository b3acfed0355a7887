//! Kept rows times weights: the layer's own output, computed from the rows of its input.

use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, ArrayView2, ShapeBuilder};
use rayon::prelude::*;

use crate::model::{Layer, RowCut};
use crate::quant::WeightLayout;
use crate::simd::vectorised;

/// `groups` products of `[rows, depth] · [depth, channels]`; the weights stay in the tensor's own order.
#[derive(Clone, Copy, Debug)]
pub(super) struct Product {
    rows: usize,
    groups: usize,
    depth: usize,
    channels: usize,
    /// Whether a group's weights lie channel by channel (Conv, LSTM) instead of depth by depth (MatMul, ConvTranspose).
    by_channel: bool,
}

/// Channels of one task.
const PANEL: usize = 128;

/// Channels `from..from + count` of one group.
#[derive(Clone, Copy)]
pub(super) struct Task {
    product: Product,
    group: usize,
    from: usize,
    count: usize,
}

impl Product {
    /// How rows of `width` values meet a layer's weights; `None` when they do not fit.
    pub(super) fn new(layer: &Layer, layout: WeightLayout, rows: usize, width: usize) -> Option<Self> {
        let groups = layer.groups.max(1);
        let WeightLayout { outer, channels, inner } = layout;
        if rows == 0 || width == 0 || layout.is_empty() || !width.is_multiple_of(groups) {
            return None;
        }
        let depth = width / groups;
        // Flat order [outer, channels, inner]: either the innermost axis is summed over, or the outermost.
        let by_channel = depth == inner && layer.cut != RowCut::ChannelAxis && (inner > 1 || outer != width);
        let columns = if by_channel {
            outer.checked_mul(channels).filter(|all| all.is_multiple_of(groups))? / groups
        } else if width == outer {
            channels.checked_mul(inner)?
        } else {
            return None;
        };
        Some(Self { rows, groups, depth, channels: columns, by_channel })
    }

    /// Runs `task` for all groups and channels in parallel and adds up what it returns, always in the same order.
    pub(super) fn sum<const N: usize>(&self, task: impl Fn(Task) -> [f64; N] + Send + Sync) -> [f64; N] {
        let panels = self.channels.div_ceil(PANEL);
        let parts: Vec<[f64; N]> = (0..self.groups * panels)
            .into_par_iter()
            .with_min_len(1 + (1 << 12) / (self.depth * self.channels.min(PANEL)).max(1))
            .map(|i| {
                let (group, from) = (i / panels, i % panels * PANEL);
                task(Task { product: *self, group, from, count: PANEL.min(self.channels - from) })
            })
            .collect();
        parts.iter().fold([0.0; N], |mut sum, part| {
            sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
            sum
        })
    }
}

impl Product {
    /// Runs `task` for all groups and channels in parallel and adds up the squares of each row of what it returns.
    pub(super) fn row_energies(&self, task: impl Fn(Task) -> Array2<f32> + Send + Sync) -> Vec<f64> {
        let panels = self.channels.div_ceil(PANEL);
        let parts: Vec<Vec<f64>> = (0..self.groups * panels)
            .into_par_iter()
            .map(|i| {
                let (group, from) = (i / panels, i % panels * PANEL);
                let out = task(Task { product: *self, group, from, count: PANEL.min(self.channels - from) });
                out.rows().into_iter().map(|row| row.iter().map(|&x| f64::from(x) * f64::from(x)).sum()).collect()
            })
            .collect();
        parts.iter().fold(vec![0.0; self.rows], |mut sums, part| {
            sums.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
            sums
        })
    }
}

impl Task {
    /// An output of this task, all 0.
    pub(super) fn output(&self) -> Array2<f32> {
        Array2::zeros((self.product.rows, self.count))
    }

    /// `out = keep · out + inputs · weights`, of the whole rows and the whole weight only what this task is about.
    pub(super) fn multiply(&self, inputs: &[f32], weights: &[f32], keep: f32, out: &mut Array2<f32>) {
        let Product { rows, groups, depth, channels, by_channel } = self.product;
        let width = groups * depth;
        let inputs = inputs.get(self.group * depth..).unwrap_or_default();
        let inputs = ArrayView2::from_shape((rows, depth).strides((width, 1)), inputs);
        let size = depth * channels;
        let (start, strides) = if by_channel { (self.from * depth, (1, depth)) } else { (self.from, (channels, 1)) };
        let weights = weights.get(self.group * size + start..).unwrap_or_default();
        let weights = ArrayView2::from_shape((depth, self.count).strides(strides), weights);
        if let (Ok(inputs), Ok(weights)) = (inputs, weights) {
            general_mat_mul(1.0, &inputs, &weights, keep, out);
        }
    }
}

vectorised! {
    /// Sum of squares.
    pub(super) fn energy(values: &[f32]) -> f64 {
        const LANES: usize = 8;
        let mut sums = [0.0_f64; LANES];
        let (whole, rest) = values.as_chunks::<LANES>();
        for chunk in whole {
            for (sum, &x) in sums.iter_mut().zip(chunk) {
                *sum += f64::from(x) * f64::from(x);
            }
        }
        for (sum, &x) in sums.iter_mut().zip(rest) {
            *sum += f64::from(x) * f64::from(x);
        }
        sums.iter().sum()
    }
}
