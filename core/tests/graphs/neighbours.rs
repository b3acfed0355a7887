//! What a layer's neighbours make of it: merged activations, sums, other readers, layers that stay in floating point.

use nibble_core::export::Form;
use nibble_core::onnx::build::{attr_float, attr_int, attr_ints};

use crate::harness::Net;

fn first() -> Net {
    Net::new(17).input("x", &[1, 4, 8, 8]).conv("x", "first", [4, 8], 1).op("Relu", &["first"], "a", vec![])
}

#[test]
fn a_residual_block_runs_on_integers() {
    let net = first()
        .conv("a", "c", [8, 8], 1)
        .op("Relu", &["c"], "r", vec![])
        .conv("r", "d", [8, 8], 1)
        .op("Add", &["d", "a"], "s", vec![])
        .op("Relu", &["s"], "t", vec![])
        .conv("t", "e", [8, 8], 1)
        .output("e");
    net.under("int8").run().above(22.0).quiet().runs("QLinearConv", 4).runs("QLinearAdd", 1).runs("Relu", 0);
}

#[test]
fn a_symmetric_range_behind_relu_still_takes_the_integer_kernel() {
    let net = first().conv("a", "c", [8, 8], 1).op("Relu", &["c"], "y", vec![]).output("y");
    let ran = net.under("int8").set("*", "activation_symmetry=symmetric").run();
    ran.above(20.0).runs("QLinearConv", 2).runs("FusedConv", 0);
}

#[test]
fn clips_of_every_kind() {
    let bounds = [(-1.0, 1.0), (0.0, 6.0), (0.0, 0.4), (-0.3, 0.7)];
    for (lo, hi) in bounds {
        let net = first()
            .conv("a", "c", [8, 8], 1)
            .floats("lo", &[], &[lo])
            .floats("hi", &[], &[hi])
            .op("Clip", &["c", "lo", "hi"], "r", vec![])
            .conv("r", "y", [8, 8], 1)
            .output("y");
        net.under("int8").run().above(20.0).quiet().runs("QLinearConv", 3).runs("FusedConv", 0).runs("Conv", 0);
    }
    for (inputs, name) in [(&["c", "", "hi"][..], "no lower"), (&["c", "lo"], "no upper"), (&["c", "lo", ""], "empty")]
    {
        let net = first()
            .conv("a", "c", [8, 8], 1)
            .floats("lo", &[], &[-0.5])
            .floats("hi", &[], &[0.5])
            .op("Clip", inputs, "r", vec![])
            .conv("r", "y", [8, 8], 1)
            .output("y");
        let ran = net.under("int8").run();
        assert!(ran.above(20.0).runs_as()["QLinearConv"] == 3, "{name}");
    }
    let mut net = Net::new(7).input("x", &[1, 4, 8, 8]).conv("x", "c", [4, 8], 1);
    net = net.op("Clip", &["c"], "r", vec![attr_float("min", 0.0), attr_float("max", 6.0)]);
    net.conv("r", "y", [8, 8], 1).output("y").under("int8").run().above(20.0).runs("QLinearConv", 2);
}

#[test]
fn an_output_of_the_model_may_feed_another_layer() {
    let net = first().conv("a", "c", [8, 8], 1).conv("c", "y", [8, 8], 1).output("c").output("y").output("a");
    net.under("int8").run().above(22.0).quiet().runs("QLinearConv", 3);
}

#[test]
fn an_input_of_the_model_may_be_an_output_too() {
    let net = first().output("a").output("x");
    let ran = net.under("int8").run();
    ran.above(25.0).quiet();
    assert_eq!(ran.quality().outputs[1].sqnr_db.to_string(), "identical", "floats are handed on as they are");
    let net = Net::new(17).input("x", &[1, 16]).weight("w", &[16, 8]).op("MatMul", &["x", "w"], "y", vec![]);
    let ran = net.op("Relu", &["x"], "z", vec![]).output("y").output("z").under("int8").run();
    ran.above(25.0);
    assert_eq!(ran.quality().outputs[1].sqnr_db.to_string(), "identical");
}

