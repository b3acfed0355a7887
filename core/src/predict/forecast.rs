//! A plan run on calibration samples: what other samples of the same kind will give, and how sure that is.
//!
//! An SQNR is a quotient of sums over samples, which a few of them can decide: how far another choice of samples may lead is
//! found by drawing samples anew (bootstrap, Efron 1979), both as many as were run and as many as are to come.

use super::gather::spread;
use crate::data::DataSet;
use crate::error::OutputError;
use crate::export::export;
use crate::model::Model;
use crate::plan::Plan;
use crate::runtime::{Runtime, Session, SessionOptions, Source};
use crate::stats::Stats;
use crate::{Control, Error};

/// Most samples that a plan is run on.
const MOST_SAMPLES: usize = 256;
/// Times that samples are drawn anew.
const DRAWS: usize = 1000;
/// Share of the draws that the interval holds.
const HELD: f64 = 0.9;
/// Half the width of the interval in dB that no samples make narrower: runtimes round differently.
const LEAST_HALF_DB: f64 = 1.0;
/// The same for a single sample, which says nothing of others; of several, this divided by their number.
const ALONE_HALF_DB: f64 = 5.0;
/// Share of the noise that deciding samples make together.
const DECIDING: f64 = 0.9;
/// Of a draw that happens to leave out all noisy samples, this share of the mean noise is left.
const FLOOR: f64 = 1e-3;

/// What a plan that was run on some samples promises on others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Forecast {
    /// SQNR of the output over the samples run, in dB.
    pub sqnr_db: f64,
    /// In nine of ten cases other samples give at least this …
    pub low_db: f64,
    /// … and at most this.
    pub high_db: f64,
    /// Samples run.
    pub samples: usize,
    /// The least number of them that make nine tenths of the noise.
    pub deciding: usize,
}

impl Forecast {
    /// Runs the original and `plan` on up to 256 of the samples called `indices`, one at a time, and compares the output. The
    /// interval is for `others` further samples. `None` where the SQNR is no number.
    #[allow(clippy::too_many_arguments)] // each is known where it is called, and nowhere together
    pub fn run(
        model: &Model,
        runtime: &Runtime,
        data: &DataSet,
        indices: &[usize],
        plan: &Plan,
        stats: Option<&Stats>,
        others: usize,
        threads: usize,
        control: &Control,
    ) -> Result<Option<Self>, Error> {
        let proto = export(model, stats, plan, control)?.proto;
        let options = SessionOptions { threads, ..SessionOptions::default() };
        let folder = Some(model.file.folder());
        let mut original = Session::open(runtime, Source::File(&model.file.path), &options)?;
        let mut quantized = Session::open(runtime, Source::Proto { proto: &proto, folder }, &options)?;
        let output = model.judged_output();
        let chosen = spread(indices, MOST_SAMPLES);
        let mut sums = Vec::with_capacity(chosen.len());
        for (done, &index) in chosen.iter().enumerate() {
            control.check()?;
            control.progress("Running the plan on calibration samples", done as u64, chosen.len() as u64);
            let sample = data.sample(index)?;
            let outputs = original.run(&sample, control)?;
            let expected = outputs.into_iter().find(|found| found.name == output).and_then(|found| found.value);
            let Some(expected) = expected else { return Ok(None) };
            let mut error = OutputError::default();
            quantized.visit(&sample, control, &mut |name, view| {
                if name == output {
                    error.add_view(&expected, &view);
                }
            })?;
            let Some(own) = error.sums() else { return Ok(None) };
            sums.push(own);
        }
        Ok(Self::of(&sums, others))
    }

