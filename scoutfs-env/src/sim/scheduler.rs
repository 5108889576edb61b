// SPDX-License-Identifier: GPL-2.0-only
//! Who runs.
//!
//! The task that runs chooses its successor, wakes that one's thread, and waits in its own thread until it is chosen again.

use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use core::time::Duration;
use std::any::Any;
use std::backtrace::Backtrace;
use std::boxed::Box;
use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::string::{String, ToString};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Thread;
use std::vec::Vec;
use std::{eprintln, format};

use super::rng::{Rng, mix};
use super::{CURRENT, Key, Node, Outcome, Watch};
use crate::probe;
use crate::thread::SpawnError;

/// What the clock moves on at each point, so that nobody waits in vain for time to pass.
const STEP_NS: u64 = 500;

/// Memory of a task's stack.
const STACK: usize = 1 << 20;

/// How to run.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// All that is random.
    pub seed: u64,
    /// One in so many points is where another task comes.
    pub preempt: usize,
    /// A run of more of its own time is endless.
    pub longest: Duration,
    /// And one that goes on with another task more often.
    pub steps: u64,
    /// Print each event.
    pub trace: bool,
    /// Print where each task is, when a run fails.
    pub backtraces: bool,
}

/// What became of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// How it ended.
    pub outcome: Outcome,
    /// A hash of all that happened, in order.
    pub trace: u64,
    /// Nanoseconds that it took, on its own clock.
    pub took_ns: u64,
    /// How often the scheduler went on with another task.
    pub steps: u64,
    /// What each task waited for, when it did not finish.
    pub waiting: Vec<String>,
}

enum TaskState {
    /// It can run, or runs.
    Ready,
    Blocked {
        key: Option<Key>,
        what: &'static str,
        since: u64,
    },
    Done,
}

struct Task {
    name: &'static str,
    node: usize,
    state: TaskState,
    /// Counts how often it blocked, so that an old timer is known.
    round: u64,
    timed_out: bool,
    baton: Arc<Baton>,
}

/// How a task's thread is told to go on.
#[derive(Default)]
struct Baton {
    go: AtomicBool,
    /// Print where it is.
    show: AtomicBool,
    thread: OnceLock<Thread>,
}

impl Baton {
    fn pass(&self) {
        self.go.store(true, Ordering::Release);
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    fn wait(&self, shown: &Shown) {
        while !self.go.swap(false, Ordering::Acquire) {
            if self.show.swap(false, Ordering::AcqRel) {
                shown.show();
            }
            std::thread::park();
        }
    }
}

/// Waits for a backtrace.
#[derive(Default)]
struct Shown {
    text: Mutex<Option<String>>,
    done: Condvar,
}

impl Shown {
    fn show(&self) {
        let text = Backtrace::force_capture().to_string();
        *self.text.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
        self.done.notify_all();
    }
}

enum Event {
    Wake { task: usize, round: u64 },
    Resume { node: usize },
}

struct NodeState {
    ppm: i64,
    since: u64,
    paused_until: u64,
    /// Tasks that could run, but for the pause.
    held: Vec<usize>,
    crashed: bool,
}

struct State {
    config: Config,
    rng: Rng,
    now: u64,
    steps: u64,
    trace: u64,
    tasks: Vec<Task>,
    /// Tasks that can run and do not.
    ready: Vec<usize>,
    waiting: HashMap<Key, Vec<usize>>,
    timers: BTreeMap<(u64, u64), Event>,
    timer_nr: u64,
    nodes: Vec<NodeState>,
    outcome: Option<Outcome>,
}

struct Shared {
    state: Mutex<State>,
    ended: Condvar,
    shown: Shown,
    watch: Mutex<Option<Watch>>,
}

/// A task, as its thread knows it.
pub(super) struct Handle {
    shared: Arc<Shared>,
    id: usize,
    pub(super) node: Node,
    baton: Arc<Baton>,
    /// Points until another task may come.
    points: AtomicUsize,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn add(&mut self, name: &'static str, node: usize) -> (usize, Arc<Baton>) {
        let baton = Arc::new(Baton::default());
        let id = self.tasks.len();
        let task =
            Task { name, node, state: TaskState::Ready, round: 0, timed_out: false, baton: baton.clone() };
        self.tasks.push(task);
        (id, baton)
    }

    fn hash(&mut self, value: u64) {
        self.trace = mix(self.trace.rotate_left(5) ^ value);
    }

    fn set_timer(&mut self, due: u64, event: Event) {
        self.timer_nr += 1;
        self.timers.insert((due, self.timer_nr), event);
    }

