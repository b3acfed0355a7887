//! Repairs of the plan in force: which layers have one, what can be repaired, and taking over what was found.

use std::sync::Arc;

use nibble_core::error::Sqnr;
use nibble_core::model::Layer;
use nibble_core::plan::spare::{Cause, Spared};
use nibble_core::plan::{Choice, Plan, Rounding, preset};
use nibble_core::repair::{LayerRepair, Picked, ScalingMethod};

use super::Document;
use crate::format;
use crate::jobs::{Learnt, Mended};
use crate::repairs::RepairMethod;

impl Document {
    /// The repair in force for a layer.
    pub fn repair(&self, layer: usize) -> Option<&Arc<LayerRepair>> {
        let known = self.model.layers.get(layer)?;
        let repair = self.plan().repairs.get(&known.name)?;
        (repair.fits(known) && repair.serves(&self.pick(layer)?.choice)).then_some(repair)
    }

    /// The repair that the choice of a layer asks for and the plan does not have.
    pub fn missing_repair(&self, layer: usize) -> Option<Rounding> {
        let rounding = self.pick(layer)?.choice.rounding;
        (rounding != Rounding::Nearest && self.repair(layer).is_none()).then_some(rounding)
    }

    /// Whether a scaling of the plan divided what enters a layer.
    pub fn is_scaled(&self, layer: usize) -> bool {
        self.model.layers.get(layer).is_some_and(|layer| layer.scaled)
    }