#[test]
fn a_layer_kept_in_float_is_not_quantized_by_the_runtime() {
    for op in ["Conv", "Gemm", "ConvTranspose", "MatMul"] {
        let net = if op == "Conv" || op == "ConvTranspose" {
            first()
                .weight("w", &[8, 8, 1, 1])
                .op(op, &["a", "w"], "kept", vec![])
                .op("Relu", &["kept"], "k", vec![])
                .conv("k", "y", [8, 8], 1)
        } else {
            Net::new(17)
                .input("x", &[4, 16])
                .weight("v", &[16, 16])
                .op("MatMul", &["x", "v"], "a", vec![])
                .weight("w", &[16, 16])
                .op(op, &["a", "w"], "kept", vec![])
                .weight("u", &[16, 16])
                .op("MatMul", &["kept", "u"], "y", vec![])
        };
        // Its weights hold one large value: rounded to one scale a tensor, nothing would be left of the rest.
        let mut net = net.output("y").output("kept");
        let weight = net.graph.initializer.iter_mut().find(|tensor| tensor.name() == "w").expect("weight");
        let mut bytes = weight.raw_data.clone().expect("raw").to_vec();
        bytes[..4].copy_from_slice(&400f32.to_le_bytes());
        weight.raw_data = Some(bytes.into());
        net.graph.output.truncate(1);
        let ran = net.under("int8").set("kept", "precision=float32").run();
        ran.form("kept", Form::Float);
        // The float layer must see exactly what the same graph without fusions computes.
        float_by_simulation(&ran);
    }
}

/// Compares the export as it runs with its plain reading, where every DequantizeLinear is followed by float arithmetic.
pub fn float_by_simulation(ran: &crate::harness::Ran) {
    use nibble_core::Control;
    use nibble_core::runtime::{Level, Session, SessionOptions, Source};
    let control = Control::new();
    let open = |level| {
        let options = SessionOptions { level, ..SessionOptions::default() };
        Session::open(crate::harness::runtime(), Source::File(&ran.verified.output), &options).expect("opens")
    };
    let (mut plain, mut fused) = (open(Level::Disable), open(Level::All));
    let mut error = nibble_core::error::OutputError::default();
    for index in 0..ran.data.len() {
        let sample = ran.data.sample(index).expect("sample");
        let value =
            |session: &mut Session| session.run(&sample, &control).expect("runs").remove(0).value.expect("tensor");
        error.add(&value(&mut plain), &value(&mut fused));
    }
    let db = error.sqnr().db().unwrap_or(f64::NAN);
    assert!(db > 45.0, "the runtime changed a float layer: {db} dB\n{}\n{:?}", ran.describe(), ran.runs_as());
}

#[test]
fn stored_weights_between_integer_layers_stay_as_stored() {
    let net = first().conv("a", "kept", [8, 8], 1).conv("kept", "y", [8, 8], 1).output("y");
    let ran = net.under("int8").set("kept", "precision=float16").run();
    ran.form("kept", Form::Float16Weights).above(25.0);
    float_by_simulation(&ran);
}

#[test]
fn integer_values_pass_through_operators_that_move_them() {
    let net = first()
        .op("MaxPool", &["a"], "p", vec![attr_ints("kernel_shape", &[2, 2]), attr_ints("strides", &[2, 2])])
        .conv("p", "c", [8, 8], 1)
        .op("Sigmoid", &["c"], "g", vec![])
        .op("Mul", &["c", "g"], "s", vec![])
        .conv("s", "d", [8, 8], 1)
        .op("Concat", &["d", "s"], "k", vec![attr_int("axis", 1)])
        .op("GlobalAveragePool", &["k"], "m", vec![])
        .op("Flatten", &["m"], "f", vec![])
        .weight("w", &[16, 5])
        .weight("b", &[5])
        .op("Gemm", &["f", "w", "b"], "y", vec![])
        .output("y");
    let ran = net.under("int8").run();
    ran.above(18.0).quiet().runs("Conv", 0).runs("MaxPool", 0).runs("GlobalAveragePool", 0).runs("QGemm", 1);
}

#[test]
fn a_tensor_that_only_some_readers_want_as_integers() {
    let net = first()
        .op("Softmax", &["a"], "s", vec![])
        .conv("s", "c", [8, 8], 1)
        .op("Exp", &["s"], "e", vec![])
        .op("Add", &["c", "e"], "y", vec![])
        .output("y");
    net.under("int8").run().above(22.0).runs("QLinearConv", 2);
}
