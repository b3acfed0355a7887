//! The formulae against ONNX Runtime itself on random tensors, to the last bit.

use super::{QuantParams, activation_params, pack_4bit, requantize};
use crate::Control;
use crate::data::Sample;
use crate::onnx::build::{attr_int, node, tensor_f32, tensor_i32, tensor_raw, value_info, value_info_typed};
use crate::onnx::proto::tensor_proto::DataType;
use crate::onnx::proto::{GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto};
use crate::plan::Symmetry;
use crate::runtime::{Level, Runtime, Session, SessionOptions, Source};
use crate::tensor::{Tensor, Values};

const COUNT: usize = 20_000;

/// Runs nodes on one float input `x` of any length.
fn run(nodes: Vec<NodeProto>, initializer: Vec<TensorProto>, outputs: &[&str], x: &Tensor) -> Vec<Values> {
    let dims: Vec<i64> = x.shape.iter().map(|&size| size as i64).collect();
    let graph = GraphProto {
        name: Some("g".to_owned()),
        node: nodes,
        initializer,
        input: vec![value_info_typed("x", DataType::Float, &dims)],
        output: outputs.iter().map(|name| value_info(name)).collect(),
        ..Default::default()
    };
    let proto = ModelProto {
        ir_version: Some(10),
        opset_import: vec![OperatorSetIdProto { domain: Some(String::new()), version: Some(21) }],
        graph: Some(graph),
        ..Default::default()
    };
    let control = Control::new();
    let runtime = Runtime::start(None, &control).expect("ONNX Runtime");
    let options = SessionOptions { level: Level::Disable, ..SessionOptions::default() };
    let source = Source::Proto { proto: &proto, folder: None };
    let mut session = Session::open(runtime, source, &options).expect("opens");
    let sample = Sample { feeds: vec![("x".to_owned(), x.clone())] };
    let found = session.run(&sample, &control).expect("runs");
    found.into_iter().map(|output| output.value.expect("tensor").values).collect()
}

fn integers(values: &Values) -> Vec<i32> {
    match values {
        Values::I32(values) => values.clone(),
        Values::U8(values) => values.iter().map(|&q| i32::from(q)).collect(),
        other => panic!("{}", other.len()),
    }
}

fn floats(values: &Values) -> Vec<f32> {
    values.to_f32().expect("floats")
}

/// Numbers of every size, ties and neighbours of ties in steps of `scale`, and what is no number.
fn values(rng: &mut fastrand::Rng, scale: f32, reach: i32) -> Vec<f32> {
    let special = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, f32::MAX, f32::MIN, f32::from_bits(1)];
    let mut values = special.to_vec();
    while values.len() < COUNT {
        let tie = (rng.i32(-reach..reach) as f32 + 0.5) * scale;
        values.extend([tie, tie.next_up(), tie.next_down(), (rng.f32() * 2.4 - 1.2) * reach as f32 * scale]);
        values.push(f32::from_bits(rng.u32(..)));
    }
    values
}

