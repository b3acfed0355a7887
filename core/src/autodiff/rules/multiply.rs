//! Matrix products.

use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView2, ArrayViewMut2};

use super::unbroadcast;
use crate::autodiff::call::{Call, Gradients, Rule, array, first, slice};

pub(super) const RULES: &[(&str, Rule)] = &[("MatMul", matmul), ("Gemm", gemm)];

/// A matrix over a slice.
pub(super) fn matrix(values: &[f32], rows: usize, columns: usize) -> Result<ArrayView2<'_, f32>, String> {
    ArrayView2::from_shape((rows, columns), values).map_err(|error| error.to_string())
}

/// A matrix over a slice, to write to.
pub(super) fn matrix_mut(values: &mut [f32], rows: usize, columns: usize) -> Result<ArrayViewMut2<'_, f32>, String> {
    ArrayViewMut2::from_shape((rows, columns), values).map_err(|error| error.to_string())
}

/// `out += a · b`; an error where the sizes do not meet.
pub(super) fn add_product(
    out: &mut ArrayViewMut2<'_, f32>,
    a: &ArrayView2<'_, f32>,
    b: &ArrayView2<'_, f32>,
) -> Result<(), String> {
    if a.ncols() != b.nrows() || out.dim() != (a.nrows(), b.ncols()) {
        return Err(format!("a product of {:?} and {:?} into {:?}", a.dim(), b.dim(), out.dim()));
    }
    general_mat_mul(1.0, a, b, 1.0, out);
    Ok(())
}

/// y = a · b with leading axes broadcast: ∂a = g · bᵀ, ∂b = aᵀ · g, summed over what was repeated.
fn matmul(call: &Call<'_>, gradients: Gradients) -> Result<Gradients, String> {
    let gradient = first(gradients)?;
    let (a, b) = (call.input(0)?, call.input(1)?);
    // A vector is a matrix of one row on the left, of one column on the right.
    let shape_a: Vec<usize> = if a.shape.len() == 1 { vec![1, a.shape[0]] } else { a.shape.clone() };
    let shape_b: Vec<usize> = if b.shape.len() == 1 { vec![b.shape[0], 1] } else { b.shape.clone() };
    let ([lead_a @ .., rows, depth], [lead_b @ .., _, columns]) = (shape_a.as_slice(), shape_b.as_slice()) else {
        return Err("a scalar in a matrix product".to_owned());
    };
    let (rows, depth, columns) = (*rows, *depth, *columns);
    let (a_values, b_values, g_values) = (a.floats()?, b.floats()?, slice(&gradient)?);
    // One matrix on the right for all: one tall product.
    if lead_b.iter().all(|&size| size == 1) {
        let rows = rows * lead_a.iter().product::<usize>();
        let g = matrix(g_values, rows, columns)?;
        let mut out = vec![None, None];
        if call.wants(0) {
            let mut values = vec![0.0; rows * depth];
            add_product(&mut matrix_mut(&mut values, rows, depth)?, &g, &matrix(b_values, depth, columns)?.t())?;
            out[0] = Some(array(&a.shape, values)?);
        }
        if call.wants(1) {
            let mut values = vec![0.0; depth * columns];
            add_product(&mut matrix_mut(&mut values, depth, columns)?, &matrix(a_values, rows, depth)?.t(), &g)?;
            out[1] = Some(array(&b.shape, values)?);
        }
        return Ok(out);
    }
    let places = batches(lead_a, lead_b)?;
    if places.len() * rows * columns != g_values.len() {
        return Err("the product has another shape than its operands say".to_owned());
    }
    let (mut to_a, mut to_b) = (vec![0.0; a.len()], vec![0.0; b.len()]);
    let (size_a, size_b, size_g) = (rows * depth, depth * columns, rows * columns);
    for (at, &(place_a, place_b)) in places.iter().enumerate() {
        let g = matrix(&g_values[at * size_g..][..size_g], rows, columns)?;
        let (span_a, span_b) = (place_a * size_a..(place_a + 1) * size_a, place_b * size_b..(place_b + 1) * size_b);
        if call.wants(0) {
            let b = matrix(&b_values[span_b.clone()], depth, columns)?;
            add_product(&mut matrix_mut(&mut to_a[span_a.clone()], rows, depth)?, &g, &b.t())?;
        }
        if call.wants(1) {
            let a = matrix(&a_values[span_a], rows, depth)?;
            add_product(&mut matrix_mut(&mut to_b[span_b], depth, columns)?, &a.t(), &g)?;
        }
    }
    Ok(vec![Some(array(&a.shape, to_a)?), Some(array(&b.shape, to_b)?)])
}

