//! How arrays answer to a model's inputs: by name, by shape, by element type.

use std::path::Path;

use super::npy::NpyArray;
use super::{DataError, convert};
use crate::port::{Dim, Port};
use crate::problem::{Problem, Severity};

/// How one sample is cut from an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// So many entries of the leading axis become the input's batch axis: `[N, d…]` → `[n, d…]`.
    Rows(usize),
    /// Every entry is a full input by itself: `[N, d…]` → `[d…]`. For scalars, and states whose first axis is no batch.
    Entry,
    /// The array is one sample without its batch axis: `[d…]` → `[1, d…]`.
    Single,
}

impl Cut {
    /// Decides from the shapes. `found` is the array's whole shape.
    pub fn decide(array: &str, found: &[usize], port: &Port) -> Result<Self, DataError> {
        let refuse = |why: &str, hint: String| DataError::Shape {
            array: array.to_owned(),
            why: format!("shape {found:?}, but input {:?} takes {}: {why}", port.name, port.shape_text()),
            hint,
        };
        let dims = &port.shape;
        if !port.has_shape {
            return match found {
                [] => Err(refuse("there is no leading axis for the samples", "Add one, e.g. x[None]".to_owned())),
                _ => Ok(Self::Rows(1)),
            };
        }
        let fits = |dims: &[Dim], sizes: &[usize]| first_misfit(dims, sizes).is_none() && dims.len() == sizes.len();
        let rest = found.get(1..).unwrap_or_default();
        if found.len() == dims.len() && !dims.is_empty() {
            let tail = dims.get(1..).unwrap_or_default();
            if let Some((axis, wanted)) = first_misfit(tail, rest) {
                let size = rest.get(axis).copied().unwrap_or_default();
                let axis = axis + 1;
                return Err(refuse(
                    &format!("axis {axis} is {size}, not {wanted}"),
                    if found.len() == 4 && fits(tail, &[rest[2], rest[0], rest[1]]) {
                        "The channels come last; x.transpose(0, 3, 1, 2) puts them first".to_owned()
                    } else if found.len() == 4 && fits(tail, &[rest[1], rest[2], rest[0]]) {
                        "The channels come first; x.transpose(0, 2, 3, 1) puts them last".to_owned()
                    } else {
                        "Resize, pad or cut the samples to the model's size".to_owned()
                    },
                ));
            }
            return Ok(Self::Rows(match dims.first() {
                Some(Dim::Fixed(batch)) => (*batch).max(1),
                _ => 1,
            }));
        }
        if found.len() == dims.len() + 1 && fits(dims, rest) {
            return Ok(Self::Entry);
        }
        let all_fixed = dims.iter().skip(1).all(|dim| matches!(dim, Dim::Fixed(_)));
        let one_batch = !matches!(dims.first(), Some(Dim::Fixed(batch)) if *batch != 1);
        if found.len() + 1 == dims.len() && all_fixed && one_batch && fits(dims.get(1..).unwrap_or_default(), found) {
            return Ok(Self::Single);
        }
        Err(refuse(
            &format!("{} axes instead of {}", found.len(), dims.len()),
            "Save one array an input with the samples along the leading axis; x[:, None] adds an axis after it"
                .to_owned(),
        ))
    }

    /// Samples that `rows` entries of the leading axis make.
    pub fn samples(self, rows: usize) -> usize {
        match self {
            Self::Rows(batch) => rows / batch.max(1),
            Self::Entry => rows,
            Self::Single => 1,
        }
    }
}

/// The first axis whose fixed size differs, and that size. The shorter of the two decides how many axes are looked at.
pub fn first_misfit(dims: &[Dim], sizes: &[usize]) -> Option<(usize, usize)> {
    dims.iter().zip(sizes).enumerate().find_map(|(axis, (dim, size))| match dim {
        Dim::Fixed(fixed) if fixed != size => Some((axis, *fixed)),
        _ => None,
    })
}

/// Which array feeds which input, in the order of the inputs. An `.npz` with one array may call it anything when the
/// model has one input; arrays that feed none are named in `problems` and passed over.
pub fn match_names(
    path: &Path,
    arrays: &[String],
    inputs: &[Port],
    problems: &mut Vec<Problem>,
) -> Result<Vec<String>, DataError> {
    let (found, extra): (Vec<&String>, Vec<&String>) =
        arrays.iter().partition(|name| inputs.iter().any(|port| port.name == **name));
    let feeds: Vec<&String> = extra.iter().copied().filter(|name| !is_label_name(name)).collect();
    let place = path.display().to_string();
    if let ([port], [], [array]) = (inputs, found.as_slice(), feeds.as_slice()) {
        problems.push(Problem::new(
            Severity::Note,
            format!("Array {array:?} feeds input {:?}", port.name),
            place,
            "The names differ, but there is one of each",
            "Nothing, if that is meant; else save the array under the input's name",
        ));
        return Ok(vec![(*array).clone()]);
    }
    if found.len() == inputs.len() {
        for name in extra {
            let (severity, why) = if is_label_name(name) {
                (Severity::Note, "It is no input; by its name it holds labels")
            } else {
                (Severity::Warning, "The model has no input of that name")
            };
            problems.push(Problem::new(
                severity,
                format!("Array {name:?} is not fed to the model"),
                place.clone(),
                why,
                format!("Nothing, if that is meant; if it holds labels, use it with --labels {name}"),
            ));
        }
        return Ok(inputs.iter().map(|port| port.name.clone()).collect());
    }
    let missing: Vec<&str> =
        inputs.iter().map(|port| port.name.as_str()).filter(|name| !arrays.iter().any(|a| a == name)).collect();
    let near = missing.iter().find_map(|name| Some((name, nearest(name, &feeds)?)));
    let mean = near.map(|(name, array)| format!("Did you mean {name:?} instead of {array:?}? ")).unwrap_or_default();
    let example = inputs.first().map_or("x", |port| port.name.as_str());
    let hint = format!("{mean}Save each array under its input's name, e.g. numpy.savez(file, **{{{example:?}: x}})");
    let join = |names: Vec<&str>| names.join(", ");
    Err(DataError::Names {
        path: path.to_owned(),
        arrays: join(arrays.iter().map(String::as_str).collect()),
        inputs: join(inputs.iter().map(|port| port.name.as_str()).collect()),
        hint,
    })
}

