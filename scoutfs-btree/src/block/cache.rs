// SPDX-License-Identifier: GPL-2.0-only
//! The cache of metadata blocks.
//!
//! A block number hashes to one set of a few slots; a set is searched from end to end, and the slot to replace
//! is found by a clock hand that passes over slots used since it last came by. With 16 slots to a set that keeps nearly
//! the blocks that one large clock would, and no lookup of one block ever waits for that of most others.

// Only counted, never waited for.
use core::sync::atomic::{AtomicUsize, Ordering};

use scoutfs_env::device::BlockDevice;
use scoutfs_env::sync::Mutex;
use scoutfs_env::{Arc, Box, IoBuf, Vec};
use scoutfs_format::geometry::Geometry;
use scoutfs_format::{BLOCK_SIZE, BlockRef};

use super::{Block, NewBlock};
use crate::{CorruptKind, Error};

/// Rank of the locks of the cache's sets: nothing else is locked under them.
pub const RANK_BLOCK_CACHE: u16 = 1000;

/// Slots of a set.
const WAYS: usize = 16;

/// Reads, writes and keeps metadata blocks of one volume. Shared by all threads.
pub struct BlockCache {
    device: Arc<Box<dyn BlockDevice>>,
    fsid: u64,
    geometry: Geometry,
    sets: Vec<Mutex<Set>>,
    /// Blocks that are kept.
    kept: AtomicUsize,
    /// Counts the sets that [`reclaim`](Self::reclaim) came by.
    hand: AtomicUsize,
}

/// What one set holds. A slot is empty when its number is 0, which no metadata block has.
struct Set {
    blknos: [u64; WAYS],
    blocks: [Option<Arc<Block>>; WAYS],
    /// Bit per slot: used since the hand last passed.
    used: u16,
    hand: u8,
    /// Slots that may be filled, so that a small cache keeps to its capacity.
    ways: u8,
    stats: CacheStats,
}

/// How the cache was used so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CacheStats {
    /// Reads that found their block.
    pub hits: u64,
    /// Reads that went to the device.
    pub misses: u64,
}

impl BlockCache {
    /// A cache of at most `capacity_blocks` blocks (at least one) of the volume `fsid` on a device. All memory but
    /// that of the blocks themselves is taken here.
    pub fn new(
        device: Arc<Box<dyn BlockDevice>>,
        fsid: u64,
        geometry: Geometry,
        capacity_blocks: usize,
    ) -> Result<Self, Error> {
        let capacity = capacity_blocks.max(1);
        let ways = capacity.min(WAYS);
        let nr_sets = capacity / ways;
        let mut sets = Vec::with_capacity(nr_sets)?;
        for _ in 0..nr_sets {
            sets.push(Mutex::with_rank(Set::new(ways as u8), RANK_BLOCK_CACHE))?;
        }
        let (kept, hand) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Ok(BlockCache { device, fsid, geometry, sets, kept, hand })
    }

    /// The device under the cache.
    pub fn device(&self) -> &Arc<Box<dyn BlockDevice>> {
        &self.device
    }

    /// The volume.
    pub fn fsid(&self) -> u64 {
        self.fsid
    }

    /// Where the regions of the volume are.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// The block that a reference names, from memory or from the device; `magic` is the kind of block it has to be.
    ///
    /// [`Error::Stale`] when something else is there, see [`Error::stale_to_corrupt`]; [`Error::Corrupt`] when it is
    /// the right block and violates an invariant; [`Error::Io`] when the device fails.
    pub fn read(&self, reference: &BlockRef, magic: u32) -> Result<Arc<Block>, Error> {
        let blkno = reference.blkno.get();
        if let Some(block) = self.lookup(reference) {
            if block.magic() != magic {
                return Err(Error::corrupt(
                    blkno,
                    CorruptKind::Magic { expected: magic, found: block.magic() },
                ));
            }
            return Ok(block);
        }
        let offset = self.offset(blkno)?;
        let mut buf = IoBuf::zeroed(BLOCK_SIZE)?;
        self.device.read(offset, &mut buf)?;
        let block = Block::verify(buf, reference, magic, self.fsid, &self.geometry)?;
        let block = Arc::new(block)?;
        self.insert(block.clone());
        Ok(block)
    }

    /// Writes a new block to where `reference` says and keeps it. The block is on the device, but not
    /// durable, when this returns; on an error anything may be there, and the reference must not be used.
    pub fn write_new(&self, block: NewBlock, magic: u32, reference: &BlockRef) -> Result<Arc<Block>, Error> {
        let offset = self.offset(reference.blkno.get())?;
        let block = Arc::new(block.seal(magic, self.fsid, reference))?;
        self.device.write(offset, block.bytes())?;
        self.insert(block.clone());
        Ok(block)
    }

