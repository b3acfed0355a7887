//! The bundled sample: a small trained model with its data, inside the program, so that it is there however Nibble was
//! installed.

use std::io::Write;
use std::path::{Path, PathBuf};

use super::failure::Failure;

macro_rules! embedded {
    ($name:literal) => {
        ($name, include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../sample-models/", $name)).as_slice())
    };
}

const MODEL: (&str, &[u8]) = embedded!("digits_cnn.onnx");
const DATA: (&str, &[u8]) = embedded!("digits_cnn.calib.npz");
const EVAL: (&str, &[u8]) = embedded!("digits_cnn.eval.npz");
const LABELS: (&str, &[u8]) = embedded!("digits_cnn.labels.npy");

/// Where the sample's files are on this machine.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The model.
    pub model: PathBuf,
    /// Calibration data.
    pub data: PathBuf,
    /// Evaluation data.
    pub eval: PathBuf,
    /// Labels of the evaluation data.
    pub labels: PathBuf,
}

/// Puts the sample into the per-user cache, or into the folder for temporary files where there is none.
pub fn bundled() -> Result<Sample, Failure> {
    let cache = directories::ProjectDirs::from("", "", "nibble").map(|dirs| dirs.cache_dir().join("sample"));
    let temporary = std::env::temp_dir().join("nibble-sample");
    let result = cache.map_or_else(|| unpack(&temporary), |cache| unpack(&cache).or_else(|_| unpack(&temporary)));
    result.map_err(|error| {
        let hint = "Free some disk space, or name a model of your own";
        Failure::new(format!("cannot unpack the bundled sample: {error}"), temporary.display().to_string(), hint)
    })
}

fn unpack(folder: &Path) -> std::io::Result<Sample> {
    std::fs::create_dir_all(folder)?;
    let put = |(name, bytes): (&str, &[u8])| {
        let path = folder.join(name);
        // Another version of Nibble may have left another sample there.
        if std::fs::read(&path).is_ok_and(|there| there == bytes) {
            return Ok(path);
        }
        let mut builder = tempfile::Builder::new();
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666)); // less the umask, as any new file
        let mut file = builder.tempfile_in(folder)?;
        file.write_all(bytes)?;
        file.persist(&path).map_err(|error| error.error)?;
        Ok::<_, std::io::Error>(path)
    };
    Ok(Sample { model: put(MODEL)?, data: put(DATA)?, eval: put(EVAL)?, labels: put(LABELS)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_copy_is_replaced() {
        let folder = tempfile::tempdir().expect("folder");
        let first = unpack(folder.path()).expect("unpacked");
        std::fs::write(&first.model, b"damaged").expect("write");
        let again = unpack(folder.path()).expect("unpacked again");
        assert_eq!(std::fs::read(again.model).expect("model"), MODEL.1);
        assert_eq!(std::fs::read_dir(folder.path()).expect("folder").count(), 4);
    }
}
