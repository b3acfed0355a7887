//! What a model answers, kept in temporary files and written as an `.npz` for programs of other people.
//!
//! One array an output, the leading axis the samples. Where an output's shape changes from sample to sample there is one
//! array a sample instead, `NAME/0`, `NAME/1` …; bfloat16 becomes float32, and text is left out.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, Write};
use std::path::Path;

use half::bf16;
use zip::write::SimpleFileOptions;

use crate::data::DataSet;
use crate::runtime::{Runtime, Session, SessionOptions, Source};
use crate::tensor::{Tensor, Values};
use crate::{Control, Error};

/// All outputs of a model on some samples.
pub(super) struct Outputs {
    batch: usize,
    arrays: Vec<Array>,
}

struct Array {
    name: String,
    descr: &'static str,
    shapes: Vec<Vec<usize>>,
    bytes: BufWriter<File>,
}

impl Outputs {
    /// Runs `model` on the samples called `indices`; memory holds one sample at a time.
    pub(super) fn collect(
        runtime: &Runtime,
        model: Source<'_>,
        data: &DataSet,
        indices: &[usize],
        threads: usize,
        control: &Control,
    ) -> Result<Self, Error> {
        let options = SessionOptions { threads, ..SessionOptions::default() };
        let mut session = Session::open(runtime, model, &options)?;
        let mut outputs = Self { batch: data.batch(), arrays: Vec::new() };
        for (done, &index) in indices.iter().enumerate() {
            control.check()?;
            control.progress("Collecting outputs", done as u64, indices.len() as u64);
            let sample = data.sample(index)?;
            let sample = crate::error::converted(&sample, session.inputs()).unwrap_or(sample);
            let mut failed = None;
            session.visit(&sample, control, &mut |name, view| {
                if let Some(tensor) = view.to_tensor()
                    && let Err(error) = outputs.add(name, &tensor)
                {
                    failed = Some(error);
                }
            })?;
            if let Some(error) = failed {
                return Err(cannot("keep outputs in a temporary file", &std::env::temp_dir(), error));
            }
        }
        Ok(outputs)
    }

    fn add(&mut self, name: &str, tensor: &Tensor) -> io::Result<()> {
        let Some((descr, bytes)) = encoded(&tensor.values) else { return Ok(()) };
        let at = match self.arrays.iter().position(|array| array.name == name) {
            Some(at) => at,
            None => {
                let bytes = BufWriter::new(tempfile::tempfile()?);
                self.arrays.push(Array { name: name.to_owned(), descr, shapes: Vec::new(), bytes });
                self.arrays.len() - 1
            }
        };
        let Some(array) = self.arrays.get_mut(at) else { return Ok(()) };
        array.shapes.push(tensor.shape.clone());
        array.bytes.write_all(&bytes)
    }

    /// Writes an `.npz` of these outputs, of the `original`'s as `original/NAME`, and of `labels`, one a row.
    pub(super) fn write(
        &mut self,
        original: Option<&mut Self>,
        labels: Option<&[i64]>,
        path: &Path,
    ) -> Result<(), Error> {
        self.write_to(original, labels, path).map_err(|error| cannot("write the outputs", path, error))
    }

    fn write_to(&mut self, original: Option<&mut Self>, labels: Option<&[i64]>, path: &Path) -> io::Result<()> {
        let mut zip = zip::ZipWriter::new(File::create(path)?);
        let options = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored).large_file(true);
        let start = |zip: &mut zip::ZipWriter<File>, name: &str| zip.start_file(format!("{name}.npy"), options);
        if let Some(labels) = labels {
            let mut name = "labels".to_owned();
            while self.arrays.iter().any(|array| array.name == name) {
                name.push('_');
            }
            start(&mut zip, &name)?;
            zip.write_all(&header("<i8", &[labels.len()]))?;
            let bytes: Vec<u8> = labels.iter().flat_map(|label| label.to_le_bytes()).collect();
            zip.write_all(&bytes)?;
        }
        for (prefix, outputs) in
            [Some(("", self)), original.map(|original| ("original/", original))].into_iter().flatten()
        {
            let batch = outputs.batch;
            for array in &mut outputs.arrays {
                array.bytes.flush()?;
                let file = array.bytes.get_mut();
                file.rewind()?;
                let name = format!("{prefix}{}", array.name);
                if let Some(shape) = joined(&array.shapes, batch) {
                    start(&mut zip, &name)?;
                    zip.write_all(&header(array.descr, &shape))?;
                    io::copy(file, &mut zip)?;
                    continue;
                }
                let width = array.descr.get(2..).and_then(|digits| digits.parse().ok()).unwrap_or(1);
                for (at, shape) in array.shapes.iter().enumerate() {
                    start(&mut zip, &format!("{name}/{at}"))?;
                    zip.write_all(&header(array.descr, shape))?;
                    let bytes = shape.iter().product::<usize>() as u64 * width;
                    io::copy(&mut file.take(bytes), &mut zip)?;
                }
            }
        }
        zip.finish()?;
        Ok(())
    }
}

