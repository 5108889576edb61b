// SPDX-License-Identifier: GPL-2.0-only
//! What a mount has done so far, in numbers.
//!
//! Counters are for people who look at a mount: nothing in the filesystem depends on them. They begin at 0 with the
//! mount, never go back, and each counts what its name says when that is done, whether it succeeded or not, unless it says otherwise.
//! Each is one relaxed addition; two of them that are read together need not fit together exactly.
//!
//! Locking: none.

// Those of the host, not those of `env::sync`: nothing waits for a counter, so schedules need not explore them.
use core::sync::atomic::{AtomicU64, Ordering};

use crate::error::Result;
use crate::fs::Fs;

macro_rules! counters {
    ($( $(#[$meta:meta])* $name:ident = $text:literal, )*) => {
        /// What is counted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Counter {
            $( $(#[$meta])* $name ),*
        }

        /// The names, in the order of [`Counter`].
        const NAMES: &[&str] = &[$($text),*];
    };
}

counters! {
    /// `lookup`, by name or by handle.
    Lookup = "op_lookup",
    /// Attributes read.
    Getattr = "op_getattr",
    /// Attributes set.
    Setattr = "op_setattr",
    /// Inodes made, of any type.
    Create = "op_create",
    /// Names given to inodes that had one.
    Link = "op_link",
    /// Names removed.
    Unlink = "op_unlink",
    /// Renames.
    Rename = "op_rename",
    /// Directories read, per request.
    Readdir = "op_readdir",
    /// Data read, per request.
    Read = "op_read",
    /// Data written, per request.
    Write = "op_write",
    /// Writes among them that were gathered in memory first.
    DelayedWrite = "delayed_writes",
    /// Space allocated, punched or zeroed.
    Fallocate = "op_fallocate",
    /// One inode made durable.
    Fsync = "op_fsync",
    /// Everything made durable, because somebody asked.
    Sync = "op_sync",
    /// Extended attributes read or listed.
    Getxattr = "op_getxattr",
    /// Extended attributes set or removed.
    Setxattr = "op_setxattr",
    /// Ioctls.
    Ioctl = "op_ioctl",
    /// Unlinked inodes deleted.
    DeleteInode = "inodes_deleted",
    /// Bytes of data that were read.
    ReadBytes = "data_read_bytes",
    /// Bytes of data that were written.
    WriteBytes = "data_write_bytes",
    /// Transactions that were made durable.
    Commit = "commits",
    /// Of them those that wrote the log tree.
    Checkpoint = "checkpoints",
    /// Log trees that were finalized.
    Finalize = "logs_finalized",
    /// Bytes of commit records.
    RecordBytes = "record_bytes",
    /// Items in commits.
    CommitItems = "commit_items",
    /// Cluster locks granted to this mount.
    LockGrant = "lock_grants",
    /// Cluster locks that the server wanted back.
    LockRevoke = "lock_revokes",
    /// Uses of a cluster lock that had to wait for its grant.
    LockWait = "lock_waits",
    /// Pieces of log trees that this node merged.
    MergePiece = "merge_pieces",
    /// Reads of the device, by this mount and by the server and voter in it.
    DeviceRead = "device_reads",
    /// Bytes of these.
    DeviceReadBytes = "device_read_bytes",
    /// Writes to the device.
    DeviceWrite = "device_writes",
    /// Bytes of these.
    DeviceWriteBytes = "device_write_bytes",
    /// Writes among them that were to be durable by themselves.
    DeviceDurableWrite = "device_durable_writes",
    /// Flushes of the device.
    DeviceFlush = "device_flushes",
}

/// Messages by kind: the names of `MSG_*`, each in its place.
const KINDS: &[&str] = &[
    "other",
    "greeting",
    "join",
    "seq",
    "seq_closed",
    "inos",
    "space",
    "space_taken",
    "space_give",
    "lock",
    "horizon",
    "commit_below",
    "merged",
    "finalize",
    "statfs",
    "renew",
    "leave",
    "finalized",
    "challenge",
    "proof",
    "lock_report",
    "recovered",
    "opens_report",
    "death",
    "file_lock",
    "file_lock_report",
    "space_recall",
    "confirm_death",
];

/// The counters of one mount. See the module.
pub struct Counters {
    values: [AtomicU64; NAMES.len()],
    sent: [AtomicU64; KINDS.len()],
    received: [AtomicU64; KINDS.len()],
}

impl Counters {
    /// All at 0.
    pub const fn new() -> Self {
        Counters {
            values: [const { AtomicU64::new(0) }; NAMES.len()],
            sent: [const { AtomicU64::new(0) }; KINDS.len()],
            received: [const { AtomicU64::new(0) }; KINDS.len()],
        }
    }

    /// Counts one.
    pub fn inc(&self, counter: Counter) {
        self.add(counter, 1);
    }

    /// Counts `n`.
    pub fn add(&self, counter: Counter, n: u64) {
        // There is a value for each.
        self.values[counter as usize].fetch_add(n, Ordering::Relaxed);
    }

    /// What a counter stands at.
    pub fn get(&self, counter: Counter) -> u64 {
        self.values[counter as usize].load(Ordering::Relaxed)
    }

    /// Counts a message to the server of kind `MSG_*`.
    pub(crate) fn message_sent(&self, kind: u8) {
        of_kind(&self.sent, kind).fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a message from the server of kind `MSG_*`.
    pub(crate) fn message_received(&self, kind: u8) {
        of_kind(&self.received, kind).fetch_add(1, Ordering::Relaxed);
    }
}

impl Default for Counters {
    fn default() -> Self {
        Self::new()
    }
}

/// The counter of a kind of message; those that are not known share the first one.
fn of_kind(counters: &[AtomicU64; KINDS.len()], kind: u8) -> &AtomicU64 {
    counters.get(usize::from(kind)).unwrap_or(&counters[0])
}

impl Fs {
    /// Counts one.
    pub(crate) fn count(&self, counter: Counter) {
        self.store().counters.inc(counter);
    }

    /// Counts `n`.
    pub(crate) fn count_n(&self, counter: Counter, n: u64) {
        self.store().counters.add(counter, n);
    }

    /// Calls `f` with the name and value of each counter. Names are of at most 31 lower-case letters and underscores.
    pub fn for_each_counter(&self, f: &mut dyn FnMut(&str, u64) -> Result<()>) -> Result<()> {
        let counters = &self.store().counters;
        let load = |value: &AtomicU64| value.load(Ordering::Relaxed);
        for (name, value) in NAMES.iter().zip(&counters.values) {
            f(name, load(value))?;
        }
        let (hits, misses) = self.store().items.lookups();
        f("item_cache_hits", hits)?;
        f("item_cache_misses", misses)?;
        f("item_cache_bytes", self.store().items.bytes() as u64)?;
        f("block_cache_blocks", self.store().reader.cache.blocks() as u64)?;
        f("owed_bytes", self.store().owed.bytes())?;
        for (prefix, values) in [("sent_", &counters.sent), ("received_", &counters.received)] {
            for (kind, value) in KINDS.iter().zip(values) {
                let mut name = [0; MAX_NAME];
                f(join(&mut name, prefix, kind), load(value))?;
            }
        }
        Ok(())
    }
}

/// Bytes of the longest name.
const MAX_NAME: usize = 31;

/// Two parts of a name, one behind the other; what does not fit is cut.
fn join<'n>(name: &'n mut [u8; MAX_NAME], first: &str, second: &str) -> &'n str {
    let mut len = 0;
    for (to, from) in name.iter_mut().zip(first.bytes().chain(second.bytes())) {
        *to = from;
        len += 1;
    }
    // Parts are ASCII, so a cut is between letters.
    name.get(..len).and_then(|name| core::str::from_utf8(name).ok()).unwrap_or("")
}

#[cfg(test)]
mod tests;
