//! The graph as we need it: a prepared copy of the file's graph, and its layers.

mod einsum;
mod existing;
mod fold_conv;
pub mod graph;
mod grid;
mod inline;
mod layer;
mod layers;
mod mean_pool;
mod movement;
mod pairs;
mod prepare;
mod rounded;

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

pub use existing::Existing;
pub use grid::Grid;
pub use layer::{Layer, NodePath, RowCut, SamePadding, Weight, Window};
pub use pairs::ActivationPair;
pub(crate) use prepare::drop_unread;

use crate::onnx::proto::{GraphProto, ModelProto, OperatorSetIdProto, TensorProto};
use crate::onnx::{OnnxError, OnnxFile, port};
use crate::operators;
use crate::plan::{Clip, Plan, Preset, Set};
use crate::port::Port;
use crate::problem::Severity;
use crate::repair::Scaling;
use crate::{Control, Error, Problem};

/// An opened model. A clone copies no weights.
#[derive(Clone)]
pub struct Model {
    /// The file as it is.
    pub file: Arc<OnnxFile>,
    /// The prepared copy that layers refer to, and that calibration and export work on.
    pub graph: ModelProto,
    /// The layers, the main graph's first.
    pub layers: Vec<Layer>,
    /// Activations of the main graph that the file itself quantizes.
    pub pairs: Vec<ActivationPair>,
    /// The inputs that a run needs (initializers listed as inputs left out).
    pub inputs: Vec<Port>,
    /// The outputs.
    pub outputs: Vec<Port>,
    /// Version of the standard operators.
    pub opset: i64,
    /// What is odd about the file.
    pub problems: Vec<Problem>,
    /// What statistics are tied to: the file's SHA-256, or a hash of it and of the scalings in the graph.
    pub identity: String,
    /// Scalings that the prepared graph has; see [`Self::scaled`].
    pub scalings: Vec<Scaling>,
    by_name: HashMap<String, usize>,
}

impl Model {
    /// Opens the model at `path`: weights stay memory-mapped.
    pub fn load(path: &Path, control: &Control) -> Result<Self, Error> {
        Ok(Self::from_file(OnnxFile::load(path, control)?)?)
    }

    /// The model of an opened file.
    pub fn from_file(file: OnnxFile) -> Result<Self, OnnxError> {
        Self::shared(Arc::new(file))
    }

    pub(crate) fn shared(file: Arc<OnnxFile>) -> Result<Self, OnnxError> {
        let prepare::Prepared { model: graph, spreads } = prepare::prepare(&file)?;
        let layers = layers::find(&graph, &spreads, &file)?;
        let main = graph.graph.as_ref();
        let pairs = main.map_or(Ok(Vec::new()), |graph| pairs::find(graph, &file))?;
        let opset = graph
            .opset_import
            .iter()
            .filter(|import| operators::is_default_domain(import.domain()))
            .map(OperatorSetIdProto::version)
            .max()
            .unwrap_or(1);
        let mut problems = file.problems.clone();
        problems.extend(foreign(&graph, &layers));
        Ok(Self {
            inputs: main.map(inputs).unwrap_or_default(),
            outputs: main.map(|graph| graph.output.iter().map(port).collect()).unwrap_or_default(),
            by_name: layers.iter().enumerate().map(|(index, layer)| (layer.name.clone(), index)).collect(),
            identity: file.sha256.clone(),
            scalings: Vec::new(),
            file,
            graph,
            layers,
            pairs,
            opset,
            problems,
        })
    }

    /// The plan of a preset for this model's layers.
    pub fn preset_plan(&self, preset: &Preset) -> Result<Plan, Error> {
        self.plan_of(preset, false)
    }

    /// The same where there are samples to repair it with ([`Preset::with_data`]).
    pub fn preset_plan_with_data(&self, preset: &Preset) -> Result<Plan, Error> {
        self.plan_of(preset, true)
    }

    fn plan_of(&self, preset: &Preset, with_data: bool) -> Result<Plan, Error> {
        let layers = self.layers.iter().map(|layer| (layer.name.as_str(), layer.op.as_str()));
        let mut plan = preset.plan_for(layers, with_data)?;
        plan.model_sha256.clone_from(&self.file.sha256);
        self.keep_trained(&mut plan);
        Ok(plan)
    }

    /// Lets a plan keep what the file was trained with, wherever it asks for the same precision.
    fn keep_trained(&self, plan: &mut Plan) {
        for layer in self.layers.iter().filter(|layer| layer.quantizable()) {
            let choice = plan.choice(&layer.name);
            let mut set = Set::default();
            if let Some(grid) = layer.weight().and_then(|weight| weight.grid.as_deref())
                && grid.precision == choice.precision
            {
                set.symmetry = Some(grid.symmetry);
                set.granularity = Some(grid.granularity);
                set.clip = Some(Clip::Trained);
            }
            if choice.is_static()
                && let Some(pair) = self.input_pair(layer)
            {
                set.activation_symmetry = Some(pair.symmetry());
                set.activation_clip = Some(Clip::Trained);
            }
            if set != Set::default() {
                plan.set_layers([layer.name.as_str()], &set);
            }
        }
    }

