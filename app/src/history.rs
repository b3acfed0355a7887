//! Undo as a list of labelled plans, each with the samples left out of calibration. Both are small and shared, so a step is
//! two pointers; one drag is one step.

use std::collections::BTreeSet;
use std::sync::Arc;

use nibble_core::plan::Plan;
use nibble_core::stats::SampleId;

/// Most steps kept; the oldest go first.
const MAX_STEPS: usize = 500;

/// Ties the frames of one drag together so that they undo as one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gesture(pub u64);

/// The plan in force and the ones before and after it.
#[derive(Clone, Debug)]
pub struct History {
    steps: Vec<Step>,
    position: usize,
}

#[derive(Clone, Debug)]
struct Step {
    label: String,
    plan: Arc<Plan>,
    left_out: Arc<BTreeSet<SampleId>>,
    gesture: Option<Gesture>,
}

impl History {
    /// A history that begins with `plan`.
    pub fn new(plan: Arc<Plan>) -> Self {
        Self { steps: vec![Step { label: String::new(), plan, left_out: Arc::default(), gesture: None }], position: 0 }
    }

    /// The plan in force.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.steps[self.position].plan
    }

    /// Samples that calibration leaves out.
    pub fn left_out(&self) -> &Arc<BTreeSet<SampleId>> {
        &self.steps[self.position].left_out
    }

    /// Leaves these samples out of calibration from now on.
    pub fn push_left_out(&mut self, label: String, left_out: BTreeSet<SampleId>) {
        if **self.left_out() != left_out {
            let plan = Arc::clone(self.plan());
            self.step(Step { label, plan, left_out: Arc::new(left_out), gesture: None });
        }
    }

    /// Puts `plan` in force. A change of the same gesture as the step before replaces it; an equal plan is no step.
    pub fn push(&mut self, label: impl Into<String>, plan: Plan, gesture: Option<Gesture>) {
        if *self.plan().as_ref() == plan {
            return;
        }
        let left_out = Arc::clone(self.left_out());
        self.step(Step { label: label.into(), plan: Arc::new(plan), left_out, gesture });
    }

    fn step(&mut self, step: Step) {
        self.steps.truncate(self.position + 1);
        let gesture = step.gesture;
        let same_gesture = gesture.is_some() && self.steps.last().is_some_and(|last| last.gesture == gesture);
        if same_gesture {
            self.steps.pop();
        }
        self.steps.push(step);
        if self.steps.len() > MAX_STEPS {
            self.steps.remove(0);
        }
        self.position = self.steps.len() - 1;
    }

    /// What undo would take back.
    pub fn undo_label(&self) -> Option<&str> {
        (self.position > 0).then(|| self.steps[self.position].label.as_str())
    }

    /// What redo would bring back.
    pub fn redo_label(&self) -> Option<&str> {
        self.steps.get(self.position + 1).map(|step| step.label.as_str())
    }

    /// Goes one step back; returns the label of what was taken back.
    pub fn undo(&mut self) -> Option<String> {
        let label = self.undo_label()?.to_owned();
        self.position -= 1;
        Some(label)
    }

    /// Goes one step forward; returns the label of what was brought back.
    pub fn redo(&mut self) -> Option<String> {
        let label = self.redo_label()?.to_owned();
        self.position += 1;
        Some(label)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nibble_core::plan::{Precision, preset};

    fn plan(layer: &str, precision: Precision) -> Plan {
        let mut plan = preset("int8").expect("preset").plan();
        let mut choice = plan.default;
        choice.precision = precision;
        plan.set_layer(layer, choice);
        plan
    }

    #[test]
    fn undo_and_redo_walk_labelled_steps() {
        let start = Arc::new(preset("int8").expect("preset").plan());
        let mut history = History::new(Arc::clone(&start));
        history.push("a to int4", plan("a", Precision::Int4), None);
        history.push("b to int4", plan("b", Precision::Int4), None);
        assert_eq!(history.undo().as_deref(), Some("b to int4"));
        assert_eq!(history.undo().as_deref(), Some("a to int4"));
        assert!(history.undo().is_none() && Arc::ptr_eq(history.plan(), &start));
        assert_eq!(history.redo().as_deref(), Some("a to int4"));
        history.push("c", plan("c", Precision::Float16), None);
        assert!(history.redo_label().is_none());
    }

    #[test]
    fn samples_left_out_are_steps_that_keep_the_plan() {
        let mut history = History::new(Arc::new(plan("a", Precision::Int8)));
        let sample = SampleId::new("photos", 3);
        history.push_left_out("leave out 3".to_owned(), [sample].into());
        history.push_left_out("again".to_owned(), [sample].into());
        history.push("b", plan("b", Precision::Int4), None);
        assert!(history.left_out().contains(&sample));
        assert_eq!(history.undo().as_deref(), Some("b"));
        assert!(history.left_out().contains(&sample));
        assert_eq!(history.undo().as_deref(), Some("leave out 3"));
        assert!(history.left_out().is_empty() && history.undo().is_none());
        assert_eq!(history.redo().as_deref(), Some("leave out 3"));
        assert!(history.left_out().contains(&sample) && **history.plan() == plan("a", Precision::Int8));
    }

    #[test]
    fn one_gesture_is_one_step_and_nothing_is_none() {
        let mut history = History::new(Arc::new(plan("a", Precision::Int8)));
        for precision in [Precision::Int4, Precision::Float16, Precision::Float32] {
            history.push("drag", plan("a", precision), Some(Gesture(7)));
        }
        history.push("same", plan("a", Precision::Float32), None);
        assert_eq!(history.undo().as_deref(), Some("drag"));
        assert!(history.undo_label().is_none());
    }
}
