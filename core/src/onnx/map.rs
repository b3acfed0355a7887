//! Memory-mapped files as `Bytes`: the one place of this module with `unsafe`.

use std::fs::File;

use bytes::Bytes;
use memmap2::Mmap;

/// Maps the whole file read-only. An empty file gives empty bytes, as mapping nothing is refused by some systems.
#[allow(unsafe_code)]
pub(super) fn map(file: &File) -> std::io::Result<Bytes> {
    if file.metadata()?.len() == 0 {
        return Ok(Bytes::new());
    }
    // SAFETY: the mapping is read-only and owned by the `Bytes`, which keeps it alive for as long as any slice of it. What
    // Rust cannot rule out is another program writing into or shortening the file meanwhile. Nibble itself never does: it
    // replaces files by rename, which leaves the mapped one as it was. Anything else that opens models by mapping them,
    // ONNX Runtime's external data included, lives with the same condition.
    let map = unsafe { Mmap::map(file)? };
    Ok(Bytes::from_owner(map))
}
