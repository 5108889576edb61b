// SPDX-License-Identifier: GPL-2.0-only
//! Data that were written and may still be in a volatile cache of the device.
//!
//! A record must not be there without the data that it makes visible: new blocks, and what lies behind the old end of a file. So
//! those are flushed before it. Blocks that are overwritten in place are visible already, old or new, whatever becomes of the
//! record; they must only be there when the commit counts, so one flush after the record does for both.

use core::sync::atomic::{AtomicBool, Ordering};

/// See the module. Each is noted after the data were written, and taken before the flush.
#[derive(Debug, Default)]
pub(crate) struct Unflushed {
    /// Some that are visible only by the next record.
    new: AtomicBool,
    /// Some that were visible before.
    overwritten: AtomicBool,
}

/// What a commit has to flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flush {
    /// No data.
    Nothing,
    /// Before or after the record.
    Overwritten,
    /// Before the record.
    New,
}

impl Unflushed {
    /// Data were written to the device.
    pub fn note(&self, overwritten: bool) {
        let flag = if overwritten { &self.overwritten } else { &self.new };
        flag.store(true, Ordering::Release);
    }

    /// Forgets what it says: the caller flushes.
    pub fn take(&self) -> Flush {
        let overwritten = self.overwritten.swap(false, Ordering::AcqRel);
        match (self.new.swap(false, Ordering::AcqRel), overwritten) {
            (true, _) => Flush::New,
            (false, true) => Flush::Overwritten,
            (false, false) => Flush::Nothing,
        }
    }

    /// It was not flushed.
    pub fn put_back(&self, flush: Flush) {
        match flush {
            Flush::Nothing => {}
            Flush::Overwritten => self.note(true),
            Flush::New => self.note(false),
        }
    }
}
