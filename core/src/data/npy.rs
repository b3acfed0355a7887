//! NumPy arrays on disk: the header (`ndarray-npy` parses it), and any run of rows as values, read by seeking.

use std::io::{Read, Seek, SeekFrom};
use std::sync::{Mutex, PoisonError};

use half::f16;
use ndarray_npy::npy::header::Header;

use super::DataError;
use super::dtype::DType;
use crate::limits;
use crate::tensor::Values;

/// Longest header read; NumPy itself refuses more than 10,000 bytes.
const MAX_HEADER_BYTES: u32 = 1 << 16;

/// Where an array's bytes lie: a file, a member of an archive, or an inflated copy of one.
pub trait Bytes: Read + Seek + Send {}
impl<T: Read + Seek + Send> Bytes for T {}

/// An array on disk.
pub struct NpyArray {
    /// File and array, for messages.
    pub place: String,
    /// Dimensions.
    pub shape: Vec<usize>,
    /// Element type.
    pub dtype: DType,
    big_endian: bool,
    fortran: bool,
    element_bytes: usize,
    /// Where the first element lies.
    start: u64,
    bytes: Mutex<Box<dyn Bytes>>,
}

impl std::fmt::Debug for NpyArray {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {:?}", self.place, self.dtype.name(), self.shape)
    }
}

impl NpyArray {
    /// Reads the header at `start` of `bytes`, whose array must end by `end`.
    pub fn open(mut bytes: Box<dyn Bytes>, start: u64, end: u64, place: String) -> Result<Self, DataError> {
        let damaged = |why: String| DataError::Format {
            place: place.clone(),
            why,
            hint: "Save it again with numpy.save, numpy.savez or numpy.savez_compressed".to_owned(),
        };
        bytes.seek(SeekFrom::Start(start)).map_err(|e| damaged(e.to_string()))?;
        let text = read_header(&mut bytes).map_err(&damaged)?;
        let header = Header::from_reader(&mut text.as_slice()).map_err(|e| damaged(format!("no .npy header: {e}")))?;
        let descriptor = header.type_descriptor.as_string().cloned();
        let Some((dtype, big_endian)) = descriptor.as_deref().and_then(DType::parse) else {
            let found = descriptor.unwrap_or_else(|| "a record".to_owned());
            return Err(DataError::Format {
                why: format!("element type {found} is not read"),
                hint: "Save numbers, booleans or text of fixed width, e.g. x.astype(\"float32\"); object arrays need a pickle"
                    .to_owned(),
                place,
            });
        };
        let element_bytes = dtype.size().ok_or_else(|| damaged("elements are too large".to_owned()))?;
        let total = header
            .shape
            .iter()
            .try_fold(element_bytes as u64, |product, &size| product.checked_mul(size as u64))
            .filter(|_| header.shape.len() <= limits::MAX_RANK)
            .ok_or_else(|| damaged(format!("shape {:?} is too large", header.shape)))?;
        let start = start + text.len() as u64;
        if start.checked_add(total).is_none_or(|needed| needed > end) {
            let there = end.saturating_sub(start);
            return Err(damaged(format!("it is cut short: {there} bytes of {total} for shape {:?}", header.shape)));
        }
        Ok(Self {
            fortran: header.layout.is_fortran() && header.shape.len() > 1,
            shape: header.shape,
            dtype,
            big_endian,
            element_bytes,
            start,
            bytes: Mutex::new(bytes),
            place,
        })
    }

    /// Whether the first axis varies fastest: rows are then gathered element by element, which is slow.
    pub fn is_fortran(&self) -> bool {
        self.fortran
    }

    /// Elements of one entry of the leading axis.
    pub fn row_elements(&self) -> usize {
        self.shape.iter().skip(1).product()
    }

    /// The whole array, row-major.
    pub fn all(&self) -> Result<Values, DataError> {
        match self.shape.first() {
            Some(&rows) => self.rows(0, rows),
            None => Ok(self.decode(&self.read(0, 1)?)),
        }
    }

