//! A sample against the model's inputs: checked first, then handed over without a copy.

use std::borrow::Cow;

use ort::session::SessionInputValue;
use ort::value::{Tensor as OrtTensor, TensorRef};

use super::RuntimeError;
use crate::data::Sample;
use crate::port::{Dim, Port};
use crate::tensor::{Tensor, Values};

/// Checks names, element types, ranks and fixed dimensions. Symbolic dimensions take any size.
pub(super) fn check(required: &[Port], optional: &[Port], sample: &Sample) -> Result<(), RuntimeError> {
    for port in required {
        if sample.feeds.iter().all(|(name, _)| *name != port.name) {
            let given = names(sample.feeds.iter().map(|(name, _)| name.as_str()));
            return Err(RuntimeError::InputMissing { input: port.name.clone(), given });
        }
    }
    for (index, (name, tensor)) in sample.feeds.iter().enumerate() {
        if sample.feeds.iter().take(index).any(|(other, _)| other == name) {
            return Err(RuntimeError::InputRepeated { input: name.clone() });
        }
        let port = required.iter().chain(optional).find(|port| port.name == *name).ok_or_else(|| {
            let expected = names(required.iter().chain(optional).map(|port| port.name.as_str()));
            RuntimeError::InputUnknown { input: name.clone(), expected }
        })?;
        check_tensor(port, tensor)?;
    }
    Ok(())
}

fn check_tensor(port: &Port, tensor: &Tensor) -> Result<(), RuntimeError> {
    let given = tensor.values.type_name();
    if port.element_type != given {
        return Err(RuntimeError::InputType {
            input: port.name.clone(),
            expected: port.element_type.clone(),
            given: given.to_owned(),
        });
    }
    let shape =
        |given: String| RuntimeError::InputShape { input: port.name.clone(), expected: port.shape_text(), given };
    let fits = |(dim, &size): (&Dim, &usize)| match dim {
        Dim::Fixed(expected) => *expected == size,
        Dim::Symbol(_) => true,
    };
    if port.has_shape && (port.shape.len() != tensor.shape.len() || !port.shape.iter().zip(&tensor.shape).all(fits)) {
        return Err(shape(format!("{:?}", tensor.shape)));
    }
    let count = tensor.shape.iter().try_fold(1usize, |count, &size| count.checked_mul(size));
    if count != Some(tensor.values.len()) {
        return Err(shape(format!("{:?} with {} values", tensor.shape, tensor.values.len())));
    }
    Ok(())
}

fn names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<_> = names.map(|name| format!("'{name}'")).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// The sample as ONNX Runtime takes it: views of our memory, but text, which it copies.
pub(super) fn feeds(sample: &Sample) -> Result<Vec<(Cow<'_, str>, SessionInputValue<'_>)>, RuntimeError> {
    sample
        .feeds
        .iter()
        .map(|(name, tensor)| {
            let value = feed(tensor).map_err(|error| RuntimeError::Run {
                reason: format!("the input '{name}' cannot be handed over: {}", error.message()),
            })?;
            Ok((Cow::Borrowed(name.as_str()), value))
        })
        .collect()
}

fn feed(tensor: &Tensor) -> ort::Result<SessionInputValue<'_>> {
    let shape = tensor.shape.as_slice();
    macro_rules! view {
        ($values:expr) => {
            TensorRef::from_array_view((shape, $values.as_slice()))?.into()
        };
    }
    Ok(match &tensor.values {
        Values::F32(values) => view!(values),
        Values::F64(values) => view!(values),
        Values::F16(values) => view!(values),
        Values::Bf16(values) => view!(values),
        Values::I8(values) => view!(values),
        Values::I16(values) => view!(values),
        Values::I32(values) => view!(values),
        Values::I64(values) => view!(values),
        Values::U8(values) => view!(values),
        Values::U16(values) => view!(values),
        Values::U32(values) => view!(values),
        Values::U64(values) => view!(values),
        Values::Bool(values) => view!(values),
        Values::Text(values) => OrtTensor::from_string_array((shape, values.as_slice()))?.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(name: &str, shape: Vec<Dim>, has_shape: bool) -> Port {
        Port { name: name.to_owned(), element_type: "float32".to_owned(), shape, has_shape, table_rows: None }
    }

    fn sample(name: &str, shape: &[usize]) -> Sample {
        let tensor = Tensor::from_f32(shape.to_vec(), vec![0.0; shape.iter().product()]);
        Sample { feeds: vec![(name.to_owned(), tensor)] }
    }

    #[test]
    fn every_mismatch_names_the_input_and_both_sides() {
        let ports = [port("x", vec![Dim::Symbol("-1".to_owned()), Dim::Fixed(3)], true)];
        assert!(check(&ports, &[], &sample("x", &[7, 3])).is_ok());
        let text = |sample: &Sample| check(&ports, &[], sample).expect_err("refused").to_string();
        assert_eq!(text(&sample("y", &[7, 3])), "no value for the input 'x'; the sample has 'y'");
        assert_eq!(text(&sample("x", &[7, 4])), "the input 'x' takes the shape [-1, 3], the sample has [7, 4]");
        assert_eq!(text(&sample("x", &[3])), "the input 'x' takes the shape [-1, 3], the sample has [3]");
        let mut two = sample("x", &[7, 3]);
        two.feeds.extend(sample("z", &[]).feeds);
        assert_eq!(text(&two), "the model has no input 'z'; it has 'x'");
        let mut twice = sample("x", &[7, 3]);
        twice.feeds.extend(sample("x", &[7, 3]).feeds);
        assert_eq!(text(&twice), "the input 'x' is given twice");
        let doubles = Tensor { shape: vec![1, 3], values: Values::F64(vec![0.0; 3]) };
        let doubles = Sample { feeds: vec![("x".to_owned(), doubles)] };
        assert_eq!(text(&doubles), "the input 'x' takes float32, the sample has float64");
        let short = Tensor { shape: vec![2, 3], values: Values::F32(vec![0.0; 5]) };
        let short = Sample { feeds: vec![("x".to_owned(), short)] };
        assert!(text(&short).ends_with("[2, 3] with 5 values"));
    }

    #[test]
    fn a_scalar_is_a_shape_and_an_undeclared_one_takes_all() {
        assert!(check(&[port("x", vec![], true)], &[], &sample("x", &[])).is_ok());
        assert!(check(&[port("x", vec![], true)], &[], &sample("x", &[1])).is_err());
        assert!(check(&[port("x", vec![], false)], &[], &sample("x", &[1, 2])).is_ok());
    }

    #[test]
    fn optional_inputs_may_be_given_or_left_out() {
        let optional = [port("o", vec![Dim::Fixed(1)], true)];
        assert!(check(&[], &optional, &Sample { feeds: vec![] }).is_ok());
        assert!(check(&[], &optional, &sample("o", &[1])).is_ok());
        assert!(check(&[], &optional, &sample("o", &[2])).is_err());
    }
}
