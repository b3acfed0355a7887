//! `quantize`: calibrate where needed, export, verify in ONNX Runtime, and only then put the file in its place.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use nibble_core::error::{CompareOptions, MeasureError, Sqnr};
use nibble_core::export::{self, Export, Verified, VerifyOptions, needs_calibration, ort_path, verify_and_write};
use nibble_core::model::Model;
use nibble_core::plan::targets::{SecondFile, conflicts};
use nibble_core::plan::{Plan, Rounding};
use nibble_core::predict::Forecast;
use nibble_core::repair::{Method, Split, learnable, repair_missing};
use nibble_core::report::{Row, Saved, text};
use nibble_core::runtime::{Runtime, Source};
use nibble_core::stats::Stats;
use nibble_core::{Error, Problem};
use serde_json::{Value, json};

use crate::blame::{Case, judge};

use super::args::{EvalArgs, InputArgs, MetricArgs, NO_REPAIR, PlanArgs, QuantizeArgs, QuantizeRepairArgs};
use super::calibrate;
use super::console::{Console, problems_text};
use super::failure::Failure;
use super::inputs::{self, Judged, Samples};
use super::metric;
use super::output;
use super::plan;
use super::repair;
use super::scaling::{Step, Words};
use super::table::Table;

/// Least half of a forecast's interval, in dB.
const LEAST_HALF_DB: f64 = 1.0;

/// Bits up to which presets repair rounding by themselves; with more of them there is little to gain.
const FEW_BITS: u32 = 4;

/// Runs the verb.
pub fn run(args: &QuantizeArgs, console: &Console) -> Result<(), Failure> {
    let job = Job {
        model: &args.model,
        data: args.data.as_deref(),
        stats: args.stats.as_deref(),
        output: &args.output,
        plan: &args.plan,
        eval: &args.eval,
        metric: &args.metric,
        input: &args.input,
        threads: args.threads.threads,
        repair: &args.repair,
    };
    let done = job.run(console)?;
    console.result(&done.json, &to_text(&done.json, &done.problems))
}

/// All that a quantization is told; `demo` fills it too.
pub struct Job<'a> {
    pub model: &'a Path,
    pub data: Option<&'a str>,
    pub stats: Option<&'a Path>,
    pub output: &'a Path,
    pub plan: &'a PlanArgs,
    pub eval: &'a EvalArgs,
    pub metric: &'a MetricArgs,
    pub input: &'a InputArgs,
    pub threads: usize,
    pub repair: &'a QuantizeRepairArgs,
}

/// A quantization that succeeded.
pub struct Done {
    /// The result.
    pub json: Value,
    /// The problems in it.
    pub problems: Vec<Problem>,
    /// What quality was measured on.
    pub judged: Judged,
    /// The original.
    pub model: Model,
}

