// SPDX-License-Identifier: GPL-2.0-only
//! What the tests of trees share: a volume in memory whose device can fail, and a space that knows the state
//! of each block.

use std::collections::{BTreeMap, BTreeSet};
use std::vec::Vec;

use scoutfs_env::device::{BlockDevice, EIO, IoError, IoOp, MemDevice};
use scoutfs_env::sync::atomic::{AtomicU64, Ordering};
use scoutfs_env::{Arc, Box, IoBuf, crc32c::crc32c, try_box};
use scoutfs_format::geometry::Geometry;
use scoutfs_format::tree::{NODE_SPACE, TreeRoot};
use scoutfs_format::{BLOCK_SIZE, BlockRef, Key};

use crate::tree::{
    ApplyStats, Cursor, Item, Limit, Node, OwnedItem, Place, Rule, SliceSource, Visitor, apply, walk,
};
use crate::{BlockCache, BlockSpace, Error};

pub(crate) const FSID: u64 = 0x5eed;

/// Memory that fails one request.
pub(crate) struct FaultyDevice {
    inner: MemDevice,
    requests: AtomicU64,
    fail_at: AtomicU64,
}

impl FaultyDevice {
    /// The next `n` requests succeed, the one after them fails, and those after that succeed again.
    pub(crate) fn fail_after(&self, n: u64) {
        self.requests.store(0, Ordering::Relaxed);
        self.fail_at.store(n, Ordering::Relaxed);
    }

    /// No request fails any more. Returns whether one did.
    pub(crate) fn heal(&self) -> bool {
        let fail_at = self.fail_at.swap(u64::MAX, Ordering::Relaxed);
        self.requests.load(Ordering::Relaxed) > fail_at
    }

    fn request(&self, op: IoOp, offset: u64, len: usize) -> Result<(), IoError> {
        let n = self.requests.fetch_add(1, Ordering::Relaxed);
        if n == self.fail_at.load(Ordering::Relaxed) {
            let errno = EIO;
            return Err(IoError { op, offset, len, errno });
        }
        Ok(())
    }
}

impl BlockDevice for FaultyDevice {
    fn size_bytes(&self) -> u64 {
        self.inner.size_bytes()
    }

    fn read_only(&self) -> bool {
        false
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), IoError> {
        self.request(IoOp::Read, offset, buf.len())?;
        self.inner.read(offset, buf)
    }

    fn write(&self, offset: u64, buf: &[u8]) -> Result<(), IoError> {
        self.request(IoOp::Write, offset, buf.len())?;
        self.inner.write(offset, buf)
    }

    fn flush(&self) -> Result<(), IoError> {
        self.request(IoOp::Flush, 0, 0)?;
        self.inner.flush()
    }
}

/// Knows of each block whether it is free, in use, or freed in this transaction, and proves that no block is taken or
/// freed twice.
#[derive(Clone, Debug)]
pub(crate) struct TestSpace {
    free: BTreeSet<u64>,
    used: BTreeMap<u64, Option<(u64, u32)>>,
    pending: BTreeSet<u64>,
    /// Seqs that were given out and not used yet, newest last.
    trans_seq: u64,
    counter: u32,
    last_alloc: Option<u64>,
    pub(crate) allocs: u64,
    pub(crate) frees: u64,
    pub(crate) fail_alloc_at: Option<u64>,
}

impl TestSpace {
    fn new(geometry: &Geometry) -> Self {
        TestSpace {
            free: (geometry.first_meta_block()..geometry.end_meta_block()).collect(),
            used: BTreeMap::new(),
            pending: BTreeSet::new(),
            trans_seq: 1,
            counter: 0,
            last_alloc: None,
            allocs: 0,
            frees: 0,
            fail_alloc_at: None,
        }
    }

    /// The transaction is durable: what it freed can be used again.
    pub(crate) fn commit(&mut self) {
        self.free.append(&mut self.pending);
        self.trans_seq += 1;
        self.counter = 0;
    }

    pub(crate) fn nr_used(&self) -> usize {
        self.used.len()
    }

    pub(crate) fn used(&self) -> BTreeSet<u64> {
        self.used.keys().copied().collect()
    }
}

impl BlockSpace for TestSpace {
    fn alloc_block(&mut self) -> Result<u64, Error> {
        if self.fail_alloc_at == Some(self.allocs) {
            return Err(Error::NoSpace);
        }
        let blkno = self.free.pop_first().ok_or(Error::NoSpace)?;
        assert!(self.used.insert(blkno, None).is_none());
        self.last_alloc = Some(blkno);
        self.allocs += 1;
        Ok(blkno)
    }

