//! Reverse mode over a model's graph: how far each weight and each activation moves the output.
//!
//! The values of a sample come from ONNX Runtime, which shows every tensor of a tapped run; ours is the backward of each
//! operator alone, one rule an operator. A gradient cannot pass an operator without a rule: [`Program::blocked`] names
//! those, and [`Program::is_complete`] says which tensors' gradients they spoil.

mod backward;
mod call;
mod program;
#[cfg(test)]
mod reference;
mod rules;
#[cfg(test)]
mod tests;
mod trace;

pub use backward::{Edge, Event, Refused};
pub use call::{Data, Value};
pub use program::{Blocked, Program};
pub(crate) use rules::fake_quantize;
pub use trace::{Tracer, Values};