    /// The true time from now until `duration` has passed on a node's clock.
    fn true_ns(&self, node: usize, duration: Duration) -> u64 {
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 4).min(u64::MAX / 4);
        let rate = 1_000_000 + self.nodes[node].ppm;
        u64::try_from(i128::from(ns) * 1_000_000 / i128::from(rate)).unwrap_or(u64::MAX / 4) + 1
    }

    fn node_clock(&self, node: usize) -> u64 {
        let NodeState { ppm, since, .. } = self.nodes[node];
        let passed = i128::from(self.now - since);
        // All clocks are far from their ends, and differ.
        let skew = (node as u64) * 1_000_000_000_000;
        skew + self.now + u64::try_from(passed * i128::from(ppm.max(0)) / 1_000_000).unwrap_or(0)
            - u64::try_from(passed * i128::from(-ppm.min(0)) / 1_000_000).unwrap_or(0)
    }

    fn make_ready(&mut self, id: usize, timed_out: bool) {
        let task = &mut self.tasks[id];
        let TaskState::Blocked { key, .. } = task.state else { return };
        task.state = TaskState::Ready;
        task.timed_out = timed_out;
        if let Some(key) = key
            && let Some(waiting) = self.waiting.get_mut(&key)
        {
            waiting.retain(|other| *other != id);
            if waiting.is_empty() {
                self.waiting.remove(&key);
            }
        }
        self.ready.push(id);
    }

    fn fire(&mut self, event: Event) {
        match event {
            Event::Wake { task, round } if self.tasks[task].round == round => self.make_ready(task, true),
            Event::Wake { .. } => {}
            Event::Resume { node } => {
                if self.nodes[node].paused_until <= self.now {
                    let held = core::mem::take(&mut self.nodes[node].held);
                    self.ready.extend(held);
                }
            }
        }
    }

    /// The next to run. `None` when the run has ended.
    fn choose(&mut self) -> Option<usize> {
        self.steps += 1;
        if self.outcome.is_none()
            && (self.steps > self.config.steps || u128::from(self.now) > self.config.longest.as_nanos())
        {
            self.outcome = Some(Outcome::Endless);
        }
        while self.outcome.is_none() {
            while let Some(first) = self.timers.first_entry()
                && first.key().0 <= self.now
            {
                let event = first.remove();
                self.fire(event);
            }
            while !self.ready.is_empty() {
                let at = self.rng.below(self.ready.len());
                let id = self.ready.swap_remove(at);
                let node = &mut self.nodes[self.tasks[id].node];
                if node.crashed {
                    continue;
                }
                if node.paused_until > self.now {
                    node.held.push(id);
                    continue;
                }
                self.hash(id as u64 ^ (self.now << 16));
                return Some(id);
            }
            match self.timers.first_key_value() {
                Some(((due, _), _)) => self.now = self.now.max(*due),
                None => self.outcome = Some(Outcome::Deadlock),
            }
        }
        None
    }

    fn waiting(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (id, task) in self.tasks.iter().enumerate() {
            let node = &self.nodes[task.node];
            if node.crashed {
                continue;
            }
            let paused = if node.paused_until > self.now { ", paused" } else { "" };
            let state = match &task.state {
                TaskState::Done => continue,
                TaskState::Ready => "can run".to_string(),
                TaskState::Blocked { key, what, since } => {
                    let by = match key {
                        Some(_) => "waits for",
                        None => "sleeps for",
                    };
                    format!("{by} {what} since {}", Seconds(*since))
                }
            };
            lines.push(format!("node {}, task {id} {}: {state}{paused}", task.node, task.name));
        }
        lines
    }
}

/// A time, for people.
struct Seconds(u64);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}", self.0 / 1_000_000_000, self.0 / 1000 % 1_000_000)
    }
}

impl Handle {
    pub(super) fn now(&self) -> u64 {
        self.shared.lock().now
    }

    pub(super) fn node_clock(&self) -> u64 {
        self.shared.lock().node_clock(self.node.0)
    }

    pub(super) fn clock_of(&self, node: Node) -> u64 {
        self.shared.lock().node_clock(node.0)
    }

    pub(super) fn watch(&self, watch: Watch) {
        *self.shared.watch.lock().unwrap_or_else(PoisonError::into_inner) = Some(watch);
    }

    pub(super) fn tell(&self, event: probe::Event) {
        if let Some(watch) = &mut *self.shared.watch.lock().unwrap_or_else(PoisonError::into_inner) {
            watch(self.node, event);
        }
    }

    pub(super) fn random(&self) -> u64 {
        self.shared.lock().rng.next()
    }