    fn free_block(&mut self, block: &BlockRef) -> Result<(), Error> {
        let blkno = block.blkno.get();
        let seq = self.used.remove(&blkno);
        assert_eq!(
            seq,
            Some(Some((block.trans_seq.get(), block.counter.get()))),
            "block {blkno} is freed, but is not in use under this seq"
        );
        assert!(self.pending.insert(blkno));
        self.frees += 1;
        Ok(())
    }

    fn block_seq(&mut self) -> (u64, u32) {
        let seq = (self.trans_seq, self.counter);
        self.counter += 1;
        let last = self.last_alloc.take().expect("a block for the seq");
        self.used.insert(last, Some(seq));
        seq
    }
}

/// A volume with a cache and a space.
pub(crate) struct Volume {
    pub(crate) device: Arc<FaultyDevice>,
    pub(crate) geometry: Geometry,
    pub(crate) cache: BlockCache,
    pub(crate) space: TestSpace,
}

impl Volume {
    pub(crate) fn new(mib: u64, cache_blocks: usize) -> Volume {
        Self::on(MemDevice::new(mib << 20), cache_blocks, None)
    }

    /// The same state on a device of its own, with an empty cache.
    pub(crate) fn fork(&self, cache_blocks: usize) -> Volume {
        let device = self.device.inner.snapshot();
        Self::on(device, cache_blocks, Some(self.space.clone()))
    }

    fn on(device: MemDevice, cache_blocks: usize, space: Option<TestSpace>) -> Volume {
        let geometry = Geometry::new(device.size_bytes(), 1).unwrap();
        let device = Arc::new(FaultyDevice {
            inner: device,
            requests: AtomicU64::new(0),
            fail_at: AtomicU64::new(u64::MAX),
        })
        .unwrap();
        let boxed: Box<dyn BlockDevice> = try_box(device.clone()).unwrap();
        let cache = BlockCache::new(Arc::new(boxed).unwrap(), FSID, geometry, cache_blocks).unwrap();
        Volume { device, geometry, cache, space: space.unwrap_or_else(|| TestSpace::new(&geometry)) }
    }

    pub(crate) fn writes(&self) -> u64 {
        self.device.inner.stats().writes
    }

    pub(crate) fn apply_all(&mut self, root: &TreeRoot, items: &[OwnedItem], rule: Rule) -> TreeRoot {
        let mut source = SliceSource::new(items);
        let applied = apply(&self.cache, &mut self.space, root, &mut source, &rule, Limit::NONE).unwrap();
        assert_eq!(applied.next, None);
        self.space.commit();
        applied.root
    }

    /// All items of a tree, deletions included.
    pub(crate) fn items(&self, root: &TreeRoot) -> Vec<OwnedItem> {
        let mut cursor = Cursor::new(&self.cache, *root, Key::MIN);
        let mut items = Vec::new();
        while let Some(item) = cursor.peek().unwrap() {
            items.push(item.to_owned().unwrap());
            cursor.advance();
        }
        items
    }

    /// Proves the invariants of a tree and returns its blocks.
    pub(crate) fn check_tree(&self, root: &TreeRoot) -> BTreeSet<u64> {
        let mut check = CheckTree::default();
        walk(&self.cache, root, &mut check).unwrap();
        let height = usize::from(root.height);
        assert_eq!(check.fills.len(), height);
        for (level, fills) in check.fills.iter().enumerate() {
            for fill in &fills[..fills.len() - 1] {
                assert!(*fill >= NODE_SPACE / 4, "a node of level {level} has {fill} bytes");
            }
        }
        if height > 1 {
            assert!(check.root_items > 1, "a root with one child");
        }
        check.blocks
    }

    /// Proves that exactly the blocks of these trees are in use.
    pub(crate) fn check_space(&self, roots: &[TreeRoot]) {
        let mut blocks = BTreeSet::new();
        for root in roots {
            for blkno in self.check_tree(root) {
                assert!(blocks.insert(blkno), "block {blkno} is in two trees");
            }
        }
        assert_eq!(blocks, self.space.used());
        let all = self.geometry.end_meta_block() - self.geometry.first_meta_block();
        let sum = self.space.free.len() + self.space.pending.len() + blocks.len();
        assert_eq!(sum as u64, all);
    }