/// For every matrix of the result, which matrix of each operand it is made of.
fn batches(a: &[usize], b: &[usize]) -> Result<Vec<(usize, usize)>, String> {
    let rank = a.len().max(b.len());
    let size = |lead: &[usize], axis: usize| (axis + lead.len()).checked_sub(rank).map_or(1, |axis| lead[axis]);
    let mut places = vec![(0, 0)];
    for axis in 0..rank {
        let (of_a, of_b) = (size(a, axis), size(b, axis));
        if of_a != of_b && of_a != 1 && of_b != 1 {
            return Err(format!("{a:?} and {b:?} do not broadcast"));
        }
        let place = |at: usize, of: usize, index: usize| at * of + if of == 1 { 0 } else { index };
        let count = if of_a == 1 { of_b } else { of_a };
        let next = places.iter().flat_map(|&(a, b)| (0..count).map(move |i| (place(a, of_a, i), place(b, of_b, i))));
        places = next.collect();
    }
    Ok(places)
}

/// y = α·op(A)·op(B) + β·C.
fn gemm(call: &Call<'_>, gradients: Gradients) -> Result<Gradients, String> {
    let gradient = first(gradients)?;
    let (alpha, beta) = (call.float("alpha", 1.0), call.float("beta", 1.0));
    let (turn_a, turn_b) = (call.int("transA", 0) != 0, call.int("transB", 0) != 0);
    let (a, b) = (call.input(0)?, call.input(1)?);
    let ([a0, a1], [b0, b1], [rows, columns]) = (a.shape.as_slice(), b.shape.as_slice(), gradient.shape()) else {
        return Err("Gemm takes matrices".to_owned());
    };
    let g = matrix(slice(&gradient)?, *rows, *columns)?;
    let (a_view, b_view) = (matrix(a.floats()?, *a0, *a1)?, matrix(b.floats()?, *b0, *b1)?);
    let mut out = vec![None, None, None];
    if call.wants(0) {
        let mut values = vec![0.0; a0 * a1];
        let mut to = matrix_mut(&mut values, *a0, *a1)?;
        let b_turned = if turn_b { b_view } else { b_view.reversed_axes() };
        if turn_a {
            add_product(&mut to, &b_turned.t(), &g.t())?;
        } else {
            add_product(&mut to, &g, &b_turned)?;
        }
        scale(&mut values, alpha);
        out[0] = Some(array(&a.shape, values)?);
    }
    if call.wants(1) {
        let mut values = vec![0.0; b0 * b1];
        let mut to = matrix_mut(&mut values, *b0, *b1)?;
        let a_turned = if turn_a { a_view } else { a_view.reversed_axes() };
        if turn_b {
            add_product(&mut to, &g.t(), &a_turned.t())?;
        } else {
            add_product(&mut to, &a_turned, &g)?;
        }
        scale(&mut values, alpha);
        out[1] = Some(array(&b.shape, values)?);
    }
    if call.wants(2) {
        let shape = call.input(2)?.shape.clone();
        out[2] = Some(unbroadcast(gradient.mapv(|g| g * beta), &shape)?);
    }
    Ok(out)
}

fn scale(values: &mut [f32], factor: f32) {
    for value in values {
        *value *= factor;
    }
}
