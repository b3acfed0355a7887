//! Operators that move, repeat or drop values: which input value each output value is, found by moving their numbers.

use ndarray::{ArrayD, ArrayViewD, Axis, Dimension, SliceInfoElem};

use crate::autodiff::call::{Call, Gradients, Rule, array, first, slice};

pub(super) const RULES: &[(&str, Rule)] = &[
    ("Reshape", reshape),
    ("Flatten", reshape),
    ("Squeeze", reshape),
    ("Unsqueeze", reshape),
    ("Transpose", transpose),
    ("Slice", |call, g| moved(call, g, cut)),
    ("Expand", |call, g| moved(call, g, expand)),
    ("Tile", |call, g| moved(call, g, tile)),
    ("Gather", |call, g| moved(call, g, gather)),
    ("GatherElements", |call, g| moved(call, g, gather_elements)),
    ("GatherND", |call, g| moved(call, g, gather_nd)),
    ("Pad", |call, g| moved(call, g, pad)),
    ("DepthToSpace", |call, g| moved(call, g, depth_to_space)),
    ("SpaceToDepth", |call, g| moved(call, g, space_to_depth)),
    ("Concat", concat),
    ("Split", split),
];

/// Stands for an output value that is no input value.
const NOWHERE: u32 = u32::MAX;

fn reshape(call: &Call<'_>, gradients: Gradients) -> Result<Gradients, String> {
    let shape = call.input(0)?.shape.clone();
    let gradient = first(gradients)?.into_shape_with_order(shape).map_err(|error| error.to_string())?;
    Ok(vec![Some(gradient)])
}

fn transpose(call: &Call<'_>, gradients: Gradients) -> Result<Gradients, String> {
    let gradient = first(gradients)?;
    let rank = gradient.ndim();
    let order: Vec<usize> = match call.ints("perm") {
        [] => (0..rank).rev().collect(),
        perm => perm.iter().map(|&axis| Call::axis(axis, rank)).collect::<Result<_, _>>()?,
    };
    let mut back = vec![usize::MAX; rank];
    for (to, &from) in order.iter().enumerate() {
        *back.get_mut(from).ok_or("perm names an axis that is not there")? = to;
    }
    if back.contains(&usize::MAX) || order.len() != rank {
        return Err("perm is no permutation".to_owned());
    }
    Ok(vec![Some(gradient.permuted_axes(back).as_standard_layout().into_owned())])
}

