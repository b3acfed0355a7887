//! Sliding pools over one or two spatial axes.

use crate::autodiff::call::{Call, Gradients, Rule, array, first, slice};

pub(super) const RULES: &[(&str, Rule)] =
    &[("MaxPool", |call, g| pool(call, g, true)), ("AveragePool", |call, g| pool(call, g, false))];

/// One spatial axis of a pool.
#[derive(Clone, Copy)]
struct Axis {
    size: usize,
    places: usize,
    kernel: usize,
    stride: usize,
    dilation: usize,
    begin: i64,
    end: i64,
}

impl Axis {
    const ONE: Self = Self { size: 1, places: 1, kernel: 1, stride: 1, dilation: 1, begin: 0, end: 0 };

    /// Pixels under the kernel at `place`, and how many cells of the padded axis it covers.
    fn window(&self, place: usize) -> (impl Iterator<Item = usize> + Clone + use<>, usize) {
        let (start, size, dilation) =
            ((place * self.stride) as i64 - self.begin, self.size as i64, self.dilation as i64);
        let limit = size + self.end;
        let cells = (0..self.kernel as i64).map(move |k| start + k * dilation);
        let covered = cells.clone().filter(|&cell| cell < limit).count();
        (cells.filter(move |&cell| (0..size).contains(&cell)).map(|cell| cell as usize), covered)
    }
}

fn pool(call: &Call<'_>, gradients: Gradients, largest: bool) -> Result<Gradients, String> {
    let gradient = first(gradients)?;
    let x = call.input(0)?;
    let ([_, _, size @ ..], [_, _, places @ ..]) = (x.shape.as_slice(), gradient.shape()) else {
        return Err("a pool of fewer than three axes".to_owned());
    };
    let axes = axes(call, size, places)?;
    let includes_padding = call.int("count_include_pad", 0) != 0;
    let (plane, positions) = (size.iter().product::<usize>().max(1), places.iter().product::<usize>().max(1));
    let mut out = vec![0.0; x.len()];
    let [high, wide] = axes;
    for ((out, x), g) in out.chunks_mut(plane).zip(x.floats()?.chunks(plane)).zip(slice(&gradient)?.chunks(positions)) {
        for (place, &g) in g.iter().enumerate() {
            let (rows, covered_rows) = high.window(place / wide.places);
            let (columns, covered_columns) = wide.window(place % wide.places);
            let pixels = rows.flat_map(|y| columns.clone().map(move |x| y * wide.size + x));
            if largest {
                // The first of equals, as the runtime takes it.
                let mut best: Option<usize> = None;
                for pixel in pixels {
                    if best.is_none_or(|best| x[pixel] > x[best]) {
                        best = Some(pixel);
                    }
                }
                if let Some(best) = best {
                    out[best] += g;
                }
            } else {
                let count = if includes_padding { covered_rows * covered_columns } else { pixels.clone().count() };
                pixels.for_each(|pixel| out[pixel] += g / count.max(1) as f32);
            }
        }
    }
    Ok(vec![Some(array(&x.shape, out)?)])
}

fn axes(call: &Call<'_>, size: &[usize], places: &[usize]) -> Result<[Axis; 2], String> {
    let count = size.len();
    if !(1..=2).contains(&count) || places.len() != count || size.contains(&0) || places.contains(&0) {
        return Err(format!("a pool over {count} axes has no backward here"));
    }
    let auto = call.text("auto_pad");
    let mut axes = [Axis::ONE; 2];
    for spatial in 0..count {
        let at = |name: &str, place: usize, default: i64| call.ints(name).get(place).copied().unwrap_or(default);
        let positive = |value: i64| usize::try_from(value).unwrap_or(1).max(1);
        let mut axis = Axis {
            size: size[spatial],
            places: places[spatial],
            kernel: positive(at("kernel_shape", spatial, 1)),
            stride: positive(at("strides", spatial, 1)),
            dilation: positive(at("dilations", spatial, 1)),
            begin: at("pads", spatial, 0),
            end: at("pads", spatial + count, 0),
        };
        if auto.starts_with("SAME") {
            let covered = (axis.places - 1) * axis.stride + (axis.kernel - 1) * axis.dilation + 1;
            let total = covered.saturating_sub(axis.size) as i64;
            axis.begin = if auto == "SAME_UPPER" { total / 2 } else { total - total / 2 };
            axis.end = total - axis.begin;
        }
        axes[2 - count + spatial] = axis;
    }
    Ok(axes)
}
