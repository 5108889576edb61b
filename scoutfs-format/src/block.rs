// SPDX-License-Identifier: GPL-2.0-only
//! Header of, and reference to, a 64 KiB metadata block.
//!
//! Every metadata block names itself: volume, place and seq. A reference holds place and seq, and a reader
//! checks both, so that a block that was freed and written again is recognised as *stale*.

use crate::layout::{constants, layout};
use crate::le::{U32, U64};

constants! { BLOCK_CONSTANTS:
    /// Bytes of a metadata block.
    pub const BLOCK_SIZE: usize = 64 * 1024;
    /// Bytes of a data block and of each block of the system regions; the unit and alignment of all IO.
    pub const SECTOR_SIZE: usize = 4096;
    /// Sectors in a metadata block.
    pub const SECTORS_PER_BLOCK: u64 = 16;
    /// Magic of a btree node.
    pub const MAGIC_NODE: u32 = 0x6e74_6373;
    /// Magic of a list of space.
    pub const MAGIC_SPACE_LIST: u32 = 0x7374_6373;
}

layout! {
    /// Begins every metadata block.
    pub struct BlockHeader {
        /// crc32c of the block from the byte after this field to its end.
        pub crc: U32,
        /// Which kind of block.
        pub magic: U32,
        /// The volume.
        pub fsid: U64,
        /// Its own number: byte offset on the device divided by [`BLOCK_SIZE`].
        pub blkno: U64,
        /// Seq of the transaction that wrote it.
        pub trans_seq: U64,
        /// Counts the blocks of that transaction; with `trans_seq` it is ordered, unique and never reissued.
        pub counter: U32,
        pub pad: U32,
    }

    /// A reference to a metadata block; all zero means none.
    pub struct BlockRef {
        /// The block's number, never 0.
        pub blkno: U64,
        /// Must equal the header's.
        pub trans_seq: U64,
        /// Must equal the header's.
        pub counter: U32,
        pub pad: U32,
    }
}

impl BlockRef {
    /// Refers to nothing.
    pub const NONE: BlockRef =
        BlockRef { blkno: U64::ZERO, trans_seq: U64::ZERO, counter: U32::ZERO, pad: U32::ZERO };

    /// A reference from its parts.
    pub const fn new(blkno: u64, trans_seq: u64, counter: u32) -> Self {
        BlockRef {
            blkno: U64::new(blkno),
            trans_seq: U64::new(trans_seq),
            counter: U32::new(counter),
            pad: U32::ZERO,
        }
    }

    /// Whether it refers to nothing.
    pub const fn is_none(&self) -> bool {
        self.blkno.get() == 0
    }
}

impl BlockHeader {
    /// The reference that this header satisfies.
    pub const fn to_ref(&self) -> BlockRef {
        BlockRef { blkno: self.blkno, trans_seq: self.trans_seq, counter: self.counter, pad: U32::ZERO }
    }
}
