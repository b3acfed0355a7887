//! The open model with everything known about it. Models, statistics and plans are immutable snapshots; changing one
//! means putting another in its place.

mod repairs;
mod samples;
mod variants;
mod work;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use nibble_core::Problem;
use nibble_core::export::{Pick, pick, predicted_size, weight_bytes};
use nibble_core::model::Model;
use nibble_core::plan::spare::{self, Spared};
use nibble_core::plan::targets::{self, Conflict, Target};
use nibble_core::plan::{Choice, Plan, Preset, Set, preset};
use nibble_core::stats::Stats;

use crate::blame::Finding;
use crate::format;
use crate::history::{Gesture, History};
use crate::jobs::{Benched, Compared, Examined, Exported, Forecast, Learnt, Mended, Offer, OpenModel, Preview, Score};
use crate::results::Results;
use crate::views::calibrate::DataRequest;
use crate::views::finetune::Training;

pub use self::repairs::Mending;
use self::variants::Variant;

/// The open model.
pub struct Document {
    /// Number of this document; answers for others are stale.
    pub generation: u64,
    /// The file.
    pub path: PathBuf,
    /// The model, with the scalings of the plan in force.
    pub model: Arc<Model>,
    /// What calibration gathered.
    pub stats: Option<Arc<Stats>>,
    /// The plan with undo.
    pub history: History,
    /// The plan as saved or opened.
    pub saved: Arc<Plan>,
    /// The file the plan was saved in or read from.
    pub plan_path: Option<PathBuf>,
    /// Background results.
    pub results: Results,
    /// The data as the model gets it.
    pub preview: Option<Result<Arc<Preview>, Problem>>,
    /// The float model's own accuracy.
    pub score: Option<Score>,
    /// The last export.
    pub exported: Option<Arc<Exported>>,
    /// The last side-by-side comparison.
    pub benched: Option<Arc<Benched>>,
    /// What was found of another file that was made of this model.
    pub compared: Option<Arc<Compared>>,
    /// Layers of the preset int8 that are better left in floating point, as calibration saw it.
    pub spared: Vec<Spared>,
    /// The samples that the present statistics come from, once calibration has ended.
    pub calibrated_with: Option<DataRequest>,
    /// What was learnt about the output, with the present statistics.
    pub learnt: Option<Arc<Learnt>>,
    /// What the model in force is to be calibrated with as soon as nothing else runs: it was scaled since.
    pub calibrate_with: Option<DataRequest>,
    /// What the samples did to the ranges, of the present statistics or of those before.
    pub examined: Option<Arc<Examined>>,
    /// Whether that is being found out.
    examining: bool,
    /// Whether learning with the present statistics went wrong, so that it is not tried again.
    pub cannot_learn: bool,
    /// The plan with repaired weights that was run last, of which model, and its SQNR in dB: where predictions begin.
    anchor: Option<(String, Arc<Plan>, f64)>,
    /// Whether a plan with repaired weights could not be run.
    pub cannot_run_repairs: bool,
    /// What a plan is expected to do: the present one, or one before it until that is known.
    pub forecast: Option<Arc<Forecast>>,
    /// The last fine-tuning, running or ended.
    pub training: Option<Training>,
    /// The last repair, running or waiting to be accepted.
    pub mending: Option<Mending>,
    /// The model held open for previews of one layer's repair.
    pub bench: OpenModel,
    /// Previews of earlier repairs that wait still, the latest last.
    pub previews: Vec<Arc<Mended>>,
    /// A plan to go on with, found in an exported file.
    pub offer: Option<Offer>,
    /// Problems by where they came from; the next run of the same job replaces its own.
    pub problems: BTreeMap<&'static str, Vec<Problem>>,
    /// A counter that grows when anything but background results changes.
    pub version: u64,
    /// Whether the plan differs from what its preset gives by itself.
    pub changed: bool,
    /// See [`Self::remember_preset`].
    of_preset: Vec<Plan>,
    /// Whether an estimate gave way to an exact figure since the plan was judged.
    priced: bool,
    predicted_size: Option<(Arc<Plan>, u64)>,
    /// The model under other scalings, with what belongs to it.
    set_aside: Vec<Variant>,
    /// For every layer the choice asked for, and what the exporter makes of it.
    picks: Vec<(Choice, Pick)>,
    /// Where the plan and its target part.
    conflicts: Vec<Conflict>,
}

