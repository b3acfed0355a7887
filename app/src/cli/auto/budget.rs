//! What the person asks a plan to keep.

use nibble_core::model::Model;
use serde_json::{Value, json};

use crate::cli::args::AutoArgs;
use crate::cli::failure::Failure;

/// The limits; those not given do not bind.
#[derive(Clone, Copy, Debug, Default)]
pub struct Budgets {
    /// Least SQNR in dB.
    pub min_sqnr: Option<f64>,
    /// Most bytes of the file.
    pub max_size: Option<u64>,
    /// Most latency, quantized / original.
    pub max_latency: Option<f64>,
    /// Most drop of the metric.
    pub max_drop: Option<f64>,
}

impl Budgets {
    /// Reads the limits; at least one is needed.
    pub fn of(args: &AutoArgs, model: &Model) -> Result<Self, Failure> {
        let max_size = args.max_size.as_deref().map(|size| bytes(size, model)).transpose()?;
        let positive = |value: Option<f64>, flag: &str| match value {
            Some(value) if !(value.is_finite() && value >= 0.0) => {
                Err(Failure::usage(format!("{value} is no budget"), flag, "Give a number from 0 on"))
            }
            value => Ok(value),
        };
        let max_latency = positive(args.max_latency, "--max-latency")?;
        let max_drop = positive(args.max_drop, "--max-drop")?;
        let budgets = Self { min_sqnr: args.min_sqnr, max_size, max_latency, max_drop };
        if budgets.min_sqnr.is_none() && max_size.is_none() && max_latency.is_none() && max_drop.is_none() {
            let hint =
                "Give --min-sqnr DB, --max-size BYTES or N%, --max-latency RATIO or --max-drop POINTS, or several";
            return Err(Failure::usage("there is no budget", "", hint));
        }
        Ok(budgets)
    }

    /// Whether quality has a floor, so that the smallest plan is wanted; otherwise it is the most exact one.
    pub fn has_floor(&self) -> bool {
        self.min_sqnr.is_some() || self.max_drop.is_some()
    }

    /// As the result repeats them.
    pub fn to_json(self) -> Value {
        json!({
            "min_sqnr_db": self.min_sqnr,
            "max_size_bytes": self.max_size,
            "max_latency_ratio": self.max_latency,
            "max_drop": self.max_drop,
        })
    }
}

fn bytes(size: &str, model: &Model) -> Result<u64, Failure> {
    let bytes = match size.strip_suffix('%') {
        Some(percent) => percent.parse::<f64>().ok().map(|p| p / 100.0 * model.file.size_bytes as f64),
        None => size.parse::<f64>().ok(),
    };
    let hint = "Write bytes, or a share of the original such as 40%";
    bytes
        .filter(|bytes| bytes.is_finite() && *bytes > 0.0)
        .map(|bytes| bytes as u64)
        .ok_or_else(|| Failure::usage(format!("cannot read the size {size:?}"), "--max-size", hint))
}
