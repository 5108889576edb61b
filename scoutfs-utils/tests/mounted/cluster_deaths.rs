// SPDX-License-Identifier: GPL-2.0-only
//! Nodes of a cluster that are killed or sleep, and the others that go on.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::cluster::leave;
use crate::pattern::content;
use crate::run::{run, scoutfs, wait_until};
use crate::volume::{Mounted, Volume};

const SERVER: &str = "server_addr=127.0.0.1";
/// What a takeover may take on a machine that does many other things.
pub const TAKEOVER: Duration = Duration::from_secs(90);

/// Three nodes of a volume that works when two are there.
pub fn three(volume: &Volume) -> Vec<Mounted<'_>> {
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

/// Nobody can see the death of a node that sleeps, and no program is told of it: the administrator says so, of it and of no other.
#[test]
fn the_administrator_confirms_a_death_that_nobody_can_see() {
    let volume = Volume::with_quorum(256, 2);
    let mut nodes = three(&volume);
    let status = || -> serde_json::Value {
        serde_json::from_str(&run(scoutfs(["status", "--json"]).arg(volume.image()))).unwrap()
    };
    let in_state = |state: &str| -> Vec<String> {
        let status = status();
        let mounts = status["mounts"].as_array().unwrap().iter().filter(|mount| mount["state"] == *state);
        mounts.map(|mount| mount["rid"].as_str().unwrap().to_owned()).collect()
    };
    let confirm = |rid: &str| scoutfs(["confirm-death", rid, "-p"]).arg(nodes[0].path()).output().unwrap();
    let refused = |rid: &str| {
        let output = confirm(rid);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    for rid in in_state("live") {
        assert!(refused(&rid).contains("is not fenced"));
    }
    assert!(refused("1234").contains("there is no mount 0000000000001234"));
    nodes[2].signal_daemon(Signal::STOP);
    wait_until("the node that sleeps is fenced", TAKEOVER, || !in_state("fenced").is_empty());
    let fenced = in_state("fenced");
    let output = confirm(&fenced[0]);
    assert!(output.status.success(), "{output:?}");
    wait_until("what it held is taken back", TAKEOVER, || in_state("fenced").is_empty());
    assert_eq!(in_state("live").len(), 2);
    // It sleeps, and does not wake up any more.
    let mut dead = nodes.pop().unwrap();
    dead.kill_daemon();
    dead.bury_node();
    write_durably(&nodes[0], "after", 1);
    assert!(is_whole(&nodes[1], "after", 1));
    leave(&volume, nodes);
}

/// A node whose death nobody can see is fenced, and stays so until the administrator's program says that it is done; one that fails is
/// run again.
#[test]
fn a_fence_agent_confirms_a_death_that_nobody_else_can_see() {
    let volume = Volume::with_quorum(256, 2);
    let (agent, log) = (volume.beside("agent"), volume.beside("agent.log"));
    // It succeeds when it is told that the node cannot write any more.
    let done = volume.beside("done");
    let script = format!(
        "#!/bin/sh\necho \"$# $1 $2 $SCOUTFS_FENCED_REQ_RID $SCOUTFS_FENCED_REQ_IP $SCOUTFS_FENCED_REQ_FSID \
         $SCOUTFS_FENCED_REQ_DEVICE $SCOUTFS_FENCED_REQ_REASON\" >> {}\ntest -e {}\n",
        log.display(),
        done.display()
    );
    fs::write(&agent, script).unwrap();
    fs::set_permissions(&agent, fs::Permissions::from_mode(0o755)).unwrap();
    let with_agent = format!("{SERVER},fence={}", agent.display());
    // By FUSE it can sleep.
    let options = [with_agent.clone(), with_agent, format!("{SERVER},fuse")];
    let mut nodes: Vec<Mounted<'_>> = thread::scope(|scope| {
        let volume = &volume;
        let nodes = options.iter().enumerate();
        let mounting: Vec<_> = nodes
            .map(|(n, options)| scope.spawn(move || volume.mount_node(&format!("node{n}"), options)))
            .collect();
        mounting.into_iter().map(|node| node.join().unwrap()).collect()
    });
    let status = || -> serde_json::Value {
        serde_json::from_str(&run(scoutfs(["status", "--json"]).arg(volume.image()))).unwrap()
    };
    let before = status();
    let state_of = |rid: &serde_json::Value| {
        let status = status();
        let mounts = status["mounts"].as_array().unwrap();
        mounts.iter().find(|mount| mount["rid"] == *rid).map(|mount| mount["state"].clone())
    };
    nodes[2].signal_daemon(Signal::STOP);
    // Whoever it was: if it led, another leads then.
    let mut victim = serde_json::Value::Null;
    wait_until("the node that sleeps is fenced", TAKEOVER, || {
        let status = status();
        let mounts = status["mounts"].as_array().unwrap();
        let fenced = mounts.iter().find(|mount| mount["state"] == "fenced");
        victim = fenced.map(|mount| mount["rid"].clone()).unwrap_or_default();
        fenced.is_some()
    });
    let lines = || fs::read_to_string(&log).unwrap_or_default();
    wait_until("the agent is run again after it failed", TAKEOVER, || lines().lines().count() >= 2);
    assert_eq!(state_of(&victim).unwrap(), "fenced", "nobody has confirmed its death");
    let (rid, fsid) = (victim.as_str().unwrap(), before["fsid"].as_str().unwrap());
    for line in lines().lines() {
        let image = line.split(' ').nth(6).unwrap();
        assert_eq!(line, format!("2 {rid} 127.0.0.1 {rid} 127.0.0.1 {fsid} {image} unresponsive"));
        assert_eq!(fs::canonicalize(image).unwrap(), volume.image());
    }
    // The daemon sleeps, and does not wake up any more.
    fs::write(&done, "").unwrap();
    wait_until("what the agent confirmed is taken back", TAKEOVER, || {
        state_of(&victim).is_none_or(|state| state == "gone")
    });
    let said = lines().lines().count();
    let mut dead = nodes.pop().unwrap();
    dead.kill_daemon();
    dead.bury_node();
    write_durably(&nodes[0], "after", 1);
    assert!(is_whole(&nodes[1], "after", 1));
    assert_eq!(lines().lines().count(), said, "it is not run for who is known to be dead");
    leave(&volume, nodes);
}
