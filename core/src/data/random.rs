//! Random inputs, for a first look at a model without data: nothing measured with them says anything about quality.

use std::collections::BTreeMap;

use fastrand::Rng;
use half::{bf16, f16};

use super::shapes::concrete_shapes;
use super::{DataError, Sample};
use crate::port::Port;
use crate::tensor::{Tensor, Values};

/// Seeded random samples of every port's concrete shape.
#[derive(Debug)]
pub struct Random {
    ports: Vec<Port>,
    shapes: Vec<Vec<usize>>,
    seed: u64,
}

impl Random {
    /// Settles the shapes and checks that every element type can be made.
    pub fn new(ports: &[Port], given: &BTreeMap<String, Vec<usize>>, seed: u64) -> Result<Self, DataError> {
        let shapes = concrete_shapes(ports, given)?;
        let random = Self { ports: ports.to_vec(), shapes, seed };
        for port in &random.ports {
            if values(&mut Rng::with_seed(0), port, 0).is_none() {
                return Err(DataError::Type {
                    array: port.name.clone(),
                    found: "made of random numbers".to_owned(),
                    wanted: port.element_type.clone(),
                });
            }
        }
        Ok(random)
    }

    /// Sample `index`: the same for the same seed, whichever samples were made before it.
    pub fn sample(&self, index: usize) -> Sample {
        let mut rng = Rng::with_seed(self.seed ^ (index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let feeds = self.ports.iter().zip(&self.shapes).filter_map(|(port, shape)| {
            let values = values(&mut rng, port, shape.iter().product())?;
            Some((port.name.clone(), Tensor { shape: shape.clone(), values }))
        });
        Sample { feeds: feeds.collect() }
    }
}

fn values(rng: &mut Rng, port: &Port, count: usize) -> Option<Values> {
    let (low, high) = integer_range(port);
    macro_rules! integers {
        ($variant:ident, $type:ty) => {
            Values::$variant(
                (0..count).map(|_| <$type>::try_from(rng.i64(low..=high)).unwrap_or(<$type>::MAX)).collect(),
            )
        };
    }
    Some(match port.element_type.as_str() {
        "float32" => Values::F32((0..count).map(|_| normal(rng)).collect()),
        "float64" => Values::F64((0..count).map(|_| f64::from(normal(rng))).collect()),
        "float16" => Values::F16((0..count).map(|_| f16::from_f32(normal(rng))).collect()),
        "bfloat16" => Values::Bf16((0..count).map(|_| bf16::from_f32(normal(rng))).collect()),
        "int8" => integers!(I8, i8),
        "int16" => integers!(I16, i16),
        "int32" => integers!(I32, i32),
        "int64" => integers!(I64, i64),
        "uint8" => integers!(U8, u8),
        "uint16" => integers!(U16, u16),
        "uint32" => integers!(U32, u32),
        "uint64" => integers!(U64, u64),
        "bool" => Values::Bool((0..count).map(|_| rng.bool()).collect()),
        _ => return None,
    })
}

/// What integers of such an input usually are: token numbers, masks of ones, a sample rate, raw bytes.
fn integer_range(port: &Port) -> (i64, i64) {
    let (low, high) = usual_range(port);
    // What has no row in a table that it looks up would fail.
    let last = port.table_rows.and_then(|rows| i64::try_from(rows).ok()).map(|rows| (rows - 1).max(0));
    (low.min(last.unwrap_or(low)), high.min(last.unwrap_or(high)))
}

fn usual_range(port: &Port) -> (i64, i64) {
    let name = port.name.to_ascii_lowercase();
    if name.contains("mask") {
        (1, 1)
    } else if name == "sr" || name.contains("sample_rate") {
        (16000, 16000)
    } else if name.contains("type") || name.contains("segment") {
        (0, 0)
    } else if name.contains("id") || name.contains("token") {
        (0, 100)
    } else {
        (0, 2)
    }
}

/// A draw of N(0, 1) by Box and Muller, in single precision.
fn normal(rng: &mut Rng) -> f32 {
    let radius = (-2.0 * (1.0 - rng.f64()).ln()).sqrt();
    (radius * (std::f64::consts::TAU * rng.f64()).cos()) as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::Dim;

    fn port(name: &str, element_type: &str, shape: &[usize]) -> Port {
        Port {
            name: name.to_owned(),
            element_type: element_type.to_owned(),
            shape: shape.iter().map(|&size| Dim::Fixed(size)).collect(),
            has_shape: true,
            table_rows: None,
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_sample_in_any_order() {
        let ports = [port("x", "float32", &[1, 50_000]), port("input_ids", "int64", &[1, 64])];
        let random = Random::new(&ports, &BTreeMap::new(), 7).expect("ports");
        let (late, early) = (random.sample(3), random.sample(0));
        assert_eq!(late, random.sample(3));
        assert_ne!(late, early);
        let Values::F32(x) = &late.feeds[0].1.values else { panic!("type") };
        let mean = x.iter().sum::<f32>() / x.len() as f32;
        let variance = x.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / x.len() as f32;
        assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.03, "{mean} {variance}");
        let Values::I64(ids) = &late.feeds[1].1.values else { panic!("type") };
        assert!(ids.iter().all(|id| (0..=100).contains(id)));
        let small = Port { table_rows: Some(8), ..port("input_ids", "int64", &[1, 64]) };
        let Values::I64(ids) = values(&mut Rng::with_seed(1), &small, 64).expect("ids") else { panic!("type") };
        assert!(ids.iter().all(|id| (0..8).contains(id)));
    }

    #[test]
    fn what_is_no_number_is_refused_by_name() {
        let error = Random::new(&[port("text", "string", &[1])], &BTreeMap::new(), 0).expect_err("string");
        assert!(error.to_string().contains("\"text\""));
    }
}