    /// Goes on with whoever is chosen, and returns when this task is chosen again. It is in no list but those of who waits.
    fn switch(&self, mut state: MutexGuard<'_, State>) {
        let next = state.choose();
        if next == Some(self.id) {
            return;
        }
        self.hand_over(state, next);
        self.baton.wait(&self.shared.shown);
    }

    fn hand_over(&self, state: MutexGuard<'_, State>, next: Option<usize>) {
        match next {
            Some(next) => {
                let baton = state.tasks[next].baton.clone();
                drop(state);
                baton.pass();
            }
            None => {
                drop(state);
                self.shared.ended.notify_all();
            }
        }
    }

    pub(super) fn point(&self) {
        let left = self.points.load(Ordering::Relaxed);
        if left > 0 {
            self.points.store(left - 1, Ordering::Relaxed);
            return;
        }
        let mut state = self.shared.lock();
        let preempt = state.config.preempt.max(1);
        let points = state.rng.below(2 * preempt - 1);
        self.points.store(points, Ordering::Relaxed);
        state.now += STEP_NS * (points as u64 + 1);
        state.ready.push(self.id);
        self.switch(state);
    }

    pub(super) fn block(&self, key: Option<Key>, timeout: Option<Duration>, what: &'static str) -> bool {
        let mut state = self.shared.lock();
        state.now += STEP_NS;
        let since = state.now;
        let task = &mut state.tasks[self.id];
        task.round += 1;
        task.timed_out = false;
        task.state = TaskState::Blocked { key, what, since };
        let round = task.round;
        if let Some(key) = key {
            state.waiting.entry(key).or_default().push(self.id);
        }
        if let Some(timeout) = timeout {
            let due = since + state.true_ns(self.node.0, timeout);
            state.set_timer(due, Event::Wake { task: self.id, round });
        }
        self.switch(state);
        self.shared.lock().tasks[self.id].timed_out
    }

    pub(super) fn wake(&self, key: Key, all: bool) {
        let mut state = self.shared.lock();
        while let Some(waiting) = state.waiting.get(&key) {
            let count = waiting.len();
            let at = if all { 0 } else { state.rng.below(count) };
            let id = state.waiting[&key][at];
            state.make_ready(id, false);
            if !all {
                break;
            }
        }
    }

    pub(super) fn spawn(
        &self,
        node: Node,
        name: &'static str,
        body: impl FnOnce() + Send + 'static,
    ) -> Result<usize, SpawnError> {
        let (id, baton) = self.shared.lock().add(name, node.0);
        start(&self.shared, id, node, name, baton, body)?;
        self.shared.lock().ready.push(id);
        self.point();
        Ok(id)
    }

    fn done_key(id: usize) -> Key {
        Key(id, 254)
    }

    fn end(&self) {
        let mut state = self.shared.lock();
        state.tasks[self.id].state = TaskState::Done;
        drop(state);
        self.wake(Self::done_key(self.id), true);
        let mut state = self.shared.lock();
        if self.id == 0 && state.outcome.is_none() {
            state.outcome = Some(Outcome::Finished);
        }
        let next = state.choose();
        self.hand_over(state, next);
    }

    pub(super) fn is_finished(&self, id: usize) -> bool {
        matches!(self.shared.lock().tasks[id].state, TaskState::Done)
    }

    pub(super) fn join(&self, id: usize) {
        self.point();
        while !self.is_finished(id) {
            self.block(Some(Self::done_key(id)), None, "the end of a task");
        }
    }

    pub(super) fn add_node(&self, ppm: i32) -> Node {
        let mut state = self.shared.lock();
        let since = state.now;
        state.nodes.push(NodeState {
            ppm: ppm.into(),
            since,
            paused_until: 0,
            held: Vec::new(),
            crashed: false,
        });
        Node(state.nodes.len() - 1)
    }

    pub(super) fn is_paused(&self, node: Node) -> bool {
        let state = self.shared.lock();
        state.nodes[node.0].paused_until > state.now
    }

    pub(super) fn pause(&self, node: Node, duration: Duration) {
        let mut state = self.shared.lock();
        let until = state.now + state.true_ns(0, duration);
        let paused = &mut state.nodes[node.0].paused_until;
        if until > *paused {
            *paused = until;
            state.set_timer(until, Event::Resume { node: node.0 });
        }
    }

    pub(super) fn crash(&self, node: Node) {
        assert_ne!(node, self.node, "a task cannot crash its own node");
        self.shared.lock().nodes[node.0].crashed = true;
    }

