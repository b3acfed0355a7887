//! Resizing: linear in the values, axis by axis, so its backward is each axis' matrix transposed.

use crate::autodiff::call::{Call, Gradients, Rule, array, first, slice};

pub(super) const RULES: &[(&str, Rule)] = &[("Resize", resize), ("Upsample", resize)];

fn resize(call: &Call<'_>, gradients: Gradients) -> Result<Gradients, String> {
    let gradient = first(gradients)?;
    let x = call.input(0)?;
    let mut shape = gradient.shape().to_vec();
    if shape.len() != x.shape.len() || x.is_empty() || gradient.is_empty() {
        return Err("it changes the number of axes".to_owned());
    }
    let mut values = slice(&gradient)?.to_vec();
    let is_upsample = call.node.op_type() == "Upsample" || call.opset < 11;
    let scales = match call.optional(if is_upsample { 1 } else { 2 }) {
        Some(scales) => scales.floats()?.to_vec(),
        None => crate::model::graph::attribute(call.node, "scales").map(|a| a.floats.clone()).unwrap_or_default(),
    };
    for axis in 0..shape.len() {
        let (to, from) = (shape[axis], x.shape[axis]);
        if to == from {
            continue;
        }
        let scale = if scales.len() == shape.len() { scales[axis] } else { to as f32 / from as f32 };
        let taps = taps(call, from, to, scale, is_upsample)?;
        let inner: usize = shape.iter().skip(axis + 1).product();
        let outer: usize = shape.iter().take(axis).product();
        let mut next = vec![0.0; outer * from * inner];
        for o in 0..outer {
            for (place, taps) in taps.iter().enumerate() {
                let source = &values[(o * to + place) * inner..][..inner];
                for &(pixel, weight) in taps {
                    let target = &mut next[(o * from + pixel) * inner..][..inner];
                    target.iter_mut().zip(source).for_each(|(t, s)| *t += weight * s);
                }
            }
        }
        values = next;
        shape[axis] = from;
    }
    Ok(vec![Some(array(&x.shape, values)?)])
}

/// For every place of the result, the pixels it is made of with their weights.
fn taps(
    call: &Call<'_>,
    from: usize,
    to: usize,
    scale: f32,
    is_upsample: bool,
) -> Result<Vec<Vec<(usize, f32)>>, String> {
    let transform = call.text("coordinate_transformation_mode");
    let last = from as f32 - 1.0;
    let coordinate = |place: usize| -> Result<f32, String> {
        let place = place as f32;
        Ok(match transform.as_str() {
            _ if is_upsample => place / scale,
            "" | "half_pixel" => (place + 0.5) / scale - 0.5,
            "asymmetric" => place / scale,
            "align_corners" => {
                if to == 1 {
                    0.0
                } else {
                    place * last / (to as f32 - 1.0)
                }
            }
            "pytorch_half_pixel" => {
                if to > 1 {
                    (place + 0.5) / scale - 0.5
                } else {
                    0.0
                }
            }
            other => return Err(format!("the coordinates {other} have no backward here")),
        })
    };
    let mode = call.text("mode");
    let nearest = call.text("nearest_mode");
    if call.int("antialias", 0) != 0 {
        return Err("antialiasing has no backward here".to_owned());
    }
    (0..to)
        .map(|place| {
            let at = coordinate(place)?;
            Ok(match mode.as_str() {
                "" | "nearest" => {
                    let pixel = match nearest.as_str() {
                        _ if is_upsample => at.floor(),
                        "" | "round_prefer_floor" => (at - 0.5).ceil(),
                        "round_prefer_ceil" => (at + 0.5).floor(),
                        "floor" => at.floor(),
                        _ => at.ceil(),
                    };
                    vec![(pixel.clamp(0.0, last) as usize, 1.0)]
                }
                "linear" | "bilinear" => {
                    let at = at.clamp(0.0, last);
                    let low = at.floor();
                    let share = at - low;
                    let high = (low + 1.0).min(last);
                    vec![(low as usize, 1.0 - share), (high as usize, share)]
                }
                other => return Err(format!("the mode {other} has no backward here")),
            })
        })
        .collect()
}
