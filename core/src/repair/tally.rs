//! Sums of signal and noise sample by sample, before and after a repair.
//!
//! A plan that is made of all samples has none left to judge it. What is judged on samples held back are the plans of the folds, and
//! those are others: between plans made of different samples of the same kind there was 0.9 dB on a small convolution net, by mere luck
//! of rounding. How the plan stands against them is seen on samples that both learnt from, where none has an advantage. That
//! difference is added to the gain, shrunk by how well it is known (James and Stein 1961, the positive part, of one figure).

use serde::{Deserialize, Serialize};

use crate::error::Sqnr;

/// Times that samples are drawn anew.
const DRAWS: usize = 1000;

/// A gain in dB at the model's output: of the sums over all samples, and the interval in which 95 % of gains on as many other
/// samples should lie: that of a bootstrap over samples (Efron 1979), which draws as many as there are, with replacement, widened
/// by √2, since the other samples vary as much as these, and where few samples make most of the noise by what Student's t has more than
/// the normal distribution for so few.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct GainSpread {
    /// Over all samples.
    pub db: f64,
    /// What 2.5 % of gains should stay below.
    pub low_db: f64,
    /// What 2.5 % of gains should exceed.
    pub high_db: f64,
}

/// Σy² and Σ(y − ŷ)² of one sample; `None` where new values are not finite.
pub(super) type Sums = Option<(f64, f64)>;

/// One sample: Σy², and Σ(y − ŷ)² with two plans; `None` where new values are not finite.
type Pair = (f64, Option<[f64; 2]>);

/// What was measured.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    samples: Vec<Pair>,
    /// Noise of each sample with the plans that learnt from it, their mean, and with the one made of all; empty where there is
    /// no other plan than the one judged.
    learnt: Vec<[f64; 2]>,
}

impl Tally {
    /// Of samples of which each was held back from one of several plans, the one called `fold_of` it: sums before, with these plans
    /// and with the plan made of all samples.
    pub(super) fn crossed(before: &[Sums], folds: &[Vec<Sums>], all: &[Sums], fold_of: &[usize]) -> Self {
        let mut tally = Self::default();
        for (at, (&before, &fold)) in before.iter().zip(fold_of).enumerate() {
            let with = |fold: &Vec<Sums>| fold.get(at).copied().flatten();
            tally.push(before, folds.get(fold).and_then(with));
            let others = folds.iter().enumerate().filter(|(other, _)| *other != fold);
            let noises: Option<Vec<f64>> = others.map(|(_, sums)| Some(with(sums)?.1)).collect();
            let own = all.get(at).copied().flatten();
            if let (Some(noises), Some((_, own))) = (noises.filter(|noises| !noises.is_empty()), own) {
                tally.learnt.push([noises.iter().sum::<f64>() / noises.len() as f64, own]);
            }
        }
        if tally.learnt.len() != tally.samples.len() {
            tally.learnt.clear();
        }
        tally
    }

    /// Adds samples, each before and after.
    pub(super) fn extend(&mut self, before: Vec<Sums>, after: Vec<Sums>) {
        before.into_iter().zip(after).for_each(|(before, after)| self.push(before, after));
    }

    /// Adds a sample: its signal and noise before and after, `None` where new values are not finite.
    pub(super) fn push(&mut self, before: Sums, after: Sums) {
        self.samples.push(match (before, after) {
            (Some((signal, before)), Some((_, after))) => (signal, Some([before, after])),
            _ => (0.0, None),
        });
    }

    pub(super) fn samples(&self) -> usize {
        self.samples.len()
    }

    pub(super) fn before(&self) -> Sqnr {
        self.sqnr(0, 0.0)
    }

    /// With the plan that is given, as far as it can be told apart from those judged.
    pub(super) fn after(&self) -> Sqnr {
        self.sqnr(1, self.luck(&self.draws()).unwrap_or(0.0))
    }

    fn sqnr(&self, which: usize, luck_db: f64) -> Sqnr {
        let signal = self.samples.iter().map(|(signal, _)| signal).sum();
        let noise: Option<f64> = self.samples.iter().map(|(_, noise)| noise.map(|noise| noise[which])).sum();
        noise.map_or(Sqnr::Undefined, |noise| Sqnr::from_sums(signal, noise * 10_f64.powf(-luck_db / 10.0)))
    }

    /// The gain; `None` where there is none in dB.
    pub(super) fn gain(&self) -> Option<GainSpread> {
        let noises: Vec<[f64; 2]> = self.samples.iter().map(|(_, noise)| *noise).collect::<Option<_>>()?;
        let draws = self.draws();
        let luck = self.luck(&draws);
        let db = ratio_db(noises.iter())? + luck.unwrap_or(0.0);
        // What is known of luck is drawn along with the gain.
        let share = luck.map_or(0.0, |luck| luck / ratio_db(self.learnt.iter()).unwrap_or(1.0));
        let draw = |draw: &Vec<usize>| {
            let luck = ratio_db(draw.iter().filter_map(|&at| self.learnt.get(at)));
            Some(ratio_db(draw.iter().filter_map(|&at| noises.get(at)))? + share * luck.unwrap_or(0.0))
        };
        let mut drawn: Vec<f64> = draws.iter().filter_map(draw).collect();
        drawn.sort_by(f64::total_cmp);
        let quantile = |share: f64| drawn.get((share * drawn.len() as f64) as usize).copied().unwrap_or(db);
        let factor = std::f64::consts::SQRT_2 * student(deciding(&noises, 0).min(deciding(&noises, 1)));
        let widened = |end: f64| db + factor * (end - db);
        Some(GainSpread { db, low_db: widened(quantile(0.025).min(db)), high_db: widened(quantile(0.975).max(db)) })
    }