#[test]
fn quantize_and_dequantize_of_every_integer_type() {
    let mut rng = fastrand::Rng::with_seed(5);
    let types: [(DataType, i32, i32); 6] = [
        (DataType::Uint8, 0, 255),
        (DataType::Int8, -128, 127),
        (DataType::Uint16, 0, 65_535),
        (DataType::Int16, -32_768, 32_767),
        (DataType::Int4, -8, 7),
        (DataType::Uint4, 0, 15),
    ];
    for (data_type, qmin, qmax) in types {
        for _ in 0..4 {
            let scale = f32::from_bits(rng.u32(0x3000_0000..0x4300_0000));
            let zero_point = rng.i32(qmin..=qmax);
            let bytes = match data_type {
                DataType::Int4 | DataType::Uint4 => pack_4bit(&[zero_point as i8]),
                DataType::Uint8 | DataType::Int8 => vec![zero_point as u8],
                _ => (zero_point as u16).to_le_bytes().to_vec(),
            };
            let params = QuantParams { scale, zero_point, qmin, qmax };
            let x = values(&mut rng, scale, (qmax - qmin).min(3000));
            let nodes = vec![
                node("QuantizeLinear", "", "q", &["x", "s", "z"], &["q"], vec![]),
                node("Cast", "", "c", &["q"], &["i"], vec![attr_int("to", DataType::Int32 as i64)]),
                node("DequantizeLinear", "", "d", &["q", "s", "z"], &["y"], vec![]),
            ];
            let initializers = vec![tensor_f32("s", &[], &[scale]), tensor_raw("z", data_type, &[], bytes)];
            let tensor = Tensor { shape: vec![x.len()], values: Values::F32(x.clone()) };
            let found = run(nodes, initializers, &["i", "y"], &tensor);
            for ((&x, q), y) in x.iter().zip(integers(&found[0])).zip(floats(&found[1])) {
                assert_eq!(params.quantize(x), q, "{data_type:?} {params:?} {x}");
                assert_eq!(params.dequantize(q).to_bits(), y.to_bits(), "{data_type:?} {params:?} {x}");
            }
        }
    }
}

#[test]
fn dynamic_ranges() {
    let mut rng = fastrand::Rng::with_seed(6);
    for i in 0..40 {
        let (shift, size) = (rng.f32() * 2.0 - 1.0, 10.0_f32.powi(i % 9 - 4));
        let x: Vec<f32> = (0..257).map(|_| (rng.f32() - 0.5 + shift) * size).collect();
        let nodes = vec![node("DynamicQuantizeLinear", "", "d", &["x"], &["q", "s", "z"], vec![])];
        let tensor = Tensor { shape: vec![x.len()], values: Values::F32(x.clone()) };
        let found = run(nodes, vec![], &["q", "s", "z"], &tensor);
        let (lo, hi) = x.iter().fold((0.0_f32, 0.0_f32), |(lo, hi), &x| (lo.min(x), hi.max(x)));
        let params = activation_params(lo, hi, Symmetry::Asymmetric);
        assert_eq!(params.scale.to_bits(), floats(&found[1])[0].to_bits());
        assert_eq!(params.zero_point, integers(&found[2])[0]);
        let q: Vec<i32> = params.quantize_u8(&x).into_iter().map(i32::from).collect();
        assert_eq!(q, integers(&found[0]));
    }
}

#[test]
fn requantization_of_integer_matrix_products() {
    let mut rng = fastrand::Rng::with_seed(7);
    let (rows, depth, columns) = (24, 40, 16);
    for per_channel in [false, true] {
        for _ in 0..6 {
            let input = activation_params(-rng.f32() * 4.0, rng.f32() * 4.0 + 0.1, Symmetry::Asymmetric);
            let output = activation_params(-rng.f32() * 40.0, rng.f32() * 40.0 + 1.0, Symmetry::Asymmetric);
            // Weights of 6 bits: without VNNI the kernel's 16-bit sums would saturate.
            let weights: Vec<i8> = (0..depth * columns).map(|_| rng.i8(-31..=31)).collect();
            let scales: Vec<f32> = (0..if per_channel { columns } else { 1 }).map(|_| rng.f32() * 0.1 + 1e-3).collect();
            let x: Vec<f32> = (0..rows * depth).map(|_| rng.f32() * 8.0 - 4.0).collect();
            let scale_dims: Vec<i64> = if per_channel { vec![columns as i64] } else { vec![] };
            let byte = |name: &str, value: i32| tensor_raw(name, DataType::Uint8, &[], vec![value as u8]);
            let initializers = vec![
                tensor_f32("xs", &[], &[input.scale]),
                byte("xz", input.zero_point),
                tensor_raw(
                    "w",
                    DataType::Int8,
                    &[depth as i64, columns as i64],
                    weights.iter().map(|&w| w as u8).collect(),
                ),
                tensor_f32("ws", &scale_dims, &scales),
                tensor_raw("wz", DataType::Int8, &scale_dims, vec![0; scales.len()]),
                tensor_f32("ys", &[], &[output.scale]),
                byte("yz", output.zero_point),
            ];
            let nodes = vec![
                node("QuantizeLinear", "", "q", &["x", "xs", "xz"], &["xq"], vec![]),
                node("QLinearMatMul", "", "m", &["xq", "xs", "xz", "w", "ws", "wz", "ys", "yz"], &["y"], vec![]),
            ];
            let tensor = Tensor { shape: vec![rows, depth], values: Values::F32(x.clone()) };
            let found = integers(&run(nodes, initializers, &["y"], &tensor)[0]);
            for row in 0..rows {
                for column in 0..columns {
                    let sum: i32 = (0..depth)
                        .map(|k| {
                            let q = input.quantize(x[row * depth + k]) - input.zero_point;
                            q * i32::from(weights[k * columns + column])
                        })
                        .sum();
                    let scale = scales[if per_channel { column } else { 0 }];
                    let expected = requantize(sum, input.scale, scale, &output);
                    assert_eq!(expected, found[row * columns + column], "{sum} {input:?} {scale} {output:?}");
                }
            }
        }
    }
}

