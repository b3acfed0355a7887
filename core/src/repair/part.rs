//! A weight as the matrices that meet the rows of its layer's input.

use crate::model::{Layer, RowCut};
use crate::plan::Granularity;
use crate::quant::{QuantParams, QuantizedWeight, WeightLayout, spans};

/// Output rows that meet the same columns of the layer's input: one group of a convolution, or all of any other weight.
#[derive(Clone, Debug)]
pub struct Part {
    /// Which of the groups of the input's columns.
    pub group: usize,
    /// Weights of one output.
    pub columns: usize,
    /// Weights of one row that share a scale, side by side.
    pub span: usize,
    /// Whether a scale may belong to more than one row.
    pub shares_scales: bool,
    /// Where each row lies in channel-major order, from one weight to the next, and the index of its first scale.
    rows: Vec<Place>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    start: usize,
    stride: usize,
    scale: usize,
    /// The output channel that the row belongs to.
    channel: usize,
}

/// The integers of a part, row by row, and their parameters: `columns / span` (rounded up) a row.
#[derive(Clone, Debug, PartialEq)]
pub struct Rounded {
    /// `rows · columns`.
    pub integers: Vec<i8>,
    /// Parameters of each span.
    pub params: Vec<QuantParams>,
}

impl Rounded {
    /// The real values.
    pub fn dequantize(&self, columns: usize, span: usize) -> Vec<f32> {
        let spans = columns.div_ceil(span.max(1));
        let mut out = Vec::with_capacity(self.integers.len());
        for (row, params) in self.integers.chunks(columns.max(1)).zip(self.params.chunks(spans.max(1))) {
            for (integers, params) in row.chunks(span.max(1)).zip(params) {
                out.extend(integers.iter().map(|&q| params.dequantize(i32::from(q))));
            }
        }
        out
    }
}

impl Part {
    /// The parts of weight `index` of `layer` by the rows of its input; `None` where rows of the input do not meet it (a
    /// recurrence, an embedding, a weight of more than two dimensions in a MatMul) or where the weights of a row that share
    /// a scale do not lie side by side.
    pub fn of(layer: &Layer, index: usize, granularity: Granularity) -> Option<Vec<Self>> {
        let layout = layer.weights.get(index)?.layout;
        if index > 0 || layer.cut == RowCut::None || layout.is_empty() {
            return None;
        }
        let groups = layer.groups.max(1);
        if layer.op == "ConvTranspose" {
            return Self::transposed(layout, groups, granularity);
        }
        if layer.op == "MatMul" && layer.weights.first()?.shape.len() != 2 || !layout.channels.is_multiple_of(groups) {
            return None;
        }
        let each = layout.channels / groups;
        let parts = (0..groups).map(|group| Self::rows(layout, granularity, group, group * each..(group + 1) * each));
        Some(parts.collect())
    }

    /// The whole weight, channel by channel, whatever meets it.
    pub fn whole(layout: WeightLayout, granularity: Granularity) -> Self {
        Self::rows(layout, granularity, 0, 0..layout.channels)
    }

    fn rows(layout: WeightLayout, granularity: Granularity, group: usize, channels: std::ops::Range<usize>) -> Self {
        let depth = layout.depth().max(1);
        let span = spans(layout, granularity).1.min(depth);
        let blocks = depth.div_ceil(span);
        let scale = |channel| if granularity == Granularity::PerTensor { 0 } else { channel * blocks };
        let place = |channel| Place { start: channel * depth, stride: 1, scale: scale(channel), channel };
        Self {
            group,
            columns: depth,
            span,
            shares_scales: granularity == Granularity::PerTensor,
            rows: channels.map(place).collect(),
        }
    }

    /// `[C, O/groups, kernel…]`: each channel of a group's input meets every position of the kernel by itself.
    fn transposed(layout: WeightLayout, groups: usize, granularity: Granularity) -> Option<Vec<Self>> {
        let WeightLayout { outer, channels, inner } = layout;
        if matches!(granularity, Granularity::Block(_)) || !outer.is_multiple_of(groups) {
            return None;
        }
        let columns = outer / groups;
        let part = |group: usize| {
            let place = |(channel, position): (usize, usize)| Place {
                start: channel * layout.depth() + group * columns * inner + position,
                stride: inner,
                scale: if granularity == Granularity::PerTensor { 0 } else { channel },
                channel: group * channels + channel,
            };
            let rows = (0..channels).flat_map(|channel| (0..inner).map(move |position| (channel, position)));
            Self { group, columns, span: columns, shares_scales: true, rows: rows.map(place).collect() }
        };
        Some((0..groups).map(part).collect())
    }

    /// Number of rows.
    pub fn count(&self) -> usize {
        self.rows.len()
    }

    /// The output channel of each row.
    pub fn channels(&self) -> impl Iterator<Item = usize> {
        self.rows.iter().map(|row| row.channel)
    }

    /// Index of the first scale of each row.
    pub fn scales(&self) -> impl Iterator<Item = usize> {
        self.rows.iter().map(|row| row.scale)
    }

    /// The rows of a weight in channel-major order.
    pub fn take<T: Copy + Default>(&self, values: &[T]) -> Vec<T> {
        let each = |row: &Place| {
            let Place { start, stride, .. } = *row;
            (0..self.columns).map(move |k| values.get(start + k * stride).copied().unwrap_or_default())
        };
        self.rows.iter().flat_map(each).collect()
    }

    /// Puts integers and parameters into a weight in channel-major order and its scales.
    pub fn put(&self, rounded: &Rounded, integers: &mut [i8], params: &mut [QuantParams]) {
        let spans = self.columns.div_ceil(self.span.max(1)).max(1);
        let each = rounded.integers.chunks(self.columns.max(1)).zip(rounded.params.chunks(spans));
        for (row, (values, own)) in self.rows.iter().zip(each) {
            for (k, &value) in values.iter().enumerate() {
                if let Some(slot) = integers.get_mut(row.start + k * row.stride) {
                    *slot = value;
                }
            }
            for (at, value) in own.iter().enumerate() {
                if let Some(slot) = params.get_mut(row.scale + at) {
                    *slot = *value;
                }
            }
        }
    }
}

/// A weight from integers in channel-major order and the parameters of its scales.
pub fn assemble(
    layout: WeightLayout,
    granularity: Granularity,
    bits: u32,
    integers: Vec<i8>,
    params: &[QuantParams],
) -> QuantizedWeight {
    QuantizedWeight {
        bits,
        layout,
        granularity,
        values: layout.from_channel_major(integers),
        scales: params.iter().map(|params| params.scale).collect(),
        zero_points: params.iter().map(|params| params.zero_point as i8).collect(),
        non_finite: 0,
    }
}

/// Number of scales of a weight.
pub fn scale_count(layout: WeightLayout, granularity: Granularity) -> usize {
    let (channel, size) = spans(layout, granularity);
    if granularity == Granularity::PerTensor { 1 } else { layout.channels * channel.div_ceil(size) }
}
