//! Convolutions and what exporters write around them.

use nibble_core::export::Form;
use nibble_core::onnx::build::{attr_float, attr_int, attr_ints};

use crate::harness::Net;

/// y = relu(conv(x)), ready for another layer.
fn first() -> Net {
    Net::new(17).input("x", &[1, 4, 8, 8]).conv("x", "first", [4, 8], 1).op("Relu", &["first"], "a", vec![])
}

#[test]
fn batch_normalization_goes_into_the_weights() {
    let net = first()
        .conv("a", "c", [8, 8], 1)
        .weight("gamma", &[8])
        .weight("beta", &[8])
        .weight("mean", &[8])
        .floats("variance", &[8], &[0.5, 1.0, 2.0, 0.1, 3.0, 1.5, 0.7, 0.9])
        .op("BatchNormalization", &["c", "gamma", "beta", "mean", "variance"], "n", vec![attr_float("epsilon", 1e-3)])
        .op("Relu", &["n"], "y", vec![])
        .output("y");
    net.under("int8").run().above(25.0).quiet().runs("QLinearConv", 2).runs("BatchNormalization", 0).runs("Conv", 0);
}

#[test]
fn a_bias_added_behind_goes_into_the_bias() {
    for dims in [&[1, 8, 1, 1][..], &[8, 1, 1]] {
        let net = first()
            .weight("w", &[8, 8, 3, 3])
            .op("Conv", &["a", "w"], "c", vec![])
            .weight("shift", dims)
            .op("Add", &["shift", "c"], "y", vec![])
            .output("y");
        net.under("int8").run().above(25.0).runs("QLinearConv", 2).runs("Add", 0).runs("QLinearAdd", 0);
    }
}

#[test]
fn an_addend_of_another_shape_stays() {
    let net = first().conv("a", "c", [8, 8], 1).weight("row", &[8]).op("Add", &["c", "row"], "y", vec![]).output("y");
    net.under("int8").run().above(25.0).runs("QLinearConv", 2);
}

#[test]
fn transposed_convolutions_are_stored_whatever_their_groups() {
    for (group, preset) in [(1, "int8"), (2, "int8"), (2, "int8-weights"), (2, "int4-weights"), (4, "int4-static")] {
        let net = first()
            .weight("w", &[8, 3, 2, 2])
            .weight("b", &[3 * group])
            .op("ConvTranspose", &["a", "w", "b"], "t", vec![attr_int("group", group), attr_ints("strides", &[2, 2])])
            .floats("scale", &[1, 3 * group, 1, 1], &(0..3 * group).map(|i| 0.5 + i as f32 * 0.1).collect::<Vec<_>>())
            .op("Mul", &["t", "scale"], "y", vec![])
            .output("y");
        let ran = net.under(preset).run();
        ran.above(if preset.starts_with("int8") { 25.0 } else { 12.0 }).form("t", Form::FoldedWeights);
    }
}

#[test]
fn depthwise_with_a_zero_point_a_channel_is_made_symmetric() {
    let net = first().conv("a", "d", [8, 8], 8).output("d");
    let ran = net.under("int8").set("*", "symmetry=asymmetric").run();
    ran.above(25.0).problem("d", "symmetric is used").runs("QLinearConv", 2);
    let choice = |name: &str| ran.verified.layers.iter().find(|layer| layer.name == name).expect("layer").choice;
    assert_eq!(choice("d").symmetry.word(), "symmetric");
    assert_eq!(choice("first").symmetry.word(), "asymmetric");
}

#[test]
fn any_number_of_axes_and_any_padding() {
    for (kernel, dims) in [(&[3][..], &[1, 4, 16][..]), (&[2, 2, 2], &[1, 4, 6, 6, 6])] {
        let shape: Vec<i64> = [8, 4].iter().chain(kernel).copied().collect();
        let net = Net::new(17).input("x", dims).weight("w", &shape).op("Conv", &["x", "w"], "y", vec![]).output("y");
        net.under("int8").run().above(25.0).quiet().runs("QLinearConv", 1);
    }
    let same = vec![nibble_core::onnx::build::attr_string("auto_pad", "SAME_UPPER"), attr_ints("strides", &[2, 2])];
    let dilated = vec![attr_ints("dilations", &[2, 2]), attr_ints("pads", &[1, 0, 2, 0])];
    for attributes in [same, dilated] {
        let net = first().weight("w", &[8, 8, 3, 3]).op("Conv", &["a", "w"], "y", attributes).output("y");
        net.under("int8").run().above(25.0).quiet().runs("QLinearConv", 2);
    }
}

#[test]
fn a_mean_over_positions_stays_exact() {
    for keep in [0, 1] {
        let net = first()
            .op("ReduceMean", &["a"], "m", vec![attr_ints("axes", &[2, 3]), attr_int("keepdims", keep)])
            .op("Flatten", &["m"], "f", vec![])
            .weight("w", &[8, 5])
            .op("MatMul", &["f", "w"], "y", vec![])
            .output("y");
        net.under("int8").run().above(22.0);
    }
}
