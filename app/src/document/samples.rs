//! Samples left out of calibration, and what calibration did with the others.

use std::collections::BTreeSet;
use std::sync::Arc;

use nibble_core::model::Model;
use nibble_core::stats::{SampleId, Stats};

use super::Document;
use crate::jobs::Examined;
use crate::views::calibrate::DataRequest;

impl Document {
    /// Samples that calibration leaves out.
    pub fn left_out(&self) -> &Arc<BTreeSet<SampleId>> {
        self.history.left_out()
    }

    /// Leaves a sample out of calibration, or takes it in again, as one undo step. What was calibrated is calibrated anew.
    pub fn leave_out(&mut self, sample: SampleId, name: &str, out: bool) {
        let mut left_out = BTreeSet::clone(self.left_out());
        let label = if out {
            left_out.insert(sample);
            format!("Leave {name} out of calibration")
        } else {
            left_out.remove(&sample);
            format!("Take {name} into calibration again")
        };
        self.history.push_left_out(label, left_out);
        self.follow_left_out();
        self.version += 1;
    }

    /// Has the model calibrated anew where its statistics are of other samples than those asked for.
    pub(super) fn follow_left_out(&mut self) {
        let wanted = self.history.left_out();
        let other = |data: &&DataRequest| data.left_out != **wanted;
        let next = self.calibrate_with.as_ref().or(self.calibrated_with.as_ref()).filter(other);
        let mut next = next.map(|data| DataRequest { left_out: BTreeSet::clone(wanted), ..data.clone() });
        if next.is_some() {
            let is_done = next == self.calibrated_with;
            self.calibrate_with = next.take().filter(|_| !is_done);
        }
    }

    /// What to look at in the lab, where that is not known yet.
    pub fn examine_next(&mut self) -> Option<(Arc<Model>, Arc<Stats>, Option<DataRequest>)> {
        let stats = self.stats.as_ref().filter(|_| !self.examining)?;
        if self.examined.as_ref().is_some_and(|examined| Arc::ptr_eq(&examined.stats, stats)) {
            return None;
        }
        self.examining = true;
        let data = self.calibrated_with.as_ref().or(self.calibrate_with.as_ref());
        Some((Arc::clone(&self.model), Arc::clone(stats), data.cloned()))
    }

    /// Takes what the lab found.
    pub fn take_examined(&mut self, examined: Examined) {
        self.examining = false;
        self.examined = Some(Arc::new(examined));
    }
}
