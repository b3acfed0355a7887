//! Sums of signal and noise sample by sample, before and after a repair.

use serde::{Deserialize, Serialize};

use crate::error::Sqnr;
use crate::plan::Plan;
use crate::predict::Reference;
use crate::stats::Stats;
use crate::{Control, Error};

/// Times that samples are drawn anew.
const DRAWS: usize = 1000;

/// A gain in dB at the model's output: of the sums over all samples, and the 95 % interval of a bootstrap over samples (Efron
/// 1979), which draws as many samples as there are, with replacement.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct GainSpread {
    /// Over all samples.
    pub db: f64,
    /// What 2.5 % of the draws stay below.
    pub low_db: f64,
    /// What 2.5 % of the draws exceed.
    pub high_db: f64,
}

/// One sample: Σy², and Σ(y − ŷ)² with two plans; `None` where new values are not finite.
type Sums = (f64, Option<[f64; 2]>);

/// What was measured.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    samples: Vec<Sums>,
}

impl Tally {
    /// Measures two plans on the samples of `reference`.
    pub(super) fn add(
        &mut self,
        reference: &Reference<'_>,
        before: &Plan,
        after: &Plan,
        stats: Option<&Stats>,
        control: &Control,
    ) -> Result<(), Error> {
        let before = reference.sums(before, stats, control)?;
        let after = reference.sums(after, stats, control)?;
        before.into_iter().zip(after).for_each(|(before, after)| self.push(before, after));
        Ok(())
    }

    /// Adds a sample: its signal and noise before and after, `None` where new values are not finite.
    pub(super) fn push(&mut self, before: Option<(f64, f64)>, after: Option<(f64, f64)>) {
        self.samples.push(match (before, after) {
            (Some((signal, before)), Some((_, after))) => (signal, Some([before, after])),
            _ => (0.0, None),
        });
    }

    pub(super) fn samples(&self) -> usize {
        self.samples.len()
    }

    pub(super) fn before(&self) -> Sqnr {
        self.sqnr(0)
    }

    pub(super) fn after(&self) -> Sqnr {
        self.sqnr(1)
    }

    fn sqnr(&self, which: usize) -> Sqnr {
        let signal = self.samples.iter().map(|(signal, _)| signal).sum();
        let noise: Option<f64> = self.samples.iter().map(|(_, noise)| noise.map(|noise| noise[which])).sum();
        noise.map_or(Sqnr::Undefined, |noise| Sqnr::from_sums(signal, noise))
    }

    /// The gain; `None` where there is none in dB.
    pub(super) fn gain(&self) -> Option<GainSpread> {
        let noises: Vec<[f64; 2]> = self.samples.iter().map(|(_, noise)| *noise).collect::<Option<_>>()?;
        let gain = |noises: &mut dyn Iterator<Item = &[f64; 2]>| {
            let [before, after] = noises.fold([0.0; 2], |sum, noise| [sum[0] + noise[0], sum[1] + noise[1]]);
            Some(10.0 * (before / after).log10()).filter(|db| db.is_finite())
        };
        let db = gain(&mut noises.iter())?;
        let mut rng = fastrand::Rng::with_seed(0x9a1f);
        let mut draw = |_| gain(&mut (0..noises.len()).filter_map(|_| noises.get(rng.usize(..noises.len()))));
        let mut drawn: Vec<f64> = (0..DRAWS).filter_map(&mut draw).collect();
        drawn.sort_by(f64::total_cmp);
        let quantile = |share: f64| drawn.get((share * drawn.len() as f64) as usize).copied();
        Some(GainSpread { db, low_db: quantile(0.025).unwrap_or(db), high_db: quantile(0.975).unwrap_or(db) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(noises: &[[f64; 2]]) -> Tally {
        Tally { samples: noises.iter().map(|&noise| (100.0, Some(noise))).collect() }
    }

    #[test]
    fn a_gain_that_one_sample_makes_is_open_and_one_that_all_share_is_not() {
        let even = tally(&[[10.0, 1.0]; 20]).gain().expect("gain");
        assert!((even.db - 10.0).abs() < 1e-9 && (even.high_db - even.low_db) < 1e-9, "{even:?}");
        let mut noises = [[1.0, 1.0]; 20];
        noises[7] = [1000.0, 1.0];
        let uneven = tally(&noises).gain().expect("gain");
        assert!(uneven.low_db < 0.5 && uneven.high_db > uneven.db && uneven.db > 15.0, "{uneven:?}");
    }

    #[test]
    fn what_is_not_finite_or_identical_has_no_gain_in_decibels() {
        let mut broken = tally(&[[10.0, 1.0]; 3]);
        broken.samples.push((0.0, None));
        assert!(broken.gain().is_none() && broken.after() == Sqnr::Undefined);
        let exact = tally(&[[10.0, 0.0]; 3]);
        assert!(exact.gain().is_none() && exact.after() == Sqnr::Identical);
        assert_eq!(exact.before(), Sqnr::Db(10.0));
    }
}
