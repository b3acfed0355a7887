//! The formulae against numbers that ONNX Runtime computed (`fixtures/runtime_numbers.py`), to the last bit.

use serde::Deserialize;

use super::{QuantParams, QuantizedWeight, WeightLayout, activation_params, bias_i32, matmul_nbits};
use crate::plan::{Granularity, Symmetry};

#[derive(Deserialize)]
struct Fixture {
    quantize: Vec<RoundTripCase>,
    dynamic: Vec<DynamicCase>,
    bias: BiasCase,
    nbits: Vec<NBitsCase>,
}

#[derive(Deserialize)]
struct RoundTripCase {
    integer: String,
    scale: u32,
    zero_point: i32,
    x: Vec<u32>,
    q: Vec<i32>,
    y: Vec<u32>,
}

#[derive(Deserialize)]
struct DynamicCase {
    x: Vec<u32>,
    q: Vec<u8>,
    scale: u32,
    zero_point: i32,
}

#[derive(Deserialize)]
struct BiasCase {
    bias: Vec<u32>,
    input_scale: u32,
    weight_scales: Vec<u32>,
    q: Vec<i32>,
}

#[derive(Deserialize)]
struct NBitsCase {
    bits: u32,
    depth: usize,
    columns: usize,
    block: u32,
    values: Vec<i8>,
    scales: Vec<u32>,
    zero_points: Vec<i8>,
    weight: Vec<u32>,
    packed: Vec<u8>,
    packed_zero_points: Vec<u8>,
}

fn fixture() -> Fixture {
    serde_json::from_str(include_str!("fixtures/runtime_numbers.json")).expect("fixture")
}

fn floats(bits: &[u32]) -> Vec<f32> {
    bits.iter().map(|&bits| f32::from_bits(bits)).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn quantize_and_dequantize() {
    for case in fixture().quantize {
        let (qmin, qmax) = match case.integer.as_str() {
            "uint8" => (0, 255),
            "int8" => (-128, 127),
            "uint16" => (0, 65_535),
            _ => (-8, 7),
        };
        let params = QuantParams { scale: f32::from_bits(case.scale), zero_point: case.zero_point, qmin, qmax };
        let x = floats(&case.x);
        let q: Vec<i32> = x.iter().map(|&x| params.quantize(x)).collect();
        assert_eq!(q, case.q, "{params:?}");
        let y: Vec<f32> = q.iter().map(|&q| params.dequantize(q)).collect();
        assert_eq!(bits(&y), case.y, "{params:?}");
        let mut fake = x.clone();
        params.fake_slice(&mut fake);
        assert_eq!(bits(&fake), case.y, "{params:?}");
        if case.integer == "uint8" {
            assert_eq!(params.quantize_u8(&x).iter().map(|&q| i32::from(q)).collect::<Vec<_>>(), case.q);
        } else if case.integer != "uint16" {
            let mut out = vec![0; x.len()];
            params.quantize_i8(&x, &mut out);
            assert_eq!(out.iter().map(|&q| i32::from(q)).collect::<Vec<_>>(), case.q);
        }
    }
}

#[test]
fn ranges_of_dynamic_quantization() {
    for case in fixture().dynamic {
        let x = floats(&case.x);
        let (lo, hi) = x.iter().fold((0.0_f32, 0.0_f32), |(lo, hi), &x| (lo.min(x), hi.max(x)));
        let params = activation_params(lo, hi, Symmetry::Asymmetric);
        assert_eq!((params.scale.to_bits(), params.zero_point), (case.scale, case.zero_point));
        assert_eq!(params.quantize_u8(&x), case.q);
    }
}

#[test]
fn biases_as_the_runtime_makes_them() {
    let case = fixture().bias;
    let bias = bias_i32(&floats(&case.bias), f32::from_bits(case.input_scale), &floats(&case.weight_scales));
    assert_eq!((bias.values, bias.saturated), (case.q, 0));
}

#[test]
fn packing_that_matmul_nbits_reads_back() {
    for case in fixture().nbits {
        let weight = QuantizedWeight {
            bits: case.bits,
            layout: WeightLayout { outer: case.depth, channels: case.columns, inner: 1 },
            granularity: Granularity::Block(case.block),
            values: case.values,
            scales: floats(&case.scales),
            zero_points: case.zero_points,
            non_finite: 0,
        };
        assert_eq!(bits(&weight.dequantize()), case.weight);
        let packed = matmul_nbits(&weight, 32);
        assert_eq!(packed.packed, case.packed);
        assert_eq!(packed.zero_points, Some(case.packed_zero_points));
        assert_eq!(bits(&packed.scales), case.scales);
    }
}
