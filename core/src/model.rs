//! The graph as we need it: a prepared copy of the file's graph, and its layers.

mod layer;

pub use layer::{Layer, NodePath, RowCut, SamePadding, Weight, Window};
