//! Convolutions, plain and transposed, over one or two spatial axes.

use super::multiply::{add_product, matrix, matrix_mut};
use crate::autodiff::call::{Call, Gradients, Rule, array, first, slice};
use crate::simd::{dot, vectorised};

pub(super) const RULES: &[(&str, Rule)] = &[("Conv", conv), ("ConvTranspose", conv_transpose)];

/// How a small plane of `kernel` slides over a large one (`size`), giving `places` positions. Always two axes.
#[derive(Clone, Copy, Debug)]
struct Slide {
    size: [usize; 2],
    places: [usize; 2],
    kernel: [usize; 2],
    strides: [usize; 2],
    dilations: [usize; 2],
    begins: [i64; 2],
}

impl Slide {
    /// Of a node whose large side has the spatial sizes `size` and whose small side has `places`.
    fn new(call: &Call<'_>, size: &[usize], places: &[usize], kernel: &[usize]) -> Result<Self, String> {
        let axes = kernel.len();
        if !(1..=2).contains(&axes) || size.len() != axes || places.len() != axes {
            return Err(format!("a convolution over {axes} axes has no backward here"));
        }
        let list = |name: &str, default: usize| -> Result<[usize; 2], String> {
            match call.ints(name) {
                [] => Ok([default; 2]),
                values if values.len() == axes => two(
                    &values.iter().map(|&v| usize::try_from(v).unwrap_or(default).max(1)).collect::<Vec<_>>(),
                    default,
                ),
                values => Err(format!("{name} {values:?} for {axes} axes")),
            }
        };
        let (strides, dilations) = (list("strides", 1)?, list("dilations", 1)?);
        let (size, places, kernel) = (two(size, 1)?, two(places, 1)?, two(kernel, 1)?);
        if [size, places, kernel].as_flattened().contains(&0) {
            return Err("nothing to slide over".to_owned());
        }
        let mut begins = [0; 2];
        let auto = call.text("auto_pad");
        for axis in 0..2 {
            let spatial = (axis + axes).checked_sub(2);
            begins[axis] = match (spatial, auto.as_str()) {
                (None, _) | (_, "VALID") => 0,
                (_, "SAME_UPPER" | "SAME_LOWER") => {
                    let span = (kernel[axis] - 1) * dilations[axis] + 1;
                    let covered = places[axis].saturating_sub(1) * strides[axis] + span;
                    let total = covered.saturating_sub(size[axis]) as i64;
                    if auto == "SAME_UPPER" { total / 2 } else { total - total / 2 }
                }
                (Some(spatial), _) => call.ints("pads").get(spatial).copied().unwrap_or(0),
            };
        }
        Ok(Self { size, places, kernel, strides, dilations, begins })
    }

    fn positions(&self) -> usize {
        self.places[0] * self.places[1]
    }

    fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    fn plane(&self) -> usize {
        self.size[0] * self.size[1]
    }

    /// Whether every position reads exactly its own pixel.
    fn is_pointwise(&self) -> bool {
        self.taps() == 1 && self.strides == [1; 2] && self.begins == [0; 2] && self.size == self.places
    }

    /// For kernel offset `k` of an axis: the range of places whose pixel lies inside, and the pixel of the first one.
    fn span(&self, axis: usize, k: usize) -> (std::ops::Range<usize>, usize) {
        let stride = self.strides[axis].max(1) as i64;
        let offset = (k * self.dilations[axis]) as i64 - self.begins[axis];
        let from = if offset < 0 { (-offset + stride - 1) / stride } else { 0 };
        let until =
            (self.size[axis] as i64 - offset + stride - 1).div_euclid(stride).clamp(0, self.places[axis] as i64);
        let from = from.min(until);
        (from as usize..until as usize, (from * stride + offset).max(0) as usize)
    }

    /// Calls `row(place, pixel, count)` for every stretch of places along the last axis: `count` places from `place` on,
    /// whose pixels begin at `pixel` and lie `strides[1]` apart.
    fn rows(&self, tap: usize, mut row: impl FnMut(usize, usize, usize)) {
        let (ky, kx) = (tap / self.kernel[1], tap % self.kernel[1]);
        let ((ys, y0), (xs, x0)) = (self.span(0, ky), self.span(1, kx));
        if xs.is_empty() {
            return;
        }
        for (step, y) in ys.enumerate() {
            let pixel = (y0 + step * self.strides[0]) * self.size[1] + x0;
            row(y * self.places[1] + xs.start, pixel, xs.len());
        }
    }

    /// One plane's pixels under each kernel tap: `out[tap · positions + place]`.
    fn unfold(&self, plane: &[f32], out: &mut [f32]) {
        out.fill(0.0);
        let (positions, stride) = (self.positions(), self.strides[1]);
        for tap in 0..self.taps() {
            let out = &mut out[tap * positions..][..positions];
            self.rows(tap, |place, pixel, count| {
                let source = plane[pixel..].iter().step_by(stride);
                out[place..place + count].iter_mut().zip(source).for_each(|(o, &x)| *o = x);
            });
        }
    }