/// Checks the element type; a conversion becomes a note.
pub fn check_type(array: &NpyArray, name: &str, port: &Port, problems: &mut Vec<Problem>) -> Result<(), DataError> {
    match convert::check(array.dtype, &port.element_type) {
        Ok(None) => Ok(()),
        Ok(Some(why)) => {
            problems.push(Problem::new(
                Severity::Note,
                format!("Array {name:?} is converted from {} to {}", array.dtype.name(), port.element_type),
                array.place.clone(),
                why,
                "Nothing, if that is how the model was trained; else prepare the values and save them again",
            ));
            Ok(())
        }
        Err(found) => Err(DataError::Type { array: name.to_owned(), found, wanted: port.element_type.clone() }),
    }
}

fn is_label_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["label", "labels", "target", "targets", "y", "classes"].contains(&name.as_str())
        || name.starts_with("y_")
        || name.ends_with("_labels")
}

/// The candidate that is spelt most like `name`, if any comes near.
pub fn nearest<'a>(name: &str, candidates: &[&'a String]) -> Option<&'a str> {
    let near = |candidate: &&'a String| {
        let score = strsim::normalized_damerau_levenshtein(&name.to_lowercase(), &candidate.to_lowercase());
        (score > 0.5).then_some((score, candidate.as_str()))
    };
    candidates.iter().filter_map(near).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::test_port as port;

    #[test]
    fn shapes_decide_how_a_sample_is_cut() {
        let image = port("x", &["batch", "3", "8", "8"]);
        assert_eq!(Cut::decide("x", &[5, 3, 8, 8], &image).expect("rows"), Cut::Rows(1));
        assert_eq!(Cut::decide("x", &[3, 8, 8], &image).expect("single"), Cut::Single);
        assert_eq!(Cut::decide("x", &[5, 1, 3, 8, 8], &image).expect("entry"), Cut::Entry);
        assert_eq!(Cut::decide("x", &[5, 8], &port("x", &["4", "8"])).expect("batch"), Cut::Rows(4));
        assert_eq!(Cut::decide("sr", &[5], &port("sr", &[])).expect("scalar"), Cut::Entry);
        assert_eq!(Cut::decide("s", &[5, 2, 1, 7], &port("s", &["2", "n", "7"])).expect("state"), Cut::Entry);
    }

    #[test]
    fn a_wrong_shape_says_which_axis_and_what_to_do() {
        let image = port("x", &["batch", "3", "8", "8"]);
        let error = Cut::decide("x", &[5, 8, 8, 3], &image).expect_err("order");
        assert!(error.to_string().contains("axis 1 is 8, not 3") && error.hint().contains("transpose"), "{error}");
        let error = Cut::decide("x", &[5, 3, 9, 8], &image).expect_err("size");
        assert!(error.to_string().contains("axis 2 is 9, not 8"), "{error}");
        let error = Cut::decide("x", &[5, 8], &image).expect_err("rank");
        assert!(error.to_string().contains("2 axes instead of 4"), "{error}");
    }

    #[test]
    fn names_match_or_both_sides_are_listed() {
        let inputs = [port("input_ids", &["n", "s"]), port("attention_mask", &["n", "s"])];
        let path = Path::new("x.npz");
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let mut problems = Vec::new();
        let order = match_names(path, &names(&["labels", "attention_mask", "input_ids"]), &inputs, &mut problems);
        assert_eq!(order.expect("match"), ["input_ids", "attention_mask"]);
        assert!(problems[0].what.contains("labels"));
        let error =
            match_names(path, &names(&["input_id", "attention_mask"]), &inputs, &mut problems).expect_err("near");
        assert!(error.hint().contains("Did you mean \"input_ids\" instead of \"input_id\""), "{}", error.hint());
        assert!(error.to_string().contains("input_id, attention_mask"), "{error}");
        let order = match_names(path, &names(&["input_ids", "attention_mask", "z"]), &inputs, &mut problems);
        assert_eq!(order.expect("an array too many"), ["input_ids", "attention_mask"]);
        assert!(problems.last().expect("said").what.contains("\"z\""), "{problems:?}");
        let single = match_names(path, &names(&["arr_0", "y"]), &inputs[..1], &mut problems);
        assert_eq!(single.expect("one of each"), ["arr_0"]);
    }
}
