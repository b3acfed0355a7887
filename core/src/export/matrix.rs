//! A MatMul or Gemm with a constant matrix, seen the same way: `y = alpha · x · W + beta · bias`.

use crate::Error;
use crate::export::context::Context;
use crate::model::graph::{float_attribute, int_attribute};
use crate::model::{Layer, Weight};
use crate::onnx::proto::NodeProto;

/// The matrix of a MatMul or Gemm.
pub struct Matrix {
    /// Rows of the matrix: length of one dot product.
    pub depth: usize,
    /// Columns of the matrix: outputs.
    pub columns: usize,
    /// Whether the file holds it transposed, `[columns, depth]`.
    pub transposed: bool,
    /// Factor of the product.
    pub alpha: f32,
    /// Factor of the bias.
    pub beta: f32,
}

impl Matrix {
    /// The matrix of `node`, whose weight is `weight`.
    pub fn of(node: &NodeProto, weight: &Weight) -> Self {
        let is_gemm = node.op_type() == "Gemm";
        let factor = |name: &str| if is_gemm { float_attribute(node, name, 1.0) } else { 1.0 };
        Self {
            depth: weight.layout.depth(),
            columns: weight.layout.channels,
            transposed: is_gemm && int_attribute(node, "transB", 0) != 0,
            alpha: factor("alpha"),
            beta: factor("beta"),
        }
    }

    /// The bias as a tensor that can be added to the product; `None` when the node has none.
    pub fn bias<'a>(&self, context: &mut Context<'a>, layer: &'a Layer) -> Result<Option<String>, Error> {
        let Some(name) = context.node(layer)?.input.get(2).filter(|name| !name.is_empty()) else { return Ok(None) };
        if self.beta == 1.0 {
            return Ok(Some(name.clone()));
        }
        // A computed bias with a factor never comes here (see `forms`).
        let Some(tensor) = layer.bias.as_ref().and_then(|name| context.model.initializer(layer, name)) else {
            return Ok(None);
        };
        let values: Vec<f32> = context.model.file.read_f32(tensor)?.iter().map(|&value| value * self.beta).collect();
        let scaled = context.patch.fresh(&format!("{name}_scaled"));
        let tensor = crate::onnx::build::tensor_f32(&scaled, &tensor.dims, &values);
        context.patch.graph(&layer.path.bodies).push_initializer(tensor);
        Ok(Some(scaled))
    }

    /// The integers in `[depth, columns]` order.
    pub fn rows(&self, values: &[i8]) -> Vec<i8> {
        if !self.transposed {
            return values.to_vec();
        }
        (0..self.depth * self.columns)
            .map(|at| values.get(at % self.columns * self.depth + at / self.columns).copied().unwrap_or(0))
            .collect()
    }
}
