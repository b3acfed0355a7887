//! Two lanes of background work. The heavy lane runs one job at a time; the light lane runs short ones, the newest
//! first. Both answer over one bounded channel that the window drains every frame.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use nibble_core::Control;

/// Most answers waiting for the window; a job that runs ahead of it waits.
const EVENTS: usize = 256;

/// Number of a job, unique within the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobId(u64);

/// Where a light job is put in its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// Next: somebody waits for it.
    Now,
    /// After everything else.
    Background,
}

/// What a job sent back.
pub struct Event<M> {
    /// The document that the job belonged to; an answer for another one is stale.
    pub generation: u64,
    /// The job.
    pub job: JobId,
    /// The answer.
    pub body: Body<M>,
}

/// Content of an [`Event`].
pub enum Body<M> {
    /// The job's answer; nothing follows.
    Done(M),
    /// What the job has so far; more follows.
    Partial(M),
    /// The job panicked with this message; nothing follows.
    Panicked(String),
    /// The job was dropped before it started, since its document was closed.
    Dropped,
}

/// The running heavy job, as the window shows it.
#[derive(Clone)]
pub struct Running {
    /// Its number.
    pub id: JobId,
    /// What it does, e.g. "Calibrating".
    pub title: String,
    /// Progress and cancel.
    pub control: Control,
    /// When it was handed over.
    pub started: Instant,
}

/// Where a job's answer goes.
struct Outbox<M> {
    events: Sender<Event<M>>,
    wake: Wake,
    generation: u64,
    job: JobId,
}

impl<M> Outbox<M> {
    fn send(&self, body: Body<M>) {
        // The receiver is gone only when the window closes.
        let _ = self.events.send(Event { generation: self.generation, job: self.job, body });
        (self.wake)();
    }
}

type Wake = Arc<dyn Fn() + Send + Sync>;
type Work<M> = Box<dyn FnOnce(&Control, &Reporter<'_, M>) -> M + Send>;

/// Sends what a job has so far.
pub struct Reporter<'a, M>(&'a Outbox<M>);

impl<M> Reporter<'_, M> {
    /// Sends `message` unless the window is behind with reading: the next one says more anyway.
    pub fn report(&self, message: M) {
        let Outbox { events, wake, generation, job } = self.0;
        let event = Event { generation: *generation, job: *job, body: Body::Partial(message) };
        if events.try_send(event).is_ok() {
            wake();
        }
    }
}

struct Task<M> {
    outbox: Outbox<M>,
    control: Control,
    priority: Priority,
    work: Work<M>,
}

/// The two lanes.
pub struct Worker<M> {
    heavy: Sender<Task<M>>,
    light: Sender<Task<M>>,
    events: Receiver<Event<M>>,
    answers: Sender<Event<M>>,
    wake: Wake,
    next: u64,
    generation: Arc<AtomicU64>,
    running: Option<Running>,
}

