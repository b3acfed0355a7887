//! What `repair --at-once` says.

use nibble_core::Problem;
use nibble_core::repair::{AtOnce, GainSpread};
use serde_json::{Value, json};

use super::layer_json;
use crate::cli::console::problems_text;
use crate::cli::table::Table;

/// One layer.
pub fn to_json(done: &AtOnce) -> Value {
    let gain = |gain: Option<GainSpread>| (gain.map(|gain| gain.db), gain.map(|gain| [gain.low_db, gain.high_db]));
    let mut json = layer_json(&done.layer);
    let (own, interval) = gain(done.own);
    json["seconds"] = json!(done.seconds);
    json["learnt_from"] = json!(done.learnt_from);
    json["judged_on"] = json!(done.judged_on);
    json["gain_db"] = json!(own);
    json["gain_interval_db"] = json!(interval);
    json["output"] = done.whole.map_or(Value::Null, |(before, after, spread)| {
        let (db, interval) = gain(spread);
        json!({
            "before_sqnr_db": before, "after_sqnr_db": after, "gain_db": db, "gain_interval_db": interval,
            "samples": done.run_on,
        })
    });
    json
}

/// All of them.
pub fn to_text(layers: &[AtOnce], problems: &[Problem]) -> String {
    let titles = ["Layer", "Repair", "Before", "After", "Gain", "Alone, at the output", "Samples", "Seconds"];
    let mut table = Table::new(&titles, &[2, 3, 6, 7]);
    for done in layers {
        let held = done.layer.repair.held_back;
        let db = |db: Option<f64>| db.map_or_else(|| "–".to_owned(), |db| format!("{db:.1} dB"));
        let whole = done
            .whole
            .map_or_else(|| "–".to_owned(), |(before, after, _)| format!("{} → {}", db(before.db()), db(after.db())));
        table.row([
            done.layer.name.clone(),
            done.layer.repair.method.to_string(),
            db(held.map(|gain| gain.before_db)),
            db(held.map(|gain| gain.after_db)),
            done.own.map_or_else(
                || "–".to_owned(),
                |gain| format!("{:.1} ({:.1} to {:.1})", gain.db, gain.low_db, gain.high_db),
            ),
            whole,
            format!("{} + {}", done.learnt_from, done.judged_on),
            format!("{:.2}", done.seconds),
        ]);
    }
    format!("{table}\n{}", problems_text(problems))
}
