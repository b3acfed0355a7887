//! Storage only: integer or float16 weights that the runtime turns back into floating point when it loads.
//!
//! Written as `Cast [→ Sub zero point] → Mul scale` and not as DequantizeLinear, which ONNX Runtime would run at every
//! inference (0.2–0.9× the speed); this folds at load and runs at the speed of the original.

use crate::Error;
use crate::export::context::{Context, dims, weight_key};
use crate::export::stored::Store;
use crate::model::{Layer, Weight};
use crate::onnx::build;
use crate::onnx::proto::tensor_proto::DataType;
use crate::plan::{Choice, Granularity};
use crate::quant::{QuantizedWeight, to_float16};

/// Lets `layer` read its weights from stored integers.
pub fn write<'a>(context: &mut Context<'a>, layer: &'a Layer, choice: &Choice) -> Result<(), Error> {
    for weight in &layer.weights {
        let key = format!("folded|{}", weight_key(weight, choice));
        let tensor = match context.patch.made(&layer.path.bodies, &key) {
            Some(tensor) => tensor,
            None => {
                let quantized = context.quantized(layer, weight, choice)?;
                context.uses_int4 |= quantized.bits == 4 && context.model.opset >= crate::export::stored::INT4_OPSET;
                let data_type = original_type(context, layer, weight);
                let mut store = context.store(layer);
                let mut tensor = dequantized(&mut store, weight, &quantized);
                if data_type != DataType::Float {
                    tensor = store.cast(&tensor, data_type, &format!("{}_original_type", weight.tensor));
                }
                context.patch.remember(&layer.path.bodies, &key, &tensor);
                tensor
            }
        };
        context.patch.graph(&layer.path.bodies).set_input(layer.path.node, weight.input, &tensor);
    }
    Ok(())
}

/// Lets `layer` read its weights from stored float16 values. Weights that do not fit float16 stay as they are.
pub fn write_float16<'a>(context: &mut Context<'a>, layer: &'a Layer) -> Result<usize, Error> {
    let mut overflowing = 0;
    for weight in layer.weights.iter().filter(|weight| weight.is_f32) {
        let key = format!("float16|{}", weight.tensor);
        let tensor = match context.patch.made(&layer.path.bodies, &key) {
            Some(tensor) => tensor,
            None => {
                let values = context.model.weight(layer, weight)?;
                let half = to_float16(&values);
                if half.saturated > 0 {
                    overflowing += half.saturated;
                    continue;
                }
                let mut store = context.store(layer);
                let name = store.patch.fresh(&format!("{}_float16", weight.tensor));
                let tensor = build::tensor_f16(&name, &dims(&weight.shape), &half.values);
                store.patch.graph(&layer.path.bodies).push_initializer(tensor);
                let tensor = store.cast(&name, DataType::Float, &format!("{}_float32", weight.tensor));
                context.patch.remember(&layer.path.bodies, &key, &tensor);
                tensor
            }
        };
        context.patch.graph(&layer.path.bodies).set_input(layer.path.node, weight.input, &tensor);
    }
    Ok(overflowing)
}

/// The float values of a quantized weight as the output of nodes that fold.
pub fn dequantized(store: &mut Store<'_>, weight: &Weight, quantized: &QuantizedWeight) -> String {
    let name = &weight.tensor;
    let shape = dims(&weight.shape);
    let stored = format!("{name}_int{}", quantized.bits);
    let float = store.integers(quantized.bits, &stored, &shape, &quantized.values, DataType::Float);
    let (scale, zero_point) = match quantized.granularity {
        Granularity::Block(size) => {
            let scale = spread(store, &format!("{name}_scale"), weight, quantized, size as usize, &quantized.scales);
            let zero_point = has_zero_points(quantized).then(|| {
                let values: Vec<f32> = quantized.zero_points.iter().map(|&z| f32::from(z)).collect();
                spread(store, &format!("{name}_zero_point"), weight, quantized, size as usize, &values)
            });
            (scale, zero_point)
        }
        _ => {
            let shape = group_shape(weight, quantized);
            let scale = store.float32(&format!("{name}_scale"), &shape, &quantized.scales);
            let zero_point = has_zero_points(quantized).then(|| {
                let stored = store.int8(&format!("{name}_zero_point"), &shape, &quantized.zero_points);
                store.cast(&stored, DataType::Float, &format!("{name}_zero_point_cast"))
            });
            (scale, zero_point)
        }
    };
    let centred = match zero_point {
        Some(zero_point) => store.node("Sub", &[&float, &zero_point], &format!("{name}_centred"), Vec::new()),
        None => float,
    };
    store.node("Mul", &[&centred, &scale], &format!("{name}_dequantized"), Vec::new())
}

fn has_zero_points(quantized: &QuantizedWeight) -> bool {
    quantized.zero_points.iter().any(|&zero_point| zero_point != 0)
}

/// The shape that lets one value a group broadcast against the weight (per tensor and per channel).
pub fn group_shape(weight: &Weight, quantized: &QuantizedWeight) -> Vec<i64> {
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

/// One value a block, repeated to one a weight by nodes that fold: the file holds each once.
fn spread(
    store: &mut Store<'_>,
    name: &str,
    weight: &Weight,
    quantized: &QuantizedWeight,
    size: usize,
    values: &[f32],
) -> String {
    let layout = weight.layout;
    let (channels, depth, blocks) = (layout.channels as i64, layout.depth() as i64, quantized.blocks() as i64);
    let stored = store.float32(name, &[channels, blocks, 1], values);
    let full = store.int64(&format!("{name}_blocks"), &[3], &[channels, blocks, size as i64]);
    let expanded = store.node("Expand", &[&stored, &full], &format!("{name}_expanded"), Vec::new());
    let flat = store.int64(&format!("{name}_flat"), &[2], &[channels, blocks * size as i64]);
    let mut rows = store.node("Reshape", &[&expanded, &flat], &format!("{name}_rows"), Vec::new());
    if blocks * size as i64 > depth {
        let start = store.int64(&format!("{name}_start"), &[1], &[0]);
        let end = store.int64(&format!("{name}_end"), &[1], &[depth]);
        let axis = store.int64(&format!("{name}_axis"), &[1], &[1]);
        rows = store.node("Slice", &[&rows, &start, &end, &axis], &format!("{name}_cut"), Vec::new());
    }
    // Rows are channels; the weight has them along its own axis.
    let split = store.int64(&format!("{name}_split"), &[3], &[channels, layout.outer as i64, layout.inner as i64]);
    let split = store.node("Reshape", &[&rows, &split], &format!("{name}_split"), Vec::new());
    let turned =
        store.node("Transpose", &[&split], &format!("{name}_turned"), vec![build::attr_ints("perm", &[1, 0, 2])]);
    let shape = store.int64(&format!("{name}_shape"), &[weight.shape.len() as i64], &dims(&weight.shape));
    store.node("Reshape", &[&turned, &shape], &format!("{name}_spread"), Vec::new())
}

/// The element type that the file holds the weight in.
fn original_type(context: &Context<'_>, layer: &Layer, weight: &Weight) -> DataType {
    let data_type =
        context.model.initializer(layer, &weight.tensor).map_or(0, crate::onnx::proto::TensorProto::data_type);
    DataType::try_from(data_type).unwrap_or(DataType::Float)
}
