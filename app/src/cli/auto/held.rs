//! A bounded drop is checked on samples that the search has not seen: it picks among plans by their figures, and the best of
//! several figures flatters.

use nibble_core::export::export;
use nibble_core::predict::Reference;
use serde_json::{Value, json};

use super::judge::Judge;
use super::search::Search;
use crate::cli::args::AutoArgs;
use crate::cli::console::Console;
use crate::cli::failure::Failure;
use crate::cli::inputs::{Judged, Samples};
use crate::cli::metric;

/// Least samples of which a part is worth holding back: on fewer one sample is many points of a score.
const LEAST: usize = 40;
/// Plans that are tried on the samples held back.
const TRIED: usize = 4;

/// What the search may see, and every second sample, which it may not; nothing is held back where no drop is bounded, and, with
/// a note, of few samples.
pub fn part(judged: Judged, bounds_drop: bool, console: &Console) -> (Judged, Option<Judged>) {
    let all = &judged.samples.indices;
    if !bounds_drop {
        return (judged, None);
    }
    if all.len() < LEAST {
        console.note(&format!(
            "The drop is measured on the {} samples that the search chose by: too few to hold some back, and the figure flatters",
            all.len()
        ));
        return (judged, None);
    }
    let half = |odd: usize| Judged {
        samples: Samples {
            set: judged.samples.set.clone(),
            indices: all.iter().skip(odd).step_by(2).copied().collect(),
        },
        labels: judged.labels.clone(),
        held_back: judged.held_back,
    };
    let (seen, unseen) = (half(0), half(1));
    console.note(&format!(
        "The search sees {} of the evaluation samples; {} are held back, and the drop is checked on them too",
        seen.samples.indices.len(),
        unseen.samples.indices.len()
    ));
    (seen, Some(unseen))
}

/// The first of `ranked` whose drop holds on samples that the search has not seen, and what was measured there.
pub fn confirm(
    search: &Search<'_>,
    ranked: &[usize],
    unseen: &Judged,
    args: &AutoArgs,
) -> Result<(usize, Value), Failure> {
    let Search { model, stats, runtime, console, threads, .. } = *search;
    let (Samples { set, indices }, control) = (&unseen.samples, console.control());
    let mut judge = Judge::new(args, model, &search.known.output, runtime, unseen, console)?;
    let reference = Reference::new(model, runtime, set, indices, &search.known.output, threads, control)?;
    let most = search.budgets.max_drop.unwrap_or(f64::INFINITY);
    let mut least = f64::INFINITY;
    for &place in ranked.iter().take(TRIED) {
        let proto = export(model, Some(stats), &search.points[place].plan, control)?.proto;
        let quality = reference.quality(&proto, control)?;
        let figure = judge.measure(model, &proto, &quality, console)?;
        let drop = figure.and_then(|figure| judge.drop(figure)).unwrap_or(f64::INFINITY);
        least = least.min(drop);
        if drop <= most + 1e-9 {
            let json = json!({"samples": indices.len(), "value": metric::number(figure), "drop": drop});
            return Ok((place, json));
        }
        console.note(&format!(
            "A plan that keeps the drop where the search looked does not on the {} samples held back ({drop:.3}): passed over",
            indices.len()
        ));
    }
    let message = format!(
        "the guarantee cannot be given: on the {} samples held back from the search the least drop of the best plans is {least:.3}",
        indices.len()
    );
    Err(Failure::new(message, "--max-drop", "Allow more, or give more samples with --eval"))
}