    /// The transpose of [`Self::unfold`]: adds every tap's places to the pixels they came from.
    fn fold(&self, columns: &[f32], plane: &mut [f32]) {
        let (positions, stride) = (self.positions(), self.strides[1]);
        for tap in 0..self.taps() {
            let columns = &columns[tap * positions..][..positions];
            self.rows(tap, |place, pixel, count| {
                let target = plane[pixel..].iter_mut().step_by(stride);
                target.zip(&columns[place..place + count]).for_each(|(x, &c)| *x += c);
            });
        }
    }
}

fn two(values: &[usize], default: usize) -> Result<[usize; 2], String> {
    match values {
        [x] => Ok([default, *x]),
        [y, x] => Ok([*y, *x]),
        _ => Err("a convolution over more than two axes has no backward here".to_owned()),
    }
}

vectorised! {
    /// out += factor · values
    fn add_scaled(out: &mut [f32], values: &[f32], factor: f32) {
        for (o, &v) in out.iter_mut().zip(values) {
            *o += factor * v;
        }
    }
}

fn groups_of(call: &Call<'_>) -> usize {
    usize::try_from(call.int("group", 1)).unwrap_or(1).max(1)
}

/// Sizes of a convolution: images, groups, channels of the large and of the small side in one group.
struct Sizes {
    images: usize,
    groups: usize,
    large: usize,
    small: usize,
}

fn conv(call: &Call<'_>, gradients: Gradients) -> Result<Gradients, String> {
    let gradient = first(gradients)?;
    let (x, w) = (call.input(0)?, call.input(1)?);
    let ([images, channels, size @ ..], [outputs, depth, kernel @ ..]) = (x.shape.as_slice(), w.shape.as_slice())
    else {
        return Err("a convolution of fewer than three axes".to_owned());
    };
    let [_, _, places @ ..] = gradient.shape() else { return Err("a convolution's output has its axes".to_owned()) };
    let slide = Slide::new(call, size, places, kernel)?;
    let groups = groups_of(call);
    if channels / groups != *depth || outputs % groups != 0 || gradient.shape().get(1) != Some(outputs) {
        return Err("the weight's channels do not fit".to_owned());
    }
    let sizes = Sizes { images: *images, groups, large: *depth, small: outputs / groups };
    let (mut to_x, mut to_w) = (vec![0.0; x.len()], vec![0.0; w.len()]);
    let wants = [call.wants(0), call.wants(1)];
    if *depth == 1 && sizes.small == 1 {
        depthwise(&slide, &sizes, x.floats()?, w.floats()?, slice(&gradient)?, wants, &mut to_x, &mut to_w);
    } else {
        grouped(&slide, &sizes, x.floats()?, w.floats()?, slice(&gradient)?, wants, &mut to_x, &mut to_w)?;
    }
    let mut out = vec![Some(array(&x.shape, to_x)?), Some(array(&w.shape, to_w)?)];
    if call.wants(2) {
        let axes: usize = places.iter().product();
        let mut to_bias = vec![0.0; *outputs];
        for (at, plane) in slice(&gradient)?.chunks(axes.max(1)).enumerate() {
            to_bias[at % outputs] += plane.iter().sum::<f32>();
        }
        out.push(Some(array(&[*outputs], to_bias)?));
    }
    Ok(out)
}

#[allow(clippy::too_many_arguments)] // the three tensors of a convolution and what becomes of them
fn depthwise(
    slide: &Slide,
    sizes: &Sizes,
    x: &[f32],
    w: &[f32],
    g: &[f32],
    wants: [bool; 2],
    to_x: &mut [f32],
    to_w: &mut [f32],
) {
    let (plane, positions, taps, stride) = (slide.plane(), slide.positions(), slide.taps(), slide.strides[1]);
    for at in 0..sizes.images * sizes.groups {
        let channel = at % sizes.groups;
        let g = &g[at * positions..][..positions];
        let x = &x[at * plane..][..plane];
        let to_x = &mut to_x[at * plane..][..plane];
        for tap in 0..taps {
            let (weight, mut sum) = (w[channel * taps + tap], 0.0);
            slide.rows(tap, |place, pixel, count| {
                let g = &g[place..place + count];
                if stride == 1 {
                    if wants[0] {
                        add_scaled(&mut to_x[pixel..pixel + count], g, weight);
                    }
                    if wants[1] {
                        sum += dot(g, &x[pixel..pixel + count]);
                    }
                } else {
                    if wants[0] {
                        to_x[pixel..].iter_mut().step_by(stride).zip(g).for_each(|(x, &g)| *x += weight * g);
                    }
                    if wants[1] {
                        sum += x[pixel..].iter().step_by(stride).zip(g).map(|(x, g)| x * g).sum::<f32>();
                    }
                }
            });
            to_w[channel * taps + tap] += sum;
        }
    }
}

