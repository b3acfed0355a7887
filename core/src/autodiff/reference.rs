//! The rules against PyTorch's gradients, and its values against ONNX Runtime's: see `fixtures/gradients.py`, which made the
//! numbers.

use std::collections::{BTreeMap, BTreeSet};

use ndarray::ArrayD;
use serde::Deserialize;
use serde_json::Value as Json;

use super::{Event, Program, Tracer, rules};
use crate::Control;
use crate::data::Sample;
use crate::model::Model;
use crate::onnx::build::{
    self, attr_float, attr_int, attr_ints, attr_string, node, tensor_f32, tensor_i64, tensor_raw,
};
use crate::onnx::proto::tensor_proto::DataType;
use crate::onnx::proto::{AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto};
use crate::onnx::save;
use crate::runtime::Runtime;
use crate::tensor::Tensor;

/// Agreement that is asked for, of outputs and of gradients.
const LEAST_DB: f64 = 100.0;

#[derive(Deserialize)]
struct Case {
    op: String,
    opset: i64,
    domain: String,
    attributes: BTreeMap<String, Json>,
    nodes: Option<Vec<Node>>,
    inputs: Vec<Option<Input>>,
    seed: Vec<f32>,
    output: Vec<f32>,
    gradients: Vec<Vec<f32>>,
}

#[derive(Deserialize)]
struct Node {
    op: String,
    inputs: Vec<String>,
    outputs: Vec<String>,
    #[serde(default)]
    attributes: BTreeMap<String, Json>,
}

#[derive(Deserialize)]
struct Input {
    kind: String,
    shape: Vec<usize>,
    values: Vec<f64>,
}

impl Input {
    fn floats(&self) -> Vec<f32> {
        self.values.iter().map(|&value| value as f32).collect()
    }

    /// As a constant; `None` for one that moves.
    fn constant(&self, name: &str) -> Option<TensorProto> {
        let dims: Vec<i64> = self.shape.iter().map(|&size| size as i64).collect();
        let bytes = || self.values.iter().map(|&value| value as u8).collect();
        match self.kind.as_str() {
            "floats" => Some(tensor_f32(name, &dims, &self.floats())),
            "ints" => Some(tensor_i64(name, &dims, &self.values.iter().map(|&v| v as i64).collect::<Vec<_>>())),
            "bools" => Some(tensor_raw(name, DataType::Bool, &dims, bytes())),
            "bytes" => Some(tensor_raw(name, DataType::Uint8, &dims, bytes())),
            _ => None,
        }
    }
}

fn attributes(from: &BTreeMap<String, Json>) -> Vec<AttributeProto> {
    let integers = |list: &[Json]| list.iter().filter_map(Json::as_i64).collect::<Vec<_>>();
    let one = |(name, value): (&String, &Json)| match value {
        Json::String(text) => attr_string(name, text),
        Json::Array(list) => attr_ints(name, &integers(list)),
        Json::Number(number) => number
            .as_i64()
            .map_or_else(|| attr_float(name, number.as_f64().expect("float") as f32), |n| attr_int(name, n)),
        _ => panic!("{name}: {value}"),
    };
    from.iter().map(one).collect()
}

/// Signal to noise of `ours` against `theirs`, in dB.
fn decibels(ours: &[f32], theirs: &[f32]) -> f64 {
    let (mut signal, mut noise) = (1e-12, 0.0);
    for (&a, &b) in ours.iter().zip(theirs) {
        signal += f64::from(b).powi(2);
        noise += (f64::from(a) - f64::from(b)).powi(2);
    }
    if ours.len() == theirs.len() { 10.0 * (signal / noise.max(1e-300)).log10() } else { f64::NEG_INFINITY }
}

impl Case {
    fn names(&self) -> Vec<String> {
        let name = |(at, input): (usize, &Option<Input>)| match input {
            Some(input) if input.kind == "moves" => format!("x{at}"),
            Some(_) => format!("c{at}"),
            None => String::new(),
        };
        self.inputs.iter().enumerate().map(name).collect()
    }

    /// What moves, by name.
    fn moving(&self) -> Vec<(String, &Input)> {
        let each = self.names().into_iter().zip(&self.inputs);
        each.filter_map(|(name, input)| Some((name, input.as_ref()?)))
            .filter(|(_, input)| input.kind == "moves")
            .collect()
    }

