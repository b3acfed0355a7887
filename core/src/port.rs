//! What a model's input or output looks like: name, element type, dimensions.

use serde::{Deserialize, Serialize};

/// One dimension of a model's input or output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Dim {
    /// A fixed size.
    Fixed(usize),
    /// A symbolic size. The text need not be a name: exporters also write "-1" and "?"; unnamed ones are "?".
    Symbol(String),
}

/// A model's input or output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// ONNX's name of the element type, e.g. `float32`; `sequence`, `map` or `optional` for what is no tensor.
    pub element_type: String,
    /// Its dimensions; empty for a scalar.
    pub shape: Vec<Dim>,
    /// Whether the file declares a shape at all; without one the rank is unknown and `shape` is empty.
    pub has_shape: bool,
    /// Rows of the smallest constant table that this input looks up as it comes; larger values have no row.
    #[serde(skip)]
    pub table_rows: Option<u64>,
}

impl Port {
    /// The shape as people write it, e.g. `[batch, 3, 224, 224]`.
    pub fn shape_text(&self) -> String {
        if !self.has_shape {
            return "[…]".to_owned();
        }
        let dims: Vec<_> = self
            .shape
            .iter()
            .map(|dim| match dim {
                Dim::Fixed(size) => size.to_string(),
                Dim::Symbol(name) => name.clone(),
            })
            .collect();
        format!("[{}]", dims.join(", "))
    }
}

/// A float input for tests; what is no number among `dims` is a symbol.
#[cfg(test)]
pub(crate) fn test_port(name: &str, dims: &[&str]) -> Port {
    let dim = |text: &&str| text.parse().map_or_else(|_| Dim::Symbol((*text).to_owned()), Dim::Fixed);
    Port {
        name: name.to_owned(),
        element_type: "float32".to_owned(),
        shape: dims.iter().map(dim).collect(),
        has_shape: true,
        table_rows: None,
    }
}
