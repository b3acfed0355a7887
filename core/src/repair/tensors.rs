//! Repairs and scalings as a safetensors file: what is no tensor lies in its header, under `nibble`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use super::{Gain, LayerRepair, Scaling, ScalingMethod};
use crate::plan::{Granularity, Precision, Rounding, Symmetry};
use crate::quant::{QuantizedWeight, WeightLayout};

/// Key of the header's entry.
const KEY: &str = "nibble";
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Header {
    version: u32,
    #[serde(default)]
    layers: BTreeMap<String, LayerHeader>,
    #[serde(default)]
    scalings: Vec<ScalingHeader>,
}

#[derive(Serialize, Deserialize)]
struct LayerHeader {
    method: Rounding,
    precision: Precision,
    symmetry: Symmetry,
    granularity: Granularity,
    data_free: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    levels: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    held_back: Option<Gain>,
    /// Outer, channels, inner of each weight.
    weights: Vec<[usize; 3]>,
    bias: bool,
}

#[derive(Serialize, Deserialize)]
struct ScalingHeader {
    tensor: String,
    method: ScalingMethod,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    folded_into: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    alpha: Option<f32>,
}

type Repairs = BTreeMap<String, Arc<LayerRepair>>;

fn key(layer: &str, weight: usize, part: &str) -> String {
    format!("{layer}:{weight}:{part}")
}

/// The file's bytes.
pub fn encode(repairs: &Repairs, scalings: &[Scaling]) -> Result<Vec<u8>, String> {
    let mut tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = Vec::new();
    let floats = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let bytes = |values: &[i8]| values.iter().map(|value| value.cast_unsigned()).collect::<Vec<u8>>();
    let mut header = Header { version: VERSION, layers: BTreeMap::new(), scalings: Vec::new() };
    for (name, repair) in repairs {
        for (at, weight) in repair.weights.iter().enumerate() {
            let WeightLayout { outer, channels, inner } = weight.layout;
            tensors.push((key(name, at, "values"), Dtype::I8, vec![outer, channels, inner], bytes(&weight.values)));
            let groups = vec![weight.scales.len()];
            tensors.push((key(name, at, "scales"), Dtype::F32, groups.clone(), floats(&weight.scales)));
            tensors.push((key(name, at, "zero_points"), Dtype::I8, groups, bytes(&weight.zero_points)));
        }
        if let Some(bias) = &repair.bias {
            tensors.push((key(name, 0, "bias"), Dtype::F32, vec![bias.len()], floats(bias)));
        }
        let of = |weight: &QuantizedWeight| [weight.layout.outer, weight.layout.channels, weight.layout.inner];
        let entry = LayerHeader {
            method: repair.method,
            precision: repair.precision,
            symmetry: repair.symmetry,
            granularity: repair.granularity,
            data_free: repair.data_free,
            levels: repair.levels,
            held_back: repair.held_back,
            weights: repair.weights.iter().map(of).collect(),
            bias: repair.bias.is_some(),
        };
        header.layers.insert(name.clone(), entry);
    }
    for (at, scaling) in scalings.iter().enumerate() {
        let name = format!("scaling:{at}:factors");
        tensors.push((name, Dtype::F32, vec![scaling.factors.len()], floats(&scaling.factors)));
        header.scalings.push(ScalingHeader {
            tensor: scaling.tensor.clone(),
            method: scaling.method,
            folded_into: scaling.folded_into.clone(),
            alpha: scaling.alpha,
        });
    }
    let header = serde_json::to_string(&header).map_err(|error| error.to_string())?;
    let views = tensors
        .iter()
        .map(|(name, dtype, shape, bytes)| Ok((name.as_str(), TensorView::new(*dtype, shape.clone(), bytes)?)));
    let views: Vec<_> =
        views.collect::<Result<_, safetensors::SafeTensorError>>().map_err(|error| error.to_string())?;
    safetensors::serialize(views, Some(HashMap::from([(KEY.to_owned(), header)]))).map_err(|error| error.to_string())
}

