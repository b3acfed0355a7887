//! Finds the layers of a prepared model, in the main graph and in bodies of `If`, `Loop` and `Scan`.

use std::collections::HashMap;
use std::sync::Arc;

use crate::limits;
use crate::model::existing::{self, Existing, Place};
use crate::model::graph::{Links, attribute, float_attribute, initializer, int_attribute, ints_attribute, tail};
use crate::model::grid::{Grid, Spread};
use crate::model::{Layer, NodePath, RowCut, SamePadding, Weight, Window};
use crate::onnx::proto::{GraphProto, ModelProto, NodeProto, TensorProto, tensor_proto::DataType};
use crate::onnx::{OnnxError, OnnxFile};
use crate::operators::{self, Traits, WeightedOperator};
use crate::quant::WeightLayout;

/// Embeddings and the like below this many values are lookup tables, not weights: quantizing them saves nothing.
const SMALLEST_TABLE: u64 = 1024;

/// All layers, the main graph's first, each graph's in node order. `spreads` are the scales that weights brought.
pub fn find(model: &ModelProto, spreads: &HashMap<String, Spread>, file: &OnnxFile) -> Result<Vec<Layer>, OnnxError> {
    let mut walk = Walk { model, spreads, file, layers: Vec::new(), grids: HashMap::new() };
    if let Some(graph) = &model.graph {
        walk.graph(graph, &mut Vec::new(), "")?;
    }
    Ok(walk.layers)
}

struct Walk<'m> {
    model: &'m ModelProto,
    spreads: &'m HashMap<String, Spread>,
    file: &'m OnnxFile,
    layers: Vec<Layer>,
    /// Grids by tensor and layout: a weight that several layers share is looked at once.
    grids: HashMap<(String, WeightLayout), Option<Arc<Grid>>>,
}

