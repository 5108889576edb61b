// SPDX-License-Identifier: GPL-2.0-only
//! What a piece of work that runs in a thread found, in order. The thread that asked for it acts on it.

use scoutfs_env::Vec;

use super::CheckError;
use super::issue::{Issue, IssueKind, Place};
use super::owners::Run;

/// Something that was found.
pub(super) enum Event {
    /// Something is wrong.
    Issue(Issue),
    /// A node of the tree at hand is in this metadata block.
    Node(u64),
    /// Blocks of files.
    Claim(Run),
    /// A directory whose parent is one, which has the parent `up`.
    Directory { ino: u64, parent: u64, up: u64 },
}

/// Events in order.
#[derive(Default)]
pub(super) struct Events {
    list: Vec<Event>,
    no_memory: bool,
}

impl Events {
    /// Adds an event. That there was no memory for it is told at the end.
    pub fn push(&mut self, event: Event) {
        self.no_memory |= self.list.push(event).is_err();
    }

    pub fn issue(&mut self, kind: IssueKind, place: Place) {
        self.push(Event::Issue(Issue { kind, place }));
    }

    /// Blocks of files. Those that follow each other are one run: only what has another owner is ever told of them.
    pub fn claim(&mut self, run: Run) {
        match self.list.last_mut() {
            Some(Event::Claim(last)) if last.last + 1 == run.first => last.last = run.last,
            _ => self.push(Event::Claim(run)),
        }
    }

    /// The events so far, which are not here any more.
    pub fn take(&mut self) -> Result<Vec<Event>, CheckError> {
        if core::mem::take(&mut self.no_memory) {
            return Err(CheckError::NoMemory);
        }
        Ok(core::mem::take(&mut self.list))
    }
}
