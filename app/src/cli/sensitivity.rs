//! `sensitivity`: what every candidate choice of every layer does to the layer's own output and to the model's.

use std::collections::BTreeMap;
use std::time::Instant;

use nibble_core::Error;
use nibble_core::error::{Metric, OutputQuality, Probe, Sqnr};
use nibble_core::export::{Pick, pick, weight_bytes};
use nibble_core::model::{Layer, Model};
use nibble_core::plan::{Choice, Plan};
use nibble_core::predict::{
    GatherOptions, LearnOptions, Part, Reference, Sensitivity, candidates, learn, single_layer_plan,
};
use nibble_core::report::text;
use nibble_core::runtime::Runtime;
use nibble_core::stats::Stats;
use serde_json::{Value, json};

use super::args::SensitivityArgs;
use super::calibrate;
use super::console::{Console, problems_text};
use super::failure::Failure;
use super::inputs::{self, Samples};
use super::metric;
use super::table::Table;

/// Runs the verb.
pub fn run(args: &SensitivityArgs, console: &Console) -> Result<(), Failure> {
    let started = Instant::now();
    let control = console.control();
    if args.metric == Some(Metric::Accuracy) {
        let hint =
            "Judge layers by sqnr, kl, cosine or agreement; `auto --max-drop` bounds the accuracy of whole plans";
        return Err(Failure::usage("accuracy is too coarse to tell layers apart", "--metric", hint));
    }
    let model = Model::load(&args.model, control)?;
    let set = inputs::open(&args.data, &model.inputs, &inputs::options(&args.input)?, console)?;
    let samples = Samples::limited(set, &args.input)?;
    let saved = args.stats.as_deref().map(|path| calibrate::load(path, &model)).transpose()?;
    let runtime = Runtime::start(console.runtime(), control).map_err(Error::from)?;
    let threads = args.threads.threads;
    let stats = match saved {
        Some(stats) => stats,
        None => {
            let mut stats = Stats::new(model.identity.as_str(), args.input.seed);
            calibrate::gather(&model, runtime, &samples, threads, &mut stats, console)?;
            stats
        }
    };
    let divergence = args.metric == Some(Metric::Kl);
    let gather = GatherOptions { threads, seed: args.input.seed, divergence, ..GatherOptions::default() };
    let options = LearnOptions { gather, one_by_one: true, loudest: false };
    let mut sensitivity = learn(&model, runtime, &samples.set, &samples.indices, Some(&stats), &options, control)?;
    let picks: BTreeMap<&str, Vec<Pick>> =
        model.layers.iter().map(|layer| (layer.name.as_str(), candidates(&model, layer, Some(&stats)))).collect();
    for layer in &model.layers {
        control.check()?;
        let choices: Vec<Choice> = picks[layer.name.as_str()].iter().map(|pick| pick.choice).collect();
        sensitivity.cover(&model, layer, &choices);
    }
    let judged = match &args.eval {
        Some(spec) => {
            let set = inputs::open(spec, &model.inputs, &inputs::options(&args.input)?, console)?;
            Samples::limited(set, &args.input)?
        }
        None => samples.clone(),
    };
    let reference = args
        .measure
        .then(|| {
            let (set, indices) = (&judged.set, &judged.indices);
            Reference::new(&model, runtime, set, indices, &sensitivity.output, threads, control)
        })
        .transpose()?;
    let mut layers = Vec::new();
    let float = float_picks(&model, &stats);
    let metric = args.metric.unwrap_or(Metric::Sqnr);
    for (at, layer) in model.layers.iter().enumerate().filter(|(_, layer)| layer.quantizable()) {
        control.check()?;
        control.progress("Judging layers", at as u64, model.layers.len() as u64);
        let context =
            LayerContext { model: &model, stats: &stats, sensitivity: &sensitivity, float: &float, metric, at, layer };
        layers.push(context.json(&picks[layer.name.as_str()], reference.as_ref(), console)?);
    }
    let problems = console.problems_with(&model.problems);
    let json = json!({
        "model": args.model,
        "metric": if metric == Metric::Sqnr { "sqnr_db" } else { metric.name() },
        "output": sensitivity.output,
        "samples": sensitivity.samples,
        "projections": sensitivity.projections,
        "layers": layers,
        "unknown": sensitivity.unknown,
        "checks": sensitivity.checks,
        "seconds": started.elapsed().as_secs_f64(),
        "notes": sensitivity.notes.iter().cloned().chain(console.notes()).collect::<Vec<_>>(),
        "problems": problems,
    });
    let text = to_text(&json) + &problems_text(&problems);
    console.result(&json, &text)
}

fn float_picks(model: &Model, stats: &Stats) -> Vec<Pick> {
    model.layers.iter().map(|layer| pick(model, layer, Choice::FLOAT, Some(stats))).collect()
}

struct LayerContext<'a> {
    model: &'a Model,
    stats: &'a Stats,
    sensitivity: &'a Sensitivity,
    float: &'a [Pick],
    metric: Metric,
    at: usize,
    layer: &'a Layer,
}