fn cannot(action: &'static str, path: &Path, source: io::Error) -> Error {
    Error::Io { action, path: path.to_owned(), source }
}

/// The shape of all samples together; `None` where they differ. An axis that holds the rows of a sample becomes that of
/// all rows, otherwise the samples get an axis of their own.
fn joined(shapes: &[Vec<usize>], batch: usize) -> Option<Vec<usize>> {
    let (first, rest) = shapes.split_first()?;
    if rest.iter().any(|shape| shape != first) {
        return None;
    }
    match first.split_first() {
        Some((&rows, inner)) if rows == batch => Some([&[shapes.len() * rows], inner].concat()),
        _ => Some([&[shapes.len()], first.as_slice()].concat()),
    }
}

/// The header of an `.npy` of version 1.0, a multiple of 64 bytes long.
fn header(descr: &str, shape: &[usize]) -> Vec<u8> {
    let mut dims = shape.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if shape.len() == 1 {
        dims.push(',');
    }
    let mut text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({dims}), }}");
    let padding = 63 - (10 + text.len()) % 64;
    text.extend(std::iter::repeat_n(' ', padding));
    text.push('\n');
    let mut out = b"\x93NUMPY\x01\x00".to_vec();
    out.extend((text.len() as u16).to_le_bytes());
    out.extend(text.bytes());
    out
}

/// numpy's name of the element type, and the values in little endian; `None` for text.
fn encoded(values: &Values) -> Option<(&'static str, Vec<u8>)> {
    macro_rules! little {
        ($descr:literal, $values:expr) => {
            ($descr, $values.iter().flat_map(|x| x.to_le_bytes()).collect())
        };
    }
    Some(match values {
        Values::F32(v) => little!("<f4", v),
        Values::F64(v) => little!("<f8", v),
        Values::F16(v) => little!("<f2", v),
        Values::Bf16(v) => little!("<f4", v.iter().copied().map(bf16::to_f32).collect::<Vec<_>>()),
        Values::I8(v) => little!("|i1", v),
        Values::I16(v) => little!("<i2", v),
        Values::I32(v) => little!("<i4", v),
        Values::I64(v) => little!("<i8", v),
        Values::U8(v) => little!("|u1", v),
        Values::U16(v) => little!("<u2", v),
        Values::U32(v) => little!("<u4", v),
        Values::U64(v) => little!("<u8", v),
        Values::Bool(v) => ("|b1", v.iter().map(|&x| u8::from(x)).collect()),
        Values::Text(_) => return None,
    })
}

#[cfg(test)]
mod tests {
    use ndarray::ArrayD;
    use ndarray_npy::{ReadNpyExt, ReadableElement};

    use super::*;

    fn array<T: ReadableElement>(path: &Path, name: &str) -> ArrayD<T> {
        let mut zip = zip::ZipArchive::new(File::open(path).expect("file")).expect("zip");
        let member = zip.by_name(&format!("{name}.npy")).expect(name);
        ArrayD::read_npy(member).expect(name)
    }

    #[test]
    fn what_is_written_is_read_again() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("outputs.npz");
        let sample = |at: f32| Tensor::from_f32(vec![1, 3], vec![at, at + 1.0, at + 2.0]);
        let mut outputs = Outputs { batch: 1, arrays: Vec::new() };
        let mut original = Outputs { batch: 1, arrays: Vec::new() };
        for at in [0.0, 10.0] {
            outputs.add("logits", &sample(at)).expect("add");
            original.add("logits", &sample(at + 0.5)).expect("add");
            let length = 1 + usize::from(at > 0.0);
            outputs.add("ragged", &Tensor::from_f32(vec![length], vec![at; length])).expect("add");
            let flag = Tensor { shape: vec![], values: Values::Bool(vec![at > 0.0]) };
            outputs.add("labels", &flag).expect("add");
        }
        outputs.write(Some(&mut original), Some(&[7, 8]), &path).expect("write");
        let logits = array::<f32>(&path, "logits");
        assert_eq!((logits.shape(), logits[[1, 2]]), (&[2, 3][..], 12.0));
        assert_eq!(array::<f32>(&path, "original/logits")[[1, 0]], 10.5);
        assert_eq!(array::<f32>(&path, "ragged/1").shape(), [2]);
        assert_eq!(array::<bool>(&path, "labels").into_raw_vec_and_offset().0, [false, true]);
        assert_eq!(array::<i64>(&path, "labels_").into_raw_vec_and_offset().0, [7, 8]);
    }

    #[test]
    fn rows_stay_rows_and_samples_without_rows_get_an_axis() {
        let shapes = |shape: &[usize], count: usize| vec![shape.to_vec(); count];
        assert_eq!(joined(&shapes(&[4, 10], 3), 4), Some(vec![12, 10]));
        assert_eq!(joined(&shapes(&[25, 1, 9], 3), 1), Some(vec![3, 25, 1, 9]));
        assert_eq!(joined(&shapes(&[], 3), 1), Some(vec![3]));
        assert_eq!(joined(&[vec![1, 2], vec![1, 3]], 1), None);
    }
}
