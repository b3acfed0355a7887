//! Plans found by themselves: for every layer one of its candidates, so that the least noise comes with the least size.
//!
//! Noise powers and bytes both add up over layers, so the best combinations are a knapsack's. It is solved layer by layer:
//! of all combinations so far only those are kept that no other beats in both. That is exact as long as they are few;
//! above `MOST` they are thinned to one for every small step in size.

use crate::export::{Pick, layer_bytes, pick};
use crate::model::{Layer, Model};
use crate::plan::{Choice, Plan};
use crate::predict::{Part, Predictor, Sensitivity, candidates};
use crate::stats::Stats;
use crate::{Control, Error};

/// Combinations kept from layer to layer.
const MOST: usize = 4096;

/// What one candidate of one layer costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Offer {
    /// Bytes of the layer in the file, or whatever else is to be kept small.
    pub bytes: u64,
    /// Noise power at the output, a sample.
    pub noise: f64,
}

/// A combination that no other beats in both size and noise.
#[derive(Clone, Debug, PartialEq)]
pub struct Combination {
    /// Σ bytes.
    pub bytes: u64,
    /// Σ noise.
    pub noise: f64,
    /// Which offer of each layer.
    pub chosen: Vec<usize>,
}

/// All combinations that are worth having, the smallest first; so the noisiest first too. Empty when a layer has no offer.
pub fn front(layers: &[Vec<Offer>]) -> Vec<Combination> {
    front_watched(layers, &Control::new()).unwrap_or_default()
}

/// [`front`], stopping when cancelled.
pub fn front_watched(layers: &[Vec<Offer>], control: &Control) -> Result<Vec<Combination>, Error> {
    let mut kept = vec![Combination { bytes: 0, noise: 0.0, chosen: Vec::new() }];
    for (at, offers) in layers.iter().enumerate() {
        control.check()?;
        control.progress("Weighing combinations", at as u64, layers.len() as u64);
        // (bytes, noise, what it grew from, offer)
        let mut grown: Vec<(u64, f64, usize, usize)> = Vec::with_capacity(kept.len() * offers.len());
        for (from, combination) in kept.iter().enumerate() {
            let each = offers.iter().enumerate().filter(|(_, offer)| offer.noise.is_finite());
            grown.extend(
                each.map(|(at, offer)| (combination.bytes + offer.bytes, combination.noise + offer.noise, from, at)),
            );
        }
        grown.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
        let mut least = f64::INFINITY;
        grown.retain(|&(_, noise, ..)| {
            let better = noise < least;
            least = least.min(noise);
            better
        });
        thin(&mut grown);
        kept = grown
            .into_iter()
            .map(|(bytes, noise, from, at)| {
                let mut chosen = kept[from].chosen.clone();
                chosen.push(at);
                Combination { bytes, noise, chosen }
            })
            .collect();
    }
    Ok(kept)
}

/// Keeps the two ends and the least noise of every equal step in size between them.
fn thin(grown: &mut Vec<(u64, f64, usize, usize)>) {
    let (Some(first), Some(last)) = (grown.first().copied(), grown.last().copied()) else { return };
    if grown.len() <= MOST {
        return;
    }
    let step = ((last.0 - first.0) / MOST as u64).max(1);
    let mut out: Vec<(u64, f64, usize, usize)> = vec![first];
    for &entry in grown.iter().skip(1) {
        let same = out.last().is_some_and(|known| (known.0 - first.0) / step == (entry.0 - first.0) / step);
        if same && out.len() > 1 {
            out.pop();
        }
        out.push(entry);
    }
    *grown = out;
}

/// What every layer of a model can be, with what it costs; leaving it alone is always among it.
#[derive(Clone, Debug, Default)]
pub struct Market {
    /// For every layer, in the model's order.
    pub choices: Vec<Vec<Choice>>,
    /// How each choice is written.
    pub picks: Vec<Vec<Pick>>,
    /// For every layer what each choice costs.
    pub offers: Vec<Vec<Offer>>,
    /// For every layer how much of each choice's noise comes from the weights.
    pub of_weights: Vec<Vec<f64>>,
}

