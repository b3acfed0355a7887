//! Element types: what an array holds against what the input takes, without losing anything unnoticed.

use half::{bf16, f16};

use super::dtype::DType;
use crate::tensor::Values;

/// Whether arrays of this type may feed an input that takes `wanted`: `Ok(None)` as they are, `Ok(Some(note))`
/// converted.
pub fn check(found: DType, wanted: &str) -> Result<Option<String>, String> {
    let name = found.name();
    let is_float = |name: &str| name.contains("float");
    if name == wanted {
        return Ok(None);
    }
    let known = matches!(
        wanted,
        "float32"
            | "float64"
            | "float16"
            | "bfloat16"
            | "int8"
            | "int16"
            | "int32"
            | "int64"
            | "uint8"
            | "uint16"
            | "uint32"
            | "uint64"
            | "bool"
    );
    if name == "string" || !known {
        return Err(format!("{name}, which cannot become {wanted}"));
    }
    match (is_float(name), is_float(wanted)) {
        (true, false) => Err(format!("{name}, which loses its fractions as {wanted}")),
        (true, true) => Ok(Some(format!("Values are rounded from {name} to {wanted}"))),
        (false, true) if name == "uint8" => {
            Ok(Some(format!("Values 0 to 255 are fed as {wanted} as they are, without scaling")))
        }
        (false, _) => Ok(Some(format!("Values are fed as {wanted}; each is checked to fit"))),
    }
}

/// The values as the type called `wanted`; on failure the element and the reason.
pub fn convert(values: Values, wanted: &str) -> Result<Values, (usize, String)> {
    if values.type_name() == wanted {
        return Ok(values);
    }
    if values.is_float() { from_floats(&floats(&values), wanted) } else { from_integers(&integers(&values)?, wanted) }
}

/// Number and text of the first value that is NaN or infinite.
pub fn non_finite(values: &Values) -> Option<(usize, String)> {
    macro_rules! first {
        ($values:expr) => {
            $values.iter().enumerate().find(|(_, x)| !x.is_finite()).map(|(index, x)| (index, x.to_string()))
        };
    }
    match values {
        Values::F32(v) => first!(v),
        Values::F64(v) => first!(v),
        Values::F16(v) => first!(v),
        Values::Bf16(v) => first!(v),
        _ => None,
    }
}

fn floats(values: &Values) -> Vec<f64> {
    match values {
        Values::F32(v) => v.iter().map(|&x| f64::from(x)).collect(),
        Values::F64(v) => v.clone(),
        Values::F16(v) => v.iter().map(|&x| f64::from(x)).collect(),
        Values::Bf16(v) => v.iter().map(|&x| f64::from(x)).collect(),
        _ => Vec::new(),
    }
}

fn integers(values: &Values) -> Result<Vec<i64>, (usize, String)> {
    macro_rules! widen {
        ($values:expr) => {
            $values.iter().map(|&x| i64::from(x)).collect()
        };
    }
    Ok(match values {
        Values::I8(v) => widen!(v),
        Values::I16(v) => widen!(v),
        Values::I32(v) => widen!(v),
        Values::I64(v) => v.clone(),
        Values::U8(v) => widen!(v),
        Values::U16(v) => widen!(v),
        Values::U32(v) => widen!(v),
        Values::Bool(v) => widen!(v),
        Values::U64(v) => each(v, "int64", |x| i64::try_from(x).ok())?,
        _ => return Err((0, format!("{} is no number", values.type_name()))),
    })
}

fn from_floats(values: &[f64], wanted: &str) -> Result<Values, (usize, String)> {
    Ok(match wanted {
        "float64" => Values::F64(values.to_vec()),
        "float32" => Values::F32(each(values, wanted, |x| Some(x as f32).filter(|x| x.is_finite()))?),
        "float16" => Values::F16(each(values, wanted, |x| Some(f16::from_f64(x)).filter(|x| x.is_finite()))?),
        "bfloat16" => Values::Bf16(each(values, wanted, |x| Some(bf16::from_f64(x)).filter(|x| x.is_finite()))?),
        _ => return Err((0, format!("fractions cannot become {wanted}"))),
    })
}

