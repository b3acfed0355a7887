//! Everything that is learnt about a model before its plans are judged.

use super::gather::spread;
use super::{GatherOptions, Reference, Sensitivity, gather};
use crate::data::DataSet;
use crate::model::Model;
use crate::runtime::Runtime;
use crate::stats::Stats;
use crate::{Control, Error};

/// Least samples that plans are tried on; otherwise as many as slopes were taken on.
const LEAST_TRIED: usize = 16;
/// The same where there is time to be thorough.
const THOROUGHLY_TRIED: usize = 32;
/// Samples that plans of a model are tried on for which slopes were taken on as many as were allowed: what few samples
/// decide shows only in many.
const MOST_TRIED: usize = 256;
/// Samples on which each candidate of such a model is tried.
const CANDIDATES_TRIED: usize = 64;
/// Most samples for layers that are measured one by one.
const ONE_BY_ONE: usize = 8;

/// How much is learnt.
#[derive(Clone, Debug, Default)]
pub struct LearnOptions {
    /// What is gone through for slopes.
    pub gather: GatherOptions,
    /// Whether layers are measured one by one where slopes turn out not to hold.
    pub one_by_one: bool,
    /// Whether the choices that make most noise are measured too, so that random mixtures of widths are told apart.
    pub loudest: bool,
}

/// Learns what matters to an output of `model` from samples called `indices`: slopes ([`gather`]), layers that these do not
/// reach ([`Sensitivity::measure_unknown`]), and by how much sums of noise are off ([`Sensitivity::check`]).
pub fn learn(
    model: &Model,
    runtime: &Runtime,
    data: &DataSet,
    indices: &[usize],
    stats: Option<&Stats>,
    options: &LearnOptions,
    control: &Control,
) -> Result<Sensitivity, Error> {
    let mut known = gather(model, runtime, data, indices, stats, &options.gather, control)?;
    let is_small = known.samples >= options.gather.samples.min(indices.len());
    let least = if options.loudest { THOROUGHLY_TRIED } else { LEAST_TRIED };
    let tried = spread(indices, if is_small { MOST_TRIED } else { known.samples.max(least) });
    if tried.is_empty() {
        return Ok(known);
    }
    let output = known.output.clone();
    let on =
        |samples: &[usize]| Reference::new(model, runtime, data, samples, &output, options.gather.threads, control);
    let reference = on(&tried)?;
    if !known.unknown.is_empty() {
        known.measure_unknown(model, &reference, stats, control)?;
    }
    known.check(model, &reference, stats, control)?;
    if options.one_by_one {
        let some = on(&spread(&tried, if is_small { CANDIDATES_TRIED } else { 0 }))?;
        if !is_small || !known.measure_candidates(model, &some, stats, control)? {
            let few = on(&spread(&tried, ONE_BY_ONE))?;
            known.measure_one_by_one(model, &few, stats, control)?;
            if options.loudest {
                known.measure_loudest(model, if is_small { &some } else { &few }, stats, control)?;
            }
        }
    }
    Ok(known)
}