impl<M: Send + 'static> Worker<M> {
    /// Starts both lanes; `wake` is called after every answer.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        let (answers, events) = bounded(EVENTS);
        let (heavy, heavy_tasks) = unbounded();
        let (light, light_tasks) = unbounded();
        let generation = Arc::new(AtomicU64::new(0));
        let current = Arc::clone(&generation);
        spawn("heavy lane", move || {
            for task in heavy_tasks {
                run(task, &current);
            }
        });
        let current = Arc::clone(&generation);
        spawn("light lane", move || run_light(&light_tasks, &current));
        Self { heavy, light, events, answers, wake: Arc::new(wake), next: 0, generation, running: None }
    }

    /// Makes `generation` the only one whose waiting light jobs still run, and cancels the heavy job.
    pub fn set_generation(&mut self, generation: u64) {
        self.generation.store(generation, Ordering::SeqCst);
        self.cancel();
    }

    /// The heavy job that runs now.
    pub fn running(&self) -> Option<&Running> {
        self.running.as_ref()
    }

    /// Asks the heavy job to stop.
    pub fn cancel(&mut self) {
        if let Some(running) = &self.running {
            running.control.cancel();
        }
    }

    /// Starts a heavy job; `None` while another one runs.
    pub fn start_heavy(&mut self, title: &str, work: impl FnOnce(&Control) -> M + Send + 'static) -> Option<JobId> {
        self.start_heavy_reporting(title, move |control, _| work(control))
    }

    /// As [`Worker::start_heavy`] for a job that shows what it has so far.
    pub fn start_heavy_reporting(
        &mut self,
        title: &str,
        work: impl FnOnce(&Control, &Reporter<'_, M>) -> M + Send + 'static,
    ) -> Option<JobId> {
        if self.running.is_some() {
            return None;
        }
        let task = self.task(Priority::Now, Box::new(work));
        let (id, control) = (task.outbox.job, task.control.clone());
        self.heavy.send(task).ok()?;
        self.running = Some(Running { id, title: title.to_owned(), control, started: Instant::now() });
        Some(id)
    }

    /// Queues a light job.
    pub fn start_light(
        &mut self,
        priority: Priority,
        work: impl FnOnce(&Control) -> M + Send + 'static,
    ) -> (JobId, Control) {
        let task = self.task(priority, Box::new(move |control, _| work(control)));
        let (id, control) = (task.outbox.job, task.control.clone());
        // The lane ends only with the window.
        let _ = self.light.send(task);
        (id, control)
    }

    /// As [`Worker::start_light`] for a job that is shown while it runs.
    pub fn start_light_titled(&mut self, title: &str, work: impl FnOnce(&Control) -> M + Send + 'static) -> Running {
        let (id, control) = self.start_light(Priority::Now, work);
        Running { id, title: title.to_owned(), control, started: Instant::now() }
    }

    /// Runs a job on a thread of its own: what waits for a person or the network, and holds nobody up.
    pub fn start_aside(&mut self, work: impl FnOnce(&Control) -> M + Send + 'static) {
        let task = self.task(Priority::Now, Box::new(move |control, _| work(control)));
        spawn("aside", move || answer(task));
    }

    /// As [`Worker::start_aside`] for a job that is shown while it runs and may be cancelled.
    pub fn start_aside_titled(&mut self, title: &str, work: impl FnOnce(&Control) -> M + Send + 'static) -> Running {
        let task = self.task(Priority::Now, Box::new(move |control, _| work(control)));
        let running = Running {
            id: task.outbox.job,
            title: title.to_owned(),
            control: task.control.clone(),
            started: Instant::now(),
        };
        spawn("aside", move || answer(task));
        running
    }

    /// The answers that have arrived, without waiting. Bookkeeping of both lanes happens here.
    pub fn drain(&mut self) -> Vec<Event<M>> {
        let mut events = Vec::new();
        while let Ok(event) = self.events.try_recv() {
            let ended = !matches!(event.body, Body::Partial(_));
            if ended && self.running.as_ref().is_some_and(|running| running.id == event.job) {
                self.running = None;
            }
            if !matches!(event.body, Body::Dropped) {
                events.push(event);
            }
        }
        events
    }

    fn task(&mut self, priority: Priority, work: Work<M>) -> Task<M> {
        self.next += 1;
        let outbox = Outbox {
            events: self.answers.clone(),
            wake: Arc::clone(&self.wake),
            generation: self.generation.load(Ordering::SeqCst),
            job: JobId(self.next),
        };
        Task { outbox, control: Control::new(), priority, work }
    }
}

