// SPDX-License-Identifier: GPL-2.0-only
//! Locks of fcntl and flock between processes, on one node and on several.

use std::fs;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::cluster::{leave, nodes};
use crate::cluster_deaths::{TAKEOVER, three};
use crate::locker::Locker;
use crate::run::{SOON, program, run, run_for, wait_until};
use crate::volume::{Mounted, Volume};
use crate::wires::Wires;

const SERVER: &str = "server_addr=127.0.0.1";
/// A process on each of these nodes, with the same file open.
fn lockers(nodes: &[&Mounted<'_>], name: &str) -> Vec<Locker> {
    nodes.iter().map(|node| Locker::new(&node.join(name))).collect()
}

/// All rules that two processes can see, for one pair of places.
fn locks_exclude(a: &Mounted<'_>, b: &Mounted<'_>, same_node: bool) {
    let [a, b] = &mut lockers(&[a, b], "rules")[..] else { unreachable!() };
    let by_a = if same_node { a.pid() } else { 0 };
    // fcntl: ranges.
    assert_eq!(a.ask("set w 10 10"), "ok");
    assert_eq!(b.ask("set w 0 10"), "ok");
    assert_eq!(b.ask("set r 19 5"), "EAGAIN");
    assert_eq!(b.ask("set r 20 0"), "ok");
    assert_eq!(b.ask("get w 0 0"), format!("w 10 10 by {by_a}"));
    assert_eq!(a.ask("set r 30 1"), "ok");
    assert_eq!(a.ask("set w 30 1"), "EAGAIN");
    // A part is given back, a part is shared.
    assert_eq!(a.ask("set u 12 2"), "ok");
    assert_eq!(a.ask("set r 16 4"), "ok");
    assert_eq!(b.ask("set w 12 2"), "ok");
    assert_eq!(b.ask("set w 14 1"), "EAGAIN");
    assert_eq!(b.ask("set r 16 4"), "ok");
    assert_eq!(b.ask("get r 0 0"), format!("w 10 2 by {by_a}"));
    assert_eq!(a.ask("set u 0 0"), "ok");
    assert_eq!(b.ask("get w 0 0"), "free");
    assert_eq!(a.ask("get w 0 0").split(" by").next().unwrap(), "w 0 10");
    assert_eq!(b.ask("set u 0 0"), "ok");
    // A lock that is to become a weaker one of more bytes is what it was when that is refused.
    assert_eq!(a.ask("set w 10 5"), "ok");
    assert_eq!(b.ask("set w 20 1"), "ok");
    assert_eq!(a.ask("set r 10 15"), "EAGAIN");
    assert_eq!(b.ask("set r 12 1"), "EAGAIN");
    assert_eq!(b.ask("set u 0 0"), "ok");
    assert_eq!(a.ask("set r 10 15"), "ok");
    assert_eq!(b.ask("set r 12 1"), "ok");
    assert_eq!(b.ask("set w 24 1"), "EAGAIN");
    for locker in [&mut *a, b] {
        assert_eq!(locker.ask("set u 0 0"), "ok");
    }
    // To the end of the file, wherever that is.
    assert_eq!(a.ask("set w 100 0"), "ok");
    assert_eq!(b.ask("get r 4000000000000 1"), format!("w 100 0 by {by_a}"));
    assert_eq!(a.ask("set u 0 0"), "ok");
    // flock, which does not see fcntl.
    assert_eq!(a.ask("set w 0 0"), "ok");
    assert_eq!(b.ask("flock try-ex"), "ok");
    assert_eq!(a.ask("flock try-sh"), "EAGAIN");
    assert_eq!(b.ask("flock try-sh"), "ok");
    assert_eq!(a.ask("flock try-sh"), "ok");
    assert_eq!(a.ask("flock try-ex"), "EAGAIN");
    assert_eq!(b.ask("flock try-ex"), "ok", "a failed upgrade loses what was held");
    assert_eq!(b.ask("flock un"), "ok");
    // Locks of open file descriptions.
    assert_eq!(a.ask("set u 0 0"), "ok");
    assert_eq!(a.ask("ofd-set w 5 5"), "ok");
    assert_eq!(b.ask("set r 0 6"), "EAGAIN");
    assert_eq!(a.ask("set r 0 6"), "EAGAIN", "the process and its open file are two owners");
    assert_eq!(b.ask("ofd-set w 10 5"), "ok");
    assert_eq!(a.ask("ofd-set u 0 0"), "ok");
    assert_eq!(b.ask("set r 0 6"), "ok");
    // Waiting and waking, each way.
    for (take, wait, give) in [
        ("set w 0 5", "wait r 4 2", "set u 4 1"),
        ("flock ex", "flock sh", "flock un"),
        ("ofd-set r 0 0", "ofd-wait w 7 1", "ofd-set u 7 1"),
        ("ofd-set w 50 1", "wait w 50 1", "close"),
    ] {
        for locker in [&mut *a, b] {
            for all in ["set u 0 0", "ofd-set u 0 0", "flock un"] {
                assert_eq!(locker.ask(all), "ok");
            }
        }
        assert_eq!(a.ask(take), "ok");
        b.wait(wait);
        assert_eq!(a.ask(give), "ok");
        assert_eq!(b.answer(), "ok", "{take}, {wait}, {give}");
    }
}

#[test]
fn locks_exclude_on_one_node() {
    let volume = Volume::new(64);
    let node = volume.mount();
    locks_exclude(&node, &node, true);
    node.unmount();
}

#[test]
fn locks_exclude_between_nodes() {
    let volume = Volume::new(256);
    let nodes = nodes(&volume, 3);
    // The node with the server and one without, each way, and two without.
    for (a, b) in [(0, 1), (1, 0), (1, 2)] {
        locks_exclude(&nodes[a], &nodes[b], false);
    }
    leave(&volume, nodes);
}

/// Closing any descriptor of a file drops the process's own locks of fcntl; those of open files stay as long as these are open,
/// whoever has them.
#[test]
fn closing_drops_what_it_should_and_nothing_else() {
    let volume = Volume::new(256);
    let nodes = nodes(&volume, 2);
    let path = nodes[1].join("closing");
    let mut both = lockers(&[&nodes[0], &nodes[1]], "closing");
    let [other, closer] = &mut both[..] else { unreachable!() };
    let mut third = Locker::new(&path);
    assert_eq!(closer.ask("flock ex"), "ok");
    assert_eq!(closer.ask("set w 0 5"), "ok");
    assert_eq!(closer.ask("ofd-set w 5 5"), "ok");
    assert_eq!(third.ask("set w 10 5"), "ok");
    // Another descriptor of the same open file, and another open file.
    assert_eq!(closer.ask("dup"), "ok");
    assert_eq!(closer.ask(&format!("open {}", path.display())), "ok");
    assert_eq!(other.ask("set r 0 5"), "EAGAIN");
    assert_eq!(closer.ask("close"), "ok");
    assert_eq!(other.ask("set w 0 5"), "ok");
    for held in ["flock try-sh", "set r 5 1", "set r 10 1"] {
        assert_eq!(other.ask(held), "EAGAIN", "{held}");
    }
    assert_eq!(closer.ask("close"), "ok");
    for held in ["flock try-sh", "set r 5 1", "set r 10 1"] {
        assert_eq!(other.ask(held), "EAGAIN", "the open file has another descriptor: {held}");
    }
    assert_eq!(closer.ask("close"), "ok");
    // The kernel tells of the last close without waiting for the answer.
    wait_until("the lock of flock goes with its file", SOON, || other.ask("flock try-ex") == "ok");
    wait_until("the lock of the open file goes with it", SOON, || other.ask("set w 5 5") == "ok");
    assert_eq!(other.ask("set r 10 1"), "EAGAIN");
    // A process that ends closes all.
    third.kill();
    assert_eq!(other.ask("set r 10 1"), "ok");
    // A file without a name is locked like another, until it is closed.
    let mut fourth = Locker::new(&path);
    fs::remove_file(&path).unwrap();
    assert_eq!(fourth.ask("set r 0 1"), "EAGAIN");
    assert_eq!(fourth.ask("set w 20 1"), "ok");
    assert_eq!(other.ask("set r 20 1"), "EAGAIN");
    drop((both, fourth));
    leave(&volume, nodes);
}

#[test]
fn a_waiter_can_be_interrupted_and_killed() {
    let volume = Volume::new(256);
    let nodes = nodes(&volume, 2);
    for (class, take, wait, give) in
        [("fcntl", "set w 0 0", "wait w 0 9", "set u 0 0"), ("flock", "flock ex", "flock ex", "flock un")]
    {
        for node in &nodes {
            let [holder, other] = &mut lockers(&[&nodes[0], &nodes[1]], class)[..] else { unreachable!() };
            let mut waiter = Locker::new(&node.join(class));
            assert_eq!(holder.ask(take), "ok");
            waiter.wait(wait);
            // A handler that lets system calls go on: it waits again.
            waiter.signal(Signal::USR2);
            waiter.still_waits();
            waiter.signal(Signal::USR1);
            assert_eq!(waiter.answer(), "EINTR");
            // It waits for nothing: the lock goes to nobody.
            assert_eq!(holder.ask(give), "ok");
            assert_eq!(other.ask(take), "ok");
            waiter.wait(wait);
            waiter.signal(Signal::USR2);
            waiter.still_waits();
            assert_eq!(other.ask(give), "ok");
            assert_eq!(waiter.answer(), "ok", "the call that was begun again gets the lock");
            waiter.kill();
            // Killed while it waits: it goes at once, and leaves nothing behind.
            assert_eq!(holder.ask(take), "ok");
            let mut waiter = Locker::new(&node.join(class));
            waiter.wait(wait);
            waiter.kill();
            assert_eq!(holder.ask(give), "ok");
            assert_eq!(other.ask(take), "ok");
        }
    }
    leave(&volume, nodes);
}

/// More processes wait than there are threads for other requests; the mount goes on.
#[test]
fn many_waiters_do_not_hang_a_mount() {
    let volume = Volume::new(256);
    let nodes = nodes(&volume, 2);
    let mut holder = Locker::new(&nodes[0].join("busy"));
    assert_eq!(holder.ask("set w 0 0"), "ok");
    let mut waiters = lockers(&[&nodes[1]; 24], "busy");
    for waiter in &mut waiters {
        waiter.begin("wait r 0 0");
    }
    waiters[0].still_waits();
    fs::write(nodes[1].join("other"), b"goes on").unwrap();
    nodes[1].sync();
    assert_eq!(fs::read(nodes[0].join("other")).unwrap(), b"goes on");
    let killed = waiters.split_off(12);
    killed.into_iter().for_each(Locker::kill);
    assert_eq!(holder.ask("set u 0 0"), "ok");
    for waiter in &mut waiters {
        assert_eq!(waiter.answer(), "ok");
    }
    drop((holder, waiters));
    leave(&volume, nodes);
}

#[test]
fn processes_of_two_nodes_that_wait_for_each_other_are_told() {
    let volume = Volume::new(256);
    let nodes = nodes(&volume, 3);
    let mut all = lockers(&[&nodes[0], &nodes[1], &nodes[2]], "circle");
    let [a, b, c] = &mut all[..] else { unreachable!() };
    assert_eq!(a.ask("set w 0 1"), "ok");
    assert_eq!(b.ask("set w 1 1"), "ok");
    assert_eq!(c.ask("set w 2 1"), "ok");
    a.wait("wait w 1 1");
    b.wait("wait r 2 1");
    assert_eq!(c.ask("wait w 0 1"), "EDEADLK");
    assert_eq!(c.ask("set u 0 0"), "ok");
    assert_eq!(b.answer(), "ok");
    assert_eq!(b.ask("set u 0 0"), "ok");
    assert_eq!(a.answer(), "ok");
    drop(all);
    leave(&volume, nodes);
}

/// Who has a lock, who waits, and who runs the server: each is killed once, and nobody has what another has.
#[test]
fn locks_outlive_the_death_of_other_nodes() {
    let volume = Volume::with_quorum(256, 2);
    let mut nodes = three(&volume);
    // Any of them may lead; each dies once.
    for victim in 0..3 {
        let (b, c) = ((victim + 1) % 3, (victim + 2) % 3);
        let mut all = lockers(&[&nodes[victim], &nodes[b], &nodes[c]], "file");
        let [dying, b, c] = &mut all[..] else { unreachable!() };
        let mut second = Locker::new(&nodes[(victim + 1) % 3].join("file"));
        // Held by one that dies and by ones that do not, and waited for by both.
        assert_eq!(dying.ask("set w 0 10"), "ok");
        assert_eq!(dying.ask("flock ex"), "ok");
        assert_eq!(b.ask("set w 10 10"), "ok");
        assert_eq!(b.ask("ofd-set w 30 10"), "ok");
        assert_eq!(c.ask("set r 20 10"), "ok");
        b.wait("flock ex");
        c.wait("wait w 5 10");
        dying.wait("wait w 30 1");
        nodes[victim].kill_daemon();
        // Free once it is reclaimed, and not before it is dead.
        assert_eq!(b.answer_within(TAKEOVER), "ok", "the lock of flock of a dead node");
        // Also of the byte range, where there is still one in the way that lives.
        wait_until("the range of the dead node is free", TAKEOVER, || second.ask("set r 0 5") == "ok");
        c.still_waits();
        // The others have what they had.
        assert_eq!(second.ask("set r 10 1"), "EAGAIN");
        assert_eq!(second.ask("set w 20 1"), "EAGAIN");
        assert_eq!(second.ask("set r 20 1"), "ok", "the dead node waits for nothing");
        assert_eq!(second.ask("set r 30 1"), "EAGAIN");
        assert_eq!(second.ask("flock try-sh"), "EAGAIN");
        assert_eq!(b.ask("set u 0 0"), "ok");
        assert_eq!(c.answer(), "ok");
        assert_ne!(dying.answer(), "ok", "who waited on the dead node has nothing");
        assert_ne!(dying.ask("write"), "ok", "what is left of the dead node writes nothing");
        drop((all, second));
        nodes.remove(victim).bury_node();
        nodes.insert(victim, volume.mount_node(&format!("node{victim}"), SERVER));
    }
    // On a busy machine the last one may leave before it is elected: then the volume is sound, though not said to be clean.
    nodes.into_iter().rev().for_each(Mounted::leave);
    volume.check();
}

/// A node whose cable is out for less than its lease has what it had, and gets what it was granted meanwhile; nobody else does.
#[test]
fn locks_outlive_a_cable_that_is_pulled() {
    let volume = Volume::new(256);
    let wires = Wires::new(3);
    let mount = |node: usize| {
        let options =
            if node == 0 { format!("server_addr={}", wires.address(0)) } else { String::from("rw") };
        volume.mount_node_by(&format!("node{node}"), &options, |command| wires.at(node, &command))
    };
    let nodes: Vec<_> = (0..3).map(mount).collect();
    let mut all = lockers(&[&nodes[0], &nodes[1], &nodes[1], &nodes[2]], "file");
    let [server, holds, waits, other] = &mut all[..] else { unreachable!() };
    for _ in 0..3 {
        assert_eq!(holds.ask("set w 0 10"), "ok");
        assert_eq!(other.ask("set w 20 10"), "ok");
        waits.wait("wait w 20 1");
        wires.plug(1, false);
        // What it waits for is granted while it cannot hear of that, and it asks for more.
        assert_eq!(other.ask("set u 20 10"), "ok");
        holds.begin("set r 5 10");
        assert_eq!(server.ask("set w 20 1"), "EAGAIN");
        assert_eq!(other.ask("set r 0 1"), "EAGAIN");
        thread::sleep(Duration::from_secs(2));
        for stranger in [&mut *server, other] {
            assert_eq!(stranger.ask("set r 20 1"), "EAGAIN");
            assert_eq!(stranger.ask("set r 9 1"), "EAGAIN");
        }
        wires.plug(1, true);
        assert_eq!(waits.answer_within(TAKEOVER), "ok");
        assert_eq!(holds.answer_within(TAKEOVER), "ok");
        assert_eq!(server.ask("set r 20 1"), "EAGAIN");
        assert_eq!(server.ask("set r 4 1"), "EAGAIN");
        assert_eq!(server.ask("set r 5 10"), "ok", "it has become a lock to read");
        for locker in [&mut *holds, waits, server] {
            assert_eq!(locker.ask("set u 0 0"), "ok");
        }
        assert_eq!(other.ask("set w 0 0"), "ok");
        assert_eq!(other.ask("set u 0 0"), "ok");
    }
    drop(all);
    leave(&volume, nodes);
}

/// Two databases in one file would not survive this.
#[test]
fn sqlite_on_two_nodes_at_once_loses_nothing() {
    const ROUNDS: usize = 40;
    let volume = Volume::new(256);
    let nodes = nodes(&volume, 2);
    let sql = |node: &Mounted<'_>, sql: &str| {
        run_for(program("sqlite3", ["-cmd", ".timeout 60000"]).arg(node.join("db")).arg(sql), TAKEOVER)
    };
    let made = sql(
        &nodes[0],
        "PRAGMA journal_mode=DELETE; CREATE TABLE t (who, n); INSERT INTO t VALUES ('sum', 0);",
    );
    assert!(made.status.success(), "{made:?}");
    thread::scope(|scope| {
        for (who, node) in nodes.iter().enumerate() {
            scope.spawn(move || {
                for n in 0..ROUNDS {
                    let ended = sql(
                        node,
                        &format!(
                            "BEGIN IMMEDIATE; UPDATE t SET n = n + 1 WHERE who = 'sum'; INSERT INTO t VALUES ({who}, {n}); COMMIT;"
                        ),
                    );
                    assert!(ended.status.success(), "{ended:?}");
                }
            });
        }
    });
    for node in &nodes {
        let found = sql(
            node,
            "PRAGMA integrity_check; SELECT n FROM t WHERE who = 'sum'; SELECT count(DISTINCT who || ' ' || n) FROM t;",
        );
        assert_eq!(found.stdout, format!("ok\n{}\n{}\n", 2 * ROUNDS, 2 * ROUNDS + 1));
    }
    leave(&volume, nodes);
}

/// The command that scripts use.
#[test]
fn flock_of_util_linux_excludes_between_nodes() {
    let volume = Volume::new(256);
    let nodes = nodes(&volume, 2);
    fs::write(nodes[0].join("count"), "0").unwrap();
    fs::write(nodes[0].join("lock"), "").unwrap();
    thread::scope(|scope| {
        for node in &nodes {
            scope.spawn(|| {
                for _ in 0..50 {
                    let script = "read n < count; echo $((n + 1)) > count";
                    run(program("flock", ["lock", "sh", "-c", script]).current_dir(node.path()));
                }
            });
        }
    });
    assert_eq!(fs::read_to_string(nodes[1].join("count")).unwrap().trim(), "100");
    leave(&volume, nodes);
}
