//! Operators that work value by value, with broadcasting where they take two.

use ndarray::ArrayD;

use super::unbroadcast;
use crate::autodiff::call::{Call, Gradients, Rule, Value, first, slice};

pub(super) const RULES: &[(&str, Rule)] = &[
    ("Add", add),
    ("Sub", sub),
    ("Mul", mul),
    ("Div", div),
    ("Pow", pow),
    ("Max", select),
    ("Min", select),
    ("Sum", |call, g| spread(call, g, 1.0)),
    ("Mean", |call, g| spread(call, g, 1.0 / call.inputs.len().max(1) as f32)),
    ("Where", choose),
    ("PRelu", prelu),
    ("Relu", |call, g| unary(call, g, |x, _| f32::from(u8::from(x > 0.0)))),
    ("LeakyRelu", |call, g| {
        let alpha = call.float("alpha", 0.01);
        unary(call, g, |x, _| if x > 0.0 { 1.0 } else { alpha })
    }),
    ("ThresholdedRelu", |call, g| {
        let alpha = call.float("alpha", 1.0);
        unary(call, g, |x, _| f32::from(u8::from(x > alpha)))
    }),
    ("Clip", clip),
    ("Sigmoid", |call, g| unary(call, g, |_, y| y * (1.0 - y))),
    ("Tanh", |call, g| unary(call, g, |_, y| 1.0 - y * y)),
    ("Erf", |call, g| unary(call, g, |x, _| std::f32::consts::FRAC_2_SQRT_PI * (-x * x).exp())),
    ("Gelu", gelu),
    ("HardSigmoid", |call, g| {
        let alpha = call.float("alpha", 0.2);
        unary(call, g, |_, y| if y > 0.0 && y < 1.0 { alpha } else { 0.0 })
    }),
    ("HardSwish", |call, g| {
        unary(call, g, |x, _| {
            if x <= -3.0 {
                0.0
            } else if x >= 3.0 {
                1.0
            } else {
                x.mul_add(2.0, 3.0) / 6.0
            }
        })
    }),
    ("Mish", |call, g| {
        unary(call, g, |x, _| {
            let tanh = x.exp().ln_1p().tanh();
            tanh + x * sigmoid(x) * (1.0 - tanh * tanh)
        })
    }),
    ("Swish", |call, g| {
        let alpha = call.float("alpha", 1.0);
        unary(call, g, |x, y| {
            let s = sigmoid(alpha * x);
            s + alpha * y * (1.0 - s)
        })
    }),
    ("Elu", |call, g| {
        let alpha = call.float("alpha", 1.0);
        unary(call, g, |x, y| if x > 0.0 { 1.0 } else { y + alpha })
    }),
    ("Selu", |call, g| {
        let (alpha, gamma) = (call.float("alpha", 1.673_263_2), call.float("gamma", 1.050_701));
        unary(call, g, |x, y| if x > 0.0 { gamma } else { y + alpha * gamma })
    }),
    ("Celu", |call, g| {
        let alpha = call.float("alpha", 1.0);
        unary(call, g, |x, _| if x > 0.0 { 1.0 } else { (x / alpha).exp() })
    }),
    ("Softplus", |call, g| unary(call, g, |x, _| sigmoid(x))),
    ("Softsign", |call, g| unary(call, g, |x, _| (1.0 + x.abs()).powi(-2))),
    ("Exp", |call, g| unary(call, g, |_, y| y)),
    ("Log", |call, g| {
        let least = least(call.input(0)?.floats()?, STEP);
        unary(call, g, |x, _| away(x, least).recip())
    }),
    ("Sqrt", |call, g| {
        let least = least(call.output()?.floats()?, STEP.sqrt());
        unary(call, g, |_, y| 0.5 / away(y, least))
    }),
    ("Reciprocal", |call, g| {
        let least = least(call.input(0)?.floats()?, STEP);
        unary(call, g, |x, _| -away(x, least).powi(-2))
    }),
    ("Neg", |call, g| unary(call, g, |_, _| -1.0)),
    ("Abs", |call, g| unary(call, g, |x, _| if x == 0.0 { 0.0 } else { x.signum() })),
    ("Sin", |call, g| unary(call, g, |x, _| x.cos())),
    ("Cos", |call, g| unary(call, g, |x, _| -x.sin())),
    ("Identity", |_, g| Ok(vec![Some(first(g)?)])),
    ("Dropout", |_, g| Ok(vec![Some(first(g)?)])),
    ("Cast", |_, g| Ok(vec![Some(first(g)?)])),
    // A file's own pairs come together, so that their scales cancel; steps are taken as straight.
    ("QuantizeLinear", |_, g| Ok(vec![Some(first(g)?)])),
    ("DequantizeLinear", |_, g| Ok(vec![Some(first(g)?)])),
    ("CastLike", |_, g| Ok(vec![Some(first(g)?)])),
];