impl Walk<'_> {
    fn graph(&mut self, graph: &GraphProto, bodies: &mut Vec<(usize, String)>, prefix: &str) -> Result<(), OnnxError> {
        let names = names(graph);
        let links = Links::of(graph);
        for (index, node) in graph.node.iter().enumerate() {
            let name = format!("{prefix}{}", names.get(index).map_or("", String::as_str));
            let path = NodePath { bodies: bodies.clone(), node: index };
            let place = Place { model: self.model, graph, bodies, links: &links, file: self.file };
            let layer = match existing::integer(&place, node) {
                Some(found) => Some(quantized(&place, node, path, &name, found)),
                None => self.layer(&place, node, path, &name)?,
            };
            self.layers.extend(layer);
            if bodies.len() >= limits::MAX_SUBGRAPH_DEPTH {
                continue;
            }
            for attribute in &node.attribute {
                if let Some(body) = &attribute.g {
                    bodies.push((index, attribute.name().to_owned()));
                    self.graph(body, bodies, &format!("{name}/{}/", attribute.name()))?;
                    bodies.pop();
                }
            }
        }
        Ok(())
    }

    fn layer(
        &mut self,
        place: &Place<'_>,
        node: &NodeProto,
        path: NodePath,
        name: &str,
    ) -> Result<Option<Layer>, OnnxError> {
        let Some(operator) = operators::weighted(node.op_type(), node.domain()) else { return Ok(None) };
        let traits = Traits {
            trans_b: int_attribute(node, "transB", 0) != 0,
            axis: int_attribute(node, "axis", 0),
            groups: usize::try_from(int_attribute(node, "group", 1)).unwrap_or(1).max(1),
        };
        let tensors: Vec<_> = operator
            .weights
            .iter()
            .filter_map(|slot| {
                let (tensor, depth) = initializer(self.model, &path.bodies, node.input.get(slot.input)?)?;
                Some((slot, tensor, depth))
            })
            .collect();
        // A MatMul of two activations, a Gather from an activation or a constant shape is no layer at all.
        let main = tensors.first().filter(|(slot, ..)| slot.input == operator.weights[0].input).map(|main| main.1);
        let Some(_) = main.filter(|main| is_float(main)) else {
            return Ok(existing::behind(place, node, operator).map(|found| quantized(place, node, path, name, found)));
        };
        let parameters = tensors.iter().map(|(_, tensor, _)| elements(tensor)).sum();
        let mut weights = Vec::new();
        let mut reason = String::new();
        for (slot, tensor, depth) in &tensors {
            let shape = shape(tensor);
            match (operator.layout)(&shape, &traits) {
                Some(layout) if !layout.is_empty() => weights.push(Weight {
                    role: slot.role,
                    tensor: tensor.name().to_owned(),
                    input: slot.input,
                    depth: *depth,
                    grid: self.grid(tensor.name(), layout)?,
                    shape,
                    layout,
                    is_f32: tensor.data_type() == DataType::Float as i32,
                    size_bytes: elements(tensor) * element_bytes(tensor),
                    repaired: None,
                }),
                _ => {
                    reason = format!("{} with a weight of shape {shape:?} has no integer form", node.op_type());
                }
            }
        }
        if reason.is_empty() {
            reason = unsupported(node, operator, tensors.len(), parameters);
        }
        let output = node.output.first().filter(|name| !name.is_empty()).cloned().unwrap_or_default();
        let bias = operator
            .bias
            .and_then(|input| node.input.get(input))
            .filter(|name| initializer(self.model, &path.bodies, name).is_some())
            .cloned();
        let input = node.input.get(operator.activation).cloned().unwrap_or_default();
        let existing = weights.first().and_then(|weight| weight.grid.as_deref()).map(|grid| Existing {
            weights: grid.precision.to_string(),
            granularity: grid.granularity,
            symmetry: grid.symmetry,
            activations: existing::activation(place, &input),
            trained: true,
        });
        Ok(Some(Layer {
            name: name.to_owned(),
            op: node.op_type().to_owned(),
            observed: tail(place.graph, place.links, &output).end,
            input,
            cut: cut(node, &weights),
            groups: if node.op_type().starts_with("Conv") { traits.groups } else { 1 },
            path,
            weights,
            output,
            bias,
            parameters,
            reason,
            existing,
            scaled: false,
        }))
    }

    /// The scales that a weight brought, by this layout.
    fn grid(&mut self, tensor: &str, layout: WeightLayout) -> Result<Option<Arc<Grid>>, OnnxError> {
        let Some(spread) = self.spreads.get(tensor) else { return Ok(None) };
        let key = (tensor.to_owned(), layout);
        if let Some(known) = self.grids.get(&key) {
            return Ok(known.clone());
        }
        let grid = spread.grid(layout, self.file)?.map(Arc::new);
        self.grids.insert(key, grid.clone());
        Ok(grid)
    }
}

/// A layer that the file brings quantized.
fn quantized(place: &Place<'_>, node: &NodeProto, path: NodePath, name: &str, found: existing::Found) -> Layer {
    let weight = initializer(place.model, &path.bodies, &found.tensor).and_then(|(tensor, depth)| {
        let shape = shape(tensor);
        Some(Weight {
            role: "weight",
            tensor: found.tensor.clone(),
            input: found.weight_input,
            depth,
            layout: WeightLayout::along(&shape, 0)?,
            shape,
            is_f32: false,
            size_bytes: existing::stored_bytes(tensor)?,
            grid: None,
            repaired: None,
        })
    });
    let output = node.output.first().cloned().unwrap_or_default();
    Layer {
        name: name.to_owned(),
        op: node.op_type().to_owned(),
        observed: tail(place.graph, place.links, &output).end,
        input: node.input.get(found.activation_input).cloned().unwrap_or_default(),
        path,
        weights: weight.into_iter().collect(),
        output,
        bias: None,
        groups: 1,
        cut: RowCut::None,
        parameters: found.parameters,
        reason: format!("already quantized: {}", found.existing),
        existing: Some(found.existing),
        scaled: false,
    }
}