type Move = fn(&Call<'_>, &ArrayD<u32>) -> Result<ArrayD<u32>, String>;

/// Adds each output value's gradient to the input value that `moves` says it is.
fn moved(call: &Call<'_>, gradients: Gradients, moves: Move) -> Result<Gradients, String> {
    if (1..call.inputs.len()).any(|at| call.wants(at)) {
        return Err("only its first input has a backward here".to_owned());
    }
    let gradient = first(gradients)?;
    let x = call.input(0)?;
    let count = u32::try_from(x.len()).ok().filter(|&count| count < NOWHERE).ok_or("too many values")?;
    let numbers = ArrayD::from_shape_vec(x.shape.clone(), (0..count).collect()).map_err(|error| error.to_string())?;
    let places = moves(call, &numbers)?;
    if places.shape() != gradient.shape() {
        return Err(format!("it gives {:?} where {:?} was expected", gradient.shape(), places.shape()));
    }
    let mut out = vec![0.0; x.len()];
    for (&place, &g) in places.iter().zip(slice(&gradient)?) {
        if let Some(out) = out.get_mut(place as usize) {
            *out += g;
        }
    }
    Ok(vec![Some(array(&x.shape, out)?)])
}

fn cut(call: &Call<'_>, numbers: &ArrayD<u32>) -> Result<ArrayD<u32>, String> {
    let (Some(starts), Some(ends)) = (call.list(1, "starts")?, call.list(2, "ends")?) else {
        return Err("it has no starts or ends".to_owned());
    };
    let axes = call.list(3, "axes")?.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = match call.optional(4) {
        Some(steps) => steps.integers()?.to_vec(),
        None => vec![1; starts.len()],
    };
    let mut numbers = numbers.clone();
    for (at, &axis) in axes.iter().enumerate() {
        let axis = Call::axis(axis, numbers.ndim())?;
        let size = numbers.len_of(Axis(axis)) as i64;
        let get = |list: &[i64]| list.get(at).copied().ok_or("its lists differ in length");
        let (start, end, step) = (get(&starts)?, get(&ends)?, get(&steps)?);
        let from_end = |value: i64| if value < 0 { value.saturating_add(size) } else { value };
        let places: Vec<usize> = if step >= 1 {
            let (start, end) = (from_end(start).clamp(0, size), from_end(end).clamp(0, size));
            (start..end).step_by(step as usize).map(|i| i as usize).collect()
        } else if step <= -1 {
            let (start, end) = (from_end(start).clamp(0, size - 1), from_end(end).clamp(-1, size - 1));
            ((end + 1)..=start).rev().step_by(step.unsigned_abs() as usize).map(|i| i as usize).collect()
        } else {
            return Err("a step of 0".to_owned());
        };
        numbers = numbers.select(Axis(axis), &places);
    }
    Ok(numbers)
}

fn expand(call: &Call<'_>, numbers: &ArrayD<u32>) -> Result<ArrayD<u32>, String> {
    let shape = call.output()?.shape.clone();
    Ok(numbers.broadcast(shape).ok_or("it does not broadcast")?.to_owned())
}

fn tile(call: &Call<'_>, numbers: &ArrayD<u32>) -> Result<ArrayD<u32>, String> {
    let mut numbers = numbers.clone();
    for (axis, &repeats) in call.input(1)?.integers()?.iter().enumerate().take(numbers.ndim()) {
        let size = numbers.len_of(Axis(axis));
        let places: Vec<usize> = (0..size * usize::try_from(repeats).unwrap_or(0)).map(|i| i % size).collect();
        numbers = numbers.select(Axis(axis), &places);
    }
    Ok(numbers)
}

fn places(indices: &[i64], size: usize) -> Result<Vec<usize>, String> {
    indices.iter().map(|&index| Call::axis(index, size)).collect()
}

fn gather(call: &Call<'_>, numbers: &ArrayD<u32>) -> Result<ArrayD<u32>, String> {
    let indices = call.input(1)?;
    let axis = Call::axis(call.int("axis", 0), numbers.ndim())?;
    let chosen = numbers.select(Axis(axis), &places(indices.integers()?, numbers.len_of(Axis(axis)))?);
    let mut shape: Vec<usize> = numbers.shape()[..axis].to_vec();
    shape.extend(&indices.shape);
    shape.extend(&numbers.shape()[axis + 1..]);
    chosen.as_standard_layout().into_owned().into_shape_with_order(shape).map_err(|error| error.to_string())
}

fn gather_elements(call: &Call<'_>, numbers: &ArrayD<u32>) -> Result<ArrayD<u32>, String> {
    let indices = call.input(1)?;
    let axis = Call::axis(call.int("axis", 0), numbers.ndim())?;
    let size = numbers.len_of(Axis(axis));
    let view = ArrayViewD::from_shape(indices.shape.clone(), indices.integers()?).map_err(|error| error.to_string())?;
    let mut out = ArrayD::from_elem(indices.shape.clone(), NOWHERE);
    for ((at, &index), out) in view.indexed_iter().zip(out.iter_mut()) {
        let mut from: Vec<usize> = at.slice().to_vec();
        *from.get_mut(axis).ok_or("the indices have fewer axes")? = Call::axis(index, size)?;
        *out = *numbers.get(from.as_slice()).ok_or("an index lies outside")?;
    }
    Ok(out)
}

fn gather_nd(call: &Call<'_>, numbers: &ArrayD<u32>) -> Result<ArrayD<u32>, String> {
    if call.int("batch_dims", 0) != 0 {
        return Err("batch_dims has no backward here".to_owned());
    }
    let indices = call.input(1)?;
    let depth = indices.shape.last().copied().filter(|&depth| (1..=numbers.ndim()).contains(&depth));
    let depth = depth.ok_or("its indices do not fit")?;
    let mut out = Vec::new();
    for index in indices.integers()?.chunks(depth) {
        let mut part = numbers.view();
        for &at in index {
            let at = Call::axis(at, part.len_of(Axis(0)))?;
            part = part.index_axis_move(Axis(0), at);
        }
        out.extend(part.iter().copied());
    }
    ArrayD::from_shape_vec(call.output()?.shape.clone(), out).map_err(|error| error.to_string())
}

/// Constant padding drops to nowhere, edge and reflection repeat.
fn pad(call: &Call<'_>, numbers: &ArrayD<u32>) -> Result<ArrayD<u32>, String> {
    let mode = call.text("mode");
    let pads = call.list(1, "pads")?.ok_or("it has no pads")?;
    let rank = numbers.ndim();
    let axes = match call.optional(3) {
        Some(axes) => axes.integers()?.iter().map(|&axis| Call::axis(axis, rank)).collect::<Result<Vec<_>, _>>()?,
        None => (0..rank).collect(),
    };
    let mut numbers = numbers.clone();
    for (at, &axis) in axes.iter().enumerate() {
        let (Some(&begin), Some(&end)) = (pads.get(at), pads.get(at + axes.len())) else {
            return Err("its pads do not fit".to_owned());
        };
        let size = numbers.len_of(Axis(axis)) as i64;
        let cells: Vec<i64> = (-begin..size + end).collect();
        let inside = |cell: i64| match mode.as_str() {
            "edge" => Some(cell.clamp(0, size - 1)),
            "reflect" => {
                let period = (2 * (size - 1)).max(1);
                let folded = cell.rem_euclid(period);
                Some(if folded < size { folded } else { period - folded })
            }
            "wrap" => Some(cell.rem_euclid(size.max(1))),
            _ => (0..size).contains(&cell).then_some(cell),
        };
        let chosen: Vec<usize> = cells.iter().map(|&cell| inside(cell).unwrap_or(0) as usize).collect();
        if size == 0 {
            return Err("nothing to pad".to_owned());
        }
        numbers = numbers.select(Axis(axis), &chosen);
        for (place, &cell) in cells.iter().enumerate() {
            if inside(cell).is_none() {
                numbers.index_axis_mut(Axis(axis), place).fill(NOWHERE);
            }
        }
    }
    Ok(numbers)
}

fn depth_to_space(call: &Call<'_>, numbers: &ArrayD<u32>) -> Result<ArrayD<u32>, String> {
    let block = usize::try_from(call.int("blocksize", 1)).unwrap_or(1).max(1);
    let [n, c, h, w] = numbers.shape() else { return Err("it takes four axes".to_owned()) };
    let (n, c, h, w) = (*n, c / (block * block), *h, *w);
    let (split, order) = if call.text("mode") == "CRD" {
        ([n, c, block, block, h, w], [0, 1, 4, 2, 5, 3])
    } else {
        ([n, block, block, c, h, w], [0, 3, 4, 1, 5, 2])
    };
    turned(numbers, &split, &order, &[n, c, h * block, w * block])
}

fn space_to_depth(call: &Call<'_>, numbers: &ArrayD<u32>) -> Result<ArrayD<u32>, String> {
    let block = usize::try_from(call.int("blocksize", 1)).unwrap_or(1).max(1);
    let [n, c, h, w] = numbers.shape() else { return Err("it takes four axes".to_owned()) };
    let (n, c, h, w) = (*n, *c, h / block, w / block);
    turned(numbers, &[n, c, h, block, w, block], &[0, 3, 5, 1, 2, 4], &[n, c * block * block, h, w])
}

fn turned(numbers: &ArrayD<u32>, split: &[usize], order: &[usize], shape: &[usize]) -> Result<ArrayD<u32>, String> {
    let split = numbers.clone().into_shape_with_order(split.to_vec()).map_err(|error| error.to_string())?;
    let turned = split.permuted_axes(order.to_vec()).as_standard_layout().into_owned();
    turned.into_shape_with_order(shape.to_vec()).map_err(|error| error.to_string())
}

/// The part of `gradient` from `start` on, `size` long, along `axis`.
fn part(gradient: &ArrayD<f32>, axis: usize, start: usize, size: usize) -> Result<ArrayD<f32>, String> {
    if axis >= gradient.ndim() || start + size > gradient.len_of(Axis(axis)) {
        return Err("its parts are larger than the whole".to_owned());
    }
    let mut info: Vec<SliceInfoElem> = vec![(..).into(); gradient.ndim()];
    info[axis] = SliceInfoElem::Slice { start: start as isize, end: Some((start + size) as isize), step: 1 };
    Ok(gradient.slice(info.as_slice()).to_owned())
}

fn concat(call: &Call<'_>, gradients: Gradients) -> Result<Gradients, String> {
    let gradient = first(gradients)?;
    let axis = Call::axis(call.int("axis", 1), gradient.ndim())?;
    let (mut start, mut out) = (0, Vec::new());
    for at in 0..call.inputs.len() {
        let size = call.input(at)?.shape.get(axis).copied().ok_or("an operand has fewer axes")?;
        out.push(if call.wants(at) { Some(part(&gradient, axis, start, size)?) } else { None });
        start += size;
    }
    Ok(out)
}

fn split(call: &Call<'_>, gradients: Gradients) -> Result<Gradients, String> {
    let x = call.input(0)?;
    let axis = Call::axis(call.int("axis", 0), x.shape.len())?;
    let mut out: ArrayD<f32> = ArrayD::zeros(x.shape.clone());
    let mut start = 0;
    for (at, gradient) in gradients.into_iter().enumerate() {
        let shape = call.outputs.get(at).copied().flatten().map(|value| value.shape.clone());
        let size = shape.and_then(|shape| shape.get(axis).copied()).ok_or("an output is not known")?;
        if let Some(gradient) = gradient {
            let mut info: Vec<SliceInfoElem> = vec![(..).into(); x.shape.len()];
            info[axis] = SliceInfoElem::Slice { start: start as isize, end: Some((start + size) as isize), step: 1 };
            if start + size > x.shape[axis] {
                return Err("its parts are larger than the whole".to_owned());
            }
            let mut target = out.slice_mut(info.as_slice());
            if target.shape() != gradient.shape() {
                return Err("a part has another shape".to_owned());
            }
            target.assign(&gradient);
        }
        start += size;
    }
    Ok(vec![Some(out)])
}
