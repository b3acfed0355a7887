//! AWQ: weights that meet large activations get finer steps (Lin et al. 2024, section 3.2).
//!
//! `s_k = mean|X_k|^α`, α searched between 0 and 1 for the least error of the block's outputs with the weights rounded and
//! the activations left alone. Only weights lose bits here, so a channel's average counts and not its range.
//!
//! Limits: with blocks of 32 weights or fewer there is little left to gain, since a block's scale already follows its
//! weights; error-compensating rounding gains more, and the two add up only in part.

use super::rows::Trial;
use super::smooth::{centred, floored};

/// Mean magnitude of each channel, the largest of all layers of the block.
pub(super) fn magnitudes(trials: &[Trial<'_>], count: usize) -> Vec<f32> {
    let mut all = vec![0.0_f32; count];
    for trial in trials {
        all.iter_mut().zip(trial.channels.mean_abs()).for_each(|(known, its)| *known = known.max(its));
    }
    all
}

/// s for this α.
pub(super) fn factors(magnitudes: &[f32], alpha: f32) -> Vec<f32> {
    centred(floored(magnitudes).iter().map(|magnitude| magnitude.powf(alpha)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_follow_the_magnitudes() {
        let half = factors(&[1.0, 16.0], 0.5);
        assert!((half[1] / half[0] - 4.0).abs() < 1e-5 && (half[0] * half[1] - 1.0).abs() < 1e-5);
        assert_eq!(factors(&[1.0, 16.0], 0.0), [1.0, 1.0]);
    }
}
