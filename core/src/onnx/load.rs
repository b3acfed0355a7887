//! Opening a model file: mapped, checked, hashed.

use std::fs::File;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use prost::Message;
use sha2::{Digest, Sha256};

use super::external::{External, is_external};
use super::outline::{Outline, foreign, outline};
use super::proto::{GraphProto, ModelProto};
use super::{OnnxError, map::map, walk};
use crate::problem::Severity;
use crate::{Control, Problem, limits};

/// Newest IR version that the pinned ONNX Runtime opens.
const NEWEST_IR: i64 = 13;
/// How many bytes are hashed between two looks at the cancel flag.
const HASH_STEP: usize = 8 << 20;

/// A model file: its messages, with every weight still in the mapped file.
#[derive(Clone, Debug)]
pub struct OnnxFile {
    /// Where it was read from.
    pub path: PathBuf,
    /// The model. `raw_data` of its tensors are slices of the mapped file; a clone copies no weights.
    pub proto: ModelProto,
    /// Size on disk, in bytes, with the files of external data.
    pub size_bytes: u64,
    /// SHA-256 of the model file itself (without external data), in lowercase hex.
    pub sha256: String,
    /// What is odd about the file without keeping it from being used.
    pub problems: Vec<Problem>,
    pub(super) external: External,
    folder: PathBuf,
}

impl OnnxFile {
    /// Opens a model. Weights stay in the mapped file; external data are mapped too and checked against their folder.
    pub fn load(path: impl AsRef<Path>, control: &Control) -> Result<Self, OnnxError> {
        let path = path.as_ref();
        let bytes = map_file(path)?;
        let proto = decode(path, &bytes)?;

        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut external = External::new(folder);
        walk::tensors(&proto, &mut |tensor| if is_external(tensor) { external.add(tensor) } else { Ok(()) })?;

        Ok(Self {
            path: path.to_owned(),
            size_bytes: bytes.len() as u64 + external.size_bytes(),
            problems: problems(path, &proto, bytes.len()),
            sha256: sha256(&bytes, control)?,
            folder: folder.to_owned(),
            proto,
            external,
        })
    }

    /// The folder that external data are relative to.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Every file that the model is read from: its own first, then those of its external data.
    pub fn files(&self) -> Vec<PathBuf> {
        std::iter::once(self.path.clone()).chain(self.external.paths()).collect()
    }

    /// Whether any tensor's bytes stand in another file.
    pub fn has_external_data(&self) -> bool {
        !self.external.is_empty()
    }

    /// The model's graph.
    pub fn graph(&self) -> &GraphProto {
        static EMPTY: std::sync::LazyLock<GraphProto> = std::sync::LazyLock::new(GraphProto::default);
        // Loading refuses a file without a graph; only a caller who takes it out of `proto` sees the empty one.
        self.proto.graph.as_ref().unwrap_or(&EMPTY)
    }
}

/// Maps a file that must be there, be a file, not be empty and fit into one protobuf message.
pub(crate) fn map_file(path: &Path) -> Result<Bytes, OnnxError> {
    let io = |source| OnnxError::Io { action: "read the model", path: path.to_owned(), source };
    let metadata = std::fs::metadata(path).map_err(io)?;
    if metadata.is_dir() {
        return Err(OnnxError::Folder { path: path.to_owned() });
    }
    if metadata.len() > limits::MAX_PROTO_BYTES {
        return Err(OnnxError::OverLimit {
            what: format!("The file's size of {} bytes", metadata.len()),
            limit: limits::MAX_PROTO_BYTES,
            place: path.display().to_string(),
        });
    }
    let bytes = File::open(path).and_then(|file| map(&file)).map_err(io)?;
    if bytes.is_empty() {
        return Err(OnnxError::Empty { path: path.to_owned() });
    }
    Ok(bytes)
}

