// SPDX-License-Identifier: GPL-2.0-only
//! What was written to the device outside of records, and how much of it a flush has made durable.

use scoutfs_env::sync::atomic::{AtomicU64, Ordering};

/// Counts of writes. Those that came before a flush began are durable when it has succeeded.
#[derive(Default)]
pub(crate) struct DataWrites {
    written: AtomicU64,
    flushed: AtomicU64,
}

impl DataWrites {
    /// Something was written. Returns how much was by now.
    pub fn note(&self) -> u64 {
        self.written.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// How much was written by now.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    /// Whether so much is durable.
    pub fn is_flushed(&self, written: u64) -> bool {
        self.flushed.load(Ordering::Acquire) >= written
    }

    /// How much was written, if not all of it is durable. To be asked before a flush.
    pub fn pending(&self) -> Option<u64> {
        Some(self.written()).filter(|written| !self.is_flushed(*written))
    }

    /// So much is durable.
    pub fn note_flushed(&self, written: u64) {
        self.flushed.fetch_max(written, Ordering::AcqRel);
    }
}
