// SPDX-License-Identifier: GPL-2.0-only
//! Many threads at once.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use scoutfs_btree::{Error, OwnedItem, RangeItems};
use scoutfs_env::{AllocError, Vec};
use scoutfs_format::Key;

use super::forest::Forest;
use super::{ALL, SMALL_PAGES, key};
use crate::{ItemCache, ItemError, ItemReader};

/// Returns what it read only after others have had time to change it.
struct Slow<'a>(&'a Forest);

impl ItemReader for Slow<'_> {
    fn read_range(&self, key: Key, low: Key, high: Key) -> Result<RangeItems, Error> {
        let range = self.0.read_range(key, low, high);
        thread::sleep(Duration::from_micros(200));
        range
    }
}

fn number(value: &[u8]) -> u64 {
    u64::from_le_bytes(value[..8].try_into().unwrap())
}

/// Each writer counts its own keys up, deletes and makes them again; readers look at all keys; one thread
/// commits, one evicts, one drops what is not dirty. A count never goes back, and a writer always sees its
/// own writes; nobody waits for ever. (Invariants 2, 66.)
#[test]
fn no_write_is_lost_or_undone_under_commits_and_evictions() {
    const WRITERS: u64 = 3;
    const KEYS: u64 = 24;
    let (cache, forest) = (ItemCache::new(SMALL_PAGES), Forest::new(8));
    let stop = AtomicBool::new(false);
    let nr_writes = AtomicU64::new(0);
    let (cache, forest, stop, nr_writes) = (&cache, &forest, &stop, &nr_writes);
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            scope.spawn(move || {
                let slow = Slow(forest);
                let mut version: u64 = 0;
                let mut exists = [false; KEYS as usize];
                while !stop.load(Relaxed) {
                    version += 1;
                    for n in (writer..KEYS).step_by(WRITERS as usize) {
                        let value = version.to_le_bytes();
                        let parts: &[&[u8]] = &[&value, &[0; 40]];
                        let exists = &mut exists[n as usize];
                        let delete = *exists && (version + n).is_multiple_of(5);
                        if !*exists {
                            cache.create(&slow, ALL, key(n), version, parts).unwrap();
                        } else if delete {
                            cache.delete(&slow, ALL, key(n), version).unwrap();
                        } else {
                            cache.update(&slow, ALL, key(n), version, parts).unwrap();
                        }
                        *exists = !delete;
                        let expected = exists.then_some((version, version));
                        let found = cache.get(&slow, ALL, key(n), |value, v| (number(value), v)).unwrap();
                        assert_eq!(found, expected, "writer {writer}, key {n}");
                        nr_writes.fetch_add(1, Relaxed);
                    }
                    if version % 64 == 1 {
                        thread::yield_now();
                    }
                }
            });
        }
        scope.spawn(move || {
            let slow = Slow(forest);
            let mut newest = [0; KEYS as usize];
            while !stop.load(Relaxed) {
                let mut at = key(0);
                while let Some((k, count)) =
                    cache.next(&slow, ALL, at, key(KEYS), |k, value, _| (k, number(value))).unwrap()
                {
                    let newest = &mut newest[k.second as usize];
                    assert!(count >= *newest, "{k} went from {newest} to {count}");
                    *newest = count;
                    at = k.next().unwrap();
                }
            }
        });
        scope.spawn(move || {
            while !stop.load(Relaxed) {
                cache.take_dirty(|batch: Vec<OwnedItem>| forest.commit(batch)).unwrap();
                thread::sleep(Duration::from_micros(100));
            }
        });
        scope.spawn(move || {
            for n in 0.. {
                if stop.load(Relaxed) {
                    break;
                }
                cache.shrink(0);
                match cache.invalidate(key(n % KEYS), key(n % KEYS + 2)) {
                    Ok(()) | Err(ItemError::DirtyInvalidate { .. }) => (),
                    Err(error) => panic!("{error}"),
                }
                // Reads that never get to their end find nothing.
                thread::sleep(Duration::from_millis(1));
            }
        });
        let end = Instant::now() + Duration::from_secs(2);
        while Instant::now() < end {
            thread::sleep(Duration::from_millis(10));
        }
        stop.store(true, Relaxed);
    });
    assert!(nr_writes.load(Relaxed) > 1000, "{}", nr_writes.load(Relaxed));
    cache.assert_consistent();
    cache.take_dirty(|_| Ok::<_, AllocError>(())).unwrap();
    cache.shrink(0);
    assert_eq!(cache.bytes(), 0);
}
