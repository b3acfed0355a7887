//! Cross-layer equalisation: two layers in a row share their weights' range (Nagel et al. 2019, section 4.1).
//!
//! `s_k = √(r1_k / r2_k)`, r1_k the largest weight of output channel k of the first layer, r2_k the largest of input channel
//! k of the second: both become √(r1_k·r2_k). Passes over all pairs are repeated until nothing moves, since a layer in the
//! middle belongs to two. No data go into it.
//!
//! Limits: between the two there may only be what commutes with the factors, so ReLU6 networks have few pairs; with a scale
//! for each output channel the first layer's error does not depend on it.

use super::constants::Main;
use super::reach::Reach;
use super::smooth::{centred, floored};
use super::{Scaling, ScalingMethod};
use crate::model::Model;
use crate::{Control, Error};

/// Most passes over all pairs.
const PASSES: usize = 8;
/// Factors this near 1, as a logarithm, are as good as 1.
const SETTLED: f32 = 0.02;

/// Factors of every pair of layers, by the tensor between them.
pub(super) fn equalised(
    model: &Model,
    tensors: &[String],
    wanted: &dyn Fn(&Model, &Reach) -> bool,
    control: &Control,
) -> Result<Vec<Scaling>, Error> {
    let mut working = model.clone();
    let mut found: Vec<Scaling> = Vec::new();
    for pass in 0..PASSES {
        let mut largest = 0.0_f32;
        let mut covered = std::collections::BTreeSet::new();
        for tensor in tensors {
            control.check()?;
            control.progress("Equalising", pass as u64, PASSES as u64);
            let reach = Main::of(&working).and_then(|main| Reach::folded(&main, tensor));
            let Some(reach) = reach.filter(|reach| !covered.contains(tensor) && wanted(&working, reach)) else {
                continue;
            };
            covered.extend(reach.tensors.iter().cloned());
            let Some(factors) = pair(&working, &reach)? else { continue };
            largest = factors.iter().fold(largest, |largest, factor| largest.max(factor.ln().abs()));
            let step = Scaling {
                tensor: tensor.clone(),
                factors,
                folded_into: reach.folded_into,
                method: ScalingMethod::Equalisation,
                alpha: None,
            };
            working.scale(&step)?;
            match found.iter_mut().find(|known| known.tensor == *tensor) {
                Some(known) => known.factors.iter_mut().zip(&step.factors).for_each(|(all, one)| *all *= one),
                None => found.push(step),
            }
        }
        if largest < SETTLED {
            break;
        }
    }
    Ok(found)
}

/// s of one pair; `None` where X does not come from layers alone.
fn pair(model: &Model, reach: &Reach) -> Result<Option<Vec<f32>>, Error> {
    let Some(main) = Main::of(model) else { return Ok(None) };
    let (mut first, mut second) = (vec![0.0_f32; reach.shape.channels], vec![0.0_f32; reach.shape.channels]);
    let mut layers = 0;
    let before = reach.sources.iter().map(|part| (part, true));
    for (part, is_source) in before.chain(reach.layers.iter().map(|(_, part)| (part, false))) {
        let Some((_, layer)) = main.layer(part.node) else { return Ok(None) };
        let Some(weight) = layer.weight().filter(|weight| weight.input == part.input) else { continue };
        let Some(lane) = part.lane else { continue };
        let ranges = if is_source { &mut first } else { &mut second };
        for (i, value) in model.weight(layer, weight)?.iter().enumerate() {
            if let Some(known) = ranges.get_mut(lane.channel(i)) {
                *known = known.max(value.abs());
            }
        }
        layers += usize::from(is_source);
    }
    let factors = floored(&first).iter().zip(floored(&second)).map(|(r1, r2)| (r1 / r2).sqrt()).collect();
    Ok((layers > 0).then(|| centred(factors)))
}