fn from_integers(values: &[i64], wanted: &str) -> Result<Values, (usize, String)> {
    macro_rules! fit {
        ($variant:ident, $type:ty) => {
            Values::$variant(each(values, wanted, |x| <$type>::try_from(x).ok())?)
        };
    }
    // A float of p significant bits holds every integer up to 2^p; above that only what it happens to hold is taken.
    let exact = |x: i64, back: f64| back < i64::MAX as f64 && back as i64 == x;
    Ok(match wanted {
        "float64" => Values::F64(each(values, wanted, |x| Some(x as f64).filter(|&y| exact(x, y)))?),
        "float32" => Values::F32(each(values, wanted, |x| Some(x as f32).filter(|&y| exact(x, y.into())))?),
        "float16" => {
            Values::F16(each(values, wanted, |x| Some(f16::from_f64(x as f64)).filter(|&y| exact(x, y.into())))?)
        }
        "bfloat16" => {
            Values::Bf16(each(values, wanted, |x| Some(bf16::from_f64(x as f64)).filter(|&y| exact(x, y.into())))?)
        }
        "int8" => fit!(I8, i8),
        "int16" => fit!(I16, i16),
        "int32" => fit!(I32, i32),
        "int64" => Values::I64(values.to_vec()),
        "uint8" => fit!(U8, u8),
        "uint16" => fit!(U16, u16),
        "uint32" => fit!(U32, u32),
        "uint64" => fit!(U64, u64),
        "bool" => Values::Bool(each(values, wanted, |x| matches!(x, 0 | 1).then_some(x == 1))?),
        _ => return Err((0, format!("numbers cannot become {wanted}"))),
    })
}

fn each<S: Copy + ToString, T>(
    values: &[S],
    wanted: &str,
    convert: impl Fn(S) -> Option<T>,
) -> Result<Vec<T>, (usize, String)> {
    let convert = |(index, &value): (usize, &S)| {
        convert(value).ok_or_else(|| (index, format!("{} does not fit {wanted}", value.to_string())))
    };
    values.iter().enumerate().map(convert).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_is_converted_and_what_does_not_is_named() {
        assert_eq!(convert(Values::U8(vec![0, 255]), "float32"), Ok(Values::F32(vec![0.0, 255.0])));
        assert_eq!(convert(Values::F64(vec![0.1]), "float32"), Ok(Values::F32(vec![0.1])));
        assert_eq!(convert(Values::I64(vec![7]), "int32"), Ok(Values::I32(vec![7])));
        assert_eq!(convert(Values::I32(vec![0, 1]), "bool"), Ok(Values::Bool(vec![false, true])));
        assert_eq!(convert(Values::I64(vec![0, 1 << 40]), "int32").expect_err("large").0, 1);
        assert_eq!(convert(Values::I64(vec![(1 << 24) + 1]), "float32").expect_err("odd").0, 0);
        assert_eq!(convert(Values::F32(vec![1.0, 1e6]), "float16").expect_err("overflow").0, 1);
        assert_eq!(convert(Values::U64(vec![u64::MAX]), "int64").expect_err("large").0, 0);
        assert!(convert(Values::I32(vec![2]), "bool").is_err());
    }

    #[test]
    fn types_are_checked_before_any_value() {
        assert_eq!(check(DType::F32, "float32"), Ok(None));
        assert!(check(DType::U8, "float32").expect("allowed").expect("note").contains("255"));
        assert!(check(DType::F32, "int64").is_err());
        assert!(check(DType::Text(3), "float32").is_err());
        assert!(check(DType::F32, "sequence").is_err());
    }

    #[test]
    fn the_first_non_finite_value_is_found() {
        assert_eq!(non_finite(&Values::F32(vec![0.0, f32::NAN, f32::INFINITY])), Some((1, "NaN".to_owned())));
        assert_eq!(non_finite(&Values::F64(vec![f64::NEG_INFINITY])), Some((0, "-inf".to_owned())));
        assert_eq!(non_finite(&Values::F32(vec![1.0])), None);
    }
}
