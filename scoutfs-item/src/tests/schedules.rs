// SPDX-License-Identifier: GPL-2.0-only
//! A slow reader against a writer that commits and evicts, and who comes back to an item that others move meanwhile, in many orders.

use scoutfs_env::Arc;
use scoutfs_env::thread::spawn;

use super::forest::Forest;
use super::{ALL, SMALL_PAGES, key};
use crate::{ItemCache, ItemError, Spot};

struct World {
    cache: ItemCache,
    forest: Forest,
}

fn world() -> Arc<World> {
    let forest = Forest::new(10);
    forest.put(key(5), 1, b"old");
    let world = World { cache: ItemCache::new(SMALL_PAGES), forest };
    Arc::new(world).unwrap()
}

/// Reads run against the write; afterwards everybody must see what was written.
fn race(write: fn(&World)) {
    shuttle::check_random(
        move || {
            let world = world();
            let other = world.clone();
            let reader = spawn("reader", move || {
                other.cache.get(&other.forest, ALL, key(4), |_, _| ()).unwrap();
            });
            let other = world.clone();
            let evictor = spawn("evictor", move || {
                other.cache.shrink(0);
                match other.cache.invalidate(key(5), key(6)) {
                    Ok(()) | Err(ItemError::DirtyInvalidate { .. }) => (),
                    Err(error) => panic!("{error}"),
                }
            });
            write(&world);
            world.cache.take_dirty(|batch| world.forest.commit(batch)).unwrap();
            world.cache.shrink(0);
            reader.unwrap().join();
            evictor.unwrap().join();
            let found = world.cache.get(&world.forest, ALL, key(5), |value, _| value.to_vec()).unwrap();
            assert_eq!(found, world.forest.record(key(5)).unwrap().1);
            assert_ne!(found.as_deref(), Some(&b"old"[..]));
            world.cache.assert_consistent();
        },
        3000,
    );
}

#[test]
fn a_slow_read_does_not_undo_an_update() {
    race(|world| world.cache.update(&world.forest, ALL, key(5), 2, &[b"new"]).unwrap());
}

#[test]
fn a_slow_read_does_not_undo_a_deletion() {
    race(|world| world.cache.delete(&world.forest, ALL, key(5), 2).unwrap());
}

#[test]
fn a_slow_read_does_not_undo_a_forced_creation() {
    race(|world| world.cache.create_force(key(5), 2, &[b"new"]).unwrap());
}

#[test]
fn a_slow_read_does_not_undo_a_forced_deletion() {
    race(|world| world.cache.delete_force(key(5), 2).unwrap());
}

/// Whoever made an item dirty finds it where it is by then, though others split its page, take items out before it, and evict.
#[test]
fn a_spot_finds_its_item_when_others_move_it() {
    shuttle::check_random(
        || {
            let world = world();
            let other = world.clone();
            let mover = spawn("mover", move || {
                for k in [1, 2, 8, 9] {
                    other.cache.create(&other.forest, ALL, key(k), 2, &[&[3; 90]]).unwrap();
                }
                other.cache.delete_dirty(key(1), 2).unwrap();
            });
            let other = world.clone();
            let evictor = spawn("evictor", move || {
                other.cache.shrink(0);
                other.cache.shrink(0);
            });
            let mut spot = Spot::default();
            let reader = &world.forest;
            world.cache.get_near(reader, ALL, key(5), &mut spot, |_, _| ()).unwrap();
            world.cache.dirty_near(reader, ALL, key(5), 2, &mut spot).unwrap();
            world.cache.update_dirty_near(key(5), 2, spot, &[b"new"]).unwrap();
            let value = |spot: &mut Spot| {
                world.cache.get_near(reader, ALL, key(5), spot, |value, _| value.to_vec()).unwrap()
            };
            assert_eq!(value(&mut spot).as_deref(), Some(&b"new"[..]));
            mover.unwrap().join();
            evictor.unwrap().join();
            assert_eq!(value(&mut spot).as_deref(), Some(&b"new"[..]));
            world.cache.delete_dirty_near(key(5), 2, spot).unwrap();
            assert_eq!(value(&mut spot), None);
            for k in [2, 8, 9] {
                let found = world.cache.get(reader, ALL, key(k), |value, _| value.len()).unwrap();
                assert_eq!(found, Some(90));
            }
            world.cache.assert_consistent();
        },
        3000,
    );
}