    /// `count` entries of the leading axis from `first` on, row-major.
    pub fn rows(&self, first: usize, count: usize) -> Result<Values, DataError> {
        let row = self.row_elements();
        let elements = row.checked_mul(count).filter(|n| *n <= limits::MAX_SAMPLE_ELEMENTS).ok_or_else(|| {
            self.wrong(format!("one sample of shape {:?} exceeds {} elements", self.shape, limits::MAX_SAMPLE_ELEMENTS))
        })?;
        if elements == 0 || self.element_bytes == 0 {
            return Ok(self.decode(&[]));
        }
        if !self.fortran {
            return Ok(self.decode(&self.read(first * row, elements)?));
        }
        // Fortran order: element (i, j…) lies at i + rows·(j + …), so `count` neighbours in i are read for each j….
        let rows = self.shape.first().copied().unwrap_or(1);
        let rest = self.shape.get(1..).unwrap_or_default();
        let mut out = vec![0; elements * self.element_bytes];
        let mut index = vec![0; rest.len()];
        for column in 0..row {
            let run = self.read(column * rows + first, count)?;
            let position = rest.iter().zip(&index).fold(0, |flat, (size, i)| flat * size + i);
            for (r, element) in run.chunks_exact(self.element_bytes).enumerate() {
                let at = (r * row + position) * self.element_bytes;
                if let Some(slot) = out.get_mut(at..at + self.element_bytes) {
                    slot.copy_from_slice(element);
                }
            }
            for (i, size) in index.iter_mut().zip(rest) {
                *i += 1;
                if *i < *size {
                    break;
                }
                *i = 0;
            }
        }
        Ok(self.decode(&out))
    }

    fn read(&self, first: usize, elements: usize) -> Result<Vec<u8>, DataError> {
        let mut buffer = vec![0; elements * self.element_bytes];
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        bytes
            .seek(SeekFrom::Start(self.start + first as u64 * self.element_bytes as u64))
            .and_then(|_| bytes.read_exact(&mut buffer))
            .map_err(|e| self.wrong(format!("reading stopped: {e}")))?;
        Ok(buffer)
    }

    fn decode(&self, bytes: &[u8]) -> Values {
        macro_rules! numbers {
            ($variant:ident, $type:ty) => {{
                let (chunks, _) = bytes.as_chunks::<{ size_of::<$type>() }>();
                let from = if self.big_endian { <$type>::from_be_bytes } else { <$type>::from_le_bytes };
                Values::$variant(chunks.iter().map(|chunk| from(*chunk)).collect())
            }};
        }
        match self.dtype {
            DType::F16 => numbers!(F16, f16),
            DType::F32 => numbers!(F32, f32),
            DType::F64 => numbers!(F64, f64),
            DType::I8 => numbers!(I8, i8),
            DType::I16 => numbers!(I16, i16),
            DType::I32 => numbers!(I32, i32),
            DType::I64 => numbers!(I64, i64),
            DType::U8 => Values::U8(bytes.to_vec()),
            DType::U16 => numbers!(U16, u16),
            DType::U32 => numbers!(U32, u32),
            DType::U64 => numbers!(U64, u64),
            DType::Bool => Values::Bool(bytes.iter().map(|&byte| byte != 0).collect()),
            DType::Text(0) | DType::Bytes(0) => Values::Text(Vec::new()),
            DType::Text(_) => Values::Text(bytes.chunks_exact(self.element_bytes).map(|t| self.text(t)).collect()),
            DType::Bytes(_) => {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned();
                Values::Text(bytes.chunks_exact(self.element_bytes).map(text).collect())
            }
        }
    }

    fn text(&self, bytes: &[u8]) -> String {
        let (chunks, _) = bytes.as_chunks::<4>();
        let from = if self.big_endian { u32::from_be_bytes } else { u32::from_le_bytes };
        let chars = chunks.iter().map(|chunk| char::from_u32(from(*chunk)).unwrap_or(char::REPLACEMENT_CHARACTER));
        chars.collect::<String>().trim_end_matches('\0').to_owned()
    }

    fn wrong(&self, why: String) -> DataError {
        DataError::Format {
            place: self.place.clone(),
            why,
            hint: "Check that the file is whole and is not being written".to_owned(),
        }
    }
}

