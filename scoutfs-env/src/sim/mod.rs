// SPDX-License-Identifier: GPL-2.0-only
//! A deterministic simulation of several nodes in one process: one seed is one run.
//!
//! | module | what |
//! | --- | --- |
//! | this | [`run`]; what a task asks of its simulation |
//! | `scheduler` | who runs, the clock, the dump of a run that failed |
//! | `rng` | random numbers |
//!
//! A *task* is a thread of the operating system of which exactly one runs at a time. Each time that a task takes a lock, waits,
//! wakes others, sleeps or starts a task, the scheduler may go on with another, chosen by the seed. The clock moves
//! only there: a little at each such point, and to the next timer when nobody can run. All that goes through this crate (locks,
//! threads, clocks, random numbers) is the simulation's in a task, and the host's in every other thread; so a program has as
//! many simulations at once as it likes, and tests beside them.
//!
//! A task belongs to a *node*, as do the tasks that it starts. A node can be paused (its tasks do not run until later) and
//! crashed (they never run again; what they hold stays as it is, for ever). Node 0 is nobody's: it has a true clock and runs what
//! makes the others' life hard. Disks and networks are made by who runs the simulation, of [`block`], [`wake_all`] and
//! [`now_ns`].
//!
//! # What must hold
//!
//! - Nothing in a task waits but through here; else the run hangs. Atomics are no points where another task may come.
//! - What a run does depends on nothing but its seed: not on addresses, hash maps with random keys, or the host's clock. The hash
//!   of its [trace](Report::trace) shows it.
//!
//! # Locking
//!
//! One mutex over the scheduler's state, a leaf, never held while a task runs.

mod rng;
mod scheduler;
#[cfg(test)]
mod tests;

use core::cell::Cell;
use core::fmt;
use core::time::Duration;
use std::boxed::Box;
use std::string::String;
use std::vec::Vec;

use scheduler::Handle;
pub use scheduler::{Config, Report, run};

use crate::probe::Event;
use crate::time::Mono;

std::thread_local! {
    /// The task that this thread is. Never freed, so that it is there in destructors, too.
    static CURRENT: Cell<Option<&'static Handle>> = const { Cell::new(None) };
}

fn current() -> Option<&'static Handle> {
    CURRENT.get()
}

fn task() -> &'static Handle {
    current().expect("a thread of a simulation")
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The first task ended.
    Finished,
    /// [`fail`] was called, or a task panicked.
    Failed(String),
    /// Nobody could run, and no timer was left.
    Deadlock,
    /// It took more than [`Config::longest`] of its own time, or more than [`Config::steps`].
    Endless,
}

/// Who is told what mounts find and do.
pub type Watch = Box<dyn FnMut(Node, Event) + Send>;

/// A node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Node(pub(super) usize);

impl Node {
    /// Nobody's node.
    pub const OUTSIDE: Node = Node(0);

    /// Its number: they are counted from 1 as they are made.
    pub fn number(self) -> usize {
        self.0
    }
}

/// What tasks wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key(usize, u8);

impl Key {
    /// A key of a value that stays where it is while somebody waits. `kind` tells apart what lies at one address.
    pub fn of<T>(value: &T, kind: u8) -> Key {
        Key(core::ptr::from_ref(value).addr(), kind)
    }

    /// A key by a number that its user chooses.
    pub fn number(number: usize) -> Key {
        Key(number, 255)
    }
}

/// A task that was started.
pub struct Task(usize);

impl Task {
    /// Waits until it has ended. One of a node that has crashed never does.
    pub fn join(self) {
        task().join(self.0);
    }

    /// Whether it has ended.
    pub fn is_finished(&self) -> bool {
        task().is_finished(self.0)
    }
}

/// Whether this thread is a task.
pub fn active() -> bool {
    current().is_some()
}

/// The node of this task.
pub fn node() -> Option<Node> {
    current().map(|task| task.node)
}

/// The clock of this task's node.
pub(crate) fn node_clock_ns() -> Option<u64> {
    current().map(Handle::node_clock)
}

/// What the clock of a node shows now.
pub fn clock_of(node: Node) -> Mono {
    Mono::from_ns(task().clock_of(node))
}

/// Tells whoever watches this run.
pub(crate) fn tell(event: Event) {
    if let Some(task) = current() {
        task.tell(event);
    }
}

/// Has `watch` be told from now on what mounts find and do, by their nodes. It must not wait, but may [`fail`].
pub fn watch(watch: Watch) {
    task().watch(watch);
}

/// The true time: nanoseconds since the run began.
///
/// # Panics
///
/// As all below, outside a simulation.
pub fn now_ns() -> u64 {
    task().now()
}

/// A random number of this run.
pub fn random() -> u64 {
    task().random()
}

/// A random number below `end`, which is not 0.
pub fn below(end: u64) -> u64 {
    random() % end
}

/// Another task may come here.
pub fn point() {
    task().point();
}

/// Waits to be woken, on the clock of this node not longer than `timeout`. True when the time ran out. May return for no reason.
pub fn block(key: Key, timeout: Option<Duration>, what: &'static str) -> bool {
    task().block(Some(key), timeout, what)
}

/// Wakes all who wait for `key`.
pub fn wake_all(key: Key) {
    if let Some(task) = current() {
        task.wake(key, true);
    }
}

/// Wakes one who waits for `key`, any.
pub fn wake_one(key: Key) {
    if let Some(task) = current() {
        task.wake(key, false);
    }
}

/// Sleeps on the clock of this node. False when this is no task.
pub fn sleep(duration: Duration) -> bool {
    match current() {
        None => false,
        Some(task) => {
            task.block(None, Some(duration), "time");
            true
        }
    }
}

/// Starts a task of a node.
pub fn spawn(
    node: Node,
    name: &'static str,
    body: impl FnOnce() + Send + 'static,
) -> Result<Task, crate::thread::SpawnError> {
    task().spawn(node, name, body).map(Task)
}

/// A new node whose clock is `ppm` millionths too fast, from now on.
pub fn add_node(ppm: i32) -> Node {
    task().add_node(ppm)
}

/// Stops all tasks of a node for so long. Its clock goes on.
pub fn pause(node: Node, duration: Duration) {
    task().pause(node, duration);
}

/// Whether a node is stopped for some time.
pub fn is_paused(node: Node) -> bool {
    task().is_paused(node)
}

/// Stops all tasks of a node for ever. Not of the caller's own.
pub fn crash(node: Node) {
    task().crash(node);
}

/// Ends the run: something is wrong.
pub fn fail(why: fmt::Arguments<'_>) -> ! {
    task().fail(Outcome::Failed(std::format!("{why}")))
}

/// An event of the run: a part of the trace that two runs of one seed have in common. Printed, if [`Config::trace`] says so.
pub fn note(what: fmt::Arguments<'_>) {
    if let Some(task) = current() {
        task.note(what);
    }
}

/// What tasks of nodes that live wait for, a line each.
pub fn waiting() -> Vec<String> {
    task().waiting()
}