    fn draws(&self) -> Vec<Vec<usize>> {
        let mut rng = fastrand::Rng::with_seed(0x9a1f);
        let count = self.samples.len();
        (0..DRAWS).map(|_| (0..count).map(|_| rng.usize(..count)).collect()).collect()
    }

    /// By how many dB the plan made of all samples is better than those judged, shrunk by how far that hangs on the samples.
    fn luck(&self, draws: &[Vec<usize>]) -> Option<f64> {
        let db = ratio_db(self.learnt.iter())?;
        let drawn = |draw: &Vec<usize>| ratio_db(draw.iter().filter_map(|&at| self.learnt.get(at)));
        let drawn: Vec<f64> = draws.iter().filter_map(drawn).collect();
        let count = drawn.len().max(1) as f64;
        let mean = drawn.iter().sum::<f64>() / count;
        let variance = drawn.iter().map(|drawn| (drawn - mean) * (drawn - mean)).sum::<f64>() / count;
        Some(if db == 0.0 { 0.0 } else { db * (1.0 - variance / (db * db)).max(0.0) })
    }
}

/// As how many samples of equal noise these count: (Σn)² / Σn² (Kish 1965).
fn deciding(noises: &[[f64; 2]], which: usize) -> f64 {
    let [sum, squares] =
        noises.iter().fold([0.0; 2], |sums, noise| [sums[0] + noise[which], sums[1] + noise[which] * noise[which]]);
    if squares > 0.0 { sum * sum / squares } else { noises.len() as f64 }
}

/// The 97.5 % quantile of Student's t for `count` samples, over that of the normal distribution (its expansion by Fisher and
/// Cornish 1960, two terms; as for two samples where there are fewer).
fn student(count: f64) -> f64 {
    let (z, degrees) = (1.96_f64, (count - 1.0).max(1.0));
    let first = (z.powi(3) + z) / 4.0;
    let second = (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / 96.0;
    (z + first / degrees + second / (degrees * degrees)) / z
}

/// The first noises' sum over the second ones' in dB; `None` where that is no number.
fn ratio_db<'n>(noises: impl Iterator<Item = &'n [f64; 2]>) -> Option<f64> {
    let [before, after] = noises.fold([0.0; 2], |sum, noise| [sum[0] + noise[0], sum[1] + noise[1]]);
    Some(10.0 * (before / after).log10()).filter(|db| db.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(noises: &[[f64; 2]]) -> Tally {
        Tally { samples: noises.iter().map(|&noise| (100.0, Some(noise))).collect(), learnt: Vec::new() }
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
    fn few_deciding_samples_widen_it_as_student_has_it() {
        // Tables: 2.228 for 10 degrees of freedom, 2.776 for 4.
        assert!((student(11.0) * 1.96 - 2.228).abs() < 0.01 && (student(5.0) * 1.96 - 2.776).abs() < 0.05);
        assert!((deciding(&[[3.0, 1.0]; 7], 0) - 7.0).abs() < 1e-9);
        assert!(deciding(&[[100.0, 1.0], [1.0, 1.0], [1.0, 1.0]], 0) < 1.1);
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

    #[test]
    fn a_plan_that_is_worse_than_those_judged_is_said_to_be_so_as_far_as_that_is_known() {
        let sums = |noise: f64| Some((100.0, noise));
        let fold_of: Vec<usize> = (0..40).map(|at| at % 4).collect();
        let (before, folds) = (vec![sums(10.0); 40], vec![vec![sums(1.0); 40]; 4]);
        let same = Tally::crossed(&before, &folds, &[sums(1.0); 40], &fold_of);
        assert!((same.gain().expect("gain").db - 10.0).abs() < 1e-9);
        // On every sample twice the noise of the others: 3 dB less of a gain.
        let worse = Tally::crossed(&before, &folds, &[sums(2.0); 40], &fold_of);
        let gain = worse.gain().expect("gain");
        assert!((gain.db - 10.0 * 5_f64.log10()).abs() < 1e-9 && gain.high_db - gain.low_db < 1e-9, "{gain:?}");
        assert!((worse.after().db().expect("dB") - 10.0 * 50_f64.log10()).abs() < 1e-9);
        // On one sample alone: nothing that others would show.
        let mut one = vec![sums(1.0); 40];
        one[3] = sums(1.4);
        let gain = Tally::crossed(&before, &folds, &one, &fold_of).gain().expect("gain");
        assert!((gain.db - 10.0).abs() < 0.02, "{gain:?}");
        // Without sums of the whole plan there is nothing to correct.
        let none = Tally::crossed(&before, &folds, &[None; 40], &fold_of);
        assert!((none.gain().expect("gain").db - 10.0).abs() < 1e-9);
    }
}