/// The header's bytes, magic number and all. Length and nesting are bounded before anything parses it.
fn read_header(reader: &mut dyn Bytes) -> Result<Vec<u8>, String> {
    let mut text = vec![0; 8];
    let mut more = |text: &mut Vec<u8>, count: usize| {
        let old = text.len();
        text.resize(old + count, 0);
        reader.read_exact(&mut text[old..]).map_err(|e| format!("no .npy header: {e}"))
    };
    text.clear();
    more(&mut text, 8)?;
    if !text.starts_with(b"\x93NUMPY") {
        return Err("it does not begin as an .npy file does".to_owned());
    }
    let length = if text.get(6) == Some(&1) {
        more(&mut text, 2)?;
        text.last_chunk::<2>().map(|bytes| u32::from(u16::from_le_bytes(*bytes)))
    } else {
        more(&mut text, 4)?;
        text.last_chunk::<4>().map(|bytes| u32::from_le_bytes(*bytes))
    };
    let length = length.filter(|length| *length <= MAX_HEADER_BYTES).ok_or("its header is too long")?;
    let prefix = text.len();
    more(&mut text, length as usize)?;
    let opened = text.iter().skip(prefix).filter(|byte| b"([{".contains(byte)).count();
    if opened > limits::MAX_RANK {
        return Err("its header is nested too deeply".to_owned());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    /// An `.npy` file by hand: version, dictionary, raw data.
    fn npy(version: u8, dictionary: &str, data: &[u8]) -> Vec<u8> {
        let mut out = b"\x93NUMPY".to_vec();
        out.extend([version, 0]);
        let text = format!("{dictionary}\n");
        if version == 1 {
            out.extend((text.len() as u16).to_le_bytes());
        } else {
            out.extend((text.len() as u32).to_le_bytes());
        }
        out.extend(text.as_bytes());
        out.extend(data);
        out
    }

    fn open(bytes: Vec<u8>) -> Result<NpyArray, DataError> {
        let end = bytes.len() as u64;
        NpyArray::open(Box::new(Cursor::new(bytes)), 0, end, "x.npy".to_owned())
    }

    #[test]
    fn versions_orders_and_both_endians() {
        let dictionary = "{'descr': '>i2', 'fortran_order': False, 'shape': (2, 2), }";
        let array = open(npy(1, dictionary, &[0, 1, 0, 2, 0, 3, 0xff, 0xff])).expect("v1");
        assert_eq!(array.all().expect("values"), Values::I16(vec![1, 2, 3, -1]));
        assert_eq!(array.rows(1, 1).expect("row"), Values::I16(vec![3, -1]));
        for version in [2, 3] {
            let scalar =
                open(npy(version, "{'descr': '<f8', 'fortran_order': False, 'shape': ()}", &2.5f64.to_le_bytes()));
            assert_eq!(scalar.expect("header").all().expect("values"), Values::F64(vec![2.5]));
        }
    }

    #[test]
    fn fortran_order_gives_the_same_rows() {
        // numpy.arange(24, dtype="u1").reshape(2, 3, 4), stored with numpy.asfortranarray.
        let (a, b, c) = (2, 3, 4);
        let mut data = vec![0; 24];
        for i in 0..a {
            for j in 0..b {
                for k in 0..c {
                    data[i + a * (j + b * k)] = ((i * b + j) * c + k) as u8;
                }
            }
        }
        let array = open(npy(1, "{'descr': '|u1', 'fortran_order': True, 'shape': (2, 3, 4)}", &data)).expect("open");
        assert!(array.is_fortran());
        assert_eq!(array.all().expect("all"), Values::U8((0..24).collect()));
        assert_eq!(array.rows(1, 1).expect("row"), Values::U8((12..24).collect()));
    }

    #[test]
    fn text_is_read_for_labels() {
        let data: Vec<u8> =
            ['a', 'ß', '\0', 'b', '\0', '\0'].iter().flat_map(|&c| u32::from(c).to_le_bytes()).collect();
        let array = open(npy(1, "{'descr': '<U3', 'fortran_order': False, 'shape': (2,)}", &data)).expect("open");
        assert_eq!(array.all().expect("all"), Values::Text(vec!["aß".to_owned(), "b".to_owned()]));
    }

    #[test]
    fn damaged_files_are_refused_with_a_hint() {
        let float = |shape: &str| format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}");
        let deep = format!("{{'descr': {}1{}}}", "(".repeat(30_000), ")".repeat(30_000));
        let objects = "{'descr': '|O', 'fortran_order': False, 'shape': (1,)}";
        let mut long = b"\x93NUMPY\x02\x00".to_vec();
        long.extend(u32::MAX.to_le_bytes());
        let bad = [
            Vec::new(),
            b"PK\x03\x04".to_vec(),
            long,
            npy(1, "no dictionary", &[]),
            npy(9, &float("(1,)"), &[0; 4]),
            npy(1, &float("(2,)"), &[0; 7]),
            npy(1, &float("(18446744073709551615, 18446744073709551615)"), &[]),
            npy(1, objects, &[0; 8]),
            npy(2, &deep, &[]),
        ];
        for bytes in bad {
            let error = open(bytes).expect_err("damaged");
            assert!(!error.hint().is_empty() && error.place() == "x.npy", "{error}");
        }
    }
}
