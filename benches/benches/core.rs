// SPDX-License-Identifier: GPL-2.0-only
//! Trees, merges, the item cache, commits and checksums, with criterion.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use scoutfs_benches::Bed;
use scoutfs_btree::tree::SliceSource;
use scoutfs_btree::{
    BlockCache, BlockSpace, Error, ForestRoots, Limit, OwnedItem, RangeItems, Rule, apply, lookup,
    merge_step, read_range,
};
use scoutfs_env::device::{BlockDevice, MemDevice};
use scoutfs_env::{AllocError, Arc, Box, Vec, try_box};
use scoutfs_format::geometry::Geometry;
use scoutfs_format::item::ROOT_INO;
use scoutfs_format::key::KIND_META_SEQ;
use scoutfs_format::tree::TreeRoot;
use scoutfs_format::{BlockRef, Key};
use scoutfs_fs::dir::NewInode;
use scoutfs_fs::inode::SetAttr;
use scoutfs_item::{ItemCache, ItemReader, Limits};

/// Space that is used once.
struct Fresh {
    next: u64,
    counter: u32,
}

impl BlockSpace for Fresh {
    fn alloc_block(&mut self) -> Result<u64, Error> {
        self.next += 1;
        Ok(self.next - 1)
    }
    fn free_block(&mut self, _: &BlockRef) -> Result<(), Error> {
        Ok(())
    }
    fn block_seq(&mut self) -> (u64, u32) {
        self.counter += 1;
        (1, self.counter)
    }
}

fn items(count: u64, stride: u64, version: u64) -> Vec<OwnedItem> {
    let mut out = Vec::new();
    for i in 0..count {
        let value = Vec::from_slice(&[5; 88]).expect("memory");
        let key = Key::inode(i * stride);
        out.push(OwnedItem { key, version, deletion: false, value }).expect("memory");
    }
    out
}

fn core(c: &mut Criterion) {
    const BYTES: u64 = 4 << 30;
    let geometry = Geometry::new(BYTES, 1).expect("geometry");
    let device: Box<dyn BlockDevice> = try_box(MemDevice::new(BYTES)).expect("memory");
    let cache = BlockCache::new(Arc::new(device).expect("memory"), 7, geometry, 4096).expect("cache");
    let mut space = Fresh { next: geometry.first_meta_block(), counter: 0 };
    let all = items(200_000, 10, 1);
    let built =
        apply(&cache, &mut space, &TreeRoot::EMPTY, &mut SliceSource::new(&all), &Rule::Log, Limit::NONE)
            .expect("apply");
    let start = space.next;

    let mut group = c.benchmark_group("tree");
    group.throughput(Throughput::Elements(1));
    let mut at = 0u64;
    group.bench_function("lookup", |b| {
        b.iter(|| {
            at = (at + 7919) % 200_000;
            lookup(&cache, &built.root, &Key::inode(at * 10)).expect("lookup").expect("item").item().version
        });
    });
    let batch = items(1000, 2000, 2);
    group.throughput(Throughput::Elements(1000));
    group.bench_function("apply 1,000 spread changes", |b| {
        b.iter(|| {
            space.next = start;
            apply(&cache, &mut space, &built.root, &mut SliceSource::new(&batch), &Rule::Log, Limit::NONE)
                .expect("apply")
        });
    });
    group.finish();

    item_cache(c);
    commit(c);

    let mut group = c.benchmark_group("crc32c");
    let block = [9u8; 65536];
    group.throughput(Throughput::Bytes(65536));
    group.bench_function("64 KiB", |b| b.iter(|| scoutfs_env::crc32c::crc32c(std::hint::black_box(&block))));
    group.finish();
}

/// Nothing is committed: all that is not cached is absent.
struct Empty;

impl ItemReader for Empty {
    fn read_range(&self, _: Key, low: Key, high: Key) -> Result<RangeItems, Error> {
        Ok(RangeItems { first: low, last: high, items: Vec::new() })
    }
}

/// Reads from a tree.
struct FromTree<'a> {
    cache: &'a BlockCache,
    roots: ForestRoots,
}

impl ItemReader for FromTree<'_> {
    fn read_range(&self, key: Key, low: Key, high: Key) -> Result<RangeItems, Error> {
        read_range(self.cache, &self.roots, key, low, high)
    }
}

const ALL: (Key, Key) = (Key::MIN, Key::MAX);

