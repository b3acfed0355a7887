//! A model opened in ONNX Runtime: run it, look at its outputs, profile it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ort::logging::LogLevel;
use ort::session::Session as OrtSession;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use prost::Message;

use super::ffi::StoppableOptions;
use super::value::show;
use super::{Output, Runtime, RuntimeError, View, inputs, ports};
use crate::Control;
use crate::data::Sample;
use crate::onnx::proto::ModelProto;
use crate::onnx::{decode, map_file};
use crate::port::Port;

/// How far ONNX Runtime may rewrite the graph before running it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Level {
    /// As the file has it.
    Disable,
    /// Rewrites that keep the meaning: constant folding, removal of what does nothing.
    Basic,
    /// Node fusions too, among them those that turn QDQ into integer operators.
    Extended,
    /// Layout changes too: what people run.
    #[default]
    All,
}

/// How a session is opened.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// How far the graph may be rewritten.
    pub level: Level,
    /// Threads within an operator; 0 for one a core.
    pub threads: usize,
    /// Further entries of ONNX Runtime's session configuration, key and value.
    pub config: Vec<(String, String)>,
    /// Prefix of a profile's file name; [`Session::end_profiling`] writes it.
    pub profile: Option<PathBuf>,
    /// Where to write the model as rewritten.
    pub optimized_model: Option<PathBuf>,
}

impl Default for SessionOptions {
    /// Level `All`, one thread, no spinning: a waiting thread that spins takes a core from whatever else is measured.
    fn default() -> Self {
        Self {
            level: Level::All,
            threads: 1,
            config: vec![("session.intra_op.allow_spinning".to_owned(), "0".to_owned())],
            profile: None,
            optimized_model: None,
        }
    }
}

impl SessionOptions {
    /// For looking at tensors inside a model: rewrites that keep what every one of them holds. The runtime's own
    /// quantization of float weights between a model's QuantizeLinear and DequantizeLinear, which changes them already at
    /// level `Basic`, is kept out.
    pub fn observing(threads: usize) -> Self {
        let mut options = Self { level: Level::Basic, threads, ..Self::default() };
        let (key, value) = ("optimization.disable_specified_optimizers", "WeightBiasQuantization");
        options.config.push((key.to_owned(), value.to_owned()));
        options
    }
}

/// Where a model comes from.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// A file, with its external data beside it.
    File(&'a Path),
    /// A model in memory.
    Proto {
        /// The model.
        proto: &'a ModelProto,
        /// The folder its external data are relative to.
        folder: Option<&'a Path>,
    },
}

/// A model opened in ONNX Runtime. One run at a time; several sessions may run on several threads.
#[derive(Debug)]
pub struct Session {
    inner: OrtSession,
    inputs: Vec<Port>,
    optional_inputs: Vec<Port>,
    outputs: Vec<Port>,
    last_run: Duration,
}

impl Session {
    /// Opens a model.
    pub fn open(runtime: &Runtime, source: Source<'_>, options: &SessionOptions) -> Result<Self, RuntimeError> {
        Self::open_with(runtime, source, options, &Control::new())
    }

    /// Opens a model; cancelling `control` stops the runtime at the next step of its preparation.
    pub fn open_with(
        runtime: &Runtime,
        source: Source<'_>,
        options: &SessionOptions,
        control: &Control,
    ) -> Result<Self, RuntimeError> {
        let place = match source {
            Source::File(path) => path.display().to_string(),
            Source::Proto { .. } => String::new(),
        };
        let fail = |reason: String| RuntimeError::Open { place: place.clone(), reason };
        let refuse = |error: ort::Error| fail(error.message().to_owned());
        let mut builder = configure(runtime, options).map_err(refuse)?;
        let canceler = builder.canceler();
        // It fails only where the runtime is too old to know it; then opening takes as long as it takes.
        let _hook = control.on_cancel(move || _ = canceler.cancel());
        let decoded;
        let (opened, graph) = match source {
            Source::File(path) => {
                let bytes = map_file(path).map_err(|error| fail(error.to_string()))?;
                // What our own reader refuses, ONNX Runtime may still explain better.
                decoded = decode(path, &bytes).ok();
                let opened = guarded(|| builder.commit_from_file(path));
                (opened, decoded.as_ref().and_then(|proto| proto.graph.as_ref()))
            }
            Source::Proto { proto, folder } => {
                if let Some(folder) = folder {
                    let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
                    let folder = folder.to_str().ok_or_else(|| fail("the folder's name is not Unicode".to_owned()))?;
                    builder = builder
                        .with_config_entry("session.model_external_initializers_file_folder_path", folder)
                        .map_err(|error| refuse(error.into()))?;
                }
                let bytes = proto.encode_to_vec();
                (guarded(|| builder.commit_from_memory(&bytes)), proto.graph.as_ref())
            }
        };
        // The runtime's code for a cancelled load is that of any failure; we know better.
        let session =
            opened.map_err(|reason| if control.is_cancelled() { RuntimeError::Cancelled } else { fail(reason) })?;
        let inputs = ports::inputs(session.inputs(), graph);
        Ok(Self {
            optional_inputs: ports::optional_inputs(graph, &inputs),
            outputs: ports::outputs(session.outputs(), graph),
            inputs,
            inner: session,
            last_run: Duration::ZERO,
        })
    }

