//! Interleaved timing: every round runs both models on the same sample, the first one changing from round to round, so
//! that whatever slows the machine down slows both. The rounds are cut into blocks, each with both models opened anew:
//! where a model's memory happens to lie changes its speed by some percent, which no number of rounds would show.

use std::time::{Duration, Instant};

use super::{BenchError, Clock, LatencyMs, LatencyRatio};
use crate::data::Sample;
use crate::error::converted;
use crate::runtime::Session;
use crate::{Control, Error};

/// Rounds that are made whatever they take.
const MIN_ROUNDS: f64 = 9.0;
/// Rounds that are made if three times the time suffices.
const GOOD_ROUNDS: f64 = 30.0;
/// More rounds tell nothing new.
const MAX_ROUNDS: f64 = 1000.0;
/// Blocks of rounds.
const BLOCKS: usize = 8;
/// Resamples of the bootstrap.
const RESAMPLES: usize = 1000;

/// Paired latencies of two sessions.
#[derive(Clone, Debug, PartialEq)]
pub struct Timing {
    /// Of the original, one entry a round, in milliseconds.
    pub original_ms: Vec<f64>,
    /// Of the quantized model.
    pub quantized_ms: Vec<f64>,
    /// Number of rounds in each block, in order.
    pub blocks: Vec<usize>,
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
    /// blocks and over the rounds in them (1000 resamples, fixed seed).
    pub fn ratio(&self) -> LatencyRatio {
        let mut pairs = self.quantized_ms.iter().zip(&self.original_ms);
        let mut blocks: Vec<Vec<f64>> = Vec::new();
        for &rounds in &self.blocks {
            let block = pairs.by_ref().take(rounds).filter(|(_, original)| **original > 0.0);
            let ratios: Vec<f64> = block.map(|(quantized, original)| quantized / original).collect();
            if !ratios.is_empty() {
                blocks.push(ratios);
            }
        }
        let mut rng = fastrand::Rng::with_seed(0);
        let mut resample = || {
            let mut draws = Vec::with_capacity(self.original_ms.len());
            for _ in 0..blocks.len() {
                let block = blocks.get(rng.usize(..blocks.len())).map_or(&[][..], Vec::as_slice);
                draws.extend((0..block.len()).filter_map(|_| block.get(rng.usize(..block.len())).copied()));
            }
            quantile(&sorted(draws), 0.5)
        };
        let medians = sorted((0..RESAMPLES).map(|_| resample()));
        LatencyRatio {
            p50: quantile(&sorted(blocks.iter().flatten().copied()), 0.5),
            low: quantile(&medians, 0.025),
            high: quantile(&medians, 0.975),
        }
    }
}

/// Times the original and the quantized session that `open` gives on `samples` in turn for about `seconds`: at least 9
/// rounds, 30 if three times the time suffices. With one thread the clock is the thread's CPU time where the system has
/// it, else the wall's. Both are opened anew for each of 8 blocks where that takes less than half of the time. A first
/// run of each sample after opening is not counted.
pub fn time_pair(
    mut open: impl FnMut() -> Result<[Session; 2], Error>,
    samples: &[Sample],
    threads: usize,
    seconds: f64,
    control: &Control,
) -> Result<Timing, Error> {
    if samples.is_empty() {
        return Err(BenchError::NoSamples.into());
    }
    let clock = if threads == 1 && thread_time().is_some() { Clock::ThreadCpu } else { Clock::Wall };
    let mut timing = Timing { original_ms: Vec::new(), quantized_ms: Vec::new(), blocks: Vec::new(), clock };
    let opened = Instant::now();
    let mut sessions = open()?;
    let pairs: Vec<(Sample, Sample)> = samples
        .iter()
        .map(|sample| (sample.clone(), converted(sample, sessions[1].inputs()).unwrap_or_else(|| sample.clone())))
        .collect();
    warm_up(&mut sessions, &pairs, clock, control)?;
    let reopens = opened.elapsed().as_secs_f64() < seconds / (2 * BLOCKS) as f64;
    let mut spent = 0.0;
    for block in 1..=BLOCKS {
        if block > 1 && reopens {
            // The old ones go first: two pairs may not fit into memory.
            drop(sessions);
            sessions = open()?;
            warm_up(&mut sessions, &pairs, clock, control)?;
        }
        let share = block as f64 / BLOCKS as f64;
        let begun = timing.original_ms.len();
        loop {
            let rounds = timing.original_ms.len();
            let at_least = |count: f64| rounds as f64 >= (count * share).ceil();
            let enough = spent >= share * seconds * if at_least(GOOD_ROUNDS) { 1.0 } else { 3.0 };
            if at_least(MAX_ROUNDS) || (at_least(MIN_ROUNDS) && enough) {
                break;
            }
            control.check()?;
            control.progress("Timing", (spent * 1e3) as u64, (seconds * 1e3) as u64);
            let began = Instant::now();
            let Some(pair) = pairs.get(rounds % pairs.len()) else { break };
            let original_first = rounds.is_multiple_of(2);
            let times = [
                once(&mut sessions, original_first, pair, clock, control)?,
                once(&mut sessions, !original_first, pair, clock, control)?,
            ];
            let [original_ms, quantized_ms] = if original_first { times } else { [times[1], times[0]] };
            timing.original_ms.push(original_ms);
            timing.quantized_ms.push(quantized_ms);
            spent += began.elapsed().as_secs_f64();
        }
        timing.blocks.push(timing.original_ms.len() - begun);
    }
    Ok(timing)
}

