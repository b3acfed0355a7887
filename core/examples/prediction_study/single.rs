//! One layer quantized at a time: every layer with its candidates, by width.

use std::collections::BTreeMap;
use std::error::Error;

use nibble_core::plan::{Activation, Choice};

use super::Case;
use super::ranks::{Pair, Row};

/// Pairs of a layer and a candidate measured for each width, evenly spread over both.
const PAIRS: usize = 48;

/// The rows of each width.
pub fn study(case: &Case<'_>) -> Result<Vec<Row>, Box<dyn Error>> {
    let mut groups: BTreeMap<String, Vec<(usize, Choice, f64)>> = BTreeMap::new();
    for (at, picks) in case.candidates.iter().enumerate() {
        for pick in picks {
            let mut all = case.float.clone();
            all[at] = pick.clone();
            let Some(expected) = case.expected(&all) else { continue };
            let bits = pick.choice.precision.bits();
            let group = match pick.choice.activation {
                Activation::Float32 => format!("one layer, {bits}-bit weights"),
                _ => format!("one layer, {bits}-bit weights and 8-bit activations"),
            };
            groups.entry(group).or_default().push((at, pick.choice, expected.sum_db));
        }
    }
    let mut rows = Vec::new();
    for (group, all) in groups {
        let count = all.len().min(PAIRS);
        let mut pairs = Vec::new();
        for (at, choice, predicted) in (0..count).filter_map(|i| all.get(i * all.len() / count)) {
            let layer = &case.model.layers[*at];
            let measured = case.reference.measure_layer(layer, choice, Some(case.stats), case.control)?.db();
            let pair = |measured| Pair { predicted: *predicted, measured, half_width: None };
            pairs.extend(measured.filter(|db| db.is_finite()).map(pair));
        }
        rows.push(Row::of(case.name, &group, &pairs));
        println!("{}", rows[rows.len() - 1].line());
    }
    Ok(rows)
}
