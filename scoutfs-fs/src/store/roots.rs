// SPDX-License-Identifier: GPL-2.0-only
//! The roots that a mount reads from: its own log and everybody else's.
//!
//! Readers take a snapshot ([`RootsCell::snapshot`]) and read without a lock. Whoever changes the roots makes a new snapshot. When
//! blocks were reused meanwhile the reader finds them stale and takes a newer one.
//!
//! Locking: a mutex, a leaf, held to copy a few small lists.

use scoutfs_btree::{ForestRoots, LogSource, Tail};
use scoutfs_env::sync::Mutex;
use scoutfs_env::{Arc, Vec};
use scoutfs_format::Key;

use crate::error::Result;

/// Most tails that a reader has to look through for this mount's own log.
const MAX_TAILS: usize = 8;

/// See the module.
pub(crate) struct RootsCell {
    state: Mutex<State>,
}

struct State {
    /// The fs tree, and logs and tails of all other slots.
    others: Arc<ForestRoots>,
    /// This mount's log trees, oldest first.
    logs: Vec<LogSource>,
    /// This mount's items that are in no tree yet, oldest first.
    tails: Vec<Arc<Tail>>,
    snapshot: Snapshot,
}

/// A consistent set of roots.
#[derive(Clone)]
pub(crate) struct Snapshot {
    /// What to read.
    pub forest: Arc<ForestRoots>,
    /// Counts the changes of the roots.
    pub generation: u64,
}

impl State {
    fn rebuild(&mut self) -> Result<()> {
        let mut logs = self.logs.try_clone()?;
        logs.extend_from_slice(&self.others.logs)?;
        let mut tails = self.tails.try_clone()?;
        tails.extend_from_slice(&self.others.tails)?;
        let forest = Arc::new(ForestRoots { fs_root: self.others.fs_root, logs, tails })?;
        self.snapshot = Snapshot { forest, generation: self.snapshot.generation + 1 };
        Ok(())
    }
}

impl RootsCell {
    /// Begins with what others have, and nothing of its own.
    pub fn new(others: ForestRoots) -> Result<Self> {
        let others = Arc::new(others)?;
        let mut state = State {
            snapshot: Snapshot { forest: others.clone(), generation: 0 },
            others,
            logs: Vec::new(),
            tails: Vec::new(),
        };
        state.rebuild()?;
        Ok(RootsCell { state: Mutex::new(state) })
    }

    /// What to read now.
    pub fn snapshot(&self) -> Snapshot {
        self.state.lock().snapshot.clone()
    }

    /// Adds a transaction's items as the newest of this mount's log. On an error nothing changes.
    pub fn push_tail(&self, tail: Arc<Tail>) -> Result<()> {
        let mut state = self.state.lock();
        let mut tails = if state.tails.len() >= MAX_TAILS {
            let mut tails = Vec::new();
            tails.push(Arc::new(joined(&state.tails)?)?)?;
            tails
        } else {
            state.tails.try_clone()?
        };
        tails.push(tail)?;
        let before = core::mem::replace(&mut state.tails, tails);
        if let Err(e) = state.rebuild() {
            state.tails = before;
            return Err(e);
        }
        Ok(())
    }

    /// All of this mount's items that are in no tree yet, as one tail.
    pub fn own_tail(&self) -> Result<Arc<Tail>> {
        let tails = self.state.lock().tails.try_clone()?;
        match &tails[..] {
            [tail] => Ok(tail.clone()),
            tails => Ok(Arc::new(joined(tails)?)?),
        }
    }

    /// After a checkpoint: the log trees hold all of this mount's items. No tail may have been pushed since
    /// [`RootsCell::own_tail`].
    pub fn checkpointed(&self, logs: Vec<LogSource>) -> Result<()> {
        let mut state = self.state.lock();
        state.logs = logs;
        state.tails.clear();
        state.rebuild()
    }

    /// Replaces what was read of others, and forgets this mount's log trees up to `merged_through` in the same step.
    pub fn set_others(&self, others: ForestRoots, merged_through: u64) -> Result<()> {
        let others = Arc::new(others)?;
        let mut state = self.state.lock();
        state.others = others;
        state.logs.retain(|log| log.nr > merged_through);
        state.rebuild()
    }
}

/// Tails, oldest first, as one.
fn joined(tails: &[Arc<Tail>]) -> Result<Tail> {
    let mut all = Tail::new();
    for tail in tails {
        all.merge_in(tail.range(Key::MIN, Key::MAX))?;
    }
    Ok(all)
}