impl<M> Drop for Worker<M> {
    fn drop(&mut self) {
        if let Some(running) = &self.running {
            running.control.cancel();
        }
        // Waiting light jobs are of no use any more.
        self.generation.store(u64::MAX, Ordering::SeqCst);
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) {
    if let Err(error) = std::thread::Builder::new().name(name.to_owned()).spawn(body) {
        tracing::error!("cannot start the {name}: {error}");
    }
}

/// Newest urgent job first, then the background ones in order.
fn run_light<M>(tasks: &Receiver<Task<M>>, current: &AtomicU64) {
    let mut now = Vec::new();
    let mut background = VecDeque::new();
    loop {
        let mut arrived = Vec::new();
        if now.is_empty() && background.is_empty() {
            match tasks.recv() {
                Ok(task) => arrived.push(task),
                Err(_) => return,
            }
        }
        arrived.extend(tasks.try_iter());
        for task in arrived {
            match task.priority {
                Priority::Now => now.push(task),
                Priority::Background => background.push_back(task),
            }
        }
        if let Some(task) = now.pop().or_else(|| background.pop_front()) {
            run(task, current);
        }
    }
}

fn run<M>(task: Task<M>, current: &AtomicU64) {
    if task.outbox.generation == current.load(Ordering::SeqCst) {
        answer(task);
    } else {
        task.outbox.send(Body::Dropped);
    }
}

fn answer<M>(task: Task<M>) {
    let Task { outbox, control, work, .. } = task;
    let body = match catch_unwind(AssertUnwindSafe(|| work(&control, &Reporter(&outbox)))) {
        Ok(message) => Body::Done(message),
        Err(payload) => Body::Panicked(panic_text(payload.as_ref())),
    };
    outbox.send(body);
}

fn panic_text(payload: &(dyn Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn wait(worker: &mut Worker<u32>, count: usize) -> Vec<Event<u32>> {
        let start = Instant::now();
        let mut events = Vec::new();
        while events.len() < count && start.elapsed() < Duration::from_secs(10) {
            events.extend(worker.drain());
            std::thread::sleep(Duration::from_millis(1));
        }
        events
    }

    #[test]
    fn a_panic_becomes_an_answer_and_the_lane_lives_on() {
        let mut worker = Worker::new(|| {});
        worker.start_heavy("bad", |_| panic!("boom")).expect("free");
        assert!(matches!(&wait(&mut worker, 1)[0].body, Body::Panicked(text) if text == "boom"));
        worker.start_heavy("good", |_| 3).expect("free again");
        assert!(matches!(wait(&mut worker, 1)[0].body, Body::Done(3)));
    }

    #[test]
    fn what_a_job_has_so_far_comes_before_its_end() {
        let mut worker = Worker::new(|| {});
        let (go, gate) = bounded::<()>(0);
        worker.start_heavy_reporting("long", move |_, reporter| {
            reporter.report(1);
            let _ = gate.recv();
            2
        });
        assert!(matches!(wait(&mut worker, 1)[0].body, Body::Partial(1)));
        assert!(worker.running().is_some());
        go.send_timeout((), Duration::from_secs(5)).expect("waiting");
        assert!(matches!(wait(&mut worker, 1)[0].body, Body::Done(2)));
        assert!(worker.running().is_none());
    }

    #[test]
    fn cancel_reaches_the_job_within_a_tenth_of_a_second() {
        let mut worker = Worker::new(|| {});
        worker.start_heavy("long", |control| {
            while !control.is_cancelled() {
                std::thread::sleep(Duration::from_millis(5));
            }
            1
        });
        assert!(worker.start_heavy("second", |_| 2).is_none());
        std::thread::sleep(Duration::from_millis(20));
        let asked = Instant::now();
        worker.cancel();
        wait(&mut worker, 1);
        assert!(asked.elapsed() < Duration::from_millis(100) && worker.running().is_none());
    }

    #[test]
    fn the_newest_urgent_job_goes_first_and_stale_ones_are_dropped() {
        let mut worker = Worker::new(|| {});
        let (go, gate) = bounded::<()>(0);
        worker.start_light(Priority::Now, move |_| {
            let _ = gate.recv();
            0
        });
        // Let the first job start, so that the others queue up behind it.
        go.send_timeout((), Duration::from_secs(5)).expect("started");
        let (go, gate) = bounded::<()>(0);
        worker.start_light(Priority::Now, move |_| {
            let _ = gate.recv();
            1
        });
        std::thread::sleep(Duration::from_millis(50));
        worker.start_light(Priority::Background, |_| 2);
        worker.start_light(Priority::Now, |_| 3);
        worker.start_light(Priority::Now, |_| 4);
        go.send_timeout((), Duration::from_secs(5)).expect("started");
        let order: Vec<u32> = wait(&mut worker, 5)
            .iter()
            .map(|event| match event.body {
                Body::Done(value) => value,
                _ => 99,
            })
            .collect();
        assert_eq!(order, [0, 1, 4, 3, 2]);
    }
}
