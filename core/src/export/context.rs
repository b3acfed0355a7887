//! What every export form works with: the model, the patch that grows, and weights quantized once.

use std::collections::BTreeSet;
use std::rc::Rc;

use crate::export::activations::Statics;
use crate::export::patch::Patch;
use crate::export::stored::Store;
use crate::model::{Layer, Model, Weight};
use crate::onnx::OnnxError;
use crate::onnx::build;
use crate::onnx::proto::{AttributeProto, NodeProto};
use crate::plan::Choice;
use crate::plan::targets::Style;
use crate::quant::QuantizedWeight;
use crate::repair::Repaired;
use crate::{Error, Problem};

/// Domain of ONNX Runtime's own operators.
pub const MICROSOFT: &str = "com.microsoft";

/// State of one export.
pub struct Context<'a> {
    /// The model.
    pub model: &'a Model,
    /// Changes to its prepared graph.
    pub patch: Patch,
    /// What degraded.
    pub problems: Vec<Problem>,
    /// Whether an operator of [`MICROSOFT`] was written.
    pub uses_microsoft: bool,
    /// The static layers and their activations, once decided.
    pub statics: Option<Rc<Statics>>,
    /// Nodes of the main graph whose layers are to be computed in half precision.
    pub half_layers: BTreeSet<usize>,
    /// How the plan's target wants static layers written; `None` for the way of ONNX Runtime's CPU kernels.
    pub style: Option<&'static Style>,
    last: Option<(String, Rc<QuantizedWeight>)>,
    /// Repaired weights met so far, by the tensor that they take the place of; no two alike.
    repaired: Vec<(String, Repaired)>,
}

impl<'a> Context<'a> {
    /// A context with an empty patch.
    pub fn new(model: &'a Model, style: Option<&'static Style>) -> Self {
        Self {
            patch: Patch::new(&model.graph),
            model,
            problems: Vec::new(),
            uses_microsoft: false,
            statics: None,
            half_layers: BTreeSet::new(),
            style,
            last: None,
            repaired: Vec::new(),
        }
    }

