//! Why the quantized model is slower than the original: which operators and layers took longer, and the usual cause.

use std::collections::BTreeMap;

use super::features::has_int8_dot;
use super::settle::plain_name;
use super::{LatencyRatio, LayerTime, Speed};

/// A ratio above this is worth an explanation; below, the clock may have done it.
const NOTICEABLE: f64 = 1.02;
/// Kernels shorter than this are mostly the cost of starting them (some microseconds each), whatever they compute.
pub const OVERHEAD_MS: f64 = 0.02;
/// Growth of a family below this share of the original's whole time is noise.
const SHARE: f64 = 0.01;
/// Reasons and layers named at most.
const REASONS: usize = 5;
const LAYERS: usize = 2;

/// Operators that do the same work in different forms; moving values between float and integers is a family of its own.
pub fn family(op: &str) -> &str {
    // ONNX Runtime's forms of an operator: QLinearAdd, FusedConv, NhwcMaxPool, QAttention.
    let mut plain = op;
    for prefix in ["Nhwc", "Fused", "QLinear", "Global"] {
        plain = plain.strip_prefix(prefix).unwrap_or(plain);
    }
    match plain {
        "Conv" | "ConvInteger" => "Convolutions",
        "MatMul"
        | "Gemm"
        | "QGemm"
        | "MatMulInteger"
        | "MatMulIntegerToFloat"
        | "DynamicQuantizeMatMul"
        | "MatMulNBits" => "Matrix products",
        "QuantizeLinear" | "DequantizeLinear" | "DynamicQuantizeLinear" | "Cast" => CONVERSIONS,
        "Transpose" | "ReorderInput" | "ReorderOutput" => "Layout changes",
        "DynamicQuantizeLSTM" => "LSTM",
        "QAttention" => "Attention",
        "GatherBlockQuantized" => "Gather",
        plain => plain,
    }
}

const CONVERSIONS: &str = "Conversions between float and integers";

/// Sentences that name what grew, the largest first; empty when the ratio is at most 1.02 or not clearly slower
/// ([`LatencyRatio::speed`]).
pub fn why_slower(
    ratio: LatencyRatio,
    original: &[LayerTime],
    quantized: &[LayerTime],
    cpu_features: &[String],
) -> Vec<String> {
    if ratio.p50 <= NOTICEABLE || ratio.speed() != Speed::Slower {
        return Vec::new();
    }
    let (before, after) = (totals(original), totals(quantized));
    let whole: f64 = before.values().sum();
    let mut grown: Vec<_> = after
        .iter()
        .map(|(family, after)| (*family, before.get(family).copied().unwrap_or_default(), *after))
        .filter(|(_, before, after)| after - before > SHARE * whole)
        .collect();
    grown.sort_by(|a, b| (b.2 - b.1).total_cmp(&(a.2 - a.1)));
    let mut reasons: Vec<String> = grown
        .iter()
        .take(REASONS)
        .map(|&(name, before, after)| {
            let longest: Vec<_> = quantized
                .iter()
                .filter(|layer| family(&layer.op) == name)
                .take(LAYERS)
                .map(|layer| format!("{} ({}, {})", plain_name(&layer.name), layer.op, milliseconds(layer.time_ms)))
                .collect();
            format!(
                "{name}: {} instead of {}{}; longest: {}",
                milliseconds(after),
                milliseconds(before),
                cause(name, quantized),
                longest.join(", ")
            )
        })
        .collect();
    if !reasons.is_empty() && !has_int8_dot(cpu_features) {
        reasons.push(
            "This processor has no instruction that multiplies and adds int8 (VNNI, AMX, dotprod), so int8 kernels gain little"
                .to_owned(),
        );
    }
    let is_grown = |layer: &LayerTime| grown.iter().any(|(name, ..)| *name == family(&layer.op));
    let mut grown_nodes = quantized.iter().filter(|layer| is_grown(layer));
    if reasons.is_empty() {
        reasons.push(
            "No operator grew noticeably: the model is so small that the cost of starting each node decides".to_owned(),
        );
    } else if grown_nodes.all(|layer| layer.time_ms < OVERHEAD_MS) {
        reasons.push(format!(
            "None of these nodes takes {OVERHEAD_MS} ms: that is mostly the cost of starting them; integers pay in larger models"
        ));
    }
    reasons
}

/// The usual cause, as a clause.
fn cause(family_name: &str, quantized: &[LayerTime]) -> String {
    let count = |ops: &[&str]| quantized.iter().filter(|layer| ops.contains(&layer.op.as_str())).count();
    match family_name {
        CONVERSIONS => {
            let (to, from) = (count(&["QuantizeLinear", "DynamicQuantizeLinear"]), count(&["DequantizeLinear"]));
            format!(" ({to} to integers, {from} back: where integers meet floats, or weights are stored small)")
        }
        "Convolutions" if count(&["ConvInteger"]) > 0 => {
            " (ConvInteger, the dynamic form, has no fast kernel; choose static activations)".to_owned()
        }
        "Convolutions" if count(&["QLinearConv"]) > 0 => {
            " (the integer kernel is slower here, as it often is for few channels and for depthwise layers)".to_owned()
        }
        "Matrix products" if count(&["MatMulNBits"]) > 0 => {
            " (MatMulNBits unpacks its weights on every run, which pays for one row, not for many)".to_owned()
        }
        // MatMulIntegerToFloat serves static layers too; only DynamicQuantizeLinear tells them apart.
        "Matrix products" if count(&["DynamicQuantizeMatMul", "MatMulInteger", "DynamicQuantizeLinear"]) > 0 => {
            " (activations of dynamic layers are quantized anew on every run)".to_owned()
        }
        "Matrix products" if count(&["MatMulIntegerToFloat", "QLinearMatMul", "QGemm"]) > 0 => {
            " (the integer kernel itself is slower here, as it often is for few rows and small matrices)".to_owned()
        }
        _ => String::new(),
    }
}