/// Values are told apart down to this share of the largest in their tensor: slopes that grow without bound towards 0 (of a
/// logarithm, a root, a quotient) are taken this far away from it, since no rounding keeps a value nearer.
const STEP: f32 = 1.0 / 65_536.0;

/// The least size of a value at which a slope is taken: `share` of the largest, and never 0.
fn least(values: &[f32], share: f32) -> f32 {
    let largest = values.iter().filter(|x| x.is_finite()).fold(0.0_f32, |largest, x| largest.max(x.abs()));
    (largest * share).max(f32::MIN_POSITIVE)
}

/// `x`, or what is `least` away from 0 on its side.
fn away(x: f32, least: f32) -> f32 {
    x.abs().max(least).copysign(x)
}

fn sigmoid(x: f32) -> f32 {
    (1.0 + (-x).exp()).recip()
}

/// g · slope(x, y), where the slope is 0 wherever the gradient is.
fn unary(call: &Call<'_>, gradients: Gradients, slope: impl Fn(f32, f32) -> f32) -> Result<Gradients, String> {
    let mut gradient = first(gradients)?;
    let (x, y) = (call.input(0)?.floats()?, call.output()?.floats()?);
    let values = gradient.as_slice_mut().ok_or("a gradient is not contiguous")?;
    for ((g, &x), &y) in values.iter_mut().zip(x).zip(y) {
        // Where the slope is not finite and nothing comes back, nothing goes on.
        *g = if *g == 0.0 { 0.0 } else { *g * slope(x, y) };
    }
    Ok(vec![Some(gradient)])
}

fn clip(call: &Call<'_>, gradients: Gradients) -> Result<Gradients, String> {
    let bound = |at: usize, name: &str, default: f32| -> Result<f32, String> {
        match call.optional(at) {
            Some(value) => Ok(value.floats()?.first().copied().unwrap_or(default)),
            None => Ok(call.float(name, default)),
        }
    };
    let (lo, hi) = (bound(1, "min", f32::NEG_INFINITY)?, bound(2, "max", f32::INFINITY)?);
    unary(call, gradients, |x, _| f32::from(u8::from(x > lo && x < hi)))
}

/// Φ(x) + x·φ(x), with Φ(x) = y / x so that no error function is needed; the tanh form where the node says so.
pub(super) fn gelu(call: &Call<'_>, gradients: Gradients) -> Result<Gradients, String> {
    if call.text("approximate") == "tanh" {
        return fast_gelu(call, gradients);
    }
    let density = 0.5 * std::f32::consts::FRAC_2_SQRT_PI * std::f32::consts::FRAC_1_SQRT_2;
    unary(call, gradients, |x, y| {
        let below = if x.abs() < 1e-3 { 0.5 + density * x } else { y / x };
        below + x * density * (-0.5 * x * x).exp()
    })
}

/// The tanh form of GELU: y = x/2 · (1 + tanh(√(2/π)·(x + 0.044715·x³))).
pub(super) fn fast_gelu(call: &Call<'_>, gradients: Gradients) -> Result<Gradients, String> {
    if call.inputs.len() > 1 {
        return Err("a bias inside GELU has no backward here".to_owned());
    }
    let root = std::f32::consts::FRAC_2_SQRT_PI * std::f32::consts::FRAC_1_SQRT_2;
    unary(call, gradients, |x, _| {
        let tanh = (root * (x + 0.044_715 * x * x * x)).tanh();
        0.5 * (1.0 + tanh) + 0.5 * x * (1.0 - tanh * tanh) * root * (1.0 + 0.134_145 * x * x)
    })
}

fn add(call: &Call<'_>, gradients: Gradients) -> Result<Gradients, String> {
    spread(call, gradients, 1.0)
}

/// The same gradient, times `factor`, to every input.
fn spread(call: &Call<'_>, gradients: Gradients, factor: f32) -> Result<Gradients, String> {
    let mut gradient = first(gradients)?;
    if factor != 1.0 {
        gradient.mapv_inplace(|g| g * factor);
    }
    (0..call.inputs.len()).map(|at| wanted(call, at, || Ok(gradient.clone()))).collect()
}

fn sub(call: &Call<'_>, gradients: Gradients) -> Result<Gradients, String> {
    let gradient = first(gradients)?;
    let right = wanted(call, 1, || Ok(gradient.mapv(|g| -g)))?;
    Ok(vec![wanted(call, 0, || Ok(gradient))?, right])
}

/// The gradient for input `at` folded to its shape, when it is wanted.
fn wanted(
    call: &Call<'_>,
    at: usize,
    make: impl FnOnce() -> Result<ArrayD<f32>, String>,
) -> Result<Option<ArrayD<f32>>, String> {
    if !call.wants(at) {
        return Ok(None);
    }
    unbroadcast(make()?, &call.input(at)?.shape).map(Some)
}

