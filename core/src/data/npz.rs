//! Archives of arrays. Members that are stored are read in place by seeking; deflated ones are inflated once,
//! streaming, into an unnamed temporary file (small ones stay in memory), then read by seeking.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use tempfile::SpooledTempFile;
use zip::CompressionMethod;
use zip::result::ZipError;

use super::DataError;
use super::npy::NpyArray;
use crate::limits;

/// Inflated members up to this size stay in memory.
const IN_MEMORY_BYTES: usize = 1 << 20;

/// An opened `.npz`.
pub struct Npz {
    path: PathBuf,
    archive: zip::ZipArchive<BufReader<File>>,
}

impl Npz {
    /// Reads the list of members.
    pub fn open(path: &Path) -> Result<Self, DataError> {
        let file = File::open(path).map_err(|source| DataError::Io { path: path.to_owned(), source })?;
        match zip::ZipArchive::new(BufReader::new(file)) {
            Ok(archive) => Ok(Self { path: path.to_owned(), archive }),
            Err(error) => Err(damaged(path.display().to_string(), &error)),
        }
    }

    /// Names of the arrays, without `.npy`, in the order of the file.
    pub fn names(&self) -> Vec<String> {
        self.archive.file_names().filter_map(|name| name.strip_suffix(".npy")).map(ToOwned::to_owned).collect()
    }

    /// The array called `name`.
    pub fn array(&mut self, name: &str) -> Result<NpyArray, DataError> {
        let place = format!("{}:{name}", self.path.display());
        let mut member = self.archive.by_name(&format!("{name}.npy")).map_err(|e| damaged(place.clone(), &e))?;
        if member.compression() == CompressionMethod::Stored && !member.encrypted() {
            let (start, size) = (member.data_start(), member.size());
            if size <= limits::MAX_CHECKED_BYTES {
                // Nothing else would notice a damaged byte; the zip crate compares the checksum at the end.
                io::copy(&mut member, &mut io::sink()).map_err(|source| wrong(&place, &source.to_string()))?;
            }
            let file = File::open(&self.path).map_err(|source| DataError::Io { path: self.path.clone(), source })?;
            let length = file.metadata().map_or(0, |metadata| metadata.len());
            let end = start.saturating_add(size).min(length);
            return NpyArray::open(Box::new(file), start, end, place);
        }
        let mut copy = SpooledTempFile::new(IN_MEMORY_BYTES);
        let size = member.size();
        // One byte more than declared shows a member that holds more; the zip crate checks the CRC at its end.
        let written = io::copy(&mut member.by_ref().take(size.saturating_add(1)), &mut copy)
            .map_err(|source| wrong(&place, &source.to_string()))?;
        if written != size {
            return Err(wrong(&place, &format!("its {size} bytes inflate to {written} or more")));
        }
        NpyArray::open(Box::new(copy), 0, written, place)
    }
}

fn wrong(place: &str, why: &str) -> DataError {
    DataError::Format {
        place: place.to_owned(),
        why: format!("the array does not come out of the archive: {why}"),
        hint: "Check that the file is whole and that the folder for temporary files has room; numpy.savez, without \
               compression, needs none"
            .to_owned(),
    }
}

fn damaged(place: String, error: &ZipError) -> DataError {
    DataError::Format {
        place,
        why: format!("not a whole .npz: {error}"),
        hint: "Save it again with numpy.savez or numpy.savez_compressed".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use ndarray::{Array2, array};
    use ndarray_npy::WriteNpyExt;
    use zip::write::SimpleFileOptions;

    use super::*;
    use crate::tensor::Values;

    fn archive(folder: &Path, method: CompressionMethod) -> PathBuf {
        let path = folder.join(format!("{method:?}.npz"));
        let mut zip = zip::ZipWriter::new(File::create(&path).expect("create"));
        let options = SimpleFileOptions::default().compression_method(method);
        zip.start_file("x.npy", options).expect("member");
        Array2::from_shape_fn((700, 500), |(i, j)| (i * 500 + j) as f32).write_npy(&mut zip).expect("write");
        zip.start_file("y.npy", options).expect("member");
        array![3_i64, 1, 2].write_npy(&mut zip).expect("write");
        zip.start_file("readme.txt", options).expect("member");
        zip.write_all(b"no array").expect("write");
        zip.finish().expect("finish");
        path
    }

    #[test]
    fn stored_and_deflated_members_give_the_same_rows() {
        let folder = tempfile::tempdir().expect("folder");
        for method in [CompressionMethod::Stored, CompressionMethod::Deflated] {
            let mut npz = Npz::open(&archive(folder.path(), method)).expect("open");
            assert_eq!(npz.names(), ["x", "y"]);
            let x = npz.array("x").expect("x");
            let Values::F32(row) = x.rows(699, 1).expect("row") else { panic!("type") };
            assert_eq!((row.len(), row.first(), row.last()), (500, Some(&349_500.0), Some(&349_999.0)));
            assert_eq!(npz.array("y").expect("y").all().expect("all"), Values::I64(vec![3, 1, 2]));
        }
    }

    #[test]
    fn a_cut_or_foreign_file_is_refused() {
        let folder = tempfile::tempdir().expect("folder");
        let whole = std::fs::read(archive(folder.path(), CompressionMethod::Deflated)).expect("read");
        let path = folder.path().join("cut.npz");
        for length in [0, 10, whole.len() / 2, whole.len() - 5] {
            std::fs::write(&path, &whole[..length]).expect("write");
            let error = Npz::open(&path).err().expect("cut");
            assert!(error.hint().contains("savez"), "{error}");
        }
    }

    #[test]
    fn a_damaged_value_is_noticed() {
        let folder = tempfile::tempdir().expect("folder");
        for method in [CompressionMethod::Stored, CompressionMethod::Deflated] {
            let path = archive(folder.path(), method);
            let whole = std::fs::read(&path).expect("read");
            // Deflated bytes decode to something else, often to more or fewer of them.
            for at in [whole.len() / 4, whole.len() / 3, whole.len() / 2] {
                let mut bytes = whole.clone();
                bytes[at] ^= 0x10;
                std::fs::write(&path, &bytes).expect("write");
                let error = Npz::open(&path).and_then(|mut npz| npz.array("x")).expect_err("damaged");
                assert!(error.to_string().contains("archive"), "{method:?} {at}: {error}");
            }
        }
    }

    #[test]
    fn no_damage_makes_it_panic() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("small.npz");
        let mut rng = fastrand::Rng::with_seed(1);
        for method in [CompressionMethod::Stored, CompressionMethod::Deflated] {
            let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
            zip.start_file("x.npy", SimpleFileOptions::default().compression_method(method)).expect("member");
            Array2::from_elem((3, 4), 1.0_f32).write_npy(&mut zip).expect("write");
            let whole = zip.finish().expect("finish").into_inner();
            for _ in 0..400 {
                let mut bytes = whole.clone();
                for _ in 0..rng.usize(1..6) {
                    let at = rng.usize(..bytes.len());
                    bytes[at] = rng.u8(..);
                }
                std::fs::write(&path, &bytes).expect("write");
                if let Ok(mut npz) = Npz::open(&path) {
                    for name in npz.names() {
                        // Refused or read; either is fine.
                        let _ = npz.array(&name).and_then(|array| array.rows(0, 1).and(array.all()));
                    }
                }
            }
        }
    }
}
