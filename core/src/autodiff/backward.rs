//! The pass itself: from a weighting of the output's elements back to every source.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ndarray::ArrayD;

use super::call::{Call, Gradients};
use super::{Program, Value, Values};

/// The gradient that comes back from one reader of a tensor.
#[derive(Clone, Debug)]
pub struct Edge {
    /// Index of the reading node; `None` for the model's output itself.
    pub reader: Option<usize>,
    /// Same shape as the tensor, row-major.
    pub gradient: ArrayD<f32>,
}

/// Something that the pass found.
pub enum Event<'a> {
    /// The gradient of a constant that is a source, from the node that reads it; in the constant's own order.
    Constant {
        /// Index of the node.
        node: usize,
        /// Which of its inputs.
        input: usize,
        /// The gradient.
        gradient: &'a [f32],
    },
    /// The gradients of a watched activation, one for each reader through which one comes.
    Activation {
        /// Its name.
        tensor: &'a str,
        /// Its values.
        value: &'a Value<'static>,
        /// From each reader.
        edges: &'a [Edge],
    },
}

/// A node that turned out not to be passable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Its index.
    pub node: usize,
    /// Why.
    pub why: String,
}

impl Program<'_> {
    /// Goes back from Σ seed · output over one sample. `watched` names the activations to report.
    pub fn backward(
        &self,
        values: &Values,
        seed: ArrayD<f32>,
        watched: &BTreeSet<String>,
        report: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), Refused> {
        self.backward_from(values, vec![(self.output.clone(), seed)], watched, report)
    }

    /// Goes back from Σ seed · tensor, summed over several of the tensors that the program starts from.
    pub fn backward_from(
        &self,
        values: &Values,
        seeds: Vec<(String, ArrayD<f32>)>,
        watched: &BTreeSet<String>,
        report: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), Refused> {
        let mut open: HashMap<&str, Vec<Edge>> = HashMap::new();
        for (name, gradient) in seeds {
            if let Some(end) = self.ends.iter().find(|end| **end == name) {
                open.entry(end).or_default().push(Edge { reader: None, gradient });
            }
        }
        for step in &self.steps {
            let refuse = |why: String| Refused { node: step.at, why };
            let mut gradients: Gradients = Vec::with_capacity(step.node.output.len());
            for name in &step.node.output {
                let edges = open.remove(name.as_str()).unwrap_or_default();
                show(name, &edges, values, watched, report);
                gradients.push(total(edges));
            }
            if gradients.iter().all(Option::is_none) {
                continue;
            }
            let known = |name: &String| values.get(name).map(|value| value as &Value<'_>);
            let call = Call {
                node: step.node,
                opset: self.opset,
                inputs: step
                    .node
                    .input
                    .iter()
                    .map(|name| self.constants.get(name.as_str()).or_else(|| known(name)))
                    .collect(),
                outputs: step.node.output.iter().map(known).collect(),
                wants: &step.wants,
            };
            let made = (step.rule)(&call, gradients).map_err(refuse)?;
            for (input, (gradient, name)) in made.into_iter().zip(&step.node.input).enumerate() {
                let Some(gradient) = gradient.filter(|_| call.wants(input)) else { continue };
                let shape = call.optional(input).map(|value| value.shape.as_slice());
                if shape != Some(gradient.shape()) {
                    return Err(refuse(format!("its gradient has the shape {:?}, not {shape:?}", gradient.shape())));
                }
                let gradient =
                    if gradient.is_standard_layout() { gradient } else { gradient.as_standard_layout().into_owned() };
                if self.constants.contains_key(name.as_str()) {
                    let gradient = gradient.as_slice().unwrap_or_default();
                    report(Event::Constant { node: step.at, input, gradient });
                } else {
                    open.entry(name).or_default().push(Edge { reader: Some(step.at), gradient });
                }
            }
        }
        // What is left belongs to the model's inputs.
        let left: BTreeMap<_, _> = open.into_iter().collect();
        for (name, edges) in left {
            show(name, &edges, values, watched, report);
        }
        Ok(())
    }
}

fn show(name: &str, edges: &[Edge], values: &Values, watched: &BTreeSet<String>, report: &mut dyn FnMut(Event<'_>)) {
    if !edges.is_empty()
        && watched.contains(name)
        && let Some(value) = values.get(name)
    {
        report(Event::Activation { tensor: name, value, edges });
    }
}

fn total(edges: Vec<Edge>) -> Option<ArrayD<f32>> {
    let mut edges = edges.into_iter().map(|edge| edge.gradient);
    let mut sum = edges.next()?;
    for gradient in edges {
        sum += &gradient;
    }
    Some(sum)
}