    pub(super) fn note(&self, what: fmt::Arguments<'_>) {
        let text = what.to_string();
        let mut state = self.shared.lock();
        for part in text.as_bytes().chunks(8) {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            state.hash(u64::from_le_bytes(word));
        }
        if state.config.trace {
            let name = state.tasks[self.id].name;
            eprintln!("{} node {} {name}: {text}", Seconds(state.now), self.node.0);
        }
    }

    pub(super) fn waiting(&self) -> Vec<String> {
        self.shared.lock().waiting()
    }

    pub(super) fn fail(&self, outcome: Outcome) -> ! {
        let mut state = self.shared.lock();
        state.outcome.get_or_insert(outcome);
        drop(state);
        self.shared.ended.notify_all();
        loop {
            self.baton.wait(&self.shared.shown);
        }
    }
}

fn start(
    shared: &Arc<Shared>,
    id: usize,
    node: Node,
    name: &'static str,
    baton: Arc<Baton>,
    body: impl FnOnce() + Send + 'static,
) -> Result<(), SpawnError> {
    let shared = shared.clone();
    let for_thread = baton.clone();
    let started = std::thread::Builder::new().name(name.to_string()).stack_size(STACK).spawn(move || {
        // A few dozen bytes for each task: what a thread says of itself has no end of life in the simulation.
        let handle: &'static Handle =
            Box::leak(Box::new(Handle { shared, id, node, baton: for_thread, points: AtomicUsize::new(0) }));
        handle.baton.wait(&handle.shared.shown);
        CURRENT.set(Some(handle));
        match catch_unwind(AssertUnwindSafe(body)) {
            Ok(()) => handle.end(),
            Err(payload) => handle.fail(Outcome::Failed(format!("a panic in {name}: {}", message(&payload)))),
        }
    });
    match started {
        Ok(thread) => {
            // Before anybody can choose the task.
            let _ = baton.thread.set(thread.thread().clone());
            Ok(())
        }
        Err(error) => Err(SpawnError { name, errno: error.raw_os_error().unwrap_or(libc::EAGAIN) }),
    }
}

fn message(payload: &Box<dyn Any + Send>) -> String {
    match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_string(),
        (_, Some(text)) => text.clone(),
        _ => "of another type".to_string(),
    }
}

/// Runs a simulation, from the start of `body`, which is its first task, to its end. Tasks that have not ended then stay
/// for ever where they are, with all that they hold.
pub fn run(config: Config, body: impl FnOnce() + Send + 'static) -> Report {
    let outside = NodeState { ppm: 0, since: 0, paused_until: 0, held: Vec::new(), crashed: false };
    let mut state = State {
        config,
        rng: Rng::new(config.seed),
        now: 0,
        steps: 0,
        trace: config.seed,
        tasks: Vec::new(),
        ready: Vec::new(),
        waiting: HashMap::new(),
        timers: BTreeMap::new(),
        timer_nr: 0,
        nodes: std::vec![outside],
        outcome: None,
    };
    let (id, baton) = state.add("first", 0);
    let shared = Arc::new(Shared {
        state: Mutex::new(state),
        ended: Condvar::new(),
        shown: Shown::default(),
        watch: Mutex::new(None),
    });
    start(&shared, id, Node(0), "first", baton.clone(), body).expect("a thread");
    baton.pass();
    let mut state = shared.lock();
    let outcome = loop {
        match state.outcome.clone() {
            Some(outcome) => break outcome,
            None => state = shared.ended.wait(state).unwrap_or_else(PoisonError::into_inner),
        }
    };
    let (trace, took_ns, steps) = (state.trace, state.now, state.steps);
    let waiting = if outcome == Outcome::Finished { Vec::new() } else { state.waiting() };
    drop(state);
    if outcome != Outcome::Finished && config.backtraces {
        show_backtraces(&shared);
    }
    Report { outcome, trace, took_ns, steps, waiting }
}

fn show_backtraces(shared: &Shared) {
    let tasks: Vec<_> = {
        let state = shared.lock();
        let shown =
            state.tasks.iter().enumerate().filter(|(_, task)| {
                !matches!(task.state, TaskState::Done) && !state.nodes[task.node].crashed
            });
        shown.map(|(id, task)| (id, task.node, task.name, task.baton.clone())).collect()
    };
    for (id, node, name, baton) in tasks {
        let Some(thread) = baton.thread.get() else { continue };
        baton.show.store(true, Ordering::Release);
        thread.unpark();
        let text = shared.shown.text.lock().unwrap_or_else(PoisonError::into_inner);
        // One that was not waiting has nothing to say.
        let (mut text, _) = shared
            .shown
            .done
            .wait_timeout_while(text, Duration::from_secs(2), |text| text.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(text) = text.take() {
            eprintln!("node {node}, task {id} {name}:\n{text}");
        }
    }
}