    /// Where what becomes of `weight` is written.
    pub fn store(&mut self, layer: &'a Layer, weight: &Weight) -> Store<'_> {
        Store { patch: &mut self.patch, bodies: home(layer, weight), opset: self.model.opset }
    }

    /// The graph that `layer` itself is in.
    pub fn store_here(&mut self, layer: &'a Layer) -> Store<'_> {
        Store { patch: &mut self.patch, bodies: &layer.path.bodies, opset: self.model.opset }
    }

    /// The node of `layer`.
    pub fn node(&self, layer: &Layer) -> Result<&'a NodeProto, Error> {
        let node = crate::model::graph::node_at(&self.model.graph, &layer.path);
        node.ok_or_else(|| {
            OnnxError::Tensor { tensor: layer.name.clone(), reason: "the layer is not in the graph".to_owned() }.into()
        })
    }

    /// The weight as `choice` quantizes it. The latest one is kept, since several layers may share it in a row.
    pub fn quantized(&mut self, layer: &Layer, weight: &Weight, choice: &Choice) -> Result<Rc<QuantizedWeight>, Error> {
        let key = self.weight_key(weight, choice);
        if let Some((known, quantized)) = &self.last
            && *known == key
        {
            return Ok(Rc::clone(quantized));
        }
        let values = self.model.weight(layer, weight)?;
        let quantized = Rc::new(weight.quantize(&values, choice));
        self.last = Some((key, Rc::clone(&quantized)));
        Ok(quantized)
    }

    /// What decides the integers of a weight. Layers that share one may have been repaired differently, and have it twice then;
    /// repairs that are equal are told by what they hold, wherever that lies.
    pub fn weight_key(&mut self, weight: &Weight, choice: &Choice) -> String {
        let repaired = weight.repaired(choice).zip(weight.repaired.as_ref()).map(|(own, repaired)| {
            let is_known = |(tensor, known): &(String, Repaired)| {
                *tensor == weight.tensor && known.repair.weights.get(known.index) == Some(own)
            };
            self.repaired.iter().position(is_known).unwrap_or_else(|| {
                self.repaired.push((weight.tensor.clone(), repaired.clone()));
                self.repaired.len() - 1
            })
        });
        format!(
            "{}|{}|{}|{}|{}|{}|{repaired:?}|{:?}",
            weight.tensor,
            choice.precision,
            choice.weight_bits(),
            choice.symmetry,
            choice.granularity,
            choice.clip,
            weight.layout
        )
    }

    /// The tensors that `make` made the first time that `weight` was asked for under `key`: shared weights are written once.
    pub fn once(
        &mut self,
        layer: &'a Layer,
        weight: &Weight,
        key: &str,
        make: impl FnOnce(&mut Self) -> Result<Vec<String>, Error>,
    ) -> Result<Vec<String>, Error> {
        let place = home(layer, weight);
        if let Some(made) = self.patch.made(place, key) {
            return Ok(made);
        }
        let made = make(self)?;
        self.patch.remember(place, key, &made);
        Ok(made)
    }

    /// A node in ONNX Runtime's own domain.
    pub fn microsoft(
        &mut self,
        op: &str,
        name: &str,
        inputs: &[String],
        outputs: &[String],
        attributes: Vec<AttributeProto>,
    ) -> NodeProto {
        self.uses_microsoft = true;
        build::node(op, MICROSOFT, name, inputs, outputs, attributes)
    }

    /// A QuantizeLinear or DequantizeLinear: the standard one where the operator set has it per channel (13), else ONNX
    /// Runtime's own, which loads at any operator set and takes the same integer kernels.
    pub fn qdq(&mut self, op: &str, name: &str, inputs: &[String], output: &str, axis: Option<i64>) -> NodeProto {
        self.qdq_since(13, op, name, inputs, output, axis)
    }

    /// [`Self::qdq`] for a type that the standard operator takes from this operator set on.
    pub fn qdq_since(
        &mut self,
        opset: i64,
        op: &str,
        name: &str,
        inputs: &[String],
        output: &str,
        axis: Option<i64>,
    ) -> NodeProto {
        let attributes = axis.map(|axis| build::attr_int("axis", axis)).into_iter().collect();
        let outputs = [output.to_owned()];
        if self.model.opset >= opset {
            build::node(op, "", name, inputs, &outputs, attributes)
        } else {
            self.microsoft(op, name, inputs, &outputs, attributes)
        }
    }

    /// Bias values of `layer` with `count` entries, all multiplied by `factor`; `None` when it has no constant bias of
    /// one value an output channel (or one for all), such as one that differs from row to row.
    pub fn bias(&self, layer: &Layer, count: usize, factor: f32) -> Result<Option<Vec<f32>>, Error> {
        let Some(tensor) = layer.bias.as_ref().and_then(|name| self.model.initializer(layer, name)) else {
            return Ok(None);
        };
        let rows = tensor.dims.split_last().map_or(&[][..], |(_, rows)| rows);
        if rows.iter().any(|&rows| rows != 1) {
            return Ok(None);
        }
        let mut values = self.model.file.read_f32(tensor)?.into_owned();
        if values.len() == 1 && count > 1 {
            values = vec![values[0]; count];
        }
        for value in &mut values {
            *value *= factor;
        }
        Ok((values.len() == count).then_some(values))
    }
}

/// The graph that holds `weight`: a layer in a body may read one of a graph around it, which others read too.
pub fn home<'l>(layer: &'l Layer, weight: &Weight) -> &'l [(usize, String)] {
    layer.path.bodies.get(..weight.depth).unwrap_or(&layer.path.bodies)
}

/// Dimensions as ONNX writes them.
pub fn dims(shape: &[usize]) -> Vec<i64> {
    shape.iter().map(|&dim| dim as i64).collect()
}