impl Job<'_> {
    /// Does it all. The output appears at the very end, or not at all.
    pub fn run(&self, console: &Console) -> Result<Done, Failure> {
        let control = console.control();
        let model = Model::load(self.model, control)?;
        // Random numbers teach nothing.
        let learns = self.repair.repair.is_none() && self.data.is_some_and(|data| !data.starts_with("random:"));
        let read = if learns { plan::with_data } else { plan::of };
        let mut plan = read(self.plan, &model)?;
        let own = plan::rounding(&plan, self.plan).filter(|_| learns);
        let mut model = model.scaled(&plan)?.into_owned();
        let sources = [
            ("--data", self.data.map(output::file_of)),
            ("--eval", self.eval.eval.as_deref().map(output::file_of)),
            ("--labels", self.eval.labels.as_deref().map(output::file_of)),
            ("--stats", self.stats),
            ("--plan", self.plan.plan.as_deref()),
        ];
        output::check_apart(self.output, &model.file, &sources)?;
        if let Some(path) = &self.repair.save_plan {
            output::check_apart(path, &model.file, &[("--output", Some(self.output))])?;
        }
        if plan.target().is_some_and(|target| target.also == Some(SecondFile::Ort)) {
            output::check_apart(&ort_path(self.output).map_err(Error::from)?, &model.file, &sources)?;
        }
        let needed = needs_calibration(&plan, &model);
        let words = match self.repair.repair.as_deref() {
            None | Some(NO_REPAIR) => Words::default(),
            Some(text) => Words::of(text)?,
        };
        let hurries = own.is_some() && plan::hurries(&plan, self.plan);
        let calibrates = self.stats.is_none() && (needed || words.learns() || hurries);
        if calibrates && self.data.is_none() {
            let hint = "Give calibration data with --data (or --stats), or choose a preset that needs none: int8-dynamic, \
                int8-weights, int4-weights, float16-weights";
            return Err(Failure::usage("static quantization needs calibration data", "--data", hint));
        }
        if words.scaling.is_some() && needed && self.data.is_none() {
            let hint =
                "Give calibration data with --data: statistics of the model as it is do not fit it once it is scaled";
            return Err(Failure::usage("scaling needs calibration data", "--data", hint));
        }
        let saved = self.stats.map(|path| calibrate::load(path, &model)).transpose()?;
        let (calibration, mut judged) =
            inputs::calibration_and_evaluation(self.data, self.eval, self.input, &model.inputs, console)?;
        if let Some(stats) = &saved {
            judged.leave_out(stats, console);
        }
        let runtime = console.start_runtime()?;
        let mut stats = match (saved, &calibration) {
            (None, Some(samples)) if calibrates => {
                let mut stats = Stats::new(model.identity.as_str(), self.input.seed);
                calibrate::gather(&model, runtime, samples, self.threads, &mut stats, console)?;
                Some(stats)
            }
            (saved, _) => saved,
        };
        let mut scaled = None;
        if let Some(method) = words.scaling {
            let (samples, seed) = (calibration.as_ref(), self.input.seed);
            let step = Step { args: self.plan, runtime, samples, threads: self.threads, seed };
            let json;
            (model, stats, json) = step.run(model, &mut plan, stats, method, &|_| true, console)?;
            scaled = Some(json);
        }
        if let Some(stats) = &stats {
            plan::spare(&mut plan, self.plan, &model, stats, control)?;
            if hurries {
                plan::hurry(&mut plan, self.plan, &model, stats, control)?;
            }
        }
        let repaired =
            self.repair(runtime, &model, calibration.as_ref(), stats.as_ref(), &mut plan, words.method, own, console)?;
        let conflicts = conflicts(&model, &plan, stats.as_ref());
        for conflict in &conflicts {
            control.problem(conflict.problem.clone());
        }
        // Recorded before anything else is measured.
        let predicted = match (promise(&repaired), &calibration) {
            (Some(promise), _) => Some(promise),
            (None, Some(samples)) => {
                let others = judged.samples.indices.len();
                self.forecast(runtime, &model, samples, stats.as_ref(), &plan, others, console)?
            }
            (None, None) => None,
        };
        let export = export::export(&model, stats.as_ref(), &plan, control)?;
        let verified = self.verify(runtime, &model, export, &mut judged, &plan, stats.as_ref(), console)?;
        let case = Case {
            model: &model,
            stats: stats.as_ref(),
            plan: &plan,
            quality: &verified.quality,
            accumulated: None,
            runtime,
            data: &judged.samples.set,
            indices: &judged.samples.indices,
            threads: self.threads,
        };
        for finding in judge(&case, control)? {
            control.problem(finding.problem);
        }
        if let Some(why) = predicted.as_ref().and_then(|promise| promise.missed(verified.quality.sqnr_db)) {
            console.note(&why);
        }
        let headline = match &self.metric.metric_command {
            Some(command) => {
                let sources = [Source::File(self.model), Source::File(&verified.output)];
                metric::own(command, runtime, sources, &judged, self.threads, console)?
            }
            None => metric::headline(self.metric.metric, &model, &verified.quality),
        };
        if let Some(path) = &self.repair.save_plan {
            plan.save(path)?;
        }
        let known: Vec<Problem> = model.problems.iter().chain(&verified.problems).cloned().collect();
        let problems = console.problems_with(&known);
        let json = json!({
            "model": self.model,
            "output": verified.output,
            "size_bytes": verified.size_bytes,
            "metric": headline,
            "quality": verified.quality,
            "predicted_sqnr_db": predicted.as_ref().map(|promise| promise.sqnr_db),
            "predicted_interval_db": predicted.as_ref().map(|promise| promise.bounds),
            "predicted_from": predicted.as_ref().map(|promise| {
                json!({"samples": promise.samples, "deciding": promise.deciding, "held_back": promise.held_back})
            }),
            "layers": verified.layers,
            "scaling": scaled,
            "deployment": verified.deployment,
            "preset": plan.preset,
            "target": plan.target().map(|target| &target.name),
            "conflicts": conflicts,
            "ort": verified.ort,
            "repair": repaired,
            "calibration": stats.map(|stats| json!({"data": stats.data(), "samples": stats.samples()})),
            "evaluation": judged.to_json(),
            "notes": console.notes(),
            "problems": problems,
        });
        Ok(Done { json, problems, judged, model })
    }

    /// Repairs what `--repair`, the preset by itself (`own`) or the plan's choices ask for; the result says what that did
    /// on data held back.
    #[allow(clippy::too_many_arguments)] // what a repair needs, each by itself
    fn repair(
        &self,
        runtime: &Runtime,
        model: &Model,
        samples: Option<&Samples>,
        stats: Option<&Stats>,
        plan: &mut Plan,
        method: Option<Method>,
        own: Option<Rounding>,
        console: &Console,
    ) -> Result<Value, Failure> {
        let Some(samples) = samples else {
            return match method {
                None => Ok(Value::Null),
                Some(_) => {
                    let hint = "Give calibration data with --data";
                    Err(Failure::usage("a repair needs samples to learn from and to judge on", "--repair", hint))
                }
            };
        };
        let split = Split::of(&samples.indices);
        let task = repair::Task { model, runtime, samples, split: &split, stats, threads: self.threads };
        let options = task.options(self.repair.repair_levels, self.repair.repair_seconds, None);
        // A repair that the person chose for some layers stands instead.
        let chosen = model.layers.iter().any(|layer| plan.choice(&layer.name).rounding != Rounding::Nearest);
        let few = match own {
            Some(_) if method.is_none() && !chosen => learnable(&task.job(plan, &options), FEW_BITS),
            _ => BTreeSet::new(),
        };
        if let Some(method) = method.or(own.filter(|_| !few.is_empty()).map(Method::One)) {
            let wanted = |name: &str| few.is_empty() || few.contains(name);
            let outcome = task.run(plan, method, &options, wanted, console)?;
            let json = repair::to_json(&outcome, &split);
            *plan = outcome.plan;
            return Ok(json);
        }
        let (repaired, layers) = repair_missing(&task.job(plan, &options), console.control())?;
        *plan = repaired;
        Ok(if layers.is_empty() { Value::Null } else { json!({"layers": repair::layers_json(&layers)}) })
    }

    /// What the plan is expected to give on `others` further samples: what it gives on those of calibration.
    #[allow(clippy::too_many_arguments)] // each is known where it is called, and nowhere together
    fn forecast(
        &self,
        runtime: &Runtime,
        model: &Model,
        samples: &Samples,
        stats: Option<&Stats>,
        plan: &Plan,
        others: usize,
        console: &Console,
    ) -> Result<Option<Promise>, Failure> {
        let (set, indices, control) = (&samples.set, &samples.indices, console.control());
        let found = Forecast::run(model, runtime, set, indices, plan, stats, others, self.threads, control)?;
        if let Some(few) = found.filter(Forecast::hangs_on_few) {
            console.note(&format!(
                "{} of the {} calibration samples that the prediction comes from make 90 % of the noise: other samples may \
                 well give another figure, and the interval is wide",
                few.deciding, few.samples
            ));
        }
        Ok(found.map(|found| Promise {
            sqnr_db: Sqnr::Db(found.sqnr_db),
            bounds: [Sqnr::Db(found.low_db), Sqnr::Db(found.high_db)],
            samples: found.samples as u64,
            deciding: Some(found.deciding),
            held_back: false,
        }))
    }

    /// Writes, runs and compares. Labels that fit no output of the model cost the accuracy, not the whole job.
    #[allow(clippy::too_many_arguments)] // what an export needs, once more without the labels
    fn verify(
        &self,
        runtime: &Runtime,
        model: &Model,
        export: Export,
        judged: &mut Judged,
        plan: &Plan,
        stats: Option<&Stats>,
        console: &Console,
    ) -> Result<Verified, Failure> {
        let control = console.control();
        let compare = CompareOptions { threads: self.threads, ..CompareOptions::default() };
        let write = |export: Export, judged: &Judged| {
            let Samples { set, indices } = &judged.samples;
            let options = VerifyOptions { data: set, indices, labels: judged.labels.as_deref(), compare: &compare };
            verify_and_write(runtime, model, export, self.output, options, control)
        };
        match write(export, judged) {
            Err(Error::Measure(error @ MeasureError::NotClasses { .. })) if judged.labels.is_some() => {
                judged.labels = None;
                console.control().problem(inputs::no_accuracy(&error));
                Ok(write(export::export(model, stats, plan, control)?, judged)?)
            }
            result => Ok(result?),
        }
    }
}