    /// From Σy² and Σ(y − ŷ)² of each sample run, for `others` samples to come.
    pub fn of(sums: &[(f64, f64)], others: usize) -> Option<Self> {
        let (signal, noise) = sums.iter().fold((0.0, 0.0), |sum, own| (sum.0 + own.0, sum.1 + own.1));
        let sqnr_db = 10.0 * (signal / noise).log10();
        if !sqnr_db.is_finite() {
            return None;
        }
        let count = sums.len();
        let (least_signal, least_noise) = (FLOOR * signal / count as f64, FLOOR * noise / count as f64);
        let mut rng = fastrand::Rng::with_seed(0x5eed);
        let mut draw = |count: usize| {
            let drawn = (0..count).filter_map(|_| sums.get(rng.usize(..sums.len())));
            let (signal, noise) = drawn.fold((0.0, 0.0), |sum, own| (sum.0 + own.0, sum.1 + own.1));
            10.0 * ((signal / count as f64).max(least_signal) / (noise / count as f64).max(least_noise)).log10()
        };
        let others = others.clamp(1, 4 * MOST_SAMPLES);
        // How far apart two choices of samples are: these, had they been others, and those to come.
        let mut apart: Vec<f64> = (0..DRAWS).map(|_| (draw(count) - draw(others)).abs()).collect();
        apart.sort_by(f64::total_cmp);
        let drawn = apart.get((HELD * DRAWS as f64) as usize).copied().unwrap_or_default();
        let half = drawn.max(LEAST_HALF_DB).max(ALONE_HALF_DB / count as f64);
        let mut noises: Vec<f64> = sums.iter().map(|own| own.1).collect();
        noises.sort_by(|a, b| b.total_cmp(a));
        let mut so_far = 0.0;
        let before = noises.iter().take_while(|&&own| {
            so_far += own;
            so_far < DECIDING * noise
        });
        let deciding = (before.count() + 1).min(count);
        Some(Self { sqnr_db, low_db: sqnr_db - half, high_db: sqnr_db + half, samples: count, deciding })
    }

    /// Whether so few of many samples make the noise that others may well give another figure.
    pub fn hangs_on_few(&self) -> bool {
        self.samples >= 8 && self.deciding * 4 <= self.samples
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_that_are_alike_are_believed_and_one_that_decides_is_not() {
        let alike = Forecast::of(&[(100.0, 1.0); 32], 32).expect("number");
        assert!((alike.sqnr_db - 20.0).abs() < 1e-9 && (alike.high_db - alike.low_db - 2.0).abs() < 1e-9);
        assert!(alike.deciding == 29 && !alike.hangs_on_few(), "{alike:?}");
        let mut sums = [(100.0, 0.001); 32];
        sums[5].1 = 50.0;
        let one = Forecast::of(&sums, 32).expect("number");
        assert!(one.deciding == 1 && one.hangs_on_few() && one.high_db - one.low_db > 10.0, "{one:?}");
        let single = Forecast::of(&[(100.0, 1.0)], 32).expect("number");
        assert!(single.high_db - single.low_db >= 10.0 && !single.hangs_on_few(), "{single:?}");
        assert!(Forecast::of(&[(100.0, 0.0); 4], 4).is_none() && Forecast::of(&[], 4).is_none());
    }

    /// Samples whose noise differs by a factor of ten (in one standard deviation): the interval from 32 of them holds the
    /// figure of 64 others about nine times in ten.
    #[test]
    fn the_interval_holds_what_other_samples_give() {
        let mut rng = fastrand::Rng::with_seed(11);
        let mut normal = || (0..12).map(|_| rng.f64()).sum::<f64>() - 6.0;
        let mut sample = || (100.0, 10_f64.powf(0.5 * normal()));
        let mut held = 0;
        for _ in 0..100 {
            let [run, to_come] = [32, 64].map(|count| (0..count).map(|_| sample()).collect::<Vec<_>>());
            let forecast = Forecast::of(&run, 64).expect("number");
            let truth = Forecast::of(&to_come, 64).expect("number").sqnr_db;
            held += usize::from((forecast.low_db..=forecast.high_db).contains(&truth));
        }
        assert!((80..=98).contains(&held), "{held} of 100");
    }
}
