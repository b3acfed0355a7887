//! The model with a plan's scalings in its graph.

use std::borrow::Cow;
use std::collections::HashMap;

use sha2::{Digest, Sha256};

use super::Scaling;
use super::constants::{Channelled, Lane, Main, Part};
use super::reach::Reach;
use crate::Error;
use crate::model::graph::{Links, drop_unused_initializers};
use crate::model::{Model, NodePath};
use crate::onnx::build;
use crate::plan::{Plan, PlanError};
use crate::repair::bias_slot::fresh;
use crate::stats::ChannelAxis;

impl Model {
    /// This model with the scalings of `plan` in its prepared graph: the same function, with another [`Self::identity`].
    /// Borrowed when the plan has none, or when they are in it already. Names of layers stay; the file, and with it the
    /// float reference, stays what it is.
    pub fn scaled(&self, plan: &Plan) -> Result<Cow<'_, Self>, Error> {
        if plan.scalings.is_empty() || plan.scalings == self.scalings {
            return Ok(Cow::Borrowed(self));
        }
        let mut model = if self.scalings.is_empty() { self.clone() } else { Self::shared(self.file.clone())? };
        for scaling in &plan.scalings {
            model.scale(scaling)?;
        }
        Ok(Cow::Owned(model))
    }

    /// Changes the graph by one scaling more.
    pub(super) fn scale(&mut self, scaling: &Scaling) -> Result<(), Error> {
        let refused = |why: &str| PlanError::Scaling { tensor: scaling.tensor.clone(), why: why.to_owned() };
        let reach = {
            let main = Main::of(self).ok_or_else(|| refused("the model has no graph"))?;
            match scaling.folded_into {
                Some(_) => Reach::folded(&main, &scaling.tensor),
                None => Reach::inserted(&main, &scaling.tensor),
            }
        };
        let reach = reach.ok_or_else(|| refused("it enters no layer of this model that can be scaled so"))?;
        if reach.shape.channels != scaling.factors.len() {
            let why = format!("it has {} channels, the plan {}", reach.shape.channels, scaling.factors.len());
            return Err(refused(&why).into());
        }
        if scaling.factors.iter().any(|factor| !factor.is_finite() || *factor <= 0.0) {
            return Err(refused("its factors are not all above 0").into());
        }
        let mut copies = HashMap::new();
        for part in reach.layers.iter().map(|(_, part)| part).chain(&reach.sources) {
            self.rewrite(part, reach.shape, &scaling.factors, &mut copies)?;
        }
        for (index, _) in &reach.layers {
            if let Some(layer) = self.layers.get_mut(*index) {
                layer.scaled = true;
            }
        }
        if reach.sources.is_empty() {
            self.insert(scaling, &reach);
        }
        if let Some(graph) = self.graph.graph.as_mut() {
            drop_unused_initializers(graph);
        }
        let mut hash = Sha256::new();
        hash.update(&self.identity);
        hash.update(&scaling.tensor);
        hash.update([0, u8::from(scaling.folded_into.is_some())]);
        for factor in &scaling.factors {
            hash.update(factor.to_le_bytes());
        }
        self.identity = format!("{:x}", hash.finalize());
        self.scalings.push(scaling.clone());
        Ok(())
    }

    /// Multiplies or divides one constant. Where others read it too they keep it, and the node gets a copy; nodes for
    /// which it comes out the same share that (`copies`).
    fn rewrite(
        &mut self,
        part: &Part,
        shape: Channelled,
        factors: &[f32],
        copies: &mut HashMap<(String, Option<Lane>, bool), String>,
    ) -> Result<(), Error> {
        let Some(main) = self.graph.graph.as_mut() else { return Ok(()) };
        let Some(old) = main.node.get(part.node).and_then(|node| node.input.get(part.input)).cloned() else {
            return Ok(());
        };
        let Some(at) = main.initializer.iter().position(|tensor| tensor.name() == old) else { return Ok(()) };
        let key = (old.clone(), part.lane, part.divided);
        let name = if let Some(copy) = copies.get(&key) {
            copy.clone()
        } else {
            let tensor = &main.initializer[at];
            let mut values = self.file.read_f32(tensor)?.into_owned();
            let mut dims = tensor.dims.clone();
            let lane = part.lane.unwrap_or_else(|| {
                let value = values.first().copied().unwrap_or_default();
                values = vec![value; factors.len()];
                let after = if shape.axis == ChannelAxis::Second { shape.rank.saturating_sub(2) } else { 0 };
                dims = std::iter::once(factors.len() as i64).chain(std::iter::repeat_n(1, after)).collect();
                Lane { block: factors.len(), inner: 1, size: factors.len() }
            });
            for (i, value) in values.iter_mut().enumerate() {
                let factor = factors.get(lane.channel(i)).copied().unwrap_or(1.0);
                *value = if part.divided { *value / factor } else { *value * factor };
            }
            let links = Links::of(main);
            let name =
                if links.only_reader(&old).is_some() { old.clone() } else { fresh(main, format!("{old}_scaled")) };
            let tensor = build::tensor_f32(&name, &dims, &values);
            if name == old {
                main.initializer[at] = tensor;
            } else {
                main.initializer.push(tensor);
                copies.insert(key, name.clone());
            }
            name
        };
        if let Some(input) = main.node.get_mut(part.node).and_then(|node| node.input.get_mut(part.input)) {
            input.clone_from(&name);
        }
        let here = NodePath { bodies: Vec::new(), node: part.node };
        for layer in self.layers.iter_mut().filter(|layer| layer.path == here) {
            for weight in layer.weights.iter_mut().filter(|weight| weight.input == part.input) {
                weight.tensor.clone_from(&name);
            }
            if layer.bias.as_ref() == Some(&old) {
                layer.bias = Some(name.clone());
            }
        }
        Ok(())
    }

    /// Puts one Mul by 1/s between the tensor and the layers that read it.
    fn insert(&mut self, scaling: &Scaling, reach: &Reach) {
        let Some(main) = self.graph.graph.as_mut() else { return };
        let output = fresh(main, format!("{}_scaled", scaling.tensor));
        let factors = fresh(main, format!("{}_factors", scaling.tensor));
        let inverse: Vec<f32> = scaling.factors.iter().map(|factor| 1.0 / factor).collect();
        let after = if reach.shape.axis == ChannelAxis::Second { reach.shape.rank.saturating_sub(2) } else { 0 };
        let dims: Vec<i64> = std::iter::once(inverse.len() as i64).chain(std::iter::repeat_n(1, after)).collect();
        main.initializer.push(build::tensor_f32(&factors, &dims, &inverse));
        for (index, _) in &reach.layers {
            let Some(layer) = self.layers.get_mut(*index) else { continue };
            for input in main.node.get_mut(layer.path.node).into_iter().flat_map(|node| &mut node.input) {
                if *input == scaling.tensor {
                    input.clone_from(&output);
                }
            }
            layer.input.clone_from(&output);
        }
        let producer = main.node.iter().position(|node| node.output.contains(&scaling.tensor));
        let at = producer.map_or(0, |producer| producer + 1);
        let inputs = [scaling.tensor.as_str(), &factors];
        main.node.insert(at, build::node("Mul", "", &output, &inputs, &[output.as_str()], Vec::new()));
        for layer in &mut self.layers {
            let outermost = layer.path.bodies.first_mut().map_or(&mut layer.path.node, |(node, _)| node);
            if *outermost >= at {
                *outermost += 1;
            }
        }
    }
}
