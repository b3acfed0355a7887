//! Interleaved timing: every round runs both models on the same sample, the first one changing from round to round, so
//! that whatever slows the machine down slows both.

use std::time::{Duration, Instant};

use super::{BenchError, Clock, LatencyMs, LatencyRatio};
use crate::data::Sample;
use crate::runtime::Session;
use crate::{Control, Error};

/// Rounds that are made whatever they take.
const MIN_ROUNDS: usize = 9;
/// Rounds that are made if three times the time suffices.
const GOOD_ROUNDS: usize = 30;
/// More rounds tell nothing new.
const MAX_ROUNDS: usize = 1000;
/// Resamples of the bootstrap.
const RESAMPLES: usize = 1000;

/// Paired latencies of two sessions.
#[derive(Clone, Debug, PartialEq)]
pub struct Timing {
    /// Of the original, one entry a round, in milliseconds.
    pub original_ms: Vec<f64>,
    /// Of the quantized model.
    pub quantized_ms: Vec<f64>,
    /// Which clock.
    pub clock: Clock,
}

impl Timing {
    /// Latency of the original and of the quantized model.
    pub fn latencies(&self) -> [LatencyMs; 2] {
        [&self.original_ms, &self.quantized_ms].map(|times| {
            let sorted = sorted(times.iter().copied());
            LatencyMs {
                p50: quantile(&sorted, 0.5),
                p95: quantile(&sorted, 0.95),
                mean: sorted.iter().sum::<f64>() / sorted.len().max(1) as f64,
            }
        })
    }

    /// quantized / original: median of the rounds' ratios, and the 95 % interval of that median from a bootstrap over
    /// the rounds (1000 resamples, fixed seed).
    pub fn ratio(&self) -> LatencyRatio {
        let pairs = self.quantized_ms.iter().zip(&self.original_ms);
        let ratios =
            sorted(pairs.filter(|(_, original)| **original > 0.0).map(|(quantized, original)| quantized / original));
        let mut rng = fastrand::Rng::with_seed(0);
        let mut resample = || {
            let draws = (0..ratios.len()).filter_map(|_| ratios.get(rng.usize(..ratios.len())).copied());
            quantile(&sorted(draws), 0.5)
        };
        let medians = sorted((0..RESAMPLES).map(|_| resample()));
        LatencyRatio { p50: quantile(&ratios, 0.5), low: quantile(&medians, 0.025), high: quantile(&medians, 0.975) }
    }
}

/// Times both sessions on `samples` in turn for about `seconds`: at least 9 rounds, 30 if three times the time
/// suffices. With one thread the clock is the thread's CPU time where the system has it, else the wall's. A first run
/// of each sample is not counted.
pub fn time_pair(
    original: &mut Session,
    quantized: &mut Session,
    samples: &[(Sample, Sample)],
    threads: usize,
    seconds: f64,
    control: &Control,
) -> Result<Timing, Error> {
    if samples.is_empty() {
        return Err(BenchError::NoSamples.into());
    }
    let clock = if threads == 1 && thread_time().is_some() { Clock::ThreadCpu } else { Clock::Wall };
    let mut once = |first: bool, (a, b): &(Sample, Sample)| {
        let (session, sample) = if first { (&mut *original, a) } else { (&mut *quantized, b) };
        let start = (clock == Clock::ThreadCpu).then(thread_time).flatten();
        session.visit(sample, control, &mut |_, _| {})?;
        let spent = match (start, thread_time()) {
            (Some(start), Some(end)) => end.saturating_sub(start),
            _ => session.last_run(),
        };
        Ok::<_, Error>(spent.as_secs_f64() * 1e3)
    };
    for sample in samples {
        control.check()?;
        once(true, sample)?;
        once(false, sample)?;
    }
    let mut timing = Timing { original_ms: Vec::new(), quantized_ms: Vec::new(), clock };
    let began = Instant::now();
    for (rounds, sample) in samples.iter().cycle().enumerate() {
        let elapsed = began.elapsed().as_secs_f64();
        let enough = elapsed >= if rounds < GOOD_ROUNDS { 3.0 * seconds } else { seconds };
        if rounds >= MAX_ROUNDS || (rounds >= MIN_ROUNDS && enough) {
            break;
        }
        control.check()?;
        control.progress("Timing", (elapsed * 1e3) as u64, (seconds * 1e3) as u64);
        let original_first = rounds % 2 == 0;
        let times = [once(original_first, sample)?, once(!original_first, sample)?];
        let [original_ms, quantized_ms] = if original_first { times } else { [times[1], times[0]] };
        timing.original_ms.push(original_ms);
        timing.quantized_ms.push(quantized_ms);
    }
    Ok(timing)
}

/// CPU time of this thread.
fn thread_time() -> Option<Duration> {
    #[cfg(unix)]
    {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Some(Duration::new(u64::try_from(time.tv_sec).ok()?, u32::try_from(time.tv_nsec).ok()?))
    }
    #[cfg(not(unix))]
    {
        None
    }
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values
}

/// Quantile of sorted values with linear interpolation (numpy's default); 0 when empty.
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    let position = share * sorted.len().saturating_sub(1) as f64;
    let at = |index: usize| sorted.get(index).or(sorted.last()).copied().unwrap_or_default();
    let low = at(position.floor() as usize);
    low + (at(position.floor() as usize + 1) - low) * position.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_numpy() {
        // numpy.quantile([1, 2, 4, 8], [0.5, 0.95])
        assert_eq!(quantile(&[1.0, 2.0, 4.0, 8.0], 0.5), 3.0);
        assert!((quantile(&[1.0, 2.0, 4.0, 8.0], 0.95) - 7.4).abs() < 1e-12);
        assert_eq!((quantile(&[], 0.5), quantile(&[3.0], 0.95)), (0.0, 3.0));
    }

    #[test]
    fn the_ratio_pairs_rounds_and_brackets_its_median() {
        // A machine that slows down tenfold half way: the paired ratio does not notice.
        let original_ms: Vec<f64> = (0..60).map(|i| if i < 30 { 1.0 } else { 10.0 }).collect();
        let quantized_ms = original_ms.iter().enumerate().map(|(i, t)| t * (0.5 + 0.01 * (i % 5) as f64)).collect();
        let timing = Timing { original_ms, quantized_ms, clock: Clock::Wall };
        let ratio = timing.ratio();
        assert!((ratio.p50 - 0.52).abs() < 1e-9, "{ratio:?}");
        assert!(ratio.low <= ratio.p50 && ratio.p50 <= ratio.high && ratio.high - ratio.low < 0.03, "{ratio:?}");
        assert_eq!(timing.ratio(), ratio);
        assert_eq!(timing.latencies()[0].p50, 5.5);
    }

    #[cfg(unix)]
    #[test]
    fn thread_time_counts_work_not_sleep() {
        let start = thread_time().expect("clock");
        std::thread::sleep(Duration::from_millis(50));
        let spent = thread_time().expect("clock").saturating_sub(start);
        assert!(spent < Duration::from_millis(40));
    }
}
