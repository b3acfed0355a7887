//! Small graphs of every shape that exporters write, quantized and run beside their originals in ONNX Runtime.

mod bodies;
mod convolutions;
mod files;
mod foreign;
mod harness;
mod matrices;
mod neighbours;
mod odd;
mod opsets;
mod recurrent;
mod rewritten;
mod scalings;
mod schemes;
mod targets;
mod trained;
mod weights;
