// SPDX-License-Identifier: GPL-2.0-only
//! Nodes of a cluster that are killed or sleep, and the others that go on.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::cluster::leave;
use crate::pattern::content;
use crate::run::wait_until;
use crate::volume::{Mounted, Volume};

const SERVER: &str = "server_addr=127.0.0.1";
/// What a takeover may take on a machine that does many other things.
const TAKEOVER: Duration = Duration::from_secs(90);

/// Three nodes of a volume that works when two are there.
fn three(volume: &Volume) -> Vec<Mounted<'_>> {
    thread::scope(|scope| {
        let mounting: Vec<_> =
            (0..3).map(|n| scope.spawn(move || volume.mount_node(&format!("node{n}"), SERVER))).collect();
        mounting.into_iter().map(|node| node.join().unwrap()).collect()
    })
}

/// Writes a file that is durable when this returns.
fn write_durably(node: &Mounted<'_>, name: &str, seed: u64) {
    let mut file = File::create(node.join(name)).unwrap();
    file.write_all(&content(seed, 20_000)).unwrap();
    file.sync_all().unwrap();
}

fn is_whole(node: &Mounted<'_>, name: &str, seed: u64) -> bool {
    fs::read(node.join(name)).is_ok_and(|bytes| bytes == content(seed, 20_000))
}

/// Each in turn, the leader among them: the others go on with all that was durable, and it comes back.
#[test]
fn any_node_may_be_killed_and_come_back() {
    let volume = Volume::with_quorum(256, 2);
    let mut nodes = three(&volume);
    let mut written = Vec::new();
    for victim in 0..3 {
        for (n, node) in nodes.iter().enumerate() {
            let name = format!("before{victim}-by{n}");
            write_durably(node, &name, written.len() as u64);
            written.push(name);
        }
        // It holds locks that the others need.
        fs::write(nodes[victim].join("shared"), [victim as u8; 100]).unwrap();
        nodes[victim].kill_daemon();
        let others: Vec<&Mounted<'_>> = (0..3).filter(|n| *n != victim).map(|n| &nodes[n]).collect();
        for (n, node) in others.iter().enumerate() {
            let name = format!("after{victim}-by{n}");
            write_durably(node, &name, written.len() as u64);
            written.push(name);
        }
        for node in others {
            for (seed, name) in written.iter().enumerate() {
                assert!(is_whole(node, name, seed as u64), "{name} at {}", node.path().display());
            }
        }
        let dead = nodes.remove(victim);
        dead.bury_node();
        nodes.insert(victim, volume.mount_node(&format!("node{victim}"), SERVER));
        assert!(is_whole(&nodes[victim], &written[0], 0));
    }
    leave(&volume, nodes);
}

/// All at once: the volume is sound as it is, and works again when enough are back.
#[test]
fn all_nodes_may_be_killed_at_once() {
    let volume = Volume::with_quorum(256, 2);
    let mut nodes = three(&volume);
    for (n, node) in nodes.iter().enumerate() {
        write_durably(node, &format!("file{n}"), n as u64);
        fs::write(node.join(format!("lost{n}")), b"perhaps").unwrap();
    }
    nodes.iter_mut().for_each(Mounted::kill_daemon);
    nodes.into_iter().for_each(Mounted::bury_node);
    volume.check();
    let nodes = three(&volume);
    for node in &nodes {
        for n in 0..3 {
            assert!(is_whole(node, &format!("file{n}"), n));
        }
    }
    leave(&volume, nodes);
}

/// A node that sleeps longer than its lease wakes up to find itself fenced: what it had not synced may be lost, and is said to be; what the
/// others did meanwhile is untouched.
#[test]
fn a_node_that_sleeps_too_long_is_fenced_and_harms_nothing() {
    let volume = Volume::with_quorum(256, 2);
    let mut nodes = three(&volume);
    // Any of them may lead; each sleeps once.
    for sleeper in 0..3 {
        let name = format!("file{sleeper}");
        write_durably(&nodes[sleeper], &name, 1);
        let file = OpenOptions::new().write(true).open(nodes[sleeper].join(&name)).unwrap();
        // Not synced, under a lock that the others will want; it may be there or not.
        file.write_all_at(b"lost", 0).unwrap();
        nodes[sleeper].signal_daemon(Signal::STOP);
        let other = &nodes[(sleeper + 1) % 3];
        let mut seen = fs::read(other.join(&name)).unwrap();
        assert!(seen[4..] == content(1, 20_000)[4..], "what the sleeper synced is there");
        seen[..5].copy_from_slice(b"taken");
        fs::write(other.join(&name), &seen).unwrap();
        write_durably(other, &format!("after{sleeper}"), 2);
        nodes[sleeper].signal_daemon(Signal::CONT);
        wait_until("the sleeper finds out", TAKEOVER, || {
            file.write_all_at(b"late", 0).and_then(|()| file.sync_all()).is_err()
        });
        drop(file);
        assert!(fs::read(other.join(&name)).unwrap() == seen, "a late write did harm");
        let asleep = nodes.remove(sleeper);
        asleep.bury_node();
        nodes.insert(sleeper, volume.mount_node(&format!("node{sleeper}"), SERVER));
        assert!(fs::read(nodes[sleeper].join(&name)).unwrap() == seen);
    }
    leave(&volume, nodes);
}