impl Market {
    /// Covers all candidates of all layers and asks what each costs by itself.
    pub fn open(model: &Model, stats: &Stats, sensitivity: &mut Sensitivity) -> Self {
        let mut predictor = Predictor::new(model, std::mem::take(sensitivity));
        let market = Self::price(model, stats, &mut predictor, &Control::new());
        *sensitivity = predictor.into_sensitivity();
        market.unwrap_or_default()
    }

    /// [`Self::open`] with a predictor that then knows every candidate, stopping when cancelled.
    pub fn price(model: &Model, stats: &Stats, predictor: &mut Predictor, control: &Control) -> Result<Self, Error> {
        let float: Vec<Pick> =
            model.layers.iter().map(|layer| pick(model, layer, Choice::FLOAT, Some(stats))).collect();
        let mut market = Self::default();
        let total = model.layers.len() as u64;
        for (at, layer) in model.layers.iter().enumerate() {
            control.check()?;
            control.progress("Pricing candidates", at as u64, total);
            let mut picks = vec![float[at].clone()];
            if layer.quantizable() {
                picks.extend(candidates(model, layer, Some(stats)));
            }
            predictor.cover(model, layer, &picks.iter().map(|pick| pick.choice).collect::<Vec<_>>());
            let mut all = float.clone();
            let (mut own, mut of_weights) = (Vec::new(), Vec::new());
            for pick in &picks {
                all[at] = pick.clone();
                control.check()?;
                let parts = predictor.parts(model, Some(stats), &all);
                let noise = if parts.unknown.is_empty() { parts.together() } else { f64::INFINITY };
                own.push(Offer { bytes: layer_bytes(model, layer, pick), noise });
                of_weights.push(parts.total(Some(Part::Weights)));
            }
            market.choices.push(picks.iter().map(|pick| pick.choice).collect());
            market.picks.push(picks);
            market.offers.push(own);
            market.of_weights.push(of_weights);
        }
        Ok(market)
    }

    /// The combinations worth having when a millisecond is as dear as `bytes_per_ms` bytes; `latency` says what each choice
    /// adds. Noise and bytes alone decide where that is 0.
    pub fn front(&self, model: &Model, bytes_per_ms: f64, latency: impl Fn(&Layer, &Pick) -> f64) -> Vec<Combination> {
        if bytes_per_ms <= 0.0 {
            return front(&self.offers);
        }
        let dearer = model.layers.iter().zip(&self.picks).zip(&self.offers).map(|((layer, picks), offers)| {
            let times: Vec<f64> = picks.iter().map(|pick| latency(layer, pick)).collect();
            let least = times.iter().copied().fold(f64::INFINITY, f64::min);
            let price = |(offer, time): (&Offer, f64)| Offer {
                bytes: offer.bytes + ((time - least) * bytes_per_ms) as u64,
                ..*offer
            };
            offers.iter().zip(times).map(price).collect()
        });
        let priced: Vec<Vec<Offer>> = dearer.collect();
        let mut combinations = front(&priced);
        for combination in &mut combinations {
            let own = combination.chosen.iter().zip(&self.offers);
            combination.bytes = own.filter_map(|(&at, offers)| offers.get(at)).map(|offer| offer.bytes).sum();
        }
        combinations
    }

    /// The combinations worth having when layers run on integers wherever they can, but for the `free` layers that gain most
    /// by not having to. Where integers meet floats costs time that belongs to no layer, so that fast plans are not found
    /// layer by layer.
    pub fn integer_front(&self, free: usize) -> Vec<Combination> {
        let least = |at: usize, integer: bool| -> f64 {
            let each = self.picks.get(at).into_iter().flatten().zip(self.offers.get(at).into_iter().flatten());
            let fitting = each.filter(|(pick, _)| pick.form.runs_on_integers() == integer);
            fitting.map(|(_, offer)| offer.noise).fold(f64::INFINITY, f64::min)
        };
        // Left alone, a layer makes no noise at all.
        let mut gains: Vec<(usize, f64)> = (0..self.picks.len()).map(|at| (at, least(at, true))).collect();
        gains.retain(|(_, noise)| noise.is_finite());
        gains.sort_by(|a, b| b.1.total_cmp(&a.1));
        let bound: Vec<usize> = gains.into_iter().skip(free).map(|(at, _)| at).collect();
        let restricted = |(at, offers): (usize, &Vec<Offer>)| -> Vec<Offer> {
            let allowed = |pick: &Pick| !bound.contains(&at) || pick.form.runs_on_integers();
            let price = |(pick, offer): (&Pick, &Offer)| {
                let noise = if allowed(pick) { offer.noise } else { f64::INFINITY };
                Offer { noise, ..*offer }
            };
            self.picks.get(at).into_iter().flatten().zip(offers).map(price).collect()
        };
        let offers: Vec<Vec<Offer>> = self.offers.iter().enumerate().map(restricted).collect();
        front(&offers)
    }

