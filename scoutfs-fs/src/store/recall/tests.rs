// SPDX-License-Identifier: GPL-2.0-only
//! What goes back and what stays.

use scoutfs_btree::space::SpaceKind;
use scoutfs_format::item::ROOT_INO;
use scoutfs_format::le::{U32, U64};
use scoutfs_format::msg::{SpaceRecall, SpaceRecalled};

use super::Waiting;
use crate::fs::Fs;
use crate::fs::testing::{FILE, Pair, bytes};
use crate::store::supply::Supplied;
use crate::store::{Store, Wish};

const DATA: SpaceKind = SpaceKind::Data;
const META: SpaceKind = SpaceKind::Meta;

/// A mount that has some data blocks, and fewer than it would give back by itself.
fn with_data(store: &Store) -> u64 {
    let piece = store.space_chunk(DATA);
    while store.free_blocks(DATA) < 3 * piece {
        assert_eq!(store.request_space(DATA, piece).unwrap(), Supplied::Some);
        store.commit(Wish::default()).unwrap();
    }
    store.free_blocks(DATA)
}

fn recall(fs: &Fs, kind: SpaceKind, blocks: u64, slot: u32, all: bool) -> bool {
    let recall = SpaceRecall {
        round: U64::new(77),
        blocks: U64::new(blocks),
        kind: U32::new(kind.to_raw().into()),
        slot: U32::new(slot),
        all: U32::new(all.into()),
        pad: U32::ZERO,
    };
    let SpaceRecalled { round, kind: of, kept } =
        fs.store().give_recalled(&recall, false, || fs.drop_reservations()).unwrap();
    assert_eq!((round, of), (recall.round, recall.kind));
    assert!(kept.get() <= 1);
    kept.get() == 1
}

#[test]
fn data_go_back_with_what_is_set_aside_and_what_is_freed_and_not_committed() {
    let pair = Pair::new();
    let fs = pair.b.fs();
    let store = fs.store();
    let free = with_data(store);
    let [grows, goes] = [&b"grows"[..], b"goes"].map(|name| fs.create(ROOT_INO, name, &FILE).unwrap().ino);
    fs.write(goes, 0, &bytes(1, 400_000)).unwrap();
    for n in 0..30 {
        fs.write(grows, n * 5000, &bytes(2, 5000)).unwrap();
    }
    fs.sync().unwrap();
    fs.unlink(ROOT_INO, b"goes").unwrap();
    fs.forget(goes, 1);
    let (held, pending) = {
        let space = store.space.lock();
        (space.held_blocks(DATA), space.pending_blocks(DATA))
    };
    assert!(held > 0 && pending > 90, "{held} set aside, {pending} freed");
    let grown = 150_000_u64.div_ceil(4096);
    let server = || store.statfs().unwrap().server_free_data;
    let before = server();
    // As much as is wanted.
    assert!(!recall(fs, DATA, 100, 0, false));
    assert_eq!((store.free_blocks(DATA), server()), (free - grown - 100, before + 100));
    assert!(!recall(fs, DATA, u64::MAX, 0, false));
    assert_eq!(store.free_blocks(DATA), 0);
    {
        let space = store.space.lock();
        assert_eq!((space.held_blocks(DATA), space.pending_blocks(DATA)), (0, 0));
        assert_eq!(space.given().count(), 0, "the server has it");
    }
    assert!(!recall(fs, DATA, u64::MAX, 0, false), "nothing is left");
    assert_eq!(fs.read_all(grows).len(), 150_000);
}

/// Whoever waits here, too, can go on with what stays.
#[test]
fn half_of_the_data_stay_with_who_waits_for_some() {
    let pair = Pair::new();
    let fs = pair.b.fs();
    let store = fs.store();
    let mut free = with_data(store);
    let waiting = Waiting::new(&store.numbers.waiting[DATA as usize]);
    while free > 1 {
        assert!(recall(fs, DATA, u64::MAX, 0, false), "some stay");
        assert_eq!(store.free_blocks(DATA), free.div_ceil(2));
        free = free.div_ceil(2);
    }
    assert!(recall(fs, DATA, u64::MAX, 0, false), "the last one");
    assert_eq!(store.free_blocks(DATA), 1);
    drop(waiting);
    assert!(!recall(fs, DATA, u64::MAX, 0, false));
    assert_eq!(store.free_blocks(DATA), 0);
}

