//! Writing a model: complete beside its place first, then renamed into it.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use prost::Message;
use tempfile::TempDir;

use super::external::{External, is_external, point_at};
use super::proto::{ModelProto, TensorProto};
use super::{OnnxError, walk};
use crate::limits;

/// Data begin at multiples of a page, so that readers can map them.
const ALIGNMENT: u64 = 4096;
/// Tensors smaller than this stay in the model when others move out for want of room.
const SMALLEST_MOVED: usize = 1024;

/// Writes `proto` to `path` and returns how many bytes were written in all. Where tensors lie in external data (read from
/// `source_folder`), or the message would exceed [`limits::MAX_PROTO_BYTES`], their bytes go to one file `NAME.data` beside it.
pub fn save(proto: &ModelProto, source_folder: Option<&Path>, path: &Path) -> Result<u64, OnnxError> {
    let staged = Staged::write(proto, source_folder, path)?;
    let size_bytes = staged.size_bytes();
    staged.commit()?;
    Ok(size_bytes)
}

/// A model written in full, in a temporary folder beside its place, not yet in its place. It can be opened and run from
/// [`Staged::path`]; [`Staged::commit`] moves it, dropping it removes it.
#[derive(Debug)]
pub struct Staged {
    folder: TempDir,
    model: PathBuf,
    data: Option<PathBuf>,
    final_path: PathBuf,
    size_bytes: u64,
}

impl Staged {
    /// Writes the model, with its external data, for `final_path`.
    pub fn write(proto: &ModelProto, source_folder: Option<&Path>, final_path: &Path) -> Result<Self, OnnxError> {
        let invalid =
            |why| io("write the model", final_path)(std::io::Error::new(std::io::ErrorKind::InvalidInput, why));
        if final_path.is_dir() {
            return Err(OnnxError::Folder { path: final_path.to_owned() });
        }
        let file_name = final_path.file_name().ok_or_else(|| invalid("the path names no file"))?;
        let parent = final_path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // Inside the target's own folder: a rename is atomic only within one file system.
        let folder = tempfile::Builder::new()
            .prefix(".nibble-")
            .tempdir_in(parent)
            .map_err(io("write the model", final_path))?;
        let model = folder.path().join(file_name);
        let mut data_name = file_name.to_owned();
        data_name.push(".data");
        let data_name = data_name.to_str().ok_or_else(|| invalid("the file's name is not Unicode"))?;

        let mut size_bytes = 0;
        let mut data = None;
        let moved;
        let mut proto = proto;
        if let Some(changed) = with_external_data(proto, source_folder, data_name, &folder.path().join(data_name))? {
            let path = folder.path().join(data_name);
            size_bytes += std::fs::metadata(&path).map_err(io("write the model", &path))?.len();
            data = Some(path);
            moved = changed;
            proto = &moved;
        }
        let bytes = proto.encode_to_vec();
        if bytes.len() as u64 > limits::MAX_PROTO_BYTES {
            return Err(OnnxError::OverLimit {
                what: "The model without its weights".to_owned(),
                limit: limits::MAX_PROTO_BYTES,
                place: final_path.display().to_string(),
            });
        }
        File::create(&model)
            .and_then(|mut file| file.write_all(&bytes).and_then(|()| file.sync_all()))
            .map_err(io("write the model", final_path))?;
        size_bytes += bytes.len() as u64;
        Ok(Self { folder, model, data, final_path: final_path.to_owned(), size_bytes })
    }

    /// Where the complete model lies until [`Staged::commit`].
    pub fn path(&self) -> &Path {
        &self.model
    }

    /// Bytes of the model and its external data.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Moves the model into its place, over what was there. When that fails, what was there stays.
    pub fn commit(self) -> Result<(), OnnxError> {
        let fail = io("move the model into its place", &self.final_path);
        let parent = self.final_path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        let mut replaced = None;
        if let Some((data, name)) = self.data.as_ref().and_then(|data| data.file_name().map(|name| (data, name))) {
            let target = parent.join(name);
            let backup = self.folder.path().join("replaced.data");
            if target.exists() {
                std::fs::rename(&target, &backup).map_err(&fail)?;
            }
            let moved = std::fs::rename(data, &target);
            replaced = Some((target, backup));
            if let Err(error) = moved {
                restore(replaced.as_ref());
                return Err(fail(error));
            }
        }
        if let Err(error) = std::fs::rename(&self.model, &self.final_path) {
            restore(replaced.as_ref());
            return Err(fail(error));
        }
        // The rename itself must survive a power cut; systems that cannot open a folder do not need it.
        if let Ok(folder) = File::open(parent) {
            let _ = folder.sync_all();
        }
        Ok(())
    }
}