    /// Why `method` cannot serve any of these layers; empty when it can.
    pub fn repair_refusal(&self, method: RepairMethod, layers: &[usize]) -> String {
        if layers.is_empty() {
            return "Select layers first, or repair the whole plan".to_owned();
        }
        let picked = layers
            .iter()
            .filter_map(|&at| -> Option<Picked<'_>> { Some((self.model.layers.get(at)?, self.pick(at)?)) });
        let refusal = match method {
            RepairMethod::Rounding(method) => method.refusal(&self.model, picked),
            RepairMethod::Scaling(ScalingMethod::Smoothquant) if self.is_any_spared(layers) => String::new(),
            RepairMethod::Scaling(method) => method.refusal(picked),
            RepairMethod::Missing => String::new(),
        };
        if !refusal.is_empty() || self.stats.is_some() {
            return refusal;
        }
        if let RepairMethod::Scaling(ScalingMethod::Smoothquant | ScalingMethod::Awq) = method {
            return "Calibrate first: the factors come from what enters the layers".to_owned();
        }
        let statics = self.picks.iter().filter(|(_, pick)| pick.form.needs_statistics()).count();
        match statics {
            0 => String::new(),
            _ => format!("{} of the plan are static: calibrate first", format::layers(statics)),
        }
    }

    /// The plan that a scaling by `method` starts from: SmoothQuant takes outliers out of activations, so that layers which
    /// the preset leaves in floating point for theirs may be static again.
    pub fn plan_to_scale(&self, method: RepairMethod) -> Plan {
        let mut plan = Plan::clone(self.plan());
        if method == RepairMethod::Scaling(ScalingMethod::Smoothquant) {
            for (name, choice) in self.outliers() {
                plan.set_layer(name, choice);
            }
        }
        plan
    }

    /// Layers that are as the preset spares them for their outliers, with the choice that it gives them otherwise.
    fn outliers(&self) -> impl Iterator<Item = (&str, Choice)> {
        let own = preset(&self.plan().preset).ok().filter(|preset| preset.spares);
        let own = own.and_then(|preset| self.model.preset_plan(preset).ok());
        let of = move |spared: &Spared, own: &Plan| {
            let plain = own.choice(&spared.layer);
            let mut changed = plain;
            spared.change.apply(&mut changed);
            let is_outlier = matches!(spared.cause, Cause::Outliers { .. });
            (is_outlier && self.plan().choice(&spared.layer) == changed).then_some(plain)
        };
        let each = move |spared: &'_ Spared| own.as_ref().and_then(|own| of(spared, own));
        self.spared.iter().filter_map(move |spared| Some((spared.layer.as_str(), each(spared)?)))
    }

    fn is_any_spared(&self, layers: &[usize]) -> bool {
        let name = |at: usize| self.model.layers.get(at).map(|layer: &Layer| layer.name.as_str());
        self.outliers().any(|(spared, _)| layers.iter().any(|&at| name(at) == Some(spared)))
    }

    /// Shows a repair that begins, and keeps the preview that was shown where it was neither accepted nor discarded.
    pub fn begin_mending(&mut self, mending: Mending) {
        let before = self.mending.replace(mending).and_then(|before| before.mended);
        if let Some(before) = before.filter(|mended| mended.changes() && mended.plan != *self.plan()) {
            if self.previews.len() >= MOST_KEPT {
                self.previews.remove(0);
            }
            self.previews.push(before);
        }
    }

    /// Shows a preview that was kept.
    pub fn show_preview(&mut self, at: usize) {
        if at < self.previews.len() {
            let mended = self.previews.remove(at);
            self.begin_mending(Mending { method: mended.method, mended: Some(mended) });
        }
    }

    /// Puts what a repair found into the plan, as one undo step; says which layers were changed meanwhile and stay so.
    pub fn accept_repair(&mut self) -> Vec<String> {
        let Some(mended) = self.mending.as_ref().and_then(|mending| mending.mended.clone()) else { return Vec::new() };
        let (plan, kept) = self.rebased(&mended);
        if let Some(scaled) = &mended.scaled {
            self.bring_calibrated(scaled);
        }
        self.replace_plan(&mended.title(), plan);
        // Where one layer was judged by itself, the plan is run in the background.
        if let (None, Some(whole)) = (&mended.scaled, mended.whole.as_ref().filter(|whole| !whole.is_alone)) {
            self.anchor(&mended.plan, whole.after);
        }
        kept
    }

    /// Takes what a run gave of a plan with repaired weights: predictions of this plan and of others go on from there.
    pub fn anchor(&mut self, plan: &Arc<Plan>, measured: Sqnr) {
        if let Some(db) = measured.db() {
            self.anchor = Some((self.model.identity.clone(), Arc::clone(plan), db));
            self.put_anchor();
        }
    }

    /// Takes what was learnt about the output, and where predictions of repaired weights begin.
    pub fn take_learnt(&mut self, learnt: Learnt) {
        self.learnt = Some(Arc::new(learnt));
        self.put_anchor();
    }

    /// Forgets what runs said of repaired weights, since the plan has others now; the run of these, where it is the last one.
    pub(super) fn renew_anchor(&mut self) {
        if let Some(learnt) = &self.learnt {
            learnt.forget_anchors();
        }
        self.put_anchor();
    }

    fn put_anchor(&mut self) {
        let repairs = &self.plan().repairs;
        let is_known = |(identity, plan, _): &&(String, Arc<Plan>, f64)| {
            *identity == self.model.identity && plan.repairs == *repairs
        };
        let of_this = self.anchor.as_ref().filter(is_known);
        if let (Some(learnt), Some((_, plan, db))) = (&self.learnt, of_this) {
            learnt.anchor(&self.model, plan, *db);
            self.forecast = None;
        }
    }

    /// The plan in force, where it has repaired weights of which nothing is known.
    pub fn plan_to_run(&self) -> Option<Arc<Plan>> {
        let unknown = &self.forecast.as_ref().filter(|_| !self.cannot_run_repairs)?.outlook.prediction.unknown;
        let plan = self.plan();
        let is_current = self.forecast.as_ref().is_some_and(|forecast| Arc::ptr_eq(&forecast.plan, plan));
        let repaired = |name: &String| plan.repairs.contains_key(name);
        (is_current && unknown.iter().any(repaired) && unknown.iter().all(repaired)).then(|| Arc::clone(plan))
    }

    /// What a repair changed, put onto the plan in force.
    fn rebased(&self, mended: &Mended) -> (Plan, Vec<String>) {
        let Mended { from, plan: to, .. } = mended;
        let now = self.plan();
        if **now == **from {
            return (Plan::clone(to), Vec::new());
        }
        let (mut plan, mut kept) = (Plan::clone(now), Vec::new());
        plan.scalings.clone_from(&to.scalings);
        for Layer { name, .. } in &self.model.layers {
            if to.choice(name) == from.choice(name) && to.repairs.get(name) == from.repairs.get(name) {
                continue;
            }
            if now.choice(name) != from.choice(name) {
                kept.push(name.clone());
                continue;
            }
            plan.set_layer(name, to.choice(name));
            match to.repairs.get(name) {
                Some(repair) => _ = plan.repairs.insert(name.clone(), Arc::clone(repair)),
                None => _ = plan.repairs.remove(name),
            }
        }
        (plan, kept)
    }
}

impl Mended {
    /// What undo calls it.
    pub fn title(&self) -> String {
        let layers: Vec<&str> = match self.method {
            RepairMethod::Rounding(_) | RepairMethod::Missing => {
                self.layers.iter().map(|(layer, _)| layer.name.as_str()).collect()
            }
            RepairMethod::Scaling(_) => {
                let kept = self.blocks.iter().filter(|block| block.kept);
                kept.flat_map(|block| &block.layers).map(String::as_str).collect()
            }
        };
        let whom = match layers.as_slice() {
            [one] => (*one).to_owned(),
            many => format::layers(many.len()),
        };
        match self.method {
            RepairMethod::Rounding(method) => format!("Repair {whom} by {}", method.word()),
            RepairMethod::Scaling(method) => format!("Scale {whom} by {method}"),
            RepairMethod::Missing => format!("Repair {whom} as the plan asks"),
        }
    }

    /// What the whole model loses by it in dB, where it does.
    pub fn loss_db(&self) -> Option<f64> {
        let whole = self.whole.as_ref()?;
        let lost = whole.before.db()? - whole.after.db()?;
        (lost > 0.05).then_some(lost)
    }

    /// Whether accepting it changes anything.
    pub fn changes(&self) -> bool {
        *self.plan != *self.from
    }
}

/// A repair that runs or waits to be accepted.
pub struct Mending {
    /// How.
    pub method: RepairMethod,
    /// What was found.
    pub mended: Option<Arc<Mended>>,
}

/// Most previews kept beside the one shown; the oldest go first.
const MOST_KEPT: usize = 4;
