//! Reductions over axes.

use ndarray::{ArrayD, Zip};

use crate::autodiff::call::{Call, Gradients, Rule, first};

pub(super) const RULES: &[(&str, Rule)] = &[
    ("ReduceMean", |call, g| reduce(call, g, |share, _, _, _| share)),
    ("ReduceSum", |call, g| reduce(call, g, |_, _, _, _| 1.0)),
    ("ReduceMax", |call, g| reduce(call, g, |_, x, y, ties| extreme(x, y, ties))),
    ("ReduceMin", |call, g| reduce(call, g, |_, x, y, ties| extreme(x, y, ties))),
    ("ReduceL1", |call, g| reduce(call, g, |_, x, _, _| if x == 0.0 { 0.0 } else { x.signum() })),
    ("ReduceL2", |call, g| reduce(call, g, |_, x, y, _| if y == 0.0 { 0.0 } else { x / y })),
    ("ReduceSumSquare", |call, g| reduce(call, g, |_, x, _, _| 2.0 * x)),
    ("ReduceLogSumExp", |call, g| reduce(call, g, |_, x, y, _| (x - y).exp())),
    ("ReduceLogSum", |call, g| reduce(call, g, |_, _, y, _| (-y).exp())),
    ("GlobalAveragePool", |call, g| pooled(call, g, |share, _, _, _| share)),
    ("GlobalMaxPool", |call, g| pooled(call, g, |_, x, y, ties| extreme(x, y, ties))),
];

/// Of the largest (or smallest) value: shared by those that tie.
fn extreme(x: f32, y: f32, ties: f32) -> f32 {
    if x == y { ties.recip() } else { 0.0 }
}

/// Slope by (1 / values in a result, x, y, values that equal y).
type Slope = fn(f32, f32, f32, f32) -> f32;

fn reduce(call: &Call<'_>, gradients: Gradients, slope: Slope) -> Result<Gradients, String> {
    let rank = call.input(0)?.shape.len();
    let given = call.list(1, "axes")?.filter(|axes| !axes.is_empty());
    if given.is_none() && call.int("noop_with_empty_axes", 0) != 0 {
        return Ok(vec![Some(first(gradients)?)]);
    }
    let axes = match given {
        Some(axes) => axes.iter().map(|&axis| Call::axis(axis, rank)).collect::<Result<Vec<_>, _>>()?,
        None => (0..rank).collect(),
    };
    over(call, gradients, &axes, slope)
}

fn pooled(call: &Call<'_>, gradients: Gradients, slope: Slope) -> Result<Gradients, String> {
    let axes: Vec<usize> = (2..call.input(0)?.shape.len()).collect();
    over(call, gradients, &axes, slope)
}

fn over(call: &Call<'_>, gradients: Gradients, axes: &[usize], slope: Slope) -> Result<Gradients, String> {
    let (x, y) = (call.input(0)?, call.output()?);
    let mut kept = x.shape.clone();
    let mut share = 1.0;
    for &axis in axes {
        share /= x.shape[axis].max(1) as f32;
        kept[axis] = 1;
    }
    let spread = |values: ArrayD<f32>| -> Result<ArrayD<f32>, String> {
        let shaped = values.into_shape_with_order(kept.clone()).map_err(|error| error.to_string())?;
        let all = shaped.broadcast(x.shape.clone()).ok_or("the result does not fit its operand")?.to_owned();
        Ok(all)
    };
    let mut out = spread(first(gradients)?)?;
    let (x, y) = (x.view()?, spread(y.view()?.to_owned())?);
    let mut ties: ArrayD<f32> = Zip::from(&x).and(&y).map_collect(|x, y| f32::from(u8::from(x == y)));
    for &axis in axes {
        ties = ties.sum_axis(ndarray::Axis(axis)).insert_axis(ndarray::Axis(axis));
    }
    let ties = ties.broadcast(out.raw_dim()).ok_or("the result does not fit its operand")?;
    Zip::from(&mut out).and(&x).and(&y).and(ties).for_each(|g, &x, &y, &ties| *g *= slope(share, x, y, ties));
    Ok(vec![Some(out)])
}