#[test]
fn requantization_of_integer_convolutions_with_bias() {
    let mut rng = fastrand::Rng::with_seed(8);
    let (channels, makes, size) = (8, 12, 36);
    for _ in 0..6 {
        let input = activation_params(-rng.f32() * 4.0, rng.f32() * 4.0 + 0.1, Symmetry::Asymmetric);
        let output = activation_params(-rng.f32() * 20.0, rng.f32() * 20.0 + 1.0, Symmetry::Asymmetric);
        let weights: Vec<i8> = (0..makes * channels).map(|_| rng.i8(-31..=31)).collect();
        let bias: Vec<i32> = (0..makes).map(|_| rng.i32(-3000..3000)).collect();
        let scales: Vec<f32> = (0..makes).map(|_| rng.f32() * 0.1 + 1e-3).collect();
        let x: Vec<f32> = (0..channels * size).map(|_| rng.f32() * 8.0 - 4.0).collect();
        let byte = |name: &str, value: i32| tensor_raw(name, DataType::Uint8, &[], vec![value as u8]);
        let dims = [makes as i64, channels as i64, 1, 1];
        let initializers = vec![
            tensor_f32("xs", &[], &[input.scale]),
            byte("xz", input.zero_point),
            tensor_raw("w", DataType::Int8, &dims, weights.iter().map(|&w| w as u8).collect()),
            tensor_f32("ws", &[makes as i64], &scales),
            tensor_raw("wz", DataType::Int8, &[makes as i64], vec![0; makes]),
            tensor_f32("ys", &[], &[output.scale]),
            byte("yz", output.zero_point),
            tensor_i32("b", &[makes as i64], &bias),
        ];
        let nodes = vec![
            node("QuantizeLinear", "", "q", &["x", "xs", "xz"], &["xq"], vec![]),
            node("QLinearConv", "", "c", &["xq", "xs", "xz", "w", "ws", "wz", "ys", "yz", "b"], &["y"], vec![]),
        ];
        let tensor = Tensor { shape: vec![1, channels, 6, 6], values: Values::F32(x.clone()) };
        let found = integers(&run(nodes, initializers, &["y"], &tensor)[0]);
        for make in 0..makes {
            for at in 0..size {
                let products = (0..channels).map(|channel| {
                    let q = input.quantize(x[channel * size + at]) - input.zero_point;
                    q * i32::from(weights[make * channels + channel])
                });
                let sum = products.sum::<i32>() + bias[make];
                let expected = requantize(sum, input.scale, scales[make], &output);
                assert_eq!(expected, found[make * size + at], "{sum} {input:?} {output:?}");
            }
        }
    }
}
