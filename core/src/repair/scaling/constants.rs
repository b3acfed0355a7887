//! The constants that a scaling changes: weights of layers, and what the tensor comes from.

use crate::model::graph::{Links, int_attribute};
use crate::model::{Layer, Model};
use crate::onnx::proto::{GraphProto, NodeProto, TensorProto, tensor_proto::DataType};
use crate::operators::is_default_domain;
use crate::stats::ChannelAxis;
use std::collections::HashMap;

/// How the channels of an activation lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Channelled {
    pub(super) axis: ChannelAxis,
    pub(super) channels: usize,
    /// Number of dimensions; 0 where it does not matter (channels along the last axis).
    pub(super) rank: usize,
}

/// Which channel a value of a constant belongs to: value `i` to `(i / block)·size + (i / inner) % size`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Lane {
    pub(super) block: usize,
    pub(super) inner: usize,
    pub(super) size: usize,
}

impl Lane {
    /// Channels along one axis, `inner` values apart, of a tensor of `len` values.
    fn axis(len: usize, size: usize, inner: usize) -> Self {
        Self { block: len.max(1), inner: inner.max(1), size: size.max(1) }
    }

    /// The channel of value `i`.
    pub(super) fn channel(&self, i: usize) -> usize {
        i / self.block * self.size + i / self.inner % self.size
    }
}

/// A constant input of a node, and how it follows a scaling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) node: usize,
    pub(super) input: usize,
    /// `None`: one value for all channels, which becomes one for each.
    pub(super) lane: Option<Lane>,
    /// Whether it is divided by the factors; otherwise multiplied.
    pub(super) divided: bool,
}

/// The main graph of a model with its links and constants at hand.
pub(super) struct Main<'m> {
    pub(super) model: &'m Model,
    pub(super) graph: &'m GraphProto,
    pub(super) links: Links,
    constants: HashMap<&'m str, &'m TensorProto>,
    layers: HashMap<usize, usize>,
}

impl<'m> Main<'m> {
    pub(super) fn of(model: &'m Model) -> Option<Self> {
        let graph = model.graph.graph.as_ref()?;
        let main = model.layers.iter().enumerate().filter(|(_, layer)| !layer.in_subgraph());
        Some(Self {
            model,
            graph,
            links: Links::of(graph),
            constants: graph.initializer.iter().map(|tensor| (tensor.name(), tensor)).collect(),
            layers: main.map(|(index, layer)| (layer.path.node, index)).collect(),
        })
    }

    /// The layer of this node.
    pub(super) fn layer(&self, node: usize) -> Option<(usize, &'m Layer)> {
        let index = *self.layers.get(&node)?;
        Some((index, self.model.layers.get(index)?))
    }

    /// Dimensions of the float32 constant that the node reads there.
    pub(super) fn constant(&self, node: &NodeProto, input: usize) -> Option<Vec<usize>> {
        let tensor = self.constants.get(node.input.get(input)?.as_str())?;
        let dims = tensor.dims.iter().map(|&dim| usize::try_from(dim).ok()).collect::<Option<Vec<_>>>()?;
        (tensor.data_type() == DataType::Float as i32).then_some(dims)
    }

    /// The float32 constant of one value that the node reads there.
    pub(super) fn scalar(&self, node: &NodeProto, input: usize) -> Option<f32> {
        let tensor = self.constants.get(node.input.get(input)?.as_str())?;
        match self.model.file.read_f32(tensor).ok()?[..] {
            [value] if self.constant(node, input)?.iter().all(|&dim| dim == 1) => Some(value),
            _ => None,
        }
    }

    /// Whether this is a constant of any type, or the name of an input that is left out.
    pub(super) fn is_constant(&self, name: &str) -> bool {
        name.is_empty() || self.constants.contains_key(name)
    }

    /// How a layer's input enters its weight: the input's channels, and the weight as a [`Part`].
    pub(super) fn entry(&self, layer: &Layer) -> Option<(Channelled, Part)> {
        let ([weight], node) = (layer.weights.as_slice(), self.graph.node.get(layer.path.node)?) else { return None };
        let usable = layer.quantizable() && weight.is_f32 && weight.grid.is_none() && weight.depth == 0;
        if !usable || layer.in_subgraph() || self.model.input_pair(layer).is_some() {
            return None;
        }
        let len = weight.layout.len();
        let (shape, axis) = match (layer.op.as_str(), weight.shape.as_slice()) {
            ("MatMul", &[depth, width]) if weight.input == 1 => {
                (Channelled { axis: ChannelAxis::Last, channels: depth, rank: 0 }, Lane::axis(len, depth, width))
            }
            ("Gemm", &[a, b]) if int_attribute(node, "transA", 0) == 0 => {
                let turned = int_attribute(node, "transB", 0) != 0;
                let (depth, inner) = if turned { (b, 1) } else { (a, b) };
                (Channelled { axis: ChannelAxis::Last, channels: depth, rank: 0 }, Lane::axis(len, depth, inner))
            }
            ("Conv", [_, channels, kernel @ ..]) => {
                let groups = layer.groups.max(1);
                let shape = Channelled {
                    axis: ChannelAxis::Second,
                    channels: channels.checked_mul(groups)?,
                    rank: weight.shape.len(),
                };
                (shape, Lane::axis(len / groups, *channels, kernel.iter().product()))
            }
            _ => return None,
        };
        let divided = false;
        Some((shape, Part { node: layer.path.node, input: weight.input, lane: Some(axis), divided }))
    }

