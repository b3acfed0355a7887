//! Embeddings: the rows are looked up as integers and turned into floating point afterwards, so the table stays small in memory.

use crate::Error;
use crate::export::context::Context;
use crate::export::forms::WriteForm;
use crate::model::{Layer, Weight};
use crate::onnx::build;
use crate::onnx::proto::tensor_proto::DataType;
use crate::plan::{Choice, Granularity};
use crate::quant::{QuantizedWeight, pack_4bit};

/// The form.
pub struct QuantizedGather;

impl WriteForm for QuantizedGather {
    /// Puts `Gather → Cast [→ Sub] → Mul` in the place of a Gather; 4-bit tables become a GatherBlockQuantized.
    fn write<'a>(&self, context: &mut Context<'a>, layer: &'a Layer, choice: &Choice) -> Result<(), Error> {
        let Some(weight) = layer.weight() else { return Ok(()) };
        let quantized = context.quantized(layer, weight, choice)?;
        let indices = context.node(layer)?.input.get(1).cloned().unwrap_or_default();
        let nodes = if let (4, Granularity::Block(block)) = (quantized.bits, quantized.granularity) {
            block_quantized(context, layer, weight, choice, &quantized, block, indices)?
        } else {
            rows(context, layer, weight, choice, &quantized, &indices)?
        };
        context.patch.graph(&layer.path.bodies).replace(layer.path.node, nodes);
        Ok(())
    }
}

fn rows<'a>(
    context: &mut Context<'a>,
    layer: &'a Layer,
    weight: &Weight,
    choice: &Choice,
    quantized: &QuantizedWeight,
    indices: &str,
) -> Result<Vec<crate::onnx::proto::NodeProto>, Error> {
    let node = context.node(layer)?;
    let name = weight.tensor.clone();
    let [rows, width] = weight.shape[..] else { return Ok(vec![node.clone()]) };
    let key = format!("gather|{}", context.weight_key(weight, choice));
    let made = context.once(layer, weight, &key, |context| {
        let groups: Vec<i64> = if quantized.scales.len() == 1 { Vec::new() } else { vec![rows as i64, 1] };
        let mut store = context.store(layer, weight);
        let table = store.int8(&format!("{name}_int8"), &[rows as i64, width as i64], &quantized.values);
        let scale = store.float32(&format!("{name}_scale"), &groups, &quantized.scales);
        let mut made = vec![table, scale];
        if quantized.zero_points.iter().any(|&zero_point| zero_point != 0) {
            made.push(store.int8(&format!("{name}_zero_point"), &groups, &quantized.zero_points));
        }
        Ok(made)
    })?;
    let mut made = made.into_iter();
    let mut next = || made.next().unwrap_or_default();
    let (table, scale, zero_point) = (next(), next(), next());
    let per_row = quantized.scales.len() > 1;
    let mut nodes = Vec::new();
    let output = layer.output.clone();
    let mut step = |context: &mut Context<'a>, op: &str, inputs: &[&str], wanted: &str, cast: bool| -> String {
        let made = context.patch.fresh(&format!("{output}_{wanted}"));
        let node_name = context.patch.fresh(&format!("{}/{wanted}", node.name()));
        let attributes = match (op, cast) {
            ("Cast", _) => vec![build::attr_int("to", DataType::Float as i64)],
            ("Gather", _) => vec![build::attr_int("axis", 0)],
            _ => Vec::new(),
        };
        nodes.push(build::node(op, "", &node_name, inputs, &[made.as_str()], attributes));
        made
    };
    let picked = step(context, "Gather", &[&table, indices], "rows", false);
    let mut float = step(context, "Cast", &[&picked], "float", true);
    if !zero_point.is_empty() {
        let picked =
            if per_row { step(context, "Gather", &[&zero_point, indices], "zero_points", false) } else { zero_point };
        let cast = step(context, "Cast", &[&picked], "zero_points_float", true);
        float = step(context, "Sub", &[&float, &cast], "centred", false);
    }
    let scale = if per_row { step(context, "Gather", &[&scale, indices], "scales", false) } else { scale };
    let node_name = context.patch.fresh(&format!("{}/scaled", node.name()));
    nodes.push(build::node("Mul", "", &node_name, &[float.as_str(), &scale], &[output.as_str()], Vec::new()));
    Ok(nodes)
}

/// A 4-bit table in blocks along its rows, as uint8 pairs (the kernel is ten times slower on 4-bit tensor types).
fn block_quantized<'a>(
    context: &mut Context<'a>,
    layer: &'a Layer,
    weight: &Weight,
    choice: &Choice,
    quantized: &QuantizedWeight,
    block: u32,
    indices: String,
) -> Result<Vec<crate::onnx::proto::NodeProto>, Error> {
    let node = context.node(layer)?;
    let name = weight.tensor.clone();
    let [rows, width] = weight.shape[..] else { return Ok(vec![node.clone()]) };
    let blocks = width.div_ceil(block as usize);
    let key = format!("gather_blocks|{}", context.weight_key(weight, choice));
    let made = context.once(layer, weight, &key, |context| {
        let unsigned = |values: &[i8]| -> Vec<i8> { values.iter().map(|&value| value + 8).collect() };
        let packed: Vec<u8> = quantized.values.chunks(width.max(1)).flat_map(|row| pack_4bit(&unsigned(row))).collect();
        let zero_points: Vec<u8> =
            quantized.zero_points.chunks(blocks.max(1)).flat_map(|row| pack_4bit(&unsigned(row))).collect();
        let mut store = context.store(layer, weight);
        let data = store.uint8(&format!("{name}_q4"), &[rows as i64, width.div_ceil(2) as i64], &packed);
        let scale = store.float32(&format!("{name}_scale"), &[rows as i64, blocks as i64], &quantized.scales);
        let zero_point =
            store.uint8(&format!("{name}_zero_point"), &[rows as i64, blocks.div_ceil(2) as i64], &zero_points);
        Ok(vec![data, scale, zero_point])
    })?;
    let mut made = made.into_iter();
    let mut inputs = vec![made.next().unwrap_or_default(), indices];
    inputs.extend(made);
    let attributes = vec![
        build::attr_int("gather_axis", 0),
        build::attr_int("quantize_axis", 1),
        build::attr_int("block_size", i64::from(block)),
        build::attr_int("bits", 4),
    ];
    let outputs = [layer.output.clone()];
    Ok(vec![context.microsoft("GatherBlockQuantized", node.name(), &inputs, &outputs, attributes)])
}
