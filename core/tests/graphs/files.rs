//! Models whose weights lie in other files.

use nibble_core::Control;
use nibble_core::export::Form;
use nibble_core::onnx::OnnxFile;
use nibble_core::onnx::proto::tensor_proto::DataLocation;
use nibble_core::onnx::proto::{StringStringEntryProto, TensorProto};

use crate::harness::Net;

/// Moves a tensor's bytes behind `data`.
fn move_out(tensor: &mut TensorProto, data: &mut Vec<u8>) {
    let bytes = tensor.raw_data.take().expect("raw");
    let entry = |key: &str, value: String| StringStringEntryProto { key: Some(key.to_owned()), value: Some(value) };
    tensor.external_data = vec![
        entry("location", "weights.bin".to_owned()),
        entry("offset", data.len().to_string()),
        entry("length", bytes.len().to_string()),
    ];
    tensor.data_location = Some(DataLocation::External as i32);
    data.extend_from_slice(&bytes);
}

#[test]
fn external_data_go_with_the_export() {
    for preset in ["int8", "int8-weights", "float16-weights"] {
        let net = Net::new(17)
            .input("x", &[4, 64])
            .weight("w", &[64, 64])
            .op("MatMul", &["x", "w"], "a", vec![])
            .weight("v", &[64, 64])
            .op("MatMul", &["a", "v"], "y", vec![])
            .output("y");
        let mut case = net.under(preset).set("y", "precision=float32");
        let (mut data, folder) = (Vec::new(), tempfile::tempdir().expect("folder"));
        for tensor in &mut case.proto.graph.as_mut().expect("graph").initializer {
            move_out(tensor, &mut data);
        }
        std::fs::write(folder.path().join("weights.bin"), data).expect("data");
        std::fs::write(folder.path().join("model.onnx"), prost::Message::encode_to_vec(&case.proto)).expect("model");
        let ran = case.run_in(folder).expect("runs");
        ran.above(25.0).form("y", Form::Float);
        assert!(ran.model.file.has_external_data() && ran.quantized.has_external_data(), "it stays outside");
        assert!(ran.folder.path().join("quantized.onnx.data").is_file());
        // The export stands on its own: it reads nothing of the original.
        std::fs::remove_file(ran.folder.path().join("weights.bin")).expect("remove");
        OnnxFile::load(&ran.verified.output, &Control::new()).expect("complete");
        assert!(!ran.runs_as().is_empty());
    }
}
