//! A look at the outermost fields of a file, before it is decoded: is it a model at all, and is it whole?
//!
//! The decoder's own errors ("buffer underflow") cannot tell a picture from a download that stopped early.

/// What the outermost fields say.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outline {
    /// All fields are whole.
    Whole {
        /// Whether a graph is among them.
        has_graph: bool,
    },
    /// The last field promises this many bytes more than there are.
    Truncated { missing: u64 },
    /// The first field is none of a model's, or a later one has no possible form.
    Foreign,
}

/// Numbers and wire types of `ModelProto`'s fields (0 = number, 2 = length and bytes).
const FIELDS: [(u64, u64); 12] =
    [(1, 0), (2, 2), (3, 2), (4, 2), (5, 0), (6, 2), (7, 2), (8, 2), (14, 2), (20, 2), (25, 2), (26, 2)];

pub(super) fn outline(bytes: &[u8]) -> Outline {
    let mut rest = bytes;
    let mut has_graph = false;
    let mut first = true;
    while !rest.is_empty() {
        let key = match varint(&mut rest) {
            Ok(key) => key,
            Err(Bad::Short) if !first => return Outline::Truncated { missing: 1 },
            Err(_) => return Outline::Foreign,
        };
        let (field, wire) = (key >> 3, key & 7);
        let known = FIELDS.iter().find(|(number, _)| *number == field);
        // Later releases of ONNX may add fields; a file that begins with one is no model we know of.
        if field == 0 || known.is_some_and(|(_, expected)| *expected != wire) || (first && known.is_none()) {
            return Outline::Foreign;
        }
        let length = match wire {
            0 => match varint(&mut rest) {
                Ok(_) => 0,
                Err(Bad::Short) => return Outline::Truncated { missing: 1 },
                Err(Bad::TooLong) => return Outline::Foreign,
            },
            1 => 8,
            2 => match varint(&mut rest) {
                Ok(length) => length,
                Err(Bad::Short) => return Outline::Truncated { missing: 1 },
                Err(Bad::TooLong) => return Outline::Foreign,
            },
            5 => 4,
            _ => return Outline::Foreign,
        };
        let have = rest.len() as u64;
        if length > have {
            // A first field of absurd length is chance, not a model.
            return if first && field != 7 { Outline::Foreign } else { Outline::Truncated { missing: length - have } };
        }
        rest = rest.get(length as usize..).unwrap_or_default();
        has_graph |= field == 7;
        first = false;
    }
    Outline::Whole { has_graph }
}

enum Bad {
    Short,
    TooLong,
}

fn varint(rest: &mut &[u8]) -> Result<u64, Bad> {
    let mut value = 0;
    for shift in (0..70).step_by(7) {
        let (&byte, tail) = rest.split_first().ok_or(Bad::Short)?;
        *rest = tail;
        if shift < 64 {
            value |= u64::from(byte & 0x7F) << shift;
        }
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(Bad::TooLong)
}

/// What a file that is no model seems to be, and what to do about it.
pub(super) fn foreign(bytes: &[u8]) -> (String, String) {
    let starts = |prefix: &[u8]| bytes.starts_with(prefix);
    let at_4 = |magic: &[u8]| bytes.get(4..8) == Some(magic);
    let (reason, advice) = if starts(b"version https://git-lfs") {
        (
            "it is a Git LFS pointer, the model itself was not fetched",
            "Run `git lfs pull` in the repository it came from",
        )
    } else if starts(b"PK\x03\x04") {
        (
            "it is a zip archive, as PyTorch checkpoints are",
            "Export a PyTorch model with torch.onnx.export, or unpack the archive and open the .onnx file in it",
        )
    } else if starts(b"<!DOCTYPE") || starts(b"<!doctype") || starts(b"<html") {
        ("it is a web page", "Download the model again; the server sent a page in its place")
    } else if starts(b"\x89HDF") {
        ("it is an HDF5 file, as older Keras models are", "Convert it with tf2onnx and open the result")
    } else if at_4(b"TFL3") {
        ("it is a TensorFlow Lite model", "Convert it with tf2onnx --tflite and open the result")
    } else if at_4(b"ORTM") {
        ("it is in ONNX Runtime's own .ort format", "Open the .onnx file that the .ort file was made from")
    } else if starts(b"GGUF") {
        ("it is a GGUF model", "GGUF models are already quantized for llama.cpp; open the ONNX export of the model")
    } else if bytes.get(8..10) == Some(b"{\"") {
        ("it is a safetensors file: weights without a graph", "Export the whole model to ONNX and open that")
    } else {
        ("the bytes are no ONNX protobuf", "Choose a file in ONNX format, usually named .onnx")
    };
    (reason.to_owned(), advice.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_whole_cut_and_foreign_apart() {
        // ir_version 8, graph of 2 bytes
        let whole = [0x08, 8, 0x3A, 2, 0x12, 0];
        assert_eq!(outline(&whole), Outline::Whole { has_graph: true });
        assert_eq!(outline(&whole[..2]), Outline::Whole { has_graph: false });
        assert_eq!(outline(&whole[..5]), Outline::Truncated { missing: 1 });
        assert_eq!(outline(&whole[..3]), Outline::Truncated { missing: 1 });
        assert_eq!(outline(b"Hello"), Outline::Foreign);
        assert_eq!(outline(b"\x89PNG\r\n"), Outline::Foreign);
        assert_eq!(outline(&[0xFF; 32]), Outline::Foreign);
        assert_eq!(outline(&[]), Outline::Whole { has_graph: false });
    }

    #[test]
    fn names_what_people_open_by_mistake() {
        assert!(foreign(b"version https://git-lfs.github.com/spec/v1").0.contains("Git LFS"));
        assert!(foreign(b"\x1c\0\0\0TFL3....").0.contains("TensorFlow Lite"));
        assert!(foreign(b"").0.contains("no ONNX protobuf"));
    }
}