    /// Σ noise of a combination's weights.
    pub fn weights_noise(&self, combination: &Combination) -> f64 {
        let each = self.of_weights.iter().zip(&combination.chosen);
        each.filter_map(|(noises, &at)| noises.get(at)).sum()
    }

    /// What a combination picks for each layer.
    pub fn picks(&self, combination: &Combination) -> Vec<Pick> {
        self.picks.iter().zip(&combination.chosen).filter_map(|(picks, &at)| picks.get(at)).cloned().collect()
    }

    /// The plan of a combination.
    pub fn plan(&self, model: &Model, combination: &Combination) -> Plan {
        let mut plan = Plan::uniform(Choice::FLOAT);
        plan.model_sha256.clone_from(&model.file.sha256);
        for (layer, pick) in model.layers.iter().zip(self.picks(combination)) {
            plan.set_layer(&layer.name, pick.choice);
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::{Form, Verdict};

    fn random(layers: usize, offers: usize) -> Vec<Vec<Offer>> {
        let mut rng = fastrand::Rng::with_seed(9);
        let mut offer = || Offer { bytes: rng.u64(1..1000), noise: rng.f64() };
        (0..layers).map(|_| (0..offers).map(|_| offer()).collect()).collect()
    }

    /// Every combination there is.
    fn all(layers: &[Vec<Offer>]) -> Vec<(u64, f64)> {
        layers.iter().fold(vec![(0, 0.0)], |sums, offers| {
            let each = sums.iter().flat_map(|&(b, n)| offers.iter().map(move |o| (b + o.bytes, n + o.noise)));
            each.collect()
        })
    }

    #[test]
    fn the_front_is_what_trying_everything_finds() {
        let layers = random(6, 5);
        let (front, all) = (front(&layers), all(&layers));
        for combination in &front {
            let beaten = |&(b, n): &(u64, f64)| b <= combination.bytes && n < combination.noise - 1e-12;
            assert!(!all.iter().any(beaten), "{combination:?}");
            let own: u64 = layers.iter().zip(&combination.chosen).map(|(offers, &at)| offers[at].bytes).sum();
            assert_eq!(own, combination.bytes);
        }
        for budget in [600, 1500, 2500, 4000] {
            let best = |entries: &mut dyn Iterator<Item = (u64, f64)>| {
                entries.filter(|&(bytes, _)| bytes <= budget).map(|(_, noise)| noise).fold(f64::INFINITY, f64::min)
            };
            let found = best(&mut front.iter().map(|c| (c.bytes, c.noise)));
            let true_best = best(&mut all.iter().copied());
            assert!(found == true_best || (found - true_best).abs() < 1e-12, "{budget}: {found} {true_best}");
        }
    }

    #[test]
    fn many_layers_stay_few_combinations_close_to_the_best() {
        let layers = random(60, 6);
        let front = front(&layers);
        assert!(
            front.len() <= MOST + 2 && front.windows(2).all(|w| w[0].bytes < w[1].bytes && w[0].noise > w[1].noise)
        );
        // Lagrange's bound: for any price of noise no combination costs less than every layer's cheapest offer.
        for price in [50.0, 500.0, 5000.0] {
            let cost = |bytes: u64, noise: f64| bytes as f64 + price * noise;
            let bound: f64 = layers
                .iter()
                .map(|offers| offers.iter().map(|o| cost(o.bytes, o.noise)).fold(f64::INFINITY, f64::min))
                .sum();
            let found = front.iter().map(|c| cost(c.bytes, c.noise)).fold(f64::INFINITY, f64::min);
            assert!(found <= bound * 1.005, "{price}: {found} {bound}");
        }
    }

    #[test]
    fn what_nothing_is_known_of_is_never_chosen() {
        let unknown = Offer { bytes: 1, noise: f64::INFINITY };
        let known = Offer { bytes: 9, noise: 0.0 };
        assert_eq!(front(&[vec![known, unknown]]).len(), 1);
        assert!(front(&[vec![unknown]]).is_empty());
    }

    #[test]
    fn layers_run_on_integers_but_for_those_that_gain_most() {
        let pick = |form: Form| Pick {
            form,
            choice: Choice::FLOAT,
            verdict: Verdict::Unchanged,
            reason: String::new(),
            departure: String::new(),
        };
        let layer = |noise: f64| vec![Offer { bytes: 4, noise: 0.0 }, Offer { bytes: 1, noise }];
        let market = Market {
            picks: vec![vec![pick(Form::Float), pick(Form::Qdq)]; 3],
            offers: vec![layer(1.0), layer(5.0), layer(2.0)],
            ..Market::default()
        };
        let chosen = |free: usize| market.integer_front(free).into_iter().map(|c| c.chosen).collect::<Vec<_>>();
        assert_eq!(chosen(0), [[1, 1, 1]]);
        assert_eq!(chosen(1), [[1, 1, 1], [1, 0, 1]], "the noisiest may stay as it is");
        assert_eq!(market.integer_front(3).len(), front(&market.offers).len());
    }

    /// All 3⁶ plans of the bundled network, each predicted as a whole with its size, against what the front gives.
    #[test]
    fn on_a_small_model_nothing_beats_what_is_found() {
        use crate::Control;
        use crate::data::{DataOptions, DataSet};
        use crate::export::predicted_size;
        use crate::plan::Precision;
        use crate::predict::{GatherOptions, gather};
        use crate::runtime::Runtime;

        let control = Control::new();
        let model = Model::load(std::path::Path::new("../sample-models/digits_cnn.onnx"), &control).expect("model");
        let runtime = Runtime::start(None, &control).expect("ONNX Runtime");
        let spec = "../sample-models/digits_cnn.calib.npz";
        let data = DataSet::open(spec, &model.inputs, &DataOptions::default()).expect("data");
        let options = GatherOptions { samples: 8, ..GatherOptions::default() };
        let indices: Vec<usize> = (0..8).collect();
        let mut known = gather(&model, runtime, &data, &indices, None, &options, &control).expect("sensitivity");
        let mut market = Market::open(&model, &Stats::new("", 0), &mut known);
        for (picks, offers) in market.picks.iter_mut().zip(&mut market.offers) {
            let of = |precision| picks.iter().position(|pick| pick.choice.precision == precision);
            let kept: Vec<usize> =
                [Precision::Float32, Precision::Int8, Precision::Int4].into_iter().filter_map(of).collect();
            *offers = kept.iter().map(|&at| offers[at]).collect();
            *picks = kept.iter().map(|&at| picks[at].clone()).collect();
        }
        let mut every = vec![Vec::new()];
        for offers in &market.offers {
            let each = |chosen: &Vec<usize>| (0..offers.len()).map(|at| [chosen.as_slice(), &[at]].concat()).collect();
            every = every.iter().flat_map(|chosen| -> Vec<Vec<usize>> { each(chosen) }).collect();
        }
        assert_eq!(every.len(), 729);
        let judge = |chosen: &[usize]| {
            let combination = Combination { bytes: 0, noise: 0.0, chosen: chosen.to_vec() };
            let noise = known.parts(&model, &market.picks(&combination), None).total(None);
            (predicted_size(&model, &market.plan(&model, &combination)), noise)
        };
        let all: Vec<(u64, f64)> = every.iter().map(|chosen| judge(chosen)).collect();
        let found: Vec<(u64, f64)> =
            front(&market.offers).iter().map(|combination| judge(&combination.chosen)).collect();
        let (least, most) = (all.iter().map(|p| p.0).min(), all.iter().map(|p| p.0).max());
        let (least, most) = (least.expect("plans"), most.expect("plans"));
        for share in 0..=10 {
            let budget = least + (most - least) * share / 10;
            let best = |points: &[(u64, f64)]| {
                points.iter().filter(|(size, _)| *size <= budget).map(|point| point.1).fold(f64::INFINITY, f64::min)
            };
            let (found, best) = (best(&found), best(&all));
            assert!(found <= best * (1.0 + 1e-9), "{budget} bytes: {found} found, {best} is there");
        }
    }
}