/// What the output is expected to have before it is measured.
struct Promise {
    sqnr_db: Sqnr,
    bounds: [Sqnr; 2],
    /// Samples that the plan was run on.
    samples: u64,
    /// Of these the least number that make nine tenths of the noise; `None` where it was not looked at.
    deciding: Option<usize>,
    /// Whether repairs have not seen these samples.
    held_back: bool,
}

impl Promise {
    /// Which assumption failed where the measured figure lies outside the bounds.
    fn missed(&self, measured: Sqnr) -> Option<String> {
        let [low, high] = [self.bounds[0].db()?, self.bounds[1].db()?];
        let db = measured.db().filter(|db| !(low..=high).contains(db))?;
        let side = if db < low { "more" } else { "less" };
        Some(format!(
            "Measured {measured}, predicted {}: the plan is the same, so the evaluation samples differ from the {} that it \
             was run on before; they make {side} noise, more than so few samples let expect",
            self.sqnr_db, self.samples
        ))
    }
}

/// What a repair promises: the plan was run on samples that it has not seen, which says more than any sum. The bounds are
/// those of the gain, and at least [`LEAST_HALF_DB`] away.
fn promise(repair: &Value) -> Option<Promise> {
    let held = &repair["held_back"];
    let samples = held["samples"].as_u64().filter(|&samples| samples > 0)?;
    let (after, gain) = (held["after_sqnr_db"].as_f64()?, held["gain_db"].as_f64()?);
    let [low, high] =
        [0, 1].map(|end| held["gain_interval_db"][end].as_f64().map_or(0.0, |bound| (bound - gain).abs()));
    let bounds = [after - low.max(LEAST_HALF_DB), after + high.max(LEAST_HALF_DB)].map(Sqnr::Db);
    Some(Promise { sqnr_db: Sqnr::Db(after), bounds, samples, deciding: None, held_back: true })
}