fn item_cache(c: &mut Criterion) {
    const ITEMS: u64 = 100_000;
    let value: &[&[u8]] = &[&[5; 88]];
    let full = || {
        let cache = ItemCache::new(Limits::new(usize::MAX));
        for n in 0..ITEMS {
            cache.create(&Empty, ALL, Key::inode(n * 10), 1, value).expect("create");
        }
        cache
    };
    let mut group = c.benchmark_group("item cache");
    group.throughput(Throughput::Elements(1));
    let cache = full();
    let mut at = 0;
    group.bench_function("hit among 100,000", |b| {
        b.iter(|| {
            at = (at + 7919) % ITEMS;
            cache.get(&Empty, ALL, Key::inode(at * 10), |_, version| version).expect("get").expect("item")
        });
    });
    group.bench_function("known to be absent", |b| {
        b.iter(|| {
            at = (at + 7919) % ITEMS;
            cache.get(&Empty, ALL, Key::inode(at * 10 + 5), |_, version| version).expect("get")
        });
    });
    group.throughput(Throughput::Elements(1000));
    let mut version = 1;
    group.bench_function("1,000 creates among 100,000, taken back", |b| {
        b.iter(|| {
            for n in 0..1000 {
                cache.create(&Empty, ALL, Key::inode(n * 1000 + 3), version, value).expect("create");
            }
            for n in 0..1000 {
                cache.delete_dirty(Key::inode(n * 1000 + 3), version).expect("delete");
            }
        });
    });
    group.bench_function("1,000 updates among 100,000, and their commit", |b| {
        b.iter(|| {
            version += 1;
            for n in 0..1000 {
                cache.update(&Empty, ALL, Key::inode(n * 1000), version, value).expect("update");
            }
            cache.take_dirty(|batch| Ok::<_, AllocError>(batch.len())).expect("take")
        });
    });
    group.bench_function("1,000 written without reading, and their commit", |b| {
        b.iter(|| {
            version += 1;
            for n in 0..1000 {
                let key = Key::index(KIND_META_SEQ, version, n);
                cache.create_absent(key, version, &[]).expect("create");
            }
            cache.take_dirty(|batch| Ok::<_, AllocError>(batch.len())).expect("take")
        });
    });
    group.finish();

    const BYTES: u64 = 1 << 30;
    let geometry = Geometry::new(BYTES, 1).expect("geometry");
    let device: Box<dyn BlockDevice> = try_box(MemDevice::new(BYTES)).expect("memory");
    let blocks = BlockCache::new(Arc::new(device).expect("memory"), 7, geometry, 4096).expect("cache");
    let mut space = Fresh { next: geometry.first_meta_block(), counter: 0 };
    let all = items(200_000, 10, 1);
    let mut source = SliceSource::new(&all);
    let built = apply(&blocks, &mut space, &TreeRoot::EMPTY, &mut source, &Rule::Log, Limit::NONE);
    let roots = ForestRoots { fs_root: built.expect("apply").root, logs: Vec::new(), tails: Vec::new() };
    let reader = FromTree { cache: &blocks, roots };
    let mut group = c.benchmark_group("item cache");
    group.throughput(Throughput::Elements(1));
    group.bench_function("miss, read from a cached leaf", |b| {
        let cache = ItemCache::new(Limits::new(usize::MAX));
        b.iter(|| {
            at = (at + 7919) % 200_000;
            cache.invalidate(Key::MIN, Key::MAX).expect("invalidate");
            cache.get(&reader, ALL, Key::inode(at * 10), |_, version| version).expect("get").expect("item")
        });
    });
    group.finish();

    let log = {
        let changes = items(20_000, 100, 2);
        let mut source = SliceSource::new(&changes);
        apply(&blocks, &mut space, &TreeRoot::EMPTY, &mut source, &Rule::Log, Limit::NONE)
            .expect("apply")
            .root
    };
    let start = space.next;
    let mut group = c.benchmark_group("merge");
    group.throughput(Throughput::Elements(20_000));
    group.bench_function("20,000 changes into 200,000 items", |b| {
        b.iter(|| {
            space.next = start;
            merge_step(&blocks, &mut space, &reader.roots.fs_root, &[log], None, Key::MIN, 0, Limit::NONE)
                .expect("merge")
        });
    });
    group.finish();
}

/// What a mount does for a transaction of a thousand items, on a device in memory.
fn commit(c: &mut Criterion) {
    let bed = Bed::new(4 << 30);
    let fs = bed.mount.fs();
    let new = NewInode { mode: 0o100_644, umask: 0, rdev: 0, uid: 0, gid: 0 };
    let mut inos = std::vec::Vec::new();
    for n in 0..333 {
        let name = format!("file-{n}");
        inos.push(fs.create(ROOT_INO, name.as_bytes(), &new).expect("create").ino);
    }
    let mut group = c.benchmark_group("commit");
    // Of each inode the item, its new entry in the change index, and the deletion of the old one.
    group.throughput(Throughput::Elements(999));
    let mut mode = 0;
    group.bench_function("999 items: 333 changes of attributes, and a sync", |b| {
        b.iter(|| {
            mode = (mode + 1) % 0o1000;
            let change = SetAttr { mode: Some(mode), ..SetAttr::default() };
            for ino in &inos {
                fs.setattr(*ino, &change).expect("setattr");
            }
            fs.sync().expect("sync");
        });
    });
    group.finish();
    bed.mount.unmount().expect("unmount");
}

criterion_group!(benches, core);
criterion_main!(benches);