fn totals(layers: &[LayerTime]) -> BTreeMap<&str, f64> {
    let mut totals = BTreeMap::new();
    for layer in layers {
        *totals.entry(family(&layer.op)).or_default() += layer.time_ms;
    }
    totals
}

fn milliseconds(time: f64) -> String {
    if time == 0.0 {
        "nothing".to_owned()
    } else if time < 0.095 {
        format!("{time:.3} ms")
    } else {
        format!("{time:.2} ms")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(name: &str, op: &str, time_ms: f64) -> LayerTime {
        LayerTime { model: String::new(), name: name.to_owned(), op: op.to_owned(), time_ms }
    }

    #[test]
    fn names_the_families_that_grew_and_nothing_else() {
        let original = [layer("c1", "Conv", 1.0), layer("m", "MatMul", 2.0), layer("r", "Relu", 0.1)];
        let quantized = [
            layer("c1_q", "QLinearConv", 1.5),
            layer("m", "MatMul", 1.0),
            layer("dq", "DequantizeLinear", 1.0),
            layer("r", "Relu", 0.1),
        ];
        let slower = LatencyRatio { p50: 1.16, low: 1.1, high: 1.2 };
        let reasons = why_slower(slower, &original, &quantized, &["avx_vnni".to_owned()]);
        assert_eq!(reasons.len(), 2);
        assert!(reasons[0].starts_with("Conversions") && reasons[0].contains("instead of nothing"), "{}", reasons[0]);
        assert!(reasons[1].contains("c1_q (QLinearConv, 1.50 ms)"), "{}", reasons[1]);
        assert_eq!(why_slower(slower, &original, &quantized, &[]).len(), 3);
        let faster = LatencyRatio { p50: 0.9, low: 0.8, high: 1.0 };
        assert!(why_slower(faster, &original, &quantized, &[]).is_empty());
        let unclear = LatencyRatio { p50: 1.05, low: 0.95, high: 1.2 };
        assert!(why_slower(unclear, &original, &quantized, &[]).is_empty());
    }

    #[test]
    fn causes_name_what_really_ran() {
        let reason = |ops: &[&str]| {
            let quantized: Vec<_> = ops.iter().map(|op| layer("m_token_3", op, 2.0)).collect();
            let slower = LatencyRatio { p50: 2.0, low: 1.9, high: 2.1 };
            why_slower(slower, &[layer("m", "MatMul", 1.0)], &quantized, &["avx_vnni".to_owned()]).join("; ")
        };
        let fixed = reason(&["MatMulIntegerToFloat"]);
        assert!(fixed.contains("integer kernel") && !fixed.contains("anew"), "{fixed}");
        assert!(fixed.contains("longest: m (MatMulIntegerToFloat"), "{fixed}");
        assert!(reason(&["MatMulIntegerToFloat", "DynamicQuantizeLinear"]).contains("quantized anew"));
        let packed = reason(&["MatMulNBits"]);
        assert!(packed.contains("unpacks") && !packed.contains("four"), "bits are not known here: {packed}");
        let short = [layer("a", "MatMul", 0.003), layer("b", "MatMul", 0.002)];
        let longer = [layer("a", "MatMulNBits", 0.009)];
        let slower = LatencyRatio { p50: 1.5, low: 1.4, high: 1.6 };
        assert!(why_slower(slower, &short, &longer, &[]).iter().any(|reason| reason.contains("cost of starting")));
    }

    #[test]
    fn forms_of_one_operator_are_one_family() {
        for (form, plain) in [
            ("QLinearConv", "Conv"),
            ("FusedConv", "Conv"),
            ("NhwcMaxPool", "MaxPool"),
            ("QLinearAdd", "Add"),
            ("FusedMatMul", "QGemm"),
            ("QLinearGlobalAveragePool", "GlobalAveragePool"),
            ("DynamicQuantizeLSTM", "LSTM"),
        ] {
            assert_eq!(family(form), family(plain), "{form}");
        }
        assert_ne!(family("QuantizeLinear"), family("Conv"));
    }

    #[test]
    fn something_is_said_when_no_operator_grew() {
        let layers = [layer("a", "Relu", 1.0)];
        let reasons = why_slower(LatencyRatio { p50: 1.5, low: 1.4, high: 1.6 }, &layers, &layers, &[]);
        assert_eq!(reasons.len(), 1);
        assert!(reasons[0].contains("No operator grew"));
    }
}
