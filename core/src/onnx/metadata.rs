//! The metadata of a model file without reading the model: top-level fields are skipped by their length.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use prost::Message;

use super::proto::StringStringEntryProto;

/// Field number of `metadata_props` in `ModelProto`.
const METADATA_PROPS: u64 = 14;
/// Longest entry read; a plan for thousands of layers is far below.
const MAX_ENTRY_BYTES: u64 = 64 << 20;

/// The key-value pairs in the file's `metadata_props`, whatever its size. A file that is no protobuf message is an error;
/// one that holds no metadata gives an empty map.
pub fn metadata(path: &Path) -> io::Result<BTreeMap<String, String>> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    read(BufReader::with_capacity(4096, file), length)
}

fn read(mut input: impl Read + Seek, length: u64) -> io::Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    let mut at = 0;
    while at < length {
        let (tag, taken) = varint(&mut input)?;
        at += taken;
        if tag >> 3 == 0 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let skip = match tag & 7 {
            0 => {
                at += varint(&mut input)?.1;
                continue;
            }
            1 => 8,
            5 => 4,
            2 => {
                let (size, taken) = varint(&mut input)?;
                at += taken;
                size
            }
            _ => return Err(io::ErrorKind::InvalidData.into()),
        };
        if skip > length.saturating_sub(at) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        at += skip;
        if tag >> 3 == METADATA_PROPS && tag & 7 == 2 && skip <= MAX_ENTRY_BYTES {
            let mut bytes = Vec::new();
            input.by_ref().take(skip).read_to_end(&mut bytes)?;
            let entry = StringStringEntryProto::decode(bytes.as_slice()).map_err(io::Error::other)?;
            found.insert(entry.key().to_owned(), entry.value().to_owned());
        } else {
            input.seek(SeekFrom::Start(at))?;
        }
    }
    Ok(found)
}

/// A value of at most 64 bits and the number of bytes it took.
fn varint(input: &mut impl Read) -> io::Result<(u64, u64)> {
    let mut value = 0;
    for index in 0..10_u64 {
        let mut byte = [0];
        input.read_exact(&mut byte)?;
        let [byte] = byte;
        if index < 9 || byte < 2 {
            value |= u64::from(byte & 0x7F) << (7 * index);
        }
        if byte < 0x80 {
            return Ok((value, index + 1));
        }
    }
    Err(io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::proto::ModelProto;
    use std::io::Cursor;

    fn entry(key: &str, value: &str) -> StringStringEntryProto {
        StringStringEntryProto { key: Some(key.to_owned()), value: Some(value.to_owned()) }
    }

    #[test]
    fn finds_metadata_behind_everything_else() {
        let model = ModelProto {
            ir_version: Some(8),
            producer_name: Some("x".repeat(300)),
            metadata_props: vec![entry("a", "1"), entry("nibble.plan", "{}")],
            ..ModelProto::default()
        };
        let bytes = model.encode_to_vec();
        let found = read(Cursor::new(&bytes), bytes.len() as u64).expect("read");
        assert_eq!(found.len(), 2);
        assert_eq!(found["nibble.plan"], "{}");
    }

    #[test]
    fn what_is_no_model_is_an_error_and_no_panic() {
        for bytes in [b"Hello, world".as_slice(), &[0xFF; 40], &[0x72, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F, 1], &[0, 0]] {
            assert!(read(Cursor::new(bytes), bytes.len() as u64).is_err(), "{bytes:?}");
        }
        assert!(read(Cursor::new(&[]), 0).expect("empty").is_empty());
    }
}
