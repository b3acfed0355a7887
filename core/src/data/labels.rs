//! True classes of the evaluation samples: an `.npy`, a key of an `.npz`, or a column of text.

use std::path::Path;

use super::arrays::open_npy;
use super::npz::Npz;
use super::{DataError, fit};
use crate::limits;
use crate::tensor::Values;

/// Reads `expected` labels from an `.npy`, from `FILE.npz:KEY` (or an `.npz` with one array), or from text with one row
/// a sample, whose last column counts (a header is skipped). Whole floats and booleans count as numbers.
pub fn labels(spec: &str, expected: usize) -> Result<Vec<i64>, DataError> {
    let (path, key) = split_key(spec);
    let is = |extension: &str| path.extension().is_some_and(|e| e.eq_ignore_ascii_case(extension));
    let labels = if is("npz") {
        from_npz(spec, path, key)?
    } else if is("npy") {
        let array = open_npy(path)?;
        from_array(spec, &array.shape, array.all()?)?
    } else {
        from_text(spec, path)?
    };
    if labels.len() == expected {
        return Ok(labels);
    }
    Err(refuse(
        spec,
        format!("there are {} labels for {expected} samples", labels.len()),
        "Give one label a sample, in the order of the samples; labels belong to the evaluation data",
    ))
}

/// `FILE.npz:KEY` as file and key; a colon elsewhere (a drive letter) is part of the path.
fn split_key(spec: &str) -> (&Path, Option<&str>) {
    if let Some((path, key)) = spec.rsplit_once(':')
        && path.to_ascii_lowercase().ends_with(".npz")
    {
        return (Path::new(path), Some(key));
    }
    (Path::new(spec), None)
}

fn refuse(place: &str, why: String, hint: &str) -> DataError {
    DataError::Labels { place: place.to_owned(), why, hint: hint.to_owned() }
}

fn from_npz(spec: &str, path: &Path, key: Option<&str>) -> Result<Vec<i64>, DataError> {
    let mut npz = Npz::open(path)?;
    let names = npz.names();
    let key = match (key, names.as_slice()) {
        (Some(key), _) if names.iter().any(|name| name == key) => key,
        (None, [only]) => only,
        _ => {
            let near = key.and_then(|key| fit::nearest(key, &names.iter().collect::<Vec<_>>()));
            let mean = near.map(|name| format!("Did you mean {name:?}? ")).unwrap_or_default();
            return Err(refuse(
                spec,
                format!("which array holds the labels? There are {}", names.join(", ")),
                &format!("{mean}Write FILE.npz:KEY"),
            ));
        }
    };
    let array = npz.array(key)?;
    from_array(spec, &array.shape, array.all()?)
}

fn from_array(spec: &str, shape: &[usize], values: Values) -> Result<Vec<i64>, DataError> {
    if shape.iter().skip(1).any(|&size| size != 1) || shape.is_empty() {
        return Err(refuse(
            spec,
            format!("labels of shape {shape:?} are not one number a sample"),
            "Save class numbers, one a sample; x.argmax(1) makes them from one-hot rows",
        ));
    }
    let wrong = |(index, value): (usize, String)| {
        refuse(
            spec,
            format!("label {index} is {value:?}, no class number"),
            "Number the classes from 0 in the order of the model's output",
        )
    };
    macro_rules! whole {
        ($values:expr, $convert:expr) => {
            $values.iter().enumerate().map(|(i, x)| $convert(x).ok_or_else(|| wrong((i, x.to_string())))).collect()
        };
    }
    let float = |x: f64| (x.fract() == 0.0 && x.abs() < 9e15).then_some(x as i64);
    match values {
        Values::I8(v) => whole!(v, |x: &i8| Some(i64::from(*x))),
        Values::I16(v) => whole!(v, |x: &i16| Some(i64::from(*x))),
        Values::I32(v) => whole!(v, |x: &i32| Some(i64::from(*x))),
        Values::I64(v) => Ok(v),
        Values::U8(v) => whole!(v, |x: &u8| Some(i64::from(*x))),
        Values::U16(v) => whole!(v, |x: &u16| Some(i64::from(*x))),
        Values::U32(v) => whole!(v, |x: &u32| Some(i64::from(*x))),
        Values::U64(v) => whole!(v, |x: &u64| i64::try_from(*x).ok()),
        Values::Bool(v) => Ok(v.into_iter().map(i64::from).collect()),
        Values::F16(v) => whole!(v, |x: &half::f16| float(x.to_f64())),
        Values::Bf16(v) => whole!(v, |x: &half::bf16| float(x.to_f64())),
        Values::F32(v) => whole!(v, |x: &f32| float(f64::from(*x))),
        Values::F64(v) => whole!(v, |x: &f64| float(*x)),
        Values::Text(v) => whole!(v, |x: &String| x.trim().parse().ok()),
    }
}

