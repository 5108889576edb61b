// SPDX-License-Identifier: GPL-2.0-only
//! Reads that are going on.
//!
//! A slow read may see the trees as they were before a local write that is committed, and whose page is
//! evicted, before the read ends. What it read must not get into the cache then. So each read is registered
//! with the range that it may fill; see the crate's head for what that range is protected from.

use scoutfs_env::sync::Mutex;
use scoutfs_env::{AllocError, Vec};
use scoutfs_format::Key;

use crate::rank;

/// All reads that are going on. There are as many as there are threads that read, so a list will do.
pub(crate) struct Reads(Mutex<List>);

struct List {
    next_id: u64,
    reads: Vec<Read>,
}

struct Read {
    id: u64,
    low: Key,
    high: Key,
    stale: bool,
}

/// One read that is going on, until this is dropped.
pub(crate) struct Reading<'a> {
    reads: &'a Reads,
    id: u64,
    pub(crate) low: Key,
    pub(crate) high: Key,
}

impl Reads {
    pub(crate) const fn new() -> Self {
        Reads(Mutex::with_rank(List { next_id: 0, reads: Vec::new() }, rank::READS))
    }

    /// Registers a read of low..=high. The caller holds the map, so that no page of the range can come and go
    /// between its finding no page there and this.
    pub(crate) fn begin(&self, low: Key, high: Key) -> Result<Reading<'_>, AllocError> {
        let mut list = self.0.lock();
        let id = list.next_id;
        list.reads.push(Read { id, low, high, stale: false })?;
        list.next_id += 1;
        Ok(Reading { reads: self, id, low, high })
    }

    /// Whether some read may fill a part of first..=last.
    pub(crate) fn overlap(&self, first: &Key, last: &Key) -> bool {
        let list = self.0.lock();
        list.reads.iter().any(|r| r.low <= *last && *first <= r.high)
    }

    /// Makes the reads that may fill a part of first..=last start again.
    pub(crate) fn make_stale(&self, first: &Key, last: &Key) {
        self.make_stale_if(|low, high| low <= last && first <= high);
    }

    /// Makes the reads start again for whose ranges `f` is true.
    pub(crate) fn make_stale_if(&self, f: impl Fn(&Key, &Key) -> bool) {
        let mut list = self.0.lock();
        for read in list.reads.iter_mut() {
            read.stale |= f(&read.low, &read.high);
        }
    }
}

impl Reading<'_> {
    /// Whether what was read must be thrown away. The answer holds while the caller has the map exclusively.
    pub(crate) fn is_stale(&self) -> bool {
        let list = self.reads.0.lock();
        list.reads.iter().any(|r| r.id == self.id && r.stale)
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        let mut list = self.reads.0.lock();
        if let Some(at) = list.reads.iter().position(|r| r.id == self.id) {
            list.reads.swap_remove(at);
        }
    }
}
