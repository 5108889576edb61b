// SPDX-License-Identifier: GPL-2.0-only
use std::collections::BTreeMap;
use std::rc::Rc;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::memory::live;

/// A step of a random walk; keys come from a small space, so that many are there.
#[derive(Debug, Clone)]
enum Step {
    Insert(u16),
    Remove(u16),
    PopFirst,
    PopLast,
    Retain(u16),
}

/// Phases that grow and phases that shrink, so that trees get high and low again.
fn walk() -> impl Strategy<Value = Vec<Step>> {
    let key = || 0..2000u16;
    let growing = prop_oneof![
        8 => key().prop_map(Step::Insert),
        1 => key().prop_map(Step::Remove),
    ];
    let shrinking = prop_oneof![
        1 => key().prop_map(Step::Insert),
        6 => key().prop_map(Step::Remove),
        2 => Just(Step::PopFirst),
        2 => Just(Step::PopLast),
    ];
    let phase = prop_oneof![
        4 => prop::collection::vec(growing, 0..1200),
        3 => prop::collection::vec(shrinking, 0..1200),
        1 => (2..9u16).prop_map(|n| std::vec![Step::Retain(n)]),
    ];
    prop::collection::vec(phase, 1..8).prop_map(|phases| phases.concat())
}

fn same(map: &OrdMap<u16, Rc<u32>>, model: &BTreeMap<u16, u32>) {
    assert_eq!(map.len(), model.len());
    assert!(map.iter().map(|(k, v)| (k, &**v)).eq(model.iter()));
    assert!(map.iter().rev().map(|(k, v)| (k, &**v)).eq(model.iter().rev()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn behaves_as_the_map_of_std(steps in walk(), bounds in prop::collection::vec(0..2001u16, 8)) {
        let mut map = OrdMap::new();
        let mut model = BTreeMap::new();
        let (mut counter, witness) = (0u32, Rc::new(0));
        for step in steps {
            counter += 1;
            match step {
                Step::Insert(key) => {
                    let old = map.insert(key, Rc::new(counter)).unwrap();
                    prop_assert_eq!(old.map(|v| *v), model.insert(key, counter));
                }
                Step::Remove(key) => {
                    prop_assert_eq!(map.remove(&key).map(|v| *v), model.remove(&key));
                }
                Step::PopFirst => {
                    prop_assert_eq!(map.pop_first().map(|(k, v)| (k, *v)), model.pop_first());
                }
                Step::PopLast => {
                    prop_assert_eq!(map.pop_last().map(|(k, v)| (k, *v)), model.pop_last());
                }
                Step::Retain(n) => {
                    let mut seen = Vec::new();
                    map.retain(|&key, _| {
                        seen.push(key);
                        key % n == 0
                    });
                    prop_assert!(seen.iter().eq(model.keys()));
                    model.retain(|&key, _| key % n == 0);
                }
            }
            if counter % 64 == 0 {
                prop_assert_eq!(map.tree.check(), model.len());
            }
        }
        prop_assert_eq!(map.tree.check(), model.len());
        same(&map, &model);

        for &key in &bounds {
            let plain = |entry: Option<(&u16, &Rc<u32>)>| entry.map(|(k, v)| (*k, **v));
            let owned = |entry: Option<(&u16, &u32)>| entry.map(|(k, v)| (*k, *v));
            prop_assert_eq!(map.get(&key).map(|v| **v), model.get(&key).copied());
            prop_assert_eq!(map.contains_key(&key), model.contains_key(&key));
            prop_assert_eq!(plain(map.ceiling(&key)), owned(model.range(key..).next()));
            let above = (Bound::Excluded(key), Bound::Unbounded);
            prop_assert_eq!(plain(map.higher(&key)), owned(model.range(above).next()));
            prop_assert_eq!(plain(map.floor(&key)), owned(model.range(..=key).next_back()));
            prop_assert_eq!(plain(map.lower(&key)), owned(model.range(..key).next_back()));
            let ceiling = map.ceiling_mut(&key).map(|(k, v)| (*k, **v));
            prop_assert_eq!(ceiling, owned(model.range(key..).next()));
            let floor = map.floor_mut(&key).map(|(k, v)| (*k, **v));
            prop_assert_eq!(floor, owned(model.range(..=key).next_back()));
        }
        let plain = |entry: Option<(&u16, &Rc<u32>)>| entry.map(|(k, v)| (*k, **v));
        prop_assert_eq!(plain(map.first_key_value()), model.first_key_value().map(|(k, v)| (*k, *v)));
        prop_assert_eq!(plain(map.last_key_value()), model.last_key_value().map(|(k, v)| (*k, *v)));
        for pair in bounds.windows(2) {
            let (low, high) = (pair[0].min(pair[1]), pair[0].max(pair[1]));
            let keys = |range: Range<'_, u16, Rc<u32>>| range.map(|(k, _)| *k).collect::<Vec<_>>();
            let expected = |range: std::collections::btree_map::Range<'_, u16, u32>| {
                range.map(|(k, _)| *k).collect::<Vec<_>>()
            };
            prop_assert_eq!(keys(map.range(low..high)), expected(model.range(low..high)));
            prop_assert_eq!(keys(map.range(low..=high)), expected(model.range(low..=high)));
            if low < high {
                prop_assert_eq!(keys(map.range(high..low)), Vec::<u16>::new());
            }
            // Both ends in turn meet in the middle.
            let mut range = map.range(low..=high);
            let mut taken = 0;
            while range.next().is_some() {
                taken += 1 + usize::from(range.next_back().is_some());
            }
            prop_assert_eq!(taken, model.range(low..=high).count());
            for (_, value) in map.range_mut(low..high) {
                *value = witness.clone();
            }
            for (_, value) in model.range_mut(low..high) {
                *value = 0;
            }
        }
        same(&map, &model);

        // Part is moved out, the rest dropped: nothing twice and nothing lost.
        let mut entries = map.into_iter();
        for _ in 0..model.len() / 3 {
            prop_assert_eq!(entries.next().map(|(k, v)| (k, *v)), model.pop_first());
            prop_assert_eq!(entries.next_back().map(|(k, v)| (k, *v)), model.pop_last());
        }
        drop(entries);
        prop_assert_eq!(Rc::strong_count(&witness), 1);
    }
}

#[test]
fn all_memory_is_given_back() {
    let before = live::bytes();
    {
        let mut map = OrdMap::new();
        for n in 0..5000u64 {
            map.insert(n * 7919 % 5003, Rc::new(n)).unwrap();
        }
        map.reserve(50).unwrap();
        for n in 0..2500 {
            map.remove(&n);
        }
        let mut entries = map.into_iter();
        entries.next();
    }
    {
        let mut map = OrdMap::new();
        map.insert(1, Rc::new(1)).unwrap();
        map.reserve(10).unwrap();
        map.clear();
        assert_eq!(live::bytes(), before);
        map.insert(1, Rc::new(1)).unwrap();
    }
    assert_eq!(live::bytes(), before);
}

#[test]
fn an_equal_key_keeps_the_old_key() {
    #[derive(Debug)]
    struct Named(u8, &'static str);
    impl PartialEq for Named {
        fn eq(&self, other: &Self) -> bool {
            self.0 == other.0
        }
    }
    impl Eq for Named {}
    impl PartialOrd for Named {
        fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
            Some(self.cmp(other))
        }
    }
    impl Ord for Named {
        fn cmp(&self, other: &Self) -> core::cmp::Ordering {
            self.0.cmp(&other.0)
        }
    }
    let mut map = OrdMap::new();
    map.insert(Named(1, "old"), 'a').unwrap();
    assert_eq!(map.insert(Named(1, "new"), 'b'), Ok(Some('a')));
    let (key, value) = map.first_key_value().unwrap();
    assert_eq!((key.1, *value), ("old", 'b'));
}

#[test]
fn empty_maps_answer_everything() {
    let mut map = OrdMap::<u8, ()>::new();
    for _ in 0..2 {
        assert!(map.is_empty());
        assert_eq!(map.first_key_value(), None);
        assert_eq!(map.pop_last(), None);
        assert_eq!(map.ceiling(&0), None);
        assert_eq!(map.floor(&255), None);
        assert_eq!(map.range(1..).next_back(), None);
        assert_eq!(map.iter().next(), None);
        // The second time with an empty root.
        map.insert(1, ()).unwrap();
        map.remove(&1).unwrap();
    }
}

#[test]
fn entries_without_size_and_large_ones_work() {
    let mut map = OrdMap::new();
    map.insert((), ()).unwrap();
    assert_eq!(map.insert((), ()), Ok(Some(())));
    let mut map = OrdMap::new();
    for n in 0..100u64 {
        map.insert(n, [n; 60]).unwrap();
    }
    assert!(map.values().map(|v| v[59]).eq(0..100));
}

#[cfg(feature = "std")]
mod faults {
    use super::super::node::CAPACITY;
    use super::*;
    use crate::alloc_fault;

    /// Numbers that look random.
    struct Random(u64);

    impl Random {
        fn below(&mut self, bound: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % bound
        }
    }

    type Map = OrdMap<u64, u64>;

    /// A key that is not yet in the map and belongs into the fullest leaf of at most `max_len` entries.
    fn new_key(map: &Map, max_len: usize) -> Option<u64> {
        let mut best = None;
        let mut at = map.tree.first();
        while let Some(position) = at {
            // SAFETY: the map does not change meanwhile.
            unsafe {
                let Position { node, index } = position;
                let fuller = best.is_none_or(|(len, _)| node.len() > len);
                if node.level() == 0 && index > 0 && node.len() <= max_len && fuller {
                    let (low, high) = (*node.key(index - 1), *node.key(index));
                    if high - low > 1 {
                        best = Some((node.len(), low + (high - low) / 2));
                    }
                }
                at = position.next();
            }
        }
        best.map(|(_, key)| key)
    }

    /// A key whose insertion splits as much as any.
    fn worst_key(map: &Map) -> u64 {
        new_key(map, CAPACITY).unwrap_or_else(|| map.last_key_value().map_or(1, |(key, _)| key + (1 << 20)))
    }

    /// Maps of many sizes, with nodes as they come, and with all leaves full.
    fn maps(mut check: impl FnMut(Map)) {
        for len in [0, 1, 11, 22, 23, 24, 100, 300, 700, 3000] {
            for full in [false, true] {
                let mut map = Map::new();
                for n in 1..=len {
                    map.insert(n << 20, n).unwrap();
                }
                while let Some(key) = new_key(&map, CAPACITY - 1).filter(|_| full) {
                    map.insert(key, 0).unwrap();
                }
                map.release_reserve();
                check(map);
            }
        }
    }

    #[test]
    fn reserved_inserts_do_not_allocate() {
        for count in [1, 2, 10, 100, 1000] {
            maps(|mut map| {
                map.reserve(count).unwrap();
                alloc_fault::clear();
                for _ in 0..count {
                    let key = worst_key(&map);
                    assert_eq!(map.insert(key, 0), Ok(None));
                }
                assert_eq!(alloc_fault::count(), 0);
                map.tree.check();
            });
        }
    }

    #[test]
    fn a_reserve_outlives_removals() {
        for seed in 0..20 {
            maps(|mut map| {
                let mut random = Random(seed);
                let count = 1 + random.below(200) as usize;
                map.reserve(count).unwrap();
                alloc_fault::clear();
                for _ in 0..count {
                    // Long runs of removals, so that nodes merge and levels vanish.
                    for _ in 0..random.below(2) * random.below(60) {
                        let key = random.below(3100) << 20;
                        match random.below(3) {
                            0 => map.pop_first(),
                            1 => map.pop_last(),
                            _ => {
                                let key = map.ceiling(&key).map(|(key, _)| *key);
                                key.and_then(|key| map.remove_entry(&key))
                            }
                        };
                    }
                    let key = worst_key(&map);
                    map.insert(key, 0).unwrap();
                }
                assert_eq!(alloc_fault::count(), 0);
                map.tree.check();
            });
        }
    }

    #[test]
    fn a_reserve_outlives_a_root_that_comes_and_goes() {
        let mut map = Map::new();
        for n in 0..CAPACITY as u64 {
            map.insert(n, 0).unwrap();
        }
        let (mut next, mut inserts) = (CAPACITY as u64, 0);
        map.reserve(300).unwrap();
        alloc_fault::clear();
        while inserts < 300 {
            let level = |map: &Map| {
                let root = map.tree.root.unwrap();
                // SAFETY: the map does not change meanwhile.
                unsafe { root.level() }
            };
            if level(&map) == 0 {
                map.insert(next, 0).unwrap();
                (next, inserts) = (next + 1, inserts + 1);
            } else {
                map.pop_first();
            }
        }
        assert_eq!(alloc_fault::count(), 0);
    }

    #[test]
    fn reserving_one_takes_a_node_for_each_level_and_one() {
        maps(|mut map| {
            let levels = map.tree.root.map_or(0, |root| {
                // SAFETY: the map does not change meanwhile.
                unsafe { root.level() + 1 }
            });
            alloc_fault::clear();
            map.reserve(1).unwrap();
            assert!(alloc_fault::count() <= levels as u64 + 1);
            map.reserve(1).unwrap();
            assert!(alloc_fault::count() <= levels as u64 + 1);
        });
    }

    #[test]
    fn a_failed_insert_or_reserve_changes_nothing_at_any_allocation() {
        let before = live::bytes();
        let mut failures = 0;
        maps(|mut map| {
            let entries: Vec<_> = map.iter().map(|(k, v)| (*k, *v)).collect();
            let key = worst_key(&map);
            for operation in 0..2 {
                for n in 0.. {
                    alloc_fault::fail_after(n);
                    let result = match operation {
                        0 => map.reserve(40),
                        _ => map.insert(key, 0).map(|_| ()),
                    };
                    let tripped = alloc_fault::tripped();
                    alloc_fault::clear();
                    assert_eq!(result.is_err(), tripped);
                    if !tripped {
                        break;
                    }
                    failures += 1;
                    assert!(map.iter().map(|(k, v)| (*k, *v)).eq(entries.iter().copied()));
                    assert_eq!(map.tree.check(), map.len());
                    map.release_reserve();
                }
                map.release_reserve();
            }
            assert_eq!(map.get(&key), Some(&0));
            assert_eq!(map.len(), entries.len() + 1);
        });
        assert!(failures > 50);
        assert_eq!(live::bytes(), before);
    }
}