    /// Changes a block on the device behind everyone's back and makes its checksum right again.
    pub(crate) fn tamper(&self, blkno: u64, change: impl FnOnce(&mut [u8])) {
        let mut buf = IoBuf::zeroed(BLOCK_SIZE).unwrap();
        let offset = blkno * BLOCK_SIZE as u64;
        self.device.inner.read(offset, &mut buf).unwrap();
        change(&mut buf);
        let crc = crc32c(&buf[4..]);
        buf[..4].copy_from_slice(&crc.to_le_bytes());
        self.device.inner.write(offset, &buf).unwrap();
        self.cache.drop_block(blkno);
    }
}

#[derive(Default)]
struct CheckTree {
    blocks: BTreeSet<u64>,
    /// Bytes used by the nodes of each level, from left to right.
    fills: Vec<Vec<usize>>,
    root_items: usize,
    /// Where the next node of each level has to begin.
    next: Vec<Option<Key>>,
}

impl Visitor for CheckTree {
    fn node(&mut self, place: &Place, node: &Node) -> Result<(), Error> {
        assert!(self.blocks.insert(place.block.blkno.get()));
        let level = usize::from(place.level);
        if self.fills.is_empty() {
            self.root_items = node.len();
            self.fills.resize(level + 1, Vec::new());
            self.next.resize(level + 1, Some(Key::MIN));
        }
        assert_eq!(self.next[level], Some(place.first), "ranges without gaps");
        self.next[level] = place.last.next();
        self.fills[level].push(node.used_bytes());
        Ok(())
    }

    fn broken(&mut self, place: &Place, error: Error) -> Result<(), Error> {
        panic!("{place:?}: {error}");
    }
}

/// A small, fast generator: everything that it gives follows from the seed.
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Rng(seed.wrapping_mul(2).wrapping_add(1))
    }

    pub(crate) fn next(&mut self) -> u64 {
        // The splitmix generator.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// What a tree should hold: version, deletion and value by key.
pub(crate) type Model = BTreeMap<Key, (u64, bool, Vec<u8>)>;

/// The key with number `n`, in order, with gaps between them.
pub(crate) fn key(n: u64) -> Key {
    match n {
        0 => Key::MIN,
        u64::MAX => Key::MAX,
        n => Key::inode(n),
    }
}

pub(crate) fn put(key: Key, version: u64, value: &[u8]) -> OwnedItem {
    let value = scoutfs_env::Vec::from_slice(value).unwrap();
    OwnedItem { key, version, deletion: false, value }
}

pub(crate) fn delete(key: Key, version: u64) -> OwnedItem {
    let value = scoutfs_env::Vec::new();
    OwnedItem { key, version, deletion: true, value }
}

/// Plays a change in a model, the way that `rule` says.
pub(crate) fn play(model: &mut Model, change: Item<'_>, rule: Rule) {
    let version = if rule == Rule::Plain { 0 } else { change.version };
    let new = (version, change.deletion, change.value.to_vec());
    let old = model.get(&change.key);
    let stays = match (rule, old) {
        (_, None) | (Rule::Plain, _) => false,
        (Rule::Log, Some(old)) => old.0 > change.version,
        (Rule::Merge { .. }, Some(old)) => old.0 >= change.version,
    };
    if !stays {
        model.insert(change.key, new);
    }
    if rule == Rule::Plain && change.deletion {
        model.remove(&change.key);
    }
}

/// What a model holds without the deletions below a floor, which a tree may or may not have dropped.
pub(crate) fn above_floor(model: &Model, floor: u64) -> Model {
    let keep = |entry: &(&Key, &(u64, bool, Vec<u8>))| !(entry.1.1 && entry.1.0 < floor);
    model.iter().filter(keep).map(|(key, item)| (*key, item.clone())).collect()
}

pub(crate) fn to_model(items: &[OwnedItem]) -> Model {
    items.iter().map(|item| (item.key, (item.version, item.deletion, item.value.to_vec()))).collect()
}

/// Sums up what several calls did.
pub(crate) fn add_stats(sum: &mut ApplyStats, more: &ApplyStats) {
    sum.changes += more.changes;
    sum.items_delta += more.items_delta;
    sum.tombstones_delta += more.tombstones_delta;
    sum.blocks_written += more.blocks_written;
    sum.blocks_freed += more.blocks_freed;
}
