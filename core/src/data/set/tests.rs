//! Sources as people have them, made on the spot.

use ndarray::{Array, Array2, Array4, array};
use ndarray_npy::{WriteNpyExt, write_npy};

use super::*;
use crate::port::Dim;
use crate::tensor::{Tensor, Values};

fn port(name: &str, element_type: &str, dims: &[&str]) -> Port {
    let dim = |text: &&str| text.parse().map_or_else(|_| Dim::Symbol((*text).to_owned()), Dim::Fixed);
    Port {
        name: name.to_owned(),
        element_type: element_type.to_owned(),
        shape: dims.iter().map(dim).collect(),
        has_shape: true,
        table_rows: None,
    }
}

fn open(path: &Path, inputs: &[Port]) -> Result<DataSet, DataError> {
    DataSet::open(&path.display().to_string(), inputs, &DataOptions::default())
}

/// An `.npz` with images `x` of 7 samples and their labels.
fn archive(folder: &Path) -> PathBuf {
    let path = folder.join("data.npz");
    let mut zip = zip::ZipWriter::new(std::fs::File::create(&path).expect("create"));
    let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
    zip.start_file("x.npy", options).expect("member");
    Array4::from_shape_fn((7, 1, 8, 8), |(i, _, j, k)| (i * 64 + j * 8 + k) as f32).write_npy(&mut zip).expect("write");
    zip.start_file("labels.npy", options).expect("member");
    Array::from_iter(0..7_i64).write_npy(&mut zip).expect("write");
    zip.finish().expect("finish");
    path
}

#[test]
fn samples_come_one_at_a_time_with_a_batch_of_one() {
    let folder = tempfile::tempdir().expect("folder");
    let data = open(&archive(folder.path()), &[port("x", "float32", &["n", "1", "8", "8"])]).expect("open");
    assert_eq!((data.len(), data.batch(), data.kind()), (7, 1, DataKind::Arrays));
    let sample = data.sample(6).expect("sample");
    assert_eq!(sample.feeds[0].1.shape, [1, 1, 8, 8]);
    let Values::F32(values) = &sample.feeds[0].1.values else { panic!("type") };
    assert_eq!((values[0], values[63]), (384.0, 447.0));
    assert!(matches!(data.sample(7), Err(DataError::Index { index: 7, len: 7 })));
    assert_eq!(data.labels("labels").expect("key"), [0, 1, 2, 3, 4, 5, 6]);
    assert_eq!(data.describe(), "7 samples from data.npz");
    let preview = data.preview(1).expect("preview");
    assert_eq!((preview.inputs[0].min, preview.inputs[0].max, preview.inputs[0].mean), (64.0, 127.0, 95.5));
    assert!(preview.inputs[0].picture.is_some());
}

#[test]
fn a_fixed_batch_takes_several_rows_and_says_what_is_left() {
    let folder = tempfile::tempdir().expect("folder");
    let data = open(&archive(folder.path()), &[port("x", "float32", &["3", "1", "8", "8"])]).expect("open");
    assert_eq!((data.len(), data.batch(), data.rows()), (2, 3, 7));
    assert_eq!(data.sample(1).expect("sample").feeds[0].1.shape, [3, 1, 8, 8]);
    assert!(data.problems().iter().any(|p| p.what.contains("1 at the end")), "{:?}", data.problems());
    assert!(open(&archive(folder.path()), &[port("x", "float32", &["8", "1", "8", "8"])]).is_err());
}

#[test]
fn types_are_converted_with_a_note_and_nan_is_refused_by_place() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("x.npy");
    write_npy(&path, &array![[1_u8, 2], [3, 255]]).expect("write");
    let data = open(&path, &[port("x", "float32", &["n", "2"])]).expect("open");
    assert_eq!(data.sample(1).expect("sample").feeds[0].1, Tensor::from_f32(vec![1, 2], vec![3.0, 255.0]));
    assert!(data.problems()[0].what.contains("from uint8 to float32"));
    assert!(open(&path, &[port("x", "string", &["n", "2"])]).is_err());

    write_npy(&path, &array![[1.0_f32, 2.0], [3.0, f32::NAN]]).expect("write");
    let data = open(&path, &[port("x", "float32", &["n", "2"])]).expect("open");
    let error = data.sample(1).expect_err("NaN");
    assert_eq!(error.to_string(), "\"x.npy\" holds NaN in sample 1, at element 1");
    let error = open(&path, &[port("x", "int64", &["n", "2"])]).expect_err("fractions");
    assert!(error.hint().contains("astype"));
}

#[test]
fn a_folder_of_samples_keeps_full_shapes_and_scalars() {
    let folder = tempfile::tempdir().expect("folder");
    for index in [1, 0] {
        let file = std::fs::File::create(folder.path().join(format!("{index:03}.npz"))).expect("create");
        let mut zip = zip::ZipWriter::new(file);
        let options = zip::write::SimpleFileOptions::default();
        zip.start_file("x.npy", options).expect("member");
        Array2::from_elem((1, 3 + index), index as f32).write_npy(&mut zip).expect("write");
        zip.start_file("sr.npy", options).expect("member");
        ndarray::arr0(16000_i64).write_npy(&mut zip).expect("write");
        zip.finish().expect("finish");
    }
    let inputs = [port("x", "float32", &["?", "?"]), port("sr", "int64", &[])];
    let data = open(folder.path(), &inputs).expect("open");
    assert_eq!((data.len(), data.kind()), (2, DataKind::Folder));
    let sample = data.sample(1).expect("sample");
    assert_eq!(sample.get("x").expect("x").shape, [1, 4]);
    assert_eq!(sample.get("sr").expect("sr"), &Tensor { shape: vec![], values: Values::I64(vec![16000]) });
    let error = open(folder.path(), &[port("x", "float32", &["1", "4"]), inputs[1].clone()]).expect_err("size");
    assert!(error.to_string().contains("axis 1 is 3, not 4"), "{error}");
}

#[test]
fn split_and_limit_are_deterministic_and_disjoint() {
    let data = DataSet::open("random:10", &[port("x", "float32", &["n", "2"])], &DataOptions::default()).expect("open");
    assert!(data.problems()[0].what.contains("random"));
    let (calibration, evaluation) = data.split(None);
    assert_eq!((calibration.len(), evaluation.len()), (7, 3));
    assert!(evaluation.iter().all(|index| !calibration.contains(index)));
    assert_eq!(data.split(None), (calibration, evaluation));
    assert_eq!(data.split(Some(50)).0.len(), 1);
    assert_eq!(data.limit(3), [0, 1, 2]);
    assert_eq!(data.limit(99).len(), 10);
}

#[test]
fn what_is_no_source_is_refused_with_a_hint() {
    let folder = tempfile::tempdir().expect("folder");
    let inputs = [port("x", "float32", &["n", "2"])];
    std::fs::write(folder.path().join("x.txt"), "1").expect("write");
    std::fs::write(folder.path().join("x.npz"), "").expect("write");
    let path = |name: &str| folder.path().join(name).display().to_string();
    for spec in ["random:", "random:0", "random:-1", &path("x.txt"), &path("x.npz"), &path("none.npz")] {
        let error = DataSet::open(spec, &inputs, &DataOptions::default()).expect_err(spec);
        assert!(!error.hint().is_empty() && !error.place().is_empty(), "{error}");
    }
}