#[test]
fn metadata_that_are_not_needed_go_back_and_to_the_lowest_slot_from_who_waits() {
    let pair = Pair::new();
    let fs = pair.b.fs();
    let store = fs.store();
    let more = |blocks: u64| {
        let used = store.meta_want(0, false);
        while store.free_blocks(META) < used + blocks {
            assert_eq!(store.request_space(META, blocks).unwrap(), Supplied::Some);
            store.commit(Wish::default()).unwrap();
        }
    };
    let spare = || store.free_blocks(META).saturating_sub(store.meta_want(0, false));
    more(20);
    // The worker gets its first blocks meanwhile, once.
    for _ in 0..3 {
        assert!(!recall(fs, META, u64::MAX, 0, false));
        store.refill().unwrap();
    }
    assert_eq!(spare(), 0);
    assert!(store.free_blocks(META) >= store.space.lock().reserve_blocks());
    more(20);
    let own = store.identity.slot;
    assert!(own > 0);
    let waiting = Waiting::new(&store.numbers.waiting[META as usize]);
    let before = store.free_blocks(META);
    for slot in [own, own + 1, u32::MAX] {
        assert!(recall(fs, META, u64::MAX, slot, false), "it is kept for who waits here");
        assert_eq!(store.free_blocks(META), before);
    }
    recall(fs, META, u64::MAX, own - 1, false);
    assert!(store.free_blocks(META) < before);
    drop(waiting);
    assert!(!recall(fs, META, u64::MAX, 0, false));
    assert_eq!(spare(), 0);
}

/// Zones that get empty can become the other kind, and logs hold what was deleted.
#[test]
fn when_nothing_else_is_left_the_other_kind_goes_back_and_logs_are_finalized() {
    let pair = Pair::new();
    let fs = pair.b.fs();
    let store = fs.store();
    with_data(store);
    fs.create(ROOT_INO, b"file", &FILE).unwrap();
    fs.sync().unwrap();
    assert!(!recall(fs, META, 1, 0, false));
    assert!(store.free_blocks(DATA) > 0 && store.slot.lock().has_items());
    assert!(!recall(fs, META, 1, 0, true));
    assert_eq!(store.free_blocks(DATA), 0);
    assert!(!store.slot.lock().has_items());
}

#[test]
fn a_recall_of_nothing_that_is_known_is_answered() {
    let pair = Pair::new();
    let store = pair.b.fs().store();
    let recall = SpaceRecall { kind: U32::new(99), round: U64::new(3), ..SpaceRecall::default() };
    let answer = store.give_recalled(&recall, false, || ()).unwrap();
    assert_eq!((answer.round.get(), answer.kind.get(), answer.kept.get()), (3, 99, 0));
}

/// What a mount gives back by itself it does not soon ask for again.
#[test]
fn far_too_much_goes_back_and_a_little_too_much_does_not() {
    let pair = Pair::new();
    let store = pair.b.fs().store();
    let gifts = || {
        let mut sent = 0;
        let count = &mut |name: &str, value| {
            if name == "sent_space_give" {
                sent = value;
            }
            Ok(())
        };
        pair.b.fs().for_each_counter(count).unwrap();
        sent
    };
    let piece = store.space_chunk(DATA);
    with_data(store);
    let before = gifts();
    store.give_back_unused().unwrap();
    assert_eq!(gifts(), before);
    while store.free_blocks(DATA) <= 4 * piece {
        assert_eq!(store.request_space(DATA, piece).unwrap(), Supplied::Some);
        store.commit(Wish::default()).unwrap();
    }
    // The worker might have been first.
    store.give_back_unused().unwrap();
    assert_eq!(store.free_blocks(DATA), 2 * piece);
    let after = gifts();
    assert!(after > before);
    for _ in 0..3 {
        store.refill().unwrap();
        store.give_back_unused().unwrap();
    }
    assert_eq!((store.free_blocks(DATA), gifts()), (2 * piece, after));
}
