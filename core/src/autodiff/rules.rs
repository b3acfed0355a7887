//! The registry: one backward rule an operator.

mod convolve;
mod elementwise;
pub mod fake_quantize;
mod move_values;
mod multiply;
mod normalise;
mod pool;
mod reduce;
mod resize;

use super::call::Rule;
use crate::onnx::proto::NodeProto;
use crate::operators::is_default_domain;

/// What an operator does to gradients.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// It has a backward.
    Rule(Rule),
    /// Its outputs do not move with its inputs (shapes, comparisons, rounding): nothing goes back.
    Flat,
    /// Not known here.
    Unknown,
}

const FLAT: &[&str] = &[
    "Shape",
    "Size",
    "ConstantOfShape",
    "ArgMax",
    "ArgMin",
    "Equal",
    "Greater",
    "GreaterOrEqual",
    "Less",
    "LessOrEqual",
    "Not",
    "And",
    "Or",
    "Xor",
    "Floor",
    "Ceil",
    "Round",
    "Sign",
    "NonZero",
    "IsNaN",
    "IsInf",
    "OneHot",
    "Range",
    "EyeLike",
    "RandomNormalLike",
    "RandomUniformLike",
    "NonMaxSuppression",
];

/// Every operator of the default domain that has a backward.
pub(super) fn all() -> impl Iterator<Item = &'static (&'static str, Rule)> {
    let families = [
        elementwise::RULES,
        multiply::RULES,
        convolve::RULES,
        normalise::RULES,
        reduce::RULES,
        pool::RULES,
        move_values::RULES,
        resize::RULES,
    ];
    families.into_iter().flatten()
}

/// What the operator of `node` does.
pub(super) fn kind(node: &NodeProto) -> Kind {
    let op = node.op_type();
    if !is_default_domain(node.domain()) {
        return match (node.domain(), op) {
            ("com.microsoft", "Gelu") => Kind::Rule(elementwise::gelu),
            ("com.microsoft", "FastGelu") => Kind::Rule(elementwise::fast_gelu),
            (fake_quantize::DOMAIN, fake_quantize::OP) => Kind::Rule(fake_quantize::straight_through),
            _ => Kind::Unknown,
        };
    }
    if FLAT.contains(&op) {
        return Kind::Flat;
    }
    let found = all().find(|(name, _)| *name == op);
    found.map_or(Kind::Unknown, |(_, rule)| Kind::Rule(*rule))
}

/// Folds a gradient of a broadcast result back to an operand's shape: sums over what was repeated.
pub(super) fn unbroadcast(mut gradient: ndarray::ArrayD<f32>, shape: &[usize]) -> Result<ndarray::ArrayD<f32>, String> {
    use ndarray::Axis;
    while gradient.ndim() > shape.len() {
        gradient = gradient.sum_axis(Axis(0));
    }
    if gradient.ndim() < shape.len() {
        return Err(format!("a gradient of shape {:?} for {shape:?}", gradient.shape()));
    }
    for (axis, &size) in shape.iter().enumerate() {
        if size == 1 && gradient.len_of(Axis(axis)) != 1 {
            gradient = gradient.sum_axis(Axis(axis)).insert_axis(Axis(axis));
        }
    }
    if gradient.shape() == shape {
        Ok(gradient)
    } else {
        Err(format!("a gradient of shape {:?} for {shape:?}", gradient.shape()))
    }
}
