//! The whole model run with one layer's weights replaced.

use std::time::Instant;

use super::super::tally::Tally;
use super::graph::Open;
use super::judged::Versions;
use crate::data::Sample;
use crate::error::OutputError;
use crate::tensor::Tensor;
use crate::{Control, Error};

/// Samples run whatever it takes.
const LEAST: usize = 2;

/// What runs it.
pub struct Effect<'a> {
    /// The open model.
    pub open: &'a mut Open,
    /// The output that is compared.
    pub output: &'a str,
    /// The layer.
    pub index: usize,
}

impl Effect<'_> {
    /// Runs samples, each with its original output, until `end`: with the weights rounded to nearest, and repaired.
    pub fn tally<'s>(
        self,
        versions: &Versions,
        judges: impl Iterator<Item = &'s (Sample, Tensor)>,
        end: Instant,
        control: &Control,
    ) -> Result<Tally, Error> {
        let mut tally = Tally::default();
        let Some(slots) = self.open.slots.get(self.index).and_then(Option::as_ref) else { return Ok(tally) };
        let give = |values: &[f32], bias: Option<&[f32]>| {
            let mut feeds = vec![(slots.weight.clone(), Tensor::from_f32(versions.shape.clone(), values.to_vec()))];
            if let Some(((name, beta), bias)) = slots.bias.as_ref().zip(bias) {
                let bias: Vec<f32> = bias.iter().map(|value| value / beta).collect();
                feeds.push((name.clone(), Tensor::from_f32(vec![bias.len()], bias)));
            }
            feeds
        };
        let nearest = give(&versions.nearest, None);
        let repaired = give(&versions.repaired, versions.bias.as_deref());
        for (sample, expected) in judges {
            if tally.samples() >= LEAST && Instant::now() > end {
                break;
            }
            control.progress("Running the whole model", tally.samples() as u64, 0);
            let mut sums = [None, None];
            for (slot, feeds) in sums.iter_mut().zip([&nearest, &repaired]) {
                control.check()?;
                let fed = Sample { feeds: sample.feeds.iter().chain(feeds).cloned().collect() };
                let mut error = OutputError::default();
                self.open.session.visit(&fed, control, &mut |name, view| {
                    if name == self.output {
                        error.add_view(expected, &view);
                    }
                })?;
                *slot = error.sums();
            }
            let [before, after] = sums;
            tally.push(before, after);
        }
        Ok(tally)
    }
}