impl Document {
    /// A document for a model just opened, with the default preset.
    pub fn new(generation: u64, path: PathBuf, model: Model) -> Self {
        let plan = preset("int8").map_err(nibble_core::Error::from).and_then(|preset| model.preset_plan(preset));
        let plan = Arc::new(plan.unwrap_or_else(|_| Plan::uniform(Choice::FLOAT)));
        let mut problems = BTreeMap::new();
        problems.insert("open", model.problems.clone());
        let mut document = Self {
            generation,
            path,
            model: Arc::new(model),
            stats: None,
            history: History::new(Arc::clone(&plan)),
            saved: plan,
            plan_path: None,
            results: Results::default(),
            preview: None,
            score: None,
            exported: None,
            benched: None,
            compared: None,
            spared: Vec::new(),
            calibrated_with: None,
            learnt: None,
            calibrate_with: None,
            examined: None,
            examining: false,
            cannot_learn: false,
            anchor: None,
            cannot_run_repairs: false,
            forecast: None,
            training: None,
            mending: None,
            previews: Vec::new(),
            bench: OpenModel::default(),
            offer: None,
            problems,
            version: 0,
            changed: false,
            of_preset: Vec::new(),
            priced: false,
            predicted_size: None,
            set_aside: Vec::new(),
            picks: Vec::new(),
            conflicts: Vec::new(),
        };
        document.refresh();
        document
    }

    /// The plan in force.
    pub fn plan(&self) -> &Arc<Plan> {
        self.history.plan()
    }

    /// The choice asked for: what the plan says for a layer.
    pub fn asked(&self, layer: usize) -> Choice {
        self.picks.get(layer).map_or(Choice::FLOAT, |(asked, _)| *asked)
    }

    /// Where the plan and its target part.
    pub fn conflicts(&self) -> &[Conflict] {
        &self.conflicts
    }

    /// What the exporter makes of the choice asked for; its choice is the one that errors are computed for.
    pub fn pick(&self, layer: usize) -> Option<&Pick> {
        self.picks.get(layer).map(|(_, pick)| pick)
    }

    /// Why `set` would not be honoured for a layer; empty when it would.
    pub fn refusal(&self, layer: usize, set: &Set) -> String {
        let Some(known) = self.model.layers.get(layer) else { return String::new() };
        let mut asked = self.asked(layer);
        set.apply(&mut asked);
        let pick = pick(&self.model, known, asked, self.stats.as_deref());
        let honoured = set.precision.is_none_or(|value| value == pick.choice.precision)
            && set.symmetry.is_none_or(|value| value == pick.choice.symmetry)
            && set.granularity.is_none_or(|value| value == pick.choice.granularity)
            && set.mode.is_none_or(|value| value == pick.choice.mode)
            && set.activation.is_none_or(|value| value == pick.choice.activation);
        match (honoured, pick.departure.is_empty()) {
            (true, _) => String::new(),
            (false, true) => pick.reason,
            (false, false) => format!("{}: {}", pick.reason, pick.departure),
        }
    }

    /// Bytes of a layer's weights before and after.
    pub fn layer_bytes(&self, layer: usize) -> (u64, u64) {
        let (Some(known), Some(pick)) = (self.model.layers.get(layer), self.pick(layer)) else { return (0, 0) };
        let before = known.weights.iter().map(|weight| weight.size_bytes).sum();
        (before, known.weights.iter().map(|weight| weight_bytes(weight, pick)).sum())
    }

    /// Brings what follows from the plan and the statistics up to date: only layers whose choice changed are looked at.
    fn refresh(&mut self) {
        let plan = Arc::clone(self.plan());
        let stats = self.stats.clone();
        let model = Arc::clone(&self.model);
        let all = self.picks.len() != model.layers.len();
        if all {
            self.picks.clear();
        }
        for (index, layer) in model.layers.iter().enumerate() {
            let asked = if layer.quantizable() { plan.choice(&layer.name) } else { Choice::FLOAT };
            match self.picks.get_mut(index) {
                Some((known, _)) if *known == asked => {}
                Some(slot) => *slot = (asked, pick(&model, layer, asked, stats.as_deref())),
                None => self.picks.push((asked, pick(&model, layer, asked, stats.as_deref()))),
            }
        }
        self.remember_preset();
        self.changed = self.is_changed();
        self.version += 1;
        self.refresh_conflicts();
    }