    /// The inputs that every run must be given.
    pub fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    /// The outputs, in the order of the model. Declared shapes may be wrong; trust the tensors.
    pub fn outputs(&self) -> &[Port] {
        &self.outputs
    }

    /// Runs one sample and returns all outputs.
    pub fn run(&mut self, sample: &Sample, control: &Control) -> Result<Vec<Output>, RuntimeError> {
        let mut outputs = Vec::with_capacity(self.outputs.len());
        self.visit(sample, control, &mut |name, view| {
            outputs.push(Output { name: name.to_owned(), value: view.to_tensor() });
        })?;
        Ok(outputs)
    }

    /// Runs one sample and shows every output to `visit`, in the order of the model, without copying floats. Cancelling
    /// `control` stops the run at the next node.
    pub fn visit(
        &mut self,
        sample: &Sample,
        control: &Control,
        visit: &mut dyn FnMut(&str, View<'_>),
    ) -> Result<(), RuntimeError> {
        inputs::check(&self.inputs, &self.optional_inputs, sample)?;
        let feeds = inputs::feeds(sample)?;
        // Reading an absent optional makes `ort` panic, and nothing tells it from a present one before.
        let unreadable = self.outputs.iter().filter(|port| port.element_type == "optional");
        let options = StoppableOptions::new(unreadable.map(|port| port.name.as_str()))
            .map_err(|error| RuntimeError::Run { reason: error.message().to_owned() })?;
        let options = Arc::new(options);
        let stopped = Arc::clone(&options);
        let _hook = control.on_cancel(move || stopped.terminate());
        control.check().map_err(|_| RuntimeError::Cancelled)?;
        let started = Instant::now();
        let outputs = guarded(|| self.inner.run_with_options(feeds, options.get()));
        self.last_run = started.elapsed();
        // ONNX Runtime's code for a terminated run is that of any failure; we know better.
        let outputs = outputs.map_err(|reason| {
            if control.is_cancelled() { RuntimeError::Cancelled } else { RuntimeError::Run { reason } }
        })?;
        let mut values = outputs.iter().peekable();
        for port in &self.outputs {
            match values.next_if(|(name, _)| *name == port.name) {
                Some((name, value)) => show(name, &value, visit)?,
                None => visit(&port.name, View::Absent),
            }
        }
        Ok(())
    }

    /// How long ONNX Runtime itself took in the last run, without checking inputs and looking at outputs.
    pub fn last_run(&self) -> Duration {
        self.last_run
    }

    /// Writes the profile asked for in [`SessionOptions::profile`] and returns its path.
    pub fn end_profiling(&mut self) -> Result<PathBuf, RuntimeError> {
        let path =
            self.inner.end_profiling().map_err(|error| RuntimeError::Profile { reason: error.message().to_owned() })?;
        if path.is_empty() {
            return Err(RuntimeError::Profile { reason: "profiling was not asked for".to_owned() });
        }
        Ok(PathBuf::from(path))
    }
}

fn configure(runtime: &Runtime, options: &SessionOptions) -> ort::Result<SessionBuilder> {
    let level = match options.level {
        Level::Disable => GraphOptimizationLevel::Disable,
        Level::Basic => GraphOptimizationLevel::Level1,
        Level::Extended => GraphOptimizationLevel::Level2,
        Level::All => GraphOptimizationLevel::All,
    };
    let mut builder = OrtSession::builder(&runtime.environment)?
        .with_log_level(LogLevel::Warning)?
        .with_optimization_level(level)?
        .with_intra_threads(options.threads)?
        .with_inter_threads(1)?;
    for (key, value) in &options.config {
        builder = builder.with_config_entry(key, value)?;
    }
    if let Some(path) = &options.profile {
        builder = builder.with_profiling(path)?;
    }
    if let Some(path) = &options.optimized_model {
        builder = builder.with_optimized_model_path(path)?;
    }
    Ok(builder)
}

/// Turns a panic inside `ort` into a reason: it has `unreachable!` and `expect` where a model's types surprise it.
fn guarded<T>(call: impl FnOnce() -> ort::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(|error| error.message().to_owned()),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref().copied());
            Err(format!("the model has values that cannot be read ({})", text.unwrap_or("no message")))
        }
    }
}

#[cfg(test)]
mod tests;
