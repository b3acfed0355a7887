//! Convolutions, plain and transposed, over one or two spatial axes.

use ndarray::{ArrayD, ArrayView2};

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

/// One convolution seen from its two sides: planes that a kernel slides over, and planes of the places where it stops. The weight
/// has the shape [small side's channels, large side's channels of one group, kernel…] in Conv, whose input is the large side, and
/// in ConvTranspose, whose output is.
struct Sides {
    slide: Slide,
    images: usize,
    groups: usize,
    /// Channels of the large side in one group.
    large: usize,
    /// Channels of the small side in one group.
    small: usize,
}

impl Sides {
    fn of(call: &Call<'_>, large: &[usize], small: &[usize], weight: &[usize]) -> Result<Self, String> {
        let ([images, channels, size @ ..], [stops, filters, places @ ..], [outputs, depth, kernel @ ..]) =
            (large, small, weight)
        else {
            return Err("a convolution of fewer than three axes".to_owned());
        };
        let groups = usize::try_from(call.int("group", 1)).unwrap_or(1).max(1);
        let fits = outputs == filters && outputs % groups == 0 && channels / groups == *depth && channels % groups == 0;
        if !fits || images != stops {
            return Err("the weight's channels do not fit".to_owned());
        }
        let slide = Slide::new(call, size, places, kernel)?;
        Ok(Self { slide, images: *images, groups, large: *depth, small: outputs / groups })
    }

    fn is_depthwise(&self) -> bool {
        self.large == 1 && self.small == 1
    }

    /// Weights that meet one place: large channels of a group under all taps.
    fn depth(&self) -> usize {
        self.large * self.slide.taps()
    }