    /// Finds where the plan and its target part, from what the exporter makes of each layer.
    fn refresh_conflicts(&mut self) {
        let Some(target) = self.plan().target() else { return };
        let mut found = targets::check_model(target, &self.model);
        let layers = self.model.layers.iter().zip(&self.picks).filter(|(layer, _)| layer.quantizable());
        for (layer, (asked, pick)) in layers {
            found.extend(targets::check_layer(target, &self.model, layer, *asked, pick, self.stats.as_deref()));
        }
        self.problems.insert("target", found.iter().map(|conflict| conflict.problem.clone()).collect());
        self.conflicts = found;
    }

    /// Chooses where the model is to run. One undo step.
    pub fn set_target(&mut self, target: &Target) {
        let mut plan = Plan::clone(self.plan());
        plan.target.clone_from(&target.name);
        self.replace_plan(&format!("Target {}", target.name), plan);
    }

    /// Takes every way out of conflicts with the target, as one undo step; says how many layers changed.
    pub fn fix_target(&mut self) -> usize {
        let mut plan = Plan::clone(self.plan());
        let changed = targets::fix(&mut plan, &self.model, self.stats.as_deref());
        let name = plan.target().map_or("", |target| &target.name);
        self.replace_plan(&format!("Fix {} for {name}", format::layers(changed)), plan);
        changed
    }

    /// The change that makes a problem with the target go away, where there is one.
    pub fn way_out(&self, problem: &Problem) -> Option<&Set> {
        self.conflicts.iter().find(|conflict| conflict.problem == *problem)?.set.as_ref()
    }

    /// Whether the plan differs from the one saved.
    pub fn is_unsaved(&self) -> bool {
        !Arc::ptr_eq(&self.saved, self.plan()) && *self.saved != **self.plan()
    }

    /// Sets keys for layers. Layers that cannot be quantized are left alone.
    pub fn set_layers(&mut self, layers: &[usize], set: &Set, label: &str, gesture: Option<Gesture>) {
        let mut plan = Plan::clone(self.plan());
        let names = layers.iter().filter_map(|&layer| self.model.layers.get(layer));
        plan.set_layers(names.filter(|layer| layer.quantizable()).map(|layer| layer.name.as_str()), set);
        self.history.push(label, plan, gesture);
        self.refresh();
    }

    /// Puts another plan in force.
    pub fn replace_plan(&mut self, label: &str, plan: Plan) {
        let names: Vec<&str> = self.model.layers.iter().map(|layer| layer.name.as_str()).collect();
        self.problems.insert("plan", plan.problems(&names));
        let before = Arc::clone(self.plan());
        self.history.push(label, plan, None);
        self.follow_scalings();
        self.forget_other_repairs(&before);
        self.refresh();
    }

    /// Forgets errors of repaired layers where the plan now in force has other repairs than `before`.
    fn forget_other_repairs(&mut self, before: &Plan) {
        if before.repairs != self.plan().repairs {
            self.results.forget_repaired();
            self.renew_anchor();
        }
    }

    /// Puts new statistics in force. Errors found with the old ones stand until new ones take their place.
    pub fn set_stats(&mut self, stats: Arc<Stats>) {
        self.stats = Some(stats);
        self.calibrated_with = None;
        self.learnt = None;
        self.cannot_learn = false;
        self.cannot_run_repairs = false;
        self.forecast = None;
        self.results.renew_isolated();
        self.picks.clear();
        self.refresh();
    }