/// Puts the data file that was replaced back, as the model beside it is still the old one.
fn restore(replaced: Option<&(PathBuf, PathBuf)>) {
    if let Some((target, backup)) = replaced {
        let _ = if backup.exists() { std::fs::rename(backup, target) } else { std::fs::remove_file(target) };
    }
}

fn io<'a>(action: &'static str, path: &'a Path) -> impl Fn(std::io::Error) -> OnnxError + 'a {
    move |source| OnnxError::Io { action, path: path.to_owned(), source }
}

/// The model with its large tensors in the file at `path`, named `data_name`; `None` when it needs no such file.
fn with_external_data(
    proto: &ModelProto,
    source_folder: Option<&Path>,
    data_name: &str,
    path: &Path,
) -> Result<Option<ModelProto>, OnnxError> {
    let mut any = false;
    walk::tensors(proto, &mut |tensor| {
        any |= is_external(tensor);
        Ok::<_, OnnxError>(())
    })?;
    let too_large = proto.encoded_len() as u64 > limits::MAX_PROTO_BYTES;
    if !any && !too_large {
        return Ok(None);
    }
    let mut proto = proto.clone();
    let mut writer = DataWriter {
        file: BufWriter::new(File::create(path).map_err(io("write the external data", path))?),
        written: 0,
        name: data_name,
        path,
    };
    let mut source = External::new(source_folder.unwrap_or(Path::new("")));
    walk::tensors_mut(&mut proto, &mut |tensor| {
        if !is_external(tensor) {
            return Ok(());
        }
        if source_folder.is_none() {
            return Err(OnnxError::External {
                tensor: tensor.name.clone().unwrap_or_default(),
                reason: "the folder of the data is not known".to_owned(),
                path: PathBuf::new(),
            });
        }
        source.add(tensor)?;
        let bytes = source.bytes(tensor)?;
        writer.put(tensor, &bytes)
    })?;
    if too_large {
        let mut result = Ok(());
        walk::initializers_mut(&mut proto, &mut |tensor| {
            if let Some(bytes) = tensor.raw_data.clone().filter(|bytes| bytes.len() >= SMALLEST_MOVED)
                && result.is_ok()
            {
                result = writer.put(tensor, &bytes);
            }
        });
        result?;
    }
    writer.finish()?;
    Ok(Some(proto))
}

struct DataWriter<'a> {
    file: BufWriter<File>,
    written: u64,
    name: &'a str,
    path: &'a Path,
}

