// SPDX-License-Identifier: GPL-2.0-only
//! Random writes of a packed page against a map, with keys that make it change its shape, and with memory short at random.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::vec::Vec;

use proptest::collection;
use proptest::prelude::*;
use scoutfs_env::alloc_fault;
use scoutfs_format::Key;

use crate::error::ItemError;
use crate::item::Write;
use crate::page::Items;

#[derive(Debug, Clone)]
enum Op {
    Create(Key, usize),
    Update(usize, usize),
    UpdateDirty(usize, usize),
    Delete(usize),
    DeleteDirty(usize),
    SetClean,
    /// And go on with the one half or the other.
    Split(usize, bool),
}

fn key() -> impl Strategy<Value = Key> {
    let number = || prop_oneof![4 => 0..2u64, 2 => 250..260u64, 2 => 65_000..66_000u64, 1 => any::<u64>()];
    prop_oneof![
        8 => (0..400u64).prop_map(|n| Key::inode(70_000 + n)),
        8 => (0..400u64, number()).prop_map(|(n, pos)| Key::backref(70_000 + n, 1, pos)),
        8 => (any::<u64>(), number()).prop_map(|(hash, pos)| Key::dirent(70_100, hash, pos)),
        // Too many fields that differ too much to be packed.
        1 => (any::<[u8; 3]>(), any::<[u64; 3]>()).prop_map(|(b, n)| Key::new(b[0], n[0], b[1], n[1], n[2], b[2])),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let len = || prop_oneof![6 => 0..60usize, 1 => 0..2000usize];
    let nth = any::<usize>;
    prop_oneof![
        12 => (key(), len()).prop_map(|(key, len)| Op::Create(key, len)),
        3 => (nth(), len()).prop_map(|(nth, len)| Op::Update(nth, len)),
        3 => (nth(), 0..60usize).prop_map(|(nth, len)| Op::UpdateDirty(nth, len)),
        2 => nth().prop_map(Op::Delete),
        2 => nth().prop_map(Op::DeleteDirty),
        1 => Just(Op::SetClean),
        1 => (nth(), any::<bool>()).prop_map(|(nth, right)| Op::Split(nth, right)),
    ]
}

/// Value, and whether it was written since the page was clean.
type Model = BTreeMap<Key, (Vec<u8>, bool)>;

fn nth(model: &Model, n: usize) -> Option<Key> {
    model.keys().nth(n % model.len().max(1)).copied()
}

/// The page must have just what the model has, from both ends.
fn compare(items: &Items, model: &Model) {
    items.assert_consistent(&Key::MIN, &Key::MAX);
    let found: Vec<_> = items.ascending(&Key::MIN).map(|item| (item.key(), item.value.to_vec())).collect();
    let expected: Vec<_> = model.iter().map(|(key, (value, _))| (*key, value.clone())).collect();
    assert_eq!(found, expected);
    assert!(items.descending(&Key::MAX).map(|item| item.key()).eq(model.keys().rev().copied()));
}

/// Searches for a key that may not be there, and for its neighbours.
fn search(items: &Items, model: &Model, key: Key) {
    for key in [key, key.saturating_next(), key.saturating_prev()] {
        let found = items.get(usize::MAX, &key).1.map(|item| item.value.to_vec());
        assert_eq!(found, model.get(&key).map(|(value, _)| value.clone()));
        let next = items.ascending(&key).next().map(|item| item.key());
        assert_eq!(next, model.range(key..).next().map(|(key, _)| *key));
        let before = items.descending(&key).next().map(|item| item.key());
        assert_eq!(before, model.range(..=key).next_back().map(|(key, _)| *key));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn a_packed_page_has_what_was_written(
        ops in collection::vec((op(), prop_oneof![4 => Just(None), 1 => (0..3u64).prop_map(Some)]), 1..150),
    ) {
        let mut items = Items::default();
        let mut model = Model::new();
        for (version, (op, failing)) in ops.into_iter().enumerate() {
            let version = version as u64 + 1;
            let value: Vec<u8> = version.to_le_bytes().into_iter().cycle().take(2000).collect();
            let near = version as usize % 7;
            let write = |items: &mut Items, key, write: &Write<'_>| {
                if let Some(after) = failing {
                    alloc_fault::fail_after(after);
                }
                let done = items.write(near, key, version, write);
                alloc_fault::clear();
                match done {
                    Ok(_) => true,
                    Err(error) => {
                        assert_eq!(error, ItemError::NoMemory);
                        false
                    }
                }
            };
            match op {
                Op::Create(key, len) => {
                    search(&items, &model, key);
                    let parts: &[&[u8]] = &[&value[..len / 3], &value[len / 3..len]];
                    if let Entry::Vacant(place) = model.entry(key)
                        && write(&mut items, key, &Write::Create(parts))
                    {
                        place.insert((value[..len].to_vec(), true));
                    }
                }
                Op::Update(n, len) => {
                    if let Some(key) = nth(&model, n)
                        && write(&mut items, key, &Write::Update(&[&value[..len]]))
                    {
                        model.insert(key, (value[..len].to_vec(), true));
                    }
                }
                Op::Delete(n) => {
                    if let Some(key) = nth(&model, n) {
                        assert!(write(&mut items, key, &Write::Delete), "deleting allocates nothing");
                        model.remove(&key);
                    }
                }
                Op::UpdateDirty(n, len) => {
                    if let Some(key) = nth(&model, n) {
                        let (old, dirty) = &model[&key];
                        let fits = *dirty && len <= old.len();
                        alloc_fault::fail_after(0);
                        let done = items.update_dirty(near, key, version, &[&value[..len]]);
                        alloc_fault::clear();
                        assert_eq!(done.is_ok(), fits);
                        if fits {
                            model.insert(key, (value[..len].to_vec(), true));
                        }
                    }
                }
                Op::DeleteDirty(n) => {
                    if let Some(key) = nth(&model, n) {
                        alloc_fault::fail_after(0);
                        let done = items.delete_dirty(near, key, version);
                        alloc_fault::clear();
                        assert_eq!(done.is_ok(), model[&key].1);
                        if done.is_ok() {
                            model.remove(&key);
                        }
                    }
                }
                Op::SetClean => {
                    items.set_clean();
                    model.values_mut().for_each(|(_, dirty)| *dirty = false);
                }
                Op::Split(n, keep_right) => {
                    if let Some(at) = nth(&model, n) {
                        if let Some(after) = failing {
                            alloc_fault::fail_after(after);
                        }
                        let done = items.split_off(&at);
                        alloc_fault::clear();
                        if let Ok(right) = done {
                            let right_model = model.split_off(&at);
                            compare(&items, &model);
                            compare(&right, &right_model);
                            if keep_right {
                                (items, model) = (right, right_model);
                            }
                        }
                    }
                }
            }
            compare(&items, &model);
            let dirty = model.values().filter(|(_, dirty)| *dirty).count();
            assert!(items.usage().dirty_items >= dirty, "what was written is dirty");
        }
    }
}
