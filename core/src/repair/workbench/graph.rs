//! The float model with what enters its layers among its outputs, and its layers' weights and biases among its inputs.

use std::collections::BTreeMap;

use super::super::BiasSlot;
use super::super::collect::Tap;
use super::super::job::Job;
use crate::onnx::build::value_info_typed;
use crate::onnx::proto::tensor_proto::DataType;
use crate::runtime::{Session, SessionOptions, Source, tapped};
use crate::{Control, Error};

/// The open model.
pub struct Open {
    /// The session. Weights that a run is not given are those of the model.
    pub session: Session,
    /// For each layer the inputs that take its weight and bias; `None` where its weight is no input.
    pub slots: Vec<Option<Slots>>,
}

/// The inputs of one layer.
pub struct Slots {
    /// Takes the weight.
    pub weight: String,
    /// Takes the bias, and what the node multiplies it by.
    pub bias: Option<(String, f32)>,
}

impl Open {
    /// Opens it. A weight that layers share is no input, and neither is one that is not float32.
    pub fn new(job: &Job<'_>, taps: &[Option<Tap>], control: &Control) -> Result<Self, Error> {
        let mut model = job.model.clone();
        let mut readers: BTreeMap<String, usize> = BTreeMap::new();
        for weight in model.layers.iter().flat_map(|layer| &layer.weights) {
            *readers.entry(weight.tensor.clone()).or_default() += 1;
        }
        let mut slots = Vec::new();
        let mut inputs = Vec::new();
        for (at, tap) in taps.iter().enumerate() {
            let Some((layer, weight)) =
                model.layers.get(at).and_then(|layer| Some((layer.clone(), layer.weight()?.clone())))
            else {
                slots.push(None);
                continue;
            };
            if tap.is_none() || !weight.is_f32 || readers.get(&weight.tensor) != Some(&1) {
                slots.push(None);
                continue;
            }
            inputs.push(value_info_typed(&weight.tensor, DataType::Float, &dims(&weight.shape)));
            // Under a name of its own, since others may read the same bias.
            let mut bias = None;
            if let Some(slot) = BiasSlot::of(&model, &layer)? {
                slot.write(&mut model, at, &slot.values);
                let written = model.layers.get(at).map(|layer| BiasSlot::of(&model, layer)).transpose()?.flatten();
                if let Some((name, beta)) = written.as_ref().and_then(BiasSlot::stored) {
                    inputs.push(value_info_typed(name, DataType::Float, &dims(&[slot.values.len()])));
                    bias = Some((name.to_owned(), beta));
                }
            }
            slots.push(Some(Slots { weight: weight.tensor, bias }));
        }
        let names: Vec<String> = taps.iter().flatten().map(|tap| tap.tensor.clone()).collect();
        let mut proto = tapped(&model.graph, &names);
        if let Some(graph) = &mut proto.graph {
            // Old files list all initializers as inputs; the runtime takes any that has a value as one that may be given.
            graph.output.retain(|output| graph.input.iter().all(|input| input.name() != output.name()));
            let fresh = |input: &crate::onnx::proto::ValueInfoProto| {
                graph.input.iter().all(|known| known.name() != input.name())
            };
            let missing: Vec<_> = inputs.into_iter().filter(fresh).collect();
            graph.input.extend(missing);
        }
        let options = SessionOptions { threads: 0, ..job.session() };
        let source = Source::Proto { proto: &proto, folder: Some(job.model.file.folder()) };
        Ok(Self { session: Session::open_with(job.runtime, source, &options, control)?, slots })
    }
}

fn dims(shape: &[usize]) -> Vec<i64> {
    shape.iter().map(|&size| size as i64).collect()
}