impl DataWriter<'_> {
    /// Appends the bytes at the next page and points the tensor at them.
    fn put(&mut self, tensor: &mut TensorProto, bytes: &[u8]) -> Result<(), OnnxError> {
        let offset = self.written.next_multiple_of(ALIGNMENT);
        let padding = vec![0; (offset - self.written) as usize];
        self.file
            .write_all(&padding)
            .and_then(|()| self.file.write_all(bytes))
            .map_err(io("write the external data", self.path))?;
        self.written = offset + bytes.len() as u64;
        point_at(tensor, self.name, offset, bytes.len() as u64);
        Ok(())
    }

    fn finish(self) -> Result<(), OnnxError> {
        let fail = io("write the external data", self.path);
        let file = self.file.into_inner().map_err(|error| fail(error.into_error()))?;
        file.sync_all().map_err(fail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Control;
    use crate::onnx::OnnxFile;
    use crate::onnx::build::{node, tensor_f32, value_info};
    use crate::onnx::proto::{GraphProto, OperatorSetIdProto, StringStringEntryProto};

    fn model() -> ModelProto {
        let mut fields = tensor_f32("b", &[2], &[]);
        fields.raw_data = None;
        fields.float_data = vec![0.5, -0.5];
        ModelProto {
            ir_version: Some(8),
            opset_import: vec![OperatorSetIdProto { domain: Some(String::new()), version: Some(17) }],
            metadata_props: vec![StringStringEntryProto { key: Some("a".into()), value: Some("b".into()) }],
            graph: Some(GraphProto {
                node: vec![node("Add", "", "add", &["w", "b"], &["y"], vec![])],
                initializer: vec![tensor_f32("w", &[2], &[1.0, 2.0]), fields],
                output: vec![value_info("y")],
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn load(path: &Path) -> OnnxFile {
        OnnxFile::load(path, &Control::new()).expect("loads")
    }

    fn entries(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).expect("folder").flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_is_saved_loads_as_it_was_and_saves_to_the_same_bytes() {
        let folder = tempfile::tempdir().expect("temp folder");
        let (first, second) = (folder.path().join("a.onnx"), folder.path().join("b.onnx"));
        let size = save(&model(), None, &first).expect("saved");
        let loaded = load(&first);
        assert_eq!(loaded.proto, model());
        assert_eq!((loaded.size_bytes, loaded.problems.len()), (size, 0));
        save(&loaded.proto, Some(loaded.folder()), &second).expect("saved");
        assert_eq!(std::fs::read(&first).expect("read"), std::fs::read(&second).expect("read"));
        assert_eq!(loaded.sha256, load(&second).sha256);
        assert_eq!(entries(folder.path()), ["a.onnx", "b.onnx"]);
    }

    #[test]
    fn external_data_are_copied_into_one_new_file() {
        let folder = tempfile::tempdir().expect("temp folder");
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        std::fs::create_dir(&from).expect("folder");
        std::fs::create_dir(&to).expect("folder");
        let mut proto = model();
        std::fs::write(from.join("weights.bin"), [[9; 4], 3f32.to_le_bytes(), 4f32.to_le_bytes()].concat())
            .expect("data");
        if let Some(tensor) = proto.graph.as_mut().and_then(|graph| graph.initializer.first_mut()) {
            point_at(tensor, "weights.bin", 4, 8);
        }
        assert!(matches!(save(&proto, None, &to.join("m.onnx")), Err(OnnxError::External { .. })));
        let size = save(&proto, Some(&from), &to.join("m.onnx")).expect("saved");
        assert_eq!(entries(&to), ["m.onnx", "m.onnx.data"]);
        let loaded = load(&to.join("m.onnx"));
        assert_eq!(loaded.size_bytes, size);
        assert!(loaded.has_external_data());
        let tensor = loaded.graph().initializer.first().expect("a tensor");
        assert_eq!(loaded.read_f32(tensor).expect("values").as_ref(), [3.0, 4.0]);
        // Over itself: the data are read from the file that is being replaced.
        save(&loaded.proto, Some(loaded.folder()), &to.join("m.onnx")).expect("saved");
        let again = load(&to.join("m.onnx"));
        let tensor = again.graph().initializer.first().expect("a tensor");
        assert_eq!(again.read_f32(tensor).expect("values").as_ref(), [3.0, 4.0]);
        assert_eq!(entries(&to), ["m.onnx", "m.onnx.data"]);
    }

    #[test]
    fn a_staged_model_is_whole_before_it_is_in_its_place() {
        let folder = tempfile::tempdir().expect("temp folder");
        let target = folder.path().join("m.onnx");
        let staged = Staged::write(&model(), None, &target).expect("written");
        assert_eq!(load(staged.path()).proto, model());
        assert!(!target.exists());
        drop(staged);
        assert!(entries(folder.path()).is_empty());
        Staged::write(&model(), None, &target).and_then(Staged::commit).expect("moved");
        assert_eq!(entries(folder.path()), ["m.onnx"]);
    }

    #[test]
    fn impossible_places_are_errors() {
        let folder = tempfile::tempdir().expect("temp folder");
        assert!(matches!(save(&model(), None, folder.path()), Err(OnnxError::Folder { .. })));
        let missing = save(&model(), None, &folder.path().join("no/such/m.onnx")).expect_err("no folder");
        assert!(missing.hint().contains("does not exist"), "{}", missing.hint());
    }
}