/// By matrix products, group by group: ∂w = g · unfold(x)ᵀ, ∂x = fold(wᵀ · g).
#[allow(clippy::too_many_arguments)]
fn grouped(
    slide: &Slide,
    sizes: &Sizes,
    x: &[f32],
    w: &[f32],
    g: &[f32],
    wants: [bool; 2],
    to_x: &mut [f32],
    to_w: &mut [f32],
) -> Result<(), String> {
    let Sizes { images, groups, large, small } = *sizes;
    let (plane, positions, taps) = (slide.plane(), slide.positions(), slide.taps());
    let depth = large * taps;
    let pointwise = slide.is_pointwise();
    let mut columns = vec![0.0; if pointwise { 0 } else { depth * positions }];
    for at in 0..images * groups {
        let group = at % groups;
        let g = matrix(&g[at * small * positions..][..small * positions], small, positions)?;
        let w = matrix(&w[group * small * depth..][..small * depth], small, depth)?;
        let x = &x[at * large * plane..][..large * plane];
        if wants[1] {
            let to_w = &mut to_w[group * small * depth..][..small * depth];
            if !pointwise {
                for (plane, columns) in x.chunks(plane).zip(columns.chunks_mut(taps * positions)) {
                    slide.unfold(plane, columns);
                }
            }
            let unfolded = matrix(if pointwise { x } else { &columns }, depth, positions)?;
            add_product(&mut matrix_mut(to_w, small, depth)?, &g, &unfolded.t())?;
        }
        if wants[0] {
            let to_x = &mut to_x[at * large * plane..][..large * plane];
            if pointwise {
                add_product(&mut matrix_mut(to_x, depth, positions)?, &w.t(), &g)?;
            } else {
                columns.fill(0.0);
                add_product(&mut matrix_mut(&mut columns, depth, positions)?, &w.t(), &g)?;
                for (plane, columns) in to_x.chunks_mut(plane).zip(columns.chunks(taps * positions)) {
                    slide.fold(columns, plane);
                }
            }
        }
    }
    Ok(())
}

/// The transpose: x is the small side, the output the large one. ∂x = w · unfold(g), ∂w = x · unfold(g)ᵀ.
fn conv_transpose(call: &Call<'_>, gradients: Gradients) -> Result<Gradients, String> {
    let gradient = first(gradients)?;
    let (x, w) = (call.input(0)?, call.input(1)?);
    let ([images, channels, places @ ..], [_, per_group, kernel @ ..]) = (x.shape.as_slice(), w.shape.as_slice())
    else {
        return Err("a convolution of fewer than three axes".to_owned());
    };
    let [_, outputs, size @ ..] = gradient.shape() else { return Err("an output of fewer than three axes".to_owned()) };
    if !call.ints("output_shape").is_empty() {
        return Err("output_shape has no backward here".to_owned());
    }
    let slide = Slide::new(call, size, places, kernel)?;
    let groups = groups_of(call);
    if channels % groups != 0 || per_group * groups != *outputs || w.shape.first() != Some(channels) {
        return Err("the weight's channels do not fit".to_owned());
    }
    let (small, large) = (channels / groups, *per_group);
    let (plane, positions, taps) = (slide.plane(), slide.positions(), slide.taps());
    let depth = large * taps;
    let (g, x_values, w_values) = (slice(&gradient)?, x.floats()?, w.floats()?);
    let (mut to_x, mut to_w) = (vec![0.0; x.len()], vec![0.0; w.len()]);
    let mut columns = vec![0.0; depth * positions];
    for at in 0..images * groups {
        let group = at % groups;
        for (plane, columns) in
            g[at * large * plane..][..large * plane].chunks(plane).zip(columns.chunks_mut(taps * positions))
        {
            slide.unfold(plane, columns);
        }
        let unfolded = matrix(&columns, depth, positions)?;
        let of_weight = group * small * depth..(group + 1) * small * depth;
        let of_x = at * small * positions..(at + 1) * small * positions;
        if call.wants(0) {
            let w = matrix(&w_values[of_weight.clone()], small, depth)?;
            add_product(&mut matrix_mut(&mut to_x[of_x.clone()], small, positions)?, &w, &unfolded)?;
        }
        if call.wants(1) {
            let x = matrix(&x_values[of_x], small, positions)?;
            add_product(&mut matrix_mut(&mut to_w[of_weight], small, depth)?, &x, &unfolded.t())?;
        }
    }
    Ok(vec![Some(array(&x.shape, to_x)?), Some(array(&w.shape, to_w)?)])
}