    fn proto(&self) -> ModelProto {
        let names = self.names();
        let nodes: Vec<NodeProto> = match &self.nodes {
            Some(nodes) => nodes
                .iter()
                .enumerate()
                .map(|(at, n)| node(&n.op, "", &format!("n{at}"), &n.inputs, &n.outputs, attributes(&n.attributes)))
                .collect(),
            None => vec![node(&self.op, &self.domain, "it", &names, &["y"], attributes(&self.attributes))],
        };
        let constants = names.iter().zip(&self.inputs).filter_map(|(name, input)| input.as_ref()?.constant(name));
        let ports = self.moving().into_iter().map(|(name, input)| {
            let dims: Vec<i64> = input.shape.iter().map(|&size| size as i64).collect();
            build::value_info_typed(&name, DataType::Float, &dims)
        });
        let mut domains = vec![OperatorSetIdProto { domain: Some(String::new()), version: Some(self.opset) }];
        if !self.domain.is_empty() {
            domains.push(OperatorSetIdProto { domain: Some(self.domain.clone()), version: Some(1) });
        }
        ModelProto {
            ir_version: Some(8),
            opset_import: domains,
            graph: Some(GraphProto {
                name: Some("g".to_owned()),
                node: nodes,
                initializer: constants.collect(),
                input: ports.collect(),
                output: vec![build::value_info("y")],
                ..GraphProto::default()
            }),
            ..ModelProto::default()
        }
    }

    /// What of the outputs and gradients is not PyTorch's.
    fn check(&self) -> Result<(), String> {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("model.onnx");
        save(&self.proto(), None, &path).expect("saved");
        let control = Control::new();
        let model = Model::load(&path, &control).map_err(|error| error.to_string())?;
        let moving = self.moving();
        let sources: BTreeSet<String> = moving.iter().map(|(name, _)| name.clone()).collect();
        let program = Program::new(&model, "y", &sources, &BTreeMap::new()).map_err(|error| error.to_string())?;
        if !program.blocked.is_empty() {
            return Err(format!("{:?}", program.blocked));
        }
        let runtime = Runtime::start(None, &control).expect("ONNX Runtime");
        let feed =
            |(name, input): &(String, &Input)| (name.clone(), Tensor::from_f32(input.shape.clone(), input.floats()));
        let sample = Sample { feeds: moving.iter().map(feed).collect() };
        let mut tracer = Tracer::new(&model, &program, runtime, 1).map_err(|error| error.to_string())?;
        let values = tracer.trace(&sample, &control).map_err(|error| error.to_string())?;
        let y = values.get("y").ok_or("no output")?;
        let mut agreements = vec![("output".to_owned(), decibels(y.floats()?, &self.output))];
        let seed = ArrayD::from_shape_vec(y.shape.clone(), self.seed.clone()).map_err(|error| error.to_string())?;
        let mut report = |event: Event<'_>| {
            if let Event::Activation { tensor, edges, .. } = event
                && let Some(at) = moving.iter().position(|(name, _)| name == tensor)
            {
                let sum = edges.iter().skip(1).fold(edges[0].gradient.clone(), |sum, edge| sum + &edge.gradient);
                let found: Vec<f32> = sum.iter().copied().collect();
                agreements.push((format!("gradient of {tensor}"), decibels(&found, &self.gradients[at])));
            }
        };
        program.backward(&values, seed, &sources, &mut report).map_err(|refused| refused.why)?;
        if agreements.len() != 1 + moving.len() {
            return Err(format!("of {} inputs only {agreements:?}", moving.len()));
        }
        let worst = agreements.into_iter().filter(|(_, db)| *db < LEAST_DB);
        let worst: Vec<String> = worst.map(|(what, db)| format!("{what} {db:.1} dB")).collect();
        if worst.is_empty() { Ok(()) } else { Err(worst.join(", ")) }
    }
}

#[test]
fn outputs_and_gradients_are_those_of_pytorch() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("fixtures/gradients.json")).expect("numbers");
    let written = |op: &str| {
        let in_nodes = |case: &Case| case.nodes.iter().flatten().any(|node| node.op == op);
        cases.iter().any(|case| case.op == op || in_nodes(case))
    };
    let without: Vec<&str> = rules::all().map(|(op, _)| *op).filter(|op| !written(op)).collect();
    assert!(without.is_empty(), "operators without a case: {without:?}");
    let wrong =
        cases.iter().enumerate().filter_map(|(at, case)| Some(format!("{at} {}: {}", case.op, case.check().err()?)));
    let wrong: Vec<String> = wrong.collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}