/// The result for people.
pub fn to_text(json: &Value, problems: &[Problem]) -> String {
    let Some(row) = Row::of(&Saved::new("", json.clone())) else { return String::new() };
    let judged = metric::line(&json["metric"]);
    let mut out = format!("{} → {}\n\n{}{judged}\n", row.original, row.quantized, pair(&row));
    let timed = json["layers"].as_array().into_iter().flatten().any(|layer| text::measured(layer).is_some());
    let mut titles = vec!["Layer", "Operator", "Choice", "Form", "Verdict", "Reason"];
    if timed {
        titles.insert(5, "Measured");
    }
    let mut table = Table::new(&titles, &[]);
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for layer in json["layers"].as_array().into_iter().flatten() {
        let word = |key: &str| layer[key].as_str().unwrap_or_default().to_owned();
        let verdict = text::verdict(layer["verdict"].as_str().unwrap_or_default()).to_owned();
        *counts.entry(verdict.clone()).or_default() += 1;
        let measured = timed.then(|| text::measured(layer).unwrap_or_default());
        let cells = [word("name"), word("op"), text::choice(&layer["choice"]), word("form"), verdict];
        table.row(cells.into_iter().chain(measured).chain([word("reason")]));
    }
    let counts: Vec<_> = counts.iter().map(|(verdict, count)| format!("{count} {verdict}")).collect();
    out += &format!("{table}\nLayers: {}\n", counts.join(", "));
    out += &format!("Target: {}\n", text::scalar(&json["target"]));
    if let Some(path) = json["ort"]["output"].as_str() {
        let size = text::bytes(json["ort"]["size_bytes"].as_u64().unwrap_or(0));
        out += &format!("ORT format: {path}, {size}, against the ONNX file: {}\n", text::sqnr(&json["ort"]["sqnr_db"]));
    }
    out + &problems_text(problems)
}

/// Original | quantized | difference, in columns.
pub fn pair(row: &Row) -> Table {
    let mut table = Table::new(&["", "Original", "Quantized", "Difference"], &[1, 2]);
    for line in row.lines() {
        table.row(line);
    }
    table
}