    /// Forgets whatever is kept of a block number. Never needed for correctness: a block is found by its seq, too.
    pub fn drop_block(&self, blkno: u64) {
        let dropped = match self.set(blkno) {
            Some(set) => set.lock().remove(blkno),
            None => None,
        };
        if dropped.is_some() {
            self.kept.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// How many blocks are kept.
    pub fn blocks(&self) -> usize {
        self.kept.load(Ordering::Relaxed)
    }

    /// Gives up to `blocks` blocks back that nobody is using, and says how many: first those that were not used since it last came by.
    /// Waits for nothing, and looks at each set twice at most; so it may find none.
    pub fn reclaim(&self, blocks: usize) -> usize {
        let mut given = 0;
        for _ in 0..self.sets.len().saturating_mul(2) {
            let at = self.hand.fetch_add(1, Ordering::Relaxed).checked_rem(self.sets.len());
            let Some(set) = at.and_then(|at| self.sets.get(at)) else { break };
            while given < blocks
                && let Some(block) = set.try_lock().and_then(|mut set| set.give_up())
            {
                // Freed without the lock.
                drop(block);
                self.kept.fetch_sub(1, Ordering::Relaxed);
                given += 1;
            }
            if given >= blocks {
                break;
            }
        }
        given
    }

    /// How the cache was used so far.
    pub fn stats(&self) -> CacheStats {
        let mut stats = CacheStats::default();
        for set in &self.sets {
            let set = set.lock();
            stats.hits = stats.hits.wrapping_add(set.stats.hits);
            stats.misses = stats.misses.wrapping_add(set.stats.misses);
        }
        stats
    }

    /// Byte offset of a block of the zones.
    pub(super) fn offset(&self, blkno: u64) -> Result<u64, Error> {
        if !self.geometry.has_meta_block(blkno) {
            return Err(Error::corrupt(blkno, CorruptKind::OutsideZones));
        }
        // Does not overflow: the geometry bounds block numbers by the size of the largest volume.
        Ok(blkno * BLOCK_SIZE as u64)
    }

    /// Keeps a block that is on the device.
    pub(super) fn insert(&self, block: Arc<Block>) {
        let replaced = match self.set(block.blkno()) {
            Some(set) => set.lock().insert(block),
            None => return,
        };
        // Freed only now that the lock is released.
        if replaced.is_none() {
            self.kept.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn lookup(&self, reference: &BlockRef) -> Option<Arc<Block>> {
        self.set(reference.blkno.get())?.lock().find(reference)
    }

    fn set(&self, blkno: u64) -> Option<&Mutex<Set>> {
        // Multiplying by an odd constant spreads runs of numbers over all bits; the upper half of the product
        // with the number of sets is the set, without a division.
        let hash = blkno.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let index = (u128::from(hash) * self.sets.len() as u128) >> 64;
        self.sets.get(index as usize)
    }
}

impl Set {
    fn new(ways: u8) -> Self {
        Set {
            blknos: [0; WAYS],
            blocks: [const { None }; WAYS],
            used: 0,
            hand: 0,
            ways,
            stats: CacheStats::default(),
        }
    }

    fn slot(&self, blkno: u64) -> Option<usize> {
        self.blknos.iter().position(|&b| b == blkno)
    }

    fn find(&mut self, reference: &BlockRef) -> Option<Arc<Block>> {
        let slot = self.slot(reference.blkno.get());
        let block = slot.and_then(|slot| Some((slot, self.blocks[slot].as_ref()?)));
        match block {
            Some((slot, block)) if block.satisfies(reference) => {
                self.used |= 1 << slot;
                self.stats.hits = self.stats.hits.wrapping_add(1);
                Some(block.clone())
            }
            _ => {
                self.stats.misses = self.stats.misses.wrapping_add(1);
                None
            }
        }
    }

    /// Returns what had to go.
    fn insert(&mut self, block: Arc<Block>) -> Option<Arc<Block>> {
        let blkno = block.blkno();
        let slot = match self.slot(blkno) {
            Some(slot) => slot,
            None => self.victim(),
        };
        self.blknos[slot] = blkno;
        // Unused until it is found for the first time: a block that is read once goes before one that is read again.
        self.used &= !(1 << slot);
        self.blocks[slot].replace(block)
    }

    fn remove(&mut self, blkno: u64) -> Option<Arc<Block>> {
        let slot = self.slot(blkno)?;
        self.blknos[slot] = 0;
        self.used &= !(1 << slot);
        self.blocks[slot].take()
    }

    /// Takes out a block that nobody has and that was not used since this last found none. Then all count as not used.
    fn give_up(&mut self) -> Option<Arc<Block>> {
        let mut kept = self.blocks.iter().zip(0..);
        let unused = |slot: u32| self.used & (1 << slot) == 0;
        let found = kept.find(|(block, slot)| {
            unused(*slot) && block.as_ref().is_some_and(|block| Arc::strong_count(block) == 1)
        });
        let Some((_, slot)) = found else {
            self.used = 0;
            return None;
        };
        self.remove(self.blknos[slot as usize])
    }

    /// An empty slot, or the next one that was not used since the hand last passed.
    fn victim(&mut self) -> usize {
        let ways = usize::from(self.ways);
        if let Some(slot) = self.blknos[..ways].iter().position(|&b| b == 0) {
            return slot;
        }
        loop {
            let slot = usize::from(self.hand);
            self.hand = (self.hand + 1) % self.ways;
            if self.used & (1 << slot) == 0 {
                return slot;
            }
            self.used &= !(1 << slot);
        }
    }
}
