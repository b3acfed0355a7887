//! External data: tensors whose bytes stand in a file beside the model (`TensorProto.external_data`).
//!
//! A location is relative to the model's folder. One that leaves the folder (absolute, `..`, or by a link) is refused, as
//! ONNX and ONNX Runtime refuse it: a model from elsewhere must not read this machine's other files.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;

use super::OnnxError;
use super::map::map;
use super::proto::tensor_proto::DataLocation;
use super::proto::{StringStringEntryProto, TensorProto};
use super::read::byte_size;

/// The data files of one model, each mapped once.
#[derive(Clone, Debug, Default)]
pub(super) struct External {
    folder: PathBuf,
    files: BTreeMap<String, Bytes>,
}

/// Whether the tensor's bytes stand in another file.
pub(super) fn is_external(tensor: &TensorProto) -> bool {
    tensor.data_location == Some(DataLocation::External as i32)
}

impl External {
    /// No data files yet, beside a model in `folder`.
    pub(super) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), files: BTreeMap::new() }
    }

    /// Bytes of all data files.
    pub(super) fn size_bytes(&self) -> u64 {
        self.files.values().map(|bytes| bytes.len() as u64).sum()
    }

    /// Whether any data file is in use.
    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// The data files in use.
    pub(super) fn paths(&self) -> impl Iterator<Item = PathBuf> {
        self.files.keys().map(|location| self.folder.join(location))
    }

    /// Maps the data file of `tensor`, if not yet done, and checks that the tensor lies within it.
    pub(super) fn add(&mut self, tensor: &TensorProto) -> Result<(), OnnxError> {
        let location = entry(tensor, "location").unwrap_or_default();
        if !self.files.contains_key(location) {
            let path = self.resolve(tensor, location)?;
            let bytes = File::open(&path).and_then(|file| map(&file)).map_err(|source| {
                let reason = if source.kind() == std::io::ErrorKind::NotFound {
                    format!("the file '{location}' is missing")
                } else {
                    format!("the file '{location}' cannot be read: {source}")
                };
                OnnxError::External { tensor: name(tensor), reason, path: path.clone() }
            })?;
            self.files.insert(location.to_owned(), bytes);
        }
        self.bytes(tensor).map(drop)
    }

    /// The tensor's bytes, as a slice of the mapped file.
    pub(super) fn bytes(&self, tensor: &TensorProto) -> Result<Bytes, OnnxError> {
        let (file, range) = self.find(tensor)?;
        Ok(file.slice(range))
    }

    /// As [`Self::bytes`], borrowed.
    pub(super) fn borrow(&self, tensor: &TensorProto) -> Result<&[u8], OnnxError> {
        let (file, range) = self.find(tensor)?;
        Ok(file.get(range).unwrap_or_default())
    }

    fn find(&self, tensor: &TensorProto) -> Result<(&Bytes, Range<usize>), OnnxError> {
        let location = entry(tensor, "location").unwrap_or_default();
        let fail =
            |reason: String| OnnxError::External { tensor: name(tensor), reason, path: self.folder.join(location) };
        let file = self.files.get(location).ok_or_else(|| fail(format!("the file '{location}' was not opened")))?;
        let number = |key| match entry(tensor, key) {
            None => Ok(None),
            Some(text) => {
                text.trim().parse::<u64>().map(Some).map_err(|_| fail(format!("'{key}' is '{text}', no size")))
            }
        };
        let size = file.len() as u64;
        let offset = number("offset")?.unwrap_or(0);
        let length = number("length")?.or_else(|| byte_size(tensor)).unwrap_or_else(|| size.saturating_sub(offset));
        let end = offset.checked_add(length).filter(|&end| end <= size).ok_or_else(|| {
            fail(format!("bytes {offset} to {} are wanted, the file has {size}", offset.saturating_add(length)))
        })?;
        Ok((file, offset as usize..end as usize))
    }

    fn resolve(&self, tensor: &TensorProto, location: &str) -> Result<PathBuf, OnnxError> {
        let path = self.folder.join(location);
        let fail = |reason: String| OnnxError::External { tensor: name(tensor), reason, path: path.clone() };
        if location.is_empty() {
            return Err(fail("no file is named".to_owned()));
        }
        let inside =
            Path::new(location).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        // Backslashes separate folders on Windows; what would escape there is refused everywhere.
        if !inside || location.contains("..\\") || location.starts_with('\\') {
            return Err(fail(format!("'{location}' lies outside the model's folder")));
        }
        // A link is followed only when it ends inside the folder. A file that does not exist is reported as missing later.
        if let (Ok(real), Ok(folder)) = (path.canonicalize(), self.folder.canonicalize()) {
            if !real.starts_with(&folder) {
                return Err(fail(format!("'{location}' leads outside the model's folder")));
            }
            if !real.is_file() {
                return Err(fail(format!("'{location}' is not a file")));
            }
        }
        Ok(path)
    }
}

