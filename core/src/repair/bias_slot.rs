//! Where a layer's bias stands, and how it is replaced.

use crate::export::add_of;
use crate::model::graph::{Links, float_attribute};
use crate::model::{Layer, Model};
use crate::onnx::build;
use crate::onnx::proto::{GraphProto, tensor_proto::DataType};
use crate::{Error, model::graph};

/// The bias of a layer of the main graph: its own input, or the constant Add behind a MatMul.
#[derive(Clone, Debug, PartialEq)]
pub struct BiasSlot {
    /// What is added to each output channel now; zeros where there is no bias yet.
    pub values: Vec<f32>,
    node: usize,
    input: usize,
    /// What the node multiplies the bias by.
    beta: f32,
    /// The initializer, where there is one.
    tensor: Option<String>,
    in_layer: bool,
}

impl BiasSlot {
    /// The slot of `layer`; `None` where it can hold no float32 bias with one value an output channel.
    pub fn of(model: &Model, layer: &Layer) -> Result<Option<Self>, Error> {
        let (Some(main), Some(weight), false) = (&model.graph.graph, layer.weight(), layer.in_subgraph()) else {
            return Ok(None);
        };
        let Some(node) = main.node.get(layer.path.node).filter(|_| weight.is_f32) else { return Ok(None) };
        if layer.op == "MatMul" {
            let Some((at, tensor)) = add_of(main, &Links::of(main), layer) else { return Ok(None) };
            let input = main.node.get(at).and_then(|add| add.input.iter().position(|name| name == tensor.name()));
            let values = model.file.read_f32(tensor)?.into_owned();
            let tensor = Some(tensor.name().to_owned());
            return Ok(input.map(|input| Self { values, node: at, input, beta: 1.0, tensor, in_layer: false }));
        }
        let beta = match layer.op.as_str() {
            "Gemm" => float_attribute(node, "beta", 1.0),
            "Conv" | "ConvTranspose" => 1.0,
            _ => return Ok(None),
        };
        let channels = match layer.op.as_str() {
            "ConvTranspose" => weight.layout.channels * layer.groups,
            _ => weight.layout.channels,
        };
        let slot = |values, tensor| Self { values, node: layer.path.node, input: 2, beta, tensor, in_layer: true };
        let Some(name) = node.input.get(2).filter(|name| !name.is_empty()) else {
            return Ok((beta != 0.0).then(|| slot(vec![0.0; channels], None)));
        };
        let Some((tensor, 0)) = graph::initializer(&model.graph, &[], name) else { return Ok(None) };
        let one_row = tensor.dims.iter().rev().skip(1).all(|&rows| rows == 1);
        if !one_row || tensor.data_type() != DataType::Float as i32 || beta == 0.0 {
            return Ok(None);
        }
        let mut values = model.file.read_f32(tensor)?.into_owned();
        if let [one] = *values.as_slice() {
            values = vec![one; channels];
        }
        for value in &mut values {
            *value *= beta;
        }
        Ok((values.len() == channels).then(|| slot(values, Some(name.clone()))))
    }

    /// The initializer that holds it, and what the node multiplies it by; `None` where there is no bias yet.
    pub(crate) fn stored(&self) -> Option<(&str, f32)> {
        Some((self.tensor.as_deref()?, self.beta))
    }

    /// Puts `values` in its place in the prepared graph of `model`, whose layer `index` this is the slot of. Under a fresh
    /// name, so that whoever else reads the old one keeps it.
    pub fn write(&self, model: &mut Model, index: usize, values: &[f32]) {
        let values: Vec<f32> = values.iter().map(|value| value / self.beta).collect();
        let Some(main) = &mut model.graph.graph else { return };
        let base = match (&self.tensor, model.layers.get(index)) {
            (Some(tensor), _) => format!("{tensor}_repaired"),
            (None, layer) => format!("{}_bias", layer.map_or("layer", |layer| layer.output.as_str())),
        };
        let name = fresh(main, base);
        let Some(node) = main.node.get_mut(self.node) else { return };
        while node.input.len() <= self.input {
            node.input.push(String::new());
        }
        if let Some(input) = node.input.get_mut(self.input) {
            input.clone_from(&name);
        }
        main.initializer.push(build::tensor_f32(&name, &[values.len() as i64], &values));
        if let Some(old) = &self.tensor {
            let is_read = main.node.iter().any(|node| node.input.contains(old) || graph::bodies(node).next().is_some());
            if !is_read && !main.output.iter().any(|output| output.name() == old) {
                main.initializer.retain(|tensor| tensor.name() != old);
                main.input.retain(|input| input.name() != old);
            }
        }
        if let Some(layer) = model.layers.get_mut(index).filter(|_| self.in_layer) {
            layer.bias = Some(name);
        }
    }
}

/// `base`, or `base_N` where that names something already.
pub(super) fn fresh(graph: &GraphProto, base: String) -> String {
    let taken = |name: &str| {
        graph.initializer.iter().any(|tensor| tensor.name() == name)
            || graph.input.iter().any(|port| port.name() == name)
            || graph.node.iter().any(|node| node.output.iter().any(|output| output == name))
    };
    if !taken(&base) {
        return base;
    }
    let mut number = 2;
    while taken(&format!("{base}_{number}")) {
        number += 1;
    }
    format!("{base}_{number}")
}
