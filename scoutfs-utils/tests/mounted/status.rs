// SPDX-License-Identifier: GPL-2.0-only
//! `scoutfs status`, on nodes and on the device.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::cluster::leave;
use crate::run::{run, run_refused, scoutfs, wait_until};
use crate::volume::Volume;

const SERVER: &str = "server_addr=127.0.0.1";
/// What a takeover may take on a machine that does many other things.
const TAKEOVER: Duration = Duration::from_secs(90);

fn status(path: &Path) -> Value {
    serde_json::from_str(&run(scoutfs(["status", "--json"]).arg(path))).unwrap()
}

/// The members of an array whose field has this value.
fn with<'v>(array: &'v Value, field: &str, value: impl Into<Value>) -> Vec<&'v Value> {
    let value = value.into();
    array.as_array().unwrap().iter().filter(|one| one[field] == value).collect()
}

#[test]
fn status_shows_voters_leader_and_mounts_on_every_node_and_offline() {
    let volume = Volume::with_quorum(256, 2);
    let nothing = status(&volume.image());
    assert_eq!((nothing["voters_needed"].as_u64(), nothing["leader"].is_null()), (Some(2), true));
    assert_eq!(with(&nothing["voters"], "state", "free").len(), 3);
    assert_eq!(nothing["mounts"], Value::Array(Vec::new()));

    let mut nodes: Vec<_> = thread::scope(|scope| {
        let mounting = [SERVER, SERVER, "rw"].into_iter().enumerate().map(|(n, options)| {
            let volume = &volume;
            scope.spawn(move || volume.mount_node(&format!("node{n}"), options))
        });
        mounting.collect::<Vec<_>>().into_iter().map(|node| node.join().unwrap()).collect()
    });
    fs::write(nodes[0].join("file"), "").unwrap();
    for path in [nodes[0].path(), &nodes[1].join("file"), nodes[2].path(), &volume.image()] {
        let found = status(path);
        assert_eq!(found["fsid"], nothing["fsid"]);
        let voters = with(&found["voters"], "beats", true);
        assert_eq!((voters.len(), found["voters_beating"].as_u64()), (2, Some(2)));
        assert_eq!(with(&found["voters"], "state", "free").len(), 1);
        let leader = &found["leader"];
        assert_eq!(leader["term"], found["term"]);
        let own = with(&found["voters"], "rid", leader["rid"].clone());
        assert_eq!((&own[0]["slot"], &own[0]["leader_term"]), (&leader["voter"], &leader["term"]));
        assert!(leader["address"].as_str().unwrap().starts_with("127.0.0.1:"));
        let live = with(&found["mounts"], "state", "live");
        assert_eq!(live.len(), 3);
        for voter in voters {
            assert_eq!(with(&found["mounts"], "rid", voter["rid"].clone())[0]["address"], voter["address"]);
            assert_eq!(voter["connected_term"], leader["term"]);
        }
        assert_eq!(with(&found["mounts"], "address", Value::Null).len(), 1);
    }
    let table = run(scoutfs(["status"]).arg(nodes[1].path()));
    assert!(table.contains("\nvoters 2 of 3 beat, 2 needed\n") && table.contains("\nmounts 3\n"), "{table}");

    // One dies: it does not beat, and at last it is no mount any more.
    let rids = |found: &Value| -> Vec<Value> {
        with(&found["mounts"], "state", "live").iter().map(|mount| mount["rid"].clone()).collect()
    };
    let before = rids(&status(&volume.image()));
    let mut dead = nodes.pop().unwrap();
    dead.kill_daemon();
    dead.bury_node();
    wait_until("the dead mount is gone", TAKEOVER, || rids(&status(nodes[0].path())).len() == 2);
    let after = rids(&status(nodes[1].path()));
    assert!(after.iter().all(|rid| before.contains(rid)));
    leave(&volume, nodes);
    let clean = status(&volume.image());
    assert!(clean["leader"].is_null() && with(&clean["voters"], "state", "free").len() == 3);
    // What the last ones left may still be there to be taken back.
    assert_eq!(rids(&clean), [Value::Null; 0]);

    for (path, why) in [
        (volume.beside(""), "is not in a mounted scoutfs volume"),
        (volume.beside("nowhere"), "No such file or directory"),
    ] {
        assert!(run_refused(scoutfs(["status"]).arg(path)).contains(why));
    }
    let other = volume.beside("other");
    fs::write(&other, vec![0; 64 << 20]).unwrap();
    assert!(run_refused(scoutfs(["status"]).arg(&other)).starts_with("scoutfs: status failed: "));
}
