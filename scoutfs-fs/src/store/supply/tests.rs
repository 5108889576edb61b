// SPDX-License-Identifier: GPL-2.0-only
//! Space on its way between the mount and the server.

use std::boxed::Box;
use std::sync::mpsc::sync_channel;
use std::thread;

use scoutfs_btree::space::SpaceKind;
use scoutfs_format::msg::{MSG_SPACE_GIVE, SPACE_AHEAD};

use super::Supplied;
use crate::fs::testing::TestFs;
use crate::store::{Store, Wish};

/// All data blocks that the server has.
fn take_all(store: &Store) {
    loop {
        match store.request_space(SpaceKind::Data, 1 << 30).unwrap() {
            Supplied::Some => drop(store.commit(Wish::default()).unwrap()),
            Supplied::Later => thread::yield_now(),
            Supplied::None => return,
        }
    }
}

/// The server has nothing but what it is given, so it hands out the same blocks again. It may do so before the mount has
/// read that its gift arrived: until then the mount takes no hand-over.
#[test]
fn a_gift_is_forgotten_before_its_blocks_come_back() {
    let fs = TestFs::new();
    let store = fs.store();
    take_all(store);
    let (arrived, at_answer) = sync_channel(0);
    let (go_on, may_go_on) = sync_channel::<()>(0);
    let hook = move || {
        arrived.send(()).unwrap();
        // An error means that the test has failed, and is to end.
        let _ = may_go_on.recv();
    };
    *store.client.on_answer.lock() = Some((MSG_SPACE_GIVE, Box::new(hook)));
    let keep = store.space.lock().free_blocks(SpaceKind::Data) - 64;
    assert!(store.give(SpaceKind::Data, 64, keep).unwrap());
    store.commit(Wish::default()).unwrap();
    thread::scope(|scope| {
        // Goes with this scope: who waits goes on when the test has failed.
        let go_on = go_on;
        // Whoever tells the server first, this thread or the worker, stops when the answer has come.
        let teller = scope.spawn(|| store.tell_server());
        at_answer.recv().unwrap();
        assert_ne!(store.space.lock().given().count(), 0);
        // Who wants space now has to wait. Who would not, gets what the mount has not forgotten.
        if let Some(mut turn) = store.numbers.supply.try_lock() {
            panic!(
                "nobody waits: {:?}",
                store.request_space_in_turn(SPACE_AHEAD, SpaceKind::Data, 64, &mut turn)
            );
        }
        go_on.send(()).unwrap();
        teller.join().unwrap().unwrap();
    });
    assert_eq!(store.space.lock().given().count(), 0);
    assert_eq!(store.request_space(SpaceKind::Data, 64).unwrap(), Supplied::Some);
    let pending = store.space.lock().pending_blocks(SpaceKind::Data);
    assert_eq!(pending, 64, "the server had other blocks, too");
    store.commit(Wish::default()).unwrap();
    assert_eq!(store.space.lock().free_blocks(SpaceKind::Data), keep + 64);
}