/// Points `tensor` at `length` bytes from `offset` of the file `location`, and drops the bytes it held itself.
pub(crate) fn point_at(tensor: &mut TensorProto, location: &str, offset: u64, length: u64) {
    let pair = |key: &str, value: String| StringStringEntryProto { key: Some(key.to_owned()), value: Some(value) };
    tensor.raw_data = None;
    tensor.data_location = Some(DataLocation::External as i32);
    tensor.external_data = vec![
        pair("location", location.to_owned()),
        pair("offset", offset.to_string()),
        pair("length", length.to_string()),
    ];
}

fn entry<'a>(tensor: &'a TensorProto, key: &str) -> Option<&'a str> {
    tensor.external_data.iter().find(|pair| pair.key.as_deref() == Some(key)).and_then(|pair| pair.value.as_deref())
}

fn name(tensor: &TensorProto) -> String {
    tensor.name.clone().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::build::tensor_f32;

    fn external(location: &str, offset: u64, length: u64) -> TensorProto {
        let mut tensor = tensor_f32("w", &[2], &[0.0, 0.0]);
        point_at(&mut tensor, location, offset, length);
        tensor
    }

    fn reason(folder: &Path, tensor: &TensorProto) -> String {
        External::new(folder).add(tensor).expect_err("refused").to_string()
    }

    #[test]
    fn slices_the_file() {
        let folder = tempfile::tempdir().expect("temp folder");
        std::fs::write(folder.path().join("d"), [9, 1, 2, 3, 4, 5, 6, 7, 8]).expect("write");
        let mut files = External::new(folder.path());
        let tensor = external("d", 1, 8);
        files.add(&tensor).expect("inside");
        assert_eq!(files.bytes(&tensor).expect("inside").as_ref(), [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(files.size_bytes(), 9);
    }

    #[test]
    fn refuses_what_is_missing_short_or_outside() {
        let parent = tempfile::tempdir().expect("temp folder");
        let folder = parent.path().join("model");
        std::fs::create_dir(&folder).expect("folder");
        std::fs::write(folder.join("d"), [0; 9]).expect("write");
        std::fs::write(parent.path().join("secret"), [0; 99]).expect("write");
        assert!(reason(&folder, &external("e", 0, 8)).contains("missing"));
        assert!(reason(&folder, &external("d", 2, 8)).contains("the file has 9"));
        assert!(reason(&folder, &external("d", u64::MAX, 8)).contains("the file has 9"));
        assert!(reason(&folder, &external("../secret", 0, 8)).contains("outside"));
        assert!(reason(&folder, &external("..\\secret", 0, 8)).contains("outside"));
        assert!(reason(&folder, &external("/etc/passwd", 0, 8)).contains("outside"));
        assert!(reason(&folder, &external("", 0, 8)).contains("no file"));
        assert!(reason(&folder, &external(".", 0, 8)).contains("not a file"));
        let mut odd = external("d", 0, 8);
        if let Some(pair) = odd.external_data.get_mut(1) {
            pair.value = Some("-1".to_owned());
        }
        assert!(reason(&folder, &odd).contains("no size"));
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(parent.path().join("secret"), folder.join("link")).expect("link");
            assert!(reason(&folder, &external("link", 0, 8)).contains("outside"));
        }
    }
}