/// Time in milliseconds of one run of the original (`first`) or of the quantized session.
fn once(
    [original, quantized]: &mut [Session; 2],
    first: bool,
    (a, b): &(Sample, Sample),
    clock: Clock,
    control: &Control,
) -> Result<f64, Error> {
    let (session, sample) = if first { (original, a) } else { (quantized, b) };
    let start = (clock == Clock::ThreadCpu).then(thread_time).flatten();
    session.visit(sample, control, &mut |_, _| {})?;
    let spent = match (start, thread_time()) {
        (Some(start), Some(end)) => end.saturating_sub(start),
        _ => session.last_run(),
    };
    Ok(spent.as_secs_f64() * 1e3)
}

fn warm_up(
    sessions: &mut [Session; 2],
    pairs: &[(Sample, Sample)],
    clock: Clock,
    control: &Control,
) -> Result<(), Error> {
    for pair in pairs {
        control.check()?;
        once(sessions, true, pair, clock, control)?;
        once(sessions, false, pair, clock, control)?;
    }
    Ok(())
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

fn sorted(values: impl IntoIterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
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
    use crate::bench::Speed;

    fn timing(original_ms: Vec<f64>, quantized_ms: Vec<f64>, blocks: &[usize]) -> Timing {
        Timing { original_ms, quantized_ms, blocks: blocks.to_vec(), clock: Clock::Wall }
    }

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
        let timing = timing(original_ms, quantized_ms, &[20, 20, 20]);
        let ratio = timing.ratio();
        assert!((ratio.p50 - 0.52).abs() < 1e-9, "{ratio:?}");
        assert!(ratio.low <= ratio.p50 && ratio.p50 <= ratio.high && ratio.high - ratio.low < 0.03, "{ratio:?}");
        assert_eq!(timing.ratio(), ratio);
        assert_eq!(timing.latencies()[0].p50, 5.5);
    }

    #[test]
    fn the_interval_knows_that_models_opened_anew_differ() {
        // Eight openings, each exact within itself, which differ by up to 6 %: the truth is not known to 1 %.
        let levels = [0.97, 1.0, 1.03, 0.98, 1.01, 1.02, 0.99, 1.01];
        let quantized_ms = levels.iter().flat_map(|level| [*level; 100]).collect();
        let ratio = timing(vec![1.0; 800], quantized_ms, &[100; 8]).ratio();
        assert!(ratio.high - ratio.low > 0.02, "{ratio:?}");
        assert_eq!(ratio.speed(), Speed::Same);
        let empty = timing(vec![], vec![], &[0, 0]).ratio();
        assert_eq!((empty.p50, empty.low, empty.high), (0.0, 0.0, 0.0));
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
