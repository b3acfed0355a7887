//! `inspect`: what is in a model, and what of it can be quantized. Needs no runtime.

use nibble_core::model::{Layer, Model};
use nibble_core::onnx::proto::tensor_proto::DataType;
use nibble_core::onnx::proto::{GraphProto, TensorProto};
use nibble_core::onnx::walk;
use nibble_core::port::Port;
use nibble_core::report::text;
use serde_json::{Value, json};

use super::args::InspectArgs;
use super::console::{Console, problems_text};
use super::failure::Failure;
use super::table::Table;

/// Runs the verb.
pub fn run(args: &InspectArgs, console: &Console) -> Result<(), Failure> {
    let model = Model::load(&args.model, console.control())?;
    let problems = console.problems_with(&model.problems);
    let json = json!({
        "model": {
            "path": args.model,
            "opset": model.opset,
            "ir_version": model.file.proto.ir_version(),
            "nodes": nodes(&model),
            "parameters": parameters(&model),
            "size_bytes": model.file.size_bytes,
            "sha256": model.file.sha256,
            "producer": model.file.proto.producer_name(),
        },
        "inputs": model.inputs,
        "outputs": model.outputs,
        "layers": model.layers.iter().map(layer_json).collect::<Vec<_>>(),
        "problems": problems,
    });
    let text = to_text(args, &model) + &problems_text(&problems);
    console.result(&json, &text)
}

fn layer_json(layer: &Layer) -> Value {
    json!({
        "name": layer.name,
        "op": layer.op,
        "weight": layer.weight().map(|weight| &weight.tensor),
        "shape": layer.weight().map(|weight| &weight.shape),
        "parameters": layer.parameters,
        "quantizable": layer.quantizable(),
        "reason": layer.reason,
        "quantized": layer.existing,
    })
}

fn to_text(args: &InspectArgs, model: &Model) -> String {
    let mut out = format!(
        "{}\n{} · opset {} · IR version {} · {} nodes · {} parameters\n",
        args.model.display(),
        text::bytes(model.file.size_bytes),
        model.opset,
        model.file.proto.ir_version(),
        nodes(model),
        parameters(model)
    );
    for (title, ports) in [("Input", &model.inputs), ("Output", &model.outputs)] {
        out.extend(
            ports
                .iter()
                .map(|port: &Port| format!("{title:<6}  {}  {} {}\n", port.name, port.element_type, port.shape_text())),
        );
    }
    let mut table = Table::new(&["Layer", "Operator", "Weight", "Parameters", "Quantizable"], &[3]);
    for layer in &model.layers {
        let shape =
            layer.weight().map(|weight| weight.shape.iter().map(usize::to_string).collect::<Vec<_>>().join("×"));
        let quantizable = match &layer.existing {
            _ if !layer.quantizable() => format!("no: {}", layer.reason),
            Some(trained) => format!("yes, trained for {trained}"),
            None => "yes".to_owned(),
        };
        table.row([
            layer.name.clone(),
            layer.op.clone(),
            shape.unwrap_or_default(),
            layer.parameters.to_string(),
            quantizable,
        ]);
    }
    if !model.layers.is_empty() {
        out += &format!("\n{table}");
    }
    let quantizable = model.layers.iter().filter(|layer| layer.quantizable()).count();
    out + &format!("\n{quantizable} of {} layers can be quantized\n", model.layers.len())
}

/// Nodes of the graph, those in bodies of `If`, `Loop` and `Scan` included.
fn nodes(model: &Model) -> usize {
    let mut open: Vec<&GraphProto> = model.file.proto.graph.iter().collect();
    let mut count = 0;
    while let Some(graph) = open.pop() {
        count += graph.node.len();
        let attributes = graph.node.iter().flat_map(|node| &node.attribute);
        open.extend(attributes.flat_map(|attribute| attribute.g.iter().chain(&attribute.graphs)));
    }
    count
}

/// Values of all constant tensors, wherever they stand. Shapes, axes and conditions are not parameters.
fn parameters(model: &Model) -> u64 {
    let mut count = 0_u64;
    let mut visit = |tensor: &TensorProto| {
        let control = [DataType::Int64, DataType::Int32, DataType::Bool, DataType::String];
        if !control.iter().any(|&kind| kind as i32 == tensor.data_type()) {
            let sizes = tensor.dims.iter().map(|&dim| u64::try_from(dim).unwrap_or(0));
            count = count.saturating_add(sizes.fold(1, u64::saturating_mul));
        }
        Ok::<_, std::convert::Infallible>(())
    };
    let Ok(()) = walk::tensors(&model.file.proto, &mut visit);
    count
}