    /// Leaves the activations of these layers in floating point, where the plan comes from a preset that does so. One undo
    /// step.
    pub fn spare(&mut self, found: Vec<Spared>) {
        self.spared = found;
        self.of_preset.clear();
        if !preset(&self.plan().preset).is_ok_and(|preset| preset.spares) {
            return;
        }
        let is_static = |spared: &Spared| self.plan().choice(&spared.layer).is_static();
        let mut spared = self.spared_under(self.plan());
        spared.retain(is_static);
        if !spared.is_empty() {
            // What the preset does by itself is no change that a person has to save; a file they saved lacks it, though.
            let as_opened = self.plan_path.is_none() && !self.is_unsaved();
            let mut plan = Plan::clone(self.plan());
            plan.spare(&spared);
            self.history.push("Leave activations in floating point where that is better", plan, None);
            self.refresh();
            if as_opened {
                self.saved = Arc::clone(self.plan());
            }
        }
        self.problems.insert("spared", spare::said(&spared));
    }

    /// Those of the spared layers that the target of `plan` takes so.
    pub fn spared_under(&self, plan: &Plan) -> Vec<Spared> {
        let takes = |spared: &&Spared| targets::takes_spared(plan, &self.model, spared, self.stats.as_deref());
        self.spared.iter().filter(takes).cloned().collect()
    }

    /// Puts the weights that training ended with into the plan; one undo step.
    pub fn accept_finetuned(&mut self) {
        let Some(tuned) = self.training.as_ref().and_then(|training| training.tuned.clone()) else { return };
        // Errors are remembered by choice, and a layer that is trained again keeps its choice.
        for (index, layer) in self.model.layers.iter().enumerate() {
            if tuned.result.trained.contains(&layer.name) {
                self.results.forget_errors(index);
            }
        }
        self.replace_plan("Fine-tuned weights", tuned.result.plan.clone());
    }

    /// The plan of a preset for this model, with what it spares as far as calibration has seen it. Scalings stay: they change no
    /// function, and a preset says nothing of them.
    pub fn preset_plan(&self, preset: &Preset) -> Plan {
        // Presets are data of this program and always read; the plain plan is what one without exceptions gives.
        let mut plan = self.model.preset_plan(preset).unwrap_or_else(|_| preset.plan());
        plan.target.clone_from(&self.plan().target);
        plan.scalings.clone_from(&self.plan().scalings);
        if preset.spares {
            plan.spare(&self.spared_under(&plan));
        }
        plan
    }

    /// Takes the scalings out of the plan, as one undo step.
    pub fn drop_scalings(&mut self) {
        let mut plan = Plan::clone(self.plan());
        plan.scalings.clear();
        self.replace_plan("Remove the scalings", plan);
    }

    /// Whether the plan differs from what its preset gives by itself, with or without what that spares.
    fn is_changed(&self) -> bool {
        let plan = self.plan();
        if plan.layers.is_empty() && plan.rules.is_empty() {
            return false;
        }
        let layers = self.model.layers.iter().filter(|layer| layer.quantizable());
        let same = |own: &Plan| layers.clone().all(|layer| own.choice(&layer.name) == plan.choice(&layer.name));
        !self.of_preset.iter().any(same)
    }

    /// What the preset of the plan in force gives by itself, without and with what it spares.
    fn remember_preset(&mut self) {
        let (name, target) = (self.plan().preset.clone(), self.plan().target.clone());
        if self.of_preset.first().is_some_and(|plan| plan.preset == name && plan.target == target) {
            return;
        }
        let Ok(preset) = preset(&name) else { return self.of_preset.clear() };
        let mut plain = self.model.preset_plan(preset).unwrap_or_else(|_| preset.plan());
        plain.target = target;
        self.of_preset = vec![plain, self.preset_plan(preset)];
    }

    /// Takes the last change back; returns what it was called.
    pub fn undo(&mut self) -> Option<String> {
        let before = Arc::clone(self.plan());
        let label = self.history.undo()?;
        self.follow_scalings();
        self.follow_left_out();
        self.forget_other_repairs(&before);
        self.refresh();
        Some(label)
    }

    /// Brings back what was taken back; returns what it was called.
    pub fn redo(&mut self) -> Option<String> {
        let before = Arc::clone(self.plan());
        let label = self.history.redo()?;
        self.follow_scalings();
        self.follow_left_out();
        self.forget_other_repairs(&before);
        self.refresh();
        Some(label)
    }

