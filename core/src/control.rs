//! Progress, problems and cancellation: all that a running verb shares with whoever started it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::Problem;
use crate::failure::Error;

/// Handle to one running job. Clones share the same state; the job writes, the window or the command line reads.
#[derive(Clone, Default)]
pub struct Control {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    cancelled: AtomicBool,
    progress: Mutex<Option<Progress>>,
    problems: Mutex<Vec<Problem>>,
    hooks: Mutex<Hooks>,
}

#[derive(Default)]
struct Hooks {
    next: u64,
    list: Vec<(u64, Box<dyn Fn() + Send>)>,
}

/// What a job is doing now.
#[derive(Clone, Debug)]
pub struct Progress {
    /// What is being done, e.g. "Calibrating".
    pub label: String,
    /// Steps finished.
    pub done: u64,
    /// Steps in all; 0 when unknown.
    pub total: u64,
    /// When this label began.
    pub started: Instant,
}

impl Progress {
    /// Finished share in 0..=1; `None` when the total is unknown.
    pub fn fraction(&self) -> Option<f32> {
        (self.total > 0).then(|| (self.done as f32 / self.total as f32).clamp(0.0, 1.0))
    }

    /// Time left, judged from the steps so far; `None` before the first step.
    pub fn remaining(&self) -> Option<Duration> {
        if self.done == 0 || self.total == 0 {
            return None;
        }
        let left = self.total.saturating_sub(self.done) as f64 / self.done as f64;
        Some(self.started.elapsed().mul_f64(left))
    }
}

impl Control {
    /// A control that nobody has cancelled.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reports `done` of `total` steps of `label`. A new label restarts the clock.
    pub fn progress(&self, label: &str, done: u64, total: u64) {
        let mut slot = lock(&self.shared.progress);
        match slot.as_mut() {
            Some(progress) if progress.label == label => {
                progress.done = done;
                progress.total = total;
            }
            _ => *slot = Some(Progress { label: label.to_owned(), done, total, started: Instant::now() }),
        }
    }

    /// The latest progress, if any was reported.
    pub fn current_progress(&self) -> Option<Progress> {
        lock(&self.shared.progress).clone()
    }

    /// Records something that degraded without failing.
    pub fn problem(&self, problem: Problem) {
        tracing::warn!(what = %problem.what, place = %problem.place, "{}", problem.why);
        lock(&self.shared.problems).push(problem);
    }

    /// All problems recorded so far, in order.
    pub fn problems(&self) -> Vec<Problem> {
        lock(&self.shared.problems).clone()
    }

    /// Asks the job to stop and runs every hook once.
    pub fn cancel(&self) {
        self.shared.cancelled.store(true, Ordering::SeqCst);
        for (_, hook) in &lock(&self.shared.hooks).list {
            hook();
        }
    }

    /// Whether [`Control::cancel`] was called.
    pub fn is_cancelled(&self) -> bool {
        self.shared.cancelled.load(Ordering::SeqCst)
    }

    /// `Err(Error::Cancelled)` once cancelled; call it between steps.
    pub fn check(&self) -> Result<(), Error> {
        if self.is_cancelled() { Err(Error::Cancelled) } else { Ok(()) }
    }

    /// Runs `hook` when the job is cancelled, for as long as the guard lives (the runtime's `terminate`, say).
    pub fn on_cancel(&self, hook: impl Fn() + Send + 'static) -> HookGuard {
        if self.is_cancelled() {
            hook();
        }
        let mut hooks = lock(&self.shared.hooks);
        let id = hooks.next;
        hooks.next += 1;
        hooks.list.push((id, Box::new(hook)));
        HookGuard { control: self.clone(), id }
    }
}

/// Removes its hook when dropped.
pub struct HookGuard {
    control: Control,
    id: u64,
}

impl Drop for HookGuard {
    fn drop(&mut self) {
        lock(&self.control.shared.hooks).list.retain(|(id, _)| *id != self.id);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cancel_runs_hooks_and_makes_check_fail() {
        let control = Control::new();
        let seen = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&seen);
        let guard = control.on_cancel(move || flag.store(true, Ordering::SeqCst));
        assert!(control.check().is_ok());
        control.cancel();
        assert!(seen.load(Ordering::SeqCst));
        assert!(matches!(control.check(), Err(Error::Cancelled)));
        drop(guard);
        assert!(lock(&control.shared.hooks).list.is_empty());
    }

    #[test]
    fn a_new_label_restarts_the_clock_and_fraction_is_bounded() {
        let control = Control::new();
        control.progress("a", 1, 4);
        let first = control.current_progress().expect("reported");
        assert_eq!(first.fraction(), Some(0.25));
        control.progress("b", 9, 4);
        let second = control.current_progress().expect("reported");
        assert!(second.started >= first.started);
        assert_eq!(second.fraction(), Some(1.0));
    }
}