/// What the bytes hold; the message says what is wrong with them.
pub fn decode(bytes: &[u8]) -> Result<(Repairs, Vec<Scaling>), String> {
    let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|error| error.to_string())?;
    let file = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
    let header = metadata.metadata().as_ref().and_then(|entries| entries.get(KEY)).ok_or("it has no header of ours")?;
    let header: Header = serde_json::from_str(header).map_err(|error| error.to_string())?;
    if header.version > VERSION {
        return Err(format!("it has version {}, this build reads up to {VERSION}", header.version));
    }
    let mut repairs = Repairs::new();
    for (name, entry) in header.layers {
        let repair = layer(&file, &name, &entry).map_err(|why| format!("layer {name:?}: {why}"))?;
        repairs.insert(name, Arc::new(repair));
    }
    let scalings = header.scalings.into_iter().enumerate().map(|(at, entry)| {
        let factors = floats(&file, &format!("scaling:{at}:factors"))?;
        if factors.is_empty() || factors.iter().any(|&factor| factor <= 0.0) {
            return Err(format!("scaling of {:?}: its factors are not all above 0", entry.tensor));
        }
        let ScalingHeader { tensor, method, folded_into, alpha } = entry;
        Ok(Scaling { tensor, factors, folded_into, method, alpha })
    });
    Ok((repairs, scalings.collect::<Result<_, _>>()?))
}

fn layer(file: &SafeTensors<'_>, name: &str, entry: &LayerHeader) -> Result<LayerRepair, String> {
    let integers = matches!(entry.precision, Precision::Int8 | Precision::Int4 | Precision::Int2);
    if !integers || entry.method == Rounding::Nearest {
        return Err(format!("a repair of {} by {} does not exist", entry.precision, entry.method));
    }
    let bits = entry.precision.bits();
    let half = 1_i32 << (bits - 1);
    let mut weights = Vec::new();
    for (at, &[outer, channels, inner]) in entry.weights.iter().enumerate() {
        let layout = WeightLayout { outer, channels, inner };
        let values = signed(file, &key(name, at, "values"))?;
        let scales = floats(file, &key(name, at, "scales"))?;
        let zero_points = signed(file, &key(name, at, "zero_points"))?;
        let (granularity, non_finite) = (entry.granularity, 0);
        let weight = QuantizedWeight { bits, layout, granularity, values, scales, zero_points, non_finite };
        let groups = match granularity {
            Granularity::PerTensor => 1,
            Granularity::PerChannel | Granularity::Block(_) => channels.saturating_mul(weight.blocks()),
        };
        if layout.is_empty() || weight.values.len() != layout.len() {
            return Err(format!("{} values do not fill {outer}×{channels}×{inner}", weight.values.len()));
        }
        if weight.scales.len() != groups || weight.zero_points.len() != groups {
            return Err(format!("{} scales for {groups} groups", weight.scales.len()));
        }
        let out_of_range = |&value: &i8| i32::from(value) < -half || i32::from(value) >= half;
        if weight.values.iter().any(out_of_range) || weight.scales.iter().any(|&scale| scale < f32::MIN_POSITIVE) {
            return Err(format!("integers beyond {bits} bits, or scales of 0"));
        }
        if entry.symmetry == Symmetry::Symmetric && weight.zero_points.iter().any(|&zero_point| zero_point != 0) {
            return Err("symmetric weights with zero points".to_owned());
        }
        weights.push(weight);
    }
    let bias = if entry.bias { Some(floats(file, &key(name, 0, "bias"))?) } else { None };
    Ok(LayerRepair {
        method: entry.method,
        precision: entry.precision,
        symmetry: entry.symmetry,
        granularity: entry.granularity,
        weights,
        bias,
        data_free: entry.data_free,
        levels: entry.levels,
        held_back: entry.held_back,
    })
}

fn tensor<'b>(file: &SafeTensors<'b>, name: &str, dtype: Dtype) -> Result<&'b [u8], String> {
    let view = file.tensor(name).map_err(|_| format!("tensor {name:?} is missing"))?;
    if view.dtype() == dtype { Ok(view.data()) } else { Err(format!("tensor {name:?} is {:?}", view.dtype())) }
}

fn signed(file: &SafeTensors<'_>, name: &str) -> Result<Vec<i8>, String> {
    Ok(tensor(file, name, Dtype::I8)?.iter().map(|byte| byte.cast_signed()).collect())
}

/// Finite values of a float32 tensor.
fn floats(file: &SafeTensors<'_>, name: &str) -> Result<Vec<f32>, String> {
    let (whole, _) = tensor(file, name, Dtype::F32)?.as_chunks::<4>();
    let values: Vec<f32> = whole.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    let is_finite = values.iter().all(|value| value.is_finite());
    if is_finite { Ok(values) } else { Err(format!("tensor {name:?} holds NaN or infinities")) }
}
