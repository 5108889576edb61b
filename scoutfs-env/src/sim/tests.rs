// SPDX-License-Identifier: GPL-2.0-only
//! The scheduler: one seed is one run, the clock jumps, and what cannot go on is told.

use core::time::Duration;
use std::string::String;
use std::vec::Vec;

use super::*;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Condvar, Mutex};
use crate::{Arc, thread, time};

fn config(seed: u64) -> Config {
    Config {
        seed,
        preempt: 2,
        longest: Duration::from_secs(1000),
        steps: 1_000_000,
        trace: false,
        backtraces: false,
    }
}

/// Which of three tasks came when.
fn race(seed: u64) -> (Report, String) {
    let order = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
    let of_tasks = order.clone();
    let report = run(config(seed), move || {
        let shared = Arc::new((Mutex::new(0u32), Condvar::new())).unwrap();
        let tasks: Vec<_> = ["a", "b", "c"]
            .into_iter()
            .map(|name| {
                let (shared, order) = (shared.clone(), of_tasks.clone());
                thread::spawn(name, move || {
                    for _ in 0..20 {
                        *shared.0.lock() += 1;
                        order.lock().unwrap().push_str(name);
                        shared.1.notify_all();
                    }
                })
                .unwrap()
            })
            .collect();
        let mut sum = shared.0.lock();
        while *sum < 60 {
            sum = shared.1.wait(sum);
        }
        drop(sum);
        tasks.into_iter().for_each(thread::JoinHandle::join);
    });
    let order = order.lock().unwrap().clone();
    (report, order)
}

#[test]
fn one_seed_is_one_run_and_another_is_another() {
    let (first, first_order) = race(7);
    assert_eq!(first.outcome, Outcome::Finished);
    for _ in 0..5 {
        let (again, order) = race(7);
        assert_eq!(
            (again.trace, again.steps, again.took_ns, &order),
            (first.trace, first.steps, first.took_ns, &first_order)
        );
    }
    let others =
        (8..12).map(race).filter(|(other, order)| other.trace != first.trace && *order != first_order);
    assert_eq!(others.count(), 4);
}

#[test]
fn the_clock_jumps_and_drifts() {
    let began = std::time::Instant::now();
    let report = run(config(1), || {
        let start = now_ns();
        let fast = add_node(10_000);
        let seen = Arc::new(AtomicU64::new(0)).unwrap();
        let of_node = seen.clone();
        spawn(fast, "fast", move || {
            let start = time::mono_now();
            time::sleep(Duration::from_secs(101));
            let slept = time::mono_now().saturating_duration_since(start);
            of_node.store(slept.as_millis() as u64, Ordering::Relaxed);
        })
        .unwrap()
        .join();
        assert_eq!(seen.load(Ordering::Relaxed), 101_000);
        assert_eq!((now_ns() - start) / 1_000_000, 100_000);
    });
    assert_eq!(report.outcome, Outcome::Finished);
    assert!(began.elapsed() < Duration::from_secs(50), "nobody waits for real");
}

#[test]
fn who_waits_for_each_other_is_a_deadlock_and_is_named() {
    let report = run(config(3), || {
        let locks = Arc::new((Mutex::new(()), Mutex::new(()))).unwrap();
        let other = locks.clone();
        let task = thread::spawn("other", move || {
            let _second = other.1.lock();
            time::sleep(Duration::from_secs(1));
            let _first = other.0.lock();
        })
        .unwrap();
        let first = locks.0.lock();
        time::sleep(Duration::from_secs(1));
        let second = locks.1.lock();
        drop((first, second));
        task.join();
    });
    assert_eq!(report.outcome, Outcome::Deadlock);
    let waiting: Vec<_> = report.waiting.iter().filter(|line| line.contains("waits for a mutex")).collect();
    assert_eq!(waiting.len(), 2, "{:?}", report.waiting);
}

#[test]
fn a_paused_node_goes_on_later_and_a_crashed_one_never() {
    let report = run(config(4), || {
        let counts = Arc::new((AtomicU64::new(0), AtomicU64::new(0))).unwrap();
        let nodes = [add_node(0), add_node(0)];
        for (n, node) in nodes.into_iter().enumerate() {
            let counts = counts.clone();
            spawn(node, "counts", move || {
                loop {
                    time::sleep(Duration::from_secs(1));
                    let count = if n == 0 { &counts.0 } else { &counts.1 };
                    count.fetch_add(1, Ordering::Relaxed);
                }
            })
            .unwrap();
        }
        let read = || (counts.0.load(Ordering::Relaxed), counts.1.load(Ordering::Relaxed));
        time::sleep(Duration::from_millis(9_500));
        assert_eq!(read(), (9, 9));
        pause(nodes[0], Duration::from_secs(10));
        crash(nodes[1]);
        time::sleep(Duration::from_secs(9));
        assert_eq!(read(), (9, 9));
        time::sleep(Duration::from_secs(10));
        assert!((18..=19).contains(&read().0), "{:?}", read());
        assert_eq!(read().1, 9);
    });
    assert_eq!(report.outcome, Outcome::Finished);
}

#[test]
fn a_panic_and_a_run_without_end_are_told() {
    let report = run(config(5), || {
        thread::spawn("falls", || panic!("as planned")).unwrap().join();
    });
    assert_eq!(report.outcome, Outcome::Failed("a panic in falls: as planned".into()));
    let report = run(config(5), || {
        loop {
            time::sleep(Duration::from_secs(10));
        }
    });
    assert_eq!(report.outcome, Outcome::Endless);
}

#[test]
fn a_wait_times_out_only_when_nobody_notifies() {
    let report = run(config(6), || {
        let shared = Arc::new((Mutex::new(false), Condvar::new())).unwrap();
        let (guard, timed_out) = shared.1.wait_timeout(shared.0.lock(), Duration::from_secs(5));
        assert!(timed_out && !*guard);
        drop(guard);
        let other = shared.clone();
        thread::spawn("notifies", move || {
            *other.0.lock() = true;
            other.1.notify_one();
        })
        .unwrap();
        let mut guard = shared.0.lock();
        while !*guard {
            let timed_out;
            (guard, timed_out) = shared.1.wait_timeout(guard, Duration::from_secs(500));
            assert!(!timed_out);
        }
    });
    assert_eq!(report.outcome, Outcome::Finished);
}
