// SPDX-License-Identifier: GPL-2.0-only
//! Trees and checksums, with criterion.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use scoutfs_btree::tree::SliceSource;
use scoutfs_btree::{BlockCache, BlockSpace, Error, Limit, OwnedItem, Rule, apply, lookup};
use scoutfs_env::device::{BlockDevice, MemDevice};
use scoutfs_env::{Arc, Box, Vec, try_box};
use scoutfs_format::geometry::Geometry;
use scoutfs_format::tree::TreeRoot;
use scoutfs_format::{BlockRef, Key};

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

    let mut group = c.benchmark_group("crc32c");
    let block = [9u8; 65536];
    group.throughput(Throughput::Bytes(65536));
    group.bench_function("64 KiB", |b| b.iter(|| scoutfs_env::crc32c::crc32c(std::hint::black_box(&block))));
    group.finish();
}

criterion_group!(benches, core);
criterion_main!(benches);
