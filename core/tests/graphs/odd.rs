//! Odd files: constants behind Casts, normalizations behind matrices, sequences, wrong shapes, one table used twice.

use nibble_core::export::Form;
use nibble_core::onnx::build::{attr_float, attr_int, attr_ints, tensor_f16, value_info, value_info_typed};
use nibble_core::onnx::proto::tensor_proto::DataType;
use nibble_core::onnx::proto::tensor_shape_proto::dimension::Value;
use nibble_core::onnx::proto::{TypeProto, type_proto};

use crate::harness::Net;

#[test]
fn half_precision_weights_behind_a_cast() {
    let mut net = Net::new(17).input("x", &[4, 64]);
    let values: Vec<half::f16> = net.values(&[64, 32]).into_iter().map(half::f16::from_f32).collect();
    let net = net
        .constant(tensor_f16("h", &[64, 32], &values))
        .op("Cast", &["h"], "w", vec![attr_int("to", 1)])
        .op("MatMul", &["x", "w"], "a", vec![])
        .weight("v", &[32, 8])
        .op("MatMul", &["a", "v"], "y", vec![])
        .output("y");
    let proto = net.proto();
    for (preset, form) in
        [("int8", Form::Qdq), ("int8-dynamic", Form::DynamicMatmul), ("int4-weights", Form::MatmulNbits)]
    {
        let mut case = Net::new(17).under(preset);
        case.proto = proto.clone();
        case.run().above(if preset == "int4-weights" { 12.0 } else { 25.0 }).form("a", form);
    }
}

#[test]
fn several_outputs_and_a_sequence_among_them() {
    let mut net = Net::new(17)
        .input("x", &[4, 16])
        .weight("w", &[16, 8])
        .op("MatMul", &["x", "w"], "a", vec![])
        .weight("v", &[8, 8])
        .op("MatMul", &["a", "v"], "b", vec![])
        .op("SequenceConstruct", &["a", "b"], "s", vec![])
        .output("b");
    let tensor = type_proto::Tensor { elem_type: Some(DataType::Float as i32), shape: None };
    let element = TypeProto { denotation: None, value: Some(type_proto::Value::TensorType(tensor)) };
    let sequence = type_proto::Sequence { elem_type: Some(Box::new(element)) };
    let mut port = value_info("s");
    port.r#type =
        Some(TypeProto { denotation: None, value: Some(type_proto::Value::SequenceType(Box::new(sequence))) });
    net.graph.output.push(port);
    let proto = net.output("a").proto();
    for preset in ["int8", "int8-dynamic", "int8-weights", "float16-weights"] {
        let mut case = Net::new(17).under(preset);
        case.proto = proto.clone();
        let ran = case.run();
        let compared =
            ran.quality().outputs.iter().filter(|output| output.sqnr_db.db().is_some_and(|db| db > 22.0)).count();
        // The two, and each again as an element of the sequence.
        assert_eq!(compared, 4, "{preset}: {:?}", ran.quality());
    }
}

#[test]
fn wrong_shapes_and_sizes_that_are_no_names() {
    let mut net = Net::new(17)
        .input("x", &[-1, 16])
        .weight("w", &[16, 8])
        .op("MatMul", &["x", "w"], "a", vec![])
        .weight("v", &[8, 6])
        .op("MatMul", &["a", "v"], "y", vec![]);
    // Declared otherwise than computed: ONNX Runtime warns and goes on.
    net.graph.output.push(value_info_typed("y", DataType::Float, &[1, 7]));
    for name in ["-1", "?", "batch size/2", ""] {
        let mut proto = net.proto();
        let input = proto.graph.as_mut().and_then(|graph| graph.input.first_mut()).expect("input");
        if let Some(type_proto::Value::TensorType(tensor)) = input.r#type.as_mut().and_then(|kind| kind.value.as_mut())
        {
            tensor.shape.as_mut().expect("shape").dim[0].value = Some(Value::DimParam(name.to_owned()));
        }
        let mut case = Net::new(17).under("int8");
        case.proto = proto;
        case.shape("x", &[3, 16]).run().above(22.0).form("a", Form::Qdq);
    }
}

#[test]
fn a_table_that_serves_a_gemm_too() {
    for preset in ["int8", "int8-dynamic", "int8-weights", "int4-weights", "float16-weights"] {
        let net = Net::new(17)
            .integers("ids", &[6])
            .weight("table", &[128, 32])
            .op("Gather", &["table", "ids"], "e", vec![])
            .op("Gemm", &["e", "table"], "y", vec![attr_int("transB", 1)])
            .output("y");
        net.under(preset).run().above(if preset == "int4-weights" { 12.0 } else { 20.0 });
    }
}

#[test]
fn a_normalization_behind_a_transposed_convolution_and_a_factor_behind() {
    let net = Net::new(17)
        .input("x", &[1, 4, 6, 6])
        .weight("w", &[4, 6, 2, 2])
        .op("ConvTranspose", &["x", "w"], "t", vec![attr_ints("strides", &[2, 2])])
        .weight("gamma", &[6])
        .weight("beta", &[6])
        .weight("mean", &[6])
        .floats("variance", &[6], &[0.5, 1.0, 2.0, 0.3, 3.0, 1.5])
        .op("BatchNormalization", &["t", "gamma", "beta", "mean", "variance"], "n", vec![attr_float("epsilon", 1e-3)])
        .conv("n", "y", [6, 5], 1)
        .output("y");
    for preset in ["int8", "int8-weights"] {
        let proto = net.proto();
        let mut case = Net::new(17).under(preset);
        case.proto = proto;
        case.run().above(22.0).runs("BatchNormalization", 0);
    }
}
