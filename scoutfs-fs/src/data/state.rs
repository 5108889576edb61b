// SPDX-License-Identifier: GPL-2.0-only
//! What is kept in memory of a file that is being written.

use scoutfs_env::{Box, IoBuf, try_box};

use crate::data::delayed::Gathered;
use crate::fs::Fs;
use crate::store::DataRun;

/// See the module. Guarded by the inode's local lock.
#[derive(Default)]
pub(crate) struct DataState {
    /// The block that ends the file, so that the next small append need not read it.
    tail: Option<Box<Tail>>,
    /// Free blocks set aside behind those that were written last, so that files that grow at the same time do not
    /// lie in pieces among each other. Only memory knows them: a crash leaves nothing behind.
    pub reserved: Option<DataRun>,
    /// Writes that are gathered. See [`delayed`](crate::data::delayed).
    pub gathered: Option<Box<Gathered>>,
    /// The inode is in the queue of those.
    pub queued: bool,
}

/// A block's content as it is on the device.
struct Tail {
    block: u64,
    /// The inode's `data_version` for which it is true: a change by anybody makes it another.
    data_version: u64,
    bytes: IoBuf,
}

impl DataState {
    /// Takes the content of a block, if it is known.
    pub fn take_tail(&mut self, block: u64, data_version: u64) -> Option<IoBuf> {
        let tail = *self.tail.take()?;
        (tail.block == block && tail.data_version == data_version).then_some(tail.bytes)
    }

    /// Remembers the content of a block, if there is memory.
    pub fn set_tail(&mut self, block: u64, data_version: u64, bytes: IoBuf) {
        self.tail = try_box(Tail { block, data_version, bytes }).ok();
    }

    /// Frees the memory.
    pub fn forget_tail(&mut self) {
        self.tail = None;
    }
}

impl Fs {
    /// Gives back what is set aside for a file.
    pub(crate) fn drop_reservation(&self, state: &mut DataState) {
        if let Some(run) = state.reserved.take() {
            self.store().unreserve_data(run);
        }
    }
}
