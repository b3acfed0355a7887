//! Which background work is handed out next.

use std::collections::HashMap;

use nibble_core::plan::{Choice, preset};
use nibble_core::predict::{Noise, Pricing};

use super::Document;
use crate::results::Work;

/// Most background jobs handed out at once; the rest is chosen anew after each answer, so that edits go first.
const MAX_IN_FLIGHT: usize = 6;

impl Document {
    /// Takes the exact noise of a choice in place of an estimate.
    pub fn put_noise(&mut self, layer: usize, choice: &Choice, noise: Noise) {
        self.results.put_noise(layer, choice);
        if let (Some(learnt), Some(known)) = (&self.learnt, self.model.layers.get(layer)) {
            learnt.price(&known.name, choice, noise);
            self.priced = true;
        }
    }

    /// What it takes to do a piece of work beside model and statistics.
    pub fn pricing(&self, work: &Work) -> Option<Pricing> {
        let layer = self.model.layers.get(work.layer()).filter(|_| matches!(work, Work::Noise { .. }))?;
        self.learnt.as_ref()?.pricing(layer)
    }

    /// The background work to hand out now: the selection first, then what the table shows, then int8 and int4.
    pub fn next_work(&mut self, first: impl Iterator<Item = usize>) -> Vec<Work> {
        let mut chosen = Vec::new();
        let room = MAX_IN_FLIGHT.saturating_sub(self.results.in_flight());
        if room == 0 {
            return chosen;
        }
        let count = self.model.layers.len();
        let order: Vec<usize> = first
            .chain(0..count)
            .filter(|&layer| self.model.layers.get(layer).is_some_and(nibble_core::model::Layer::quantizable))
            .collect();
        let calibrated = self.stats.is_some();
        let estimated: HashMap<usize, Choice> =
            self.forecast.iter().flat_map(|forecast| forecast.outlook.estimated.iter().copied()).collect();
        let honoured = |layer: usize| self.pick(layer).map(|pick| pick.choice);
        let named = |layer: usize, name: &str| {
            // What the table fills in by itself: int8 and int4 with one scale a channel.
            let choice = preset(name).ok()?.choice;
            honoured(layer).map(|_| Work::WeightError { layer, choice })
        };
        let passes: [&dyn Fn(usize) -> Option<Work>; 7] = [
            &|layer| Some(Work::Noise { layer, choice: *estimated.get(&layer)? }),
            &|layer| honoured(layer).map(|choice| Work::WeightError { layer, choice }),
            &|layer| honoured(layer).filter(|_| calibrated).map(|choice| Work::Isolated { layer, choice }),
            &|layer| Some(Work::Facts { layer }),
            &|layer| self.repair(layer).and(honoured(layer)).map(|choice| Work::Rounded { layer, choice }),
            &|layer| named(layer, "int8"),
            &|layer| named(layer, "int4-static"),
        ];
        for pass in passes {
            for &layer in &order {
                if chosen.len() == room {
                    break;
                }
                if let Some(work) = pass(layer)
                    && self.results.wants(&work)
                    && !chosen.iter().any(|other: &Work| other.same_slot(&work))
                {
                    chosen.push(work);
                }
            }
        }
        for work in &chosen {
            self.results.begin(work);
        }
        chosen
    }
}
