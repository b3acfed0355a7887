//! An Einsum with a constant weight, written as the matrix product that it is: the runtime has no integer Einsum.

use std::collections::HashSet;

use crate::model::graph::attribute;
use crate::onnx::build;
use crate::onnx::proto::{GraphProto, NodeProto, TensorProto};
use crate::operators::is_default_domain;

/// Rewrites every Einsum of `graph` that multiplies the last axes of an activation with a constant (as `find` knows them)
/// and puts the constant's other axes in their place, such as `bsd,dhk->bshk`: the weight becomes a matrix, with
/// Transpose and Reshape around the MatMul where they are needed. `names` holds all names of tensors.
pub fn rewrite<'a>(
    graph: &mut GraphProto,
    names: &mut HashSet<String>,
    find: &dyn Fn(&str) -> Option<&'a TensorProto>,
) {
    let nodes = std::mem::take(&mut graph.node);
    for node in nodes {
        let made = product(&node, find).map(|product| product.nodes(&node, names, &mut graph.initializer));
        match made {
            Some(made) => graph.node.extend(made),
            None => graph.node.push(node),
        }
    }
}

/// What an Einsum comes to.
struct Product {
    /// Which of the two inputs is the activation.
    activation: usize,
    /// Axes of the activation before those that are summed over; `None` where an ellipsis leaves their number open.
    leading: Option<usize>,
    /// Order of the weight's axes that puts those summed over first, then the others, each as the equation has them.
    order: Vec<i64>,
    /// Sizes of the axes summed over.
    inner: Vec<i64>,
    /// Sizes of the axes that take their place.
    outer: Vec<i64>,
}

fn product<'a>(node: &NodeProto, find: &dyn Fn(&str) -> Option<&'a TensorProto>) -> Option<Product> {
    if node.op_type() != "Einsum" || !is_default_domain(node.domain()) {
        return None;
    }
    let [first, second] = node.input.as_slice() else { return None };
    let equation = std::str::from_utf8(attribute(node, "equation")?.s.as_deref()?).ok()?;
    let equation: String = equation.split_whitespace().collect();
    let (inputs, output) = equation.split_once("->")?;
    let (left, right) = inputs.split_once(',')?;
    let (activation, term, weight_term, weight) = match (find(first), find(second)) {
        (None, Some(weight)) => (0, left, right, weight),
        (Some(weight), None) => (1, right, left, weight),
        _ => return None,
    };
    let bare = |term: &'_ str| -> (bool, Vec<char>) {
        let letters = term.strip_prefix("...");
        (letters.is_some(), letters.unwrap_or(term).chars().collect())
    };
    let ((open, term), (weight_open, weight_term), (output_open, output)) =
        (bare(term), bare(weight_term), bare(output));
    let distinct = |letters: &[char]| {
        letters.iter().collect::<HashSet<_>>().len() == letters.len() && letters.iter().all(char::is_ascii_alphabetic)
    };
    let fits = open == output_open && !weight_open && weight_term.len() == weight.dims.len();
    if !fits || ![&term, &weight_term, &output].into_iter().all(|letters| distinct(letters)) {
        return None;
    }
    // The activation's own axes come first and stay where they are.
    let leading = term.iter().zip(&output).take_while(|(a, b)| a == b).count();
    let (inner, outer) = (term.get(leading..)?, output.get(leading..)?);
    let is_one = inner.len() == 1 && outer.len() == 1;
    if inner.is_empty() || outer.is_empty() || (open && !is_one) || inner.len() + outer.len() != weight_term.len() {
        return None;
    }
    let place = |letter: &char| weight_term.iter().position(|known| known == letter);
    let order: Vec<usize> = inner.iter().chain(outer).map(place).collect::<Option<_>>()?;
    let sizes: Vec<i64> = order.iter().filter_map(|&axis| weight.dims.get(axis).copied()).collect();
    let (inner, outer) = sizes.split_at_checked(inner.len())?;
    Some(Product {
        activation,
        leading: (!open).then_some(leading),
        order: order.iter().map(|&axis| axis as i64).collect(),
        inner: inner.to_vec(),
        outer: outer.to_vec(),
    })
}

impl Product {
    /// The nodes that take the place of `node`; shapes go to `constants`.
    fn nodes(&self, node: &NodeProto, names: &mut HashSet<String>, constants: &mut Vec<TensorProto>) -> Vec<NodeProto> {
        let text = |at: usize| node.input.get(at).cloned().unwrap_or_default();
        let (mut activation, mut weight) = (text(self.activation), text(1 - self.activation));
        let output = node.output.first().cloned().unwrap_or_default();
        let mut fresh = |end: &str| {
            let mut name = format!("{output}_{end}");
            while !names.insert(name.clone()) {
                name.push('_');
            }
            name
        };
        let mut nodes = Vec::new();
        let mut reshape = |from: String, to: String, shape: Vec<i64>, shape_name: String| {
            constants.push(build::tensor_i64(&shape_name, &[shape.len() as i64], &shape));
            build::node("Reshape", "", "", &[from, shape_name], &[to], Vec::new())
        };
        // A zero keeps the size of that axis.
        let kept = vec![0; self.leading.unwrap_or(0)];
        if !self.order.is_sorted() {
            let moved = fresh("weight_moved");
            let perm = vec![build::attr_ints("perm", &self.order)];
            nodes.push(build::node("Transpose", "", "", &[&weight], &[&moved], perm));
            weight = moved;
        }
        if self.order.len() > 2 {
            let matrix = fresh("weight_matrix");
            let shape = vec![self.inner.iter().product(), self.outer.iter().product()];
            nodes.push(reshape(weight, matrix.clone(), shape, fresh("weight_shape")));
            weight = matrix;
        }
        if self.inner.len() > 1 {
            let rows = fresh("rows");
            let shape = [&kept[..], &[self.inner.iter().product()]].concat();
            nodes.push(reshape(activation, rows.clone(), shape, fresh("rows_shape")));
            activation = rows;
        }
        if self.outer.len() > 1 {
            let flat = fresh("flat");
            nodes.push(build::node("MatMul", "", node.name(), &[activation, weight], &[&flat], Vec::new()));
            let shape = [&kept[..], &self.outer[..]].concat();
            nodes.push(reshape(flat, output.clone(), shape, fresh("shape")));
        } else {
            nodes.push(build::node("MatMul", "", node.name(), &[activation, weight], &[&output], Vec::new()));
        }
        nodes
    }
}
