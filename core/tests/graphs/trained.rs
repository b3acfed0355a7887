//! Models trained quantization-aware elsewhere: QuantizeLinear and DequantizeLinear around float weights, by hand after the
//! patterns of PyTorch, brevitas and TensorFlow (tf2onnx).

use nibble_core::export::{Form, export};
use nibble_core::onnx::build::{attr_int, attr_ints, node, tensor_f32, tensor_i8, tensor_i32, tensor_i64, tensor_u8};
use nibble_core::onnx::proto::{AttributeProto, TensorProto};
use nibble_core::plan::preset;
use nibble_core::{Control, plan::Clip};

use crate::harness::{Net, Ran, operators};

/// How a file rounds: the zero point's tensor tells the type.
struct Style {
    domain: &'static str,
    axis: Option<i64>,
    zero_point: fn(&str, usize) -> TensorProto,
    clip: Option<(i8, i8)>,
}

/// Adds QuantizeLinear (and Clip) and DequantizeLinear behind `tensor`, whose result is `{tensor}_dq`.
fn rounded(mut net: Net, tensor: &str, scales: &[f32], style: &Style) -> Net {
    let name = |part: &str| format!("{tensor}_{part}");
    let dims: &[i64] = if scales.len() == 1 { &[] } else { &[scales.len() as i64] };
    net = net.constant(tensor_f32(&name("s"), dims, scales)).constant((style.zero_point)(&name("z"), scales.len()));
    let axis: Vec<AttributeProto> = style.axis.map(|axis| attr_int("axis", axis)).into_iter().collect();
    let mut q = name("q");
    net.graph.node.push(node(
        "QuantizeLinear",
        style.domain,
        &name("Q"),
        &[tensor, &name("s"), &name("z")],
        &[&q],
        axis.clone(),
    ));
    if let Some((lo, hi)) = style.clip {
        net = net.constant(tensor_i8(&name("lo"), &[], &[lo])).constant(tensor_i8(&name("hi"), &[], &[hi]));
        let clipped = name("clipped");
        net.graph.node.push(node("Clip", "", &name("Clip"), &[&q, &name("lo"), &name("hi")], &[&clipped], vec![]));
        q = clipped;
    }
    let inputs = [q, name("s"), name("z")];
    net.graph.node.push(node("DequantizeLinear", style.domain, &name("DQ"), &inputs, &[name("dq")], axis));
    net
}

fn signed(name: &str, count: usize) -> TensorProto {
    let dims: &[i64] = if count == 1 { &[] } else { &[count as i64] };
    tensor_i8(name, dims, &vec![0; count])
}

fn unsigned(name: &str, count: usize) -> TensorProto {
    let dims: &[i64] = if count == 1 { &[] } else { &[count as i64] };
    tensor_u8(name, dims, &vec![131; count])
}

/// uint8 from 0 on, as behind a Relu.
fn positive(name: &str, _: usize) -> TensorProto {
    tensor_u8(name, &[], &[0])
}

const TENSOR: Style = Style { domain: "", axis: None, zero_point: signed, clip: None };
const IMAGE: Style = Style { zero_point: unsigned, ..TENSOR };
const RELU: Style = Style { zero_point: positive, ..TENSOR };
const CHANNEL: Style = Style { axis: Some(0), ..TENSOR };

fn scales(count: usize) -> Vec<f32> {
    (0..count).map(|i| 0.0021 + 0.0003 * i as f32).collect()
}

/// x → pair → Conv (weights `w` [8, 4, 3, 3] in `style`) → Relu → pair → Conv → pair, as PyTorch writes it.
fn torch(opset: i64, style: &Style, activations: [&Style; 2]) -> Net {
    let channels = if style.axis.is_some() { 8 } else { 1 };
    let mut net = Net::new(opset).input("x", &[1, 4, 8, 8]);
    net = rounded(net, "x", &[0.008], activations[0]);
    net = rounded(net.weight("w", &[8, 4, 3, 3]), "w", &scales(channels), style).weight("b", &[8]);
    net = net.op("Conv", &["x_dq", "w_dq", "b"], "c", vec![attr_ints("pads", &[1, 1, 1, 1])]);
    net = rounded(net.op("Relu", &["c"], "r", vec![]), "r", &[0.009], activations[1]);
    net = rounded(net.weight("v", &[8, 8, 1, 1]), "v", &scales(channels), style);
    net = net.op("Conv", &["r_dq", "v_dq"], "d", vec![]);
    rounded(net, "d", &[0.012], activations[0]).op("Flatten", &["d_dq"], "y", vec![]).output("y")
}