/// Decodes a model and checks that there is something in it.
pub(crate) fn decode(path: &Path, bytes: &Bytes) -> Result<ModelProto, OnnxError> {
    let no_graph = || OnnxError::NotOnnx {
        path: path.to_owned(),
        reason: "it holds no graph, or an empty one".to_owned(),
        advice: "Choose the model file itself; tensors and tests (.pb) are stored in the same way".to_owned(),
    };
    match outline(bytes) {
        Outline::Whole { has_graph: true } => {}
        Outline::Whole { has_graph: false } => return Err(no_graph()),
        Outline::Truncated { missing } => return Err(OnnxError::Truncated { path: path.to_owned(), missing }),
        Outline::Foreign => {
            let (reason, advice) = foreign(bytes);
            return Err(OnnxError::NotOnnx { path: path.to_owned(), reason, advice });
        }
    }
    let proto = ModelProto::decode(bytes.clone())
        .map_err(|error| OnnxError::Damaged { path: path.to_owned(), reason: error.to_string() })?;
    let graph = proto.graph.as_ref().filter(|graph| !graph.node.is_empty()).ok_or_else(no_graph)?;
    if walk::subgraph_depth(graph) > limits::MAX_SUBGRAPH_DEPTH {
        return Err(OnnxError::OverLimit {
            what: "The nesting of subgraphs".to_owned(),
            limit: limits::MAX_SUBGRAPH_DEPTH as u64,
            place: path.display().to_string(),
        });
    }
    Ok(proto)
}

fn problems(path: &Path, proto: &ModelProto, file_bytes: usize) -> Vec<Problem> {
    let place = path.display().to_string();
    let mut problems = Vec::new();
    let unread = file_bytes.saturating_sub(proto.encoded_len());
    if unread > 0 {
        problems.push(Problem::new(
            Severity::Warning,
            format!("{unread} bytes of the file are not understood"),
            place.clone(),
            "Fields that ONNX 1.23 does not define are dropped when the model is saved; a file written by another \
             program than ONNX's own may also just be less compact",
            "Compare the exported model with the original before using it",
        ));
    }
    let ir_version = proto.ir_version.unwrap_or_default();
    if ir_version > NEWEST_IR {
        problems.push(Problem::new(
            Severity::Warning,
            format!("The model is of IR version {ir_version}"),
            place.clone(),
            format!("ONNX Runtime 1.28, which Nibble fetches, opens IR versions up to {NEWEST_IR}"),
            "Export the model with an older onnx package, or set the path of a newer ONNX Runtime library",
        ));
    }
    if proto.opset_import.is_empty() && ir_version >= 3 {
        problems.push(Problem::new(
            Severity::Warning,
            "The model names no operator set",
            place,
            "Every model of IR version 3 or later must say which version of the operators it uses",
            "Export the model again",
        ));
    }
    problems
}

fn sha256(bytes: &[u8], control: &Control) -> Result<String, OnnxError> {
    let mut hasher = Sha256::new();
    for chunk in bytes.chunks(HASH_STEP) {
        control.check().map_err(|_| OnnxError::Cancelled)?;
        hasher.update(chunk);
    }
    Ok(hex(&hasher.finalize()))
}