    /// Calls `each(parts, unfolded)` for every image and group: where its values lie, and what the large side has under the
    /// kernel at each place, as a matrix of depth × places.
    fn unfolded(
        &self,
        large: &[f32],
        mut each: impl FnMut(&Parts, &ArrayView2<'_, f32>) -> Result<(), String>,
    ) -> Result<(), String> {
        let (plane, positions, taps) = (self.slide.plane(), self.slide.positions(), self.slide.taps());
        let pointwise = self.slide.is_pointwise();
        let mut columns = vec![0.0; if pointwise { 0 } else { self.depth() * positions }];
        for parts in self.parts() {
            let large = &large[parts.large.clone()];
            if !pointwise {
                for (plane, columns) in large.chunks(plane).zip(columns.chunks_mut(taps * positions)) {
                    self.slide.unfold(plane, columns);
                }
            }
            each(&parts, &matrix(if pointwise { large } else { &columns }, self.depth(), positions)?)?;
        }
        Ok(())
    }

    fn parts(&self) -> impl Iterator<Item = Parts> + use<> {
        let large = self.large * self.slide.plane();
        let small = self.small * self.slide.positions();
        let (weight, groups) = (self.small * self.depth(), self.groups);
        let of = |at: usize, size: usize| at * size..(at + 1) * size;
        (0..self.images * groups).map(move |at| Parts {
            large: of(at, large),
            small: of(at, small),
            weight: of(at % groups, weight),
        })
    }
}

/// Where the values of one image and group lie.
struct Parts {
    large: std::ops::Range<usize>,
    small: std::ops::Range<usize>,
    weight: std::ops::Range<usize>,
}

/// The large side is x, the small one y: ∂w = g · unfold(x)ᵀ, ∂x = fold(wᵀ · g).
fn conv(call: &Call<'_>, gradients: Gradients) -> Result<Gradients, String> {
    let gradient = first(gradients)?;
    let (x, w) = (call.input(0)?, call.input(1)?);
    let sides = Sides::of(call, &x.shape, gradient.shape(), &w.shape)?;
    let g = slice(&gradient)?;
    let (mut to_x, mut to_w) = (vec![0.0; x.len()], vec![0.0; w.len()]);
    if sides.is_depthwise() {
        depthwise(&sides, x.floats()?, w.floats()?, g, [call.wants(0), call.wants(1)], &mut to_x, &mut to_w);
    } else {
        if call.wants(1) {
            add_to_weight(&sides, x.floats()?, g, &mut to_w)?;
        }
        if call.wants(0) {
            add_to_large(&sides, w.floats()?, g, &mut to_x)?;
        }
    }
    with_bias(call, &gradient, vec![Some(array(&x.shape, to_x)?), Some(array(&w.shape, to_w)?)])
}

/// The large side is y, the small one x: ∂w = x · unfold(g)ᵀ, ∂x = w · unfold(g).
fn conv_transpose(call: &Call<'_>, gradients: Gradients) -> Result<Gradients, String> {
    let gradient = first(gradients)?;
    let (x, w) = (call.input(0)?, call.input(1)?);
    if !call.ints("output_shape").is_empty() {
        return Err("output_shape has no backward here".to_owned());
    }
    let sides = Sides::of(call, gradient.shape(), &x.shape, &w.shape)?;
    let g = slice(&gradient)?;
    let (mut to_x, mut to_w) = (vec![0.0; x.len()], vec![0.0; w.len()]);
    if call.wants(1) {
        add_to_weight(&sides, g, x.floats()?, &mut to_w)?;
    }
    if call.wants(0) {
        let (small, depth, positions) = (sides.small, sides.depth(), sides.slide.positions());
        let weights = w.floats()?;
        sides.unfolded(g, |parts, unfolded| {
            let w = matrix(&weights[parts.weight.clone()], small, depth)?;
            add_product(&mut matrix_mut(&mut to_x[parts.small.clone()], small, positions)?, &w, unfolded)
        })?;
    }
    with_bias(call, &gradient, vec![Some(array(&x.shape, to_x)?), Some(array(&w.shape, to_w)?)])
}

/// Adds the bias's gradient, Σ of the output's a channel, where it is wanted.
fn with_bias(call: &Call<'_>, gradient: &ArrayD<f32>, mut out: Gradients) -> Result<Gradients, String> {
    if call.wants(2) {
        let [_, channels, size @ ..] = gradient.shape() else { return Err("an output without channels".to_owned()) };
        let mut to_bias = vec![0.0; *channels];
        for (at, plane) in slice(gradient)?.chunks(size.iter().product::<usize>().max(1)).enumerate() {
            to_bias[at % channels] += plane.iter().sum::<f32>();
        }
        out.push(Some(array(&[*channels], to_bias)?));
    }
    Ok(out)
}

/// small · unfold(large)ᵀ
fn add_to_weight(sides: &Sides, large: &[f32], small: &[f32], to_w: &mut [f32]) -> Result<(), String> {
    let (rows, depth, positions) = (sides.small, sides.depth(), sides.slide.positions());
    sides.unfolded(large, |parts, unfolded| {
        let small = matrix(&small[parts.small.clone()], rows, positions)?;
        add_product(&mut matrix_mut(&mut to_w[parts.weight.clone()], rows, depth)?, &small, &unfolded.t())
    })
}

/// fold(wᵀ · small)
fn add_to_large(sides: &Sides, w: &[f32], small: &[f32], to_large: &mut [f32]) -> Result<(), String> {
    let (slide, depth, positions) = (&sides.slide, sides.depth(), sides.slide.positions());
    let pointwise = slide.is_pointwise();
    let mut columns = vec![0.0; if pointwise { 0 } else { depth * positions }];
    for parts in sides.parts() {
        let small = matrix(&small[parts.small], sides.small, positions)?;
        let w = matrix(&w[parts.weight], sides.small, depth)?;
        let to_large = &mut to_large[parts.large];
        if pointwise {
            add_product(&mut matrix_mut(to_large, depth, positions)?, &w.t(), &small)?;
            continue;
        }
        columns.fill(0.0);
        add_product(&mut matrix_mut(&mut columns, depth, positions)?, &w.t(), &small)?;
        for (plane, columns) in to_large.chunks_mut(slide.plane()).zip(columns.chunks(slide.taps() * positions)) {
            slide.fold(columns, plane);
        }
    }
    Ok(())
}

/// One channel a group: pixel by pixel, since matrices of one row gain nothing.
fn depthwise(sides: &Sides, x: &[f32], w: &[f32], g: &[f32], wants: [bool; 2], to_x: &mut [f32], to_w: &mut [f32]) {
    let (slide, stride) = (&sides.slide, sides.slide.strides[1]);
    for parts in sides.parts() {
        let (x, g, w) = (&x[parts.large.clone()], &g[parts.small], &w[parts.weight.clone()]);
        let (to_x, to_w) = (&mut to_x[parts.large], &mut to_w[parts.weight]);
        for (tap, (&weight, to_weight)) in w.iter().zip(to_w).enumerate() {
            slide.rows(tap, |place, pixel, count| {
                let g = &g[place..place + count];
                if stride == 1 {
                    if wants[0] {
                        add_scaled(&mut to_x[pixel..pixel + count], g, weight);
                    }
                    if wants[1] {
                        *to_weight += dot(g, &x[pixel..pixel + count]);
                    }
                } else {
                    if wants[0] {
                        to_x[pixel..].iter_mut().step_by(stride).zip(g).for_each(|(x, &g)| *x += weight * g);
                    }
                    if wants[1] {
                        *to_weight += x[pixel..].iter().step_by(stride).zip(g).map(|(x, g)| x * g).sum::<f32>();
                    }
                }
            });
        }
    }
}
