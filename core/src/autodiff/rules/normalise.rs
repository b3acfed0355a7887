//! Normalisations and softmaxes: rows of values that are brought to a common scale.

use crate::autodiff::call::{Call, Gradients, Rule, first};

pub(super) const RULES: &[(&str, Rule)] = &[
    ("Softmax", |call, g| softmax(call, g, false)),
    ("LogSoftmax", |call, g| softmax(call, g, true)),
    ("LayerNormalization", layer),
    ("RMSNormalization", root_mean_square),
    ("InstanceNormalization", instance),
    ("GroupNormalization", group),
    ("BatchNormalization", batch),
];

/// Softmax: y·(g − Σ g·y); its logarithm: g − exp(y)·Σ g. Below operator set 13 all axes from `axis` on are one row.
fn softmax(call: &Call<'_>, gradients: Gradients, logarithm: bool) -> Result<Gradients, String> {
    let mut gradient = first(gradients)?;
    let y = call.output()?;
    let rank = y.shape.len();
    let axis = Call::axis(call.int("axis", if call.opset >= 13 { -1 } else { 1 }), rank)?;
    let (size, inner): (usize, usize) = if call.opset >= 13 {
        (y.shape.get(axis).copied().unwrap_or(1), y.shape.iter().skip(axis + 1).product())
    } else {
        (y.shape.iter().skip(axis).product(), 1)
    };
    let block = (size * inner).max(1);
    let values = gradient.as_slice_mut().ok_or("a gradient is not contiguous")?;
    for (g, y) in values.chunks_mut(block).zip(y.floats()?.chunks(block)) {
        for at in 0..inner {
            let row = || (at..block).step_by(inner.max(1));
            let sum: f32 = row().map(|i| if logarithm { g[i] } else { g[i] * y[i] }).sum();
            for i in row() {
                g[i] = if logarithm { g[i] - y[i].exp() * sum } else { y[i] * (g[i] - sum) };
            }
        }
    }
    Ok(vec![Some(gradient)])
}

/// The gradient of x̂ = (x − μ)/√(σ² + ε) over one row, from that of x̂, in place. Without `centred` μ is taken as 0.
fn standardise(g: &mut [f32], x: &[f32], epsilon: f32, centred: bool) {
    let count = x.len().max(1) as f64;
    let mean = if centred { x.iter().map(|&x| f64::from(x)).sum::<f64>() / count } else { 0.0 };
    let variance = x.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / count;
    let inverse = (variance + f64::from(epsilon)).sqrt().recip();
    let normal = |x: f32| (f64::from(x) - mean) * inverse;
    let (mut sum, mut along) = (0.0, 0.0);
    for (&g, &x) in g.iter().zip(x) {
        sum += f64::from(g);
        along += f64::from(g) * normal(x);
    }
    if !centred {
        sum = 0.0;
    }
    for (g, &x) in g.iter_mut().zip(x) {
        *g = (inverse * (f64::from(*g) - sum / count - normal(x) * along / count)) as f32;
    }
}

fn layer(call: &Call<'_>, gradients: Gradients) -> Result<Gradients, String> {
    rows(call, gradients, true)
}

fn root_mean_square(call: &Call<'_>, gradients: Gradients) -> Result<Gradients, String> {
    rows(call, gradients, false)
}

fn rows(call: &Call<'_>, gradients: Gradients, centred: bool) -> Result<Gradients, String> {
    if call.wants(1) || call.wants(2) {
        return Err("a computed scale or shift has no backward here".to_owned());
    }
    let mut gradient = first(gradients)?;
    let x = call.input(0)?;
    let axis = Call::axis(call.int("axis", -1), x.shape.len())?;
    let width = x.shape.iter().skip(axis).product::<usize>().max(1);
    let scale = call.input(1)?.floats()?;
    let epsilon = call.float("epsilon", 1e-5);
    if scale.is_empty() || width % scale.len() != 0 {
        return Err(format!("a scale of {} values for rows of {width}", scale.len()));
    }
    let values = gradient.as_slice_mut().ok_or("a gradient is not contiguous")?;
    for (g, x) in values.chunks_mut(width).zip(x.floats()?.chunks(width)) {
        g.iter_mut().zip(scale.iter().cycle()).for_each(|(g, &s)| *g *= s);
        standardise(g, x, epsilon, centred);
    }
    Ok(vec![Some(gradient)])
}

fn instance(call: &Call<'_>, gradients: Gradients) -> Result<Gradients, String> {
    let channels = call.input(0)?.shape.get(1).copied().unwrap_or(1);
    by_channels(call, gradients, channels)
}

fn group(call: &Call<'_>, gradients: Gradients) -> Result<Gradients, String> {
    let groups = usize::try_from(call.int("num_groups", 1)).unwrap_or(1).max(1);
    by_channels(call, gradients, groups)
}

/// Rows are groups of channels of one image; every channel, or every group in the older form, has a scale.
fn by_channels(call: &Call<'_>, gradients: Gradients, groups: usize) -> Result<Gradients, String> {
    if call.wants(1) || call.wants(2) {
        return Err("a computed scale or shift has no backward here".to_owned());
    }
    let mut gradient = first(gradients)?;
    let x = call.input(0)?;
    let [images, channels, size @ ..] = x.shape.as_slice() else { return Err("it has no channels".to_owned()) };
    let scale = call.input(1)?.floats()?;
    let plane = size.iter().product::<usize>().max(1);
    let per_group = (channels / groups.max(1)).max(1);
    if scale.is_empty() || *images == 0 || channels % scale.len() != 0 {
        return Err(format!("a scale of {} values for {channels} channels", scale.len()));
    }
    let shared = channels / scale.len();
    let values = gradient.as_slice_mut().ok_or("a gradient is not contiguous")?;
    for (at, g) in values.chunks_mut(plane).enumerate() {
        let scale = scale[at % channels / shared];
        for g in g {
            *g *= scale;
        }
    }
    let (width, epsilon) = (per_group * plane, call.float("epsilon", 1e-5));
    for (g, x) in values.chunks_mut(width).zip(x.floats()?.chunks(width)) {
        standardise(g, x, epsilon, true);
    }
    Ok(vec![Some(gradient)])
}

/// Inference only: g · scale / √(variance + ε).
fn batch(call: &Call<'_>, gradients: Gradients) -> Result<Gradients, String> {
    if (1..5).any(|at| call.wants(at)) || call.int("training_mode", 0) != 0 {
        return Err("computed statistics have no backward here".to_owned());
    }
    let mut gradient = first(gradients)?;
    let (scale, variance) = (call.input(1)?.floats()?, call.input(4)?.floats()?);
    let channels = gradient.shape().get(1).copied().unwrap_or(1);
    let plane = gradient.shape().iter().skip(2).product::<usize>().max(1);
    if scale.len() != channels || variance.len() != channels {
        return Err("the statistics do not fit the channels".to_owned());
    }
    let epsilon = call.float("epsilon", 1e-5);
    let values = gradient.as_slice_mut().ok_or("a gradient is not contiguous")?;
    for (at, g) in values.chunks_mut(plane).enumerate() {
        let channel = at % channels.max(1);
        let factor = scale[channel] / (variance[channel] + epsilon).sqrt();
        for g in g {
            *g *= factor;
        }
    }
    Ok(vec![Some(gradient)])
}
