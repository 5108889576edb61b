// SPDX-License-Identifier: GPL-2.0-only
//! Metadata blocks in memory.

use core::ops::Range;

use scoutfs_env::IoBuf;
use scoutfs_env::crc32c::crc32c;
use scoutfs_format::block::MAGIC_NODE;
use scoutfs_format::geometry::Geometry;
use scoutfs_format::le::{U32, U64};
use scoutfs_format::{BLOCK_SIZE, BlockHeader, BlockRef};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use crate::tree::node::{self, Summary};
use crate::{CorruptKind, Error, StaleBlock};

/// The bytes that the checksum covers begin after it.
const CRC_START: usize = size_of::<U32>();

/// The part of a block that is not its header.
const BODY: Range<usize> = size_of::<BlockHeader>()..BLOCK_SIZE;

/// A metadata block that was verified when it was read, or has been written. It never changes.
#[derive(Debug)]
pub struct Block {
    buf: IoBuf,
    reference: BlockRef,
    magic: u32,
    /// Of a btree node; empty for other blocks.
    summary: Summary,
}

impl Block {
    /// Checks the bytes that were read for a reference.
    ///
    /// Whatever does not match the reference is [`Error::Stale`]; a block that does match and is wrong nevertheless
    /// is [`Error::Corrupt`].
    pub(super) fn verify(
        buf: IoBuf,
        expected: &BlockRef,
        magic: u32,
        fsid: u64,
        geometry: &Geometry,
    ) -> Result<Self, Error> {
        let stale = |found| Err(Error::Stale { expected: *expected, found });
        let corrupt = |kind| Error::corrupt(expected.blkno.get(), kind);
        let header = header(&buf);
        let computed = checksum(&buf);
        if header.crc.get() != computed {
            return stale(StaleBlock::Checksum { stored: header.crc.get(), computed });
        }
        if header.fsid.get() != fsid {
            return stale(StaleBlock::Volume { fsid: header.fsid.get() });
        }
        let reference = header.to_ref();
        if !same(&reference, expected) {
            return stale(StaleBlock::Other {
                blkno: header.blkno.get(),
                trans_seq: header.trans_seq.get(),
                counter: header.counter.get(),
            });
        }
        let found = header.magic.get();
        if found != magic {
            return Err(corrupt(CorruptKind::Magic { expected: magic, found }));
        }
        if magic == MAGIC_NODE {
            node::verify(&buf, geometry).map_err(corrupt)?;
        }
        Ok(Block::new(buf, reference, magic))
    }

    fn new(buf: IoBuf, reference: BlockRef, magic: u32) -> Self {
        let summary = match magic {
            MAGIC_NODE => Summary::new(&buf),
            _ => Summary::default(),
        };
        Block { buf, reference, magic, summary }
    }

    /// The reference that this block satisfies.
    pub fn reference(&self) -> &BlockRef {
        &self.reference
    }

    /// Number of the block.
    pub fn blkno(&self) -> u64 {
        self.reference.blkno.get()
    }

    /// What kind of block it is.
    pub fn magic(&self) -> u32 {
        self.magic
    }

    /// All [`BLOCK_SIZE`] bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.buf
    }

    pub(crate) fn summary(&self) -> &Summary {
        &self.summary
    }

    pub(super) fn satisfies(&self, reference: &BlockRef) -> bool {
        same(&self.reference, reference)
    }
}

/// A block that is being filled and that nobody else can see. Its bytes are zero at first.
#[derive(Debug)]
pub struct NewBlock {
    buf: IoBuf,
}

impl NewBlock {
    /// An empty block, all zero.
    pub fn new() -> Result<Self, Error> {
        Ok(NewBlock { buf: IoBuf::zeroed(BLOCK_SIZE)? })
    }

    /// All [`BLOCK_SIZE`] bytes; the [`BlockHeader`] at their start is filled in when the block is written.
    pub fn bytes(&self) -> &[u8] {
        &self.buf
    }

    /// As [`bytes`](Self::bytes), to be filled.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.buf
    }

    /// Writes the header, checksum included, and makes it a block that no longer changes.
    pub(super) fn seal(mut self, magic: u32, fsid: u64, reference: &BlockRef) -> Block {
        let mut header = BlockHeader {
            crc: U32::ZERO,
            magic: U32::new(magic),
            fsid: U64::new(fsid),
            blkno: reference.blkno,
            trans_seq: reference.trans_seq,
            counter: reference.counter,
            pad: U32::ZERO,
        };
        self.buf[..BODY.start].copy_from_slice(header.as_bytes());
        header.crc = U32::new(checksum(&self.buf));
        self.buf[..BODY.start].copy_from_slice(header.as_bytes());
        Block::new(self.buf, header.to_ref(), magic)
    }
}

fn header(bytes: &[u8]) -> BlockHeader {
    match BlockHeader::read_from_prefix(bytes) {
        Ok((header, _)) => header,
        // Blocks have BLOCK_SIZE bytes. Were it not so, the zeros would match no reference.
        Err(_) => BlockHeader::new_zeroed(),
    }
}

fn checksum(bytes: &[u8]) -> u32 {
    crc32c(bytes.get(CRC_START..).unwrap_or_default())
}

/// Whether two references name the same block of the same time; padding does not count.
fn same(a: &BlockRef, b: &BlockRef) -> bool {
    a.blkno == b.blkno && a.trans_seq == b.trans_seq && a.counter == b.counter
}