/// What QuantizeLinear makes of a weight whose channels lie along the first axis, as signed integers.
fn integers(ran: &Ran, tensor: &str, scales: &[f32], zero_point: i32, [lo, hi]: [i32; 2]) -> Vec<i8> {
    let initializer = ran.model.file.graph().initializer.iter().find(|t| t.name() == tensor).expect("weight");
    let values = ran.model.file.read_f32(initializer).expect("floats");
    let depth = values.len() / scales.len();
    let q = |(at, x): (usize, &f32)| (x / scales[at / depth]).round_ties_even() as i32 + zero_point;
    values.iter().enumerate().map(q).map(|q| q.clamp(lo, hi) as i8).collect()
}

/// Asserts that the export holds exactly these integers under `name…_int8`.
#[track_caller]
fn holds(ran: &Ran, expected: &[i8]) {
    let bytes: Vec<u8> = expected.iter().map(|&q| q as u8).collect();
    let found = ran.quantized.graph().initializer.iter().any(|tensor| tensor.raw_data.as_deref() == Some(&bytes[..]));
    assert!(found, "the file's own integers\n{}", ran.describe());
}

#[test]
fn pytorch_scales_are_kept_bit_for_bit() {
    for (style, activations) in
        [(&CHANNEL, [&IMAGE, &RELU]), (&TENSOR, [&IMAGE, &RELU]), (&CHANNEL, [&TENSOR, &TENSOR])]
    {
        let ran = torch(17, style, activations).under("int8").run();
        ran.above(60.0).quiet().form("c", Form::Qdq).form("d", Form::Qdq);
        let existing = ran.model.layers[0].existing.clone().expect("trained");
        assert!(existing.trained && ran.model.layers[0].quantizable());
        assert_eq!(existing.weights, "int8");
        let scales = scales(if style.axis.is_some() { 8 } else { 1 });
        holds(&ran, &integers(&ran, "w", &scales, 0, [-128, 127]));
        holds(&ran, &integers(&ran, "v", &scales, 0, [-128, 127]));
        // The file's own pairs are the only ones: three of activations, two of weights, a bias.
        let counts = operators(ran.quantized.graph());
        assert_eq!((counts["QuantizeLinear"], counts["DequantizeLinear"]), (3, 6), "{counts:?}");
        for layer in &ran.verified.layers {
            assert_eq!((layer.choice.clip, layer.choice.activation_clip), (Clip::Trained, Clip::Trained));
        }
    }
}

#[test]
fn unsigned_weights_become_signed_ones() {
    let style = Style { zero_point: unsigned, ..CHANNEL };
    let ran = torch(17, &style, [&IMAGE, &RELU]).under("int8").run();
    ran.above(60.0).form("c", Form::Qdq);
    holds(&ran, &integers(&ran, "w", &scales(8), 3, [-128, 127]));
}

#[test]
fn old_operator_sets_and_onnx_runtimes_own_domain() {
    let microsoft =
        |style: &Style| Style { domain: "com.microsoft", axis: style.axis, zero_point: style.zero_point, clip: None };
    // Below 13 ONNX Runtime itself refuses such a file once a bias is there: it writes a DequantizeLinear with an axis.
    for opset in [13, 17] {
        let mut case = torch(opset, &microsoft(&CHANNEL), [&microsoft(&IMAGE), &microsoft(&RELU)]).under("int8");
        case.proto.opset_import.push(nibble_core::onnx::proto::OperatorSetIdProto {
            domain: Some("com.microsoft".to_owned()),
            version: Some(1),
        });
        let ran = case.run();
        ran.above(60.0).form("c", Form::Qdq);
        holds(&ran, &integers(&ran, "w", &scales(8), 0, [-128, 127]));
    }
}