/// Lowercase hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        text.push(char::from_digit(u32::from(byte >> 4), 16).unwrap_or('?'));
        text.push(char::from_digit(u32::from(byte & 15), 16).unwrap_or('?'));
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::build::{attr_graph, node, tensor_f32, value_info};
    use crate::onnx::save;

    fn model() -> ModelProto {
        ModelProto {
            ir_version: Some(8),
            graph: Some(GraphProto {
                node: vec![node("Add", "", "add", &["x", "w"], &["y"], vec![])],
                initializer: vec![tensor_f32("w", &[64], &[1.0; 64])],
                input: vec![value_info("x")],
                output: vec![value_info("y")],
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn load(bytes: &[u8]) -> Result<OnnxFile, OnnxError> {
        let folder = tempfile::tempdir().expect("temp folder");
        let path = folder.path().join("m.onnx");
        std::fs::write(&path, bytes).expect("write");
        OnnxFile::load(&path, &Control::new())
    }

    #[test]
    fn every_kind_of_wrong_file_has_its_own_error() {
        let control = Control::new();
        let folder = tempfile::tempdir().expect("temp folder");
        assert!(matches!(OnnxFile::load(folder.path(), &control), Err(OnnxError::Folder { .. })));
        assert!(matches!(OnnxFile::load(folder.path().join("no.onnx"), &control), Err(OnnxError::Io { .. })));
        assert!(matches!(load(b""), Err(OnnxError::Empty { .. })));
        assert!(matches!(load(b"PK\x03\x04 and so on"), Err(OnnxError::NotOnnx { .. })));
        assert!(matches!(load(&[8, 8]), Err(OnnxError::NotOnnx { .. })));
        assert!(matches!(load(&[8, 8, 0x3A, 0]), Err(OnnxError::NotOnnx { .. })));
        let whole = model().encode_to_vec();
        assert!(load(&whole).is_ok());
        assert!(matches!(load(&whole[..whole.len() / 2]), Err(OnnxError::Truncated { .. })));
        // A graph whose node holds a field of wire type 7, which does not exist.
        assert!(matches!(load(&[8, 8, 0x3A, 3, 0x0A, 1, 0xFF]), Err(OnnxError::Damaged { .. })));
        for bytes in [&b""[..], b"PK\x03\x04", &whole[..9]] {
            let error = load(bytes).err().map(|error| (error.hint(), error.place()));
            assert!(error.is_some_and(|(hint, place)| !hint.is_empty() && place.ends_with("m.onnx")));
        }
    }

    #[test]
    fn damage_anywhere_is_no_panic() {
        let whole = model().encode_to_vec();
        let mut state = 1u64;
        for _ in 0..3000 {
            let mut bytes = whole.clone();
            for _ in 0..3 {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                let at = (state >> 33) as usize % bytes.len();
                bytes[at] = (state >> 24) as u8;
            }
            let bytes = Bytes::from(bytes);
            let _ = decode(Path::new("m"), &bytes);
            let _ = decode(Path::new("m"), &bytes.slice((state % 50) as usize..));
        }
    }

    #[test]
    fn nesting_beyond_the_limit_is_an_error() {
        let mut graph = model().graph.unwrap_or_default();
        for _ in 0..40 {
            let inner = attr_graph("then_branch", graph);
            graph = GraphProto { node: vec![node("If", "", "", &["c"], &["y"], vec![inner])], ..Default::default() };
        }
        let bytes = ModelProto { ir_version: Some(8), graph: Some(graph), ..Default::default() }.encode_to_vec();
        assert!(load(&bytes).is_err());
    }

    #[test]
    fn oddities_are_problems() {
        let mut bytes = ModelProto { ir_version: Some(99), ..model() }.encode_to_vec();
        bytes.extend([0xFA, 0x0F, 1, 0]); // field 255, one byte
        let problems = load(&bytes).expect("still a model").problems;
        let all: Vec<_> = problems.iter().map(|problem| problem.what.as_str()).collect();
        assert_eq!(all.len(), 3, "{all:?}");
        assert!(all[0].contains("4 bytes"));
        assert!(all[1].contains("IR version 99"));
        assert!(all[2].contains("no operator set"));
    }

    #[test]
    fn weights_stay_in_the_mapped_file_and_the_hash_is_the_files() {
        let folder = tempfile::tempdir().expect("temp folder");
        let path = folder.path().join("m.onnx");
        save(&model(), None, &path).expect("save");
        let file = OnnxFile::load(&path, &Control::new()).expect("load");
        let weight = file.graph().initializer[0].raw_data.clone().unwrap_or_default();
        assert_eq!(weight.len(), 256);
        assert!(!weight.is_unique());
        assert_eq!(file.sha256, hex(&Sha256::digest(std::fs::read(&path).expect("read"))));
        let control = Control::new();
        control.cancel();
        assert!(matches!(OnnxFile::load(&path, &control), Err(OnnxError::Cancelled)));
    }
}
