// SPDX-License-Identifier: GPL-2.0-only
//! The locks under shuttle: `cargo test -p scoutfs-env --features shuttle`.
#![cfg(feature = "shuttle")]

use std::sync::Arc;

use scoutfs_env::sync::{Condvar, Mutex, RwLock};
use scoutfs_env::thread;

#[test]
fn a_condvar_hands_every_item_over_in_any_schedule() {
    shuttle::check_random(
        || {
            let shared = Arc::new((Mutex::new((0u32, false)), Condvar::new()));
            let producer = shared.clone();
            let handle = thread::spawn("producer", move || {
                for _ in 0..3 {
                    producer.0.lock().0 += 1;
                    producer.1.notify_one();
                }
                producer.0.lock().1 = true;
                producer.1.notify_one();
            })
            .unwrap();
            let mut taken = 0;
            let mut guard = shared.0.lock();
            loop {
                taken += std::mem::take(&mut guard.0);
                if guard.1 {
                    break;
                }
                guard = shared.1.wait(guard);
            }
            drop(guard);
            handle.join();
            assert_eq!(taken, 3);
        },
        500,
    );
}

/// Shuttle is in charge: it finds the schedule in which two threads read before either writes.
#[test]
#[should_panic(expected = "an update was lost")]
fn a_lost_update_is_found() {
    shuttle::check_random(
        || {
            let count = Arc::new(RwLock::new(0));
            let other = count.clone();
            let add = |count: &RwLock<u32>| {
                let seen = *count.read();
                *count.write() = seen + 1;
            };
            let handle = thread::spawn("adder", move || add(&other)).unwrap();
            add(&count);
            handle.join();
            assert_eq!(*count.read(), 2, "an update was lost");
        },
        500,
    );
}
