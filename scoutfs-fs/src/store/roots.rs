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

use crate::error::Result;

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
}

impl State {
    /// What to read when these are this mount's logs and tails.
    fn forest(
        others: &ForestRoots,
        own_logs: &[LogSource],
        own_tails: &[Arc<Tail>],
    ) -> Result<Arc<ForestRoots>> {
        let mut logs = Vec::with_capacity(own_logs.len() + others.logs.len())?;
        logs.extend_from_slice(own_logs)?;
        logs.extend_from_slice(&others.logs)?;
        let mut tails = Vec::with_capacity(own_tails.len() + others.tails.len())?;
        tails.extend_from_slice(own_tails)?;
        tails.extend_from_slice(&others.tails)?;
        Ok(Arc::new(ForestRoots { fs_root: others.fs_root, logs, tails })?)
    }

    fn show(&mut self, forest: Arc<ForestRoots>) {
        self.snapshot = Snapshot { forest };
    }
}

impl RootsCell {
    /// Begins with what others have, and nothing of its own.
    pub fn new(others: ForestRoots) -> Result<Self> {
        let others = Arc::new(others)?;
        let snapshot = Snapshot { forest: others.clone() };
        Ok(RootsCell { state: Mutex::new(State { snapshot, others, logs: Vec::new(), tails: Vec::new() }) })
    }

    /// What to read now.
    pub fn snapshot(&self) -> Snapshot {
        self.state.lock().snapshot.clone()
    }

    /// Adds a transaction's items as the newest of this mount's log, if `also` succeeds, which is called when nothing else
    /// can fail any more. On an error nothing changes.
    pub fn push_tail<R>(&self, tail: Option<Arc<Tail>>, also: impl FnOnce() -> Result<R>) -> Result<R> {
        let Some(tail) = tail else { return also() };
        let mut state = self.state.lock();
        let mut tails = state.tails.try_clone()?;
        Tail::push(&mut tails, tail)?;
        let forest = State::forest(&state.others, &state.logs, &tails)?;
        let result = also()?;
        state.tails = tails;
        state.show(forest);
        Ok(result)
    }

    /// All of this mount's items that are in no tree yet, as one tail.
    pub fn own_tail(&self) -> Result<Arc<Tail>> {
        let tails = self.state.lock().tails.try_clone()?;
        match &tails[..] {
            [tail] => Ok(tail.clone()),
            tails => Ok(Arc::new(Tail::joined(tails)?)?),
        }
    }

    /// After a checkpoint: the log trees hold all of this mount's items. No tail may have been pushed since
    /// [`RootsCell::own_tail`]. On an error nothing changes.
    pub fn checkpointed(&self, logs: &[LogSource]) -> Result<()> {
        let logs = Vec::from_slice(logs)?;
        let mut state = self.state.lock();
        let forest = State::forest(&state.others, &logs, &[])?;
        state.logs = logs;
        state.tails.clear();
        state.show(forest);
        Ok(())
    }

    /// Replaces what was read of others, and forgets this mount's log trees up to `merged_through` in the same step. On an
    /// error nothing changes.
    pub fn set_others(&self, others: ForestRoots, merged_through: u64) -> Result<()> {
        let others = Arc::new(others)?;
        let mut state = self.state.lock();
        let mut logs = state.logs.try_clone()?;
        logs.retain(|log| log.nr > merged_through);
        let forest = State::forest(&others, &logs, &state.tails)?;
        state.others = others;
        state.logs = logs;
        state.show(forest);
        Ok(())
    }
}
