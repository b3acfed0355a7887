//! A first look at what a repair does to one layer, from the rows of its input that calibration kept: nothing is run.
//!
//! There are at most [`crate::limits::RESERVOIR_ROWS`] of them, fewer than most layers have columns, so the gain shown is
//! less than that of the repair itself. A quarter of the rows is held back to judge it.

use super::collect::{Collected, Tap, add};
use super::job::{Job, RepairedLayer};
use super::whole::{ONE_PASS, best_of_each};
use super::{Method, Moments};
use crate::plan::Rounding;
use crate::stats::RowReservoir;
use crate::{Control, Error};

impl Job<'_> {
    /// Repairs the layer called `index` from kept rows; `None` where there are none, where the method does not look at one
    /// layer by itself ([`Rounding::Refit`]), or where [`Method::Best`] finds nothing better than rounding to nearest.
    pub fn first_look(&self, index: usize, method: Method, control: &Control) -> Result<Option<RepairedLayer>, Error> {
        let Some(layer) = self.model.layers.get(index) else { return Ok(None) };
        let Some(choice) = self.choice(layer) else { return Ok(None) };
        let rows = self.stats.and_then(|stats| stats.rows.get(&layer.name));
        let collected = self.tap(layer, &choice).zip(rows).and_then(|(tap, rows)| Collected::of_rows(&tap, rows));
        if collected.is_none() && method != Method::One(Rounding::Hqq) {
            return Ok(None);
        }
        let methods = match method {
            Method::One(Rounding::Refit | Rounding::Nearest | Rounding::Finetuned) => return Ok(None),
            Method::One(method) => vec![method],
            Method::Best => ONE_PASS.to_vec(),
        };
        let wishes: Vec<_> = methods.into_iter().map(|method| (layer, choice, method)).collect();
        let repaired = self.layers(&wishes, collected.as_ref(), control)?;
        let repaired = if method == Method::Best { best_of_each(repaired) } else { repaired };
        Ok(repaired.into_iter().next())
    }
}

impl Collected {
    /// Moments of kept rows, every fourth held back; `None` where they are not those of `tap`, or too few to judge on.
    fn of_rows(tap: &Tap, rows: &RowReservoir) -> Option<Self> {
        let width = tap.width();
        if rows.width != width || rows.len() < 8 {
            return None;
        }
        let is_held = |at: usize| at % 4 == 3;
        let part = |held: bool| -> Vec<f32> {
            let each = rows.rows.chunks(width).enumerate().filter(|(at, _)| is_held(*at) == held);
            each.flat_map(|(_, row)| row.iter().copied()).collect()
        };
        let moments = |values: &[f32]| -> Vec<Moments> {
            let mut moments = tap.moments(false);
            add(&mut moments, tap, values, None);
            moments
        };
        Some(Self { calibration: moments(&part(false)), held_back: moments(&part(true)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::RowCut;
    use crate::stats::RowKey;

    #[test]
    fn every_fourth_row_is_held_back_and_rows_of_another_width_are_none() {
        let mut rows = RowReservoir::new(6);
        for at in 0..8_u64 {
            let row: Vec<f32> = (0..6).map(|k| (at * 6 + k) as f32).collect();
            rows.offer(RowKey(at), (0.0, 1.0), &row);
        }
        let tap = |columns| Tap { tensor: "x".to_owned(), cut: RowCut::LastAxis, groups: 2, columns, rounding: None };
        assert!(Collected::of_rows(&tap(4), &rows).is_none());
        let collected = Collected::of_rows(&tap(3), &rows).expect("rows");
        assert_eq!((collected.calibration[0].rows, collected.held_back[1].rows), (6.0, 2.0));
        // Rows 3 and 7; the second group begins with column 3.
        assert_eq!(collected.held_back[1].first, [21.0 + 45.0, 22.0 + 46.0, 23.0 + 47.0]);
    }
}
