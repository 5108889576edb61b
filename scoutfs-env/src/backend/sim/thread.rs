// SPDX-License-Identifier: GPL-2.0-only
//! Threads of a simulated node.

use core::time::Duration;

use super::super::std::thread as host;
use crate::sim;
use crate::thread::SpawnError;

// Each task is a thread of its own.
pub(crate) use super::super::std::thread::{is_killed, patience, run_for, set_patience, with_room};

pub(crate) enum JoinHandle {
    Host(host::JoinHandle),
    Task(sim::Task),
}

pub(crate) fn spawn<F>(name: &'static str, body: F) -> Result<JoinHandle, SpawnError>
where
    F: FnOnce() + Send + 'static,
{
    match sim::node() {
        None => host::spawn(name, body).map(JoinHandle::Host),
        Some(node) => sim::spawn(node, name, body).map(JoinHandle::Task),
    }
}

impl JoinHandle {
    pub(crate) fn join(self) {
        match self {
            JoinHandle::Host(thread) => thread.join(),
            JoinHandle::Task(task) => task.join(),
        }
    }
}

pub(crate) fn sleep(duration: Duration) {
    if !sim::sleep(duration) {
        host::sleep(duration);
    }
}
