//! NumPy's element types.

/// Element type of an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DType {
    F16,
    F32,
    F64,
    I8,
    I16,
    I32,
    I64,
    U8,
    U16,
    U32,
    U64,
    Bool,
    /// So many UTF-32 characters.
    Text(usize),
    /// So many bytes.
    Bytes(usize),
}

impl DType {
    /// From NumPy's descriptor, e.g. `<f4`; with whether the bytes are big endian.
    pub fn parse(text: &str) -> Option<(Self, bool)> {
        let mut chars = text.chars();
        let big = match chars.next()? {
            '<' | '|' => false,
            '>' => true,
            '=' => cfg!(target_endian = "big"),
            _ => return None,
        };
        let rest = chars.as_str();
        let count = rest.get(1..)?.parse::<usize>().ok();
        Some((
            match rest {
                "f2" => Self::F16,
                "f4" => Self::F32,
                "f8" => Self::F64,
                "i1" => Self::I8,
                "i2" => Self::I16,
                "i4" => Self::I32,
                "i8" => Self::I64,
                "u1" => Self::U8,
                "u2" => Self::U16,
                "u4" => Self::U32,
                "u8" => Self::U64,
                "b1" => Self::Bool,
                _ if rest.starts_with('U') => Self::Text(count?),
                _ if rest.starts_with('S') => Self::Bytes(count?),
                _ => return None,
            },
            big,
        ))
    }

    /// Bytes of one element; `None` on overflow.
    pub fn size(self) -> Option<usize> {
        Some(match self {
            Self::I8 | Self::U8 | Self::Bool => 1,
            Self::F16 | Self::I16 | Self::U16 => 2,
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::F64 | Self::I64 | Self::U64 => 8,
            Self::Text(chars) => chars.checked_mul(4)?,
            Self::Bytes(bytes) => bytes,
        })
    }

    /// ONNX's name of it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F16 => "float16",
            Self::F32 => "float32",
            Self::F64 => "float64",
            Self::I8 => "int8",
            Self::I16 => "int16",
            Self::I32 => "int32",
            Self::I64 => "int64",
            Self::U8 => "uint8",
            Self::U16 => "uint16",
            Self::U32 => "uint32",
            Self::U64 => "uint64",
            Self::Bool => "bool",
            Self::Text(_) | Self::Bytes(_) => "string",
        }
    }
}