#[test]
fn brevitas_clips_narrow_ranges() {
    let narrow = Style { clip: Some((-127, 127)), ..CHANNEL };
    let ran = torch(17, &narrow, [&Style { clip: None, ..TENSOR }, &TENSOR]).under("int8").run();
    ran.above(60.0).quiet().form("c", Form::Qdq);
    holds(&ran, &integers(&ran, "w", &scales(8), 0, [-127, 127]));

    // Four bits in an int8 container.
    let four = Style { clip: Some((-7, 7)), ..CHANNEL };
    let ran = torch(21, &four, [&IMAGE, &RELU]).under("int4-static").run();
    ran.above(60.0).form("c", Form::Int4CastQdq);
    assert_eq!(ran.model.layers[0].existing.as_ref().map(|found| found.weights.as_str()), Some("int4"));
    // int8 can hold them too, but is another choice.
    let ran = torch(21, &four, [&IMAGE, &RELU]).under("int8").run();
    ran.above(30.0).form("c", Form::Qdq);
    assert_eq!(ran.verified.layers[0].choice.clip, Clip::MinMax);

    // Activations of fewer bits: a Clip between the file's own two nodes, which stays.
    let act = Style { clip: Some((-8, 7)), ..TENSOR };
    let ran = torch(17, &CHANNEL, [&act, &act]).under("int8").run();
    ran.above(40.0).form("c", Form::Qdq);
    assert_eq!(operators(ran.quantized.graph())["Clip"], 3);
}

#[test]
fn tensorflow_transposes_kernels_after_rounding_them() {
    // HWIO, scales along the last axis, biases in int32, activations in int8.
    let last = Style { axis: Some(3), ..TENSOR };
    let mut net = rounded(Net::new(15).input("x", &[1, 4, 8, 8]), "x", &[0.008], &TENSOR);
    let values: Vec<f32> = net.values(&[8, 36]);
    net = rounded(net.floats("w", &[3, 3, 4, 8], &values), "w", &scales(8), &last);
    net = net.op("Transpose", &["w_dq"], "kernel", vec![attr_ints("perm", &[3, 2, 0, 1])]);
    let bias: Vec<f32> = scales(8).iter().map(|scale| scale * 0.008).collect();
    net = net.constant(tensor_i32("bias", &[8], &[100, -200, 3000, -1, 0, 77, 8000, -4321])).floats(
        "bias_s",
        &[8],
        &bias,
    );
    net = net.constant(tensor_i32("bias_z", &[8], &[0; 8]));
    net.graph.node.push(node(
        "DequantizeLinear",
        "",
        "BiasDQ",
        &["bias", "bias_s", "bias_z"],
        &["bias_dq"],
        vec![attr_int("axis", 0)],
    ));
    net = net.op("Conv", &["x_dq", "kernel", "bias_dq"], "c", vec![]);
    net = rounded(net, "c", &[0.03], &TENSOR).op("Flatten", &["c_dq"], "y", vec![]).output("y");
    let ran = net.under("int8").run();
    ran.above(60.0).quiet().form("c", Form::Qdq).runs("QLinearConv", 1);
    let int32 = |tensor: &&TensorProto| tensor.data_type() == 6 && tensor.dims == [8];
    let values = ran.quantized.graph().initializer.iter().filter(int32).find_map(|tensor| tensor.raw_data.clone());
    assert_eq!(
        values.as_deref().map(|bytes| &bytes[..8]),
        Some(&[100, 0, 0, 0, 56, 255, 255, 255][..]),
        "the file's bias"
    );
}

