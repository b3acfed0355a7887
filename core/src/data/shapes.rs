//! Concrete shapes for symbolic dimensions: what the person said with `--shape`, else what such inputs usually are.

use std::collections::BTreeMap;

use super::DataError;
use crate::limits;
use crate::port::{Dim, Port};

/// Side of an image and length of a sequence where nothing else is known.
const IMAGE_SIDE: usize = 224;
const SEQUENCE: usize = 16;

/// A full shape for every port. `given` maps an input's name to all its dimensions, or a symbol to one size. The first
/// axis, and any symbol that looks like a batch, is 1; equal symbols get equal sizes.
pub fn concrete_shapes(ports: &[Port], given: &BTreeMap<String, Vec<usize>>) -> Result<Vec<Vec<usize>>, DataError> {
    let mut symbols: BTreeMap<&str, usize> = BTreeMap::new();
    let mut shapes = Vec::with_capacity(ports.len());
    for port in ports {
        if let Some(dims) = given.get(&port.name) {
            check_given(port, dims)?;
            for (dim, &size) in port.shape.iter().zip(dims) {
                if let Some(symbol) = named(dim) {
                    symbols.entry(symbol).or_insert(size);
                }
            }
        } else if !port.has_shape {
            return Err(DataError::OpenShape { input: port.name.clone(), shape: port.shape_text() });
        }
    }
    for port in ports {
        if let Some(dims) = given.get(&port.name) {
            shapes.push(dims.clone());
            continue;
        }
        let mut shape = Vec::with_capacity(port.shape.len());
        for (axis, dim) in port.shape.iter().enumerate() {
            shape.push(match dim {
                Dim::Fixed(size) => *size,
                Dim::Symbol(text) => {
                    let said = named(dim).and_then(|symbol| match given.get(symbol).map(Vec::as_slice) {
                        Some(&[size]) => Some(size),
                        _ => symbols.get(symbol).copied(),
                    });
                    let size = said.unwrap_or_else(|| usual_size(port, axis, text));
                    if let Some(symbol) = named(dim) {
                        symbols.insert(symbol, size);
                    }
                    size
                }
            });
        }
        shapes.push(shape);
    }
    for (port, shape) in ports.iter().zip(&shapes) {
        let elements = shape.iter().try_fold(1_usize, |product, &size| product.checked_mul(size));
        if elements.is_none_or(|elements| elements > limits::MAX_SAMPLE_ELEMENTS) {
            return Err(DataError::Option {
                key: format!("--shape {}", port.name),
                value: format!("{shape:?}"),
                allowed: format!("at most {} elements", limits::MAX_SAMPLE_ELEMENTS),
            });
        }
    }
    Ok(shapes)
}

/// The symbol, unless it is one of the texts that exporters write for "unknown".
fn named(dim: &Dim) -> Option<&str> {
    match dim {
        Dim::Symbol(text) if !text.is_empty() && text != "?" && text.parse::<i64>().is_err() => Some(text),
        _ => None,
    }
}

fn check_given(port: &Port, dims: &[usize]) -> Result<(), DataError> {
    let fits = !port.has_shape
        || (port.shape.len() == dims.len()
            && port.shape.iter().zip(dims).all(|(dim, &size)| match dim {
                Dim::Fixed(fixed) => *fixed == size,
                Dim::Symbol(_) => size > 0,
            }));
    if fits {
        return Ok(());
    }
    Err(DataError::Option {
        key: format!("--shape {}", port.name),
        value: dims.iter().map(usize::to_string).collect::<Vec<_>>().join(","),
        allowed: format!("sizes that fit {}", port.shape_text()),
    })
}

fn usual_size(port: &Port, axis: usize, symbol: &str) -> usize {
    let lower = symbol.to_ascii_lowercase();
    let fixed = |axis: usize| match port.shape.get(axis) {
        Some(Dim::Fixed(size)) => Some(*size),
        _ => None,
    };
    let is_channel = |size: Option<usize>| matches!(size, Some(1 | 3));
    // A recurrent state, [layers, batch, width], carries its batch in the middle.
    let is_state = port.shape.len() == 3 && axis == 1 && fixed(0).is_some() && fixed(2).is_some();
    if axis == 0 || lower.contains("batch") || is_state {
        1
    } else if port.shape.len() == 4 && (is_channel(fixed(1)) || is_channel(fixed(3))) {
        IMAGE_SIDE
    } else if port.shape.len() == 4 && axis == 1 {
        3
    } else if port.shape.len() == 4 {
        IMAGE_SIDE
    } else {
        SEQUENCE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::test_port as port;

    #[test]
    fn usual_sizes_and_what_the_person_said() {
        let ports = [
            port("image", &["n", "3", "h", "w"]),
            port("ids", &["batch", "seq"]),
            port("state", &["2", "?", "128"]),
            port("mask", &["batch", "seq"]),
        ];
        let none = BTreeMap::new();
        let shapes = concrete_shapes(&ports, &none).expect("defaults");
        assert_eq!(shapes, [vec![1, 3, 224, 224], vec![1, 16], vec![2, 1, 128], vec![1, 16]]);
        let given = BTreeMap::from([("image".to_owned(), vec![1, 3, 32, 48]), ("seq".to_owned(), vec![7])]);
        let shapes = concrete_shapes(&ports, &given).expect("given");
        assert_eq!(shapes, [vec![1, 3, 32, 48], vec![1, 7], vec![2, 1, 128], vec![1, 7]]);
        let wrong = BTreeMap::from([("image".to_owned(), vec![1, 4, 32, 48])]);
        assert!(concrete_shapes(&ports, &wrong).expect_err("channels").to_string().contains("--shape image"));
    }

    #[test]
    fn an_undeclared_rank_is_asked_for() {
        let open = Port { has_shape: false, shape: Vec::new(), ..port("x", &[]) };
        let error = concrete_shapes(std::slice::from_ref(&open), &BTreeMap::new()).expect_err("open");
        assert!(error.hint().contains("--shape x="));
    }
}