    /// The change that is the way out of a problem, where one is known.
    pub fn remedy(&self, problem: &Problem) -> Option<&Finding> {
        let findings = self.exported.iter().flat_map(|exported| &exported.findings);
        findings.filter(|finding| finding.remedy.is_some()).find(|finding| finding.problem == *problem)
    }

    /// Puts a plan in force that a file holds; it needs no saving.
    pub fn restore_plan(&mut self, label: &str, plan: &Plan) {
        let mut plan = plan.clone();
        plan.model_sha256.clone_from(&self.model.file.sha256);
        self.replace_plan(label, plan);
        self.saved = Arc::clone(self.plan());
    }

    /// All problems, the worst first.
    pub fn all_problems(&self) -> Vec<&Problem> {
        let mut all: Vec<&Problem> = self.problems.values().flatten().collect();
        all.sort_by_key(|problem| std::cmp::Reverse(problem.severity));
        all
    }

    /// Predicted size of the export in bytes; computed once a plan, where the forecast does not have it already.
    pub fn predicted_size(&mut self) -> u64 {
        let plan = Arc::clone(self.plan());
        if let Some(forecast) = self.forecast.as_ref().filter(|forecast| Arc::ptr_eq(&forecast.plan, &plan)) {
            return forecast.outlook.prediction.size_bytes;
        }
        match &self.predicted_size {
            Some((known, size)) if Arc::ptr_eq(known, &plan) => *size,
            _ => {
                let size = predicted_size(&self.model, &plan);
                self.predicted_size = Some((plan, size));
                size
            }
        }
    }

    /// Judges the present plan, once it is known what matters: as soon as it changes, and again when an estimate gave way to
    /// an exact figure. Returns whether another look is needed, since not all of it fitted into this one.
    pub fn foresee(&mut self) -> bool {
        let Some(learnt) = &self.learnt else { return false };
        let current = self.forecast.as_ref().is_some_and(|forecast| {
            Arc::ptr_eq(&forecast.plan, self.plan()) && !forecast.outlook.unfinished && !self.priced
        });
        if current {
            return false;
        }
        let forecast = learnt.forecast(&self.model, Arc::clone(self.plan()));
        let unfinished = forecast.outlook.unfinished;
        if !forecast.outlook.estimated.is_empty() {
            // The exact figures are work to be handed out.
            self.version += 1;
        }
        self.forecast = Some(Arc::new(forecast));
        self.priced = false;
        unfinished
    }

    /// Number of layers whose weights become integers, and of those that could.
    pub fn quantized_layers(&self) -> (usize, usize) {
        let able = self.model.layers.iter().zip(&self.picks).filter(|(layer, _)| layer.quantizable());
        able.fold((0, 0), |(quantized, all), (_, (_, pick))| {
            (quantized + usize::from(pick.choice.is_integer()), all + 1)
        })
    }

    /// How many layers come out in each precision, the most frequent first, and how many could be quantized.
    pub fn precisions(&self) -> (Vec<(&'static str, usize)>, usize) {
        let mut counts: BTreeMap<&'static str, usize> = BTreeMap::new();
        let able = self.model.layers.iter().zip(&self.picks).filter(|(layer, _)| layer.quantizable());
        for (_, (_, pick)) in able {
            *counts.entry(pick.choice.precision.word()).or_default() += 1;
        }
        let all = counts.values().sum();
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        (counts, all)
    }

    /// Layers by their error, the worst first: at the own output where that is known, else of the weights.
    pub fn worst_first(&self) -> Vec<usize> {
        let error = |layer: usize| -> Option<f64> {
            let pick = self.pick(layer)?;
            let own =
                self.results.isolated(layer, &pick.choice).known().map(|isolated| format::decibels(isolated.both_db));
            let db =
                own.filter(|db| !db.is_nan()).or_else(|| self.results.weight_error(layer, &pick.choice).known())?;
            db.is_finite().then_some(db)
        };
        let mut order: Vec<(f64, usize)> =
            (0..self.model.layers.len()).filter_map(|layer| Some((error(layer)?, layer))).collect();
        order.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        order.into_iter().map(|(_, layer)| layer).collect()
    }
}
