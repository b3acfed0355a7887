//! ONNX Runtime: finding or fetching its library, running models, looking at any tensor inside them.
//!
//! The library is loaded when the program runs, not linked: without it everything but running models still works, and
//! people can bring their own.

mod environment;
mod error;
mod fetch;
mod ffi;
mod inputs;
mod library;
mod pinned;
mod ports;
mod session;
mod tap;
mod value;

pub use environment::Runtime;
pub use error::RuntimeError;
pub use library::{LIBRARY_VARIABLE, ensure_library, to_fetch};
pub use pinned::VERSION;
pub use session::{Level, Session, SessionOptions, Source};
pub use tap::tapped;
pub use value::{Output, View};
