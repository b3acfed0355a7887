//! The values of one sample, taken from a run in which ONNX Runtime shows every tensor that the backward needs.

use std::collections::HashMap;

use super::{Program, Value};
use crate::data::Sample;
use crate::model::Model;
use crate::runtime::{Level, Runtime, Session, SessionOptions, Source, tapped};
use crate::{Control, Error};

/// Tensors of one sample by name.
pub type Values = HashMap<String, Value<'static>>;

/// A session that shows what a [`Program`] needs.
pub struct Tracer {
    session: Session,
    inputs: Vec<String>,
}

impl Tracer {
    /// Opens the tapped model.
    pub fn new(model: &Model, program: &Program<'_>, runtime: &Runtime, threads: usize) -> Result<Self, Error> {
        let given = |name: &String| model.inputs.iter().any(|port| port.name == *name);
        let (inputs, inner): (Vec<String>, Vec<String>) = program.taps().into_iter().partition(given);
        let proto = tapped(&model.graph, &inner);
        // Fusions across taps would compute things twice.
        let options = SessionOptions { level: Level::Basic, threads, ..SessionOptions::default() };
        let source = Source::Proto { proto: &proto, folder: Some(model.file.folder()) };
        Ok(Self { session: Session::open(runtime, source, &options)?, inputs })
    }

    /// Runs one sample.
    pub fn trace(&mut self, sample: &Sample, control: &Control) -> Result<Values, Error> {
        let mut values = Values::new();
        self.session.visit(sample, control, &mut |name, view| {
            if let Some(tensor) = view.to_tensor() {
                values.insert(name.to_owned(), Value::from_tensor(tensor));
            }
        })?;
        for name in &self.inputs {
            if let Some(tensor) = sample.get(name) {
                values.insert(name.clone(), Value::from_tensor(tensor.clone()));
            }
        }
        Ok(values)
    }
}
