//! Where a quantized model may be written: never over what it is made from, and over nothing but a file.

use std::path::Path;

use crate::export::ExportError;
use crate::onnx::OnnxFile;

/// Refuses `path` when it is the model, a file of its external data, or no file at all (a device, a pipe). The output's
/// own data file, `path` with `.data` behind it, must not be one of the model's either.
pub fn check_output(model: &OnnxFile, path: &Path) -> Result<(), ExportError> {
    let place = path.display().to_string();
    if is_special(path) {
        return Err(ExportError::NotAFile { place });
    }
    if is_same(path, &model.path) {
        return Err(ExportError::Overwrites { place, what: "the model itself" });
    }
    let mut data = path.as_os_str().to_owned();
    data.push(".data");
    for file in model.files().iter().skip(1) {
        if is_same(path, file) {
            return Err(ExportError::Overwrites { place, what: "the file of the model's external data" });
        }
        if is_same(Path::new(&data), file) {
            let place = Path::new(&data).display().to_string();
            return Err(ExportError::Overwrites { place, what: "a name whose data file is the model's own" });
        }
    }
    Ok(())
}

/// Whether two paths lead to the same file, which exists.
pub fn is_same(a: &Path, b: &Path) -> bool {
    a.canonicalize().ok().zip(b.canonicalize().ok()).is_some_and(|(a, b)| a == b)
}

/// Whether something stands at `path` that is neither a file nor a folder.
pub fn is_special(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file() && !metadata.is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Control;
    use crate::onnx::build::{node, tensor_f32, value_info};
    use crate::onnx::point_at;
    use crate::onnx::proto::{GraphProto, ModelProto};

    #[test]
    fn neither_the_model_nor_its_data_can_be_the_output() {
        let folder = tempfile::tempdir().expect("folder");
        let path = |name: &str| folder.path().join(name);
        let mut weight = tensor_f32("w", &[2], &[1.0, 2.0]);
        point_at(&mut weight, "q.onnx.data", 0, 8);
        std::fs::write(path("q.onnx.data"), [0; 8]).expect("data");
        let graph = GraphProto {
            node: vec![node("Add", "", "add", &["x", "w"], &["y"], vec![])],
            initializer: vec![weight],
            output: vec![value_info("y")],
            ..Default::default()
        };
        let proto = ModelProto { ir_version: Some(8), graph: Some(graph), ..Default::default() };
        std::fs::write(path("m.onnx"), prost::Message::encode_to_vec(&proto)).expect("model");
        let model = OnnxFile::load(path("m.onnx"), &Control::new()).expect("loads");
        for taken in ["m.onnx", "q.onnx.data", "q.onnx"] {
            let error = check_output(&model, &path(taken)).expect_err(taken);
            assert!(error.to_string().contains("the model"), "{error}");
        }
        assert!(check_output(&model, &path("other.onnx")).is_ok());
        std::fs::write(path("old.onnx"), "old").expect("a file");
        assert!(check_output(&model, &path("old.onnx")).is_ok());
        #[cfg(unix)]
        assert!(matches!(check_output(&model, Path::new("/dev/null")), Err(ExportError::NotAFile { .. })));
    }
}