#[test]
fn zero_points_behind_a_cast_and_matrices_behind_a_transpose() {
    // torch.onnx writes zero points as Cast(Constant); a Linear's weight is [out, in] and transposed for a MatMul.
    let mut net = Net::new(17).input("x", &[4, 16]).weight("w", &[8, 16]).floats("s", &[8], &scales(8));
    net = net.constant(tensor_i64("z64", &[8], &[0; 8])).op("Cast", &["z64"], "z", vec![attr_int("to", 3)]);
    net = net.op("QuantizeLinear", &["w", "s", "z"], "q", vec![attr_int("axis", 0)]);
    net = net.op("DequantizeLinear", &["q", "s", "z"], "dq", vec![attr_int("axis", 0)]);
    net = net.op("Transpose", &["dq"], "t", vec![attr_ints("perm", &[1, 0])]).op("MatMul", &["x", "t"], "y", vec![]);
    let proto = net.output("y").proto();
    for (name, form) in
        [("int8", Form::Qdq), ("int8-dynamic", Form::DynamicMatmul), ("int8-weights", Form::MatmulNbits)]
    {
        let mut case = Net::new(17).under(name);
        case.proto = proto.clone();
        let ran = case.run();
        ran.above(28.0).form("y", form);
        assert_eq!(ran.verified.layers[0].choice.clip, Clip::Trained, "{name}");
        assert_eq!(
            ran.model.layers[0].weight().and_then(|w| w.grid.as_ref()).map(|g| g.scales.clone()),
            Some(scales(8))
        );
    }
}

#[test]
fn a_choice_that_differs_replaces_what_was_trained() {
    let net = || torch(17, &CHANNEL, [&IMAGE, &RELU]);
    // Another clip of the weights: other scales, the same pairs.
    let ran = net().under("int8").set("c", "clip=mse").run();
    ran.above(20.0);
    let kept = integers(&ran, "v", &scales(8), 0, [-128, 127]);
    holds(&ran, &kept);
    // Other ranges of activations: the pair of `r` is replaced, the others stay.
    let ran = net().under("int8").set("d", "activation_clip=minmax").run();
    ran.above(20.0).quiet();
    let counts = operators(ran.quantized.graph());
    assert_eq!(counts["QuantizeLinear"], 3, "{counts:?}");
    assert!(ran.quantized.graph().node.iter().all(|node| node.name() != "r_Q"));
    // None at all: the layers read floating point, only the pair that is no layer's input stays. What the file's ranges
    // cut off comes back, so that the figure is low.
    let ran = net().under("int8-weights").run();
    ran.above(10.0);
    assert_eq!(operators(ran.quantized.graph()).get("QuantizeLinear"), Some(&1));
    // Four bits.
    net().under("int4-static").run().above(8.0).form("c", Form::Int4CastQdq);
    // One reader wants the file's range, another a new one: the file's stays, and the plan is told.
    let both = net().weight("u", &[8, 8, 1, 1]).op("Conv", &["r_dq", "u"], "e", vec![]).output("e");
    let ran = both.under("int8").set("e", "activation_clip=mse").run();
    ran.above(18.0).problem("e", "in the range that the file gives it");
}

#[test]
fn a_normalization_behind_goes_into_the_trained_scales() {
    let mut net = rounded(Net::new(17).input("x", &[1, 4, 8, 8]), "x", &[0.008], &IMAGE);
    net = rounded(net.weight("w", &[8, 4, 3, 3]), "w", &scales(8), &CHANNEL).op("Conv", &["x_dq", "w_dq"], "c", vec![]);
    let gamma: Vec<f32> = (0..8).map(|i| 0.5 + 0.25 * i as f32).collect();
    net = net.floats("g", &[8], &gamma).weight("beta", &[8]).weight("m", &[8]).floats("var", &[8], &[1.0; 8]);
    net = net.op("BatchNormalization", &["c", "g", "beta", "m", "var"], "n", vec![]);
    net = rounded(net, "n", &[0.02], &IMAGE).op("Flatten", &["n_dq"], "y", vec![]).output("y");
    let ran = net.under("int8").run();
    ran.above(40.0).runs("QLinearConv", 1).runs("BatchNormalization", 0);
    holds(&ran, &integers(&ran, "w", &scales(8), 0, [-128, 127]));
}

#[test]
fn nothing_needs_to_be_calibrated_where_the_file_says_all() {
    let case = torch(17, &CHANNEL, [&IMAGE, &RELU]).under("int8");
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("model.onnx");
    nibble_core::onnx::save(&case.proto, None, &path).expect("saved");
    let model = nibble_core::model::Model::load(&path, &Control::new()).expect("opens");
    let plan = model.preset_plan(preset("int8").expect("preset")).expect("plan");
    let made = export(&model, None, &plan, &Control::new()).expect("no statistics needed");
    assert!(made.layers.iter().all(|layer| layer.form == Form::Qdq));
}
