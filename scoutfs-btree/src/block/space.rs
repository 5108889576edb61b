// SPDX-License-Identifier: GPL-2.0-only
//! Where metadata blocks come from and go to.

use scoutfs_format::BlockRef;

use crate::Error;

/// The space of one transaction, as whoever writes blocks sees it.
///
/// An operation that fails after it has taken or freed blocks does not undo that: its caller rolls the space back to
/// the state before the operation.
pub trait BlockSpace {
    /// Takes a free block and returns its number. Ascending, adjacent numbers make for fewer writes.
    /// [`Error::NoSpace`] when there is none.
    fn alloc_block(&mut self) -> Result<u64, Error>;

    /// Frees a block that the new state no longer refers to. It may be used again only once that state is durable.
    fn free_block(&mut self, block: &BlockRef) -> Result<(), Error>;

    /// The seq of the next block that is written: the transaction's, and a number that is never given twice in it.
    fn block_seq(&mut self) -> (u64, u32);
}
