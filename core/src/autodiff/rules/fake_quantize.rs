//! Rounding to integers and back, seen as one operator: the straight-through estimator (Bengio, Léonard and Courville 2013).
//!
//! `y = s · clamp(round(x / s))` has no slope of use; its gradient is taken as that of the clamp alone: `∂x = g` where x lies
//! inside the range that the integers cover, 0 where it was clipped. No file holds this operator: fine-tuning writes it in
//! the place of a QuantizeLinear and the DequantizeLinear behind it.

use crate::autodiff::call::{Call, Gradients, array, first, slice};
use crate::onnx::build;
use crate::onnx::proto::NodeProto;

/// Domain of the operator.
pub const DOMAIN: &str = "nibble";
/// Its name.
pub const OP: &str = "FakeQuantize";

/// The node that stands for rounding `input` to steps of `scale` (0: a range that nothing is clipped to).
pub fn node(input: &str, output: &str, scale: f32) -> NodeProto {
    build::node(OP, DOMAIN, "", &[input], &[output], vec![build::attr_float("scale", scale)])
}

/// What was clipped lies further from its result than half a step.
pub(super) fn straight_through(call: &Call<'_>, gradients: Gradients) -> Result<Gradients, String> {
    let gradient = first(gradients)?;
    let scale = call.float("scale", 0.0);
    if scale <= 0.0 {
        return Ok(vec![Some(gradient)]);
    }
    let (x, y) = (call.input(0)?, call.output()?);
    // Room for the rounding of the division and the product.
    let reach = scale * 0.502;
    let passed = slice(&gradient)?.iter().zip(x.floats()?.iter().zip(y.floats()?));
    let values = passed.map(|(&g, (&x, &y))| if (x - y).abs() <= reach { g } else { 0.0 }).collect();
    Ok(vec![Some(array(&x.shape, values)?)])
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use ndarray::ArrayD;

    use super::*;
    use crate::autodiff::{Data, Value};
    use crate::plan::Symmetry;
    use crate::quant::QuantParams;

    #[test]
    fn gradients_pass_inside_the_range_and_stop_beyond_it() {
        let params = QuantParams::for_range(-1.0, 3.0, 0, 255, Symmetry::Asymmetric);
        let (lo, hi) = params.range();
        let x = vec![lo - 1.0, lo, -0.3, 0.0, 0.123, 2.9, hi, hi + 0.6 * params.scale, 50.0];
        let y: Vec<f32> = x.iter().map(|&x| params.fake(x)).collect();
        let node = node("x", "y", params.scale);
        let value = |values: &[f32]| Value { shape: vec![values.len()], data: Data::F32(Cow::Owned(values.to_vec())) };
        let (x, y) = (value(&x), value(&y));
        let call = Call { node: &node, opset: 17, inputs: vec![Some(&x)], outputs: vec![Some(&y)], wants: &[true] };
        let ones = ArrayD::from_elem(vec![9], 2.0);
        let back = straight_through(&call, vec![Some(ones)]).expect("passes");
        let back: Vec<f32> = back[0].iter().flatten().copied().collect();
        assert_eq!(back, [0.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 0.0, 0.0]);
    }
}