    /// The pair that quantizes the layer's input in the file.
    pub fn input_pair(&self, layer: &Layer) -> Option<&ActivationPair> {
        if layer.in_subgraph() {
            return None;
        }
        self.pairs.iter().find(|pair| pair.result == layer.input)
    }

    /// Name of the output that a whole model is judged by unless another is asked for: the first floating one, else the
    /// first; empty when there is none.
    pub fn judged_output(&self) -> &str {
        let floating = self.outputs.iter().find(|port| port.element_type.contains("float"));
        floating.or(self.outputs.first()).map_or("", |port| port.name.as_str())
    }

    /// The layer of this name.
    pub fn layer(&self, name: &str) -> Option<&Layer> {
        self.layers.get(*self.by_name.get(name)?)
    }

    /// The weight's initializer in the prepared graph, as the layer sees it.
    pub fn initializer(&self, layer: &Layer, name: &str) -> Option<&TensorProto> {
        graph::initializer(&self.graph, &layer.path.bodies, name).map(|(tensor, _)| tensor)
    }

    /// Values of a weight in row-major order; not copied where the file holds them as aligned float32.
    pub fn weight(&self, layer: &Layer, weight: &Weight) -> Result<Cow<'_, [f32]>, OnnxError> {
        match self.initializer(layer, &weight.tensor) {
            Some(tensor) => self.file.read_f32(tensor),
            None => Err(OnnxError::Tensor {
                tensor: weight.tensor.clone(),
                reason: "it is not among the model's initializers".to_owned(),
            }),
        }
    }

    /// Weights in all layers.
    pub fn parameters(&self) -> u64 {
        self.layers.iter().map(|layer| layer.parameters).sum()
    }
}

/// What a file brings quantized, said once.
fn foreign(graph: &ModelProto, layers: &[Layer]) -> Vec<Problem> {
    let mut problems = Vec::new();
    let trained = layers.iter().filter(|layer| layer.existing.as_ref().is_some_and(|found| found.trained)).count();
    if trained > 0 {
        problems.push(Problem::new(
            Severity::Note,
            "The model was trained for quantization",
            format!("{trained} layers"),
            "Their weights come with scales: presets of the same precision keep them (clip `trained`)",
            "Choose another precision, symmetry, granularity or clip for a layer to replace its scales",
        ));
    }
    let operators = quantized_operators(graph);
    let quantized = layers.iter().filter(|layer| layer.existing.as_ref().is_some_and(|found| !found.trained)).count();
    if quantized > 0 || trained == 0 && !operators.is_empty() {
        problems.push(Problem::new(
            Severity::Note,
            "The model is already quantized in places",
            operators.iter().copied().collect::<Vec<_>>().join(", "),
            format!("It holds operators on integers; the weights of {quantized} layers are left as they are"),
            "Open the original floating-point model to quantize all of it",
        ));
    }
    problems
}

/// Operators in the graph and its bodies that work on integers already.
fn quantized_operators(model: &ModelProto) -> BTreeSet<&str> {
    let mut found = BTreeSet::new();
    let mut open: Vec<_> = model.graph.iter().collect();
    while let Some(graph) = open.pop() {
        for node in &graph.node {
            if existing::is_mark(node) {
                found.insert(node.op_type());
            }
            open.extend(graph::bodies(node));
        }
    }
    found
}

/// The graph's inputs, with the rows of the tables that they look up, as they come or cast.
fn inputs(graph: &GraphProto) -> Vec<Port> {
    let rows_of = |table: &str| {
        let table = graph.initializer.iter().find(|tensor| tensor.name() == table)?;
        u64::try_from(*table.dims.first()?).ok()
    };
    let looked_up = |name: &str| {
        let casts =
            graph.node.iter().filter(|node| node.op_type() == "Cast" && node.input.first().is_some_and(|n| n == name));
        let names: Vec<&str> = casts.filter_map(|node| node.output.first()).map(String::as_str).chain([name]).collect();
        let lookups = graph.node.iter().filter(|node| {
            node.op_type() == "Gather"
                && graph::int_attribute(node, "axis", 0) == 0
                && node.input.get(1).is_some_and(|indices| names.contains(&indices.as_str()))
        });
        lookups.filter_map(|node| rows_of(node.input.first()?)).min()
    };
    graph.input.iter().map(|info| Port { table_rows: looked_up(info.name()), ..port(info) }).collect()
}
