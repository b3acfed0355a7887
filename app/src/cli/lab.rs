//! The calibration lab on the command line: which samples set ranges, outliers, how many samples are enough.

use nibble_core::calibrate::lab::{Effect, End, Lab, Point, Setter, Tensor, sample_name};
use nibble_core::data::DataSet;
use nibble_core::stats::{SampleId, Stats};
use serde_json::{Value, json};

/// Most samples listed in the result, and most named on the terminal.
const LISTED: usize = 20;
const NAMED: usize = 3;

/// The lab with what names its samples.
pub struct Named<'a> {
    /// What was found.
    pub lab: &'a Lab,
    /// What it was found in.
    pub stats: &'a Stats,
    /// The source at hand.
    pub set: &'a DataSet,
}

impl Named<'_> {
    fn name(&self, sample: SampleId) -> String {
        sample_name(sample, self.stats, Some(self.set))
    }

    /// For `--json`.
    pub fn to_json(&self) -> Value {
        let Lab { options, seen, samples, tensors, setters, curve, enough } = self.lab;
        json!({
            "samples": samples.len(),
            "seen": seen,
            "tolerance": options.tolerance,
            "confidence": options.confidence,
            "share": options.share,
            "enough": enough,
            "verdict": self.lab.verdict(),
            "curve": points(curve),
            "set_by": setters.iter().take(LISTED).map(|setter| self.setter(setter)).collect::<Vec<_>>(),
            "outliers": self.lab.outliers().map(|setter| self.outlier(setter)).collect::<Vec<_>>(),
            "tensors": tensors.iter().map(|tensor| self.tensor(tensor)).collect::<Vec<_>>(),
        })
    }

    fn setter(&self, setter: &Setter) -> Value {
        json!({
            "sample": setter.sample.sample,
            "name": self.name(setter.sample),
            "ends": setter.effects.len(),
            "cost_db": setter.cost_db,
            "outlier": setter.is_outlier(),
        })
    }

    fn outlier(&self, setter: &Setter) -> Value {
        let mut json = self.setter(setter);
        let effect = |effect: &Effect| {
            json!({
                "name": self.lab.tensors.get(effect.tensor).map(|tensor| &tensor.name),
                "end": if effect.is_upper { "max" } else { "min" },
                "value": effect.end.value,
                "others": effect.end.others,
                "factor": effect.factor,
            })
        };
        json["tensors"] = setter.far_out().map(effect).collect();
        json
    }

    fn tensor(&self, tensor: &Tensor) -> Value {
        let end = |end: Option<End>| {
            end.map(|end| {
                json!({
                    "value": end.value,
                    "sample": end.sample.sample,
                    "name": self.name(end.sample),
                    "others": end.others,
                })
            })
        };
        json!({
            "name": tensor.name,
            "min": end(tensor.low),
            "max": end(tensor.high),
            "settled": tensor.settled,
            "curve": points(&tensor.curve),
        })
    }

    /// For people: a few lines.
    pub fn text(&self) -> String {
        let mut lines = vec![format!("Samples      {}", self.lab.verdict())];
        let ends: usize = self.lab.tensors.iter().flat_map(|tensor| [tensor.low, tensor.high]).flatten().count();
        let named = |setter: &Setter| format!("{} ({} of {ends} ends)", self.name(setter.sample), setter.effects.len());
        let mut most: Vec<&Setter> = self.lab.setters.iter().collect();
        most.sort_by_key(|setter| std::cmp::Reverse(setter.effects.len()));
        if !most.is_empty() {
            let names: Vec<String> = most.into_iter().take(NAMED).map(named).collect();
            lines.push(format!("Ranges are set by {}", names.join(", ")));
        }
        for setter in self.lab.outliers().take(NAMED) {
            lines.push(format!("Outlier      {}", self.lab.outlier_text(setter, &self.name(setter.sample))));
        }
        let more = self.lab.outliers().count().saturating_sub(NAMED);
        if more > 0 {
            lines.push(format!("             and {more} more, see --json"));
        }
        lines.join("\n")
    }
}

fn points(points: &[Point]) -> Vec<Value> {
    let each = points.iter().map(|point| {
        let Point { samples, low, median, high, within } = point;
        json!({"samples": samples, "width": {"low": low, "median": median, "high": high}, "within": within})
    });
    each.collect()
}