/// `gradient` times `f(values)`, the values repeated to the gradient's shape.
fn times(gradient: &ArrayD<f32>, by: &Value<'_>, f: impl Fn(f32) -> f32) -> Result<ArrayD<f32>, String> {
    let mut out = gradient.clone();
    if by.shape == gradient.shape() {
        let out = out.as_slice_mut().ok_or("a gradient is not contiguous")?;
        out.iter_mut().zip(by.floats()?).for_each(|(g, &x)| *g *= f(x));
    } else {
        let view = by.view()?;
        let view = view.broadcast(gradient.raw_dim()).ok_or("operands do not broadcast")?;
        out.zip_mut_with(&view, |g, &x| *g *= f(x));
    }
    Ok(out)
}

fn mul(call: &Call<'_>, gradients: Gradients) -> Result<Gradients, String> {
    let gradient = first(gradients)?;
    let left = wanted(call, 0, || times(&gradient, call.input(1)?, |x| x))?;
    Ok(vec![left, wanted(call, 1, || times(&gradient, call.input(0)?, |x| x))?])
}

fn div(call: &Call<'_>, gradients: Gradients) -> Result<Gradients, String> {
    let gradient = first(gradients)?;
    let least = least(call.input(1)?.floats()?, STEP);
    let recip = |x: f32| away(x, least).recip();
    let left = wanted(call, 0, || times(&gradient, call.input(1)?, recip))?;
    let right = wanted(call, 1, || {
        let by_result = times(&gradient, call.output()?, |y| -y)?;
        times(&by_result, call.input(1)?, recip)
    })?;
    Ok(vec![left, right])
}

fn pow(call: &Call<'_>, gradients: Gradients) -> Result<Gradients, String> {
    let gradient = first(gradients)?;
    let (base, exponent) = (call.input(0)?, call.input(1)?);
    if call.wants(1) {
        return Err("an exponent that moves has no backward here".to_owned());
    }
    let left = wanted(call, 0, || {
        let least = least(base.floats()?, STEP);
        let slope = |x: f32, power: f32| {
            let x = if power < 1.0 { away(x, least) } else { x };
            power * x.powf(power - 1.0)
        };
        if let [power] = exponent.floats()? {
            return times(&gradient, base, |x| slope(x, *power));
        }
        let mut out = gradient.clone();
        let (x, power) = (base.view()?, exponent.view()?);
        let x = x.broadcast(out.raw_dim()).ok_or("operands do not broadcast")?;
        let power = power.broadcast(out.raw_dim()).ok_or("operands do not broadcast")?;
        ndarray::Zip::from(&mut out).and(x).and(power).for_each(|g, &x, &power| *g *= slope(x, power));
        Ok(out)
    })?;
    Ok(vec![left])
}

/// Max and Min: to the first input that has the result.
fn select(call: &Call<'_>, gradients: Gradients) -> Result<Gradients, String> {
    let mut left = first(gradients)?;
    let result = call.output()?.view()?;
    let mut out = Vec::with_capacity(call.inputs.len());
    for at in 0..call.inputs.len() {
        let value = call.input(at)?.view()?;
        let value = value.broadcast(left.raw_dim()).ok_or("operands do not broadcast")?;
        let mut own = left.clone();
        ndarray::Zip::from(&mut own).and(&mut left).and(value).and(result.view()).for_each(|own, left, &x, &y| {
            if x == y {
                *left = 0.0;
            } else {
                *own = 0.0;
            }
        });
        out.push(wanted(call, at, || Ok(own))?);
    }
    Ok(out)
}

fn choose(call: &Call<'_>, gradients: Gradients) -> Result<Gradients, String> {
    let gradient = first(gradients)?;
    let condition = call.input(0)?;
    let values: Vec<f32> = condition.integers()?.iter().map(|&c| if c == 0 { 0.0 } else { 1.0 }).collect();
    let mask = Value { shape: condition.shape.clone(), data: crate::autodiff::Data::F32(values.into()) };
    let yes = wanted(call, 1, || times(&gradient, &mask, |c| c))?;
    Ok(vec![None, yes, wanted(call, 2, || times(&gradient, &mask, |c| 1.0 - c))?])
}

fn prelu(call: &Call<'_>, gradients: Gradients) -> Result<Gradients, String> {
    if call.wants(1) {
        return Err("a slope that moves has no backward here".to_owned());
    }
    let gradient = first(gradients)?;
    let mut out = times(&gradient, call.input(1)?, |slope| slope)?;
    let (x, all) = (call.input(0)?.floats()?, slice(&gradient)?);
    let values = out.as_slice_mut().ok_or("a gradient is not contiguous")?;
    for ((g, &x), &all) in values.iter_mut().zip(x).zip(all) {
        if x > 0.0 {
            *g = all;
        }
    }
    Ok(vec![Some(out)])
}