impl LayerContext<'_> {
    fn json(&self, picks: &[Pick], reference: Option<&Reference<'_>>, console: &Console) -> Result<Value, Failure> {
        let weights = self.layer.weight().map(|weight| self.model.weight(self.layer, weight)).transpose();
        let weights = weights.map_err(Error::from)?.unwrap_or_default();
        let input = self.stats.tensors.get(&self.layer.input);
        let probe = Probe::new(self.layer, &weights, self.stats.rows.get(&self.layer.name), input);
        let mut rows = Vec::new();
        for pick in picks {
            let measured = match reference {
                Some(reference) => {
                    let plan = single_layer_plan(self.model, self.layer, &pick.choice);
                    reference.outcome(&plan, Some(self.stats), console.control())?
                }
                None => OutputQuality::default(),
            };
            self.rows(pick, &probe, &measured, &mut rows);
        }
        Ok(json!({
            "name": self.layer.name,
            "op": self.layer.op,
            "known_by": match self.sensitivity.layers.get(&self.layer.name) {
                Some(known) if known.measured => "measurement",
                Some(_) => "gradients",
                None => "nothing",
            },
            "candidates": rows,
        }))
    }

    /// One row a part: what rounds weights alone, activations alone, and both as they are written.
    fn rows(&self, pick: &Pick, probe: &Probe<'_>, measured: &OutputQuality, rows: &mut Vec<Value>) {
        let mut picks = self.float.to_vec();
        picks[self.at] = pick.clone();
        let parts = self.sensitivity.parts(self.model, &picks, Some(self.stats));
        let isolated = probe.measure(&pick.choice);
        let known = parts.unknown.is_empty();
        let diverging = self.sensitivity.divergence.as_deref();
        let diverging = diverging.map(|known| (known, known.parts(self.model, &picks, Some(self.stats))));
        let diverged = |part: Option<bool>| {
            let (_, parts) = diverging.as_ref().filter(|(_, parts)| parts.unknown.is_empty())?;
            let of_weights = parts.total(Some(Part::Weights));
            Some(match part {
                Some(true) => of_weights,
                Some(false) => parts.total(None) - of_weights,
                None => parts.total(None),
            })
        };
        let predicted = |noise: f64| if known { self.sensitivity.sqnr(noise) } else { Sqnr::Undefined };
        let (weights, all) = (parts.total(Some(Part::Weights)), parts.total(None));
        let bytes: u64 = self.layer.weights.iter().map(|weight| weight_bytes(weight, pick)).sum();
        let mut row = |part: &str, isolated, predicted, diverged: Option<f64>, measured: Option<&OutputQuality>| {
            let measured = measured.filter(|measured| measured.values > 0);
            let mut row = json!({
                "choice": pick.choice,
                "form": pick.form,
                "part": part,
                "isolated_sqnr_db": isolated,
                "predicted_output_sqnr_db": predicted,
                "measured_output_sqnr_db": measured.map(|measured| measured.sqnr_db),
                "size_bytes": bytes,
            });
            if self.metric != Metric::Sqnr {
                let figure = measured.and_then(|measured| self.metric.of(measured, None).ok());
                row["predicted_output"] = json!(diverged.or_else(|| self.metric.from_sqnr(predicted)));
                row["measured_output"] = metric::number(figure);
            }
            rows.push(row);
        };
        let rounds_activations = parts.sources.iter().any(|source| source.part != Part::Weights);
        let alone = if rounds_activations { None } else { Some(measured) };
        row("weights", isolated.weights_db, predicted(weights), diverged(Some(true)), alone);
        if rounds_activations {
            row("activations", isolated.activations_db, predicted(all - weights), diverged(Some(false)), None);
            row("both", isolated.both_db, predicted(all), diverged(None), Some(measured));
        }
        if pick.form.needs_statistics()
            && let Some(noise) = self.sensitivity.node_noise(self.layer, &pick.choice, self.stats)
        {
            let diverged =
                diverging.as_ref().and_then(|(known, _)| known.node_noise(self.layer, &pick.choice, self.stats));
            row("node", Sqnr::Undefined, predicted(noise), diverged, None);
        }
    }
}

/// The plan whose every layer is as `plan` says, covered by `sensitivity` so that it can be predicted.
pub fn cover(sensitivity: &mut Sensitivity, model: &Model, plan: &Plan, stats: Option<&Stats>) {
    for layer in &model.layers {
        let honoured = pick(model, layer, plan.choice(&layer.name), stats).choice;
        sensitivity.cover(model, layer, &[honoured]);
    }
}

fn to_text(json: &Value) -> String {
    let metric = json["metric"].as_str().filter(|name| *name != "sqnr_db");
    let mut columns = vec!["Layer", "Choice", "Form", "Part", "Layer's output", "Model's output", "Measured"];
    let titles = metric.map(|name| [format!("Model's {name}"), format!("Measured {name}")]);
    columns.extend(titles.iter().flatten().map(String::as_str));
    let numbers: Vec<usize> = (4..columns.len()).collect();
    let mut table = Table::new(&columns, &numbers);
    let db = |value: &Value| match value {
        Value::Number(number) => format!("{:.1} dB", number.as_f64().unwrap_or_default()),
        Value::String(word) => word.clone(),
        _ => "–".to_owned(),
    };
    for layer in json["layers"].as_array().into_iter().flatten() {
        for row in layer["candidates"].as_array().into_iter().flatten() {
            let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let mut cells = vec![
                word(&layer["name"]),
                text::choice(&row["choice"]),
                word(&row["form"]),
                word(&row["part"]),
                db(&row["isolated_sqnr_db"]),
                db(&row["predicted_output_sqnr_db"]),
                db(&row["measured_output_sqnr_db"]),
            ];
            if metric.is_some() {
                let figure = |value: &Value| value.as_f64().map_or("–".to_owned(), |value| format!("{value:.3e}"));
                cells.extend([figure(&row["predicted_output"]), figure(&row["measured_output"])]);
            }
            table.row(cells);
        }
    }
    let seconds = json["seconds"].as_f64().unwrap_or_default();
    format!("{table}\n{} samples, {seconds:.1} s\n", json["samples"])
}