    /// What a node's output comes from, where dividing constants divides the output: the constants. `None` when it does
    /// not, or when some are not constant.
    pub(super) fn source(&self, at: usize, shape: Channelled) -> Option<Vec<Part>> {
        let node = self.graph.node.get(at)?;
        if !is_default_domain(node.domain()) {
            return None;
        }
        if self.layer(at).is_some_and(|(_, layer)| layer.weights.iter().any(|weight| weight.grid.is_some())) {
            return None;
        }
        let second = shape.axis == ChannelAxis::Second;
        let part = |input: usize, lane: Lane| Part { node: at, input, lane: Some(lane), divided: true };
        let row = |input: usize| -> Option<Part> {
            let lane = (self.constant(node, input)? == [shape.channels])
                .then(|| Lane::axis(shape.channels, shape.channels, 1))?;
            Some(part(input, lane))
        };
        let optional = |input: usize, found: &dyn Fn(usize) -> Option<Part>| -> Option<Vec<Part>> {
            if node.input.get(input).is_none_or(String::is_empty) {
                Some(Vec::new())
            } else {
                Some(vec![found(input)?])
            }
        };
        let mut parts = Vec::new();
        match node.op_type() {
            "LayerNormalization" if !second => {
                parts.push(row(1)?);
                parts.extend(optional(2, &row)?);
            }
            "RMSNormalization" if !second => parts.push(row(1)?),
            "BatchNormalization" | "InstanceNormalization" if second => {
                parts.push(row(1)?);
                parts.push(row(2)?);
            }
            "Conv" if second => {
                let dims = self.constant(node, 1)?;
                let fits = dims.first() == Some(&shape.channels) && dims.len() == shape.rank;
                let len: usize = dims.iter().product();
                parts.push(part(1, Lane::axis(len, shape.channels, dims.iter().skip(1).product())).fits(fits)?);
                parts.extend(optional(2, &row)?);
            }
            "ConvTranspose" if second => {
                let dims = self.constant(node, 1)?;
                let groups = usize::try_from(int_attribute(node, "group", 1)).ok().filter(|&groups| groups > 0)?;
                let width = *dims.get(1)?;
                let fits = width.checked_mul(groups) == Some(shape.channels) && dims.len() == shape.rank;
                let len: usize = dims.iter().product();
                parts.push(part(1, Lane::axis(len / groups, width, dims.iter().skip(2).product())).fits(fits)?);
                parts.extend(optional(2, &row)?);
            }
            "Gemm" if !second => {
                let dims = self.constant(node, 1)?;
                let turned = int_attribute(node, "transB", 0) != 0;
                let (width, inner) = match dims[..] {
                    [width, depth] if turned => (width, depth),
                    [_, width] if !turned => (width, 1),
                    _ => return None,
                };
                parts.push(part(1, Lane::axis(dims.iter().product(), width, inner)).fits(width == shape.channels)?);
                parts.extend(optional(2, &|input| self.addend(at, input, shape))?);
            }
            "MatMul" if !second => {
                let dims = self.constant(node, 1)?;
                let fits = dims.len() >= 2 && dims.last() == Some(&shape.channels);
                parts.push(part(1, Lane::axis(dims.iter().product(), shape.channels, 1)).fits(fits)?);
            }
            "Mul" => parts.push(self.addend(at, self.constant_side(node)?, shape)?.with_lane()?),
            "Div" if self.constant_side(node)? == 1 => {
                parts.push(Part { divided: false, ..self.addend(at, 1, shape)?.with_lane()? });
            }
            _ => return None,
        }
        Some(parts)
    }

    /// Which of two inputs is a float constant; `None` when neither or both are.
    pub(super) fn constant_side(&self, node: &NodeProto) -> Option<usize> {
        match (self.constant(node, 0), self.constant(node, 1)) {
            (Some(_), None) => Some(0),
            (None, Some(_)) => Some(1),
            _ => None,
        }
    }

    /// A constant that is broadcast against a tensor of `shape`.
    pub(super) fn addend(&self, node: usize, input: usize, shape: Channelled) -> Option<Part> {
        let dims = self.constant(self.graph.node.get(node)?, input)?;
        let len: usize = dims.iter().product();
        let part = |lane| Some(Part { node, input, lane, divided: true });
        if len == 1 {
            return part(None);
        }
        let after = match shape.axis {
            ChannelAxis::Last => 0,
            ChannelAxis::Second => shape.rank.checked_sub(2)?,
        };
        let at = dims.len().checked_sub(after + 1)?;
        let inner = dims.get(at + 1..)?.iter().product();
        if dims.get(at) == Some(&shape.channels) { part(Some(Lane::axis(len, shape.channels, inner))) } else { None }
    }
}

impl Part {
    fn fits(self, fits: bool) -> Option<Self> {
        fits.then_some(self)
    }

    /// Itself, where it holds values of its own for each channel.
    fn with_lane(self) -> Option<Self> {
        self.lane.is_some().then_some(self)
    }
}