fn from_text(spec: &str, path: &Path) -> Result<Vec<i64>, DataError> {
    let io = |source| DataError::Io { path: path.to_owned(), source };
    if std::fs::metadata(path).map_err(io)?.len() > limits::MAX_TEXT_BYTES {
        return Err(refuse(
            spec,
            format!("the file exceeds {} bytes", limits::MAX_TEXT_BYTES),
            "Give labels, one number a line",
        ));
    }
    let bytes = std::fs::read(path).map_err(io)?;
    let text = String::from_utf8_lossy(&bytes);
    let mut labels = Vec::new();
    let lines = text.trim_start_matches('\u{feff}').lines().enumerate();
    for (row, (number, line)) in lines.filter(|(_, line)| !line.trim().is_empty()).enumerate() {
        let last = line.rsplit([',', ';', '\t']).next().unwrap_or_default();
        let last = last.trim().trim_matches(['"', '\'']).trim();
        let value = last.parse::<f64>().ok().filter(|x| x.fract() == 0.0 && x.abs() < 9e15);
        match value {
            Some(value) => labels.push(value as i64),
            None if row == 0 => {}
            None => {
                return Err(refuse(
                    spec,
                    format!("line {} ends with {last:?}, no class number", number + 1),
                    "Put the class number, counted from 0, into the last column",
                ));
            }
        }
    }
    Ok(labels)
}

#[cfg(test)]
mod tests {
    use ndarray::array;
    use ndarray_npy::write_npy;

    use super::*;

    #[test]
    fn arrays_and_text_give_class_numbers() {
        let folder = tempfile::tempdir().expect("folder");
        let path = |name: &str| folder.path().join(name).display().to_string();
        write_npy(path("i.npy"), &array![2_i32, 0, 1]).expect("write");
        write_npy(path("f.npy"), &array![[2.0_f32], [0.0], [1.0]]).expect("write");
        write_npy(path("b.npy"), &array![true, false]).expect("write");
        std::fs::write(path("l.csv"), "file,label\na.png,2\n\"b,c.png\",\"0\"\n\nd.png,1\n").expect("write");
        for file in ["i.npy", "f.npy", "l.csv"] {
            assert_eq!(labels(&path(file), 3).expect(file), [2, 0, 1]);
        }
        assert_eq!(labels(&path("b.npy"), 2).expect("bool"), [1, 0]);
    }

    #[test]
    fn a_key_of_an_archive() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("d.npz");
        let mut zip = zip::ZipWriter::new(std::fs::File::create(&path).expect("create"));
        for (name, values) in [("x", array![9_i64, 9]), ("labels", array![1, 0])] {
            zip.start_file(format!("{name}.npy"), zip::write::SimpleFileOptions::default()).expect("member");
            ndarray_npy::WriteNpyExt::write_npy(&values, &mut zip).expect("write");
        }
        zip.finish().expect("finish");
        let path = path.display();
        assert_eq!(labels(&format!("{path}:labels"), 2).expect("key"), [1, 0]);
        let error = labels(&format!("{path}:label"), 2).expect_err("near");
        assert!(error.hint().contains("\"labels\""), "{}", error.hint());
        assert!(labels(&path.to_string(), 2).is_err());
    }

    #[test]
    fn wrong_counts_shapes_and_values_have_hints() {
        let folder = tempfile::tempdir().expect("folder");
        let path = |name: &str| folder.path().join(name).display().to_string();
        write_npy(path("i.npy"), &array![2_i32, 0, 1]).expect("write");
        write_npy(path("onehot.npy"), &array![[0, 1], [1, 0]]).expect("write");
        write_npy(path("half.npy"), &array![0.5_f64, 1.0]).expect("write");
        std::fs::write(path("l.csv"), "0\ncat\n").expect("write");
        assert!(labels(&path("i.npy"), 4).expect_err("count").to_string().contains("3 labels for 4 samples"));
        assert!(labels(&path("onehot.npy"), 2).expect_err("shape").hint().contains("argmax"));
        assert!(labels(&path("half.npy"), 2).expect_err("value").to_string().contains("label 0"));
        assert!(labels(&path("l.csv"), 2).expect_err("text").to_string().contains("line 2"));
        assert!(labels(&path("none.csv"), 2).is_err());
    }
}
