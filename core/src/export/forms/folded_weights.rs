//! Storage only: integer weights that the runtime turns back into floating point when it loads.
//!
//! Written as `Cast [→ Sub zero point] → Mul scale` and not as DequantizeLinear, which ONNX Runtime would run at every
//! inference (0.2–0.9× the speed); this folds at load and runs at the speed of the original.

use crate::Error;
use crate::export::context::{Context, dims};
use crate::export::forms::{WriteForm, groups, has_zero_points, value_bytes};
use crate::export::size::written;
use crate::export::stored::{Store, unpacking_bytes};
use crate::model::{Layer, Weight};
use crate::onnx::build;
use crate::onnx::proto::tensor_proto::DataType;
use crate::plan::{Choice, Granularity};
use crate::quant::QuantizedWeight;

/// The form.
pub struct FoldedWeights;

impl WriteForm for FoldedWeights {
    /// Lets `layer` read its weights from stored integers.
    fn write<'a>(&self, context: &mut Context<'a>, layer: &'a Layer, choice: &Choice) -> Result<(), Error> {
        for weight in &layer.weights {
            let key = format!("folded|{}", context.weight_key(weight, choice));
            let made = context.once(layer, weight, &key, |context| {
                let quantized = context.quantized(layer, weight, choice)?;
                let data_type = original_type(context, layer, weight);
                let mut store = context.store(layer, weight);
                let mut tensor = dequantized(&mut store, weight, &quantized);
                if data_type != DataType::Float {
                    tensor = store.cast(&tensor, data_type, &format!("{}_original_type", weight.tensor));
                }
                Ok(vec![tensor])
            })?;
            if let Some(tensor) = made.first() {
                context.patch.graph(&layer.path.bodies).set_input(layer.path.node, weight.input, tensor);
            }
        }
        Ok(())
    }

    fn weight_bytes(&self, weight: &Weight, choice: &Choice) -> u64 {
        let groups = groups(weight, choice);
        value_bytes(weight, choice) + groups * 4 + if has_zero_points(choice) { groups } else { 0 }
    }

    fn node_bytes(&self, weight: &Weight, choice: &Choice, opset: i64) -> u64 {
        let name = written(&weight.tensor);
        let is_blocks = matches!(choice.granularity, Granularity::Block(size) if weight.layout.depth() > size as usize);
        let zero_point = if has_zero_points(choice) { 4 * name + 120 } else { 0 };
        let blocks = if is_blocks { 6 * name + 250 } else { 0 };
        5 * name + 90 + zero_point + blocks + unpacking_bytes(weight, choice, opset)
    }

    fn stays_float(&self) -> bool {
        true
    }
}

/// The float values of a quantized weight as the output of nodes that fold.
///
/// Per tensor and per channel the integers keep the weight's shape. Blocks are stored channel by channel as
/// `[channels, blocks, block]` (the last block padded), where scales of `[channels, blocks, 1]` meet them.
fn dequantized(store: &mut Store<'_>, weight: &Weight, quantized: &QuantizedWeight) -> String {
    let name = &weight.tensor;
    let blocks = quantized.blocks();
    if blocks == 1 {
        let (float, offset) = store.floats(quantized.bits, name, &dims(&weight.shape), &quantized.values);
        return scaled(store, name, quantized, &float, offset, &group_shape(weight, quantized));
    }
    let (layout, size) = (weight.layout, quantized.group_size());
    let (channels, depth) = (layout.channels, layout.depth());
    let turned = layout.to_channel_major(&quantized.values);
    let padded: Vec<i8> = turned
        .chunks(depth.max(1))
        .flat_map(|row| row.iter().copied().chain(std::iter::repeat_n(0, blocks * size - depth)))
        .collect();
    let block_dims = dims(&[channels, blocks, size]);
    let (float, offset) = store.floats(quantized.bits, name, &block_dims, &padded);
    let mut values = scaled(store, name, quantized, &float, offset, &dims(&[channels, blocks, 1]));
    if blocks * size > depth {
        let rows = store.reshape(&values, &dims(&[channels, blocks * size]), &format!("{name}_rows"));
        values = store.first(&rows, depth, 1, &format!("{name}_cut"));
    }
    if layout.outer > 1 {
        let split = store.reshape(&values, &dims(&[channels, layout.outer, layout.inner]), &format!("{name}_split"));
        let perm = vec![build::attr_ints("perm", &[1, 0, 2])];
        values = store.node("Transpose", &[&split], &format!("{name}_turned"), perm);
    }
    store.reshape(&values, &dims(&weight.shape), &format!("{name}_float"))
}

/// `(values − zero points) · scales`, where `offset` has been added to the values.
fn scaled(
    store: &mut Store<'_>,
    name: &str,
    quantized: &QuantizedWeight,
    float: &str,
    offset: i8,
    group_dims: &[i64],
) -> String {
    let mut centred = float.to_owned();
    if offset != 0 || quantized.zero_points.iter().any(|&zero_point| zero_point != 0) {
        let zero_points: Vec<i8> = quantized.zero_points.iter().map(|&zero_point| zero_point + offset).collect();
        let same = zero_points.windows(2).all(|pair| pair[0] == pair[1]);
        let (count, shape) = if same { (1, &[][..]) } else { (zero_points.len(), group_dims) };
        let stored = store.int8(&format!("{name}_zero_point"), shape, &zero_points[..count.min(zero_points.len())]);
        let zero_point = store.cast(&stored, DataType::Float, &format!("{name}_zero_point_cast"));
        centred = store.node("Sub", &[float, &zero_point], &format!("{name}_centred"), Vec::new());
    }
    let scale = store.float32(&format!("{name}_scale"), group_dims, &quantized.scales);
    store.node("Mul", &[&centred, &scale], &format!("{name}_scaled"), Vec::new())
}

/// The shape that lets one value a group broadcast against the weight (per tensor and per channel).
fn group_shape(weight: &Weight, quantized: &QuantizedWeight) -> Vec<i64> {
    if quantized.scales.len() == 1 {
        return Vec::new();
    }
    // The channels may span several leading axes (LSTM: directions × gates).
    let mut shape = vec![1; weight.shape.len()];
    let mut left = weight.layout.channels;
    let mut inner = 1;
    for (axis, &size) in weight.shape.iter().enumerate().rev() {
        if inner < weight.layout.inner {
            inner *= size;
        } else if left > 1 {
            shape[axis] = size as i64;
            left /= size.max(1);
        }
    }
    shape
}

/// The element type that the file holds the weight in.
fn original_type(context: &Context<'_>, layer: &Layer, weight: &Weight) -> DataType {
    let data_type =
        context.model.initializer(layer, &weight.tensor).map_or(0, crate::onnx::proto::TensorProto::data_type);
    DataType::try_from(data_type).unwrap_or(DataType::Float)
}