fn shape(tensor: &TensorProto) -> Vec<usize> {
    tensor.dims.iter().map(|&dim| usize::try_from(dim).unwrap_or(0)).collect()
}

/// The name of every node: its own, or `OP#index` where that is empty or repeated.
fn names(graph: &GraphProto) -> Vec<String> {
    let mut seen: HashMap<&str, usize> = HashMap::new();
    for node in &graph.node {
        *seen.entry(node.name()).or_default() += 1;
    }
    let own = |node: &NodeProto| !node.name().is_empty() && seen.get(node.name()) == Some(&1);
    graph
        .node
        .iter()
        .enumerate()
        .map(|(index, node)| if own(node) { node.name().to_owned() } else { format!("{}#{index}", node.op_type()) })
        .collect()
}

/// Why the node as a whole cannot be quantized; empty when it can.
fn unsupported(node: &NodeProto, operator: &WeightedOperator, weights_found: usize, parameters: u64) -> String {
    if weights_found < operator.weights.len() {
        return "its second weight is not constant".to_owned();
    }
    if operator.op == "Gather" && parameters < SMALLEST_TABLE {
        return format!("a table of {parameters} values is too small to gain anything");
    }
    if operator.op == "Gemm" && int_attribute(node, "transA", 0) != 0 && float_attribute(node, "alpha", 1.0) == 0.0 {
        return "alpha is 0, so the weight has no effect".to_owned();
    }
    String::new()
}

fn cut(node: &NodeProto, weights: &[Weight]) -> RowCut {
    match node.op_type() {
        "Gemm" if int_attribute(node, "transA", 0) != 0 => RowCut::FirstAxis,
        "MatMul" | "Gemm" | "LSTM" | "GRU" => RowCut::LastAxis,
        "ConvTranspose" => RowCut::ChannelAxis,
        "Conv" => weights.first().and_then(|weight| window(node, &weight.shape)).map_or(RowCut::None, RowCut::Patches),
        _ => RowCut::None,
    }
}

fn window(node: &NodeProto, shape: &[usize]) -> Option<Window> {
    let kernel = shape.get(2..)?.to_vec();
    let sizes = |name: &str, default: usize| -> Option<Vec<usize>> {
        match ints_attribute(node, name) {
            [] => Some(vec![default; kernel.len()]),
            values if values.len() == kernel.len() => values.iter().map(|&v| usize::try_from(v).ok()).collect(),
            _ => None,
        }
    };
    let pads = match ints_attribute(node, "pads") {
        [] => vec![0; 2 * kernel.len()],
        values if values.len() == 2 * kernel.len() => {
            values.iter().map(|&v| usize::try_from(v).ok()).collect::<Option<_>>()?
        }
        _ => return None,
    };
    let same = match attribute(node, "auto_pad").map(|attribute| attribute.s.clone().unwrap_or_default()) {
        Some(text) if text.as_slice() == b"SAME_UPPER" => Some(SamePadding::Upper),
        Some(text) if text.as_slice() == b"SAME_LOWER" => Some(SamePadding::Lower),
        _ => None,
    };
    Some(Window { strides: sizes("strides", 1)?, dilations: sizes("dilations", 1)?, kernel, pads, same })
}

fn elements(tensor: &TensorProto) -> u64 {
    tensor.dims.iter().map(|&dim| u64::try_from(dim).unwrap_or(0)).product()
}

fn element_bytes(tensor: &TensorProto) -> u64 {
    match DataType::try_from(tensor.data_type()) {
        Ok(DataType::Double) => 8,
        Ok(DataType::Float16 | DataType::Bfloat16) => 2,
        _ => 4,
    }
}

fn is_float(tensor: &TensorProto) -> bool {
    matches!(
        DataType::try_from(tensor.data_type()),
        Ok(DataType::Float | DataType::Float16 | DataType::Bfloat16 | DataType::Double)
    )
}
